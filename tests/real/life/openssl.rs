//! A handshake of two processes of openssl, each of which takes partial chains, as Envoy does.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use testbed::{Process, Program};

use super::prober::Credentials;
use super::rig::LONG;

const POLL: Duration = Duration::from_millis(2);

/// Both ends verify the other one. In TLS 1.2 neither is done before the other one trusts it.
pub fn handshake(client: &Credentials, server: &Credentials) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let listening = Listening::start(folder.path(), &files(folder.path(), "server", server)?)?;
    let output = Command::new("openssl")
        .args(end("s_client", &files(folder.path(), "client", client)?))
        .args(["-connect", &listening.address, "-verify", "10", "-brief"])
        .stdin(Stdio::null())
        .output()?;
    let said = || String::from_utf8_lossy(&output.stderr).lines().take(6).collect::<Vec<_>>().join(" | ");
    ensure!(output.status.success(), "the client says: {}", said());
    listening.end()
}

/// Files of a moment: the agent may write its own anew.
fn files(folder: &Path, name: &str, credentials: &Credentials) -> Result<[PathBuf; 3]> {
    let paths = ["chain", "key", "roots"].map(|part| folder.join(format!("{name}-{part}.pem")));
    let workload = &credentials.workload;
    for (path, text) in paths.iter().zip([&workload.chain_pem, &workload.key_pem, &credentials.roots]) {
        fs::write(path, text)?;
    }
    Ok(paths)
}

fn end(part: &str, [chain, key, roots]: &[PathBuf; 3]) -> Vec<OsString> {
    let flags = ["-no-CApath", "-no-CAstore", "-partial_chain", "-verify_return_error", "-tls1_2"].map(OsString::from);
    let files = [("-cert", chain), ("-cert_chain", chain), ("-key", key), ("-CAfile", roots)];
    let files = files.into_iter().flat_map(|(flag, path)| [flag.into(), path.into()]);
    std::iter::once(part.into()).chain(flags).chain(files).collect()
}

/// The server, for one connection. It asks its input for nothing.
struct Listening {
    process: Process,
    address: String,
}

impl Listening {
    fn start(folder: &Path, files: &[PathBuf; 3]) -> Result<Self> {
        let process = Program::new("openssl")
            .args(end("s_server", files))
            .args(["-accept", "127.0.0.1:0", "-naccept", "1", "-Verify", "10", "-www"])
            .spawn(folder.join("server.log"))?;
        let until = Instant::now() + LONG;
        loop {
            if let Some(address) = process.log().lines().find_map(|line| line.strip_prefix("ACCEPT ")) {
                return Ok(Self { address: address.to_owned(), process });
            }
            ensure!(process.is_running() && Instant::now() < until, "the server says: {}", process.log());
            thread::sleep(POLL);
        }
    }

    /// It has ended without an error.
    fn end(&self) -> Result<()> {
        let until = Instant::now() + LONG;
        while self.process.is_running() {
            ensure!(Instant::now() < until, "the server does not end");
            thread::sleep(POLL);
        }
        let said = self.process.log();
        let error = said.lines().find(|line| line.contains("error:"));
        ensure!(error.is_none(), "the server says: {}", error.unwrap_or_default());
        Ok(())
    }
}

//! A handshake of two processes of openssl, each of which takes partial chains, as Envoy does.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::prober::Credentials;

/// Both ends verify the other one. In TLS 1.2 neither is done before the other one trusts it.
pub fn handshake(client: &Credentials, server: &Credentials) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let listening = Listening::start(&files(folder.path(), "server", server)?)?;
    let output = end("s_client", &files(folder.path(), "client", client)?)
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

fn end(part: &str, [chain, key, roots]: &[PathBuf; 3]) -> Command {
    let mut command = Command::new("openssl");
    command.arg(part).arg("-cert").arg(chain).arg("-cert_chain").arg(chain).arg("-key").arg(key);
    command.args(["-no-CApath", "-no-CAstore", "-CAfile"]).arg(roots);
    command.args(["-partial_chain", "-verify_return_error", "-tls1_2"]);
    command
}

/// The server, for one connection.
struct Listening {
    process: Child,
    address: String,
}

impl Listening {
    fn start(files: &[PathBuf; 3]) -> Result<Self> {
        let mut process = end("s_server", files)
            .args(["-accept", "127.0.0.1:0", "-naccept", "1", "-Verify", "10"])
            // At the end of its input it would end.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(process.stdout.take().context("no output")?).lines();
        let address = loop {
            let line = lines.next().context("the server ended")??;
            if let Some(address) = line.strip_prefix("ACCEPT ") {
                break address.to_owned();
            }
        };
        // It may go on to write: nothing of that is wanted.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { process, address })
    }

    /// It has ended without an error.
    fn end(mut self) -> Result<()> {
        let mut said = String::new();
        self.process.stderr.take().context("no output")?.read_to_string(&mut said)?;
        self.process.wait()?;
        let error = said.lines().find(|line| line.contains("error:"));
        ensure!(error.is_none(), "the server says: {}", error.unwrap_or_default());
        Ok(())
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

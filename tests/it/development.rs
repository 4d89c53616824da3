//! The certificates for development, of `certs/make`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use reqwest::{Certificate, Client, Identity};

use crate::gate::review;
use crate::product::{Product, world};

const KEYS: [&str; 3] = ["ca.key", "client.key", "server.key"];
const ALL: [&str; 6] = ["ca.crt", "ca.key", "client.crt", "client.key", "server.crt", "server.key"];

/// Runs it for a folder.
fn make(folder: &Path) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("certs/make");
    let output = Command::new(script).arg(folder).output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}

/// All that is in the folder.
fn files(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let entries = fs::read_dir(folder)?.map(|entry| {
        let entry = entry?;
        Ok((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?))
    });
    entries.collect()
}

/// The names of what is another file than before.
fn changed(before: &BTreeMap<String, Vec<u8>>, folder: &Path) -> Result<Vec<String>> {
    let after = files(folder)?;
    Ok(after.into_iter().filter(|(name, content)| before.get(name) != Some(content)).map(|(name, _)| name).collect())
}

#[test]
fn what_is_good_is_kept_and_only_what_is_not_is_made_anew() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path().join("dev");
    make(&folder)?;
    let first = files(&folder)?;
    ensure!(first.keys().eq(ALL.iter()), "{:?}", first.keys());
    make(&folder)?;
    ensure!(changed(&first, &folder)?.is_empty());

    fs::remove_file(folder.join("client.key"))?;
    make(&folder)?;
    ensure!(changed(&first, &folder)? == ["client.crt", "client.key"]);

    // A key of another certificate, and then a CA that the others are not by.
    fs::copy(folder.join("client.key"), folder.join("server.key"))?;
    let before = files(&folder)?;
    make(&folder)?;
    ensure!(changed(&before, &folder)? == ["server.crt", "server.key"]);
    fs::write(folder.join("ca.key"), "half of a k")?;
    make(&folder)?;
    ensure!(changed(&first, &folder)?.iter().eq(ALL.iter()));
    Ok(())
}

#[test]
fn keys_are_readable_by_their_owner_alone_and_git_ignores_them() -> Result<()> {
    let folder = tempfile::tempdir()?;
    make(folder.path())?;
    // Also those that somebody has opened since.
    fs::set_permissions(folder.path().join("ca.key"), fs::Permissions::from_mode(0o644))?;
    make(folder.path())?;
    for key in KEYS {
        let mode = fs::metadata(folder.path().join(key))?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "{key}: {mode:o}");
    }
    let ignored = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("certs/.gitignore"))?;
    ensure!(ignored.lines().any(|line| line == "/dev/"), "{ignored}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gate_serves_with_them_and_lets_their_caller_in_alone() -> Result<()> {
    let folder = tempfile::tempdir()?;
    make(folder.path())?;
    let path = |name: &str| folder.path().join(name).to_str().map(str::to_owned).context("a path");
    let (certificate, key, ca) = (path("server.crt")?, path("server.key")?, path("ca.crt")?);
    let flags = ["--role", "sync", "--tls-cert-file", &certificate, "--tls-key-file", &key, "--client-ca-file", &ca];
    let (kubernetes, vault) = world().await?;
    let product = Product::start(kubernetes, vault, &flags).await?;

    let trusting =
        || -> Result<_> { Ok(Client::builder().tls_certs_only([Certificate::from_pem(&fs::read(&ca)?)?]).no_proxy()) };
    let (status, text) = product.post(&trusting()?.build()?, review("not-gated").to_string().into()).await?;
    ensure!(status == 403 && text.contains("client certificate"), "{status}: {text}");

    let identity = [fs::read(path("client.crt")?)?, fs::read(path("client.key")?)?].concat();
    // Under each of its names: the API server knows it by its Service's.
    for name in ["127.0.0.1", "localhost", "istio-ca-gate.istio-system.svc"] {
        let (_, port) = product.address();
        let caller = trusting()?.identity(Identity::from_pem(&identity)?).resolve(name, ([127, 0, 0, 1], port).into());
        let url = format!("https://{name}:{port}/validate?timeout=10s");
        let answer = caller.build()?.post(url).body(review("not-gated").to_string()).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status == 200 && text.contains("\"allowed\":true"), "{name}: {status}: {text}");
    }
    Ok(())
}

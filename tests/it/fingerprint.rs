//! `fingerprint`, byte by byte beside the openssl that people compare with.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tempfile::TempDir;
use testbed::Program;

use crate::certificates::Authority;
use crate::command::{kubeconfig, run, run_with};
use crate::kubernetes::{Kubernetes, SECRETS, status};
use crate::vault::{self, JWT, READ, errors, never_written, version};
use standin::scripted::Answer;

struct Files(TempDir);

impl Files {
    fn new() -> Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> Result<String> {
        let path = self.0.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    }
}

/// What openssl prints.
async fn openssl(file: &str, digest: Option<&str>) -> Result<String> {
    let version = Program::new("openssl").arg("version").output(None).await?;
    ensure!(version.starts_with("OpenSSL 3"), "these are not the spellings of {version}");
    let program = Program::new("openssl").args(["x509", "-fingerprint", "-noout", "-in", file]);
    program.args(digest).output(None).await
}

/// A CA as openssl makes one by itself, and the same in other shapes.
async fn samples(files: &Files) -> Result<Vec<String>> {
    let (key, made) = (files.write("key.pem", "")?, files.write("made.pem", "")?);
    let request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/O=Istio/CN=Root", "-keyout", &key];
    Program::new("openssl").args(request).args(["-out", &made]).output(None).await?;
    let text = Program::new("openssl").args(["x509", "-text", "-in", &made]).output(None).await?;
    let (key, pem) = (std::fs::read_to_string(key)?, std::fs::read_to_string(&made)?);
    let other = Authority::new("Other")?;
    Ok(vec![
        made,
        files.write("crlf.pem", pem.replace('\n', "\r\n"))?,
        files.write("with-text.pem", text)?,
        files.write("with-key.pem", format!("{key}{pem}"))?,
        files.write("two.pem", format!("{pem}{}", other.pem()))?,
        files.write("two-others.pem", format!("{}{pem}", other.pem()))?,
        files.write("garbage-behind.pem", format!("{pem}-----BEGIN CERTIFICATE-----\n4711"))?,
    ])
}

#[tokio::test]
async fn it_prints_what_openssl_prints() -> Result<()> {
    let files = Files::new()?;
    for file in samples(&files).await? {
        for (flags, digest) in [(&["--openssl"][..], Some("-sha256")), (&["--openssl", "--sha1"], None)] {
            let said = run(&[&["fingerprint", &file], flags].concat(), &[]).await?;
            let wanted = openssl(&file, digest).await?;
            ensure!(said.code == Some(0) && said.stderr.is_empty(), "{file}: {said:?}");
            ensure!(said.stdout == wanted, "{file}: {said:?}, openssl: {wanted}");
            // Without the flag, what is behind the sign alone.
            let short: Vec<_> = flags.iter().copied().filter(|flag| *flag != "--openssl").collect();
            let said = run(&[&["fingerprint", &file], &short[..]].concat(), &[]).await?;
            ensure!(Some(said.stdout.as_str()) == wanted.split_once('=').map(|(_, digest)| digest), "{said:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn standard_input_is_a_file_too() -> Result<()> {
    let (ca, files) = (Authority::new("Root")?, Files::new()?);
    let file = files.write("root.pem", ca.pem())?;
    let said = run_with(&["fingerprint", "-", "--openssl"], &[], ca.pem()).await?;
    ensure!(said.stdout == openssl(&file, Some("-sha256")).await?, "{said:?}");
    run_with(&["fingerprint", "-"], &[], "").await?.is_refused(&["no CERTIFICATE block in standard input"])
}

#[tokio::test]
async fn a_clusters_and_vaults_root_are_those_of_the_file() -> Result<()> {
    let (ca, other, files) = (Authority::new("Root")?, Authority::new("Other")?, Files::new()?);
    let (current, named, vault) = (Kubernetes::start().await?, Kubernetes::start().await?, vault::start().await?);
    current.put(SECRETS, json!({ "metadata": { "name": "cacerts" }, "data": ca.secret_data() }))?;
    named.put(SECRETS, json!({ "metadata": { "name": "cacerts" }, "data": other.secret_data() }))?;
    vault.always(READ, version(1, &ca.record()));
    let config = files.0.path().join("kubeconfig");
    kubeconfig(&config, &[("a-current", current.server.url()), ("named", named.server.url())])?;
    let digest = async |ca: &Authority| openssl(&files.write("root.pem", ca.pem())?, Some("-sha256")).await;
    let (ca, other) = (digest(&ca).await?, digest(&other).await?);
    let (config, vault_url) = (config.to_string_lossy(), vault.url());
    let token = files.write("token", JWT)?;
    let known = [("KUBECONFIG", &*config), ("VAULT_ADDR", &vault_url), ("GATE_VAULT_JWT_FILE", &token)];
    for (flags, variable, wanted) in [
        (&[][..], None, &ca),
        (&["--context", "named"][..], None, &other),
        (&[][..], Some("named"), &other),
        (&["--context", "a-current"][..], Some("named"), &ca),
        (&["--vault"][..], Some("named"), &ca),
    ] {
        let variables: Vec<_> = known.iter().copied().chain(variable.map(|name| ("GATE_CONTEXT", name))).collect();
        let said = run(&[&["fingerprint", "--openssl"], flags].concat(), &variables).await?;
        ensure!(said.code == Some(0) && said.stdout == *wanted, "{flags:?} {variable:?}: {said:?}");
    }
    // A file is read whatever the variables say, unless they name another place.
    let empty = files.write("empty", "")?;
    let variables = [("GATE_CONTEXT", "named"), ("GATE_FINGERPRINT_VAULT", "false")];
    let said = run(&["fingerprint", &empty], &variables).await?;
    said.is_refused(&["no CERTIFICATE block in "])?;
    let said = run(&["fingerprint", &empty], &[("GATE_FINGERPRINT_VAULT", "true")]).await?;
    said.is_refused(&["GATE_FINGERPRINT_VAULT"])
}

#[tokio::test]
async fn an_error_names_the_place_and_the_next_step() -> Result<()> {
    let (ca, files) = (Authority::new("Root")?, Files::new()?);
    let empty = files.write("empty.pem", "")?;
    for (file, says) in [
        (empty.clone(), "no CERTIFICATE block in "),
        (files.write("key.pem", ca.key_pem())?, "no CERTIFICATE block in "),
        (files.write("not-utf-8", [0x30, 0x82, 0xff])?, "no CERTIFICATE block in "),
        (files.write("cut.pem", &ca.pem()[..200])?, "block 1 of "),
        (files.write("large.pem", vec![b'\n'; 400_000])?, "is larger than "),
        ("/nowhere/root.pem".to_owned(), "cannot read /nowhere/root.pem: "),
        ("/".to_owned(), "cannot read /: "),
    ] {
        run(&["fingerprint", &file], &[]).await?.is_refused(&[says, &file])?;
    }
    for args in [["--vault", &empty], ["--context=c", &empty], ["--vault", "--context=c"]] {
        run(&[&["fingerprint"], &args[..]].concat(), &[]).await?.is_refused(&["one of FILE, --context and --vault"])?;
    }
    run(&["fingerprint", "--vault"], &[]).await?.is_refused(&["--vault-addr", "VAULT_ADDR"])?;
    run(&["fingerprint", "--kubeconfig", "/nowhere"], &[]).await?.is_refused(&["--kubeconfig", "--context"])
}

#[tokio::test]
async fn what_is_held_back_has_its_reason_code_and_nothing_of_a_key() -> Result<()> {
    let (ca, files) = (Authority::new("Root")?, Files::new()?);
    let (kubernetes, vault) = (Kubernetes::start().await?, vault::start().await?);
    let config = files.0.path().join("kubeconfig");
    kubeconfig(&config, &[("c", kubernetes.server.url())])?;
    let (config, vault_url) = (config.to_string_lossy(), vault.url());
    let token = files.write("token", JWT)?;
    let known =
        [("KUBECONFIG", &*config), ("VAULT_ADDR", &vault_url), ("GATE_VAULT_JWT_FILE", &token), ("RUST_LOG", "trace")];
    let mut broken = ca.record();
    broken.remove("cert-chain.pem");
    for (answer, code) in [
        (never_written(), "RootMissing"),
        (errors(503, &["Vault is sealed"]), "VaultSealed"),
        (errors(403, &["permission denied"]), "VaultPermissionDenied"),
        (version(1, &broken), "RootInvalid"),
        (Answer::hang_up(), "VaultUnreachable"),
    ] {
        vault.always(READ, answer);
        let said = run(&["fingerprint", "--vault"], &known).await?;
        ensure!(said.code == Some(1) && said.stdout.is_empty(), "{said:?}");
        ensure!(said.stderr.starts_with(&format!("istio-ca-gate: {code}: ")), "{code}: {said:?}");
        ensure!(!said.stderr.contains("tried again"), "{said:?}");
    }
    let cacerts = "GET /api/v1/namespaces/istio-system/secrets/cacerts";
    kubernetes.server.always(cacerts, status(403, "Forbidden"));
    let said = run(&["fingerprint"], &known).await?;
    ensure!(said.code == Some(1) && said.stderr.contains("KubernetesForbidden: "), "{said:?}");
    kubernetes.server.always(cacerts, status(404, "NotFound"));
    run(&["fingerprint"], &known).await?.is_refused(&["there is no Secret istio-system/cacerts: "])?;
    // The key in the place of the root.
    let mut data = ca.secret_data();
    data["root-cert.pem"] = data["ca-key.pem"].clone();
    kubernetes.server.always(cacerts, Answer::json(200, &json!({ "data": data })));
    let said = run(&["fingerprint"], &known).await?;
    said.is_refused(&["no CERTIFICATE block in root-cert.pem of Secret istio-system/cacerts"])?;
    let key = ca.key_pem();
    let line = key.lines().nth(1).context("no key")?;
    ensure!(!said.all().contains(line), "{said:?}");
    Ok(())
}

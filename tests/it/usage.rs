//! Wrong use and configuration: exit code 2, and one line that says what to mend.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::product::{binary, kubeconfig};

/// Longest run of a program that has nothing to do.
const AT_MOST: Duration = Duration::from_secs(20);

/// A configuration in which nothing is wrong but that nobody answers.
struct Sound {
    folder: tempfile::TempDir,
}

impl Sound {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("kubeconfig"), kubeconfig("http://127.0.0.1:1"))?;
        Ok(Self { folder })
    }

    fn file(&self, name: &str, text: &str) -> Result<String> {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// Runs it with these flags and variables; a variable without a value is not set.
    async fn run(&self, args: &[&str], variables: &[(&str, &str)]) -> Result<(Option<i32>, String, String)> {
        let mut command = Command::new(binary());
        command.args(args).env_clear();
        command.env("KUBECONFIG", self.folder.path().join("kubeconfig"));
        command.env("GATE_LISTEN", "127.0.0.1:0").env("GATE_ADMIN_LISTEN", "127.0.0.1:0");
        command.env("GATE_ROLE", "sync").env("VAULT_ADDR", "http://127.0.0.1:1");
        for (name, value) in variables {
            match *value {
                "" => command.env_remove(name),
                value => command.env(name, value),
            };
        }
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(AT_MOST, command.output());
        let output = output.await.with_context(|| format!("it runs with {args:?} {variables:?}"))??;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok((output.status.code(), text(output.stdout), text(output.stderr)))
    }

    /// Expects exit code 2 and one line with all of `says`.
    async fn wrong(&self, args: &[&str], variables: &[(&str, &str)], says: &[&str]) -> Result<()> {
        let (code, stdout, stderr) = self.run(&[&["serve"], args].concat(), variables).await?;
        let what = format!("{args:?} {variables:?}: {code:?}: {stdout}{stderr}");
        ensure!(code == Some(2) && stdout.is_empty(), "{what}");
        ensure!(stderr.lines().count() == 1 && stderr.starts_with("istio-ca-gate: "), "{what}");
        ensure!(says.iter().all(|says| stderr.contains(says)), "not all of {says:?}: {what}");
        Ok(())
    }
}

#[tokio::test]
async fn a_bad_value_names_flag_and_variable_wherever_it_is_from() -> Result<()> {
    let sound = Sound::new()?;
    for (flag, variable, bad) in [
        ("--role", "GATE_ROLE", "primary"),
        ("--cluster", "GATE_CLUSTER", "a b"),
        ("--listen", "GATE_LISTEN", "8443"),
        ("--listen", "GATE_LISTEN", "localhost:https"),
        ("--admin-listen", "GATE_ADMIN_LISTEN", "on"),
        ("--namespace", "GATE_NAMESPACE", "Istio_System"),
        ("--secret", "GATE_SECRET", "ca/certs"),
        ("--gate-selector", "GATE_SELECTORS", "app in (istiod"),
        ("--gate-selector", "GATE_SELECTORS", ","),
        ("--refresh", "GATE_REFRESH", "soon"),
        ("--refresh", "GATE_REFRESH", "60"),
        ("--retry-max", "GATE_RETRY_MAX", "-1s"),
        ("--vault-unavailable", "GATE_VAULT_UNAVAILABLE", "allow"),
        ("--max-staleness", "GATE_MAX_STALENESS", "1000y"),
        ("--on-root-change", "GATE_ON_ROOT_CHANGE", "ask"),
        ("--tls-secret", "GATE_TLS_SECRET", "UPPER"),
        ("--tls-ca-life", "GATE_TLS_CA_LIFE", "11y"),
        ("--tls-leaf-life", "GATE_TLS_LEAF_LIFE", "2s"),
        ("--client-ca-file", "GATE_CLIENT_CA_FILE", "/nowhere/ca.pem"),
        ("--shutdown-delay", "GATE_SHUTDOWN_DELAY", "x"),
        ("--vault-addr", "GATE_VAULT_ADDRS", "vault:8200"),
        ("--vault-addr", "GATE_VAULT_ADDRS", "https://vault.example/v1"),
        ("--vault-addr", "GATE_VAULT_ADDRS", "https://one.example,two.example"),
        ("--vault-ca-cert", "VAULT_CACERT", "/nowhere/ca.pem"),
        ("--vault-ca-cert", "VAULT_CACERT", "/"),
        ("--vault-auth-mount", "GATE_VAULT_AUTH_MOUNT", "../sys"),
        ("--vault-mount", "GATE_VAULT_MOUNT", "/"),
        ("--vault-path", "GATE_VAULT_PATH", "istio/ca?x"),
        ("--vault-pki-mount", "GATE_VAULT_PKI_MOUNT", "pki mesh"),
        ("--signer-life", "GATE_SIGNER_LIFE", "2s"),
        ("--vault-timeout", "GATE_VAULT_TIMEOUT", "3 s econds"),
        ("--reconcile-helmrelease", "GATE_RECONCILE_HELMRELEASES", "istiod"),
        ("--reconcile-helmrelease", "GATE_RECONCILE_HELMRELEASES", "flux-system/istiod,flux-system/../secrets"),
        ("--log-format", "GATE_LOG_FORMAT", "xml"),
        ("--log-filter", "RUST_LOG", "istio_ca_gate=loud"),
        ("--kubeconfig", "KUBECONFIG", "/nowhere/kubeconfig"),
        ("--context", "GATE_CONTEXT", "elsewhere"),
    ] {
        let flagged = format!("{flag}={bad}");
        sound
            .wrong(&[&flagged], &[("GATE_ROLE", if flag == "--role" { "" } else { "sync" })], &[flag, variable])
            .await?;
        sound.wrong(&[], &[(variable, bad)], &[flag, variable]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_is_missing_unknown_or_repeated_is_named() -> Result<()> {
    let sound = Sound::new()?;
    sound.wrong(&[], &[("GATE_ROLE", "")], &["--role", "GATE_ROLE"]).await?;
    sound.wrong(&[], &[("VAULT_ADDR", "")], &["--vault-addr", "GATE_VAULT_ADDRS", "VAULT_ADDR"]).await?;
    sound.wrong(&[], &[("VAULT_ADDR", "nonsense")], &["VAULT_ADDR"]).await?;
    let pair = ["--tls-cert-file", "--tls-key-file", "GATE_TLS_CERT_FILE", "GATE_TLS_KEY_FILE"];
    sound.wrong(&["--tls-cert-file=/nowhere/tls.crt"], &[], &pair).await?;
    sound.wrong(&[], &[("GATE_TLS_KEY_FILE", "/nowhere/tls.key")], &pair).await?;
    sound.wrong(&["--tls-cert-file=/nowhere/c", "--tls-key-file=/nowhere/k"], &[], &pair).await?;
    sound.wrong(&["--tls-ca-life=1h"], &[], &["--tls-leaf-life", "--tls-ca-life"]).await?;
    sound.wrong(&["--rolle", "sync"], &[], &["'--rolle'"]).await?;
    sound.wrong(&["now"], &[], &["'now'"]).await?;
    // A signer is called by the cluster, and a common name ends at 64 letters.
    let long = format!("--cluster={}", "x".repeat(43));
    let says = ["--cluster", "GATE_CLUSTER", "--vault-pki-mount", "1 to 42 letters"];
    sound.wrong(&[&long, "--vault-pki-mount=pki-mesh"], &[], &says).await?;
    sound.wrong(&["--role"], &[], &["--role", "GATE_ROLE"]).await?;
    sound.wrong(&["--refresh=1s", "--refresh=2s"], &[], &["--refresh", "GATE_REFRESH"]).await?;
    let (code, _, stderr) = sound.run(&["server"], &[]).await?;
    ensure!(code == Some(2) && stderr.lines().count() == 1 && stderr.contains("'server'"), "{stderr}");
    Ok(())
}

#[tokio::test]
async fn files_that_hold_something_else_are_named_and_not_shown() -> Result<()> {
    let sound = Sound::new()?;
    let certificate = ["--vault-ca-cert", "VAULT_CACERT"];
    for text in ["", "4711-content", "-----BEGIN CERTIFICATE-----\n4711\n-----END CERTIFICATE-----\n"] {
        let file = sound.file("ca.pem", text)?;
        sound.wrong(&["--vault-ca-cert", &file], &[], &[certificate[0], certificate[1], &file]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_kubeconfig_that_does_not_parse_is_told_in_one_line_without_its_content() -> Result<()> {
    let sound = Sound::new()?;
    let odd_token = "{\"users\":[{\"name\":\"u\",\"user\":{\"token\":[\"4711\"]}}]}";
    for text in ["", "4711-content", "[", "users: 4711", odd_token, "a: b\nc"] {
        let file = sound.file("other", text)?;
        let (_, _, stderr) = sound.run(&["serve", "--kubeconfig", &file], &[]).await?;
        ensure!(!stderr.contains("4711"), "{stderr}");
        sound.wrong(&["--kubeconfig", &file], &[], &["--kubeconfig", "KUBECONFIG"]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_token_that_cannot_be_one_is_not_shown() -> Result<()> {
    let sound = Sound::new()?;
    for token in ["hvs.4711 4711", "hvs.4711\n", "hvs.4711ü"] {
        sound.wrong(&[], &[("VAULT_TOKEN", token)], &["VAULT_TOKEN"]).await?;
        let (_, _, stderr) = sound.run(&["serve"], &[("VAULT_TOKEN", token)]).await?;
        ensure!(!stderr.contains("4711"), "{stderr}");
    }
    Ok(())
}

#[tokio::test]
async fn a_taken_port_is_named() -> Result<()> {
    let sound = Sound::new()?;
    let taken = TcpListener::bind("127.0.0.1:0").await?;
    let address = taken.local_addr()?.to_string();
    sound.wrong(&["--listen", &address], &[], &["--listen", "GATE_LISTEN", &address]).await?;
    sound.wrong(&[], &[("GATE_ADMIN_LISTEN", &address)], &["--admin-listen", "GATE_ADMIN_LISTEN", &address]).await
}

#[tokio::test]
async fn a_name_that_no_certificate_can_have_is_a_wrong_value() -> Result<()> {
    let sound = Sound::new()?;
    sound.wrong(&["--dns-name", "gäte.example"], &[], &["--dns-name", "GATE_DNS_NAMES"]).await
}

#[tokio::test]
async fn a_vault_namespace_that_no_header_can_have_is_a_wrong_value() -> Result<()> {
    let sound = Sound::new()?;
    sound.wrong(&["--vault-namespace", "tëam"], &[], &["--vault-namespace", "VAULT_NAMESPACE"]).await
}

#[tokio::test]
async fn a_duration_of_zero_is_a_wrong_value() -> Result<()> {
    let sound = Sound::new()?;
    for (flag, variable) in
        [("--refresh", "GATE_REFRESH"), ("--retry-max", "GATE_RETRY_MAX"), ("--vault-timeout", "GATE_VAULT_TIMEOUT")]
    {
        sound.wrong(&[flag, "0s"], &[], &[flag, variable]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn help_is_complete_and_no_error() -> Result<()> {
    let sound = Sound::new()?;
    let (code, stdout, stderr) = sound.run(&["serve", "--help"], &[]).await?;
    ensure!(code == Some(0) && stderr.is_empty(), "{code:?} {stderr}");
    // Every flag has its variable, but the ones whose variable is another program's too.
    for line in stdout.lines().filter(|line| line.trim_start().starts_with("--")) {
        let flag = line.split_whitespace().next().unwrap_or_default();
        let after = stdout.split(line).nth(1).unwrap_or_default();
        let text = after.split("\n      --").next().unwrap_or_default();
        ensure!(
            line.contains("[env: ") || text.contains("[env: ") || text.contains("KUBECONFIG"),
            "{flag} has no variable"
        );
    }
    let (code, stdout, _) = sound.run(&["--version"], &[]).await?;
    ensure!(code == Some(0) && stdout.starts_with("istio-ca-gate "), "{stdout}");
    Ok(())
}

#[tokio::test]
async fn check_tells_by_its_exit_code_whether_a_ca_is_sound_refused_or_unread() -> Result<()> {
    let sound = Sound::new()?;
    let record = crate::certificates::Authority::new("Istio Root CA")?.record();
    let good = sound.file("record.json", &serde_json::to_string(&record)?)?;
    let mut no_key = record.clone();
    no_key["key.pem"] = serde_json::json!("nothing");
    let bad = sound.file("bad.json", &serde_json::to_string(&no_key)?)?;
    for (paths, wanted, says) in [
        (vec![good.as_str()], 0, "sound, root sha256"),
        (vec![&good, &bad], 1, "refused: "),
        (vec![&bad, "/nowhere"], 2, "unread: cannot read /nowhere"),
    ] {
        let (code, stdout, stderr) = sound.run(&[&["check"], paths.as_slice()].concat(), &[]).await?;
        ensure!(code == Some(wanted) && stdout.contains(says), "{paths:?}: {code:?} {stdout}{stderr}");
        ensure!(stderr.is_empty() && !stdout.contains("PRIVATE KEY"), "{stdout}{stderr}");
    }
    let (code, stdout, _) = sound.run(&["check", "-o", "json", &good], &[]).await?;
    let told: serde_json::Value = serde_json::from_str(&stdout)?;
    ensure!(code == Some(0) && told[0]["verdict"] == "sound" && told[0]["usableUntil"].is_string(), "{told}");
    Ok(())
}

#[tokio::test]
async fn the_usage_has_the_name_that_is_typed_as_kubectls_plugin_too() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for (file, typed) in [
        ("kubectl-istio_ca_gate", "kubectl istio-ca-gate"),
        ("istio-ca-gate", "istio-ca-gate"),
        ("gate-0.1.0", "istio-ca-gate"),
    ] {
        let path = folder.path().join(file);
        std::os::unix::fs::symlink(binary(), &path)?;
        let output = Command::new(&path).args(["verify", "--help"]).env_clear().output().await?;
        let help = String::from_utf8(output.stdout)?;
        ensure!(output.status.success() && help.contains(&format!("Usage: {typed} verify ")), "{help}");
        ensure!(help.contains("-n, --namespace"), "{help}");
        // A wrong word is told by the program's own name, as every error is.
        let output = Command::new(&path).arg("nonsense").env_clear().output().await?;
        let error = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(2) && error.starts_with("istio-ca-gate: "), "{error}");
    }
    Ok(())
}

//! The tour as a user runs it: the built program, in plain lines.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testbed::Program;

/// What each chapter must have shown, in order.
const TOLD: [&str; 12] = [
    "both are dormant",
    "nas: the pods of istiod and of the gateway are refused",
    "denied the request: RootMissing: cluster nas:",
    "homelab: istiod asks; its gate makes an RSA-4096 root",
    "nas: both pods are in",
    "one root in both clusters",
    "has published Vault's bytes again",
    "its pod is let in with a warning",
    "denied the request: VaultSealed: cluster nas:",
    "Vault refuses to overwrite the root",
    "RootChanged: cluster nas:",
    "no key in any log",
];

fn sandbox() -> Program {
    // Its ports are reserved among all of this user's test processes.
    Program::new(env!("CARGO_BIN_EXE_sandbox")).env("HOME", std::env::var_os("HOME").unwrap_or_default())
}

#[tokio::test]
async fn all_goes_as_told_in_plain_lines_whatever_vault_the_user_has() -> Result<()> {
    // Neither may be taken for the sandbox's own.
    let output = sandbox()
        .arg("--once")
        .env("VAULT_TOKEN", "hvs.another")
        .env("GATE_VAULT_PATH", "elsewhere")
        .output(None)
        .await?;
    // Lines are wrapped at blanks.
    let words = output.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut rest = words.as_str();
    for told in TOLD {
        let at = rest.find(told).with_context(|| format!("no {told:?} in what is left: {rest}"))?;
        rest = &rest[at..];
    }
    ensure!(!output.contains('✗') && !output.contains('\u{1b}'), "{output}");
    let fingerprint = |side: &str| {
        let line =
            output.lines().map(str::trim).find(|line| line.starts_with(side) && line.matches(':').count() == 31)?;
        line.split_whitespace().nth(1)
    };
    let homelab = fingerprint("homelab ").with_context(|| output.clone())?;
    ensure!(fingerprint("nas ") == Some(homelab), "{output}");
    Ok(())
}

#[tokio::test]
async fn what_does_not_go_as_told_ends_it_with_an_error_that_names_the_step() -> Result<()> {
    let ended = sandbox().args(["--once", "--fault", "nas=403"]).output(None).await;
    let error = format!("{:#}", ended.err().context("all went as told, under a fault")?);
    ensure!(error.contains("exit status: 1"), "{error}");
    ensure!(error.contains("not as told: nas: istiod, the east-west gateway and a bystander are deployed"), "{error}");
    ensure!(error.contains('✗') && error.contains("the gates' logs are in "), "{error}");
    let kept =
        error.split("the gates' logs are in ").nth(1).and_then(|rest| rest.split(':').next()).context("where?")?;
    ensure!(std::fs::read_to_string(format!("{kept}/nas-gate.log"))?.contains("starting"), "{kept}");
    std::fs::remove_dir_all(kept)?;
    Ok(())
}

#[tokio::test]
async fn after_the_tour_all_stays_up_and_what_it_prints_to_try_works() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let process = sandbox().spawn(folder.path().join("log"))?;
    let soon = Duration::from_secs(60);
    process
        .until("the end of the tour", soon, || async { process.log().contains("Ctrl-C ends it.").then_some(()) })
        .await?;
    let log = process.log();
    let commands: Vec<&str> = log.lines().map(str::trim).filter(|line| line.starts_with("curl ")).collect();
    ensure!(commands.len() == 3, "{log}");
    let mut answers = Vec::new();
    for command in commands {
        answers.push(Program::new("sh").args(["-c", command]).output(None).await?);
    }
    ensure!(answers[0].contains("\"state\":\"open\"") && answers[0].contains("\"cluster\":\"nas\""), "{answers:?}");
    ensure!(answers[1] == "ok", "{answers:?}");
    ensure!(answers[2].contains("\"allowed\":true"), "{answers:?}");
    ensure!(process.terminate().await?.success());
    Ok(())
}

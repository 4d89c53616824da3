//! The tour as a user runs it: the built program, in plain lines.

mod printed;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testbed::eventually;

use printed::{Sandbox, sandbox};

/// What each chapter must have shown, in order.
const TOLD: [&str; 20] = [
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
    "both gates start anew with --vault-pki-mount",
    "rotate import: the same root goes into the engine",
    "a key of its own in each cluster, and the root's in none",
    "rotate step, trust: ",
    "Rotation to root-2, from root-1, ",
    "rotate step, drop: ",
    "rotate step, done: ",
    "another one than before, and both gates open",
    "no key in any log",
];

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
async fn after_the_tour_all_stays_up_and_what_it_prints_to_try_ends_well() -> Result<()> {
    let sandbox = Sandbox::start(&[]).await?;
    let nowhere = tempfile::tempdir()?;
    // What needs kubectl and vault is tried where these are built: see tour_real.rs.
    let tried = sandbox.try_all_of(&["istio-ca-gate", "curl", "tail"], nowhere.path()).await?;
    for (command, says) in [
        ("istio-ca-gate verify", "Equal: all 5 places have the same roots."),
        ("istio-ca-gate doctor", "Deployment istio-system/istio-ca-gate: 2 of 2 pods ready"),
        ("istio-ca-gate explain", "RootMissing"),
        ("istio-ca-gate rotate", "No rotation. Signers are under root-2."),
        ("curl -s http", "\"cluster\":\"nas\""),
        ("curl -s --cacert", "\"allowed\":true"),
        ("tail", "\"message\""),
    ] {
        let said = tried.iter().find(|(tried, _)| tried.starts_with(command)).with_context(|| format!("{tried:?}"))?;
        ensure!(said.1.contains(says) && !said.1.contains("FAILED"), "{said:?}");
    }
    sandbox.end().await
}

#[tokio::test]
async fn each_page_that_it_names_shows_the_other_cluster_too() -> Result<()> {
    let sandbox = Sandbox::start(&[]).await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let [homelab, nas] = &sandbox.pages()[..] else { anyhow::bail!("{:?}", sandbox.pages()) };
    for (page, other) in [(homelab, "nas"), (nas, "homelab")] {
        eventually("the page to show both", Duration::from_secs(60), || async {
            let text = client.get(page).send().await?.text().await?;
            ensure!(text.contains("All 2 clusters have one root.") && text.contains(&format!(">{other}<")), "{text}");
            Ok(())
        })
        .await?;
    }
    sandbox.end().await
}

#[tokio::test]
async fn what_is_typed_says_what_changed_and_what_the_gates_make_of_it() -> Result<()> {
    let typed = "help\nvault sealed\nstatus\nheal\nvault open\nnobody sealed\nfix it please\nquit\n";
    let output = sandbox().output(Some(typed)).await?;
    let words = output.split_whitespace().collect::<Vec<_>>().join(" ");
    let after = words.split("All of it stays up").nth(1).context("no end")?;
    let mut rest = after;
    for told in [
        "SERVER FAULT: one of vault, homelab, nas, and one of refused, ",
        "vault: sealed, from now on, until heal. The gates: homelab is open: pods are let in, with the root verified last; \
         VaultSealed: ",
        "vault sealed: ",
        "All faults are over. The gates: homelab is open: pods are let in nas is open: pods are let in",
        "no fault is named open: there are refused, ",
        "no server is named \"nobody\": there are vault, homelab, nas.",
        "That was not understood. SERVER FAULT: ",
    ] {
        let at = rest.find(told).with_context(|| format!("no {told:?} in what is left: {rest}"))?;
        rest = &rest[at..];
    }
    Ok(())
}

#[tokio::test]
async fn a_fault_that_there_is_not_ends_it_before_the_tour() -> Result<()> {
    for (wrong, says) in [
        ("vault=seeled", "no fault is named seeled: there are refused, "),
        ("volt=sealed", "no server is named \"volt\": there are vault, homelab, nas"),
        ("sealed", "it is not SERVER=FAULT, as vault=sealed"),
    ] {
        let ended = sandbox().args(["--once", "--fault", wrong]).output(None).await;
        let error = format!("{:#}", ended.err().context("it went on")?);
        ensure!(error.contains("exit status: 2") && error.contains(says), "{error}");
        ensure!(!error.contains("one Vault"), "the tour began: {error}");
    }
    Ok(())
}

//! What is typed while all stays up.

use std::io::BufRead;
use std::time::Duration;

use anyhow::Result;
use standin::faults::Fault;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::gates::Gate;
use crate::tell::Teller;
use crate::tour::Standing;
use crate::world::{SERVERS, Trouble};

/// How long the gates are watched after a change: their next look at Vault, and the longest that they wait for it.
const WATCHED: Duration = Duration::from_secs(8);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// Without news for so long, a gate has made up its mind.
const QUIET: Duration = Duration::from_secs(2);

/// Does what is typed, until that is to quit.
pub(crate) async fn obey(teller: &Teller, standing: &Standing) {
    let has_faults = !standing.world.faults().is_empty();
    teller.line("");
    if has_faults {
        teller.say("Or type a server and a fault here, and see what the gates make of it, as: vault sealed");
    }
    help(teller, has_faults);
    let mut lines = lines();
    while let Some(line) = lines.recv().await {
        match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            [] => {}
            ["help" | "?"] => help(teller, has_faults),
            ["quit" | "exit"] => return,
            ["status"] => status(teller, standing).await,
            ["heal"] if has_faults => heal(teller, standing).await,
            [server, fault] if has_faults => match Trouble::named(server, fault) {
                Ok(trouble) => inject(teller, standing, trouble).await,
                Err(error) => teller.say(&format!("{error}.")),
            },
            _ => {
                teller.say("That was not understood.");
                help(teller, has_faults);
            }
        }
    }
    // Standard input is at its end, and all stays up.
    std::future::pending().await
}

fn help(teller: &Teller, has_faults: bool) {
    if has_faults {
        teller.quote(&format!("SERVER FAULT: one of {}, and one of {}", SERVERS.join(", "), Fault::NAMES.join(", ")));
        teller.quote("heal: ends all faults");
    }
    teller.quote("status: how the gates stand; help: this; quit, or Ctrl-C: ends it");
}

async fn inject(teller: &Teller, standing: &Standing, trouble: Trouble) {
    let before = standings(standing).await;
    standing.world.inject(trouble);
    teller.say(&format!("{trouble}, from now on, until heal. The gates:"));
    news(teller, standing, &before).await;
}

async fn heal(teller: &Teller, standing: &Standing) {
    let before = standings(standing).await;
    standing.world.faults().iter().for_each(|(_, faults)| faults.heal());
    teller.say("All faults are over. The gates:");
    news(teller, standing, &before).await;
}

/// What has become of the gates, once they have made up their minds.
async fn news(teller: &Teller, standing: &Standing, before: &[String]) {
    let began = Instant::now();
    let (mut last, mut since) = (before.to_vec(), began);
    // As soon as there is news and no more of it comes.
    while began.elapsed() < WATCHED && (last == before || since.elapsed() < QUIET) {
        tokio::time::sleep(PAUSE).await;
        let now = standings(standing).await;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    for (before, now) in before.iter().zip(&last) {
        let as_before = if before == now { " (as before)" } else { "" };
        teller.quote(&format!("{now}{as_before}"));
    }
}

async fn status(teller: &Teller, standing: &Standing) {
    standings(standing).await.iter().for_each(|text| teller.quote(text));
    for (server, faults) in standing.world.faults() {
        for switch in faults.active() {
            teller.quote(&format!("{server} {}: {} requests so far met it", switch.fault(), switch.hits()));
        }
    }
}

/// A sentence of each gate.
async fn standings(standing: &Standing) -> Vec<String> {
    let mut all = Vec::new();
    for gate in [&standing.homelab, &standing.nas] {
        let text = stands(gate).await.unwrap_or_else(|error| format!("does not answer: {error:#}"));
        all.push(format!("{} {text}", gate.name()));
    }
    all
}

async fn stands(gate: &Gate) -> Result<String> {
    let report = gate.fingerprint().await?;
    let state = report["state"].as_str().unwrap_or_default();
    let meaning = match (state, report["message"].as_str()) {
        ("open", None) => "pods are let in".to_owned(),
        ("open", Some(why)) => format!("pods are let in, with the root verified last; {why}"),
        (_, Some(why)) => format!("pods are kept out; {why}"),
        (_, None) => "pods wait".to_owned(),
    };
    Ok(format!("is {state}: {meaning}"))
}

/// The lines of standard input. From a thread: a read cannot be given up.
fn lines() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

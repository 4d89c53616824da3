//! Instructions a request, by valgrind: the same for the same program and input, whatever else the machine is doing.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::load::{Connection, request};
use crate::servers::{self, Server};
use crate::{product, reviews};

/// Requests before those that are counted: caches of the process fill.
const BEFORE: usize = 10;

/// Requests that are counted. Each of them has its line in the log: there are 100 of those a minute.
const COUNTED: usize = 25;

/// Counts in a process of its own, which starts the server under valgrind. By review: the instructions a request.
fn counted(server: &str) -> Result<Vec<f64>> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("callgrind");
    let kept = std::env::var("CALLGRIND_OUT").unwrap_or_else(|_| out.display().to_string());
    let valgrind = concat!("/usr/bin/env python3 ", env!("CARGO_MANIFEST_DIR"), "/bench/open/valgrind.py");
    let under = format!("{valgrind} --tool=callgrind --quiet --callgrind-out-file={kept}.{server}");
    let gate = std::env::var("GATE_UNDER").unwrap_or_else(|_| product::binary().display().to_string());
    let floor = std::env::var("FLOOR_UNDER").unwrap_or_default();
    let told = Command::new(std::env::current_exe()?)
        .args(["count", server])
        .env("GATE_UNDER", format!("{under} {gate}"))
        .env("FLOOR_UNDER", format!("{under} {floor}"))
        .env("COUNTED_IN", format!("{kept}.{server}"))
        .output()?;
    ensure!(
        told.status.success(),
        "{}{}",
        String::from_utf8_lossy(&told.stdout),
        String::from_utf8_lossy(&told.stderr)
    );
    let told = String::from_utf8(told.stdout)?;
    told.lines().map(|line| line.parse().with_context(|| told.clone())).collect()
}

/// Prints the instructions a request of each review, one a line.
pub async fn count(server: &str) -> Result<()> {
    let out = std::env::var("COUNTED_IN").context("COUNTED_IN")?;
    let server = if server == "floor" { servers::floor().await? } else { servers::gate().await? };
    for (index, (_, review)) in reviews::all().iter().enumerate() {
        println!("{}", of(&server, review, &out, index).await?);
    }
    Ok(())
}

async fn of(server: &Server, review: &str, out: &str, index: usize) -> Result<f64> {
    let request = request(server.path, review);
    let mut connection = Connection::open(server.port, &server.ca).await?;
    for _ in 0..BEFORE {
        connection.send(request.as_bytes()).await?;
    }
    tell(server, "zero")?;
    for _ in 0..COUNTED {
        connection.send(request.as_bytes()).await?;
    }
    tell(server, "dump")?;
    let text = std::fs::read_to_string(format!("{out}.{}", index + 1))?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ")).context("no totals")?;
    Ok(total.parse::<f64>()? / COUNTED as f64)
}

/// By valgrind's own messenger, in the environment that the server was started in.
fn tell(server: &Server, word: &str) -> Result<()> {
    let told = Command::new("vgdb")
        .args([&format!("--pid={}", server.pid), word])
        .env_clear()
        .envs(std::env::vars().filter(|(name, _)| ["PATH", "TMPDIR"].contains(&name.as_str())))
        .output()?;
    ensure!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    Ok(())
}

/// Instructions a request, ours beside the floor's.
pub async fn compare() -> Result<()> {
    let (floor, ours) = (counted("floor")?, counted("gate")?);
    println!("| review | floor | ours | ratio |\n| --- | --- | --- | --- |");
    for (((name, _), floor), ours) in reviews::all().iter().zip(floor).zip(ours) {
        println!("| {name} | {floor:.0} | {ours:.0} | {:.2} |", ours / floor);
    }
    Ok(())
}

/// What `.ci/cost` compares: a name and a number a line.
pub async fn figures() -> Result<()> {
    for ((name, _), ours) in reviews::all().iter().zip(counted("gate")?) {
        println!("{ours:.0} instructions: {name}");
    }
    let server = servers::gate().await?;
    let binary = std::env::var("GATE_UNDER").unwrap_or_else(|_| product::binary().display().to_string());
    println!("{} bytes: the program", std::fs::metadata(Path::new(&binary))?.len());
    println!("{} bytes: resident, idle", server.memory("VmRSS:")?);
    Ok(())
}

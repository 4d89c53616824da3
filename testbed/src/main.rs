//! `cargo run -p testbed -- build [kubernetes|vault|external-secrets|istio|helm|helm4|flux|prometheus]...` builds the real components and
//! prints their paths.

use std::io::Write;
use std::time::Duration;

use anyhow::{Result, bail};
use testbed::Program;
use testbed::binaries::MODULES;

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["build", names @ ..] => build(names),
        // For the test that the children of a killed process die with it.
        ["hold", log, command @ ..] => hold(log, command).await,
        _ => bail!("usage: testbed build [kubernetes|vault|external-secrets|istio|helm|helm4|flux|prometheus]..."),
    }
}

fn build(names: &[&str]) -> Result<()> {
    if let Some(name) = names.iter().find(|name| MODULES.iter().all(|module| module.name != **name)) {
        bail!("no module {name}");
    }
    for module in MODULES.iter().filter(|module| names.is_empty() || names.contains(&module.name)) {
        writeln!(std::io::stdout(), "{}", module.build()?.display())?;
    }
    Ok(())
}

async fn hold(log: &str, command: &[&str]) -> Result<()> {
    let [program, args @ ..] = command else { bail!("no command") };
    let program = Program::new(*program).args(args);
    let log = log.to_owned();
    // From a thread that ends: the child must not end with it.
    let process = std::thread::spawn(move || program.spawn(log)).join().map_err(|_| anyhow::anyhow!("no thread"))??;
    writeln!(std::io::stdout(), "{}", process.pid())?;
    tokio::time::sleep(Duration::MAX).await;
    Ok(())
}

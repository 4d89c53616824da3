//! `cargo run -p testbed -- build [kubernetes|vault]...` builds the real components and prints their paths.

use std::io::Write;
use std::time::Duration;

use anyhow::{Result, bail};
use testbed::{Program, binaries};

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["build"] => build(&["kubernetes", "vault"]),
        ["build", modules @ ..] => build(modules),
        // For the test that the children of a killed process die with it.
        ["hold", log, command @ ..] => hold(log, command).await,
        _ => bail!("usage: testbed build [kubernetes|vault]..."),
    }
}

fn build(modules: &[&str]) -> Result<()> {
    for name in modules {
        let module = match *name {
            "kubernetes" => &binaries::KUBERNETES,
            "vault" => &binaries::VAULT,
            _ => bail!("no module {name}"),
        };
        writeln!(std::io::stdout(), "{}", module.build()?.display())?;
    }
    Ok(())
}

async fn hold(log: &str, command: &[&str]) -> Result<()> {
    let [program, args @ ..] = command else {
        bail!("no command")
    };
    let program = Program::new(*program).args(args);
    let log = log.to_owned();
    // From a thread that ends: the child must not end with it.
    let process = std::thread::spawn(move || program.spawn(log))
        .join()
        .map_err(|_| anyhow::anyhow!("no thread"))??;
    writeln!(std::io::stdout(), "{}", process.pid())?;
    tokio::time::sleep(Duration::MAX).await;
    Ok(())
}

//! The comparison, as a table.

use anyhow::Result;

use crate::servers::{self, Server};
use crate::{load, reviews};

/// Rounds, in each of which each server has its turn with each review.
const ROUNDS: usize = 7;
const CONNECTIONS: usize = 16;
/// As many calls as a large cluster makes in a bad second.
const RATE: f64 = 500.0;

pub async fn compare() -> Result<()> {
    let servers = [servers::floor().await?, servers::go().await?, servers::gate().await?];
    let idle = memory(&servers, "VmRSS:")?;
    println!("| what | {} |\n| --- | --- | --- | --- |", names(&servers));
    for (name, review) in &reviews::all() {
        let (requests, large) = (if review.len() > 1 << 19 { 64 } else { 1600 }, review.len() > 1 << 19);
        let (mut rates, mut cpus) = (columns(), columns());
        let (mut middle, mut high) = (columns(), columns());
        for _ in 0..ROUNDS {
            for (index, server) in servers.iter().enumerate() {
                let (rate, cpu) = load::saturated(server, review, CONNECTIONS, requests).await?;
                rates[index].push(rate);
                cpus[index].push(cpu * 1e6);
            }
            for (index, server) in servers.iter().enumerate().filter(|_| !large) {
                let mut times = load::paced(server, review, 8, 100, RATE).await?;
                times.sort_by(f64::total_cmp);
                middle[index].push(times[times.len() / 2] * 1e3);
                high[index].push(times[times.len() * 99 / 100] * 1e3);
            }
        }
        row(&format!("{name}: processor time a request, µs"), &mut cpus);
        row(&format!("{name}: requests a second, {CONNECTIONS} connections"), &mut rates);
        if !large {
            row(&format!("{name}: median at {RATE}/s, ms"), &mut middle);
            row(&format!("{name}: p99 at {RATE}/s, ms"), &mut high);
        }
    }
    let mut connecting = columns();
    for _ in 0..ROUNDS {
        for (index, server) in servers.iter().enumerate() {
            connecting[index].push(load::connecting(server, &reviews::all()[0].1, 30).await? * 1e6);
        }
    }
    row("a new connection with one request: processor time, µs", &mut connecting);
    let peak = memory(&servers, "VmHWM:")?;
    let started: Vec<_> = servers.iter().map(|server| format!("{}", server.started.as_millis())).collect();
    println!("| resident when idle, MiB | {} |", idle.join(" | "));
    println!("| resident at most, MiB | {} |", peak.join(" | "));
    println!("| from the start to the first answer, ms | {} |", started.join(" | "));
    Ok(())
}

fn columns() -> [Vec<f64>; 3] {
    Default::default()
}

fn names(servers: &[Server]) -> String {
    servers.iter().map(|server| server.name).collect::<Vec<_>>().join(" | ")
}

fn memory(servers: &[Server], name: &str) -> Result<Vec<String>> {
    servers.iter().map(|server| Ok(format!("{:.1}", server.memory(name)? as f64 / f64::from(1 << 20)))).collect()
}

/// Of each: minimum, median, maximum. Of all but the first: by how much the median of the rounds' ratios differs.
fn row(name: &str, columns: &mut [Vec<f64>; 3]) {
    let ratios: Vec<_> = columns[1..]
        .iter()
        .map(|column| column.iter().zip(&columns[0]).map(|(other, floor)| other / floor).collect::<Vec<_>>())
        .collect();
    let mut ratios = std::iter::once(None).chain(ratios.into_iter().map(Some));
    let cells: Vec<_> = columns
        .iter_mut()
        .map(|column| {
            column.sort_by(f64::total_cmp);
            let spread = format!(
                "{} / {} / {}",
                short(column[0]),
                short(column[column.len() / 2]),
                short(column[column.len() - 1])
            );
            match ratios.next().flatten() {
                Some(mut ratios) => {
                    ratios.sort_by(f64::total_cmp);
                    format!("{spread} (×{:.2})", ratios[ratios.len() / 2])
                }
                None => spread,
            }
        })
        .collect();
    println!("| {name} | {} |", cells.join(" | "));
}

fn short(value: f64) -> String {
    if value < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

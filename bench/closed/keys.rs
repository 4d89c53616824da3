//! How long RSA-4096 keys take, by the processor's time of the thread that makes them, so that others' work does not count;
//! and what two searches at a time make of that.

use anyhow::Result;
use istio_ca_gate::ca::issue;
use k8s_openapi::jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use crate::picture;

const KEYS: usize = 200;

fn used() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

pub fn distribution() -> Result<()> {
    let mut one = Vec::with_capacity(KEYS);
    for _ in 0..KEYS {
        let began = used();
        issue::root("Root CA", Timestamp::now())?;
        one.push(used() - began);
    }
    // Of two searches the faster one: each pair of these.
    let mut two: Vec<f64> = (0..KEYS)
        .flat_map(|first| (first + 1..KEYS).map(move |second| (first, second)))
        .map(|(a, b)| one[a].min(one[b]))
        .collect();
    println!("| searches | min | median | p90 | p99 | max | mean |\n| --- | --- | --- | --- | --- | --- | --- |");
    for (name, seconds) in [("one", &mut one), ("two, the first key taken", &mut two)] {
        seconds.sort_by(f64::total_cmp);
        let at = |part: f64| seconds[((seconds.len() - 1) as f64 * part).round() as usize];
        let mean = seconds.iter().sum::<f64>() / seconds.len() as f64;
        println!(
            "| {name} | {:.2} s | {:.2} s | {:.2} s | {:.2} s | {:.2} s | {mean:.2} s |",
            at(0.0),
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0)
        );
    }
    picture::shares("docs/pictures/keys.svg", &[("one search", &one), ("two, the first key taken", &two)])
}

//! Gated pods that are asked for all the time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::world::{NAMESPACE, Side};

/// What became of them.
pub struct Probe {
    pub allowed: usize,
    /// When, and with what message.
    pub refused: Vec<(Instant, String)>,
    /// Without one being let in.
    pub longest: Duration,
}

/// Asks for gated pods until it is told to stop. `cacerts` must be there with these data whenever one was let in.
pub async fn probe(side: &Side, data: Option<&Value>, stop: &AtomicBool) -> Result<Probe> {
    let mut probe = Probe { allowed: 0, refused: Vec::new(), longest: Duration::ZERO };
    let mut refused_since = None;
    while !stop.load(Ordering::Relaxed) {
        let pod = json!({
            "metadata": { "generateName": "probe-", "labels": { "app": "istiod" } },
            "spec": { "containers": [{ "name": "c", "image": "registry.example/istio" }] },
        });
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
        let (status, answer) = side.cluster.request("POST", &path, Some(pod)).await?;
        if status == 201 {
            probe.allowed += 1;
            refused_since = None;
            if let Some(data) = data {
                let cacerts = side.cacerts().await?.context("let in without cacerts")?;
                ensure!(cacerts["data"] == *data, "let in with another cacerts");
            }
        } else {
            let since = *refused_since.get_or_insert_with(Instant::now);
            probe.longest = probe.longest.max(since.elapsed());
            probe.refused.push((Instant::now(), answer["message"].to_string()));
        }
    }
    Ok(probe)
}

/// Does something while gated pods are asked for, and tells of both.
pub async fn during<T>(side: &Side, data: Option<&Value>, done: impl Future<Output = Result<T>>) -> Result<(T, Probe)> {
    let stop = AtomicBool::new(false);
    let done = async {
        let done = done.await;
        stop.store(true, Ordering::Relaxed);
        done
    };
    let (done, probe) = tokio::join!(done, probe(side, data, &stop));
    Ok((done?, probe?))
}

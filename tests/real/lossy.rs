//! A network between gate and Vault that loses, delays and fakes answers. Whatever it does, Vault ends
//! with one version, the root of the one key that was made, and the waiting pod comes by itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use standin::scripted::{Answer, Request, StandIn};
use testbed::{Vault, eventually};

use crate::gate::{Gate, Options};
use crate::onward::Onward;
use crate::story::decode;
use crate::world::{NAMESPACE, SOON, Side, SmallWorld};

const READ: &str = "GET /v1/secret/data/istio/ca";
const WRITE: &str = "POST /v1/secret/data/istio/ca";

/// The gate's patience with Vault.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The write is applied, and its answer lost.
    AnswerLost,
    /// The write never reaches Vault.
    WriteLost,
    /// The first write reaches Vault when its sender has long given up.
    WriteLate,
    /// A node that lags behind is asked right after the write.
    Lagging,
    /// All is applied, and answered when nobody waits any more.
    AnswersLate,
    /// A load balancer without a Vault behind it.
    Unavailable,
    /// Vault's quota, with a wish for when to ask again.
    RateLimited,
}

/// A proxy in front of Vault. The gate speaks plain HTTP to it.
struct Proxy {
    server: StandIn,
    network: Arc<Network>,
}

struct Network {
    onward: Onward,
    state: Mutex<State>,
}

struct State {
    fault: Fault,
    hits: usize,
    /// Vault's answers to writes.
    written: Vec<u16>,
}

impl Proxy {
    async fn start(vault: &Vault) -> Result<Self> {
        let network = Arc::new(Network {
            onward: Onward::to(vault)?,
            state: Mutex::new(State { fault: Fault::None, hits: 0, written: Vec::new() }),
        });
        let shared = Arc::clone(&network);
        let server = StandIn::start(move |request| {
            let network = Arc::clone(&shared);
            async move { network.answer(request).await }
        });
        Ok(Self { server: server.await?, network })
    }

    fn turn(&self, fault: Fault) {
        let mut state = self.network.state();
        *state = State { fault, hits: 0, written: Vec::new() };
    }

    /// Ends the fault, and returns how often it hit.
    fn mend(&self) -> usize {
        let mut state = self.network.state();
        state.fault = Fault::None;
        state.hits
    }

    async fn hit(&self, times: usize) -> Result<()> {
        eventually("the fault to hit", SOON, || async {
            let hits = self.network.state().hits;
            ensure!(hits >= times, "{hits} times");
            Ok(())
        })
        .await
    }
}

impl Network {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fault, if it is this request's turn.
    fn fault(&self, line: &str) -> Fault {
        let mut state = self.state();
        let hits = match state.fault {
            Fault::None => false,
            Fault::AnswerLost | Fault::WriteLost => line == WRITE,
            Fault::WriteLate => line == WRITE && state.hits == 0,
            Fault::Lagging => line == READ && state.hits == 0 && !state.written.is_empty(),
            Fault::AnswersLate | Fault::Unavailable => true,
            Fault::RateLimited => line == READ,
        };
        if !hits {
            return Fault::None;
        }
        state.hits += 1;
        state.fault
    }

    async fn answer(self: Arc<Self>, request: Request) -> Answer {
        match self.fault(&request.line()) {
            Fault::None => self.forward(&request).await,
            Fault::AnswerLost => {
                self.forward(&request).await;
                Answer::hang_up()
            }
            Fault::WriteLost => Answer::hang_up(),
            Fault::WriteLate => {
                // It arrives although its sender hangs up.
                tokio::spawn(async move {
                    tokio::time::sleep(3 * TIMEOUT).await;
                    self.forward(&request).await;
                });
                Answer::silence()
            }
            Fault::Lagging => Answer::json(404, &json!({ "errors": [] })),
            Fault::AnswersLate => self.forward(&request).await.after(3 * TIMEOUT),
            Fault::Unavailable => Answer::html(503),
            Fault::RateLimited => {
                Answer::json(429, &json!({ "errors": ["rate limit quota exceeded"] })).header("retry-after", "2")
            }
        }
    }

    async fn forward(&self, request: &Request) -> Answer {
        let (status, answer) = self.onward.forward(request).await;
        if request.line() == WRITE {
            self.state().written.push(status);
        }
        answer
    }
}

/// From an empty Vault through this fault to an open gate.
async fn survives(world: &SmallWorld, proxy: &Proxy, fault: Fault, code: Option<&str>) -> Result<()> {
    let (side, vault) = (&world.side, &world.vault);
    let name = format!("{fault:?}").to_lowercase();
    proxy.turn(fault);
    let flags = ["--vault-addr", &proxy.server.url(), "--vault-timeout", "2s"];
    let gate = Gate::start_with(side, vault, Options { flags: &flags, ..Options::default() }).await?;
    side.deploy(&name, json!({ "app": "istiod", "test": name })).await?;
    if let Some(code) = code {
        side.refusal(&name, code).await?;
        proxy.hit(2).await?;
        ensure!(vault.versions("secret", "istio/ca").await?.is_empty(), "{fault:?}: it was written");
        ensure!(side.cacerts().await?.is_none(), "{fault:?}: something was published");
    } else {
        proxy.hit(1).await?;
    }
    let healed = Instant::now();
    let hits = if code.is_some() { proxy.mend() } else { 1 };
    side.pod(&name).await.with_context(|| format!("{fault:?}"))?;
    println!("{fault:?}: hit {hits} times, pod {:.2} s later", healed.elapsed().as_secs_f64());
    if fault == Fault::WriteLate {
        late_write_changed_nothing(proxy).await?;
    }
    ensure!(proxy.mend() >= 1);

    gate.stands("open", None).await?;
    ensure!(vault.versions("secret", "istio/ca").await? == [1], "{fault:?}");
    same_bytes(side, vault).await?;
    let made = gate.process.log().matches("made a root key").count();
    ensure!(made == 1, "{fault:?}: {made} keys were made");
    ensure!(gate.process.terminate().await?.success());
    clear(side, vault, &name).await
}

/// The first write arrived after all, after another one, and Vault refused it.
async fn late_write_changed_nothing(proxy: &Proxy) -> Result<()> {
    let written = || proxy.network.state().written.clone();
    let statuses = eventually("the late write to arrive", SOON, || async {
        let written = written();
        (written.len() >= 2).then_some(written)
    })
    .await?;
    ensure!(statuses[0] == 200 && statuses[1] != 200, "{statuses:?}");
    Ok(())
}

async fn same_bytes(side: &Side, vault: &Vault) -> Result<()> {
    let (_, record) = vault.api("GET", "secret/data/istio/ca", None).await?;
    let (record, cacerts) = (&record["data"]["data"], side.cacerts().await?.context("no cacerts")?);
    for (file, key) in [
        ("root-cert.pem", "root-cert.pem"),
        ("cert-chain.pem", "cert-chain.pem"),
        ("ca-cert.pem", "cert-chain.pem"),
        ("ca-key.pem", "key.pem"),
    ] {
        ensure!(record[key].as_str() == Some(&decode(&cacerts["data"][file])?), "{file} differs");
    }
    Ok(())
}

/// As if there had never been a root: for the next fault.
async fn clear(side: &Side, vault: &Vault, name: &str) -> Result<()> {
    side.cluster.kubectl(&["-n", NAMESPACE, "delete", "deployment", name]).await?;
    side.delete_cacerts().await?;
    side.cluster.kubectl(&["-n", NAMESPACE, "delete", "configmap", "istio-ca-gate"]).await?;
    vault.api("DELETE", "secret/metadata/istio/ca", None).await?;
    ensure!(vault.versions("secret", "istio/ca").await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_lost_late_or_unseen_makes_one_root() -> Result<()> {
    let world = SmallWorld::homelab().await?;
    let proxy = Proxy::start(&world.vault).await?;
    survives(&world, &proxy, Fault::AnswerLost, None).await?;
    survives(&world, &proxy, Fault::WriteLost, Some("VaultUnreachable")).await?;
    survives(&world, &proxy, Fault::WriteLate, None).await?;
    survives(&world, &proxy, Fault::Lagging, None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_behind_a_bad_network_is_used_once_it_is_good() -> Result<()> {
    let world = SmallWorld::homelab().await?;
    let proxy = Proxy::start(&world.vault).await?;
    survives(&world, &proxy, Fault::AnswersLate, Some("VaultUnreachable")).await?;
    survives(&world, &proxy, Fault::Unavailable, Some("VaultUnreachable")).await?;
    survives(&world, &proxy, Fault::RateLimited, Some("VaultRateLimited")).await
}

//! The page for people: what a browser may do with it, and other clusters' gates that lie, dawdle or cut.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::ByteString;
use serde_json::{Value, json};
use testbed::eventually;

use crate::certificates::Authority;
use crate::product::{Product, SOON, world};
use crate::world::{Gate, World};
use standin::scripted::{Answer, StandIn};

const FINGERPRINT: &str = "GET /fingerprint";

/// What `/fingerprint` of a gate says.
fn report(cluster: &str, sha256: &str) -> Value {
    let root = json!({ "sha256": sha256, "sha1": "", "roots": [sha256], "subject": "CN=Root", "notAfter": "2036-11-21T10:00:00Z" });
    json!({
        "cluster": cluster, "role": "bootstrap", "state": "open", "reason": null, "message": null, "match": true,
        "vault": root, "cacerts": root,
    })
}

fn fingerprint() -> String {
    vec!["AB"; 32].join(":")
}

/// A peer whose `/fingerprint` is this.
async fn peer(answer: Answer) -> Result<StandIn> {
    StandIn::start(move |_| std::future::ready(answer.clone())).await
}

/// The program with these peers.
async fn product(peers: &[&StandIn], flags: &[&str]) -> Result<Product> {
    let (kubernetes, vault) = world().await?;
    let urls: Vec<_> = peers.iter().map(|peer| peer.url()).collect();
    let peers = urls.iter().flat_map(|url| ["--peer", url]);
    let flags: Vec<_> =
        ["--role", "sync", "--cluster", "nas"].into_iter().chain(flags.iter().copied()).chain(peers).collect();
    Product::start(kubernetes, vault, &flags).await
}

/// The page, once it says all of this.
async fn says(product: &Product, texts: &[&str]) -> Result<String> {
    let probe = || async {
        let page = product.get("").await?;
        let missing: Vec<_> = texts.iter().filter(|text| !page.contains(**text)).collect();
        ensure!(missing.is_empty(), "{missing:?} not in {page}");
        Ok(page)
    };
    product.process.until("the page to say it", SOON, probe).await
}

#[tokio::test(flavor = "multi_thread")]
async fn both_listeners_have_the_page_and_a_browser_may_do_nothing_with_it_but_show_it() -> Result<()> {
    let product = product(&[], &[]).await?;
    let (address, port) = product.address();
    for url in [product.url(""), format!("https://{address}:{port}/")] {
        let answer = product.client()?.get(&url).send().await?;
        ensure!(answer.status() == 200, "{answer:?}");
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        ensure!(header("content-type") == "text/html; charset=utf-8", "{answer:?}");
        ensure!(header("content-security-policy").starts_with("default-src 'none'; style-src 'sha256-"), "{answer:?}");
        ensure!(!header("content-security-policy").contains("unsafe"), "{answer:?}");
        ensure!(header("x-content-type-options") == "nosniff", "{answer:?}");
        ensure!(header("referrer-policy") == "no-referrer" && header("cache-control") == "no-store", "{answer:?}");
        let page = answer.text().await?;
        ensure!(page.starts_with("<!DOCTYPE html>") && page.contains("Cluster nas"), "{page}");
        ensure!(page.contains("dormant") && !page.contains("Other clusters"), "{page}");
        ensure!(product.client()?.post(&url).send().await?.status() == 405);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_lies_cuts_or_dawdles_costs_its_own_line_and_no_other() -> Result<()> {
    let evil = "<script>alert(1)</script>\u{1b}[31m";
    let mut hostile = report(evil, &fingerprint());
    hostile["cacerts"]["subject"] = json!(evil);
    hostile["state"] = json!(evil);
    hostile["reason"] = json!("VaultSealed");
    hostile["message"] = json!(format!("VaultSealed: {evil}{}", "x".repeat(10_000)));
    let other_ca = Authority::new("Somebody's CA")?;
    let tls = StandIn::start_tls(other_ca.server("127.0.0.1")?, |_| std::future::ready(Answer::html(200))).await?;
    let peers = [
        peer(Answer::json(200, &hostile)).await?,
        peer(Answer::new(200, "application/json", " ".repeat(4096)).endless()).await?,
        peer(Answer::new(302, "text/plain", "").header("location", "/elsewhere")).await?,
        peer(Answer::html(200)).await?,
        peer(Answer::html(404)).await?,
        peer(Answer::json(200, &report("homelab", "AB:CD"))).await?,
        peer(Answer::hang_up()).await?,
        peer(Answer::json(200, &report("homelab", &fingerprint())).byte_by_byte(Duration::from_millis(100))).await?,
        peer(Answer::json(200, &report("homelab", &fingerprint()))).await?,
        tls,
    ];
    // Any CA that is not this one's.
    let folder = tempfile::tempdir()?;
    let trusted = folder.path().join("ca.pem");
    std::fs::write(&trusted, Authority::new("Another CA")?.pem())?;
    let trusted = trusted.to_string_lossy();
    let product = product(&peers.iter().collect::<Vec<_>>(), &["--peer-ca-cert", &trusted]).await?;
    let page = says(
        &product,
        &[
            "It cannot be told whether all clusters have one root.",
            "its answer is larger than 64 KiB",
            "status 302: a redirect is not followed",
            "its answer is not that of a gate",
            "status 404: check the address",
            "it does not answer (",
            "no answer within 5s",
            "from an unknown CA",
            "--peer-ca-cert (variable GATE_PEER_CA_CERT)",
            ">homelab<",
        ],
    )
    .await?;
    ensure!(!page.contains("<script") && page.contains("&lt;script&gt;alert(1)"), "{page}");
    ensure!(!page.contains('\u{1b}') && page.len() < 64 << 10, "{} bytes", page.len());
    ensure!(peers[2].lines() == [FINGERPRINT], "a redirect was followed: {:?}", peers[2].lines());
    ensure!(peers.iter().take(9).all(|peer| peer.lines().iter().all(|line| line == FINGERPRINT)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_asks_no_peer() -> Result<()> {
    let homelab = peer(Answer::json(200, &report("homelab", &fingerprint()))).await?;
    let began = Instant::now();
    let product = product(&[&homelab], &[]).await?;
    says(&product, &[">homelab<"]).await?;
    for _ in 0..50 {
        product.get("").await?;
    }
    // One every 15 s, as ever.
    let rounds = began.elapsed().as_secs() / 15 + 1;
    ensure!(homelab.lines().len() as u64 <= rounds, "{} in {rounds} rounds", homelab.lines().len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_peer_or_its_ca_is_wrong_use() -> Result<()> {
    let known = [("GATE_ROLE", "sync"), ("VAULT_ADDR", "http://127.0.0.1:1"), ("KUBECONFIG", "/dev/null")];
    for (flags, says) in [
        (&["--peer", "gate.example"][..], "GATE_PEERS"),
        (&["--peer", "https://user:4711@gate.example"], "GATE_PEERS"),
        (&["--self-test", "A b"], "GATE_SELF_TEST"),
        (&["--self-test-interval", "0s"], "GATE_SELF_TEST_INTERVAL"),
    ] {
        let said = crate::command::run(&[&["serve"], flags].concat(), &known).await?;
        said.is_refused(&[says])?;
        ensure!(!said.stderr.contains("4711"), "{said:?}");
    }
    Ok(())
}

/// The CA of a gate's serving certificate, as an administrator reads it.
async fn serving_ca(side: &testbed::side::Side) -> Result<Vec<u8>> {
    let path = "/api/v1/namespaces/istio-system/secrets/istio-ca-gate-tls";
    let secret = side.object(path).await?.context("no serving CA")?;
    Ok(serde_json::from_value::<ByteString>(secret["data"]["ca.crt"].clone())?.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_with_one_root_say_so_by_either_way_to_the_other_gate() -> Result<()> {
    let world = World::embedded().await?;
    let folder = tempfile::tempdir()?;
    let homelab = Gate::start(&world.homelab, &world.vault, folder.path(), &[]).await?;
    let ca = folder.path().join("homelab-ca.pem");
    std::fs::write(&ca, serving_ca(&world.homelab).await?)?;
    let (http, https) = (homelab.url(""), format!("https://{}/fingerprint", homelab.https()));
    let flags = ["--peer", &http, "--peer", &https, "--peer-ca-cert", &ca.to_string_lossy()];
    let nas = Gate::start(&world.nas, &world.vault, folder.path(), &flags).await?;
    for side in [&world.homelab, &world.nas] {
        side.deploy_istiod().await?;
        side.pod("istiod").await?;
    }
    nas.stands("open", None).await?;
    eventually("the clusters to be told equal", SOON, || async {
        let page = nas.get("").await?;
        ensure!(page.contains("All 3 clusters have one root."), "{page}");
        ensure!(page.matches(">agrees<").count() == 3, "{page}");
        Ok(())
    })
    .await
}

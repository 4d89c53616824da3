//! The proof of it all: the real istiod in both clusters, from the pods that the real charts make and the gate admits.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustls::{CertificateError, Error};
use serde_json::{Value, json};
use testbed::side;
use testbed::{Cluster, Helm, Istiod, Mounting, eventually, mount_volumes};

use crate::gate::Gate;
use crate::mesh::{End, GATEWAY, Mesh, handshake, openssl_verifies, pod_named, workload};
use crate::world::{self, NAMESPACE, SOON, SmallWorld, World};

/// A refused pod is tried again by its controller's back-off, or once the gate passes over blocked owners, which it does
/// each minute, also where it was another webhook that refused. A start of istiod may be slow.
const BACKED_OFF: Duration = Duration::from_secs(240);

/// What istiod says of a mounted CA, and of its own.
const MOUNTED: &str = "Use local CA certificate";
const OWN: &str = "Use self-signed certificate as the CA certificate";

#[tokio::test(flavor = "multi_thread")]
async fn two_real_istiods_behind_the_gate_serve_the_root_of_vault_and_their_workloads_trust_each_other() -> Result<()> {
    let helm = Helm::new().await?;
    let world = World::start().await?;
    let World { homelab, nas, vault, .. } = &world;
    let nas_gate = Gate::start(nas, vault).await?;
    let homelab_gate = Gate::start(homelab, vault).await?;
    let began = Instant::now();

    // The NAS first. The gate keeps istiod out, and Istio's own injector, which nobody answers for yet, the gateway.
    let nas_mesh = Mesh::install(&helm, &nas.side, &nas.cluster, &[]).await?;
    nas_mesh.install_gateway(&helm).await?;
    println!("NAS first: {}", nas.refusal("istiod", "RootMissing").await?);
    let refused = eventually("the gateway to be refused", SOON, || async {
        nas.refusals(GATEWAY).await?.into_iter().next().context("it is not")
    });
    println!("    gateway: {}", refused.await?);
    ensure!(nas.pods("istiod").await?.is_empty() && nas.pods(GATEWAY).await?.is_empty());

    let homelab_mesh = Mesh::install(&helm, &homelab.side, &homelab.cluster, &[]).await?;
    homelab_mesh.install_gateway(&helm).await?;
    let (homelab_istiod, nas_istiod) = tokio::try_join!(homelab_mesh.start(), nas_mesh.start())?;
    println!("both istiods ready after {:.1} s", began.elapsed().as_secs_f64());

    // One root: Vault's, to the byte.
    let (status, record) = vault.api("GET", "secret/data/istio/ca", None).await?;
    ensure!(status == 200, "{status}");
    let root = record["data"]["data"]["root-cert.pem"].as_str().context("no root")?;
    for (istiod, side) in [(&homelab_istiod, homelab), (&nas_istiod, nas)] {
        says(istiod, MOUNTED, OWN)?;
        ensure!(istiod.served_root(&side.cluster, NAMESPACE).await? == root, "{} serves another root", side.name);
    }

    let ours = workload(&homelab_istiod, &homelab.cluster, "shop").await?;
    let theirs = workload(&nas_istiod, &nas.cluster, "archive").await?;
    for workload in [&ours, &theirs] {
        let verified = openssl_verifies(root, workload).await?;
        ensure!(verified.trim().ends_with("OK"), "{verified}");
    }
    let ours = End { workload: &ours, root: &homelab_istiod.served_root(&homelab.cluster, "default").await? };
    let theirs = End { workload: &theirs, root: &nas_istiod.served_root(&nas.cluster, "default").await? };
    handshake(&ours, &theirs)?.context("homelab to NAS")?;
    handshake(&theirs, &ours)?.context("NAS to homelab")?;
    println!("mutual TLS: {} and {}, both ways", ours.workload.identity, theirs.workload.identity);

    // The gateways go through the real injector, and then through the gate.
    for (side, gate) in [(nas, &nas_gate), (homelab, &homelab_gate)] {
        let pod = eventually("the gateway's pod", BACKED_OFF, || async {
            side.pods(GATEWAY).await?.into_iter().next().context("no pod")
        });
        let pod = pod_named(&side.side, &pod.await?).await?;
        ensure!(pod["spec"]["containers"][0]["image"] != "auto", "not injected: {}", pod["spec"]);
        ensure!(reviews(gate, "allowed").iter().any(|name| name.starts_with(GATEWAY)), "the gate was not asked");
    }
    // It is retried as what the gate itself has refused.
    let touched = named(&nas_gate, "touched a blocked owner, so that it tries again");
    ensure!(touched.iter().any(|name| name.starts_with(GATEWAY)), "{touched:?}");
    println!("both gateways injected and admitted after {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_gate_each_real_istiod_makes_a_root_of_its_own_and_the_mesh_is_split() -> Result<()> {
    let helm = Helm::new().await?;
    let _place = world::place().await?;
    let (homelab, nas) = tokio::try_join!(Cluster::start("homelab"), Cluster::start("nas"))?;
    let (homelab_side, nas_side) = (side::Side::homelab((*homelab).clone()), side::Side::nas((*nas).clone()));
    for cluster in [&homelab, &nas] {
        cluster.kubectl(&["create", "namespace", NAMESPACE]).await?;
    }
    let homelab_mesh = Mesh::install(&helm, &homelab_side, &homelab, &[]).await?;
    let nas_mesh = Mesh::install(&helm, &nas_side, &nas, &[]).await?;
    required_volumes_are_waited_for(&nas_side, &nas).await?;

    let (homelab_istiod, nas_istiod) = tokio::try_join!(homelab_mesh.start(), nas_mesh.start())?;
    says(&homelab_istiod, OWN, MOUNTED)?;
    says(&nas_istiod, OWN, MOUNTED)?;
    let (ours, theirs) =
        tokio::try_join!(homelab_istiod.served_root(&homelab, "default"), nas_istiod.served_root(&nas, "default"))?;
    ensure!(ours != theirs, "one root");

    let shop = workload(&homelab_istiod, &homelab, "shop").await?;
    let archive = workload(&nas_istiod, &nas, "archive").await?;
    // Each is right in its own cluster, and nothing in the other.
    for (workload, own, other) in [(&shop, &ours, &theirs), (&archive, &theirs, &ours)] {
        openssl_verifies(own, workload).await?;
        ensure!(openssl_verifies(other, workload).await.is_err(), "verified by another root");
    }
    let shop = End { workload: &shop, root: &ours };
    let archive = End { workload: &archive, root: &theirs };
    for (client, server) in [(&shop, &archive), (&archive, &shop)] {
        let outcome = handshake(client, server)?;
        // Not `UnknownIssuer`: every istiod gives its root the same name, so that only the signature tells them apart.
        ensure!(outcome == Err(Error::InvalidCertificate(CertificateError::BadSignature)), "{outcome:?}");
    }
    println!("without the gate: two roots of one name, and a handshake fails both ways");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_east_west_gateway_that_real_istiod_makes_for_ambient_passes_the_gate() -> Result<()> {
    let helm = Helm::new().await?;
    let world = SmallWorld::homelab().await?;
    let (side, cluster) = (&world.side, &world.side.cluster);
    let gate = Gate::start(side, &world.vault).await?;
    let definitions = tokio::task::spawn_blocking(testbed::binaries::gateway_api_definitions).await??;
    let definitions = definitions.to_str().context("the file's name is not UTF-8")?;
    cluster.kubectl(&["apply", "--server-side", "-f", definitions]).await?;
    let settings = ["profile=ambient", "env.AMBIENT_ENABLE_MULTI_NETWORK=true"];
    let istiod = Mesh::install(&helm, &side.side, cluster, &settings).await?.start().await?;
    cluster.kubectl_stdin(&["apply", "-f", "-"], &ambient_gateway()).await?;

    let pod = istiod.process.until("the gateway's pod", BACKED_OFF, || async {
        let pods = side.pods("eastwest").await?;
        pods.into_iter().next().context("no pod")
    });
    let pod = pod_named(&side.side, &pod.await?).await?;
    let labels = &pod["metadata"]["labels"];
    println!("ambient: {labels}");
    ensure!(labels["gateway.networking.k8s.io/gateway-class-name"] == "istio-east-west", "{labels}");
    ensure!(labels["gateway.istio.io/managed"] == "istio.io-eastwest-controller", "{labels}");
    ensure!(labels["app"].is_null() && labels["istio"].is_null(), "{labels}");
    ensure!(reviews(&gate, "allowed").iter().any(|name| name.starts_with("eastwest-")), "the gate was not asked");
    Ok(())
}

/// As Istio's documentation has it for ambient with several networks.
fn ambient_gateway() -> String {
    let tls = json!({ "mode": "Terminate", "options": { "gateway.istio.io/tls-terminate-mode": "ISTIO_MUTUAL" } });
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {
            "name": "eastwest", "namespace": NAMESPACE, "labels": { "topology.istio.io/network": "homelab" },
        },
        "spec": {
            "gatewayClassName": "istio-east-west",
            "listeners": [{ "name": "mesh", "port": 15008, "protocol": "HBONE", "tls": tls }],
        },
    })
    .to_string()
}

/// The kubelet starts nothing without a Secret that is not optional: what `/mutate` relies on.
async fn required_volumes_are_waited_for(side: &side::Side, cluster: &Cluster) -> Result<()> {
    let pod = side.pod("istiod").await?;
    let mut pod = pod_named(side, &pod).await?;
    let folder = tempfile::tempdir()?;
    ensure!(mount_volumes(cluster, &pod, folder.path()).await? == Mounting::Done);
    let volumes = pod["spec"]["volumes"].as_array_mut().context("no volumes")?;
    let cacerts = volumes.iter_mut().find(|volume| volume["secret"]["secretName"] == "cacerts");
    let cacerts = &mut cacerts.context("no volume of cacerts")?["secret"];
    ensure!(cacerts["optional"] == true, "the chart has it optional");
    cacerts["optional"] = json!(false);
    let Mounting::Waits(missing) = mount_volumes(cluster, &pod, folder.path()).await? else {
        anyhow::bail!("it starts without cacerts");
    };
    ensure!(missing.contains("cacerts"), "{missing}");
    Ok(())
}

fn says(istiod: &Istiod, wanted: &str, unwanted: &str) -> Result<()> {
    let log = istiod.process.log();
    ensure!(!log.contains(unwanted), "{log}");
    let line = log.lines().find(|line| line.contains(wanted)).with_context(|| log.clone())?;
    println!("    istiod: {line}");
    Ok(())
}

/// The names of the pods that a gate was asked about and decided on so, once for each call.
pub fn reviews(gate: &Gate, decision: &str) -> Vec<String> {
    let pods = lines(gate, "admission").filter(|line| line["decision"] == decision);
    pods.filter_map(|line| line["pod"].as_str().map(str::to_owned)).collect()
}

/// The names in a gate's log lines with this message.
fn named(gate: &Gate, message: &str) -> Vec<String> {
    lines(gate, message).filter_map(|line| line["name"].as_str().map(str::to_owned)).collect()
}

fn lines<'a>(gate: &Gate, message: &'a str) -> impl Iterator<Item = Value> + use<'a> {
    let log = gate.process.log();
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    lines.into_iter().filter(move |line| line["message"] == message)
}

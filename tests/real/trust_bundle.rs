//! istiod's roots in a ClusterTrustBundle, where it is told to write them there in place of ConfigMaps.

use anyhow::{Context, Result, anyhow, ensure};
use istio_ca_gate::ca::bundle::glance;
use istio_ca_gate::k8s::client;
use istio_ca_gate::k8s::istiods::{IstiodPod, MeshSide};
use kube::Client;
use kube::config::Kubeconfig;
use serde_json::json;
use testbed::eventually;

use crate::world::{self, NAMESPACE, SOON, Side};

/// A client with the gate's own rights.
async fn gates_client(side: &Side) -> Result<Client> {
    let token = side.gate_token(side.api.issuer()).await?;
    let kubeconfig = Kubeconfig::from_yaml(&side.api.kubeconfig(side.service_account, &token))?;
    let config = client::config_of(kubeconfig, None).await.map_err(|error| anyhow!(error))?;
    client::client_of(config).map_err(|error| anyhow!(error))
}

#[tokio::test(flavor = "multi_thread")]
async fn with_component_signing_the_gate_reads_what_istiod_writes_into_the_trust_bundle_of_a_real_cluster() -> Result<()>
{
    let _place = world::place().await?;
    let side = Side::homelab_with("overlays/homelab").await?;
    side.apply_with(&["signing"]).await?;
    let mesh = MeshSide::new(gates_client(&side).await?, NAMESPACE);
    let told = IstiodPod { name: "istiod-1".to_owned(), by_trust_bundle: true, ..IstiodPod::default() };
    let istiods = [told];
    let read = || async { mesh.served(&istiods).await.map_err(|held| anyhow!(held.sentence())) };
    // RBAC is read from a cache that follows.
    let none = eventually("the right to read it", SOON, read).await?;
    let [(name, None)] = &none[..] else { anyhow::bail!("{none:?}") };
    ensure!(name == "ClusterTrustBundle istio.io:istiod-ca:root-cert", "{name}");

    let root = side.api.ca_pem();
    let bundle = json!({
        "apiVersion": "certificates.k8s.io/v1beta1", "kind": "ClusterTrustBundle",
        "metadata": { "name": "istio.io:istiod-ca:root-cert" },
        "spec": { "signerName": "istio.io/istiod-ca", "trustBundle": root },
    });
    side.cluster.kubectl_stdin(&["create", "-f", "-"], &bundle.to_string()).await?;
    let roots = glance(root.as_bytes()).context("no root")?.roots;
    ensure!(read().await? == [(name.clone(), Some(roots))]);
    Ok(())
}

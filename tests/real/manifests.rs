//! The manifests of deploy/ as a user applies them: by kubectl and by Helm, to real API servers of both clusters.

mod helm;
mod nodes;
mod rights;
mod theft;
mod values;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::{Cluster, definition, eventually};

use crate::gate::Gate;
use crate::world::{self, NAMESPACE, SOON, SmallWorld, kustomization};

/// All components.
const COMPONENTS: [&str; 8] = [
    "external-secrets",
    "flux-reconcile",
    "gateways-anywhere",
    "monitoring",
    "peers",
    "rotate",
    "self-test",
    "signing",
];

/// Kinds that others bring: group, version, kind, plural. Of them only names are defined here, and any field is taken.
pub const FOREIGN_KINDS: [(&str, &str, &str, &str); 7] = [
    ("external-secrets.io", "v1", "ExternalSecret", "externalsecrets"),
    ("helm.toolkit.fluxcd.io", "v2", "HelmRelease", "helmreleases"),
    ("kustomize.toolkit.fluxcd.io", "v1", "Kustomization", "kustomizations"),
    ("monitoring.coreos.com", "v1", "PrometheusRule", "prometheusrules"),
    ("monitoring.coreos.com", "v1", "ServiceMonitor", "servicemonitors"),
    ("source.toolkit.fluxcd.io", "v1", "GitRepository", "gitrepositories"),
    ("source.toolkit.fluxcd.io", "v1", "HelmRepository", "helmrepositories"),
];

fn deploy(path: &str) -> String {
    format!("{}/deploy/{path}", env!("CARGO_MANIFEST_DIR"))
}

/// A cluster with the kinds that others bring, and with a namespace that takes restricted pods alone.
async fn cluster(name: &str) -> Result<Cluster> {
    let cluster = Cluster::start(name).await?;
    for (group, version, kind, plural) in FOREIGN_KINDS {
        let definition = definition(group, version, kind, plural).to_string();
        cluster.kubectl_stdin(&["create", "-f", "-"], &definition).await?;
    }
    for (group, _, _, plural) in FOREIGN_KINDS {
        let definition = format!("crd/{plural}.{group}");
        cluster.kubectl(&["wait", "--for=condition=established", "--timeout=30s", &definition]).await?;
    }
    for namespace in [NAMESPACE, "flux-system", "vault"] {
        cluster.kubectl(&["create", "namespace", namespace]).await?;
    }
    let restricted = "pod-security.kubernetes.io/enforce=restricted";
    cluster.kubectl(&["label", "namespace", NAMESPACE, restricted]).await?;
    Ok(cluster)
}

/// Applies a folder as a careful user does, in which every field has to be one that the API server knows.
async fn apply(cluster: &Cluster, folder: &str) -> Result<()> {
    let apply = ["apply", "--server-side", "--validate=strict", "-k", folder];
    // The API server may take a moment to serve a new kind.
    eventually(&format!("{folder} to be applied"), SOON, || cluster.kubectl(&apply)).await?;
    Ok(())
}

/// The overlay of a cluster with all components.
async fn apply_all(cluster: &Cluster) -> Result<()> {
    let folder = kustomization(&format!("overlays/{}", cluster.name()), &COMPONENTS)?;
    apply(cluster, folder.path().to_str().context("the folder's name is not UTF-8")?).await
}

/// Kinds and names of what was applied, with the versions that it is stored in.
async fn versions(cluster: &Cluster) -> Result<BTreeMap<String, String>> {
    let kinds = "serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings,configmaps,services,\
                 validatingadmissionpolicies,validatingadmissionpolicybindings,cronjobs.batch,\
                 poddisruptionbudgets,networkpolicies,validatingwebhookconfigurations,mutatingwebhookconfigurations,prometheusrules,servicemonitors,\
                 helmreleases,kustomizations.kustomize.toolkit.fluxcd.io,gitrepositories,helmrepositories";
    let told = cluster.kubectl(&["get", kinds, "--all-namespaces", "-o", "json", "--show-managed-fields"]).await?;
    let told: Value = serde_json::from_str(&told)?;
    let mut versions = BTreeMap::new();
    for object in told["items"].as_array().context("no items")? {
        let metadata = &object["metadata"];
        let managers = metadata["managedFields"].as_array().into_iter().flatten();
        if managers.map(|entry| &entry["manager"]).any(|manager| manager == "kubectl") {
            let name = format!("{} {}/{}", object["kind"], metadata["namespace"], metadata["name"]);
            // A controller writes the status of policies later.
            let version = if object["kind"] == "ValidatingAdmissionPolicy" { "generation" } else { "resourceVersion" };
            versions.insert(name, metadata[version].to_string());
        }
    }
    Ok(versions)
}

async fn pods(cluster: &Cluster, selector: &str) -> Result<Vec<Value>> {
    let told = cluster.kubectl(&["-n", NAMESPACE, "get", "pods", "-l", selector, "-o", "json"]).await?;
    let mut told: Value = serde_json::from_str(&told)?;
    Ok(told["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
}

/// The gate's two pods and the Job's one are let into a namespace that refuses whatever is not restricted.
async fn pods_are_restricted(cluster: &Cluster) -> Result<()> {
    let lax = ["-n", NAMESPACE, "run", "lax", "--image=registry.example/lax"];
    let refusal = cluster.kubectl(&lax).await.err().context("PodSecurity is not enforced")?.to_string();
    ensure!(refusal.contains("violates PodSecurity \"restricted"), "{refusal}");

    for (selector, count) in [("app=istio-ca-gate", 2), ("batch.kubernetes.io/job-name", 1)] {
        let pods = eventually(&format!("pods with {selector}"), SOON, || async {
            let pods = pods(cluster, selector).await?;
            ensure!(pods.len() == count, "{} pods", pods.len());
            Ok(pods)
        })
        .await?;
        for pod in pods {
            let labels = &pod["metadata"]["labels"];
            ensure!(labels["sidecar.istio.io/inject"] == "false", "{labels}");
            ensure!(labels["istio.io/dataplane-mode"] == "none", "{labels}");
        }
    }
    Ok(())
}

async fn takes_every_manifest_by_kubectl(name: &str) -> Result<()> {
    let cluster = cluster(name).await?;
    let jobs = deploy(&format!("kustomize/jobs/{name}"));
    let folders = ["flux/istio", "flux/vault", "flux/gate-by-helm"].map(deploy);
    let folders = [vec![deploy(&format!("flux/{name}"))], folders.into(), vec![jobs]].concat();
    apply_all(&cluster).await?;
    for folder in &folders {
        apply(&cluster, folder).await?;
    }
    pods_are_restricted(&cluster).await?;

    // And once more, which changes nothing.
    let before = versions(&cluster).await?;
    ensure!(before.len() > 30, "{before:?}");
    apply_all(&cluster).await?;
    for folder in &folders {
        apply(&cluster, folder).await?;
    }
    ensure!(versions(&cluster).await? == before);
    println!("{name}: {} objects by kubectl, besides the Deployment, the Job and the namespaces", before.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_clusters_take_every_manifest_by_kubectl_and_its_pods_are_restricted() -> Result<()> {
    let _place = world::place().await?;
    tokio::try_join!(takes_every_manifest_by_kubectl("homelab"), takes_every_manifest_by_kubectl("nas"))?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_nobody_knows_is_refused() -> Result<()> {
    let _place = world::place().await?;
    let cluster = cluster("homelab").await?;
    let folder = kustomization("overlays/homelab", &[])?;
    let file = folder.path().join("kustomization.yaml");
    let mut kustomization: Value = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
    let patch = r#"[{ "op": "add", "path": "/spec/replica", "value": 2 }]"#;
    kustomization["patches"] = json!([{ "target": { "kind": "Deployment" }, "patch": patch }]);
    std::fs::write(&file, kustomization.to_string())?;
    let path = folder.path().to_str().context("the folder's name is not UTF-8")?;
    let applied = cluster.kubectl(&["apply", "--server-side", "--validate=strict", "-k", path]).await;
    let refusal = applied.err().context("it was taken")?.to_string();
    ensure!(refusal.contains("replica"), "{refusal}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_let_in_tells_its_root_and_waits_for_cacerts_should_that_be_deleted() -> Result<()> {
    let world = SmallWorld::homelab().await?;
    let (side, vault) = (&world.side, &world.vault);
    let _gate = Gate::start(side, vault).await?;
    side.deploy_istiod().await?;
    let name = side.pod("istiod").await?;
    let pod = side.object(&format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}")).await?.context("no pod")?;
    let pin = side.pin().await?.context("no pin")?;
    let annotations = &pod["metadata"]["annotations"];
    ensure!(annotations["istio-ca-gate.io/root-sha256"] == pin["data"]["root-sha256"], "{annotations}");
    ensure!(annotations["istio-ca-gate.io/vault-version"] == "1", "{annotations}");
    let volumes = pod["spec"]["volumes"].as_array().context("no volumes")?;
    let cacerts = volumes.iter().find(|volume| volume["secret"]["secretName"] == "cacerts").context("no cacerts")?;
    // Its Deployment has it optional, as istiod's chart does.
    ensure!(cacerts["secret"]["optional"] == false, "{cacerts}");

    // Nobody else is touched.
    side.deploy("bystander", json!({ "app": "bystander" })).await?;
    let name = side.pod("bystander").await?;
    let pod = side.object(&format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}")).await?.context("no pod")?;
    ensure!(pod["metadata"]["annotations"].is_null(), "{pod}");
    ensure!(pod["spec"]["volumes"][0]["secret"]["optional"] == true, "{pod}");
    Ok(())
}

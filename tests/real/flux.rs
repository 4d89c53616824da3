//! The HelmRelease of a blocked pod, on a real API server with Flux's kind. No helm-controller runs: what it is asked for
//! is the two annotations.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::{Process, eventually};

use crate::cacerts::foreign_ca;
use crate::gate::{Gate, Options};
use crate::world::{NAMESPACE, SOON, Side, SmallWorld};

/// Flux's HelmRelease, as far as names and annotations go.
const DEFINITION: &str = r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: { name: helmreleases.helm.toolkit.fluxcd.io }
spec:
  group: helm.toolkit.fluxcd.io
  scope: Namespaced
  names: { kind: HelmRelease, listKind: HelmReleaseList, plural: helmreleases, singular: helmrelease, shortNames: [hr] }
  versions:
    - name: v2
      served: true
      storage: true
      subresources: { status: {} }
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec: { type: object, x-kubernetes-preserve-unknown-fields: true }
            status: { type: object, x-kubernetes-preserve-unknown-fields: true }
";

const RELEASES: &str = r"
apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: { name: istiod, namespace: flux-system }
spec: { interval: 10m }
---
apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: { name: not-granted, namespace: flux-system }
spec: { interval: 10m }
";

/// istiod as helm-controller installs it.
const ISTIOD: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: istiod
  namespace: istio-system
  labels: { helm.toolkit.fluxcd.io/name: istiod, helm.toolkit.fluxcd.io/namespace: flux-system }
spec:
  replicas: 1
  selector: { matchLabels: { app: istiod } }
  template:
    metadata: { labels: { app: istiod, istio: pilot } }
    spec: { containers: [{ name: discovery, image: registry.example/istio }] }
";

async fn apply(side: &Side, manifest: &str) -> Result<()> {
    // The API server takes a moment to serve a new kind.
    eventually("a manifest to be applied", SOON, || side.cluster.kubectl_stdin(&["apply", "-f", "-"], manifest))
        .await?;
    Ok(())
}

async fn release(side: &Side, name: &str) -> Result<Value> {
    let path = format!("/apis/helm.toolkit.fluxcd.io/v2/namespaces/flux-system/helmreleases/{name}");
    Ok(side.object(&path).await?.context("no HelmRelease")?["metadata"].clone())
}

fn count(gates: [&Process; 2], said: &str) -> usize {
    gates.iter().map(|gate| gate.log().lines().filter(|line| line.contains(said)).count()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_release_is_named_and_asked_to_reconcile_once_by_all_replicas() -> Result<()> {
    let world = SmallWorld::nas().await?;
    let (side, vault) = (&world.side, &world.vault);
    side.cluster.kubectl(&["create", "namespace", "flux-system"]).await?;
    apply(side, DEFINITION).await?;
    apply(side, RELEASES).await?;
    side.apply_with(&["flux-reconcile"]).await?;
    let flags = ["--reconcile-helmrelease", "flux-system/istiod", "--reconcile-helmrelease", "flux-system/not-granted"];
    let options = || Options { flags: &flags, ..Options::default() };
    let (first, second) = (Gate::launch(side, vault, options()).await?, Gate::launch(side, vault, options()).await?);
    side.point_webhooks_at(&[first.port(), second.port()]).await?;
    side.is_injected().await?;

    apply(side, ISTIOD).await?;
    let refusal = side.refusal("istiod", "RootMissing").await?;
    ensure!(refusal.ends_with(" (HelmRelease flux-system/istiod)"), "{refusal}");
    for gate in [&first, &second] {
        gate.stands("held", Some("RootMissing")).await?;
    }
    // What a person sees who looks at the ReplicaSet.
    let described = eventually("the Event to be seen", SOON, || async {
        let text = side.cluster.kubectl(&["-n", NAMESPACE, "describe", "replicaset", "-l", "app=istiod"]).await?;
        ensure!(text.contains("GateHeld"), "{text}");
        Ok(text)
    })
    .await?;
    let line = described.lines().find(|line| line.contains("GateHeld")).context("no line")?;
    ensure!(
        line.contains("Warning") && line.contains("istio-ca-gate") && line.contains("RootMissing: cluster nas"),
        "{line}"
    );
    ensure!(release(side, "istiod").await?["annotations"]["reconcile.fluxcd.io/requestedAt"].is_null());
    // And one who looks at the release, where Flux itself tells of a timeout.
    let described = eventually("the Event of the release to be seen", SOON, || async {
        let text = side.cluster.kubectl(&["-n", "flux-system", "describe", "helmrelease", "istiod"]).await?;
        ensure!(text.contains("GateHeld"), "{text}");
        Ok(text)
    })
    .await?;
    let line = described.lines().find(|line| line.contains("GateHeld")).context("no line")?;
    ensure!(line.contains("Warning") && line.contains("RootMissing: cluster nas"), "{line}");

    let ca = foreign_ca().await?;
    let record = json!({
        "root-cert.pem": ca["root-cert.pem"], "cert-chain.pem": ca["cert-chain.pem"], "key.pem": ca["ca-key.pem"],
    });
    vault.ok("POST", "secret/data/istio/ca", Some(json!({ "data": record, "options": { "cas": 0 } }))).await?;
    side.pod("istiod").await?;
    for gate in [&first, &second] {
        gate.stands("open", None).await?;
    }
    let processes = [&first.process, &second.process];
    eventually("both replicas to have dealt with it", SOON, || async {
        let done =
            count(processes, "asked Flux to reconcile a HelmRelease") + count(processes, "another replica has asked");
        ensure!(done == 2, "{done}");
        Ok(())
    })
    .await?;
    ensure!(count(processes, "asked Flux to reconcile a HelmRelease") == 1);
    let metadata = release(side, "istiod").await?;
    let annotations = &metadata["annotations"];
    ensure!(annotations["reconcile.fluxcd.io/requestedAt"].is_string(), "{annotations}");
    ensure!(annotations["reconcile.fluxcd.io/requestedAt"] == annotations["reconcile.fluxcd.io/resetAt"]);
    let managers = metadata["managedFields"].as_array().context("no managed fields")?;
    ensure!(managers.iter().any(|entry| entry["manager"] == "istio-ca-gate"), "{metadata}");

    // The one that the rights do not name is left alone, and it is said what is missing.
    let missing = r#"cannot get resource \"helmreleases\" in API group \"helm.toolkit.fluxcd.io\""#;
    eventually("the missing right to be logged", SOON, || async { (count(processes, missing) > 0).then_some(()) })
        .await?;
    ensure!(count(processes, "deploy/kustomize/components/flux-reconcile") > 0);
    ensure!(release(side, "not-granted").await?["annotations"]["reconcile.fluxcd.io/requestedAt"].is_null());

    for reason in ["CacertsPublished", "GateOpened"] {
        let field = format!("source=istio-ca-gate,reason={reason}");
        let events = side.cluster.kubectl(&["-n", NAMESPACE, "get", "events", "--field-selector", &field]).await?;
        ensure!(events.contains("secret/cacerts"), "{events}");
    }
    Ok(())
}

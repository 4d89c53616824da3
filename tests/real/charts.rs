//! Which pods the gate is asked about, as a real API server evaluates the selectors of deploy/ on what Istio's real
//! charts make, and on their neighbours.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::Helm;

use crate::gate::Gate;
use crate::istio::reviews;
use crate::mesh::charts;
use crate::world::{NAMESPACE, Side, SmallWorld};
use testbed::side::MUTATING_WEBHOOKS;

/// The charts: folder, release, settings, and the webhook that is to catch its pods.
const RELEASES: [(&str, &str, &[&str], Option<&str>); 8] = [
    ("istio-control/istio-discovery", "istiod", &[], Some("app")),
    ("istio-control/istio-discovery", "istiod-canary", &["revision=canary"], Some("app")),
    ("gateway", "istio-eastwestgateway", &[], Some("app")),
    ("gateway", "istio-eastwestgateway", &["revision=canary", "networkGateway=nas"], Some("app")),
    // Another name, the label that every recipe for it has.
    ("gateway", "cross-network", &["labels.istio=eastwestgateway"], Some("istio")),
    ("gateway", "istio-ingressgateway", &[], None),
    ("istio-cni", "istio-cni", &["profile=ambient"], None),
    ("ztunnel", "ztunnel", &[], None),
];

/// Pods of other makers, by the labels that their charts and manifests give them. The first is what istiod makes of a
/// Gateway of ambient's east-west class.
fn neighbours() -> [(&'static str, Value, Option<&'static str>); 8] {
    let class = |class: &str, controller: &str| {
        json!({
            "gateway.networking.k8s.io/gateway-name": "eastwest",
            "gateway.networking.k8s.io/gateway-class-name": class,
            "gateway.istio.io/managed": controller,
        })
    };
    [
        ("ambient-east-west", class("istio-east-west", "istio.io-eastwest-controller"), Some("class")),
        ("ambient-waypoint", class("istio-waypoint", "istio.io-mesh-controller"), None),
        ("gateway-api-ingress", class("istio", "istio.io-gateway-controller"), None),
        ("vault", json!({ "app.kubernetes.io/name": "vault", "component": "server", "helm.sh/chart": "vault" }), None),
        ("coredns", json!({ "k8s-app": "kube-dns" }), None),
        ("helm-controller", json!({ "app": "helm-controller", "app.kubernetes.io/part-of": "flux" }), None),
        ("source-controller", json!({ "app": "source-controller", "app.kubernetes.io/part-of": "flux" }), None),
        ("unlabelled", json!({}), None),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gate_is_asked_about_istiod_and_east_west_gateways_of_the_real_charts_and_no_other_pod() -> Result<()> {
    let helm = Helm::new().await?;
    let world = SmallWorld::nas().await?;
    let side = &world.side;
    let gate = Gate::start(side, &world.vault).await?;

    let charts = charts().await?;
    let mut expected = 0;
    for (chart, release, settings, webhook) in RELEASES {
        let rendered = helm.template(NAMESPACE, release, &charts.join(chart), settings).await?;
        let pod = pod_of(&rendered).with_context(|| format!("{chart} {release}"))?;
        judged(side, &format!("{chart} {release} {settings:?}"), pod, webhook).await?;
        expected += usize::from(webhook.is_some());
    }
    for (name, labels, webhook) in neighbours() {
        let template = json!({
            "metadata": { "labels": labels },
            "spec": { "containers": [{ "name": "c", "image": "registry.example/c" }] },
        });
        judged(side, name, template, webhook).await?;
        expected += usize::from(webhook.is_some());
    }
    let ours = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/istio-ca-gate");
    let ours = side.object(&ours).await?.context("deploy/ has no Deployment istio-ca-gate")?;
    judged(side, "istio-ca-gate", ours["spec"]["template"].clone(), None).await?;

    // One call a gated pod, whose denial by the first webhook ends it, and no call about any other.
    let (denied, others) =
        (reviews(&gate, "denied"), [reviews(&gate, "allowed"), reviews(&gate, "not_gated")].concat());
    ensure!(denied.len() == expected && others.is_empty(), "denied {denied:?}, other answers for {others:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_real_istiods_pod_only_annotations_and_the_volume_of_cacerts_are_changed() -> Result<()> {
    let helm = Helm::new().await?;
    let world = SmallWorld::homelab().await?;
    let side = &world.side;
    let gate = Gate::start(side, &world.vault).await?;
    side.deploy_istiod().await?;
    side.pod("istiod").await?;

    let chart = charts().await?.join("istio-control/istio-discovery");
    let template = pod_of(&helm.template(NAMESPACE, "istiod", &chart, &[]).await?)?;
    let changed = admitted(side, &template).await?;
    let (status, answer) = side.api.request("DELETE", MUTATING_WEBHOOKS, None).await?;
    ensure!(status == 200, "{answer}");
    let mut wanted = admitted(side, &template).await?;
    ensure!(wanted != changed, "/mutate was not asked, or is asked still");

    let report = gate.fingerprint().await?;
    let root = report["vault"]["sha256"].as_str().context("no root")?.replace(':', "").to_lowercase();
    wanted["metadata"]["annotations"]["istio-ca-gate.io/root-sha256"] = json!(root);
    wanted["metadata"]["annotations"]["istio-ca-gate.io/vault-version"] = json!("1");
    let volumes = wanted["spec"]["volumes"].as_array_mut().context("no volumes")?;
    let mut cacerts = volumes.iter_mut().filter(|volume| volume["secret"]["secretName"] == "cacerts");
    let volume = cacerts.next().context("no volume of cacerts")?;
    ensure!(volume["secret"]["optional"] == true, "the chart's volume is not optional: {volume}");
    volume["secret"]["optional"] = json!(false);
    ensure!(cacerts.next().is_none(), "more than one volume of cacerts");
    ensure!(changed == wanted, "{changed}\n{wanted}");
    Ok(())
}

/// A pod as it is after admission, without what the API server makes up anew each time.
async fn admitted(side: &Side, template: &Value) -> Result<Value> {
    let mut pod = template.clone();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!("istiod-1");
    pod["spec"].as_object_mut().context("a template without spec")?.remove("serviceAccountName");
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All");
    let (status, mut pod) = side.api.request("POST", &path, Some(pod)).await?;
    ensure!(status == 201, "{status}: {pod}");
    let metadata = pod["metadata"].as_object_mut().context("no metadata")?;
    for unique in ["uid", "creationTimestamp", "managedFields"] {
        metadata.remove(unique);
    }
    // The volume of the service account's token, whose name is random.
    let random = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let random = random.filter_map(|volume| volume["name"].as_str()).find(|name| name.starts_with("kube-api-access-"));
    let pod = pod.to_string().replace(random.context("no token's volume")?, "kube-api-access");
    Ok(serde_json::from_str(&pod)?)
}

/// Creates a dry-run pod, and compares which webhook denied it: this gate is closed.
async fn judged(side: &Side, what: &str, template: Value, webhook: Option<&str>) -> Result<()> {
    let mut pod = template;
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["generateName"] = json!("pod-");
    let spec = pod["spec"].as_object_mut().context("a template without spec")?;
    // The account itself is not there: it plays no part in the selectors.
    spec.remove("serviceAccountName");
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All");
    let (status, answer) = side.api.request("POST", &path, Some(pod)).await?;
    let message = answer["message"].as_str().unwrap_or_default();
    match webhook {
        None => ensure!(status == 201, "{what}: {status}: {answer}"),
        Some(name) => ensure!(
            status == 403 && message.starts_with(&format!("admission webhook \"{name}.istio-ca-gate.io\" denied")),
            "{what}: {status}: {answer}"
        ),
    }
    println!("{what}: {}", webhook.unwrap_or("not asked"));
    Ok(())
}

/// The template of the one workload in a chart's manifests.
fn pod_of(rendered: &str) -> Result<Value> {
    let objects: Vec<Value> = serde_saphyr::from_multiple(rendered)?;
    let mut workloads = objects.into_iter().filter(|object| !object["spec"]["template"]["spec"].is_null());
    let mut workload = workloads.next().context("no workload")?;
    ensure!(workloads.next().is_none(), "more than one workload");
    Ok(workload["spec"]["template"].take())
}

//! The Helm chart: the same as the overlays in substance, and what Helm makes of it in a real cluster.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use testbed::{Cluster, Program, binaries, eventually};

use super::{COMPONENTS, cluster, deploy, pods};
use crate::world::{self, NAMESPACE, SOON, kustomization};

const CHART: &str = "helm/istio-ca-gate";

/// The values that are all components of deploy/kustomize.
const ALL: [&str; 12] = [
    "--set=peers.addresses={https://gate.nas.example:8443}",
    "--set=peers.dnsNames={gate.homelab.example}",
    "--set=peers.serviceType=LoadBalancer",
    "--set-literal=peers.caCertificate=-----BEGIN CERTIFICATE-----",
    "--set=externalSecrets={istio-cacerts}",
    "--set=reconcileHelmReleases={flux-system/istiod,flux-system/istio-eastwestgateway}",
    "--set=gatewaysAnywhere=true",
    "--set=monitoring.enabled=true",
    "--set=selfTest=true",
    "--set=signing.pkiMount=pki-mesh",
    "--set=signing.rotate.enabled=true",
    "--set-string=settings.RUST_LOG=info",
];

/// What the chart has for Helm alone.
const HELM_ONLY: [&str; 7] = [
    "checksum/settings",
    "helm.sh/resource-policy",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/name",
    "app.kubernetes.io/version",
    "helm.sh/chart",
];

/// A Helm, with a home of its own, and the CA that Vault's certificate may be from.
pub struct Helm {
    program: Program,
    removes_webhooks_first: bool,
    pub home: TempDir,
}

impl Helm {
    pub async fn new() -> Result<Self> {
        Self::of(binaries::helm, false).await
    }

    /// The old one and the new one.
    pub async fn both() -> Result<[Self; 2]> {
        Ok([Self::new().await?, Self::of(binaries::helm_4, true).await?])
    }

    async fn of(program: fn() -> Result<Program>, removes_webhooks_first: bool) -> Result<Self> {
        let program = tokio::task::spawn_blocking(program).await??;
        let home = tempfile::tempdir()?;
        let ca = rcgen::generate_simple_self_signed(["vault.homelab.example".to_owned()])?;
        std::fs::write(home.path().join("vault-ca.crt"), ca.cert.pem())?;
        Ok(Self { program, removes_webhooks_first, home })
    }

    fn program(&self, args: &[&str]) -> Program {
        let home = self.home.path();
        let places = ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"];
        let program = self.program.clone().args(args).env("HOME", home);
        places.iter().fold(program, |program, place| program.env(*place, home.join(place)))
    }

    /// A command on the chart with the values of a cluster.
    pub async fn chart(
        &self,
        command: &[&str],
        values: &str,
        more: &[&str],
        kubeconfig: Option<&Path>,
    ) -> Result<String> {
        let values = deploy(&format!("helm/{values}.yaml"));
        let ca = format!("--set-file=vault.caCertificate={}", self.home.path().join("vault-ca.crt").display());
        let chart = deploy(CHART);
        let args = [command, &[&chart, "--namespace", NAMESPACE, "--values", &values, &ca], more].concat();
        let program = self.program(&args);
        match kubeconfig {
            Some(kubeconfig) => program.env("KUBECONFIG", kubeconfig),
            None => program,
        }
        .output(None)
        .await
    }
}

/// Takes away what Helm and kustomize add each in its way.
fn normalise(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for place in ["labels", "annotations"] {
                if let Some(Value::Object(entries)) = fields.get_mut(place) {
                    entries.retain(|key, _| !HELM_ONLY.contains(&key.as_str()));
                    if entries.is_empty() {
                        fields.remove(place);
                    }
                }
            }
            fields.values_mut().for_each(normalise);
        }
        Value::Array(items) => items.iter_mut().for_each(normalise),
        Value::String(text) => {
            // kustomize puts a hash behind the names of the ConfigMaps that it makes.
            for name in ["istio-ca-gate-settings", "istio-ca-gate-vault-ca", "istio-ca-gate-peers"] {
                if text.strip_prefix(name).is_some_and(|hash| hash.starts_with('-') && hash.len() == 11) {
                    name.clone_into(text);
                }
            }
        }
        _ => {}
    }
}

/// Objects by kind, namespace and name.
pub fn objects(rendered: &str) -> Result<BTreeMap<String, Value>> {
    let mut objects = BTreeMap::new();
    for mut object in serde_saphyr::from_multiple::<Value>(rendered)? {
        if object.is_null() {
            continue;
        }
        normalise(&mut object);
        let name = format!("{} {}/{}", object["kind"], object["metadata"]["namespace"], object["metadata"]["name"]);
        ensure!(objects.insert(name.clone(), object).is_none(), "{name} is there twice");
    }
    Ok(objects)
}

async fn kustomized(overlay: &str, components: &[&str]) -> Result<BTreeMap<String, Value>> {
    let folder = kustomization(&format!("overlays/{overlay}"), components)?;
    let kubectl = tokio::task::spawn_blocking(binaries::ControlPlane::find).await??.kubectl;
    objects(&kubectl.env("HOME", folder.path()).arg("kustomize").arg(folder.path()).output(None).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chart_is_the_overlays_object_by_object() -> Result<()> {
    for helm in Helm::both().await? {
        for cluster in ["homelab", "nas"] {
            for (components, values) in [(&[][..], &[][..]), (&COMPONENTS[..], &ALL[..ALL.len() - 1])] {
                is_the_overlay(&helm, cluster, components, values).await?;
            }
        }
    }
    Ok(())
}

/// A Helm that is built as a module takes the cluster for one of Kubernetes 1.20.
pub const TEMPLATE: [&str; 3] = ["template", "istio-ca-gate", "--kube-version=1.30.0"];

async fn is_the_overlay(helm: &Helm, cluster: &str, components: &[&str], values: &[&str]) -> Result<()> {
    let kustomized = kustomized(cluster, components).await?;
    let charted = objects(&helm.chart(&TEMPLATE, cluster, values, None).await?)?;
    let names = |objects: &BTreeMap<String, Value>| objects.keys().cloned().collect::<Vec<_>>();
    ensure!(names(&kustomized) == names(&charted), "{:#?}\n{:#?}", names(&kustomized), names(&charted));
    for (name, object) in &kustomized {
        let is_ca = |name: &Value| name == "istio-ca-gate-vault-ca" || name == "istio-ca-gate-peers";
        if object["kind"] == "ConfigMap" && is_ca(&object["metadata"]["name"]) {
            // Everybody's own.
            continue;
        }
        ensure!(charted[name] == *object, "{cluster}: {name}:\n{object:#}\n{:#}", charted[name]);
    }
    println!("{cluster}: {} objects are the same by Helm and by kustomize", kustomized.len());
    Ok(())
}

/// What is missing, unknown or wrong, and what is said of it.
const WRONG: [(&str, &str); 20] = [
    ("--set=role=", "role is required"),
    ("--set=role=both", "/role"),
    ("--set=rolle=sync", "rolle"),
    // The program takes 50 characters.
    ("--set=cluster=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "/cluster"),
    ("--set=cluster=the nas", "/cluster"),
    ("--set=vault.addresses=null", "vault.addresses is required"),
    ("--set=vault.addresses={vault:8200}", "/vault/addresses/0"),
    ("--set=vault.addresses={https://vault.example:8200/v1}", "/vault/addresses/0"),
    // The file's name in place of the file. --set would be overruled by --set-file.
    ("--set-literal=vault.caCertificate=vault-ca.crt", "vault.caCertificate is no PEM certificate"),
    ("--set=selectors.app=null", "selectors"),
    ("--set=selectors.app={}", "/selectors/app"),
    ("--set=podLabels.app=mine", "'app'"),
    ("--set=commonLabels.app=mine", "'app'"),
    ("--set=image.repository=", "image.repository is required"),
    ("--set=settings.VAULT_TOKEN=x", "VAULT_TOKEN"),
    ("--set=settings.GATE_ROLE=sync", "settings.GATE_ROLE"),
    ("--set=settings.GATE_SELECTORS=app=x", "GATE_SELECTORS"),
    ("--set=reconcileHelmReleases={istiod}", "/reconcileHelmReleases/0"),
    ("--set=signing.rotate.enabled=true", "set signing.pkiMount, too"),
    ("--set=signing.rotate.schedule=7", "/signing/rotate/schedule"),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_chart_passes_lint_and_refuses_what_is_missing_or_unknown() -> Result<()> {
    for helm in Helm::both().await? {
        helm.program(&["lint", "--strict", &deploy(CHART)]).output(None).await?;
        for cluster in ["homelab", "nas"] {
            for values in [&[][..], &ALL[..]] {
                helm.chart(&["lint", "--strict"], cluster, values, None).await?;
            }
        }
        for (value, said) in WRONG {
            let told = helm.chart(&["template", "istio-ca-gate"], "nas", &[value], None).await;
            let refusal = told.err().with_context(|| format!("{value} is taken"))?.to_string();
            ensure!(refusal.contains(said), "{value}: {refusal}");
        }
    }
    Ok(())
}

/// `caBundle` of each of the gate's webhooks.
async fn ca_bundles(cluster: &Cluster) -> Result<Vec<Value>> {
    let told = cluster.kubectl(&["get", "validatingwebhookconfiguration", "istio-ca-gate", "-o", "json"]).await?;
    let told: Value = serde_json::from_str(&told)?;
    let webhooks = told["webhooks"].as_array().context("no webhooks")?;
    Ok(webhooks.iter().map(|webhook| webhook["clientConfig"]["caBundle"].clone()).collect())
}

/// Puts it there as the gate does: the field alone, by server-side apply.
async fn inject(cluster: &Cluster) -> Result<()> {
    let told = cluster.kubectl(&["get", "validatingwebhookconfiguration", "istio-ca-gate", "-o", "json"]).await?;
    let mut configuration: Value = serde_json::from_str(&told)?;
    for webhook in configuration["webhooks"].as_array_mut().context("no webhooks")? {
        webhook["clientConfig"]["caBundle"] = json!(k8s_openapi::ByteString(cluster.ca_pem().as_bytes().to_vec()));
    }
    cluster.kubectl_stdin(&["replace", "--field-manager=istio-ca-gate", "-f", "-"], &configuration.to_string()).await?;
    Ok(())
}

async fn installs_upgrades_and_uninstalls(helm: &Helm, name: &str) -> Result<()> {
    let cluster = cluster(name).await?;
    let kubeconfig = cluster.kubeconfig();
    let notes = helm.chart(&["install", "istio-ca-gate"], name, &ALL, Some(&kubeconfig)).await?;
    ensure!(notes.contains("exec deploy/istio-ca-gate -- istio-ca-gate doctor"), "{notes}");
    let let_in = |count| {
        let cluster = &cluster;
        eventually("the gate's pods", SOON, move || async move {
            let pods = pods(cluster, "app=istio-ca-gate").await?;
            ensure!(pods.len() == count, "{} pods", pods.len());
            Ok(pods)
        })
    };
    let_in(2).await?;
    let policies = cluster.kubectl(&["get", "validatingadmissionpolicybinding", "-o", "name"]).await?;
    ensure!(policies.lines().count() == 6, "{policies}");

    // Another setting is another pod; what the gate has injected stays.
    inject(&cluster).await?;
    let injected = ca_bundles(&cluster).await?;
    ensure!(injected.len() == 3 && injected.iter().all(Value::is_string), "{injected:?}");
    let template = ["-n", NAMESPACE, "get", "deploy/istio-ca-gate", "-o", "jsonpath={.spec.template.metadata}"];
    let before = cluster.kubectl(&template).await?;
    let more = [&ALL[..], &["--set-string=settings.GATE_REFRESH=30s"]].concat();
    helm.chart(&["upgrade", "istio-ca-gate"], name, &more, Some(&kubeconfig)).await?;
    ensure!(ca_bundles(&cluster).await? == injected);
    ensure!(cluster.kubectl(&template).await? != before);
    // Of the new ones none is ever ready here, so no old one goes.
    let_in(3).await?;

    opens_by_no_uninstallation(helm, &cluster, &injected).await?;
    removes_in_its_order(helm, &cluster).await
}

async fn uninstall(helm: &Helm, cluster: &Cluster) -> Result<String> {
    let remove = ["uninstall", "istio-ca-gate", "--namespace", NAMESPACE];
    helm.program(&remove).env("KUBECONFIG", cluster.kubeconfig()).output(None).await
}

/// As Flux's remediation or --atomic would do it: all goes but the webhooks, and an installation takes them up again.
async fn opens_by_no_uninstallation(helm: &Helm, cluster: &Cluster, injected: &[Value]) -> Result<()> {
    let told = uninstall(helm, cluster).await?;
    ensure!(told.contains("ValidatingWebhookConfiguration") && told.contains("MutatingWebhookConfiguration"), "{told}");
    for kind in ["clusterrole", "validatingadmissionpolicy"] {
        let left = cluster.kubectl(&["get", kind, "-o", "name"]).await?;
        ensure!(!left.contains("istio-ca-gate"), "{left}");
    }
    let gone = ["wait", "--for=delete", "--timeout=60s", "namespace/istio-ca-gate-self-test"];
    cluster.kubectl(&gone).await?;
    let istiod = ["-n", NAMESPACE, "run", "istiod", "--image=registry.example/istio", "--labels=app=istiod"];
    let refused = cluster.kubectl(&istiod).await.err().context("istiod is let in")?.to_string();
    ensure!(refused.contains("failed calling webhook \"app.istio-ca-gate.io\""), "{refused}");
    helm.chart(&["install", "istio-ca-gate"], cluster.name(), &ALL, Some(&cluster.kubeconfig())).await?;
    ensure!(ca_bundles(cluster).await? == injected, "caBundle is another one");
    Ok(())
}

/// When an object was deleted, told by the API server's history.
async fn deleted(cluster: &Cluster, path: &str, since: &str) -> Result<u64> {
    let watch = format!("{path}?watch=1&timeoutSeconds=1&resourceVersion={since}");
    let answer = cluster.raw(Some(cluster.admin_token()), "GET", &watch, &[], None).await?.text().await?;
    let events = answer.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let is_it = |event: &&Value| event["type"] == "DELETED" && event["object"]["metadata"]["name"] == "istio-ca-gate";
    let gone = events.iter().find(is_it).with_context(|| format!("{path}: {answer}"))?;
    Ok(gone["object"]["metadata"]["resourceVersion"].as_str().context("no version")?.parse()?)
}

/// Without the lock on it, what docs/flux.md says of each Helm's order.
async fn removes_in_its_order(helm: &Helm, cluster: &Cluster) -> Result<()> {
    let values = [&ALL[..], &["--set=webhooks.keep=false"]].concat();
    helm.chart(&["upgrade", "istio-ca-gate"], cluster.name(), &values, Some(&cluster.kubeconfig())).await?;
    let services = format!("/api/v1/namespaces/{NAMESPACE}/services");
    let (_, list) = cluster.request("GET", &services, None).await?;
    let since = list["metadata"]["resourceVersion"].as_str().context("no version")?.to_owned();
    uninstall(helm, cluster).await?;
    let webhooks =
        deleted(cluster, "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", &since).await?;
    let service = deleted(cluster, &services, &since).await?;
    ensure!((webhooks < service) == helm.removes_webhooks_first, "webhooks {webhooks}, Service {service}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_clusters_take_the_chart_one_by_helm_3_and_one_by_helm_4_and_nothing_opens_it() -> Result<()> {
    let _place = world::place().await?;
    let [old, new] = Helm::both().await?;
    tokio::try_join!(installs_upgrades_and_uninstalls(&old, "homelab"), installs_upgrades_and_uninstalls(&new, "nas"))?;
    Ok(())
}

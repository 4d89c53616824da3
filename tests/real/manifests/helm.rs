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
const ALL: [&str; 10] = [
    "--set=peers.addresses={https://gate.nas.example:8443}",
    "--set=peers.dnsNames={gate.homelab.example}",
    "--set=peers.serviceType=LoadBalancer",
    "--set-literal=peers.caCertificate=-----BEGIN CERTIFICATE-----",
    "--set=externalSecrets={istio-cacerts}",
    "--set=reconcileHelmReleases={flux-system/istiod,flux-system/istio-eastwestgateway}",
    "--set=gatewaysAnywhere=true",
    "--set=monitoring.enabled=true",
    "--set=selfTest=true",
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
struct Helm {
    program: Program,
    removes_webhooks_first: bool,
    home: TempDir,
}

impl Helm {
    async fn new() -> Result<Self> {
        Self::of(binaries::helm, false).await
    }

    /// The old one and the new one.
    async fn both() -> Result<[Self; 2]> {
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
    async fn chart(&self, command: &[&str], values: &str, more: &[&str], kubeconfig: Option<&Path>) -> Result<String> {
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
fn objects(rendered: &str) -> Result<BTreeMap<String, Value>> {
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
const TEMPLATE: [&str; 3] = ["template", "istio-ca-gate", "--kube-version=1.30.0"];

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
const WRONG: [(&str, &str); 18] = [
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

#[tokio::test(flavor = "multi_thread")]
async fn a_private_key_among_certificates_is_refused_and_not_shown() -> Result<()> {
    let pair = rcgen::generate_simple_self_signed(["vault.homelab.example".to_owned()])?;
    let (certificate, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
    for helm in Helm::both().await? {
        for (place, pem) in [("both", format!("{certificate}{key}")), ("key", key.clone())] {
            let file = helm.home.path().join(place);
            std::fs::write(&file, pem)?;
            for value in ["vault.caCertificate", "clientCaCertificate", "peers.caCertificate"] {
                let set = format!("--set-file={value}={}", file.display());
                // `lint` passes over what a template refuses.
                let linted = helm.chart(&["lint"], "nas", &[&set], None).await?;
                ensure!(!shows(&linted, &key), "lint shows the key of {value}");
                let told = helm.chart(&TEMPLATE, "nas", &[&set], None).await;
                let refusal = told.err().with_context(|| format!("{value}: {place} is taken"))?.to_string();
                ensure!(refusal.contains(&format!("{value} has a private key in it")), "{refusal}");
                ensure!(!shows(&refusal, &key), "the key of {value} is shown");
            }
        }
    }
    Ok(())
}

/// Whether any line of a key's PEM is in a text.
fn shows(text: &str, key: &str) -> bool {
    key.lines().filter(|line| !line.starts_with('-')).any(|line| text.contains(line))
}

/// Values as a user writes them, and where they have to arrive: object, place in it, what is there.
fn reached() -> Vec<(&'static str, &'static str, &'static str, Value)> {
    let pod = "Deployment istio-ca-gate";
    let settings = "ConfigMap istio-ca-gate-settings";
    let (validating, mutating) =
        ("ValidatingWebhookConfiguration istio-ca-gate", "MutatingWebhookConfiguration istio-ca-gate");
    let template = |place: &str| -> &'static str { format!("/spec/template/{place}").leak() };
    vec![
        (
            "servingCertificate.secretName=serving",
            settings,
            "/data/GATE_TLS_CERT_FILE",
            json!("/etc/istio-ca-gate-tls/tls.crt"),
        ),
        ("servingCertificate.secretName=serving", pod, template("spec/volumes/2/secret/secretName"), json!("serving")),
        (
            "peers.addresses={https://gate.example:8443}",
            settings,
            "/data/GATE_PEERS",
            json!("https://gate.example:8443"),
        ),
        (
            "peers.addresses={https://gate.example:8443}",
            "NetworkPolicy istio-ca-gate",
            "/spec/egress/3/ports/0/port",
            json!(8443),
        ),
        (
            "selectors.app={istiod,edge}",
            settings,
            "/data/GATE_SELECTORS",
            json!(
                "app in (istiod,edge);istio in (pilot,istiod,eastwestgateway);gateway.networking.k8s.io/gateway-class-name in (istio-east-west)"
            ),
        ),
        (
            "selectors.app={istiod,edge}",
            validating,
            "/webhooks/0/objectSelector/matchExpressions/0/values",
            json!(["istiod", "edge"]),
        ),
        (
            "selectors.app={istiod,edge}",
            mutating,
            "/webhooks/1/objectSelector/matchExpressions/0/values",
            json!(["istiod", "edge"]),
        ),
        ("webhooks.annotations.mine=yes", validating, "/metadata/annotations/mine", json!("yes")),
        ("volumes[0].name=more,volumes[0].emptyDir.medium=Memory", pod, template("spec/volumes/2/name"), json!("more")),
        (
            "volumeMounts[0].name=more,volumeMounts[0].mountPath=/more",
            pod,
            template("spec/containers/0/volumeMounts/2/mountPath"),
            json!("/more"),
        ),
        ("affinity.nodeAffinity.a=b", pod, template("spec/affinity/nodeAffinity/a"), json!("b")),
        ("nodeSelector.disk=ssd", pod, template("spec/nodeSelector/disk"), json!("ssd")),
        ("podAnnotations.mine=yes", pod, template("metadata/annotations/mine"), json!("yes")),
        ("podLabels.mine=yes", pod, template("metadata/labels/mine"), json!("yes")),
        ("commonLabels.team=mesh", "ServiceAccount istio-ca-gate", "/metadata/labels/team", json!("mesh")),
        (
            "serviceAccount.annotations.mine=yes",
            "ServiceAccount istio-ca-gate",
            "/metadata/annotations/mine",
            json!("yes"),
        ),
        ("service.annotations.mine=yes", "Service istio-ca-gate", "/metadata/annotations/mine", json!("yes")),
        ("hostNetwork=true", pod, template("spec/hostNetwork"), json!(true)),
        ("hostNetwork=true", pod, template("spec/dnsPolicy"), json!("ClusterFirstWithHostNet")),
        ("hostNetwork=true", pod, "/spec/strategy/rollingUpdate/maxSurge", json!(0)),
        ("ports.https=9443", settings, "/data/GATE_LISTEN", json!("[::]:9443")),
        ("ports.https=9443", pod, template("spec/containers/0/ports/0/containerPort"), json!(9443)),
        ("ports.http=9080", "NetworkPolicy istio-ca-gate", "/spec/ingress/0/ports/1/port", json!(9080)),
        // OpenShift's way: it chooses.
        ("podSecurityContext.runAsUser=null", pod, template("spec/securityContext/runAsUser"), Value::Null),
        (
            "securityContext.privileged=false",
            pod,
            template("spec/containers/0/securityContext/privileged"),
            json!(false),
        ),
        ("priorityClassName=", pod, template("spec/priorityClassName"), Value::Null),
        ("podDisruptionBudget.enabled=false", "PodDisruptionBudget istio-ca-gate", "", Value::Null),
        ("networkPolicy.enabled=false", "NetworkPolicy istio-ca-gate", "", Value::Null),
        ("policy.enabled=false", "ValidatingAdmissionPolicy istio-ca-gate-objects", "", Value::Null),
    ]
}

/// The object of this kind and name.
fn named<'a>(rendered: &'a BTreeMap<String, Value>, object: &str) -> Option<&'a Value> {
    let (kind, name) = object.split_once(' ')?;
    rendered.values().find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_value_of_the_chart_reaches_its_object() -> Result<()> {
    let helm = Helm::new().await?;
    for (set, object, place, wanted) in reached() {
        let rendered = objects(&helm.chart(&TEMPLATE, "nas", &[&format!("--set={set}")], None).await?)?;
        let found = named(&rendered, object);
        let there = found.and_then(|object| object.pointer(place)).cloned().unwrap_or_default();
        ensure!(there == wanted, "{set}: {object}{place}: {there}");
    }
    // Files, which --set-file takes.
    let ca = helm.home.path().join("vault-ca.crt");
    for (value, setting, folder) in [
        ("clientCaCertificate", "GATE_CLIENT_CA_FILE", "client-ca"),
        ("peers.caCertificate", "GATE_PEER_CA_CERT", "peers"),
    ] {
        let set = format!("--set-file={value}={}", ca.display());
        let rendered = objects(&helm.chart(&TEMPLATE, "nas", &[&set], None).await?)?;
        let of = |name: &str| named(&rendered, name).cloned().context("not there");
        let settings = of("ConfigMap istio-ca-gate-settings")?;
        ensure!(settings["data"][setting] == format!("/etc/istio-ca-gate-{folder}/ca.crt"), "{settings}");
        let held = of(&format!("ConfigMap istio-ca-gate-{folder}"))?;
        ensure!(held["data"]["ca.crt"] == std::fs::read_to_string(&ca)?, "{held}");
        let pod = &of("Deployment istio-ca-gate")?["spec"]["template"]["spec"];
        ensure!(
            pod["containers"][0]["volumeMounts"][2]["mountPath"] == format!("/etc/istio-ca-gate-{folder}"),
            "{pod}"
        );
        ensure!(pod["volumes"][2]["configMap"]["name"] == format!("istio-ca-gate-{folder}"), "{pod}");
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

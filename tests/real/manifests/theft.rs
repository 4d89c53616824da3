//! What a thief of the gate's token can do: no more than the gate does, by the policies beside RBAC. Each theft is tried
//! with the policies, and again without them, where RBAC alone lets it through.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use testbed::{Cluster, eventually};

use super::{apply, apply_all, cluster, deploy};
use crate::world::{self, NAMESPACE, SOON};

const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/istio-ca-gate";
const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/istio-ca-gate";
const SECRETS: &str = "/api/v1/namespaces/istio-system/secrets";
const CONFIG_MAPS: &str = "/api/v1/namespaces/istio-system/configmaps";
const RELEASE: &str = "/apis/helm.toolkit.fluxcd.io/v2/namespaces/flux-system/helmreleases/istiod";
const EXTERNAL_SECRET: &str = "/apis/external-secrets.io/v1/namespaces/istio-system/externalsecrets/istio-cacerts";
const SELF_TEST: &str = "/api/v1/namespaces/istio-ca-gate-self-test/pods";

/// Method, path and body.
type Request = (&'static str, String, Value);

/// Fields of a webhook that are not said to be kept: one is its key, of the other two fields are.
const NOT_KEPT_WHOLE: [&str; 2] = ["name", "clientConfig"];

/// Fields of metadata that no client can change.
const NOT_TO_BE_CHANGED: [&str; 11] = [
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generateName",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// An owner that does not exist: whatever has only such is deleted by the garbage collector.
fn dangling() -> Value {
    json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "00000000-0000-4000-8000-000000000000" }])
}

fn metadata(field: &str, value: Value) -> Value {
    json!({ "metadata": { field: value } })
}

/// What would be wrong with any object.
fn wrong_metadata(path: &str) -> Vec<Request> {
    let patch = |body| ("PATCH", path.to_owned(), body);
    vec![patch(metadata("ownerReferences", dangling())), patch(metadata("finalizers", json!(["example.com/for-ever"])))]
}

/// The same, and labels and annotations.
fn any_metadata(path: &str) -> Vec<Request> {
    let patch = |body| ("PATCH", path.to_owned(), body);
    let mut requests = wrong_metadata(path);
    requests.push(patch(metadata("labels", json!({ "app": "another" }))));
    requests.push(patch(metadata("annotations", json!({ "cert-manager.io/inject-ca-from": "a/b" }))));
    requests
}

/// Each field of the first webhook changed, one webhook more, and one less.
async fn on_webhooks(cluster: &Cluster, path: &'static str) -> Result<Vec<Request>> {
    let (_, configuration) = cluster.request("GET", path, None).await?;
    let webhooks = configuration["webhooks"].as_array().context("no webhooks")?.clone();
    let with = |change: &dyn Fn(&mut Vec<Value>)| {
        let mut changed = webhooks.clone();
        change(&mut changed);
        ("PATCH", path.to_owned(), json!({ "webhooks": changed }))
    };
    let everything = json!([{ "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"], "operations": ["*"] }]);
    let mut fields = vec![
        ("rules", everything),
        ("namespaceSelector", json!({ "matchLabels": { "no": "namespace" } })),
        ("objectSelector", json!({})),
        ("matchConditions", json!([{ "name": "never", "expression": "false" }])),
        ("matchPolicy", json!("Exact")),
        ("failurePolicy", json!("Ignore")),
        ("sideEffects", json!("None")),
        ("timeoutSeconds", json!(1)),
        ("admissionReviewVersions", json!(["v1", "v2"])),
        ("clientConfig", json!({ "url": "https://thief.example" })),
        ("clientConfig", json!({ "service": { "namespace": "default", "name": "thief" } })),
        ("name", json!("another.istio-ca-gate.io")),
    ];
    if path == MUTATING {
        fields.push(("reinvocationPolicy", json!("IfNeeded")));
    }
    let mut requests: Vec<_> =
        fields.iter().map(|(field, value)| with(&|webhooks| webhooks[0][*field] = value.clone())).collect();
    requests.push(with(&|webhooks| {
        let mut more = webhooks[0].clone();
        more["name"] = json!("more.istio-ca-gate.io");
        webhooks.push(more);
    }));
    requests.push(with(&|webhooks| drop(webhooks.pop())));
    requests.extend(any_metadata(path));
    Ok(requests)
}

/// A ReplicaSet that has no pods, as seen by its status.
async fn owner(cluster: &Cluster, name: &str) -> Result<String> {
    let labels = json!({ "app": name });
    let replica_set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": { "name": name, "labels": labels },
        "spec": { "replicas": 0, "selector": { "matchLabels": labels }, "template": {
            "metadata": { "labels": labels },
            "spec": { "containers": [{ "name": "c", "image": "registry.example/c" }] },
        } },
    });
    let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/replicasets");
    made(cluster, &path, replica_set).await?;
    Ok(format!("{path}/{name}/status"))
}

async fn made(cluster: &Cluster, path: &str, object: Value) -> Result<()> {
    let (status, answer) = cluster.request("POST", path, Some(object)).await?;
    ensure!(status == 201, "POST {path}: {status}: {answer}");
    Ok(())
}

fn secret(name: &str, kind: &str) -> Value {
    let annotations = json!({ "kubernetes.io/service-account.name": "default" });
    json!({ "apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": { "name": name, "annotations": annotations } })
}

fn config_map(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } })
}

/// One that the level `restricted` takes.
fn pod(name: &str) -> Value {
    let security = json!({
        "allowPrivilegeEscalation": false, "runAsNonRoot": true,
        "capabilities": { "drop": ["ALL"] }, "seccompProfile": { "type": "RuntimeDefault" },
    });
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name }, "spec": {
        "containers": [{ "name": "c", "image": "registry.example/c", "securityContext": security }],
    } })
}

/// What the gate itself does.
fn work(owner: &str) -> Vec<Request> {
    let annotated = |path: &str, key: &str| {
        ("PATCH", path.to_owned(), metadata("annotations", json!({ key: "2026-11-28T10:00:00Z" })))
    };
    vec![
        ("POST", SECRETS.to_owned(), secret("cacerts", "Opaque")),
        (
            "PATCH",
            format!("{SECRETS}/cacerts"),
            json!({ "metadata": { "labels": { "a": "b" } }, "stringData": { "a": "b" } }),
        ),
        ("POST", SECRETS.to_owned(), secret("istio-ca-gate-tls", "Opaque")),
        ("PATCH", format!("{SECRETS}/istio-ca-gate-tls"), json!({ "stringData": { "a": "b" } })),
        ("POST", CONFIG_MAPS.to_owned(), config_map("istio-ca-gate")),
        ("PATCH", format!("{CONFIG_MAPS}/istio-ca-gate"), json!({ "data": { "root-sha256": "00" } })),
        annotated(owner, "istio-ca-gate.io/touched-at"),
        annotated(RELEASE, "reconcile.fluxcd.io/requestedAt"),
        annotated(RELEASE, "reconcile.fluxcd.io/resetAt"),
        annotated(EXTERNAL_SECRET, "force-sync"),
        ("POST", format!("{SELF_TEST}?dryRun=All"), pod("asked-for")),
    ]
}

/// Puts `caBundle` into each webhook as the gate does: by server-side apply of that field alone.
async fn inject(cluster: &Cluster, token: &str, path: &str, kind: &str) -> Result<()> {
    let (_, configuration) = cluster.request("GET", path, None).await?;
    let webhooks = configuration["webhooks"].as_array().context("no webhooks")?.iter();
    let bundle = json!(k8s_openapi::ByteString(cluster.ca_pem().as_bytes().to_vec()));
    let body = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
        "metadata": { "name": "istio-ca-gate", "resourceVersion": configuration["metadata"]["resourceVersion"] },
        "webhooks": webhooks
            .map(|webhook| json!({ "name": webhook["name"], "clientConfig": { "caBundle": bundle } }))
            .collect::<Vec<_>>(),
    });
    let path = format!("{path}?fieldManager=istio-ca-gate&force=true");
    let headers = [("content-type", "application/apply-patch+yaml")];
    let answer = cluster.raw(Some(token), "PATCH", &path, &headers, Some(body.to_string())).await?;
    let (status, text) = (answer.status(), answer.text().await?);
    ensure!(status == 200 && text.contains("caBundle"), "{path}: {status}: {text}");
    Ok(())
}

/// What it never does with anything but webhooks, though RBAC lets it.
fn thefts(owner: &str) -> Vec<Request> {
    let patch = |path: &str, body| ("PATCH", path.to_owned(), body);
    let mut all = Vec::new();
    for path in [owner, RELEASE, EXTERNAL_SECRET] {
        all.extend(any_metadata(path));
    }
    all.push(patch(owner, json!({ "status": { "replicas": 7, "conditions": null } })));
    all.push(patch(RELEASE, json!({ "spec": { "suspend": true } })));
    all.push(patch(EXTERNAL_SECRET, json!({ "spec": { "target": { "name": "another" } } })));
    let (cacerts, pin) = (format!("{SECRETS}/cacerts"), format!("{CONFIG_MAPS}/istio-ca-gate"));
    for path in [&cacerts, &format!("{SECRETS}/istio-ca-gate-tls"), &pin] {
        all.extend(wrong_metadata(path));
        all.push(patch(path, json!({ "immutable": true })));
    }
    all.push(("POST", SECRETS.to_owned(), secret("token", "kubernetes.io/service-account-token")));
    all.push(("POST", SECRETS.to_owned(), secret("another", "Opaque")));
    all.push(("POST", CONFIG_MAPS.to_owned(), config_map("istio")));
    all.push(("POST", SELF_TEST.to_owned(), pod("started")));
    all
}

/// A request of the gate's account, and how it ended.
async fn sent(cluster: &Cluster, token: &str, request: &Request, dry_run: bool) -> Result<(u16, String)> {
    let (method, path, body) = request;
    let dry_run = if dry_run && path != SELF_TEST && !path.contains('?') { "?dryRun=All" } else { "" };
    let path = format!("{path}{dry_run}");
    let (status, answer) = cluster.request_with(Some(token), method, &path, Some(body.clone())).await?;
    Ok((status, answer["message"].as_str().unwrap_or_default().to_owned()))
}

async fn refused_by_a_policy(cluster: &Cluster, token: &str, request: &Request) -> Result<()> {
    let (status, message) = sent(cluster, token, request, true).await?;
    ensure!(
        status == 403 && message.contains("ValidatingAdmissionPolicy 'istio-ca-"),
        "{request:?}: {status}: {message}"
    );
    Ok(())
}

/// Policies follow as RBAC does: what they refuse is asked for by dry run until they do.
async fn in_force(cluster: &Cluster, token: &str, requests: &[Request], refused: bool) -> Result<()> {
    for request in requests {
        eventually("the policies to be in force, or not to be any more", SOON, || async {
            let (status, message) = sent(cluster, token, request, true).await?;
            ensure!((status == 403) == refused, "{request:?}: {status}: {message}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn release_and_external_secret(cluster: &Cluster) -> Result<()> {
    for (path, version, kind) in [
        (RELEASE, "helm.toolkit.fluxcd.io/v2", "HelmRelease"),
        (EXTERNAL_SECRET, "external-secrets.io/v1", "ExternalSecret"),
    ] {
        let (collection, name) = path.rsplit_once('/').context("no name")?;
        let spec = json!({ "suspend": false });
        made(
            cluster,
            collection,
            json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name }, "spec": spec }),
        )
        .await?;
    }
    Ok(())
}

/// One of each policy, all of them harmless by dry run.
fn probes(owner: &str) -> Vec<Request> {
    [VALIDATING, owner, RELEASE, EXTERNAL_SECRET]
        .map(|path| ("PATCH", path.to_owned(), metadata("labels", json!({ "a": "b" }))))
        .into_iter()
        .chain([("POST", CONFIG_MAPS.to_owned(), config_map("another"))])
        .collect()
}

async fn policies(cluster: &Cluster) -> Result<Vec<Value>> {
    let (_, told) =
        cluster.request("GET", "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies", None).await?;
    Ok(told["items"].as_array().context("no policies")?.clone())
}

/// Each field that this API server knows is either kept by the policy or cannot be changed at all.
async fn no_field_is_forgotten(cluster: &Cluster) -> Result<()> {
    let (status, told) = cluster.request("GET", "/openapi/v3/apis/admissionregistration.k8s.io/v1", None).await?;
    ensure!(status == 200, "{told}");
    let fields = |name: &str| -> Result<BTreeSet<String>> {
        let schema = &told["components"]["schemas"][name]["properties"];
        Ok(schema.as_object().with_context(|| format!("no {name}"))?.keys().cloned().collect())
    };
    let policy =
        policies(cluster).await?.into_iter().find(|policy| policy["metadata"]["name"] == "istio-ca-gate-webhooks");
    let validations = policy.context("no policy")?["spec"]["validations"].to_string();
    let kind = |name: &str| format!("io.k8s.api.admissionregistration.v1.{name}");
    for webhook in ["ValidatingWebhook", "MutatingWebhook"] {
        let wanted = fields(&kind(webhook))?.into_iter().filter(|field| !NOT_KEPT_WHOLE.contains(&field.as_str()));
        for field in wanted {
            ensure!(validations.contains(&format!("is.?{field} == was.?{field}")), "{webhook}.{field} may be changed");
        }
        let configuration = fields(&kind(&format!("{webhook}Configuration")))?;
        ensure!(configuration.iter().eq(["apiVersion", "kind", "metadata", "webhooks"]), "{configuration:?}");
    }
    for field in fields(&kind("WebhookClientConfig"))?.into_iter().filter(|field| field != "caBundle") {
        let kept = format!("is.clientConfig.?{field} == was.clientConfig.?{field}");
        ensure!(validations.contains(&kept), "clientConfig.{field} may be changed");
    }
    for field in fields("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")? {
        let kept = validations.contains(&format!("object.metadata.?{field}"));
        ensure!(kept != NOT_TO_BE_CHANGED.contains(&field.as_str()), "metadata.{field}");
    }
    Ok(())
}

/// The controller that checks types has looked at each policy, and has no warning.
async fn expressions_are_sound(cluster: &Cluster) -> Result<()> {
    eventually("the policies to be checked", SOON, || async {
        let policies = policies(cluster).await?;
        ensure!(policies.len() == 6, "{} policies", policies.len());
        for policy in policies {
            let status = &policy["status"];
            ensure!(status["observedGeneration"] == policy["metadata"]["generation"], "not yet: {status}");
            ensure!(status["typeChecking"]["expressionWarnings"].is_null(), "{}: {status}", policy["metadata"]["name"]);
        }
        Ok(())
    })
    .await
}

async fn nobody_else_is_kept_out(cluster: &Cluster, requests: &[Request]) -> Result<()> {
    for request in requests {
        let (status, message) = sent(cluster, cluster.admin_token(), request, true).await?;
        ensure!(matches!(status, 200 | 201), "{request:?}: {status}: {message}");
    }
    // It was not tried: without the policies, it is the gate's account that starts it.
    let (status, answer) =
        cluster.request("DELETE", &format!("{SELF_TEST}/started?gracePeriodSeconds=0"), None).await?;
    ensure!(status == 200, "{answer}");
    Ok(())
}

/// The time until the garbage collector has deleted an owner whose owner does not exist.
async fn deleted_through_its_status(cluster: &Cluster, token: &str, owner: &str) -> Result<Duration> {
    let theft = ("PATCH", owner.to_owned(), metadata("ownerReferences", dangling()));
    let (status, message) = sent(cluster, token, &theft, false).await?;
    ensure!(status == 200, "{status}: {message}");
    let (start, path) = (Instant::now(), owner.trim_end_matches("/status"));
    eventually("the garbage collector", SOON, || async {
        let (status, _) = cluster.request("GET", path, None).await?;
        if status == 404 { Ok(start.elapsed()) } else { bail!("it is still there") }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thief_of_the_gates_token_can_write_what_the_gate_writes_and_nothing_else() -> Result<()> {
    let _place = world::place().await?;
    let cluster = cluster("homelab").await?;
    apply_all(&cluster).await?;
    release_and_external_secret(&cluster).await?;
    let owner = owner(&cluster, "blocked").await?;
    let token = cluster.service_account_token(NAMESPACE, "istio-ca-gate", &[cluster.issuer()], 3600).await?;
    in_force(&cluster, &token, &probes(&owner), true).await?;
    no_field_is_forgotten(&cluster).await?;
    expressions_are_sound(&cluster).await?;

    let work = work(&owner);
    for request in &work {
        let (status, message) = sent(&cluster, &token, request, false).await?;
        ensure!(matches!(status, 200 | 201), "{request:?}: {status}: {message}");
    }
    inject(&cluster, &token, VALIDATING, "ValidatingWebhookConfiguration").await?;
    inject(&cluster, &token, MUTATING, "MutatingWebhookConfiguration").await?;
    let mut thefts = thefts(&owner);
    for path in [VALIDATING, MUTATING] {
        thefts.extend(on_webhooks(&cluster, path).await?);
    }
    for theft in &thefts {
        refused_by_a_policy(&cluster, &token, theft).await?;
    }
    nobody_else_is_kept_out(&cluster, &thefts).await?;

    // Without the policies each of them is let through by RBAC alone.
    let bindings = ["delete", "validatingadmissionpolicybindings", "--all"];
    cluster.kubectl(&bindings).await?;
    in_force(&cluster, &token, &probes(&owner), false).await?;
    for theft in &thefts {
        let (status, message) = sent(&cluster, &token, theft, true).await?;
        ensure!(matches!(status, 200 | 201), "without policies: {theft:?}: {status}: {message}");
    }
    let deleted = deleted_through_its_status(&cluster, &token, &owner).await?;
    println!(
        "{} writes of the gate's and caBundle taken, {} thefts refused that RBAC alone lets through; by one of them an owner is deleted in {} ms",
        work.len(),
        thefts.len(),
        deleted.as_millis()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_can_a_thief_of_the_jobs_token() -> Result<()> {
    let _place = world::place().await?;
    let cluster = cluster("nas").await?;
    apply(&cluster, &deploy("kustomize/jobs/nas")).await?;
    let owner = owner(&cluster, "blocked").await?;
    let token = cluster.service_account_token(NAMESPACE, "istio-ca-sync", &[cluster.issuer()], 3600).await?;
    let probes: Vec<_> =
        probes(&owner).into_iter().filter(|probe| probe.1 == owner || probe.1 == CONFIG_MAPS).collect();
    in_force(&cluster, &token, &probes, true).await?;
    let is_the_jobs = |request: &Request| {
        let place = [&*owner, SECRETS, CONFIG_MAPS].iter().any(|path| request.1.starts_with(path));
        place && !request.1.contains("-tls") && request.2["metadata"]["name"] != "istio-ca-gate-tls"
    };
    for request in work(&owner).iter().filter(|request| is_the_jobs(request)) {
        let (status, message) = sent(&cluster, &token, request, false).await?;
        ensure!(matches!(status, 200 | 201), "{request:?}: {status}: {message}");
    }
    let thefts: Vec<_> = thefts(&owner).into_iter().filter(is_the_jobs).collect();
    for theft in &thefts {
        refused_by_a_policy(&cluster, &token, theft).await?;
    }
    ensure!(thefts.len() > 10, "{thefts:?}");
    println!("{} thefts by the Job's account refused", thefts.len());
    Ok(())
}

//! When a webhook is asked.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testbed::KubernetesApi;

use crate::suite::webhook::{Kind, Webhook, allowed, denied};
use crate::suite::{Case, cases};

pub const CASES: &[Case<KubernetesApi>] = cases![
    a_rule_names_groups_versions_operations_and_resources,
    a_star_for_resources_leaves_out_subresources,
    a_scope_leaves_out_the_other_one,
    a_namespace_selector_has_expressions,
    an_object_selector_looks_at_the_old_and_the_new_object,
    a_namespace_is_selected_by_its_own_labels,
    the_configurations_of_webhooks_are_never_reviewed,
    a_configuration_that_is_removed_asks_no_more,
];

fn rule(groups: &[&str], versions: &[&str], operations: &[&str], resources: &[&str]) -> Value {
    json!({"rules": [{"apiGroups": groups, "apiVersions": versions, "operations": operations, "resources": resources}]})
}

/// What a webhook with these rules was asked about: its operation, and its resource with its subresource.
async fn asked_about(cluster: &KubernetesApi, namespace: &str, differs: Value) -> Result<Vec<String>> {
    let webhook = Webhook::start(cluster, namespace, |review, _| allowed(review)).await?;
    webhook.register(Kind::Validating, differs).await?;
    let map = json!({"metadata": {"name": "c"}});
    let set = json!({"metadata": {"name": "s"}, "spec": {
        "replicas": 0,
        "selector": {"matchLabels": {"app": "s"}},
        "template": {"metadata": {"labels": {"app": "s"}}, "spec": {"containers": [{"name": "m", "image": "i"}]}},
    }});
    let annotated = json!({"metadata": {"annotations": {"a": "1"}}});
    for (method, root, path, body) in [
        ("POST", "/api/v1", "configmaps", Some(map)),
        ("PATCH", "/api/v1", "configmaps/c", Some(annotated.clone())),
        ("DELETE", "/api/v1", "configmaps/c", None),
        ("POST", "/apis/apps/v1", "statefulsets", Some(set)),
        ("PATCH", "/apis/apps/v1", "statefulsets/s/status", Some(annotated)),
    ] {
        let (status, answer) = webhook.request(method, root, path, body).await?;
        ensure!(status < 300, "{method} {path}: {status}: {answer}");
    }
    let mut asked = Vec::new();
    for review in webhook.reviews()? {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        // The controllers write too, and services only ask whether the webhook is in force.
        if text(&review["userInfo"]["username"]).starts_with("system:") || review["kind"]["kind"] == "Service" {
            continue;
        }
        let (resource, subresource) = (text(&review["resource"]["resource"]), text(&review["subResource"]));
        let slash = if subresource.is_empty() { "" } else { "/" };
        asked.push(format!("{} {resource}{slash}{subresource}", text(&review["operation"])));
    }
    webhook.end().await?;
    // A patch is made and reviewed anew where a controller wrote meanwhile.
    asked.dedup();
    Ok(asked)
}

async fn a_rule_names_groups_versions_operations_and_resources(cluster: &KubernetesApi) -> Result<()> {
    let creations = rule(&["apps"], &["v1"], &["CREATE", "DELETE"], &["statefulsets", "configmaps"]);
    let asked = asked_about(cluster, "rule-exact", creations).await?;
    ensure!(asked == ["CREATE statefulsets"], "{asked:?}");
    let all = rule(&["*"], &["*"], &["*"], &["*/*"]);
    let asked = asked_about(cluster, "rule-all", all).await?;
    let wanted = [
        "CREATE configmaps",
        "UPDATE configmaps",
        "DELETE configmaps",
        "CREATE statefulsets",
        "UPDATE statefulsets/status",
    ];
    ensure!(asked == wanted, "{asked:?}");
    let asked = asked_about(cluster, "rule-version", rule(&["*"], &["v1beta1"], &["*"], &["*/*"])).await?;
    ensure!(asked.is_empty(), "{asked:?}");
    Ok(())
}

async fn a_star_for_resources_leaves_out_subresources(cluster: &KubernetesApi) -> Result<()> {
    let asked = asked_about(cluster, "rule-star", rule(&["apps"], &["*"], &["*"], &["*"])).await?;
    ensure!(asked == ["CREATE statefulsets"], "{asked:?}");
    let asked = asked_about(cluster, "rule-sub", rule(&["apps"], &["*"], &["*"], &["*/status"])).await?;
    ensure!(asked == ["UPDATE statefulsets/status"], "{asked:?}");
    let asked = asked_about(cluster, "rule-subs", rule(&["apps"], &["*"], &["*"], &["statefulsets/*"])).await?;
    ensure!(asked == ["CREATE statefulsets", "UPDATE statefulsets/status"], "{asked:?}");
    Ok(())
}

async fn a_scope_leaves_out_the_other_one(cluster: &KubernetesApi) -> Result<()> {
    let scoped = |scope: &str| {
        let mut rule = rule(&[""], &["v1"], &["DELETE"], &["configmaps"]);
        rule["rules"][0]["scope"] = scope.into();
        rule
    };
    for (namespace, scope, times) in [("scope-namespaced", "Namespaced", 1), ("scope-cluster", "Cluster", 0)] {
        let asked = asked_about(cluster, namespace, scoped(scope)).await?;
        ensure!(asked.len() == times, "{scope}: {asked:?}");
    }
    Ok(())
}

async fn a_namespace_selector_has_expressions(cluster: &KubernetesApi) -> Result<()> {
    let name = "kubernetes.io/metadata.name";
    for (namespace, operator, values, key, times) in [
        ("selected-in", "In", json!(["selected-in", "other"]), name, 1),
        ("selected-exists", "Exists", json!([]), name, 1),
        ("selected-not-in", "NotIn", json!(["selected-not-in"]), name, 0),
        ("selected-without", "DoesNotExist", json!([]), name, 0),
    ] {
        let webhook = Webhook::start(cluster, namespace, |review, _| allowed(review)).await?;
        let here = json!({"matchLabels": {"case": namespace}});
        let selector = json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        webhook.register(Kind::Validating, json!({"namespaceSelector": selector, "objectSelector": here})).await?;
        let mut pod = crate::suite::webhook::pod("p");
        pod["metadata"]["labels"] = json!({"case": namespace});
        let (status, answer) = webhook.request("POST", "/api/v1", "pods", Some(pod)).await?;
        ensure!(status == 201, "{status}: {answer}");
        ensure!(webhook.asked().len() == times, "{operator}: {} times", webhook.asked().len());
        webhook.end().await?;
    }
    Ok(())
}

async fn an_object_selector_looks_at_the_old_and_the_new_object(cluster: &KubernetesApi) -> Result<()> {
    let webhook = Webhook::start(cluster, "selected-object", |review, _| allowed(review)).await?;
    let mut differs = rule(&[""], &["v1"], &["*"], &["configmaps"]);
    differs["objectSelector"] = json!({"matchLabels": {"seen": "yes"}});
    webhook.register(Kind::Validating, differs).await?;
    let unseen = json!({"metadata": {"name": "unseen"}});
    let seen = json!({"metadata": {"name": "seen", "labels": {"seen": "yes"}}});
    let no_more = json!({"metadata": {"labels": {"seen": null}}});
    for (method, path, body, times) in [
        ("POST", "configmaps", Some(unseen), 0),
        ("POST", "configmaps", Some(seen), 1),
        ("PATCH", "configmaps/seen", Some(no_more), 2),
        ("DELETE", "configmaps/seen", None, 2),
    ] {
        let (status, answer) = webhook.request(method, "/api/v1", path, body).await?;
        ensure!(status < 300, "{status}: {answer}");
        ensure!(webhook.asked().len() == times, "{method}: {} times", webhook.asked().len());
    }
    webhook.end().await
}

async fn a_namespace_is_selected_by_its_own_labels(cluster: &KubernetesApi) -> Result<()> {
    let webhook = Webhook::start(cluster, "selecting", |review, _| allowed(review)).await?;
    let mut differs = rule(&[""], &["v1"], &["CREATE", "UPDATE"], &["namespaces"]);
    differs["namespaceSelector"] = json!({"matchLabels": {"selected": "yes"}});
    webhook.register(Kind::Validating, differs).await?;
    for (name, labels) in [("selecting-not", json!({})), ("selecting-yes", json!({"selected": "yes"}))] {
        let namespace = json!({"metadata": {"name": name, "labels": labels}});
        let (status, answer) = cluster.request("POST", "/api/v1/namespaces", Some(namespace)).await?;
        ensure!(status == 201, "{status}: {answer}");
    }
    let review = webhook.review()?;
    ensure!(review["name"] == "selecting-yes" && review["namespace"] == "selecting-yes", "{review}");
    webhook.end().await
}

async fn the_configurations_of_webhooks_are_never_reviewed(cluster: &KubernetesApi) -> Result<()> {
    let webhook = Webhook::start(cluster, "unreviewed", |review, _| denied(review, json!({}))).await?;
    let all = ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"];
    webhook.register(Kind::Validating, rule(&["admissionregistration.k8s.io"], &["*"], &["*"], &all)).await?;
    webhook.register_as("unreviewed-other", Kind::Mutating, json!({})).await?;
    ensure!(webhook.asked().is_empty());
    webhook.end().await
}

async fn a_configuration_that_is_removed_asks_no_more(cluster: &KubernetesApi) -> Result<()> {
    let webhook = Webhook::start(cluster, "removed", |review, _| denied(review, json!({}))).await?;
    webhook.register(Kind::Validating, json!({})).await?;
    let (status, answer) = webhook.create_pod("p").await?;
    ensure!(status == 400, "{status}: {answer}");
    webhook.unregister().await?;
    let created = || async {
        let (status, answer) = webhook.create_pod("p").await?;
        ensure!(status == 201, "{status}: {answer}");
        Ok(())
    };
    testbed::eventually("a pod", crate::suite::SOON, created).await
}

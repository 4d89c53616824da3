//! What the API server makes of objects of each kind.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testbed::KubernetesApi;

use super::{MERGE, Space, failure, invalid, same};

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
    and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

fn pod_spec(extra: &Value) -> Value {
    let mut spec = json!({
        "containers": [{"name": "c", "image": "x", "resources": {}, "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File", "imagePullPolicy": "Always"}],
        "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
        "securityContext": {}, "schedulerName": "default-scheduler",
    });
    for (field, value) in extra.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    spec
}

fn workload(extra: Value) -> Value {
    let template = json!({"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
    let mut spec = json!({"selector": {"matchLabels": {"app": "d"}}, "template": template});
    for (field, value) in extra.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    json!({"metadata": {"name": "d"}, "spec": spec})
}

pub async fn a_pod_gets_its_defaults_its_account_and_its_tolerations(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
    let made = space.made("pods", pod).await?;
    let volume = made["spec"]["volumes"][0]["name"].as_str().unwrap_or_default().to_owned();
    let letters = volume.strip_prefix("kube-api-access-").unwrap_or_default();
    ensure!(letters.len() == 5, "{made}");
    let reference = json!({"apiVersion": "v1", "fieldPath": "metadata.namespace"});
    let sources = json!([
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": reference}]}},
    ]);
    let toleration =
        |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
    let mut wanted = pod_spec(&json!({
        "volumes": [{"name": volume, "projected": {"sources": sources, "defaultMode": 420}}],
        "serviceAccountName": "default", "serviceAccount": "default",
        "tolerations": [toleration("node.kubernetes.io/not-ready"), toleration("node.kubernetes.io/unreachable")],
        "priority": 0, "preemptionPolicy": "PreemptLowerPriority", "enableServiceLinks": true,
    }));
    wanted["containers"][0]["volumeMounts"] = json!([
        {"name": volume, "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
    ]);
    same(&made["spec"], &wanted)?;
    same(&made["status"], &json!({"phase": "Pending", "qosClass": "BestEffort"}))?;
    same(&made["metadata"]["generation"], &json!(1))
}

pub async fn a_pods_quality_is_told_by_its_resources(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let amounts = json!({"cpu": "1", "memory": "1Gi"});
    for (name, resources, quality) in [
        ("a", json!({"requests": {"cpu": "1"}}), "Burstable"),
        ("b", json!({"limits": amounts}), "Guaranteed"),
        ("c", json!({"limits": amounts, "requests": amounts}), "Guaranteed"),
    ] {
        let spec = json!({"containers": [{"name": "c", "image": "x", "resources": resources}]});
        let made = space.made("pods", json!({"metadata": {"name": name}, "spec": spec})).await?;
        same((name, &made["status"]["qosClass"]), (name, &json!(quality)))?;
    }
    Ok(())
}

pub async fn a_pod_needs_containers_and_its_account(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let pod = |spec: Value| json!({"metadata": {"name": "p"}, "spec": spec});
    let wanted = invalid("Pod", "p", "FieldValueRequired", "spec.containers", "Required value");
    same(space.post("pods", pod(json!({}))).await?, wanted)?;
    let containers = json!([{"name": "A"}, {"name": "b", "image": "x"}, {"name": "b", "image": "x"}]);
    let causes = [
        ("FieldValueInvalid", "spec.containers[0].name", format!(r#"Invalid value: "A": {LABEL}"#)),
        ("FieldValueRequired", "spec.containers[0].image", "Required value".to_owned()),
        ("FieldValueDuplicate", "spec.containers[2].name", r#"Duplicate value: "b""#.to_owned()),
    ];
    let texts: Vec<String> = causes.iter().map(|(_, field, why)| format!("{field}: {why}")).collect();
    let details = json!({"name": "p", "kind": "Pod", "causes": causes.iter()
        .map(|(reason, field, why)| json!({"reason": reason, "message": why, "field": field})).collect::<Vec<_>>()});
    let text = format!(r#"Pod "p" is invalid: [{}]"#, texts.join(", "));
    let answer = space.post("pods", pod(json!({"containers": containers}))).await?;
    same(answer, failure(422, "Invalid", &text, details))?;
    let spec = json!({"serviceAccountName": "nobody", "containers": [{"name": "c", "image": "x"}]});
    let text = format!(
        r#"pods "p" is forbidden: error looking up service account {}/nobody: serviceaccount "nobody" not found"#,
        space.name
    );
    let answer = space.post("pods", pod(spec)).await?;
    same(answer, failure(403, "Forbidden", &text, json!({"name": "p", "kind": "pods"})))
}

pub async fn workloads_get_their_defaults(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let template = json!({"metadata": {"labels": {"app": "d"}}, "spec": pod_spec(&json!({}))});
    let selector = json!({"matchLabels": {"app": "d"}});
    let rolling = |parameters: Value| json!({"type": "RollingUpdate", "rollingUpdate": parameters});
    let retain = json!({"whenDeleted": "Retain", "whenScaled": "Retain"});
    let kinds = [
        (
            "deployments",
            json!({"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
            "strategy": rolling(json!({"maxUnavailable": "25%", "maxSurge": "25%"}))}),
        ),
        ("replicasets", json!({"replicas": 1})),
        (
            "statefulsets",
            json!({"replicas": 1, "revisionHistoryLimit": 10, "serviceName": "",
            "podManagementPolicy": "OrderedReady", "updateStrategy": rolling(json!({"partition": 0})),
            "persistentVolumeClaimRetentionPolicy": retain}),
        ),
        (
            "daemonsets",
            json!({"revisionHistoryLimit": 10,
            "updateStrategy": rolling(json!({"maxUnavailable": 1, "maxSurge": 0}))}),
        ),
    ];
    for (plural, mut wanted) in kinds {
        let made = space.made(&format!("apps/v1/{plural}?dryRun=All"), workload(json!({}))).await?;
        wanted["selector"] = selector.clone();
        wanted["template"] = template.clone();
        same((plural, &made["spec"], &made["metadata"]["generation"]), (plural, &wanted, &json!(1)))?;
    }
    Ok(())
}

pub async fn a_job_is_told_by_its_uid(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}});
    let job = json!({"metadata": {"name": "j"}, "spec": {"template": template}});
    let made = space.made("batch/v1/jobs?dryRun=All", job).await?;
    let uid = &made["metadata"]["uid"];
    let labels = json!({"batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": "j",
        "controller-uid": uid, "job-name": "j"});
    same(&made["metadata"]["labels"], &labels)?;
    let template = json!({"metadata": {"labels": labels}, "spec": pod_spec(&json!({"restartPolicy": "Never"}))});
    let wanted = json!({"parallelism": 1, "completions": 1, "backoffLimit": 6, "completionMode": "NonIndexed",
        "suspend": false, "manualSelector": false, "podReplacementPolicy": "TerminatingOrFailed", "template": template,
        "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}});
    same(&made["spec"], &wanted)
}

pub async fn a_deployments_selector_is_its_pods_and_for_good(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let deployments = "apps/v1/deployments";
    let other = workload(json!({"selector": {"matchLabels": {"app": "e"}}}));
    let why = r#"Invalid value: {"app":"d"}: `selector` does not match template `labels`"#;
    let wanted = |field: &str, why: &str| invalid("Deployment.apps", "d", "FieldValueInvalid", field, why);
    same(space.post(deployments, other).await?, wanted("spec.template.metadata.labels", why))?;
    space.made(deployments, workload(json!({"replicas": 0}))).await?;
    let labels = json!({"app": "d", "more": "x"});
    let patch = json!({"spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}}}});
    let answer = space.patch("apps/v1/deployments/d", MERGE, patch).await?;
    let why = r#"Invalid value: {"matchLabels":{"app":"d","more":"x"}}: field is immutable"#;
    same(answer, wanted("spec.selector", why))?;
    let patch = json!({"spec": {"template": {"spec": {"restartPolicy": "Never"}}}});
    let answer = space.patch("apps/v1/deployments/d", MERGE, patch).await?;
    let why = r#"Unsupported value: "Never": supported values: "Always""#;
    let field = "spec.template.spec.restartPolicy";
    same(answer, invalid("Deployment.apps", "d", "FieldValueNotSupported", field, why))
}

pub async fn a_service_gets_its_address_and_defaults(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let service = json!({"metadata": {"name": "s"}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 443}]}});
    let made = space.made("services", service).await?;
    let address = made["spec"]["clusterIP"].as_str().unwrap_or_default();
    ensure!(address.starts_with("10.0.0."), "{made}");
    let wanted = json!({"ports": [{"protocol": "TCP", "port": 443, "targetPort": 443}], "selector": {"a": "b"},
        "clusterIP": address, "clusterIPs": [address], "type": "ClusterIP", "sessionAffinity": "None",
        "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster"});
    same((&made["spec"], &made["status"]), (&wanted, &json!({"loadBalancer": {}})))?;
    // An update that does not name its address keeps it.
    let update = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    let (status, updated) = space.put("services/s", update).await?;
    same((status, &updated["spec"]["clusterIP"]), (200, &json!(address)))
}

pub async fn an_event_is_kept_where_its_object_is(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let event = |namespace: &str| {
        json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": namespace},
            "reason": "R", "message": "m", "type": "Normal"})
    };
    let why = r#"Invalid value: "elsewhere": does not match event.namespace"#;
    let wanted = invalid("Event", "e", "FieldValueInvalid", "involvedObject.namespace", why);
    same(space.post("events", event("elsewhere")).await?, wanted)?;
    let made = space.made("events", event(&space.name)).await?;
    for (field, value) in [("source", json!({})), ("firstTimestamp", json!(null)), ("reportingComponent", json!(""))] {
        same((field, made.get(field)), (field, Some(&value)))?;
    }
    let fields = json!({"f:involvedObject": {}, "f:message": {}, "f:reason": {}, "f:type": {}});
    same(&made["metadata"]["managedFields"][0]["fieldsV1"], &fields)
}

pub async fn webhooks_get_their_defaults_and_are_checked(cluster: &KubernetesApi) -> Result<()> {
    let name = format!("defaults-{}", Space::new(cluster).await?.name);
    let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations?dryRun=All";
    let configuration = |webhook: Value| Some(json!({"metadata": {"name": name}, "webhooks": [webhook]}));
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]});
    let webhook = json!({"name": "a.example.com", "clientConfig": {"service": {"name": "s", "namespace": "n"}},
        "sideEffects": "None", "admissionReviewVersions": ["v1"], "rules": [rule]});
    let (status, made) = cluster.request("POST", path, configuration(webhook.clone())).await?;
    let mut wanted = webhook;
    wanted["clientConfig"]["service"]["port"] = 443.into();
    wanted["rules"][0]["scope"] = "*".into();
    for (field, value) in [
        ("failurePolicy", json!("Fail")),
        ("matchPolicy", json!("Equivalent")),
        ("namespaceSelector", json!({})),
        ("objectSelector", json!({})),
        ("timeoutSeconds", json!(10)),
        ("reinvocationPolicy", json!("Never")),
    ] {
        wanted[field] = value;
    }
    same((status, &made["webhooks"][0], &made["metadata"]["generation"]), (201, &wanted, &json!(1)))?;
    let (status, answer) = cluster.request("POST", path, configuration(json!({"name": "a"}))).await?;
    let text = format!(
        r#"MutatingWebhookConfiguration.admissionregistration.k8s.io "{name}" is invalid: [webhooks[0].name: Invalid value: "a": should be a domain with at least three segments separated by dots, webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun, webhooks[0].clientConfig: Required value: exactly one of url or service is required, webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1]"#
    );
    same((status, &answer["message"]), (422, &json!(text)))
}

pub async fn a_bindings_role_is_for_good(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let bindings = "rbac.authorization.k8s.io/v1/rolebindings";
    let subjects = json!([{"kind": "ServiceAccount", "name": "default"}, {"kind": "User", "name": "u"}]);
    let binding = json!({"metadata": {"name": "r:x"}, "roleRef": {"kind": "Role", "name": "r"}, "subjects": subjects});
    let made = space.made(bindings, binding).await?;
    let group = "rbac.authorization.k8s.io";
    same(&made["roleRef"], &json!({"apiGroup": group, "kind": "Role", "name": "r"}))?;
    same(&made["subjects"][1], &json!({"apiGroup": group, "kind": "User", "name": "u"}))?;
    same(&made["metadata"]["managedFields"][0]["fieldsV1"], &json!({"f:roleRef": {}, "f:subjects": {}}))?;
    let answer = space.patch(&format!("{bindings}/r:x"), MERGE, json!({"roleRef": {"name": "q"}})).await?;
    let why = format!(r#"Invalid value: {{"APIGroup":"{group}","Kind":"Role","Name":"q"}}: cannot change roleRef"#);
    let kind = "RoleBinding.rbac.authorization.k8s.io";
    same(answer, invalid(kind, "r:x", "FieldValueInvalid", "roleRef", &why))?;
    let role = json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["pods"]}]});
    let answer = space.post("rbac.authorization.k8s.io/v1/roles", role).await?;
    let why = "Required value: verbs must contain at least one value";
    let kind = "Role.rbac.authorization.k8s.io";
    same(answer, invalid(kind, "r", "FieldValueRequired", "rules[0].verbs", why))
}

//! The values of the chart: that each arrives where it is meant for, and that none gives a key away.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::helm::{Helm, TEMPLATE, objects};

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
        ("signing.pkiMount=pki-mesh", settings, "/data/GATE_VAULT_PKI_MOUNT", json!("pki-mesh")),
        (
            "signing.pkiMount=pki,signing.rotate.enabled=true,signing.rotate.schedule=7 * * * *",
            "CronJob istio-ca-rotate",
            "/spec/schedule",
            json!("7 * * * *"),
        ),
        (
            "signing.pkiMount=pki,signing.rotate.enabled=true,image.repository=registry.example/other",
            "CronJob istio-ca-rotate",
            "/spec/jobTemplate/spec/template/spec/serviceAccountName",
            json!("istio-ca-rotate"),
        ),
        ("networkPolicy.enabled=false,signing.pkiMount=pki", "NetworkPolicy istio-ca-gate-witness", "", Value::Null),
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

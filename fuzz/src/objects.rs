//! Objects of the API server's: a line with the kind, then its JSON.

use gate_cluster::pin;
use istio_ca_gate::ca::bundle::{Bundle, ROOT_CERT};
use istio_ca_gate::ca::file;
use istio_ca_gate::k8s::cacerts::published;
use istio_ca_gate::plan::{Owner, Pin, Published};
use istio_ca_gate::serving::rotation::{Authorities, Lives, Step, plan};
use istio_ca_gate::serving::secret::{Stored, stored};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

pub(crate) const WORDS: &[&str] = &[
    "cacerts\n",
    "pin\n",
    "serving\n",
    "metadata",
    "labels",
    "annotations",
    "managedFields",
    "manager",
    "ownerReferences",
    "resourceVersion",
    "data",
    "stringData",
    "immutable",
    "istio-ca-gate",
    "app.kubernetes.io/managed-by",
    "reconcile.external-secrets.io/managed",
    "ExternalSecret",
    "external-secrets.io/v1",
    "apiVersion",
    "kind",
    "name",
    "istio-ca-gate.io/root-sha256",
    "istio-ca-gate.io/record-state",
    "istio-ca-gate.io/trusted-since",
    "root-cert.pem",
    "ca-cert.pem",
    "ca-key.pem",
    "cert-chain.pem",
    "ca-crl.pem",
    "tls.crt",
    "tls.key",
    "ca.crt",
    "ca.key",
    "next.key",
    "istio-generated",
    "root-sha256",
    "roots",
    "vault-version",
    "verified-at",
    "record-state",
    "signers",
    "contradicted-at",
    "contradicted-by",
    "RootChanged",
    "2026-11-28T03:22:16Z",
    "9999-12-30T22:00:00Z",
    "-009999-01-02T01:59:59Z",
    "true",
    "LS0tLS1CRUdJTg==",
    "abababababababababababababababababababababababababababababababab",
    "\n",
    "AB:AB",
    "0",
    "18446744073709551615",
];

pub(crate) fn run(input: &[u8]) {
    let mut parts = input.splitn(2, |byte| *byte == b'\n');
    let (Some(kind), Some(json)) = (parts.next(), parts.next()) else { return };
    let now = Timestamp::now();
    match kind {
        b"cacerts" => drop(serde_json::from_slice(json).map(|secret| cacerts(&secret, now))),
        b"serving" => drop(serde_json::from_slice(json).map(|secret| serving(&secret, now))),
        b"pin" => drop(serde_json::from_slice(json).map(|map| read_pin(&map))),
        _ => {}
    }
}

/// What is written over must be ours, and what opens the gate must be the files as they are.
fn cacerts(secret: &Secret, now: Timestamp) {
    let Published::Present(copy) = published(secret, now) else { unreachable() };
    let labelled = secret.labels().get("app.kubernetes.io/managed-by").is_some_and(|value| value == "istio-ca-gate");
    let managed = secret.managed_fields().iter().any(|entry| entry.manager.as_deref() == Some("istio-ca-gate"));
    let foreign = secret.owner_references().iter().any(|owner| owner.kind == "ExternalSecret");
    match &copy.owner {
        Owner::Ours => assert!(labelled && managed, "it is not ours"),
        Owner::ExternalSecrets(_) => {}
        Owner::Other => assert!(!foreign || !labelled || !managed),
    }
    assert!(!copy.was_ours || labelled && !managed);
    let files = || secret.data.iter().flatten().map(|(name, bytes)| (name.as_str(), bytes.0.as_slice()));
    if let Ok(sound) = &copy.verdict {
        assert_eq!(Bundle::from_secret(files()).ok().as_ref(), Some(&*sound.bundle));
        assert_eq!(copy.glance.as_ref(), Some(&sound.glance), "what is told is not what was judged");
        assert!(sound.usable_until.at > now && sound.roots().contains(&sound.root));
    }
    if let (Some(glance), Some((_, roots))) = (&copy.glance, files().find(|(name, _)| *name == ROOT_CERT))
        && !copy.beside.tls
    {
        assert_eq!(file::roots(roots).ok().as_ref(), Some(glance));
    }
}

/// A Secret that is there is there.
fn unreachable() -> ! {
    std::process::abort()
}

/// Whatever is in it, what is to be done next is told, and with it done something is trusted and signs.
fn serving(secret: &Secret, now: Timestamp) {
    let Stored::Usable(usable) = stored(secret) else { return };
    let lives = Lives { ca: SignedDuration::from_hours(24), leaf: SignedDuration::from_hours(1) };
    let Authorities { signing, .. } = &usable.authorities;
    let trusted = usable.authorities.trusted();
    for (mine, settled) in [(None, false), (Some(signing.certificate()), false), (Some(signing.certificate()), true)] {
        let step = plan(&trusted, mine, |_| settled, now, &lives);
        if let Step::Retire(over) = &step {
            assert!(!over.contains(&trusted.signing.id), "the signing CA is retired");
            assert!(mine.is_none_or(|mine| !over.contains(&mine.id)), "the CA of a leaf in use is retired");
        }
        let after = usable.authorities.after(&step, mine, None, now).trusted();
        assert!(mine.is_none_or(|mine| after.has(&mine.id) || !trusted.has(&mine.id)), "{step:?} ends what is in use");
    }
}

/// A pin is a pin as long as it is ours, and is read as it is written.
fn read_pin(map: &ConfigMap) {
    let read = match pin::pin(map, "istio-system/istio-ca-gate") {
        Err(held) => return assert!(!held.sentence().contains(char::is_control)),
        Ok(read) => read,
    };
    let has = |key: &str| map.data.as_ref().is_some_and(|data| data.contains_key(key));
    let Some(read) = read else { return assert!(!has("root-sha256"), "a root is not heeded") };
    assert!(read.roots.contains(&read.root));
    assert_eq!(
        read.contradicted.is_some(),
        has("contradicted-at") || has("contradicted-by"),
        "a contradiction is lost"
    );
    let written = ConfigMap { data: Some(pin::data(&read)), ..ConfigMap::default() };
    // Dates are written in whole seconds, and a contradiction by a write of its own.
    let whole = |pin: Pin| Pin {
        verified_at: pin.verified_at.and_then(|at| Timestamp::from_second(at.as_second()).ok()),
        contradicted: None,
        ..pin
    };
    assert_eq!(pin::pin(&written, "x").ok().flatten().map(whole), Some(whole(read)));
}

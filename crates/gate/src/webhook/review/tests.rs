#![allow(clippy::unwrap_used)]

use super::*;
use crate::ca::Sha256;
use crate::ca::fixtures::now;
use crate::patch::SecretSource;
use crate::samples::held;

/// What an API server posts when a ReplicaSet's controller creates a pod of istiod.
const ISTIOD: &str = include_str!("istiod.json");

const UID: &str = "705ab4f5-6393-11e8-b7cc-42010a800002";

fn istiod() -> Value {
    serde_json::from_str(ISTIOD).unwrap()
}

/// The same with another value at this place.
fn with(pointer: &str, value: Value) -> Value {
    let mut review = istiod();
    *review.pointer_mut(pointer).unwrap() = value;
    review
}

/// The same without this member of the object at this place.
fn without(pointer: &str, member: &str) -> Value {
    let mut review = istiod();
    review.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(member).unwrap();
    review
}

/// What the gate reads of a review, as one line.
fn told(review: &Value) -> String {
    let body = serde_json::to_vec(review).unwrap();
    let request = parsed(&body).unwrap();
    let Ask { is_pod, is_create, dry_run, labels } = request.ask();
    format!("pod {is_pod}, create {is_create}, dry run {dry_run}, app {:?}", labels.get("app"))
}

/// Parsed for a patch.
fn parsed(body: &[u8]) -> Result<Request, String> {
    Request::parse(body, |_| true)
}

fn refusal(body: &[u8]) -> String {
    parsed(body).unwrap_err()
}

#[test]
fn a_real_review_is_read() {
    let request = parsed(ISTIOD.as_bytes()).unwrap();
    assert_eq!((&*request.uid, &*request.namespace), (UID, "istio-system"));
    let ask = request.ask();
    assert!(ask.is_pod && ask.is_create && !ask.dry_run);
    assert_eq!(ask.labels.len(), 5);
    assert_eq!(told(&istiod()), r#"pod true, create true, dry run false, app Some("istiod")"#);
}

#[test]
fn a_pods_volumes_are_read_as_far_as_they_are_filled_from_secrets() {
    let volumes = json!([
        { "name": "cacerts", "secret": { "secretName": "cacerts", "optional": true } },
        { "name": "empty", "emptyDir": {} },
        { "name": "projected", "projected": { "sources": [
            { "serviceAccountToken": { "path": "token" } }, { "secret": { "name": "cacerts", "optional": false } },
        ] } },
        { "name": "null", "secret": null, "projected": { "sources": null } },
    ]);
    let body = serde_json::to_vec(&with("/request/object/spec/volumes", volumes)).unwrap();
    let request = parsed(&body).unwrap();
    let name = || "cacerts".to_owned();
    let wanted = [
        SecretSource { volume: 0, source: None, name: name(), optional: true },
        SecretSource { volume: 2, source: Some(1), name: name(), optional: false },
    ];
    assert_eq!(request.shape(), &Shape { has_annotations: true, secrets: wanted.into() });
    for bare in [without("/request/object", "spec"), without("/request/object/spec", "volumes")] {
        let request = parsed(bare.to_string().as_bytes()).unwrap();
        assert!(request.shape().secrets.is_empty());
    }
    let plain = without("/request/object/metadata", "annotations");
    assert!(!parsed(plain.to_string().as_bytes()).unwrap().shape().has_annotations);
}

#[test]
fn a_template_pod_is_described_by_its_controller_and_its_generate_name() {
    let request = parsed(ISTIOD.as_bytes()).unwrap();
    assert_eq!(request.described(), (Some("ReplicaSet/istiod-5cf8b7d6c4"), "istiod-5cf8b7d6c4-"));
    let controller = request.controller().unwrap();
    assert_eq!((controller.kind(), controller.namespace()), ("ReplicaSet", "istio-system"));
    assert_eq!(controller.name(), "istiod-5cf8b7d6c4");
}

#[test]
fn a_controller_whose_names_are_none_is_not_looked_up_and_still_logged() {
    let review = with("/request/object/metadata/ownerReferences/1/name", json!("../../secrets/cacerts"));
    let request = parsed(review.to_string().as_bytes()).unwrap();
    assert!(request.controller().is_none());
    assert_eq!(request.described().0, Some("ReplicaSet/../../secrets/cacerts"));
    let review = with("/request/namespace", json!("a/b"));
    assert!(parsed(review.to_string().as_bytes()).unwrap().controller().is_none());
}

#[test]
fn a_pod_of_no_controller_is_described_by_its_name() {
    let mut review = with("/request/name", json!("istiod-debug"));
    let described = |review: &Value| {
        let body = serde_json::to_vec(review).unwrap();
        let request = parsed(&body).unwrap();
        let (controller, name) = request.described();
        (controller.map(str::to_owned), name.to_owned())
    };
    review["request"]["object"]["metadata"]["ownerReferences"] = json!([{"kind": "Node", "name": "n"}]);
    assert_eq!(described(&review), (None, "istiod-debug".to_owned()));
    review["request"]["object"] = json!({});
    assert_eq!(described(&review), (None, "istiod-debug".to_owned()));
}

#[test]
fn only_the_creation_of_a_pod_itself_counts() {
    for (pointer, value, read) in [
        ("/request/operation", "UPDATE", "pod true, create false"),
        ("/request/operation", "create", "pod true, create false"),
        ("/request/resource/resource", "replicasets", "pod false, create true"),
        ("/request/resource/resource", "pods/status", "pod false, create true"),
        ("/request/resource/group", "apps", "pod false, create true"),
    ] {
        assert!(told(&with(pointer, json!(value))).starts_with(&format!("{read}, ")), "{value}");
    }
    let mut ephemeral = istiod();
    ephemeral["request"]["subResource"] = json!("ephemeralcontainers");
    assert!(told(&ephemeral).starts_with("pod false, "));
}

#[test]
fn the_kind_of_the_resource_counts_and_not_what_the_object_says_of_itself() {
    let mut review = with("/request/object/kind", json!("ConfigMap"));
    review["request"]["kind"]["kind"] = json!("ConfigMap");
    assert_eq!(told(&review), told(&istiod()));
}

#[test]
fn what_may_be_left_out_may_be_left_out() {
    let dry_run = |value| told(&with("/request/dryRun", value));
    assert!(dry_run(json!(true)).contains("dry run true"));
    assert_eq!(dry_run(Value::Null), told(&istiod()));
    assert_eq!(told(&without("/request", "dryRun")), told(&istiod()));
    assert_eq!(told(&without("/request", "name")), told(&istiod()));
    for unlabelled in [
        without("/request/object/metadata", "labels"),
        with("/request/object/metadata/labels", Value::Null),
        without("/request/object", "metadata"),
    ] {
        assert_eq!(told(&unlabelled), "pod true, create true, dry run false, app None");
    }
}

#[test]
fn a_pod_to_be_created_has_an_object() {
    for mut review in [without("/request", "object"), with("/request/object", Value::Null)] {
        assert_eq!(refusal(review.to_string().as_bytes()), "it creates a pod, and has no request.object");
        review["request"]["operation"] = json!("DELETE");
        assert_eq!(told(&review), "pod true, create false, dry run false, app None");
    }
}

#[test]
fn what_is_not_known_is_ignored() {
    let mut review = istiod();
    for pointer in ["", "/request", "/request/object", "/request/object/metadata", "/request/resource"] {
        review.pointer_mut(pointer).unwrap()["newInKubernetes"] = json!({"deep": [1.5, null, {"uid": "other"}]});
    }
    assert_eq!(told(&review), told(&istiod()));
}

#[test]
fn what_is_not_a_review_is_refused_in_words() {
    let cases = [
        (json!({}), "kind is not AdmissionReview"),
        (with("/kind", json!("Pod")), "kind is not AdmissionReview"),
        (with("/kind", Value::Null), "kind is not AdmissionReview"),
        (without("", "apiVersion"), "apiVersion is not admission.k8s.io/v1"),
        (with("/apiVersion", json!("admission.k8s.io/v1beta1")), "apiVersion is not admission.k8s.io/v1"),
        (with("/apiVersion", json!("v1")), "apiVersion is not admission.k8s.io/v1"),
        (without("", "request"), "it has no request"),
        (with("/request", Value::Null), "it has no request"),
        (with("/request/uid", json!("")), "request.uid is empty or longer than 128 bytes"),
        (with("/request/uid", json!("x".repeat(129))), "request.uid is empty or longer than 128 bytes"),
        (json!([]), "invalid type: sequence"),
        (json!(["admission.k8s.io/v1", "AdmissionReview", {}]), "invalid type: sequence"),
        (with("/request", json!(["uid", "CREATE"])), "invalid type: sequence"),
        (with("/request/resource", json!(["", "pods"])), "invalid type: sequence"),
        (with("/request/object", json!([{}])), "invalid type: sequence"),
        (without("/request", "uid"), "missing field `uid`"),
        (without("/request", "operation"), "missing field `operation`"),
        (without("/request", "resource"), "missing field `resource`"),
        (with("/request/uid", json!(7)), "invalid type: integer `7`"),
        (with("/request", json!("x")), "invalid type: string \"x\""),
        (with("/request/dryRun", json!("false")), "invalid type: string \"false\""),
        (with("/request/object/metadata/labels/app", json!(1)), "invalid type: integer `1`"),
        (with("/request/object/metadata/labels/app", Value::Null), "invalid type: null"),
        (with("/request/object/metadata/labels", json!(["istiod"])), "invalid type: sequence"),
    ];
    for (review, words) in cases {
        let refusal = refusal(review.to_string().as_bytes());
        assert!(refusal.contains(words), "{words}: {refusal}");
    }
}

#[test]
fn what_is_not_json_is_refused_in_words() {
    let deep = ISTIOD.replace("\"status\": {}", &format!("\"labels\": {}", "[".repeat(1_000_000)));
    let twice = ISTIOD.replace("\"dryRun\": false", "\"dryRun\": false, \"dryRun\": true");
    let surrogate = ISTIOD.replace(UID, "\\ud800");
    let nul = format!("{ISTIOD}\0");
    let bom = format!("\u{feff}{ISTIOD}");
    let two = ISTIOD.repeat(2);
    for (body, words) in [
        (&b""[..], "EOF while parsing a value"),
        (b" \n", "EOF while parsing a value"),
        (b"hello", "expected value at line 1 column 1"),
        (b"{", "EOF while parsing an object"),
        (b"null", "invalid type: null"),
        (b"42", "invalid type: integer `42`"),
        (b"\"AdmissionReview\"", "invalid type: string"),
        (b"\xff\xfe{}", "expected value"),
        (b"{\"kind\": \"\xff\"}", "invalid unicode code point"),
        (deep.as_bytes(), "expected value"),
        (twice.as_bytes(), "duplicate field `dryRun`"),
        (surrogate.as_bytes(), "unexpected end of hex escape"),
        (nul.as_bytes(), "trailing characters"),
        (bom.as_bytes(), "expected value"),
        (two.as_bytes(), "trailing characters"),
        (&ISTIOD.as_bytes()[..ISTIOD.len() / 2], "EOF while parsing"),
    ] {
        let refusal = refusal(body);
        assert!(refusal.starts_with("the body is not an AdmissionReview: ") && refusal.contains(words), "{refusal}");
    }
}

#[test]
fn nesting_without_end_does_not_overflow_the_stack() {
    let nested =
        |depth| ISTIOD.replace("\"status\": {}", &format!("\"status\": {0}{1}", "[".repeat(depth), "]".repeat(depth)));
    for depth in [1, 200, 1_000_000] {
        // Either way will do: what is nested is not read.
        drop(parsed(nested(depth).as_bytes()).map(|request| assert_eq!(request.uid, UID)));
    }
}

#[test]
fn a_refusal_is_short_and_repeats_no_key() {
    for text in ["x".repeat(1 << 20), "-----BEGIN PRIVATE KEY-----".to_owned()] {
        let refusal = refusal(with("/request/dryRun", json!(text)).to_string().as_bytes());
        assert!(refusal.len() < 400 && !refusal.contains("BEGIN"), "{refusal}");
    }
}

#[test]
fn names_that_are_none_do_not_fill_the_log() {
    let long = || json!("☃".repeat(1000));
    let mut review = with("/request/namespace", long());
    review["request"]["object"]["metadata"]["generateName"] = long();
    review["request"]["object"]["metadata"]["ownerReferences"][1]["name"] = long();
    let request = parsed(review.to_string().as_bytes()).unwrap();
    let (controller, name) = request.described();
    assert_eq!((request.namespace.len(), name.len()), (252, 252));
    assert_eq!(controller.unwrap().len(), "ReplicaSet/".len() + 252);
}

#[test]
fn labels_beyond_reason_are_refused() {
    let labelled = |count| {
        let labels: BTreeMap<_, _> = (0..count).map(|index| (format!("l{index}"), "x")).collect();
        parsed(with("/request/object/metadata/labels", json!(labels)).to_string().as_bytes())
    };
    assert_eq!(labelled(LABELS_MAX).unwrap().ask().labels.len(), LABELS_MAX);
    assert!(labelled(LABELS_MAX + 1).unwrap_err().contains("at most 1000 labels"));
}

/// Some change to some bytes, as an unfriendly network or caller might make it.
fn mutate(body: &mut Vec<u8>, random: &mut fastrand::Rng) {
    const SPLICES: [&[u8]; 8] = [b"\"", b"{", b"[", b"}", b"null", b"\\ud800", b"\xff", b"1e999"];
    for _ in 0..random.usize(1..4) {
        let from = random.usize(..=body.len());
        let to = (from + random.usize(..40)).min(body.len());
        match random.u8(..5) {
            0 => body.truncate(from),
            1 => drop(body.drain(from..to)),
            2 => drop(body.splice(from..from, SPLICES[random.usize(..SPLICES.len())].iter().copied())),
            3 => body.extend_from_within(from..to),
            _ => body[from..to].iter_mut().for_each(|byte| *byte ^= 1 << random.u8(..8)),
        }
    }
}

#[test]
fn no_bytes_make_it_panic() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    eprintln!("to repeat this: SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut reviews = 0;
    for _ in 0..20_000 {
        let mut body = ISTIOD.as_bytes().to_vec();
        mutate(&mut body, &mut random);
        match parsed(&body) {
            Ok(request) => {
                reviews += 1;
                let denied = answer(&request.uid, &Decision::Deny(held(Reason::RootMissing)), &known(None, None));
                assert_eq!(denied["response"]["uid"], *request.uid);
                assert!(request.ask().labels.len() < 100 && request.described().1.len() < body.len());
            }
            Err(words) => assert!(!words.is_empty() && !words.contains('\n'), "{words:?}"),
        }
    }
    assert!((500..19_500).contains(&reviews), "{reviews} of the bodies were reviews");
}

fn known(root: Option<Sha256>, release: Option<&str>) -> Known<'static> {
    Known { cluster: "nas", root, release: release.map(|release| release.parse().unwrap()) }
}

fn response_by(decision: &Decision, known: &Known<'_>) -> Value {
    let mut review = answer(UID, decision, known);
    assert_eq!(review["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(review["kind"], "AdmissionReview");
    assert_eq!(review.as_object().unwrap().len(), 3);
    review["response"].take()
}

fn response(decision: &Decision) -> Value {
    response_by(decision, &known(None, None))
}

const ROOT: Sha256 = Sha256([0xab; 32]);

fn root() -> String {
    "ab".repeat(32)
}

#[test]
fn what_is_not_gated_is_allowed_without_a_word() {
    assert_eq!(response(&Decision::NotGated), json!({"uid": UID, "allowed": true}));
}

#[test]
fn an_open_gate_allows_and_tells_the_audit_log_the_root() {
    assert_eq!(
        response(&Decision::Open { root: ROOT, version: 3 }),
        json!({"uid": UID, "allowed": true, "auditAnnotations": {"root-sha256": root()}})
    );
}

#[test]
fn an_outage_allows_with_a_warning() {
    assert_eq!(
        response(&Decision::OpenUnverified { root: ROOT, at: now(), held: held(Reason::VaultSealed) }),
        json!({
            "uid": UID,
            "allowed": true,
            "warnings": ["istio-ca-gate: VaultSealed: allowed with the root last verified at 2027-01-01T00:00:00Z"],
            "auditAnnotations": {"reason": "VaultSealed", "root-sha256": root()},
        })
    );
}

#[test]
fn a_warning_is_short_enough_not_to_be_cut() {
    for reason in Reason::ALL.iter().filter(|reason| reason.is_outage()) {
        let at = k8s_openapi::jiff::Timestamp::MAX;
        let response = response(&Decision::OpenUnverified { root: ROOT, at, held: held(*reason) });
        let warning = response["warnings"][0].as_str().unwrap();
        assert!(warning.len() <= 120 && warning.contains(reason.as_str()), "{warning}");
    }
}

#[test]
fn a_denial_tells_its_code_wherever_somebody_looks() {
    let message = "RootMissing: cluster nas: the cause: the next step";
    assert_eq!(
        response(&Decision::Deny(held(Reason::RootMissing))),
        json!({
            "uid": UID,
            "allowed": false,
            "status": {
                "status": "Failure",
                "code": 403,
                "reason": "RootMissing",
                "message": message,
                "details": {"causes": [{"reason": "RootMissing", "message": message}]},
            },
            "auditAnnotations": {"reason": "RootMissing"},
        })
    );
}

#[test]
fn a_denial_tells_the_audit_log_vaults_root_where_it_is_known() {
    let response = response_by(&Decision::Deny(held(Reason::RootChanged)), &known(Some(ROOT), None));
    assert_eq!(response["auditAnnotations"], json!({"reason": "RootChanged", "root-sha256": root()}));
}

#[test]
fn a_denial_names_the_helm_release_where_it_is_known() {
    let response = response_by(&Decision::Deny(held(Reason::RootMissing)), &known(None, Some("flux-system/istiod")));
    let message = "RootMissing: cluster nas: the cause: the next step (HelmRelease flux-system/istiod)";
    assert_eq!(response["status"]["message"], message);
    assert_eq!(response["status"]["details"]["causes"][0]["message"], message);
    // An allowance says nothing of it.
    let open = Decision::Open { root: ROOT, version: 3 };
    assert!(!response_by(&open, &known(None, Some("flux-system/istiod"))).to_string().contains("HelmRelease"));
}

#[test]
fn only_converging_asks_for_a_retry_in_place() {
    for reason in Reason::ALL {
        let response = response(&Decision::Deny(held(*reason)));
        assert_eq!(response["status"]["reason"], reason.as_str());
        assert_eq!(response["auditAnnotations"]["reason"], reason.as_str());
        let told = (&response["status"]["code"], &response["status"]["details"]["retryAfterSeconds"]);
        let must = if *reason == Reason::Converging { (json!(429), json!(1)) } else { (json!(403), Value::Null) };
        assert_eq!(told, (&must.0, &must.1), "{reason}");
    }
}

#[test]
fn any_uid_is_echoed_as_it_came() {
    for uid in ["u", "a\"b\\c\n\u{1f}", "☃", &"x".repeat(UID_MAX)] {
        let request = with("/request/uid", json!(uid)).to_string();
        let request = parsed(request.as_bytes()).unwrap();
        assert_eq!(answer(&request.uid, &Decision::NotGated, &known(None, None))["response"]["uid"], uid);
    }
}

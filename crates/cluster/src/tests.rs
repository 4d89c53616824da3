#![allow(clippy::unwrap_used, clippy::panic)]

use kube::core::Status;

use super::*;
use gate_core::samples::{R1, assert_fit_for_users};

fn api(code: u16, reason: &str, message: &str) -> kube::Error {
    kube::Error::Api(Status::failure(message, reason).with_code(code).boxed())
}

/// How a call ended, as one line. A text is fit for users, whatever the API server said.
fn told(error: &kube::Error) -> String {
    match failed("read Secret istio-system/cacerts", error) {
        Failed::Conflict => "conflict".to_owned(),
        Failed::NotFound => "not found".to_owned(),
        Failed::Held(held) => {
            assert_fit_for_users(&held.message("nas"));
            assert!(held.sentence().contains("read Secret istio-system/cacerts"), "{held:?}");
            held.reason.to_string()
        }
    }
}

#[test]
fn a_missing_object_is_told_from_a_missing_namespace() {
    assert_eq!(told(&api(404, "NotFound", "secrets \"cacerts\" not found")), "not found");
    assert_eq!(told(&api(404, "NotFound", "namespaces \"istio-system\" not found")), "KubernetesForbidden");
}

#[test]
fn a_conflict_is_one_by_either_reason() {
    assert_eq!(told(&api(409, "Conflict", "the object has been modified")), "conflict");
    assert_eq!(told(&api(409, "AlreadyExists", "secrets \"cacerts\" already exists")), "conflict");
}

#[test]
fn a_refusal_is_told_from_an_api_server_in_trouble() {
    for code in [400, 403, 405, 422] {
        assert_eq!(told(&api(code, "Forbidden", "User cannot get secrets")), "KubernetesForbidden", "{code}");
    }
    for code in [401, 408, 410, 429, 500, 502, 503, 504] {
        assert_eq!(told(&api(code, "Timeout", "etcdserver: request timed out")), "KubernetesUnreachable", "{code}");
    }
}

#[test]
fn a_refusal_says_what_to_do_about_its_very_cause() {
    let told = |code, message: &str| match failed("write Secret a/b", &api(code, "Forbidden", message)) {
        Failed::Held(held) => held.sentence().split("): ").nth(1).unwrap().to_owned(),
        other => panic!("{other:?}"),
    };
    for (code, message, remedy) in [
        (403, "secrets \"b\" is forbidden: User \"x\" cannot patch resource \"secrets\"", "apply the RBAC of deploy/"),
        (
            403,
            "secrets \"b\" is forbidden: exceeded quota: q, requested: secrets=1, used: secrets=9",
            "raise the quota",
        ),
        (
            422,
            "Secret \"b\" is invalid: data: Forbidden: field is immutable when `immutable` is set",
            "delete the object",
        ),
        (403, "admission webhook \"w.example\" denied the request: no", "another admission webhook"),
        (400, "admission webhook \"w.example\" denied the request: no", "another admission webhook"),
        (
            422,
            "secrets \"b\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'q' denied request: no",
            "another",
        ),
        (403, "unable to create new content in namespace a because it is being terminated", "the namespace is being"),
        (404, "namespaces \"a\" not found", "make the namespace"),
        (400, "request body too large", "mend what it names"),
    ] {
        let sentence = told(code, message);
        assert!(sentence.starts_with(remedy), "{message}: {sentence}");
    }
}

#[test]
fn an_answer_that_cannot_be_read_is_not_repeated() {
    let key = std::str::from_utf8(R1.bundle.ca_key.expose()).unwrap();
    let error = serde_json::from_value::<u8>(serde_json::Value::String(key.to_owned())).unwrap_err();
    assert!(error.to_string().contains("BEGIN"), "serde repeats what does not parse");
    assert_eq!(told(&kube::Error::SerdeError(error)), "KubernetesUnreachable");
    assert_eq!(told(&kube::Error::Service(key.into())), "KubernetesUnreachable");
    assert_eq!(told(&api(403, "Forbidden", key)), "KubernetesForbidden");
    assert_eq!(told(&api(500, "InternalError", &"x\n".repeat(100_000))), "KubernetesUnreachable");
}

#[test]
fn a_write_is_done_or_decided_on_something_that_has_changed() {
    assert_eq!(written(Ok(())), Ok(Write::Done));
    assert_eq!(written::<()>(Err(Failed::Conflict)), Ok(Write::Changed));
    assert_eq!(written::<()>(Err(Failed::NotFound)), Ok(Write::Changed));
    let held = gate_core::samples::held(Reason::KubernetesForbidden);
    assert_eq!(written::<()>(Err(Failed::Held(held.clone()))), Err(held));
}

#[test]
fn where_neither_conflict_nor_absence_has_a_meaning_they_are_trouble() {
    for failed in [Failed::Conflict, Failed::NotFound] {
        assert_eq!(failed.into_held("list Pods").reason, Reason::KubernetesUnreachable);
    }
}

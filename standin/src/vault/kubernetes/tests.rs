#![allow(clippy::unwrap_used)]

use super::super::asked::Operation;
use super::super::moment;
use super::*;

fn asked(path: &str, data: Value) -> Asked {
    let data = data.as_object().cloned().unwrap_or_default();
    Asked { operation: Operation::Update, path: path.to_owned(), data, token: String::new() }
}

fn mount(reviewer_jwt: &str) -> Kubernetes {
    let mut kubernetes = Kubernetes::default();
    let config = json!({ "kubernetes_host": "https://k/", "token_reviewer_jwt": reviewer_jwt });
    kubernetes.handle(&asked("config", config)).unwrap();
    let role = json!({
        "bound_service_account_names": "gate", "bound_service_account_namespaces": "istio-system",
        "audience": "vault", "token_policies": "p",
    });
    kubernetes.handle(&asked("role/gate", role)).unwrap();
    kubernetes
}

fn token(name: &str, namespace: &str, audience: &str) -> String {
    let claims = json!({
        "aud": [audience], "exp": moment::some(60).now.as_second(),
        "kubernetes.io": { "namespace": namespace, "serviceaccount": { "name": name, "uid": "u" } },
    });
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.AAAA", part(json!({ "alg": "RS256" })), part(claims))
}

fn login(kubernetes: &Kubernetes, token: &str) -> Result<(Review, Claimed), Refusal> {
    kubernetes.login(moment::some(0).now, &asked("login", json!({ "role": "gate", "jwt": token })))
}

#[test]
fn a_login_that_passes_the_checks_is_reviewed_as_the_reviewer_or_as_itself() {
    let jwt = token("gate", "istio-system", "vault");
    for (reviewer, bearer) in [("reviewer", "reviewer"), ("", jwt.as_str())] {
        let (review, _) = login(&mount(reviewer), &jwt).unwrap();
        let expected = Review {
            host: "https://k/".to_owned(),
            ca_pem: String::new(),
            bearer: bearer.to_owned(),
            token: jwt.clone(),
            audiences: vec!["vault".to_owned()],
        };
        assert_eq!(review, expected);
    }
}

#[test]
fn a_login_for_nobody_of_the_role_is_never_reviewed() {
    for (name, namespace, audience, error) in [
        (
            "gate",
            "istio-system",
            "other",
            "invalid audience (aud) claim: audience claim does not match any expected audience",
        ),
        ("other", "other", "vault", "service account name not authorized"),
        ("gate", "other", "vault", "namespace not authorized"),
    ] {
        let refusal = login(&mount("r"), &token(name, namespace, audience)).err();
        assert_eq!(refusal, Some(Refusal::new(403, error)));
    }
}

#[test]
fn a_review_has_to_confirm_who_it_is() {
    let account = |name: &str, uid: &str| Reviewed {
        name: name.to_owned(),
        namespace: "istio-system".to_owned(),
        uid: uid.to_owned(),
    };
    let claimed = || login(&mount("r"), &token("gate", "istio-system", "vault")).unwrap().1;
    let granted = claimed().confirmed(Some(&account("gate", "u"))).unwrap();
    assert_eq!((granted.alias.as_str(), granted.display_name.as_str()), ("u", "istio-system-gate"));
    for reviewed in [None, Some(account("other", "u")), Some(account("gate", "made anew"))] {
        assert_eq!(claimed().confirmed(reviewed.as_ref()).err(), Some(Refusal::new(403, "permission denied")));
    }
}

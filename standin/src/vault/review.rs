//! Asks an API server whose token it is: a TokenReview.

use std::time::Duration;

use reqwest::{Certificate, Client};
use serde_json::{Value, json};

/// An API server that does not answer in this time is down.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What is asked, of whom, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Review {
    pub(super) host: String,
    pub(super) ca_pem: String,
    pub(super) bearer: String,
    pub(super) token: String,
    pub(super) audiences: Vec<String>,
}

/// A service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reviewed {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) uid: String,
}

impl Review {
    /// The token's owner; `None` if it is nobody's, or if nobody says so.
    pub(super) async fn ask(&self) -> Option<Reviewed> {
        let client = Client::builder()
            .tls_certs_only(Certificate::from_pem_bundle(self.ca_pem.as_bytes()).ok()?)
            .no_proxy()
            .timeout(TIMEOUT)
            .build()
            .ok()?;
        let url = format!("{}/apis/authentication.k8s.io/v1/tokenreviews", self.host.trim_end_matches('/'));
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": { "token": self.token, "audiences": self.audiences },
        });
        let request = client.post(url).bearer_auth(&self.bearer).header("content-type", "application/json");
        let response = request.header("accept", "application/json").body(body.to_string()).send().await.ok()?;
        if !response.status().is_success() {
            return None;
        }
        self.owner(&serde_json::from_slice(&response.bytes().await.ok()?).ok()?)
    }

    /// Who the answer says it is. The answer has to heed the audiences that were asked for.
    fn owner(&self, answer: &Value) -> Option<Reviewed> {
        let status = &answer["status"];
        let is_for = |audience: &String| {
            status["audiences"].as_array().is_some_and(|audiences| audiences.iter().any(|it| it == audience.as_str()))
        };
        let is_heeded = self.audiences.is_empty() || self.audiences.iter().any(is_for);
        if status["authenticated"] != true || !is_heeded {
            return None;
        }
        let (namespace, name) =
            status["user"]["username"].as_str()?.strip_prefix("system:serviceaccount:")?.split_once(':')?;
        let uid = status["user"]["uid"].as_str()?.to_owned();
        Some(Reviewed { name: name.to_owned(), namespace: namespace.to_owned(), uid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reviews_answer_names_the_service_account_and_the_audience() {
        let review = |audiences: &[&str]| Review {
            host: String::new(),
            ca_pem: String::new(),
            bearer: String::new(),
            token: String::new(),
            audiences: audiences.iter().map(|audience| (*audience).to_owned()).collect(),
        };
        let answer = |username: &str, authenticated: bool, audiences: Value| {
            let user = json!({ "username": username, "uid": "u" });
            json!({ "status": { "authenticated": authenticated, "user": user, "audiences": audiences } })
        };
        let account = "system:serviceaccount:istio-system:gate";
        let owner = review(&["vault"]).owner(&answer(account, true, json!(["vault"])));
        let expected = Reviewed { name: "gate".into(), namespace: "istio-system".into(), uid: "u".into() };
        assert_eq!(owner, Some(expected));
        assert!(review(&[]).owner(&answer(account, true, Value::Null)).is_some());
        for nobody in [
            answer(account, false, json!(["vault"])),
            answer(account, true, json!(["other"])),
            answer(account, true, Value::Null),
            answer("admin", true, json!(["vault"])),
            json!({ "status": { "error": "no" } }),
        ] {
            assert_eq!(review(&["vault"]).owner(&nobody), None, "{nobody}");
        }
    }
}

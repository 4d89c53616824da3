//! Tokens of service accounts: on request, as credentials, and in review.

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use testbed::{KubernetesApi, eventually};

use super::{Space, failure, same};
use crate::suite::SOON;

async fn request(space: &Space<'_>, spec: Value) -> Result<(u16, Value)> {
    space.post("serviceaccounts/default/token", json!({"spec": spec})).await
}

async fn review(cluster: &KubernetesApi, spec: Value) -> Result<(u16, Value)> {
    cluster.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", Some(json!({"spec": spec}))).await
}

fn part(token: &str, at: usize) -> Result<Value> {
    let part = token.split('.').nth(at).context("a part")?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part)?)?)
}

pub async fn a_token_tells_whose_it_is_and_for_whom(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let (_, account) = space.get("serviceaccounts/default").await?;
    let (status, answer) = request(&space, json!({"audiences": ["vault"], "expirationSeconds": 600})).await?;
    ensure!(status == 201 && answer["kind"] == "TokenRequest", "{status}: {answer}");
    let spec = json!({"audiences": ["vault"], "expirationSeconds": 600, "boundObjectRef": null});
    same((&answer["apiVersion"], &answer["spec"]), (&json!("authentication.k8s.io/v1"), &spec))?;
    let token = answer["status"]["token"].as_str().context("a token")?;
    let header = part(token, 0)?;
    ensure!(header["alg"] == "RS256" && header["kid"].is_string() && header.get("typ").is_none(), "{header}");
    let claims = part(token, 1)?;
    let issued = claims["iat"].as_i64().context("iat")?;
    let uid = &account["metadata"]["uid"];
    let wanted = json!({
        "aud": ["vault"], "exp": issued + 600, "iat": issued, "iss": cluster.issuer(), "jti": claims["jti"],
        "kubernetes.io": {"namespace": space.name, "serviceaccount": {"name": "default", "uid": uid}},
        "nbf": issued, "sub": format!("system:serviceaccount:{}:default", space.name),
    });
    same(claims, wanted)
}

pub async fn a_token_is_for_the_api_and_an_hour_unless_wished_otherwise(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let (status, answer) = request(&space, json!({})).await?;
    let spec = json!({"audiences": [cluster.issuer(), "vault"], "expirationSeconds": 3600, "boundObjectRef": null});
    same((status, &answer["spec"]), (201, &spec))?;
    let answer = request(&space, json!({"expirationSeconds": 60})).await?;
    let why = "Invalid value: 60: may not specify a duration less than 10 minutes";
    let cause = json!({"reason": "FieldValueInvalid", "message": why, "field": "spec.expirationSeconds"});
    let details = json!({"group": "authentication.k8s.io", "kind": "TokenRequest", "causes": [cause]});
    let text = format!(r#"TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: {why}"#);
    same(answer, failure(422, "Invalid", &text, details))?;
    let answer = space.post("serviceaccounts/nobody/token", json!({"spec": {}})).await?;
    let text = r#"serviceaccounts "nobody" not found"#;
    same(answer, failure(404, "NotFound", text, json!({"name": "nobody", "kind": "serviceaccounts"})))
}

pub async fn a_token_opens_the_api_if_it_is_for_it(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let unauthorized = failure(401, "Unauthorized", "Unauthorized", json!(null));
    for (audience, status) in [(cluster.issuer(), 200), ("vault", 200), ("other", 401)] {
        let token = cluster.service_account_token(&space.name, "default", &[audience], 600).await?;
        let answer = cluster.request_with(Some(&token), "GET", "/api", None).await?;
        same((audience, answer.0), (audience, status))?;
        ensure!(status == 200 || answer == unauthorized, "{answer:?}");
    }
    let token = cluster.service_account_token(&space.name, "default", &[cluster.issuer()], 600).await?;
    let (start, signature) = token.rsplit_once('.').context("a signature")?;
    let turned: String = signature.chars().rev().collect();
    for wrong in ["wrong".to_owned(), format!("{start}.{turned}"), format!("{token}.x")] {
        same(cluster.request_with(Some(&wrong), "GET", "/api", None).await?, unauthorized.clone())?;
    }
    Ok(())
}

pub async fn a_token_ends_with_its_account(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    space.made("serviceaccounts", json!({"metadata": {"name": "a"}})).await?;
    let token = cluster.service_account_token(&space.name, "a", &[cluster.issuer()], 600).await?;
    same(cluster.request_with(Some(&token), "GET", "/api", None).await?.0, 200)?;
    same(space.delete("serviceaccounts/a", None).await?.0, 200)?;
    let ended = || async {
        let (status, answer) = cluster.request_with(Some(&token), "GET", "/api", None).await?;
        ensure!(status == 401, "{status}: {answer}");
        Ok(())
    };
    // The real one keeps a verdict for some seconds.
    eventually("the end of the token", SOON, ended).await?;
    // An account of the same name is another one.
    space.made("serviceaccounts", json!({"metadata": {"name": "a"}})).await?;
    same(cluster.request_with(Some(&token), "GET", "/api", None).await?.0, 401)
}

pub async fn a_review_tells_whose_token_it_is(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let (_, account) = space.get("serviceaccounts/default").await?;
    let token = cluster.service_account_token(&space.name, "default", &["vault"], 600).await?;
    let claims = part(&token, 1)?;
    let jti = format!("JTI={}", claims["jti"].as_str().unwrap_or_default());
    let wanted = json!({
        "authenticated": true,
        "user": {
            "username": format!("system:serviceaccount:{}:default", space.name),
            "uid": account["metadata"]["uid"],
            "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{}", space.name), "system:authenticated"],
            "extra": {"authentication.kubernetes.io/credential-id": [jti]},
        },
        "audiences": ["vault"],
    });
    for spec in [json!({"token": token}), json!({"token": token, "audiences": ["vault", "other"]})] {
        let (status, answer) = review(cluster, spec.clone()).await?;
        same((status, &answer["kind"], &answer["spec"]), (201, &json!("TokenReview"), &spec))?;
        same(&answer["status"], &wanted)?;
    }
    let (_, answer) = review(cluster, json!({"token": cluster.admin_token()})).await?;
    let groups = json!(["system:masters", "system:authenticated"]);
    same(&answer["status"]["user"], &json!({"username": "admin", "uid": "admin", "groups": groups}))
}

pub async fn a_review_tells_what_is_wrong_with_a_token(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    space.made("serviceaccounts", json!({"metadata": {"name": "a"}})).await?;
    let token = cluster.service_account_token(&space.name, "a", &["vault"], 600).await?;
    let (start, signature) = token.rsplit_once('.').context("a signature")?;
    let turned: String = signature.chars().rev().collect();
    let forged = format!("{start}.{turned}");
    let others = r#"[invalid bearer token, token audiences ["vault"] is invalid for the target audiences ["other"]]"#;
    for (spec, error) in [
        (json!({"token": token, "audiences": ["other"]}), others),
        (json!({"token": forged}), "[invalid bearer token, go-jose/go-jose: error in cryptographic primitive]"),
        (json!({"token": "wrong"}), "invalid bearer token"),
    ] {
        let (status, answer) = review(cluster, spec).await?;
        same((status, &answer["status"]), (201, &json!({"user": {}, "error": error})))?;
    }
    let text = "token is required for TokenReview in authentication";
    same(review(cluster, json!({})).await?, failure(400, "BadRequest", text, json!(null)))?;
    space.delete("serviceaccounts/a", None).await?;
    let gone = || async {
        let (_, answer) = review(cluster, json!({"token": token, "audiences": ["vault"]})).await?;
        let error = r#"[invalid bearer token, serviceaccounts "a" not found]"#;
        same(&answer["status"], &json!({"user": {}, "error": error}))
    };
    eventually("the end of the token", SOON, gone).await
}

pub async fn the_keys_of_tokens_are_public(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let token = cluster.service_account_token(&space.name, "default", &[cluster.issuer()], 600).await?;
    let (status, configuration) = cluster.request("GET", "/.well-known/openid-configuration", None).await?;
    let jwks = configuration["jwks_uri"].as_str().unwrap_or_default();
    ensure!(status == 200 && jwks.ends_with("/openid/v1/jwks"), "{configuration}");
    let wanted = json!({"issuer": cluster.issuer(), "jwks_uri": jwks, "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["RS256"]});
    same(&configuration, &wanted)?;
    let (status, keys) = cluster.request("GET", "/openid/v1/jwks", None).await?;
    let key = &keys["keys"][0];
    same((status, &key["kid"], &key["use"]), (200, &part(&token, 0)?["kid"], &json!("sig")))?;
    same((&key["kty"], &key["alg"], &key["e"]), (&json!("RSA"), &json!("RS256"), &json!("AQAB")))
}

//! Service accounts of a cluster log in to Vault.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use testbed::{Authority, KubernetesIdentity, VaultApi, eventually, token_signing_key};

use super::vault::{ANY, Answered, Caller, DENIED, UNKNOWN_TOKEN, envelope, rounded};
use super::{Case, Pair, SOON, cases};

pub const CASES: &[Case<Pair>] = cases![
    a_login_at_no_mount_is_denied,
    a_service_account_logs_in_by_review,
    a_login_gives_a_token_that_tells_of_itself,
    an_account_is_one_entity_however_often_it_logs_in,
    an_unknown_role_is_named,
    a_wrong_audience_account_or_namespace_is_told_in_this_order,
    names_of_accounts_may_be_patterns,
    a_role_without_an_audience_takes_a_token_for_any,
    a_token_of_another_issuer_passes_the_checks_and_fails_the_review,
    what_is_no_token_is_denied_without_a_word,
    a_token_that_expired_is_told_before_it_is_reviewed,
    a_reviewer_that_may_not_review_denies_every_login,
    without_a_reviewer_the_account_reviews_itself,
    an_api_server_that_cannot_be_asked_denies_every_login,
    a_service_account_that_is_gone_is_denied,
    a_service_account_logs_in_offline,
    a_wrong_subject_audience_or_issuer_is_refused_offline,
    a_token_signed_by_another_key_is_refused_offline,
    time_is_heeded_offline_with_some_leeway,
    an_audience_that_the_role_does_not_bind_is_refused_offline,
    a_login_ends_with_its_time_its_mount_and_on_demand,
];

/// The role's token.
const TTL: u64 = 3600;

/// A namespace of the case's own, with the service accounts `gate`, `other` and `reviewer`.
struct Place<'a> {
    pair: &'a Pair,
    namespace: &'static str,
}

impl<'a> Place<'a> {
    async fn new(pair: &'a Pair, namespace: &'static str) -> Result<Self> {
        let place = Self { pair, namespace };
        let metadata = json!({ "metadata": { "name": namespace } });
        place.create("/api/v1/namespaces", metadata).await?;
        for name in ["gate", "other", "reviewer"] {
            let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
            place.create(&path, json!({ "metadata": { "name": name } })).await?;
        }
        Ok(place)
    }

    async fn create(&self, path: &str, object: Value) -> Result<()> {
        let (status, answer) = self.pair.cluster.request("POST", path, Some(object)).await?;
        ensure!(status == 201, "POST {path}: {status}: {answer}");
        Ok(())
    }

    /// Lets a service account ask for reviews.
    async fn let_review(&self, account: &str) -> Result<()> {
        let binding = json!({
            "metadata": { "name": format!("{}-{account}", self.namespace) },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:auth-delegator" },
            "subjects": [{ "kind": "ServiceAccount", "name": account, "namespace": self.namespace }],
        });
        self.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await
    }

    async fn token(&self, account: &str, audience: &str) -> Result<String> {
        self.pair.cluster.service_account_token(self.namespace, account, &[audience], 3600).await
    }

    /// A token for the API server itself.
    async fn api_token(&self, account: &str) -> Result<String> {
        self.token(account, self.pair.cluster.issuer()).await
    }

    /// A mount `k` of kind `kubernetes` with a reviewer that may, and the role `gate`.
    async fn kubernetes(&self) -> Result<()> {
        self.let_review("reviewer").await?;
        self.pair.vault.kubernetes_auth("k", &self.pair.cluster, &self.api_token("reviewer").await?).await?;
        // A right that was just given may take a moment.
        let right = json!({
            "spec": { "resourceAttributes": { "group": "authentication.k8s.io", "resource": "tokenreviews", "verb": "create" } },
        });
        let reviewer = self.api_token("reviewer").await?;
        let may = || async {
            let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
            let (_, answer) =
                self.pair.cluster.request_with(Some(&reviewer), "POST", path, Some(right.clone())).await?;
            ensure!(answer["status"]["allowed"] == true, "{answer}");
            anyhow::Ok(())
        };
        eventually("the reviewer's right", SOON, may).await?;
        self.pair.vault.role("k", "gate", self.role("gate")).await
    }

    /// A role of kind `kubernetes`.
    fn role(&self, account: &str) -> Value {
        json!({
            "audience": "vault", "bound_service_account_names": account,
            "bound_service_account_namespaces": self.namespace, "token_policies": "p", "token_ttl": TTL,
        })
    }

    /// A mount `j` of kind `jwt`, and the role `gate`.
    async fn jwt(&self) -> Result<()> {
        self.pair.vault.jwt_auth("j", &self.pair.cluster).await?;
        self.pair.vault.role("j", "gate", self.jwt_role(json!({}))).await
    }

    /// A role of kind `jwt`, with changes.
    fn jwt_role(&self, changes: Value) -> Value {
        let mut role = json!({
            "role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault", "bound_subject": self.subject("gate"),
            "token_policies": "p", "token_ttl": TTL,
        });
        for (field, value) in changes.as_object().into_iter().flatten() {
            role[field] = value.clone();
        }
        role
    }

    fn subject(&self, account: &str) -> String {
        format!("system:serviceaccount:{}:{account}", self.namespace)
    }

    async fn login(&self, mount: &str, role: &str, token: &str) -> Result<Answered> {
        let body = json!({ "role": role, "jwt": token });
        Caller::nobody(&self.pair.vault).post(&format!("auth/{mount}/login"), body).await
    }

    async fn uid(&self, account: &str) -> Result<Value> {
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/{account}", self.namespace);
        let (_, answer) = self.pair.cluster.request("GET", &path, None).await?;
        Ok(answer["metadata"]["uid"].clone())
    }
}

/// What a login gives.
fn granted(metadata: Value) -> Value {
    let mut pattern = envelope("", Value::Null);
    pattern["auth"] = json!({
        "accessor": ANY, "client_token": ANY, "entity_id": ANY, "lease_duration": TTL, "metadata": metadata,
        "mfa_requirement": null, "num_uses": 0, "orphan": true, "policies": ["default", "p"], "renewable": true,
        "token_policies": ["default", "p"], "token_type": "service",
    });
    pattern
}

fn client_token(answer: &Answered) -> Result<&str> {
    answer.body["auth"]["client_token"].as_str().context("no token")
}

/// Claims of a token that a case makes itself, as those of a service account.
fn claims(place: &Place<'_>, from_now: i64) -> Result<Value> {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    let account = json!({ "name": "gate", "uid": "0f1e2d3c-0000-4000-8000-000000000000" });
    Ok(json!({
        "aud": ["vault"], "exp": now + from_now + 600, "iat": now + from_now, "nbf": now + from_now,
        "iss": place.pair.cluster.issuer(), "sub": place.subject("gate"),
        "kubernetes.io": { "namespace": place.namespace, "serviceaccount": account },
    }))
}

fn sign(key_pem: &str, claims: &Value) -> Result<String> {
    let key = EncodingKey::from_rsa_pem(key_pem.as_bytes())?;
    Ok(jsonwebtoken::encode(&Header::new(Algorithm::RS256), claims, &key)?)
}

async fn a_login_at_no_mount_is_denied(pair: &Pair) -> Result<()> {
    let (nobody, root) = (Caller::nobody(&pair.vault), Caller::root(&pair.vault));
    let body = || json!({ "role": "r", "jwt": "x.y.z" });
    nobody.post("auth/nowhere/login", body()).await?.refuses(403, "permission denied")?;
    let no_route = "no handler for route \"auth/nowhere/login\". route entry not found.";
    root.post("auth/nowhere/login", body()).await?.refuses(404, no_route)?;
    Ok(())
}

async fn a_service_account_logs_in_by_review(pair: &Pair) -> Result<()> {
    let place = Place::new(pair, "login-by-review").await?;
    place.kubernetes().await?;
    let metadata = json!({
        "role": "gate", "service_account_name": "gate", "service_account_namespace": "login-by-review",
        "service_account_secret_name": "", "service_account_uid": place.uid("gate").await?,
    });
    let token = place.token("gate", "vault").await?;
    let answer = place.login("k", "gate", &token).await?.is(200, granted(metadata))?;
    // Without the policy there is no right; with it there is, at once.
    let caller = Caller::with(&pair.vault, client_token(&answer)?);
    caller.get("secret/data/a").await?.refuses(403, DENIED)?;
    pair.vault.policy("p", "path \"secret/data/a\" { capabilities = [\"read\"] }").await?;
    caller.get("secret/data/a").await?.silent(404)?;
    Ok(())
}

async fn a_login_gives_a_token_that_tells_of_itself(pair: &Pair) -> Result<()> {
    let place = Place::new(pair, "login-lookup").await?;
    place.kubernetes().await?;
    place.jwt().await?;
    let token = place.token("gate", "vault").await?;
    for (mount, display_name) in
        [("k", "k-login-lookup-gate".to_owned()), ("j", format!("j-{}", place.subject("gate")))]
    {
        let answer = place.login(mount, "gate", &token).await?;
        let about = json!({
            "accessor": answer.body["auth"]["accessor"], "creation_time": 0, "creation_ttl": TTL,
            "display_name": display_name, "entity_id": answer.body["auth"]["entity_id"], "expire_time": ANY,
            "explicit_max_ttl": 0, "id": client_token(&answer)?, "issue_time": ANY,
            "meta": answer.body["auth"]["metadata"], "num_uses": 0, "orphan": true,
            "path": format!("auth/{mount}/login"), "policies": ["default", "p"], "renewable": true, "ttl": TTL,
            "type": "service",
        });
        let mut told = Caller::with(&pair.vault, client_token(&answer)?).get("auth/token/lookup-self").await?;
        told.body["data"]["creation_time"] = json!(0);
        rounded(&mut told, TTL);
        told.gives("token", about)?;
    }
    Ok(())
}

async fn an_account_is_one_entity_however_often_it_logs_in(pair: &Pair) -> Result<()> {
    let place = Place::new(pair, "login-entity").await?;
    place.kubernetes().await?;
    pair.vault.role("k", "both", place.role("gate,other")).await?;
    let (gate, other) = (place.token("gate", "vault").await?, place.token("other", "vault").await?);
    let first = place.login("k", "gate", &gate).await?;
    let again = place.login("k", "both", &gate).await?;
    let other = place.login("k", "both", &other).await?;
    let entity = |answer: &Answered| answer.body["auth"]["entity_id"].clone();
    ensure!(entity(&first) == entity(&again) && entity(&first) != entity(&other), "{first:?} {again:?} {other:?}");
    ensure!(client_token(&first)? != client_token(&again)?);
    Ok(())
}

async fn an_unknown_role_is_named(pair: &Pair) -> Result<()> {
    let place = Place::new(pair, "login-role").await?;
    place.kubernetes().await?;
    place.jwt().await?;
    let token = place.token("gate", "vault").await?;
    place.login("k", "none", &token).await?.refuses(400, "invalid role name \"none\"")?;
    place.login("j", "none", &token).await?.refuses(400, "role \"none\" could not be found")?;
    // The case of a name does not matter.
    ensure!(place.login("k", "Gate", &token).await?.status == 200);
    ensure!(place.login("j", "Gate", &token).await?.status == 200);
    Ok(())
}

async fn a_wrong_audience_account_or_namespace_is_told_in_this_order(pair: &Pair) -> Result<()> {
    let place = Place::new(pair, "login-bounds").await?;
    place.kubernetes().await?;
    let mut elsewhere = place.role("gate");
    elsewhere["bound_service_account_namespaces"] = json!("kube-system");
    pair.vault.role("k", "elsewhere", elsewhere).await?;
    let audience = "invalid audience (aud) claim: audience claim does not match any expected audience";
    let (name, namespace) = ("service account name not authorized", "namespace not authorized");
    for (account, for_whom, role, error) in [
        ("gate", pair.cluster.issuer(), "gate", audience),
        ("other", pair.cluster.issuer(), "gate", audience),
        ("other", "vault", "gate", name),
        ("other", "vault", "elsewhere", name),
        ("gate", "vault", "elsewhere", namespace),
    ] {
        let token = place.token(account, for_whom).await?;
        place.login("k", role, &token).await?.refuses(403, error)?;
    }
    Ok(())
}

async fn names_of_accounts_may_be_patterns(pair: &Pair) -> Result<()> {
    let place = Place::new(pair, "login-patterns").await?;
    place.kubernetes().await?;
    for (account, pattern, status) in
        [("gate", "*", 200), ("gate", "ga*", 200), ("gate", "*te", 200), ("gate", "*at*", 200), ("other", "ga*", 403)]
    {
        pair.vault.role("k", "pattern", place.role(pattern)).await?;
        let answer = place.login("k", "pattern", &place.token(account, "vault").await?).await?;
        ensure!(answer.status == status, "{account} {pattern}: {answer:?}");
    }
    Ok(())
}

async fn a_role_without_an_audience_takes_a_token_for_any(pair: &Pair) -> Result<()> {
    let place = Place::new(pair, "login-audience").await?;
    place.kubernetes().await?;
    let mut role = place.role("gate");
    role["audience"] = json!("");
    let (status, answer) = pair.vault.api("POST", "auth/k/role/any", Some(role)).await?;
    ensure!(status == 200, "{status}: {answer}");
    for audience in ["vault", pair.cluster.issuer(), "whoever"] {
        let answer = place.login("k", "any", &place.token("gate", audience).await?).await?;
        ensure!(answer.status == 200, "{audience}: {answer:?}");
    }
    Ok(())
}

async fn a_token_of_another_issuer_passes_the_checks_and_fails_the_review(pair: &Pair) -> Result<()> {
    let place = Place::new(pair, "login-foreign").await?;
    place.kubernetes().await?;
    let (key, _) = token_signing_key()?;
    let foreign = sign(&key, &claims(&place, 0)?)?;
    place.login("k", "gate", &foreign).await?.refuses(403, "permission denied")?;
    Ok(())
}

async fn what_is_no_token_is_denied_without_a_word(pair: &Pair) -> Result<()> {
    let place = Place::new(pair, "login-garbage").await?;
    place.kubernetes().await?;
    place.jwt().await?;
    for garbage in ["x", "x.y.z", "eyJhbGciOiJIUzI1NiJ9.e30.AAAA", "eyJhbGciOiJub25lIn0.e30."] {
        place.login("k", "gate", garbage).await?.refuses(403, "permission denied")?;
    }
    let three = "error validating token: error verifying token signature: go-jose/go-jose: compact JWS format must \
        have three parts";
    place.login("j", "gate", "x").await?.refuses(400, three)?;
    place.login("j", "gate", "").await?.refuses(400, "missing token")?;
    place.login("k", "gate", "").await?.refuses(400, "missing jwt")?;
    Ok(())
}

async fn a_token_that_expired_is_told_before_it_is_reviewed(pair: &Pair) -> Result<()> {
    let place = Place::new(pair, "login-expired").await?;
    place.kubernetes().await?;
    let (key, _) = token_signing_key()?;
    for (from_now, error) in [
        (-800, "invalid expiration time (exp) claim: token is expired"),
        (-630, "permission denied"),
        (100, "invalid not before (nbf) claim: token not yet valid"),
    ] {
        let token = sign(&key, &claims(&place, from_now)?)?;
        place.login("k", "gate", &token).await?.refuses(403, error)?;
    }
    Ok(())
}

async fn a_reviewer_that_may_not_review_denies_every_login(pair: &Pair) -> Result<()> {
    let place = Place::new(pair, "login-reviewer").await?;
    let token = place.token("gate", "vault").await?;
    let strangers = [place.api_token("other").await?, "nobody's".to_owned(), place.token("other", "vault").await?];
    for (at, reviewer) in strangers.iter().enumerate() {
        let mount = format!("k{at}");
        pair.vault.kubernetes_auth(&mount, &pair.cluster, reviewer).await?;
        pair.vault.role(&mount, "gate", place.role("gate")).await?;
        place.login(&mount, "gate", &token).await?.refuses(403, "permission denied")?;
    }
    Ok(())
}

async fn without_a_reviewer_the_account_reviews_itself(pair: &Pair) -> Result<()> {
    let place = Place::new(pair, "login-itself").await?;
    pair.vault.kubernetes_auth("k", &pair.cluster, "").await?;
    // A token for Vault alone would not be taken by an API server that does not count itself as Vault, too.
    let mut role = place.role("gate");
    role["audience"] = json!(pair.cluster.issuer());
    pair.vault.role("k", "gate", role).await?;
    let token = place.api_token("gate").await?;
    place.login("k", "gate", &token).await?.refuses(403, "permission denied")?;
    place.let_review("gate").await?;
    let granted = || async {
        let answer = place.login("k", "gate", &token).await?;
        ensure!(answer.status == 200, "{answer:?}");
        anyhow::Ok(())
    };
    eventually("a login that reviews itself", SOON, granted).await?;
    Ok(())
}

async fn an_api_server_that_cannot_be_asked_denies_every_login(pair: &Pair) -> Result<()> {
    let place = Place::new(pair, "login-nobody").await?;
    place.kubernetes().await?;
    let token = place.token("gate", "vault").await?;
    let identity = |url: &str, ca_pem: &str| KubernetesIdentity {
        name: "none".to_owned(),
        url: url.to_owned(),
        ca_pem: ca_pem.to_owned(),
        admin_token: String::new(),
        issuer: String::new(),
        token_public_key_pem: String::new(),
    };
    let stranger = Authority::new("CA of nobody")?;
    for (mount, url, ca_pem) in [
        ("down", "https://127.0.0.1:1", pair.cluster.ca_pem()),
        ("untrusted", pair.cluster.url(), stranger.certificate_pem()),
    ] {
        let nobody = testbed::KubernetesApi::new(identity(url, ca_pem))?;
        pair.vault.kubernetes_auth(mount, &nobody, &place.api_token("reviewer").await?).await?;
        pair.vault.role(mount, "gate", place.role("gate")).await?;
        place.login(mount, "gate", &token).await?.refuses(403, "permission denied")?;
    }
    ensure!(place.login("k", "gate", &token).await?.status == 200);
    Ok(())
}

async fn a_service_account_that_is_gone_is_denied(pair: &Pair) -> Result<()> {
    let place = Place::new(pair, "login-gone").await?;
    place.kubernetes().await?;
    place.jwt().await?;
    let token = place.token("gate", "vault").await?;
    ensure!(place.login("k", "gate", &token).await?.status == 200);
    let path = "/api/v1/namespaces/login-gone/serviceaccounts/gate";
    let (status, answer) = pair.cluster.request("DELETE", path, None).await?;
    ensure!(status == 200, "{status}: {answer}");
    let denied = || async { place.login("k", "gate", &token).await?.refuses(403, "permission denied") };
    eventually("a denial of who is gone", SOON, denied).await?;
    // Whom nobody asks does not know.
    ensure!(place.login("j", "gate", &token).await?.status == 200);
    Ok(())
}

async fn a_service_account_logs_in_offline(pair: &Pair) -> Result<()> {
    let place = Place::new(pair, "login-offline").await?;
    place.jwt().await?;
    let token = place.token("gate", "vault").await?;
    let answer = place.login("j", "gate", &token).await?.is(200, granted(json!({ "role": "gate" })))?;
    pair.vault.policy("p", "path \"secret/data/a\" { capabilities = [\"read\"] }").await?;
    Caller::with(&pair.vault, client_token(&answer)?).get("secret/data/a").await?.silent(404)?;
    // A mount may be at any path.
    pair.vault.jwt_auth("clusters/nas", &pair.cluster).await?;
    pair.vault.role("clusters/nas", "gate", place.jwt_role(json!({}))).await?;
    let answer = place.login("clusters/nas", "gate", &token).await?.is(200, granted(json!({ "role": "gate" })))?;
    let told = Caller::with(&pair.vault, client_token(&answer)?).get("auth/token/lookup-self").await?;
    let name = format!("clusters-nas-{}", place.subject("gate"));
    ensure!(told.body["data"]["display_name"] == name, "{told:?}");
    Ok(())
}

async fn a_wrong_subject_audience_or_issuer_is_refused_offline(pair: &Pair) -> Result<()> {
    let place = Place::new(pair, "login-offline-bounds").await?;
    place.jwt().await?;
    let refusal = |error: &str| format!("error validating token: {error}");
    let audience = refusal("invalid audience (aud) claim: audience claim does not match any expected audience");
    let token = place.token("other", "vault").await?;
    place.login("j", "gate", &token).await?.refuses(400, &refusal("invalid subject (sub) claim"))?;
    let token = place.api_token("gate").await?;
    place.login("j", "gate", &token).await?.refuses(400, &audience)?;
    let config = json!({
        "jwt_validation_pubkeys": [pair.cluster.service_account_public_key_pem()], "bound_issuer": "https://other",
    });
    pair.vault.ok("POST", "auth/j/config", Some(config)).await?;
    let token = place.token("gate", "vault").await?;
    place.login("j", "gate", &token).await?.refuses(400, &refusal("invalid issuer (iss) claim"))?;
    let role = place.jwt_role(json!({ "user_claim": "email" }));
    pair.vault.jwt_auth("j2", &pair.cluster).await?;
    pair.vault.role("j2", "gate", role).await?;
    place.login("j2", "gate", &token).await?.refuses(400, "claim \"email\" not found in token")?;
    Ok(())
}

/// The rest of a refused login whose signature is no known key's.
const NO_KEY: &str = "error validating token: error verifying token signature: no known key successfully validated the \
    token signature";

async fn a_token_signed_by_another_key_is_refused_offline(pair: &Pair) -> Result<()> {
    let place = Place::new(pair, "login-offline-key").await?;
    place.jwt().await?;
    let (key, public_key) = token_signing_key()?;
    let foreign = sign(&key, &claims(&place, 0)?)?;
    place.login("j", "gate", &foreign).await?.refuses(400, NO_KEY)?;
    // A signature under other claims.
    let token = place.token("gate", "vault").await?;
    let (_, payload, _) = parts(&foreign)?;
    let (header, _, signature) = parts(&token)?;
    place.login("j", "gate", &format!("{header}.{payload}.{signature}")).await?.refuses(400, NO_KEY)?;
    // Each of several keys will do.
    let keys = json!([pair.cluster.service_account_public_key_pem(), public_key]);
    let config = json!({ "jwt_validation_pubkeys": keys, "bound_issuer": pair.cluster.issuer() });
    pair.vault.ok("POST", "auth/j/config", Some(config)).await?;
    for token in [&foreign, &token] {
        ensure!(place.login("j", "gate", token).await?.status == 200);
    }
    Ok(())
}

fn parts(token: &str) -> Result<(&str, &str, &str)> {
    let mut parts = token.split('.');
    let mut part = || parts.next().context("no token");
    Ok((part()?, part()?, part()?))
}

async fn time_is_heeded_offline_with_some_leeway(pair: &Pair) -> Result<()> {
    let place = Place::new(pair, "login-offline-time").await?;
    let (key, public_key) = token_signing_key()?;
    pair.vault.ok("POST", "sys/auth/j", Some(json!({ "type": "jwt" }))).await?;
    let config = json!({ "jwt_validation_pubkeys": public_key });
    pair.vault.ok("POST", "auth/j/config", Some(config)).await?;
    pair.vault.role("j", "gate", place.jwt_role(json!({}))).await?;
    pair.vault.role("j", "strict", place.jwt_role(json!({ "clock_skew_leeway": -1 }))).await?;
    let refusal = |error: &str| format!("error validating token: {error}");
    let expired = refusal("invalid expiration time (exp) claim: token is expired");
    let early = refusal("invalid not before (nbf) claim: token not yet valid");
    for (role, from_now, error) in [
        ("gate", 0, None),
        ("gate", -630, None),
        ("gate", 40, None),
        ("gate", -800, Some(&expired)),
        ("gate", 100, Some(&early)),
        ("strict", -300, None),
        ("strict", -630, Some(&expired)),
        ("strict", 40, Some(&early)),
    ] {
        let answer = place.login("j", role, &sign(&key, &claims(&place, from_now)?)?).await?;
        match error {
            None => ensure!(answer.status == 200, "{role} {from_now}: {answer:?}"),
            Some(error) => drop(answer.refuses(400, error)?),
        }
    }
    let mut timeless = claims(&place, 0)?;
    for claim in ["exp", "iat", "nbf"] {
        timeless[claim] = json!(0);
    }
    let error = refusal("no issued at (iat), not before (nbf), or expiration time (exp) claims in token");
    place.login("j", "gate", &sign(&key, &timeless)?).await?.refuses(400, &error)?;
    Ok(())
}

async fn an_audience_that_the_role_does_not_bind_is_refused_offline(pair: &Pair) -> Result<()> {
    let place = Place::new(pair, "login-offline-audience").await?;
    place.jwt().await?;
    pair.vault.role("j", "any", place.jwt_role(json!({ "bound_audiences": "" }))).await?;
    let refusal = "audience claim found in JWT but no audiences bound to the role";
    let token = place.token("gate", "vault").await?;
    place.login("j", "any", &token).await?.refuses(400, refusal)?;
    Ok(())
}

async fn a_login_ends_with_its_time_its_mount_and_on_demand(pair: &Pair) -> Result<()> {
    let place = Place::new(pair, "login-end").await?;
    place.jwt().await?;
    let token = place.token("gate", "vault").await?;
    let login = async |mount: &str| {
        let answer = place.login(mount, "gate", &token).await?;
        let caller = Caller::with(&pair.vault, client_token(&answer)?);
        let told = caller.get("auth/token/lookup-self").await?;
        ensure!(told.status == 200, "{told:?}");
        anyhow::Ok(caller)
    };
    let ended = async |caller: &Caller<'_>| {
        let ended = || async { caller.get("auth/token/lookup-self").await?.refuses(403, UNKNOWN_TOKEN) };
        eventually("a login that has ended", SOON, ended).await
    };
    let caller = login("j").await?;
    let revoke = "sys/leases/revoke-prefix/auth/j/login";
    Caller::root(&pair.vault).ask("PUT", revoke, Some(json!({}))).await?.done()?;
    ended(&caller).await?;

    let caller = login("j").await?;
    pair.vault.role("j", "gate", place.jwt_role(json!({ "token_ttl": "3s" }))).await?;
    let brief = login("j").await?;
    ended(&brief).await?;
    // A token is as its role was at the login.
    ensure!(caller.get("auth/token/lookup-self").await?.status == 200);

    unmount(&pair.vault, "j").await?;
    ended(&caller).await?;
    Ok(())
}

async fn unmount(vault: &VaultApi, mount: &str) -> Result<()> {
    Caller::root(vault).delete(&format!("sys/auth/{mount}")).await?.done()?;
    Ok(())
}

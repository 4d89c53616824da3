//! Auth methods as they are configured, without a cluster.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testbed::{VaultApi, token_signing_key};

use super::{ANY, Caller, DENIED};

pub async fn auth_methods_are_listed_and_removed(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    root.post("sys/auth/kubernetes", json!({ "type": "kubernetes" })).await?.done()?;
    root.post("sys/auth/team/nas", json!({ "type": "jwt", "description": "NAS" })).await?.done()?;
    let listed = root.get("sys/auth").await?.body;
    let method = |kind: &str, version: &str, description: &str| {
        json!({
            "accessor": ANY,
            "config": {
                "default_lease_ttl": 0, "force_no_cache": false, "max_lease_ttl": 0, "token_type": "default-service",
            },
            "deprecation_status": "supported", "description": description, "external_entropy_access": false,
            "local": false, "options": {}, "plugin_version": "", "running_plugin_version": version,
            "running_sha256": "", "seal_wrap": false, "type": kind, "uuid": ANY,
        })
    };
    for (path, expected) in [
        ("kubernetes/", method("kubernetes", "v0.23.1+builtin", "")),
        ("team/nas/", method("jwt", "v0.25.0+builtin", "NAS")),
    ] {
        let difference = super::difference(&expected, &listed["data"][path], path);
        ensure!(difference.is_none(), "{difference:?}: {listed}");
    }
    ensure!(listed["data"]["token/"]["type"] == "token" && listed["token/"] == listed["data"]["token/"], "{listed}");
    root.post("sys/auth/kubernetes", json!({ "type": "jwt" }))
        .await?
        .refuses(400, "path is already in use at kubernetes/")?;
    root.post("sys/auth/x", json!({ "type": "none" })).await?.refuses(400, "plugin not found in the catalog: none")?;
    root.post("sys/auth/x", json!({})).await?.refuses(400, "backend type must be specified as a string")?;
    for _ in 0..2 {
        root.delete("sys/auth/kubernetes").await?.done()?;
    }
    let no_route = "no handler for route \"auth/kubernetes/login\". route entry not found.";
    root.post("auth/kubernetes/login", json!({ "role": "r" })).await?.refuses(404, no_route)?;
    root.delete("sys/auth/token").await?.refuses(400, "token credential backend cannot be disabled")?;
    root.delete("sys/mounts/sys").await?.refuses(400, "cannot unmount \"sys/\"")?;
    root.get("sys/auth/none").await?.refuses(400, "No auth engine at none/")?;
    // It takes more than a right to the path.
    let auth = "path \"sys/auth/*\" { capabilities = [\"create\", \"update\", \"delete\"] }";
    Caller::who_may(vault, auth).await?.post("sys/auth/x", json!({ "type": "jwt" })).await?.refuses(403, DENIED)?;
    Ok(())
}

/// A role's fields about its tokens.
fn token_fields(policies: &[&str], ttl: u64) -> Value {
    json!({
        "token_bound_cidrs": [], "token_explicit_max_ttl": 0, "token_max_ttl": 0, "token_no_default_policy": false,
        "token_num_uses": 0, "token_period": 0, "token_policies": policies, "token_ttl": ttl, "token_type": "default",
    })
}

fn with(mut object: Value, more: Value) -> Value {
    for (field, value) in more.as_object().into_iter().flatten() {
        object[field] = value.clone();
    }
    object
}

pub async fn a_role_of_kind_kubernetes_is_kept(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    root.post("sys/auth/k", json!({ "type": "kubernetes" })).await?.done()?;
    root.list("auth/k/role").await?.silent(404)?;
    let (names, namespaces) = ("bound_service_account_names", "bound_service_account_namespaces");
    // By the old names of fields, and lists as text.
    let body = json!({ names: "gate, other", namespaces: "istio-system", "policies": "P, q", "ttl": "1h" });
    let warning = "Role Old does not have an audience configured. While audiences are not required, consider \
        specifying one if your use case would benefit from additional JWT claim verification.";
    root.post("auth/k/role/Old", body).await?.warns(200, "kubernetes", warning)?;
    let old = json!({
        "alias_name_source": "serviceaccount_uid", names: ["gate", "other"], namespaces: ["istio-system"],
        "bound_service_account_namespace_selector": "", "policies": ["p", "q"], "ttl": 3600,
    });
    root.get("auth/k/role/old").await?.gives("kubernetes", with(old, token_fields(&["p", "q"], 3600)))?;

    let body =
        json!({ names: ["gate"], namespaces: ["*"], "token_policies": ["P"], "token_ttl": 90, "audience": "vault" });
    root.post("auth/k/role/new", body).await?.done()?;
    root.post("auth/k/role/new", json!({ "token_ttl": "2m" })).await?.done()?;
    let new = json!({
        "alias_name_source": "serviceaccount_uid", "audience": "vault", names: ["gate"], namespaces: ["*"],
        "bound_service_account_namespace_selector": "",
    });
    root.get("auth/k/role/new").await?.gives("kubernetes", with(new, token_fields(&["P"], 120)))?;
    root.list("auth/k/role").await?.gives("kubernetes", json!({ "keys": ["new", "old"] }))?;
    for _ in 0..2 {
        root.delete("auth/k/role/new").await?.done()?;
    }
    root.get("auth/k/role/new").await?.silent(404)?;

    for (body, error) in [
        (json!({ namespaces: ["a"] }), "\"bound_service_account_names\" can not be empty"),
        (
            json!({ names: ["a"] }),
            "\"bound_service_account_namespaces\" can not be empty if \"bound_service_account_namespace_selector\" is \
             not set",
        ),
        (json!({ names: ["a", "*"], namespaces: ["a"] }), "can not mix \"*\" with values"),
        (
            json!({ names: ["a"], namespaces: ["a"], "token_ttl": 2, "token_max_ttl": 1 }),
            "'token_ttl' cannot be greater than 'token_max_ttl'",
        ),
    ] {
        root.post("auth/k/role/bad", body).await?.refuses(400, error)?;
    }
    Ok(())
}

pub async fn a_role_of_kind_jwt_is_kept(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    root.post("sys/auth/j", json!({ "type": "jwt" })).await?.done()?;
    root.list("auth/j/role").await?.silent(404)?;
    let body = json!({
        "role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault", "bound_subject": "gate",
        "token_policies": "p", "token_ttl": "1h",
    });
    root.post("auth/j/role/NAS", body).await?.done()?;
    let role = json!({
        "allowed_redirect_uris": null, "bound_audiences": ["vault"], "bound_claims": null,
        "bound_claims_type": "string", "bound_subject": "gate", "claim_mappings": null, "clock_skew_leeway": 0,
        "expiration_leeway": 0, "groups_claim": "", "max_age": 0, "not_before_leeway": 0, "oidc_scopes": null,
        "role_type": "jwt", "user_claim": "sub", "user_claim_json_pointer": false, "verbose_oidc_logging": false,
    });
    root.get("auth/j/role/nas").await?.gives("jwt", with(role, token_fields(&["p"], 3600)))?;
    root.list("auth/j/role").await?.gives("jwt", json!({ "keys": ["nas"] }))?;
    root.delete("auth/j/role/nas").await?.done()?;
    root.get("auth/j/role/nas").await?.silent(404)?;
    for (body, error) in [
        (json!({ "role_type": "jwt" }), "a user claim must be defined on the role"),
        (
            json!({ "role_type": "jwt", "user_claim": "sub" }),
            "must have at least one bound constraint when creating/updating a role",
        ),
        (
            json!({ "user_claim": "sub", "bound_audiences": "vault" }),
            "'allowed_redirect_uris' must be set if 'role_type' is 'oidc' or unspecified.",
        ),
        (json!({ "role_type": "x", "user_claim": "sub" }), "invalid 'role_type': x"),
    ] {
        root.post("auth/j/role/bad", body).await?.refuses(400, error)?;
    }
    Ok(())
}

pub async fn a_login_that_is_not_configured_is_refused(vault: &VaultApi) -> Result<()> {
    let (root, nobody) = (Caller::root(vault), Caller::nobody(vault));
    root.post("sys/auth/k", json!({ "type": "kubernetes" })).await?.done()?;
    root.post("sys/auth/j", json!({ "type": "jwt" })).await?.done()?;
    let login = || json!({ "role": "r", "jwt": "x.y.z" });
    for (body, error) in [
        (json!({}), "missing role"),
        (json!({ "jwt": "x" }), "missing role"),
        (json!({ "role": "r" }), "missing jwt"),
        (login(), "invalid role name \"r\""),
    ] {
        nobody.post("auth/k/login", body).await?.refuses(400, error)?;
    }
    let role = json!({
        "bound_service_account_names": "a", "bound_service_account_namespaces": "b", "audience": "vault",
    });
    root.post("auth/k/role/r", role).await?.done()?;
    nobody.post("auth/k/login", login()).await?.refuses(500, "could not load backend configuration")?;
    nobody.post("auth/j/login", login()).await?.refuses(400, "could not load configuration")?;
    for mount in ["k", "j"] {
        nobody.get(&format!("auth/{mount}/login")).await?.refuses(405, "unsupported operation")?;
        root.get(&format!("auth/{mount}/config")).await?.silent(404)?;
    }
    Ok(())
}

pub async fn a_configuration_that_lacks_something_is_refused(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    root.post("sys/auth/k", json!({ "type": "kubernetes" })).await?.done()?;
    root.post("sys/auth/j", json!({ "type": "jwt" })).await?.done()?;
    root.post("auth/k/config", json!({})).await?.refuses(400, "no host provided")?;
    let host = "https://127.0.0.1:1";
    let no_ca = "The provided CA PEM data contains no valid certificates";
    let body = json!({ "kubernetes_host": host, "kubernetes_ca_cert": "x" });
    root.post("auth/k/config", body).await?.refuses(400, no_ca)?;
    let body = json!({
        "kubernetes_host": host, "kubernetes_ca_cert": vault.ca_pem(), "token_reviewer_jwt": "secret",
        "disable_local_ca_jwt": true,
    });
    root.post("auth/k/config", body).await?.done()?;
    let shown = json!({
        "disable_iss_validation": true, "disable_local_ca_jwt": true, "issuer": "",
        "kubernetes_ca_cert": vault.ca_pem(), "kubernetes_host": host, "pem_keys": [], "token_reviewer_jwt_set": true,
        "use_annotations_as_alias_metadata": false,
    });
    root.get("auth/k/config").await?.gives("kubernetes", shown)?;

    let no_keys =
        "exactly one of 'jwt_validation_pubkeys', 'jwks_url', 'jwks_pairs' or 'oidc_discovery_url' must be set";
    root.post("auth/j/config", json!({})).await?.refuses(400, no_keys)?;
    let no_key = "error parsing public key: data does not contain any valid public keys";
    root.post("auth/j/config", json!({ "jwt_validation_pubkeys": "x" })).await?.refuses(400, no_key)?;
    let (_, key) = token_signing_key()?;
    let body = json!({ "jwt_validation_pubkeys": [key], "bound_issuer": "https://nas" });
    root.post("auth/j/config", body).await?.done()?;
    let shown = json!({
        "bound_issuer": "https://nas", "default_role": "", "jwks_ca_pem": "", "jwks_pairs": [], "jwks_url": "",
        "jwt_supported_algs": [], "jwt_validation_pubkeys": [key.trim()], "namespace_in_state": true,
        "oidc_client_id": "", "oidc_discovery_ca_pem": "", "oidc_discovery_url": "", "oidc_response_mode": "",
        "oidc_response_types": [], "provider_config": {}, "unsupported_critical_cert_extensions": [],
    });
    root.get("auth/j/config").await?.gives("jwt", shown)?;
    let unknown = "role \"r\" could not be found";
    let login = json!({ "role": "r", "jwt": "x.y.z" });
    Caller::nobody(vault).post("auth/j/login", login).await?.refuses(400, unknown)?;
    Ok(())
}

pub async fn paths_that_nobody_has_are_unsupported(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    root.post("sys/auth/k", json!({ "type": "kubernetes" })).await?.done()?;
    let unsupported = "1 error occurred:\n\t* unsupported path\n\n";
    for path in ["sys/none", "auth/k/none", "auth/token/none"] {
        root.get(path).await?.refuses(404, unsupported)?;
        Caller::nobody(vault).get(path).await?.refuses(403, "permission denied")?;
    }
    for (method, path) in [("GET", "sys/policies/acl"), ("GET", "auth/token/create"), ("PATCH", "auth/k/role/r")] {
        let refusal = "1 error occurred:\n\t* unsupported operation\n\n";
        root.ask(method, path, Some(json!({}))).await?.refuses(405, refusal)?;
    }
    let answer = vault.raw(None, "GET", "../none", &[], None).await?;
    ensure!(answer.status() == 404 && answer.text().await? == "404 page not found\n");
    Ok(())
}

//! Secrets and ConfigMaps.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testbed::KubernetesApi;

use super::{MERGE, Space, failure, invalid, same};

const KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
    'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

pub async fn strings_of_a_secret_become_data(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let body = json!({"metadata": {"name": "s"}, "data": {"a": "eA==", "b": "eA=="}, "stringData": {"b": "y"}});
    let made = space.made("secrets", body).await?;
    same((&made["data"], &made["type"]), (&json!({"a": "eA==", "b": "eQ=="}), &json!("Opaque")))?;
    ensure!(made.get("stringData").is_none(), "{made}");
    let fields = json!({"f:data": {".": {}, "f:a": {}, "f:b": {}}, "f:type": {}});
    same(&made["metadata"]["managedFields"][0]["fieldsV1"], &fields)?;
    let (status, patched) = space.patch("secrets/s", MERGE, json!({"stringData": {"c": "z"}})).await?;
    same((status, &patched["data"]["c"]), (200, &json!("eg==")))
}

pub async fn data_of_a_secret_is_base64(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    for (data, at) in [("???", 0), ("eA=!", 2), ("eA", 0), ("eHh4e", 4)] {
        let answer = space.post("secrets", json!({"metadata": {"name": "s"}, "data": {"k": data}})).await?;
        let text =
            format!(r#"Secret in version "v1" cannot be handled as a Secret: illegal base64 data at input byte {at}"#);
        same((data, answer), (data, failure(400, "BadRequest", &text, json!(null))))?;
    }
    space.made("secrets", json!({"metadata": {"name": "s"}})).await?;
    let (status, answer) = space.patch("secrets/s", MERGE, json!({"data": {"k": "!"}})).await?;
    let text = answer["message"].as_str().unwrap_or_default();
    ensure!(text.starts_with(r#" "" is invalid: patch: Invalid value: "{"#), "{answer}");
    ensure!(text.ends_with(": illegal base64 data at input byte 0"), "{answer}");
    same(
        (status, &answer["reason"], &answer["details"]["causes"][0]["field"]),
        (422, &json!("Invalid"), &json!("patch")),
    )
}

pub async fn keys_of_data_are_checked(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let why = format!(r#"Invalid value: "a/b": {KEY}"#);
    for (plural, kind, value) in [("secrets", "Secret", "eA=="), ("configmaps", "ConfigMap", "x")] {
        let answer = space.post(plural, json!({"metadata": {"name": "s"}, "data": {"a/b": value}})).await?;
        same(answer, invalid(kind, "s", "FieldValueInvalid", "data[a/b]", &why))?;
    }
    let body = json!({"metadata": {"name": "s"}, "type": "kubernetes.io/tls", "data": {"tls.crt": "eA=="}});
    let wanted = invalid("Secret", "s", "FieldValueRequired", "data[tls.key]", "Required value");
    same(space.post("secrets", body).await?, wanted)
}

pub async fn a_secrets_type_is_for_good(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    space.made("secrets", json!({"metadata": {"name": "s"}})).await?;
    let answer = space.patch("secrets/s", MERGE, json!({"type": "example.com/x"})).await?;
    let why = r#"Invalid value: "example.com/x": field is immutable"#;
    same(answer, invalid("Secret", "s", "FieldValueInvalid", "type", why))
}

pub async fn what_is_immutable_does_not_change(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    for (plural, kind) in [("secrets", "Secret"), ("configmaps", "ConfigMap")] {
        let body = json!({"metadata": {"name": "s"}, "data": {"k": "eA=="}, "immutable": true});
        space.made(plural, body).await?;
        let path = format!("{plural}/s");
        let why = "Forbidden: field is immutable when `immutable` is set";
        for (patch, field) in [(json!({"data": {"k": "eQ=="}}), "data"), (json!({"immutable": false}), "immutable")] {
            let answer = space.patch(&path, MERGE, patch).await?;
            same(answer, invalid(kind, "s", "FieldValueForbidden", field, why))?;
        }
        let (status, _) = space.patch(&path, MERGE, json!({"metadata": {"labels": {"a": "b"}}})).await?;
        same((plural, status, space.delete(&path, None).await?.0), (plural, 200, 200))?;
    }
    Ok(())
}

pub async fn a_config_map_holds_text_and_bytes(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let body = json!({"metadata": {"name": "c"}, "data": {"t": "ü\n"}, "binaryData": {"b": "AAE="}});
    let made = space.made("configmaps", body).await?;
    same((&made["data"], &made["binaryData"]), (&json!({"t": "ü\n"}), &json!({"b": "AAE="})))?;
    let (status, answer) = space.post("configmaps", json!({"metadata": {"name": "d"}, "data": {"t": 1}})).await?;
    let start = r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: "#;
    let text = answer["message"].as_str().unwrap_or_default();
    ensure!(status == 400 && answer["reason"] == "BadRequest" && text.starts_with(start), "{status}: {answer}");
    same(space.get("configmaps/d").await?.1["code"].clone(), Value::from(404))
}

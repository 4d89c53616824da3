//! No key and no token leaves the program but to the two stores: its logs at TRACE and all of its answers
//! are searched for them, in each spelling that a library might give them.

use anyhow::{Context, Result, ensure};
use k8s_openapi::ByteString;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::gate::{review, review_but};
use crate::kubernetes::{CONFIG_MAPS, EVENTS, Kubernetes, SECRETS, status};
use crate::product::{KUBERNETES_TOKEN, Product, SOON, world};
use crate::vault::{JWT, LOGIN, READ, WRITE, errors, tokens, version};
use standin::scripted::Answer;

/// Enough of a secret to be worth finding, and too much to be there by chance.
const PIECE: usize = 24;

/// A secret as text, and as the bytes that text may stand for.
fn spellings(secret: &[u8]) -> Result<Vec<String>> {
    let list = |separator: &str| secret.iter().map(u8::to_string).collect::<Vec<_>>().join(separator);
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let base64 = serde_json::to_value(ByteString(secret.to_vec()))?.as_str().context("no text")?.to_owned();
    let text = String::from_utf8(secret.to_vec()).unwrap_or_default();
    Ok(vec![text, base64, hex.to_uppercase(), hex, list(", "), list(",")])
}

/// The first piece of the secret that the text has in it.
pub fn leak(text: &str, secret: &[u8]) -> Result<Option<String>> {
    let spelt = spellings(secret)?;
    let pieces = spelt.iter().flat_map(|spelling| {
        // A line break, escaped or not, may stand between the lines of PEM.
        spelling.lines().flat_map(|line| line.as_bytes().chunks(PIECE).filter(|piece| piece.len() == PIECE))
    });
    let mut pieces = pieces.map(String::from_utf8_lossy).filter(|piece| !piece.contains("-----"));
    Ok(pieces.find(|piece| text.contains(piece.as_ref())).map(|piece| piece.into_owned()))
}

fn secret_file(kubernetes: &Kubernetes, name: &str, file: &str) -> Result<Vec<u8>> {
    let secret = kubernetes.get(SECRETS, name).with_context(|| format!("no Secret {name}"))?;
    Ok(serde_json::from_value::<ByteString>(secret["data"][file].clone())?.0)
}

/// Everything that must not be seen.
fn secrets(product: &Product) -> Result<Vec<Vec<u8>>> {
    let tokens = tokens(&product.vault);
    ensure!(tokens.len() > 1, "{} logins", product.vault.count(LOGIN));
    let mut secrets: Vec<Vec<u8>> = tokens.into_iter().map(String::into_bytes).collect();
    secrets.extend([JWT.as_bytes().to_vec(), KUBERNETES_TOKEN.as_bytes().to_vec(), ODD_TOKEN.as_bytes().to_vec()]);
    for (name, file) in [("cacerts", "ca-key.pem"), ("istio-ca-gate-tls", "ca.key")] {
        let pem = secret_file(&product.kubernetes, name, file)?;
        secrets.push(PrivateKeyDer::from_pem_slice(&pem)?.secret_der().to_vec());
        secrets.push(pem);
    }
    Ok(secrets)
}

const ODD_TOKEN: &str = "hvs.token-in-an-answer-that-does-not-parse";

#[test]
fn each_spelling_of_a_secret_is_found() -> Result<()> {
    let secret = b"0123456789-abcdefghijklmnopqrstuvwxyz-0123456789";
    for spelling in spellings(secret)? {
        ensure!(leak(&format!("x {spelling} y"), secret)?.is_some(), "{spelling}");
    }
    ensure!(leak("0123456789-abc", secret)?.is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_key_or_token_is_logged_or_answered_even_at_trace() -> Result<()> {
    let (kubernetes, vault) = world().await?;
    // Before there is a serving CA, an answer with one that does not parse.
    let odd = json!({ "data": { "ca.key": 1 }, "metadata": {} });
    kubernetes.server.once(&format!("GET {SECRETS}/istio-ca-gate-tls"), Answer::json(200, &odd));
    vault.once(LOGIN, Answer::json(200, &json!({ "auth": { "client_token": ODD_TOKEN, "lease_duration": "x" } })));
    let flags = ["--role", "bootstrap", "--refresh", "1s", "--retry-max", "100ms", "--log-filter", "trace"];
    let product = Product::start(kubernetes, vault, &flags).await?;
    let Product { vault, kubernetes, process, .. } = &product;
    product.allows(&review("istiod")).await?;
    ensure!(vault.count(WRITE) == 1 && kubernetes.get(CONFIG_MAPS, "istio-ca-gate").is_some());

    faults(&product)?;
    let settled = || async {
        let waiting = vault.waiting() + kubernetes.server.waiting();
        ensure!(waiting == 0, "{waiting} faults have not hit yet");
        Ok(())
    };
    process.until("all faults to hit", SOON, settled).await?;
    product.allows(&review("istiod")).await?;

    let mut seen = String::new();
    for path in ["healthz", "readyz", "fingerprint", "metrics", ""] {
        seen += &product.get(path).await?;
    }
    let client = product.client()?;
    let dry_run = review_but("istiod", json!({ "dryRun": true }));
    for body in [review("istiod"), review("not-gated"), dry_run, Value::Null] {
        seen += &product.post(&client, body.to_string().into()).await?.1;
    }
    ensure!(process.terminate().await?.success());
    seen += &process.log();
    let events = product.kubernetes.all(EVENTS);
    ensure!(events.iter().any(|event| event["reason"] == "GateHeld"), "no Event of the faults: {events:?}");
    seen += &json!(events).to_string();
    for said in ["\"level\":\"DEBUG\"", "VaultUnreachable", "VaultLoginDenied", "KubernetesUnreachable", "RootInvalid"]
    {
        ensure!(seen.contains(said), "no {said} in the log");
    }
    for secret in secrets(&product)? {
        let found = leak(&seen, &secret)?;
        ensure!(found.is_none(), "{found:?} was seen");
    }
    ensure!(!seen.contains("PRIVATE KEY"));
    Ok(())
}

/// Answers with keys and tokens in them that are cut, do not parse, or refuse and repeat them.
fn faults(product: &Product) -> Result<()> {
    let Product { vault, kubernetes, .. } = product;
    let key = String::from_utf8(secret_file(kubernetes, "cacerts", "ca-key.pem")?)?;
    let get = format!("GET {SECRETS}/cacerts");
    let cacerts = kubernetes.get(SECRETS, "cacerts").context("no cacerts")?;
    let whole = Answer::json(200, &cacerts);
    for eighth in 1..8 {
        kubernetes.server.once(&get, whole.clone().until_close().cut(whole.size() * eighth / 8));
        kubernetes.server.once(&get, whole.clone().cut(whole.size() * eighth / 8));
    }
    for odd in [json!({ "ca-key.pem": key }), json!({ "ca-key.pem": { "k": key } }), json!([key]), json!(key)] {
        let mut secret = cacerts.clone();
        secret["data"] = odd;
        kubernetes.server.once(&get, Answer::json(200, &secret));
    }
    let repeats = json!({ "kind": "Status", "status": "Failure", "message": key, "reason": "Invalid", "code": 422 });
    kubernetes.server.once(&get, Answer::json(422, &repeats));
    kubernetes.server.once(&get, Answer::new(500, "text/plain", key.clone()));
    kubernetes.server.once(&get, status(403, "Forbidden"));

    let read = vault.of(WRITE).first().map(|write| write.json()["data"].clone()).unwrap_or_default();
    let record = version(1, read.as_object().context("no record")?);
    for eighth in 1..8 {
        vault.once(READ, record.clone().until_close().cut(record.size() * eighth / 8));
    }
    for odd in [json!({ "key.pem": [key] }), json!({ "key.pem": key, "root-cert.pem": key }), json!({ "x": key })] {
        vault.once(READ, version(1, odd.as_object().context("an object")?));
    }
    for status in [400, 403, 404, 405, 500, 503] {
        vault.once(READ, errors(status, &[&key]));
    }
    vault.once(READ, Answer::new(200, "application/json", key.clone()));
    vault.once(READ, Answer::json(200, &json!({ "data": key })));
    let token = tokens(vault).pop().context("no login")?;
    vault.once(READ, Answer::html(307).header("location", &format!("/{token}")));
    Ok(())
}

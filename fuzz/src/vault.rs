//! Vault's answers: a line with what was asked and the status, then the body.

use std::sync::LazyLock;

use gate_vault::samples::{Meaning, meaning};
use istio_ca_gate::plan::Stored;
use istio_ca_gate::store::Created;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

pub(crate) const WORDS: &[&str] = &[
    "read 200\n",
    "read 404\n",
    "read 403\n",
    "read 500\n",
    "read 400\n",
    "read 503\n",
    "write 200\n",
    "write 204\n",
    "write 400\n",
    "write 403\n",
    "health 200\n",
    "health 429\n",
    "health 473\n",
    "health 503\n",
    "login 200\n",
    "login 403\n",
    "mount 200\n",
    "mount 403\n",
    "issuer 200\n",
    "signer 200\n",
    "signer 400\n",
    "signer 500\n",
    "made 200\n",
    "made 400\n",
    "told 429\n",
    "told 301\n",
    "capabilities 200\n",
    "end 200\n",
    "errors",
    "data",
    "metadata",
    "version",
    "deletion_time",
    "destroyed",
    "auth",
    "client_token",
    "lease_duration",
    "type",
    "options",
    "kv",
    "path",
    "warnings",
    "certificate",
    "initialized",
    "sealed",
    "standby",
    "cluster_id",
    "server_time_utc",
    "root-cert.pem",
    "cert-chain.pem",
    "key.pem",
    "ca-key.pem",
    "issuer",
    "rotation",
    "chain.pem",
    "permission denied",
    "check-and-set parameter did not match",
    "invalid token",
    "sealed",
    "no handler for route",
    "pgrading",
    "-----BEGIN PRIVATE KEY-----",
    "hvs.CAESIJ",
    "secret/",
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg",
    "2026-11-28T03:22:16.123Z",
    "{\"errors\":[]}",
    "{\"data\":null}",
];

/// What stands for a key: no piece of it is repeated that a key could be told by.
const KEY: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg";

/// The moment of all inputs: 2027-01-01.
static NOW: LazyLock<Timestamp> = LazyLock::new(|| Timestamp::from_second(1_798_761_600).unwrap_or(Timestamp::MIN));

pub(crate) fn run(input: &[u8]) {
    let mut parts = input.splitn(2, |byte| *byte == b'\n');
    let (Some(head), Some(body)) = (parts.next().and_then(|head| std::str::from_utf8(head).ok()), parts.next()) else {
        return;
    };
    let Some((question, status)) = head.split_once(' ') else { return };
    let Ok(status) = status.parse() else { return };
    let came = match meaning(question, status, body, *NOW) {
        None => return,
        Some(Err(refused)) => return fit(&refused.held.sentence()),
        Some(Ok(came)) => came,
    };
    let value: Option<Value> = serde_json::from_slice(body).ok();
    match came {
        Meaning::Read(stored) => read(status, value, stored.as_ref()),
        Meaning::Written(created) => written(status, &created),
        Meaning::Health(Some(health)) => {
            fit(&format!("{} {:?}", health.version, health.cluster_name));
            assert!(!health.node.decides() || matches!(health.status, 200 | 429), "{health:?}");
        }
        Meaning::Certificate(pem) => {
            assert!(pem.matches("-----BEGIN").count() == 1 && pem.ends_with("-----\n"), "{pem}");
        }
        Meaning::Health(None) | Meaning::Told => {}
    }
}

/// What may start a bootstrap, or end all trust in a root, is what Vault says and nothing else.
fn read(status: u16, value: Option<Value>, stored: Option<&Stored>) {
    let value = value.unwrap_or_default();
    let version = value.pointer("/data/metadata/version").and_then(Value::as_u64);
    let data = value.pointer("/data/data").filter(|data| data.is_object());
    match stored {
        None | Some(Stored::Absent) => assert_eq!((status, &value), (404, &json!({ "errors": [] }))),
        Some(Stored::Deleted { version: told }) => {
            assert!(version == Some(*told) && (status == 404 || status == 200 && data.is_none()), "{status} {value}");
        }
        Some(Stored::Sound { version: told, sound }) => {
            assert!(status == 200 && version == Some(*told) && data.is_some(), "{status} {value}");
            let text = |key| value.pointer("/data/data").and_then(|data| data.get(key)?.as_str());
            assert_eq!(Some(sound.bundle.root_cert.as_slice()), text("root-cert.pem").map(str::as_bytes));
        }
        Some(Stored::Unsound { version: told, flaw }) => {
            assert!(status == 200 && version == Some(*told) && data.is_some(), "{status} {value}");
            fit(&flaw.to_string());
            assert!(flaw.remedy().is_empty() || !flaw.remedy().contains(char::is_control));
        }
        Some(Stored::Signing { version: told, record }) => {
            assert!(status == 200 && version == Some(*told) && !record.roots().is_empty(), "{status} {value}");
        }
    }
}

fn written(status: u16, created: &Created) {
    match created {
        Created::Applied => assert!(matches!(status, 200 | 204), "{status}"),
        Created::Lost => assert_eq!(status, 400),
        Created::Forbidden(held) => {
            assert_eq!(status, 403);
            fit(&held.sentence());
        }
        Created::Unclear(refused) => fit(&refused.held.sentence()),
    }
}

/// Fit to be read by people, whatever Vault says.
fn fit(text: &str) {
    assert!(!text.is_empty() && !text.contains(char::is_control) && text.len() <= 2000, "{text:?}");
    let pieces = KEY.as_bytes().windows(40).filter_map(|piece| std::str::from_utf8(piece).ok());
    for secret in pieces.chain(["-----BEGIN", "hvs.CAESIJ"]) {
        assert!(!text.contains(secret), "{secret} in {text:?}");
    }
}

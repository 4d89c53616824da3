//! A folder that a run on real components left behind: audit logs of its servers, and the logs of its gates.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::history::{History, Line, Said};
use crate::scan::{Scanner, Secret};
use crate::{kubernetes_audit, vault_audit};

/// The accounts of the gate and of the Jobs of old.
const ACCOUNTS: [&str; 3] = ["istio-ca-gate", "istio-ca-bootstrap", "istio-ca-sync"];

/// Keys by the names that they have in Secrets and records.
const KEYS: [&str; 4] = ["ca-key.pem", "key.pem", "ca.key", "tls.key"];

/// Certificates, likewise.
const CERTIFICATES: [&str; 5] = ["root-cert.pem", "cert-chain.pem", "ca-cert.pem", "ca.crt", "tls.crt"];

/// What the folder tells, and what of it is told by nobody but the observer: lines of a run that it has made itself.
pub fn history(folder: &Path, own: Vec<Line>) -> Result<History> {
    let mut lines = own;
    let (mut secrets, mut public) = (Vec::new(), Vec::new());
    for path in of(folder, "vault-audit")? {
        let log = text(&path)?;
        lines.extend(vault_audit::read(&name(&path), &log));
        for entry in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let token = entry["response"]["auth"]["client_token"].as_str();
            secrets.extend(token.map(|token| Secret::text("a token of Vault", token)));
            for record in [&entry["request"]["data"]["data"], &entry["response"]["data"]["data"]] {
                keep(record, |value| Some(value.to_owned()), &mut secrets, &mut public);
            }
        }
    }
    for path in of(folder, "kubernetes-audit")? {
        let log = text(&path)?;
        lines.extend(kubernetes_audit::read(&name(&path), &log, &ACCOUNTS));
        for event in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let decoded = |value: &str| Some(String::from_utf8_lossy(&STANDARD.decode(value).ok()?).into_owned());
            keep(&event["responseObject"]["data"], decoded, &mut secrets, &mut public);
        }
    }
    let scanner = Scanner::new(&secrets, &public)?;
    let at = lines.iter().map(|line| line.at).max().unwrap_or_default();
    for path in of(folder, "gate-log")? {
        let (bytes, found) = scanner.file(&path)?;
        let (output, found) = (name(&path), found.into_iter().collect());
        lines.push(Line { at, said: Said::Scanned { output, bytes, found } });
    }
    let began = lines.iter().map(|line| line.at).filter(|at| *at > 0).min().unwrap_or_default();
    lines.iter_mut().for_each(|line| line.at = line.at.saturating_sub(began));
    lines.sort_by_key(|line| line.at);
    Ok(History(lines))
}

fn keep(data: &Value, decoded: impl Fn(&str) -> Option<String>, secrets: &mut Vec<Secret>, public: &mut Vec<String>) {
    let value = |name: &&str| decoded(data[*name].as_str()?);
    secrets.extend(KEYS.iter().filter_map(value).map(|pem| Secret::key("a private key", &pem)));
    public.extend(CERTIFICATES.iter().filter_map(value));
}

fn of(folder: &Path, kind: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths: Vec<_> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.retain(|path| path.extension() == Some(OsStr::new(kind)));
    paths.sort();
    Ok(paths)
}

/// The first part of the file's name, and the number that tells it from others of that name.
fn name(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

fn text(path: &Path) -> Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path).with_context(|| path.display().to_string())?).into_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn left_behind(log: &str) -> Result<History> {
        let folder = std::env::temp_dir().join(format!("evidence-{}-{}", std::process::id(), log.len()));
        fs::create_dir_all(&folder)?;
        let key = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(KEY));
        let record = json!({ "data": { "key.pem": key }, "options": { "cas": 0 } });
        let write = json!({
            "time": "2026-11-28T10:00:00Z", "type": "response", "auth": { "policies": ["istio-ca-bootstrap"] },
            "request": { "operation": "create", "path": "secret/data/istio/ca", "data": record },
            "response": { "data": { "version": 1 } },
        });
        fs::write(folder.join("vault.1-0.vault-audit"), write.to_string())?;
        fs::write(folder.join("gate.1-1.gate-log"), log)?;
        let history = history(&folder, Vec::new());
        fs::remove_dir_all(&folder)?;
        history
    }

    const KEY: &[u8] = b"the quick brown fox jumps over 13 lazy dogs, and none of them is a key";

    #[test]
    fn writes_and_what_was_searched_are_told() -> Result<()> {
        let History(lines) = left_behind("nothing of it")?;
        assert!(lines.iter().any(|line| matches!(line.said, Said::Record { version: Some(1), .. })), "{lines:?}");
        let clean = |line: &Line| matches!(&line.said, Said::Scanned { bytes: 13, found, .. } if found.is_empty());
        assert!(lines.iter().any(clean), "{lines:?}");
        Ok(())
    }

    #[test]
    fn a_key_of_the_record_is_found_in_a_gates_log() -> Result<()> {
        let History(lines) = left_behind(&format!("x {} y", STANDARD.encode(KEY)))?;
        let leak = |line: &Line| matches!(&line.said, Said::Scanned { found, .. } if !found.is_empty());
        assert!(lines.iter().any(leak), "{lines:?}");
        Ok(())
    }
}

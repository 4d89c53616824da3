//! What is answered whether sealed or not: health, and the seal itself.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::asked;
use super::moment::Moment;
use super::reply::{Refusal, Reply};
use super::state::State;
use crate::wire::Request;

const VERSION: &str = "1.21.1";

/// Shorter keys are none, longer ones neither.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 16..=33;

/// The seal, with one key, and who this Vault is.
#[derive(Clone, Debug)]
pub(super) struct Seal {
    pub(super) sealed: bool,
    /// In hex.
    key: String,
    cluster_id: String,
}

impl Seal {
    pub(super) fn new(cluster_id: &str, key: &str) -> Self {
        Self { sealed: false, key: key.to_owned(), cluster_id: cluster_id.to_owned() }
    }

    /// The answer of `sys/health` when sealed, or not.
    pub(super) fn health(&self, now: Timestamp, sealed: bool) -> Reply {
        let mode = if sealed { "unknown" } else { "disabled" };
        let mut body = json!({
            "clock_skew_ms": 0,
            "echo_duration_ms": 0,
            "enterprise": false,
            "initialized": true,
            "performance_standby": false,
            "replication_dr_mode": mode,
            "replication_performance_mode": mode,
            "replication_primary_canary_age_ms": 0,
            "sealed": sealed,
            "server_time_utc": now.as_second(),
            "standby": sealed,
            "version": VERSION,
        });
        self.name_cluster(&mut body, sealed);
        Reply::json(if sealed { 503 } else { 200 }, body)
    }

    /// The answer of `sys/seal-status` when sealed, or not.
    pub(super) fn status(&self, sealed: bool) -> Reply {
        let mut body = json!({
            "build_date": "2025-11-18T13:04:32Z",
            "initialized": true,
            "migration": false,
            "n": 1,
            "nonce": "",
            "progress": 0,
            "recovery_seal": false,
            "sealed": sealed,
            "storage_type": "inmem",
            "t": 1,
            "type": "shamir",
            "version": VERSION,
        });
        self.name_cluster(&mut body, sealed);
        Reply::json(200, body)
    }

    /// A sealed Vault does not know which it is.
    fn name_cluster(&self, body: &mut Value, sealed: bool) {
        if !sealed {
            body["cluster_id"] = json!(self.cluster_id);
            body["cluster_name"] = json!(format!("vault-cluster-{:.8}", self.cluster_id));
        }
    }

    fn unseal(&mut self, given: &str) -> Result<(), Refusal> {
        if given.is_empty() {
            return Err(Refusal::bad("'key' must be specified in request body as JSON, or 'reset' set to true"));
        }
        let key = decode(given).ok_or_else(|| Refusal::bad("'key' must be a valid hex or base64 string"))?;
        if self.sealed && key.len() < *KEY_BYTES.start() {
            return Err(Refusal::bad("invalid key: key is shorter than minimum 16 bytes"));
        }
        if self.sealed && Some(key) != unhex(&self.key) {
            return Err(Refusal::bad(
                "unable to retrieve stored keys: invalid key: failed to decrypt keys from storage: error decrypting \
                 seal wrapped value\nerror decrypting using seal shamir: cipher: message authentication failed",
            ));
        }
        self.sealed = false;
        Ok(())
    }
}

/// Hex, unless that would be no key; then base64.
fn decode(text: &str) -> Option<Vec<u8>> {
    unhex(text).filter(|key| KEY_BYTES.contains(&key.len())).or_else(|| STANDARD.decode(text).ok())
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let byte = |at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(byte).collect()
}

/// The answer of `sys/leader`: of one server there is none, sealed or not.
pub(super) fn leader() -> Reply {
    let body = json!({
        "active_time": "0001-01-01T00:00:00Z",
        "ha_enabled": false,
        "is_self": false,
        "leader_address": "",
        "leader_cluster_address": "",
        "performance_standby": false,
        "performance_standby_last_remote_wal": 0,
    });
    Reply::json(200, body)
}

impl State {
    /// Requests that do not take the usual way; `None` for the others.
    pub(super) fn about_the_seal(
        &mut self,
        moment: &Moment,
        request: &Request,
        path: &str,
    ) -> Option<Result<Reply, Refusal>> {
        let (method, sealed) = (request.method.as_str(), self.seal.sealed);
        Some(match (path, method) {
            ("sys/health", "GET" | "HEAD") => Ok(self.seal.health(moment.now, sealed)),
            ("sys/seal-status", "GET") => Ok(self.seal.status(sealed)),
            ("sys/leader", "GET") => Ok(leader()),
            ("sys/unseal", "PUT" | "POST") => self.unseal(request),
            ("sys/seal", "PUT" | "POST") => self.seal(moment, request),
            ("sys/health" | "sys/leader" | "sys/seal-status" | "sys/unseal" | "sys/seal", _) => {
                Err(Refusal::silent(405))
            }
            _ => return None,
        })
    }

    fn unseal(&mut self, request: &Request) -> Result<Reply, Refusal> {
        let asked = asked::read(request, "sys/unseal")?;
        self.seal.unseal(asked.text("key"))?;
        Ok(self.seal.status(self.seal.sealed))
    }

    fn seal(&mut self, moment: &Moment, request: &Request) -> Result<Reply, Refusal> {
        let asked = asked::read(request, "sys/seal")?;
        if !self.seal.sealed {
            let (acl, _) = self.caller(moment, &asked.token)?;
            if !acl.allows(&asked) || !acl.has_sudo(&asked.path) {
                return Err(Refusal::denied());
            }
            self.seal.sealed = true;
        }
        Ok(Reply::done())
    }
}

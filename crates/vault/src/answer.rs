//! What Vault's answers mean. Pure; every status and body that Vault is known to give has its own case.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::health;
use super::transport::Reply;
use super::{Refused, Settings};
use gate_core::plan::{self, Stored};
use gate_core::reason::{ByItself, CA_AS_SERVER, Held, Reason, foreign_text};
use gate_core::store::Created;

const NEXT: &str = "check the address, the network and TLS trust";

/// What a standby node says that knows of no active one.
const NO_ACTIVE: &str = "active cluster node not found";

/// What addresses say and TLS finds, where something else is to be done about it.
const NEXT_OF: [(&str, &str); 5] = [
    (NO_ACTIVE, "look at the log of its nodes; more than half of them must run, unsealed"),
    (
        "failed to determine alias name",
        "what is mounted there takes other logins: set --vault-auth-mount to a kubernetes or jwt mount",
    ),
    ("namespace not found", "set --vault-namespace (VAULT_NAMESPACE) to the one that has the record"),
    (
        CA_AS_SERVER,
        "make one that is no CA, with `-addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:NAME` to `openssl req -x509`",
    ),
    ("UnknownIssuer", "give the CA of Vault's certificate by --vault-ca-cert (VAULT_CACERT)"),
];

/// What a read found.
pub(super) enum Read {
    /// A version, current or gone.
    Stored(Stored),
    /// Vault's 404 without metadata. Only on KV version 2 does it mean what it says.
    NeverWritten,
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<String>,
}

#[derive(Deserialize)]
struct Record {
    data: RecordData,
}

#[derive(Deserialize)]
struct RecordData {
    data: Option<Map<String, Value>>,
    metadata: Metadata,
}

/// What KV version 1 answers.
#[derive(Deserialize)]
struct Unversioned {
    #[serde(rename = "data")]
    _data: Map<String, Value>,
}

#[derive(Deserialize)]
struct Metadata {
    version: u64,
}

/// The texts of a refusal, if the body is Vault's error shape.
pub(super) fn errors(reply: &Reply) -> Option<Vec<String>> {
    serde_json::from_slice::<Errors>(&reply.body).ok().map(|body| body.errors)
}

/// No use can be made of this address.
pub(super) fn unreachable(address: &str, what: &str) -> Held {
    let next = NEXT_OF.iter().find_map(|(text, next)| what.contains(text).then_some(*next));
    let held = unreachable_but(address, what, next.unwrap_or(NEXT));
    if what.contains(NO_ACTIVE) {
        Held { what: format!("{}: Vault has no active node", held.what), ..held }
    } else {
        held
    }
}

/// The same, where it is known what to do about it.
pub(super) fn unreachable_but(address: &str, what: &str, next: &str) -> Held {
    let what = format!("{address} does not answer as Vault should ({what})");
    Held::new(Reason::VaultUnreachable, what, next, ByItself::TriedAgain)
}

/// It says something that would end all trust in the root, and another address that may know better is silent.
pub(super) fn alone(address: &str, silent: &Held) -> Held {
    let reason = if silent.reason == Reason::VaultSealed { silent.reason } else { Reason::VaultUnreachable };
    let what = format!(
        "what {address} says of the root is not believed alone, while another address is silent: {}",
        silent.what
    );
    Held { reason, what, ..silent.clone() }
}

/// The same, and no node that decides has said it.
pub(super) fn unconfirmed(address: &str) -> Held {
    unreachable_but(
        address,
        "it does not have the root that this cluster trusts, and may lag behind the active node",
        "configure the active node's address, or those of all nodes",
    )
}

/// Lets answers through that are Vault's own, and names the others.
pub(super) fn told(address: &str, reply: Reply) -> Result<Reply, Refused> {
    let said = errors(&reply).unwrap_or_default();
    let says = |text: &str| said.iter().any(|said| said.contains(text));
    let held = match reply.status {
        429 => Held::new(
            Reason::VaultRateLimited,
            format!("{address} asks for fewer requests (429)"),
            "raise its rate limit quota",
            ByItself::TriedWhenVaultAllows,
        ),
        500..=599 if says("sealed") || says("not initialized") => health::sealed(address),
        status @ 500..=599 => {
            unreachable(address, format!("status {status} {}", foreign_text(&said.join("; "))).trim_end())
        }
        status @ (100..=199 | 300..=399) => unreachable(
            address,
            &format!("status {status}: a redirect is not followed, configure the active node's address"),
        ),
        _ => return Ok(reply),
    };
    let retry_after = reply.retry_after.filter(|_| reply.status == 429);
    Err(Refused { held, retry_after, is_answer: false })
}

/// Of several addresses without an answer, all, in the order of the configuration. One that is sealed
/// gives the code: it is a Vault that is there.
pub(super) fn none_answered(mut silent: Vec<Refused>) -> Refused {
    let sealed = silent.iter().any(|refused| refused.held.reason == Reason::VaultSealed);
    let reason = if sealed { Reason::VaultSealed } else { Reason::VaultUnreachable };
    let Some(Refused { held: last, .. }) = silent.pop() else {
        return Held::without_next(reason, "no address of Vault is configured", ByItself::Unsaid).into();
    };
    let mut what = String::new();
    for Refused { held, .. } in silent {
        // The next step is the same for each: once is enough.
        let is_usual = held.next.as_deref() == Some(NEXT);
        what.push_str(&if is_usual { held.cause() } else { held.without_promise().sentence() });
        what.push_str("; and ");
    }
    what.push_str(&last.what);
    Held { reason, what, ..last }.into()
}

/// The meaning of an answer to the read of the record.
pub(super) fn read(reply: &Reply, settings: &Settings, now: Timestamp) -> Result<Read, Refused> {
    let record = settings.record();
    match reply.status {
        200 => match serde_json::from_slice::<Record>(&reply.body) {
            Ok(Record { data: RecordData { data: Some(data), metadata } }) => {
                Ok(Read::Stored(plan::stored(metadata.version, &data, now)))
            }
            Ok(Record { data: RecordData { data: None, metadata } }) => {
                Ok(Read::Stored(Stored::Deleted { version: metadata.version }))
            }
            Err(_) if serde_json::from_slice::<Unversioned>(&reply.body).is_ok() => {
                Err(mount_invalid(settings, "its answer has no version metadata").into())
            }
            Err(_) => Err(unreachable(&reply.address, "an answer that is not Vault's").into()),
        },
        404 => not_found(reply, settings),
        403 if is_no_token(reply) => Err(no_token().into()),
        403 => Err(permission_denied(
            format!("Vault does not let role {} read {record}", settings.role),
            format!("give its policy `read` on {}/data/{}", settings.mount, settings.path),
        )
        .into()),
        400 if errors(reply).is_some_and(|said| said.iter().any(|said| said.contains("pgrading"))) => {
            Err(mount_invalid(settings, "it is being upgraded to version 2").into())
        }
        status => {
            let said = errors(reply).unwrap_or_default().join("; ");
            let what = format!("reading {record} gave status {status} {}", foreign_text(&said));
            Err(unreachable(&reply.address, what.trim_end()).into())
        }
    }
}

/// When the version was written that Vault answered with, and when Vault deletes it by itself, by `delete_version_after`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    pub(super) written_at: Option<Timestamp>,
    pub(super) deleted_at: Option<Timestamp>,
}

pub(super) fn times(reply: &Reply) -> Times {
    // Without the record: its key need not be copied.
    #[derive(Deserialize)]
    struct Body {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        #[serde(default)]
        created_time: String,
        deletion_time: String,
    }
    let Ok(Body { data: Data { metadata } }) = serde_json::from_slice::<Body>(&reply.body) else {
        return Times::default();
    };
    Times { written_at: metadata.created_time.parse().ok(), deleted_at: metadata.deletion_time.parse().ok() }
}

/// Three different things are a 404, and only one of them may start a bootstrap.
fn not_found(reply: &Reply, settings: &Settings) -> Result<Read, Refused> {
    // Deleted or destroyed: no `errors`, but the metadata of the version that was there.
    if let Ok(Record { data }) = serde_json::from_slice::<Record>(&reply.body) {
        return Ok(Read::Stored(Stored::Deleted { version: data.metadata.version }));
    }
    match errors(reply) {
        Some(said) if said.is_empty() && is_vaults_never(&reply.body) => Ok(Read::NeverWritten),
        Some(said) if said.iter().any(|said| said.contains("no handler for route")) => {
            Err(mount_invalid(settings, "nothing is mounted there").into())
        }
        _ => Err(unreachable(&reply.address, "a 404 that is not Vault's").into()),
    }
}

/// To the letter: a gateway's 404 may have an empty list of errors, too.
fn is_vaults_never(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|body| body == json!({ "errors": [] }))
}

#[derive(Deserialize)]
struct Mount {
    data: MountData,
}

#[derive(Deserialize)]
struct MountData {
    path: Option<String>,
    #[serde(rename = "type")]
    kind: String,
    options: Option<Map<String, Value>>,
}

/// The meaning of `sys/internal/ui/mounts/<mount>`.
pub(super) fn preflight(reply: &Reply, settings: &Settings) -> Result<(), Refused> {
    let mount = &settings.mount;
    match reply.status {
        200 => {}
        403 => {
            return Err(permission_denied(
                format!("Vault does not tell role {} what is mounted at {mount}", settings.role),
                format!("its policy needs a right below {mount}/, or there is no such mount"),
            )
            .into());
        }
        status => {
            return Err(unreachable(&reply.address, &format!("asking for mount {mount} gave status {status}")).into());
        }
    }
    let Ok(Mount { data }) = serde_json::from_slice(&reply.body) else {
        return Err(mount_invalid(settings, "Vault does not tell its type").into());
    };
    // Asked for a path inside of a mount, Vault tells of that mount.
    if data.path.is_some_and(|path| path.trim_matches('/') != mount) {
        return Err(mount_invalid(settings, "nothing is mounted there").into());
    }
    let version = data.options.as_ref().and_then(|options| options.get("version")).and_then(Value::as_str);
    match (data.kind.as_str(), version) {
        ("kv", Some("2")) => Ok(()),
        ("kv", _) => Err(mount_invalid(settings, "it is KV version 1, which has no check-and-set").into()),
        (kind, _) => Err(mount_invalid(settings, &format!("it is of type {}", foreign_text(kind))).into()),
    }
}

/// The meaning of an answer to the `cas=0` write.
pub(super) fn written(reply: &Reply, settings: &Settings) -> Created {
    let said = errors(reply).unwrap_or_default();
    match reply.status {
        200 | 204 => Created::Applied,
        400 if said.iter().any(|said| said.contains("check-and-set")) => Created::Lost,
        403 => Created::Forbidden(permission_denied(
            format!("Vault does not let role {} create {}", settings.role, settings.record()),
            format!("give its policy `create` and `read` on {}/data/{}", settings.mount, settings.path),
        )),
        status => {
            let what = format!("writing {} gave status {status} {}", settings.record(), foreign_text(&said.join("; ")));
            Created::Unclear(unreachable(&reply.address, what.trim_end()).into())
        }
    }
}

/// It does not.
pub(super) fn no_token() -> Held {
    permission_denied(
        "Vault does not know the token that it was asked with (invalid token)",
        "it has ended or was revoked; set another VAULT_TOKEN, or let the gate log in",
    )
}

/// Whether Vault says that it does not know the token at all.
pub(super) fn is_no_token(reply: &Reply) -> bool {
    errors(reply).is_some_and(|said| said.iter().any(|said| said.contains("invalid token")))
}

/// What `sys/capabilities-self` tells, by path. `None`: the token may not ask.
pub(super) fn capabilities(reply: &Reply) -> Option<BTreeMap<String, Vec<String>>> {
    #[derive(Deserialize)]
    struct Body {
        data: BTreeMap<String, Value>,
    }
    let Body { data } = serde_json::from_slice(&reply.body).ok().filter(|_| reply.status == 200)?;
    // Beside the paths, it tells of the first one once more.
    Some(data.into_iter().map(|(path, told)| (path, serde_json::from_value(told).unwrap_or_default())).collect())
}

/// The write of a first version is refused although the policy allows it.
pub(super) fn metadata_stands(settings: &Settings) -> Held {
    let Settings { mount, path, .. } = settings;
    let what = format!("Vault shows no version of {mount}/{path} and yet refuses to create one, which this role may");
    permission_denied(
        what,
        format!(
            "metadata stands there. Look at `vault kv metadata get -mount={mount} {path}`: if current_version is 0, take it away with `vault kv metadata delete -mount={mount} {path}`; else there was a root: bring it back from a backup, or with `istio-ca-gate adopt`"
        ),
    )
}

fn mount_invalid(settings: &Settings, what: &str) -> Held {
    Held::new(
        Reason::VaultMountInvalid,
        format!("{}/ in Vault cannot be used ({what})", settings.mount),
        format!(
            "enable KV version 2 there (`vault secrets enable -path={} -version=2 kv`), or set --vault-mount",
            settings.mount
        ),
        ByItself::Unsaid,
    )
}

fn permission_denied(what: impl Into<String>, next: impl Into<String>) -> Held {
    Held::new(Reason::VaultPermissionDenied, what, next, ByItself::Unsaid)
}

#[cfg(test)]
mod tests;

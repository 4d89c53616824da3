//! What tests of answers and logins have in common, and the meaning of any answer, for who makes them up.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::answer::{self, Read};
use super::transport::Reply;
use super::{Created, Health, Refused, Settings, Stored, health, login, own_token, pki};

/// What an answer comes to.
pub enum Meaning {
    /// What the record is; `None`: it was never written.
    Read(Option<Stored>),
    /// How a write of the first version ended.
    Written(Created),
    /// What an address says of itself; `None`: it is no Vault.
    Health(Option<Health>),
    /// A certificate.
    Certificate(String),
    /// No more than that it is no refusal.
    Told,
}

/// The meaning of an answer to one of the questions that are put to Vault. `None`: there is no such question.
///
/// # Errors
/// The refusal that it is.
pub fn meaning(question: &str, status: u16, body: &[u8], now: Timestamp) -> Option<Result<Meaning, Refused>> {
    let (settings, reply) = (settings(), reply_of(status, body));
    Some(match question {
        "told" => answer::told(&reply.address.clone(), reply).map(|_| Meaning::Told),
        "read" => answer::read(&reply, &settings, now).map(|read| {
            Meaning::Read(match read {
                Read::Stored(stored) => Some(stored),
                Read::NeverWritten => None,
            })
        }),
        "end" => {
            let (_, _) = (answer::times(&reply), own_token::end(&reply));
            Ok(Meaning::Told)
        }
        "write" => Ok(Meaning::Written(answer::written(&reply, &settings))),
        "mount" => answer::preflight(&reply, &settings).map(|()| Meaning::Told),
        "capabilities" => {
            answer::capabilities(&reply);
            Ok(Meaning::Told)
        }
        "health" => Ok(Meaning::Health(health::health(&reply, now))),
        "login" => login::session(&reply, &settings).map(|_| {
            login::policies(&reply);
            Meaning::Told
        }),
        question => {
            let told = |certificate: Option<String>| certificate.map_or(Meaning::Told, Meaning::Certificate);
            return pki::samples::meaning(question, &reply).map(|read| read.map(told));
        }
    })
}

/// The NAS's.
pub(super) fn settings() -> Settings {
    Settings {
        addresses: vec!["https://vault.example:8200".parse().unwrap()],
        gone: Vec::new(),
        ca_file: None,
        namespace: None,
        auth_mount: "kubernetes-nas".to_owned(),
        role: "istio-ca-sync".to_owned(),
        jwt_files: Vec::new(),
        token: None,
        mount: "secret".to_owned(),
        path: "istio/ca".to_owned(),
        pki_mount: Some("pki-mesh".to_owned()),
        timeout: Duration::from_secs(3),
    }
}

/// An answer of Vault's.
#[cfg(test)]
pub(super) fn reply(status: u16, body: &str) -> Reply {
    reply_of(status, body.as_bytes())
}

fn reply_of(status: u16, body: &[u8]) -> Reply {
    Reply {
        address: "https://vault.example".to_owned(),
        status,
        retry_after: None,
        date: None,
        certificate: None,
        body: Zeroizing::new(body.to_vec()),
    }
}

//! What changes of a root are decided on and written to: the record with all its data, and what the clusters attest to.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::transport::Reply;
use super::{Found, Plain, Refused, Vault, Way, answer};
use gate_core::attests::{AttestedAt, Attests};
use gate_core::ca::record::SigningRecord;
use gate_core::cluster::Write;
use gate_core::life::attestation::{Attestation, InvalidAttestation};
use gate_core::life::audience::Heard;
use gate_core::plan::Stored;
use gate_core::reason::{ByItself, Held, Reason};
use gate_core::skew::Ahead;

/// The record and the attestations at one moment.
#[derive(Clone, Debug)]
pub struct Life {
    /// The record's data, what is not known included.
    pub data: Map<String, Value>,
    /// The same, read and checked.
    pub record: SigningRecord,
    /// Its version: what is decided on it is written over it alone.
    pub version: u64,
    /// What the clusters say.
    pub heard: Heard,
    /// The time by Vault's clock.
    pub now: Timestamp,
    at: usize,
}

/// How a write with check-and-set ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// As this version.
    Applied(u64),
    /// Somebody else has written meanwhile.
    Lost,
}

/// Where an attestation was read, and as which version.
#[derive(Clone, Copy, Debug)]
pub struct AttestedOver {
    version: u64,
    at: usize,
}

#[derive(Deserialize)]
struct Versioned {
    data: VersionedData,
}

#[derive(Deserialize)]
struct VersionedData {
    data: Option<Map<String, Value>>,
    metadata: Version,
}

#[derive(Deserialize)]
struct Version {
    version: u64,
}

#[derive(Deserialize)]
struct Made {
    data: Version,
}

#[derive(Deserialize)]
struct Listed {
    data: Keys,
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<String>,
}

impl Vault {
    /// Reads the record, then the attestations: what is decided on both is written only if the record is still the same.
    ///
    /// # Errors
    /// Why no change of a root can be decided on.
    pub async fn read_life(&mut self, now: Timestamp) -> Result<Life, Refused> {
        let (found, reply) = self.read_whole(now).await?;
        Ahead { vault: found.ahead, api: None }.known()?;
        let now = found.by_its_clock(now);
        let Stored::Signing { version, record } = &found.stored else { return Err(no_signing(&found.stored).into()) };
        let at = found.place.at;
        let whole = serde_json::from_slice::<Versioned>(&reply.body).ok();
        let Some(data) = whole.and_then(|whole| whole.data.data) else { return Err(odd(&reply)) };
        let heard = self.heard(&found).await?;
        Ok(Life { data, record: SigningRecord::clone(record), version: *version, heard, now, at })
    }

    /// What the clusters say beside this record.
    ///
    /// # Errors
    /// If that cannot be told.
    pub async fn heard(&mut self, found: &Found) -> Result<Heard, Refused> {
        self.read_at = Some(found.place.at);
        self.hear(found.place.at).await
    }

    async fn hear(&mut self, at: usize) -> Result<Heard, Refused> {
        let path = format!("{}/metadata/{}", self.settings.mount, self.clusters());
        let reply = self.request(at, &Plain::list(path)).await?;
        let names = match reply.status {
            200 => serde_json::from_slice::<Listed>(&reply.body).map_err(|_| odd(&reply))?.data.keys,
            404 => Vec::new(),
            _ => return Err(self.denied(&reply, "list", &self.clusters())),
        };
        let mut heard = Heard::new();
        // What is below is none of ours.
        for name in names.into_iter().filter(|name| !name.ends_with('/')) {
            let (data, _) = self.versioned(at, &self.attestation_path(&name)).await?;
            let read = match data {
                Some(data) => Attestation::parse(&name, &data),
                None => Err(InvalidAttestation("the whole")),
            };
            heard.insert(name, read);
        }
        Ok(heard)
    }

    /// Writes the record over the version that was read.
    ///
    /// # Errors
    /// If it is not known to be written.
    pub async fn write_life(&mut self, over: &Life, data: Map<String, Value>) -> Result<Written, Refused> {
        let path = self.settings.path.clone();
        self.write_over(over.at, &path, over.version, data).await
    }

    /// Writes a record of the signing kind over the one of the shared kind that was read.
    ///
    /// # Errors
    /// If it is not known to be written.
    pub async fn write_over_shared(
        &mut self,
        over: &Found,
        version: u64,
        data: Map<String, Value>,
    ) -> Result<Written, Refused> {
        let path = self.settings.path.clone();
        self.write_over(over.place.at, &path, version, data).await
    }

    /// Takes away what a cluster that is gone attested to, all versions of it.
    ///
    /// # Errors
    /// If it is not known to be done.
    pub async fn forget(&mut self, cluster: &str) -> Result<(), Refused> {
        let at = self.signs_at().await?;
        let path = self.attestation_path(cluster);
        let reply = self.request(at, &Plain::delete(format!("{}/metadata/{path}", self.settings.mount))).await?;
        if matches!(reply.status, 200 | 204 | 404) { Ok(()) } else { Err(self.denied(&reply, "delete", &path)) }
    }

    /// Beside the record.
    fn clusters(&self) -> String {
        let path = &self.settings.path;
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{folder}/clusters").trim_start_matches('/').to_owned()
    }

    fn attestation_path(&self, cluster: &str) -> String {
        format!("{}/{cluster}", self.clusters())
    }

    /// The data at a path and its version; `None` and 0 where there never was any.
    async fn versioned(&mut self, at: usize, path: &str) -> Result<(Option<Map<String, Value>>, u64), Refused> {
        let reply = self.request(at, &Plain::get(format!("{}/data/{path}", self.settings.mount))).await?;
        let read = serde_json::from_slice::<Versioned>(&reply.body);
        match (reply.status, read) {
            (200 | 404, Ok(Versioned { data })) => Ok((data.data, data.metadata.version)),
            (404, Err(_)) if answer::errors(&reply).is_some_and(|said| said.is_empty()) => Ok((None, 0)),
            (200 | 404, Err(_)) => Err(odd(&reply)),
            _ => Err(self.denied(&reply, "read", path)),
        }
    }

    async fn write_over(
        &mut self,
        at: usize,
        path: &str,
        version: u64,
        data: Map<String, Value>,
    ) -> Result<Written, Refused> {
        let body = json!({ "options": { "cas": version }, "data": data });
        let reply = self.request(at, &Plain::post(format!("{}/data/{path}", self.settings.mount), body)).await?;
        let is_late = || answer::errors(&reply).unwrap_or_default().iter().any(|said| said.contains("check-and-set"));
        match reply.status {
            200 => {
                let made = serde_json::from_slice::<Made>(&reply.body).map_err(|_| odd(&reply))?;
                Ok(Written::Applied(made.data.version))
            }
            400 if is_late() => Ok(Written::Lost),
            _ => Err(self.denied(&reply, if version == 0 { "create" } else { "update" }, path)),
        }
    }

    async fn request(&mut self, at: usize, request: &Plain) -> Result<Reply, Refused> {
        self.with_token(at, Way::Own, |_| Ok(request.clone()), |vault, reply| vault.told(at, reply)).await
    }

    fn denied(&self, reply: &Reply, right: &str, path: &str) -> Refused {
        let mount = &self.settings.mount;
        match reply.status {
            403 if answer::is_no_token(reply) => answer::no_token().into(),
            403 => Held::new(
                Reason::VaultPermissionDenied,
                format!("Vault does not let role {} {right} {mount}/{path}", self.settings.role),
                "compare its policies with those of deploy/vault",
                ByItself::Unsaid,
            )
            .into(),
            status => {
                answer::unreachable(&reply.address, &format!("to {right} {mount}/{path} gave status {status}")).into()
            }
        }
    }
}

impl Attests for Vault {
    type Over = AttestedOver;

    async fn attested(&mut self, cluster: &str) -> Result<AttestedAt<AttestedOver>, Refused> {
        let at = self.signs_at().await?;
        let (data, version) = self.versioned(at, &self.attestation_path(cluster)).await?;
        let read = data.map(|data| Attestation::parse(cluster, &data));
        Ok(AttestedAt { read, over: AttestedOver { version, at } })
    }

    async fn attest(&mut self, over: &AttestedOver, attestation: &Attestation) -> Result<Write, Refused> {
        let path = self.attestation_path(&attestation.cluster);
        match self.write_over(over.at, &path, over.version, attestation.data()).await? {
            Written::Applied(_) => Ok(Write::Done),
            Written::Lost => Ok(Write::Changed),
        }
    }
}

fn odd(reply: &Reply) -> Refused {
    answer::unreachable(&reply.address, "an answer that is not Vault's").into()
}

fn no_signing(stored: &Stored) -> Held {
    let see = "see docs/rotate.md";
    let (reason, what, next) = match stored {
        Stored::Absent => (Reason::RootMissing, "Vault has no root yet", see),
        Stored::Deleted { .. } => (Reason::RootDeleted, "Vault's record is deleted", see),
        Stored::Unsound { .. } => (Reason::RootInvalid, "Vault's record does not pass the check", see),
        _ => (
            Reason::RotationHeld,
            "Vault's record has the root's key in it, so that every cluster has it and none can be given a new one alone",
            "take the key out of it with `istio-ca-gate rotate import` first",
        ),
    };
    Held::new(reason, what, next, ByItself::Unsaid)
}

//! What a cluster's gate says of what its mesh works with. It hurts its own cluster alone if it is not true.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::ca::Sha256;
use crate::ca::record::RecordState;
use crate::reason::foreign_text;

/// Names in a list. Those that are left out are counted elsewhere.
pub const NAMED_MOST: usize = 20;

/// One cluster's, at `clusters/<name>` beside the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attestation {
    /// Whose it is.
    pub cluster: String,
    /// The record that its `cacerts` is published by. `None`: by none of the signing kind.
    pub state: Option<RecordState>,
    /// Since when every istiod works with it, and every namespace has its roots. `None`: not all of them, or it cannot be
    /// told.
    pub settled: Option<Timestamp>,
    /// When this was looked at.
    pub at: Timestamp,
    /// The record's version that it was looked at by.
    pub record_version: u64,
    /// The signer in `cacerts`.
    pub signer: Option<AttestedSigner>,
    /// The roots in `cacerts`.
    pub roots: BTreeSet<Sha256>,
    /// The istiods.
    pub istiods: Istiods,
    /// The namespaces.
    pub namespaces: Namespaces,
    /// The longest life of a workload's certificate that was seen.
    pub ttl_seen: Option<Duration>,
    /// Of a cluster without a record of the signing kind: it could have a signer of its own, as far as its gate can tell.
    pub ready: bool,
    /// Why it is not settled, or not ready, for people.
    pub why: Option<String>,
    /// Of the gate.
    pub version: String,
}

/// A cluster's signer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttestedSigner {
    /// Its certificate.
    pub sha256: Sha256,
    /// The root that it is under.
    pub root: Sha256,
    /// Its end.
    pub not_after: Timestamp,
}

/// How the istiods of a cluster are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Istiods {
    /// So many present a signer that was published for this state.
    pub settled: u64,
    /// Those that do not, or that cannot be asked.
    pub behind: Vec<String>,
}

/// How the namespaces of a cluster are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// All that have the mesh's roots, or should have.
    pub total: u64,
    /// Those that have other roots than the record's.
    pub behind: Vec<String>,
}

/// A key of an attestation that is not there, or not of the form that it has to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} of the attestation is missing or of another form")]
pub struct InvalidAttestation(pub &'static str);

impl Attestation {
    /// Reads that of this cluster. Keys that it does not know are left alone.
    ///
    /// # Errors
    /// Which key cannot be read. What says that it is another cluster's is nobody's.
    pub fn parse(cluster: &str, data: &Map<String, Value>) -> Result<Self, InvalidAttestation> {
        let whole = Fields(data);
        if whole.text("cluster")? != Some(cluster) {
            return Err(InvalidAttestation("cluster"));
        }
        let istiods = whole.map("istiods")?;
        let namespaces = whole.map("namespaces")?;
        Ok(Self {
            cluster: cluster.to_owned(),
            state: whole.parsed("state")?,
            settled: whole.parsed("settled")?,
            at: whole.parsed("at")?.ok_or(InvalidAttestation("at"))?,
            record_version: whole.number("recordVersion")?,
            signer: match data.get("signer") {
                None | Some(Value::Null) => None,
                Some(_) => Some(AttestedSigner::read(&whole.map("signer")?)?),
            },
            roots: whole.roots()?,
            istiods: Istiods { settled: istiods.number("settled")?, behind: istiods.names("behind")? },
            namespaces: Namespaces { total: namespaces.number("total")?, behind: namespaces.names("behind")? },
            ttl_seen: match whole.text("ttlSeen")? {
                None => None,
                Some(text) => Some(humantime::parse_duration(text).map_err(|_| InvalidAttestation("ttlSeen"))?),
            },
            ready: whole.0.get("ready").and_then(Value::as_bool).unwrap_or_default(),
            why: whole.text("why")?.map(foreign_text),
            version: whole.text("version")?.map(foreign_text).unwrap_or_default(),
        })
    }

    /// As it is written.
    pub fn data(&self) -> Map<String, Value> {
        let Self { istiods, namespaces, .. } = self;
        let first = |names: &[String]| json!(names.iter().take(NAMED_MOST).collect::<Vec<_>>());
        let signer = self.signer.as_ref().map(|signer| {
            json!({
                "sha256": signer.sha256.to_string(), "root": signer.root.to_string(),
                "notAfter": signer.not_after.to_string(),
            })
        });
        [
            ("cluster", json!(self.cluster)),
            ("state", json!(self.state.map(|state| state.to_string()))),
            ("settled", json!(self.settled.map(|settled| settled.to_string()))),
            ("at", json!(self.at.to_string())),
            ("recordVersion", json!(self.record_version)),
            ("signer", json!(signer)),
            ("roots", json!(self.roots.iter().map(Sha256::to_string).collect::<Vec<_>>())),
            ("istiods", json!({ "settled": istiods.settled, "behind": first(&istiods.behind) })),
            ("namespaces", json!({ "total": namespaces.total, "behind": first(&namespaces.behind) })),
            ("ttlSeen", json!(self.ttl_seen.map(|ttl| humantime::format_duration(ttl).to_string()))),
            ("why", json!(self.why)),
            ("version", json!(self.version)),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .chain(self.ready.then(|| ("ready".to_owned(), json!(true))))
        .collect()
    }

    /// Whether the two say the same, but for when.
    pub fn says_as(&self, other: &Self) -> bool {
        *self == Self { at: self.at, ..other.clone() }
    }
}

impl AttestedSigner {
    fn read(map: &Fields<'_>) -> Result<Self, InvalidAttestation> {
        let wrong = InvalidAttestation("signer");
        Ok(Self {
            sha256: map.parsed("sha256")?.ok_or(wrong)?,
            root: map.parsed("root")?.ok_or(wrong)?,
            not_after: map.parsed("notAfter")?.ok_or(wrong)?,
        })
    }
}

/// A JSON object whose keys are read by name.
struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn text(&self, key: &'static str) -> Result<Option<&'a str>, InvalidAttestation> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or(InvalidAttestation(key)),
        }
    }

    fn parsed<T: std::str::FromStr>(&self, key: &'static str) -> Result<Option<T>, InvalidAttestation> {
        self.text(key)?.map(str::parse).transpose().map_err(|_| InvalidAttestation(key))
    }

    fn number(&self, key: &'static str) -> Result<u64, InvalidAttestation> {
        self.0.get(key).and_then(Value::as_u64).ok_or(InvalidAttestation(key))
    }

    fn map(&self, key: &'static str) -> Result<Self, InvalidAttestation> {
        self.0.get(key).and_then(Value::as_object).map(Self).ok_or(InvalidAttestation(key))
    }

    fn texts(&self, key: &'static str) -> Result<Vec<&'a str>, InvalidAttestation> {
        let list = self.0.get(key).and_then(Value::as_array).ok_or(InvalidAttestation(key))?;
        list.iter().map(Value::as_str).collect::<Option<_>>().ok_or(InvalidAttestation(key))
    }

    fn names(&self, key: &'static str) -> Result<Vec<String>, InvalidAttestation> {
        Ok(self.texts(key)?.into_iter().map(foreign_text).collect())
    }

    fn roots(&self) -> Result<BTreeSet<Sha256>, InvalidAttestation> {
        let roots = self.texts("roots")?.into_iter().map(str::parse).collect::<Result<_, _>>();
        roots.map_err(|_| InvalidAttestation("roots"))
    }
}

#[cfg(test)]
mod tests;

//! What is in the store and in the clusters, and the writes that they take.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{IN_VAULT, certify, told_at};
use crate::ca::bundle::{Beside, Bundle};
use crate::ca::check::{self, Sound};
use crate::ca::fixtures::now;
use crate::ca::record::RecordState;
use crate::cluster::Write;
use crate::life::attestation::Attestation;
use crate::plan::{self, Copy, Mesh, Owner, Pin, Published, ReadPin, Stored};
use crate::store::Created;

/// Both sides, as they are.
#[derive(Clone, Debug)]
pub(in super::super) struct State {
    pub(in super::super) stored: Stored,
    pub(in super::super) clusters: Vec<Side>,
    /// Issuers of the PKI engine, by their names: which root each is.
    pub(in super::super) issuers: BTreeMap<String, usize>,
    /// What clusters attest to, and its version.
    pub(in super::super) attested: BTreeMap<String, (Attestation, u64)>,
    /// How many certificates of signers it has issued.
    pub(in super::super) certified: usize,
    /// Counts what has changed.
    pub(super) version: u64,
}

/// One cluster.
#[derive(Clone, Debug)]
pub(in super::super) struct Side {
    pub(in super::super) cacerts: Published,
    pub(in super::super) pin: ReadPin,
    pub(in super::super) mesh: Mesh,
}

impl State {
    pub(super) fn nothing(clusters: usize) -> Self {
        let side = Side { cacerts: Published::Absent, pin: ReadPin::default(), mesh: Mesh::Absent };
        Self {
            stored: Stored::Absent,
            clusters: vec![side; clusters],
            issuers: BTreeMap::new(),
            attested: BTreeMap::new(),
            certified: 0,
            version: 1000,
        }
    }

    fn next_version(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    /// Puts it there, as a new version.
    pub(in super::super) fn put_cacerts(&mut self, cluster: usize, copy: Published) {
        let resource_version = self.next_version();
        self.clusters[cluster].cacerts = match copy {
            Published::Absent => Published::Absent,
            Published::Present(copy) => Published::Present(Arc::new(Copy { resource_version, ..Copy::clone(&copy) })),
        };
    }

    /// As reading it again does, at another time.
    pub(in super::super) fn judge_cacerts_anew(&mut self, cluster: usize) {
        let Published::Present(copy) = &self.clusters[cluster].cacerts else { return };
        let Ok(sound) = &copy.verdict else { return };
        let files = Arc::clone(&sound.bundle);
        let verdict = check::check(Bundle::clone(&files), told_at().wall).map(Arc::new);
        let unsound = verdict.is_err().then_some(files);
        self.clusters[cluster].cacerts = Published::Present(Arc::new(Copy { verdict, unsound, ..Copy::clone(copy) }));
    }

    /// The same of the pin.
    pub(in super::super) fn put_pin(&mut self, cluster: usize, pin: Option<Pin>) {
        let resource_version = Some(self.next_version()).filter(|_| pin.is_some());
        self.clusters[cluster].pin = ReadPin { pin, resource_version };
    }

    pub(super) fn create(&mut self, record: &Map<String, Value>) -> Created {
        if !matches!(self.stored, Stored::Absent) {
            return Created::Lost;
        }
        self.version += 1;
        self.stored = plan::stored(1, record, now());
        Created::Applied
    }

    pub(super) fn issuer(&self, name: &str) -> Option<String> {
        self.issuers.get(name).map(|root| IN_VAULT[*root].certificate.pem())
    }

    /// The one of this name, whoever made it.
    pub(in super::super) fn make_root(&mut self, name: &str) -> String {
        let next = self.issuers.len();
        let root = *self.issuers.entry(name.to_owned()).or_insert(next);
        IN_VAULT[root].certificate.pem()
    }

    pub(super) fn attest(&mut self, over: u64, attestation: &Attestation) -> Write {
        let version = self.attested.get(&attestation.cluster).map_or(0, |(_, version)| *version);
        if version != over {
            return Write::Changed;
        }
        self.version += 1;
        self.attested.insert(attestation.cluster.clone(), (attestation.clone(), version + 1));
        Write::Done
    }

    pub(super) fn certify(&mut self, issuer: &str, csr: &str, common_name: &str, life: Duration) -> Option<String> {
        let root = *self.issuers.get(issuer)?;
        self.certified += 1;
        Some(certify(root, csr, common_name, life))
    }

    pub(super) fn publish(&mut self, cluster: usize, over: &str, sound: &Sound, of: Option<RecordState>) -> Write {
        if self.clusters[cluster].cacerts.resource_version() != over {
            return Write::Changed;
        }
        self.put_cacerts(cluster, ours_of(sound, of));
        Write::Done
    }

    pub(super) fn write_pin(
        &mut self,
        cluster: usize,
        over: &str,
        change: impl FnOnce(Option<Pin>) -> Option<Pin>,
    ) -> Write {
        if self.clusters[cluster].pin.token() != over {
            return Write::Changed;
        }
        let before = self.clusters[cluster].pin.pin.take();
        self.put_pin(cluster, change(before));
        Write::Done
    }
}

/// A `cacerts` that the gate wrote.
pub(in super::super) fn ours(sound: &Sound) -> Published {
    ours_of(sound, None)
}

/// The same, of this state of a record.
fn ours_of(sound: &Sound, annotated_state: Option<RecordState>) -> Published {
    Published::Present(Arc::new(Copy {
        owner: Owner::Ours,
        verdict: Ok(Arc::new(sound.clone())),
        glance: Some(sound.glance.clone()),
        resource_version: String::new(),
        annotated_root: Some(Ok(sound.root)),
        annotated_state,
        unsound: None,
        beside: Beside::default(),
        was_ours: false,
        immutable: false,
    }))
}

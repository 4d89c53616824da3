//! Clusters that have signers of their own: those signers, what Vault has of their meshes, and a change of their root.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::ask::within;
use super::compare::Place;
use crate::ca::file;
use crate::ca::record::SigningRecord;
use crate::cli::source::Unread;
use crate::life::attestation::Attestation;
use crate::life::audience::Heard;
use crate::life::course::Course;
use crate::report::{ReportedMesh, ReportedRotation, ReportedSigner, stamp};
use crate::signer::Signer as _;
use crate::vault::{Refused, Vault};

/// What Vault has beside the roots.
#[derive(Clone, Debug)]
pub(super) struct MeshLife {
    /// The change of the root that is under way.
    pub(super) rotation: Option<ReportedRotation>,
    /// What the clusters attest to, or why that is not known.
    pub(super) heard: Result<Heard, Unread>,
}

/// A cluster's own signer, and what is known of its mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signed {
    /// The place that tells it.
    pub(super) place: String,
    pub(super) signer: Option<SeenHere>,
    pub(super) mesh: Option<ReportedMesh>,
}

/// What is told of a signer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SeenHere {
    pub(super) sha256: String,
    pub(super) root: String,
    pub(super) not_after: String,
    /// Who attests to it does not tell.
    pub(super) renewal_due: Option<String>,
}

impl From<&ReportedSigner> for SeenHere {
    fn from(signer: &ReportedSigner) -> Self {
        let ReportedSigner { sha256, root, not_after, renewal_due } = signer.clone();
        Self { sha256, root, not_after, renewal_due: Some(renewal_due) }
    }
}

/// What stands beside a record.
pub(super) async fn ask(vault: &mut Vault, record: &SigningRecord, timeout: Duration) -> MeshLife {
    let now = Timestamp::now();
    let goal = match record.under_way() {
        // Only with --vault-pki-mount.
        Some(rotation) => {
            let pem = within(timeout, async { vault.issuer(rotation.goal.as_str()).await.map_err(unread) }).await;
            pem.ok().and_then(|pem| file::first(pem.as_bytes()).ok()).map(|glance| glance.sha256)
        }
        None => None,
    };
    let rotation = Course::of(record, goal, now).as_ref().map(ReportedRotation::from);
    let life = within(timeout, async { vault.read_life(now).await.map_err(unread) }).await;
    MeshLife { rotation, heard: life.map(|life| life.heard) }
}

fn unread(refused: Refused) -> Unread {
    refused.held.into()
}

impl Signed {
    /// Of a place that has a signer.
    pub(super) fn of(place: &Place) -> Option<Self> {
        let signer = place.told.as_ref().ok()?.signer.as_ref()?;
        Some(Self { place: place.name.clone(), signer: Some(signer.into()), mesh: place.says.mesh.clone() })
    }

    /// Of a cluster that attests, at this place.
    pub(super) fn attested(place: &str, attestation: &Attestation) -> Self {
        let signer = attestation.signer.as_ref().map(|signer| SeenHere {
            sha256: signer.sha256.openssl(),
            root: signer.root.openssl(),
            not_after: stamp(signer.not_after),
            renewal_due: None,
        });
        Self { place: place.to_owned(), signer, mesh: Some(ReportedMesh::of(attestation)) }
    }
}

/// How a cluster that attests is named among the places.
pub(super) fn attested_place(cluster: &str) -> String {
    format!("{cluster} attests")
}

//! The cluster that is kept on the shared root: what the convergence asks of its API, and whom it tells.

use jiff::{SignedDuration, Timestamp};

use crate::ca::Sha256;
use crate::ca::check::Sound;
use crate::ca::record::RecordState;
use crate::plan::{Contradiction, Mesh, Pin, Published, ReadPin};
use crate::reason::Held;

/// How a write of an object ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Written.
    Done,
    /// Not written: the object is no longer what the decision was made on. Read again, plan again.
    Changed,
}

/// The cluster's side. Each error is the reason why it cannot be told what is there, or not be written, or not be told
/// whether it was.
pub trait Cluster: Send + Sync {
    /// Reads `cacerts`, and takes what was read for what is known. `None`: something else was told meanwhile.
    fn look(&self) -> impl Future<Output = Result<Option<Published>, Held>> + Send;

    /// Reads `cacerts`.
    fn read(&self) -> impl Future<Output = Result<Published, Held>> + Send;

    /// Whether `cacerts` is still this version.
    fn is_still(&self, version: &str) -> impl Future<Output = Result<bool, Held>> + Send;

    /// Writes these files over exactly what was read of `cacerts`, with what they are of: the store's version, and the
    /// state of a record of the signing kind.
    fn publish(
        &self,
        over: &Published,
        sound: &Sound,
        version: u64,
        state: Option<RecordState>,
    ) -> impl Future<Output = Result<Write, Held>> + Send;

    /// Reads the pin. One that cannot be read is an error, never "no pin".
    fn read_pin(&self) -> impl Future<Output = Result<ReadPin, Held>> + Send;

    /// Writes an agreement over exactly what was read of the pin: with it ends what contradicted the last one.
    fn write_pin(&self, read: &ReadPin, pin: &Pin) -> impl Future<Output = Result<Write, Held>> + Send;

    /// Takes note of what the store says against the pin, over exactly what was read: other replicas and the next start
    /// read it.
    fn contradict(
        &self,
        read: &ReadPin,
        contradiction: Contradiction,
    ) -> impl Future<Output = Result<Write, Held>> + Send;

    /// What the mesh is served as its roots. What cannot be read is an error, never absent.
    fn mesh(&self) -> impl Future<Output = Result<Mesh, Held>> + Send;

    /// How far the API server's clock is ahead of this one, by the last answer that told.
    fn ahead(&self) -> Option<SignedDuration>;
}

/// Who makes a Secret that has the marks of External Secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// An ExternalSecret, as far as is known.
    ExternalSecret,
    /// None: the marks were left behind.
    Nobody,
}

/// How a pass over blocked owners ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Whether there was any.
    pub any: bool,
    /// Whether all were looked at. If not, the next pass goes on where this one ended.
    pub whole: bool,
}

/// What people are told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// A root was made and is in the store, as this record.
    Bootstrapped {
        /// Its name.
        record: String,
    },
    /// The store's CA, or this cluster's own signer, was written into `cacerts`.
    Published {
        /// The root that it is under.
        root: Sha256,
        /// The store's version.
        version: u64,
        /// It is this cluster's signer.
        signer: bool,
    },
    /// This cluster's signer was renewed in time.
    SignerRenewed {
        /// It ends then.
        until: Timestamp,
    },
    /// It was due, and is in use as it was.
    SignerNotRenewed {
        /// Why not.
        held: Held,
        /// It ends then.
        until: Timestamp,
    },
    /// Gated pods are let in from now on.
    Opened {
        /// By an earlier verification, since the store cannot be asked.
        bridged: bool,
    },
    /// Gated pods are kept out.
    Held(Held),
}

/// Who else in the cluster is concerned: owners of gated pods, External Secrets, Flux, people. What fails here holds
/// nothing.
pub trait Bystanders: Send + Sync {
    /// Touches blocked owners, so that they try again now.
    fn touch_blocked(&self, now: Timestamp) -> impl Future<Output = Result<Passed, Held>> + Send;

    /// Asks External Secrets to sync `cacerts`, by the ExternalSecret of this name or the one that is found.
    fn force_sync(&self, external_secret: Option<&str>, now: Timestamp) -> impl Future<Output = Maker> + Send;

    /// Has Flux asked to reconcile, in the background.
    fn ask_flux(&self, now: Timestamp);

    /// Asks Flux to reconcile, and returns when it is asked.
    fn asked_flux(&self, now: Timestamp) -> impl Future<Output = ()> + Send;

    /// Tells people. Never waits.
    fn tell(&self, happened: Happened);
}

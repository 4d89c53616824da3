//! What tests of several rooms decide on: few CAs, made once, and both sides' copies of them.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::ca::Sha256;
use crate::ca::bundle::{Beside, Bundle};
use crate::ca::check::{Flaw, Sound, check};
use crate::ca::fixtures::{self, Ca, now};
use crate::ca::issue::set_validity;
use crate::ca::record::{Rotation, SigningRecord};
use crate::clock::{Boot, Clocks};
use crate::life::attestation::{Attestation, Istiods, Namespaces};
use crate::plan::{Copy, Names, Owner, Pin, Published, Stored};
use crate::reason::{ByItself, Held, Reason};
use crate::snapshot::{Convergence, KnownRoot, LastVerified, Policy, Snapshot, VaultUnavailable, Verified, Watched};

/// What a cluster attests to that has nothing to say.
pub fn attestation(cluster: &str, at: Timestamp) -> Attestation {
    Attestation {
        cluster: cluster.to_owned(),
        state: None,
        settled: None,
        at,
        record_version: 1,
        signer: None,
        roots: BTreeSet::new(),
        istiods: Istiods::default(),
        namespaces: Namespaces::default(),
        ttl_seen: None,
        ready: false,
        why: None,
        version: "0".to_owned(),
    }
}

/// A change of the root to `root-2` that has begun.
pub fn rotation() -> Rotation {
    Rotation {
        goal: "root-2".parse().unwrap(),
        from: vec!["root-1".parse().unwrap()],
        clusters: ["homelab", "nas"].map(str::to_owned).into(),
        ttl: Duration::from_secs(24 * 3600),
        paused: false,
        started: now() - SignedDuration::from_hours(2),
        by: "ops@laptop".to_owned(),
        seen: BTreeMap::new(),
    }
}

/// Vault's version of the record.
pub const VERSION: u64 = 3;

static ROOT_1: LazyLock<Ca> = LazyLock::new(|| Ca::root("Root 1"));
static ROOT_2: LazyLock<Ca> = LazyLock::new(|| Ca::root("Root 2"));
static CA_UNDER_1: LazyLock<Ca> = LazyLock::new(|| ROOT_1.issue("CA under root 1"));

/// Root 1, which signs directly.
pub static R1: LazyLock<Arc<Sound>> = LazyLock::new(|| sound(ROOT_1.bundle()));
/// The same certificate and key, with CRLF.
pub static R1_OTHER_BYTES: LazyLock<Arc<Sound>> = LazyLock::new(|| {
    let root_cert = ROOT_1.certificate.pem().replace('\n', "\r\n").into_bytes();
    sound(Bundle { root_cert, ..ROOT_1.bundle() })
});
/// A CA beneath root 1.
pub static R1_OTHER_CA: LazyLock<Arc<Sound>> = LazyLock::new(|| sound(CA_UNDER_1.bundle_under(&ROOT_1)));
/// A CA beneath root 1 that ends long before it.
pub static SOON: LazyLock<Arc<Sound>> = LazyLock::new(|| {
    let ten_days = fixtures::NOW + 240 * fixtures::HOUR;
    let ca = ROOT_1.issue_but("Ends soon", |params| set_validity(params, fixtures::NOW - fixtures::HOUR, ten_days));
    sound(ca.bundle_under(&ROOT_1))
});
/// Root 2, which signs directly.
pub static R2: LazyLock<Arc<Sound>> = LazyLock::new(|| sound(ROOT_2.bundle()));
/// Root 1, which signs directly; root 2 is trusted too, and comes first.
pub static BOTH: LazyLock<Arc<Sound>> =
    LazyLock::new(|| sound(fixtures::bundle(&[&ROOT_2, &ROOT_1], &[&ROOT_1], &ROOT_1)));

/// A flaw of any bundle, and of no use to anybody.
pub const UNSOUND: Flaw = Flaw::KeyMismatch;
/// A flaw that writing the four files does not mend.
pub const FOREIGN_KEY: Flaw = Flaw::Foreign("tls.crt");

fn sound(bundle: Bundle) -> Arc<Sound> {
    Arc::new(check(bundle, now()).unwrap())
}

/// What keys of these CAs would look like in some output.
pub fn traces() -> Vec<String> {
    [&ROOT_1, &ROOT_2, &CA_UNDER_1].into_iter().flat_map(|ca| fixtures::traces(&ca.key)).collect()
}

/// A text that may reach users, logs and events: one line, bounded, and nothing of a key.
pub fn assert_fit_for_users(text: &str) {
    static TRACES: LazyLock<Vec<String>> = LazyLock::new(traces);
    assert!(!text.is_empty() && !text.contains(char::is_control), "{text:?}");
    // An event's text has 1024 bytes, of which the ReplicaSet controller needs about 100.
    assert!(text.len() <= 900, "{} bytes: {text}", text.len());
    for trace in TRACES.iter().map(String::as_str).chain(["-----BEGIN", "LS0tLS"]) {
        assert!(!text.contains(trace), "{trace} in {text}");
    }
}

/// A CA in Vault.
pub fn stored(sound: &Arc<Sound>) -> Stored {
    Stored::Sound { version: VERSION, sound: Arc::clone(sound) }
}

/// A `cacerts` that is sound.
pub fn published(owner: Owner, sound: &Arc<Sound>) -> Published {
    present(owner, Ok(Arc::clone(sound)))
}

/// A `cacerts` with any verdict.
pub fn present(owner: Owner, verdict: Result<Arc<Sound>, Flaw>) -> Published {
    let tls = verdict.as_ref().err() == Some(&FOREIGN_KEY);
    Published::Present(Arc::new(Copy {
        owner,
        beside: Beside { crl: None, tls },
        glance: verdict.as_ref().ok().map(|sound| sound.glance.clone()),
        verdict,
        resource_version: "1234".to_owned(),
        annotated_root: None,
        annotated_state: None,
        unsound: None,
        was_ours: false,
        immutable: false,
    }))
}

/// A record of the signing kind that trusts root 1, by which its issuer `root-1` certifies signers.
pub static RECORD_1: LazyLock<Arc<SigningRecord>> = LazyLock::new(|| {
    let data = SigningRecord::first(&ROOT_1.certificate.pem(), &"root-1".parse().unwrap());
    Arc::new(SigningRecord::parse(&data, now()).unwrap())
});

/// A `cacerts` of ours with this signer, published for that record.
pub fn signed(sound: &Arc<Sound>) -> Published {
    let Published::Present(copy) = published(Owner::Ours, sound) else { return Published::Absent };
    Published::Present(Arc::new(Copy { annotated_state: Some(RECORD_1.state()), ..Copy::clone(&copy) }))
}

/// What External Secrets manages.
pub fn external_secrets() -> Owner {
    Owner::ExternalSecrets(Some("cacerts".to_owned()))
}

/// The pin on the root of this CA.
pub fn pin(root: Sha256) -> Pin {
    Pin { vault_version: Some(VERSION), verified_at: Some(now()), ..Pin::of(root) }
}

/// What things are called.
pub fn names() -> Names {
    Names {
        cacerts: "istio-system/cacerts".to_owned(),
        pin: "istio-system/istio-ca-gate".to_owned(),
        mesh: "istio-system/istio-ca-root-cert".to_owned(),
        record: "secret/istio/ca".to_owned(),
    }
}

/// A hold with a sentence of its own.
pub fn held(reason: Reason) -> Held {
    Held::new(reason, "the cause", "the next step", ByItself::Unsaid)
}

/// The time of all tests, by both clocks.
pub fn clocks() -> Clocks {
    // A test can go back from it.
    Clocks { wall: now(), boot: Boot(Duration::from_secs(1_000_000)) }
}

/// So many seconds before the time of all tests.
pub fn ago(seconds: i64) -> Timestamp {
    now() - SignedDuration::from_secs(seconds)
}

/// The same by both clocks.
pub fn clocks_ago(seconds: i64) -> Clocks {
    later(clocks(), SignedDuration::from_secs(-seconds))
}

/// So much later by both clocks.
pub fn later(clocks: Clocks, time: SignedDuration) -> Clocks {
    let boot = SignedDuration::try_from(clocks.boot.0).unwrap() + time;
    Clocks { wall: clocks.wall + time, boot: Boot(boot.try_into().unwrap()) }
}

/// A comparison of `cacerts` with this CA, so many seconds ago.
pub fn verified(stored: &Arc<Sound>, seconds: i64) -> Verified {
    let (stored, resource_version) = (Arc::clone(stored.facts()), "1234".to_owned());
    Verified { stored, version: VERSION, resource_version, at: clocks_ago(seconds) }
}

/// A CA last verified so many seconds ago.
pub fn last_verified(sound: &Sound, seconds: i64) -> Option<LastVerified> {
    Some(LastVerified::of(sound, clocks_ago(seconds)))
}

/// Vault's root, as read at the time of all tests.
pub fn known_root(sound: &Sound) -> KnownRoot {
    KnownRoot {
        glance: sound.glance.clone(),
        root: sound.root,
        version: 1,
        usable_until: sound.usable_until,
        deleted_at: None,
        token_end: None,
        checked_at: now(),
        address: "https://vault.example:8200".to_owned(),
    }
}

/// The flags' defaults.
pub const POLICY: Policy = Policy {
    refresh: SignedDuration::from_secs(60),
    vault_unavailable: VaultUnavailable::AllowVerified,
    max_staleness: SignedDuration::from_hours(24),
};

/// Picks one of each list.
pub struct Pick(usize);

impl Pick {
    /// The next choice, of these.
    pub fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        let index = self.0 % list.len();
        self.0 /= list.len();
        &list[index]
    }
}

/// Looks at each combination of what `look` picks, and returns how many there are.
pub fn every_combination(mut look: impl FnMut(&mut Pick)) -> usize {
    let is_new = |count: &usize| {
        let mut pick = Pick(*count);
        look(&mut pick);
        // What is left over has no list to be picked from: the lists have begun anew.
        pick.0 == 0
    };
    (0..).take_while(is_new).count()
}

/// What a process knows, and the moment at which it knows it.
#[derive(Clone, Debug)]
pub struct Known {
    /// The cluster's side.
    pub watched: Watched,
    /// Vault's side, and the comparison.
    pub convergence: Convergence,
    /// The moment.
    pub now: Clocks,
}

impl Known {
    /// At the start.
    pub fn nothing() -> Self {
        let (watched, convergence) = (Watched::default(), Convergence::default());
        Self { watched, convergence, now: clocks() }
    }

    /// A `cacerts` of ours that was compared with the same CA in Vault, both just now.
    pub fn open(sound: &Arc<Sound>) -> Self {
        let mut known = Self::nothing();
        known.watched.published = Some(published(Owner::Ours, sound).facts());
        known.watched.heard = Some(known.now.boot);
        known.convergence.consulted = true;
        known.convergence.verified = Some(verified(sound, 0));
        known.convergence.last_verified = last_verified(sound, 0);
        known.convergence.pin_read = Some(known.now.boot);
        known
    }

    /// The same after an attempt that ended so.
    pub fn held(mut self, reason: Reason) -> Self {
        self.convergence.held = Some(held(reason));
        self.convergence.held_since = Some(ago(300));
        self.convergence.verified = None;
        self
    }

    /// The same with a change.
    pub fn but(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// As the gate sees it.
    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot { watched: &self.watched, convergence: &self.convergence }
    }
}

//! From what a gate saw of its cluster to what it attests to. Unknown is no.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::attestation::{Attestation, AttestedSigner, Istiods, Namespaces};
use super::audience::FRESH;
use crate::ca::Sha256;
use crate::ca::record::{RecordState, SigningRecord};

/// What `cacerts` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedSigner {
    /// The record that it was published for.
    pub state: Option<RecordState>,
    /// Its signer.
    pub signer: AttestedSigner,
    /// Its roots.
    pub roots: BTreeSet<Sha256>,
}

/// Each namespace that the mesh gives roots to, and those; `None` where they cannot be read.
pub type NamespaceRoots = Vec<(String, Option<BTreeSet<Sha256>>)>;

/// What was seen of a cluster.
#[derive(Clone, Debug)]
pub struct Sight {
    /// `cacerts`, if there is a sound one.
    pub published: Option<PublishedSigner>,
    /// Why the gate may not write `cacerts`, if so.
    pub not_ours: Option<&'static str>,
    /// Each istiod's pod, and what stands behind its leaf; or why it is not known which there are.
    pub istiods: Result<Vec<(String, Presented)>, String>,
    /// Each namespace's roots, or why they are not known.
    pub namespaces: Result<NamespaceRoots, String>,
    /// The longest life of a workload's certificate that somebody is told.
    pub ttl: Option<Duration>,
}

/// The certificates behind an istiod's leaf, or why they could not be had.
pub type Presented = Result<Vec<Sha256>, String>;

/// Whose attestation it is.
#[derive(Clone, Copy, Debug)]
pub struct Witness<'a> {
    /// The cluster.
    pub cluster: &'a str,
    /// Of the program.
    pub version: &'a str,
}

impl Witness<'_> {
    /// What is attested to. `before`: what was attested to last, or seen, whichever is later.
    pub fn attestation(
        &self,
        record: &SigningRecord,
        record_version: u64,
        sight: &Sight,
        before: Option<&Attestation>,
        now: Timestamp,
    ) -> Attestation {
        let Sight { published, istiods, namespaces, ttl, .. } = sight;
        let published = published.as_ref();
        let signer = published.map(|published| &published.signer);
        let (istiods, of_istiods) = judge_istiods(istiods, signer);
        let (namespaces, of_namespaces) = judge_namespaces(namespaces, record.roots());
        let state = published.and_then(|published| published.state);
        let why = why_not_published(published, record).map(str::to_owned).or(of_istiods).or(of_namespaces);
        // Each publication has a signer of its own, so that one which came and went between two looks shows.
        let is_watched = |before: &&Attestation| {
            let signer_before = before.signer.as_ref().map(|signer| signer.sha256);
            before.state == state
                && signer_before == signer.map(|signer| signer.sha256)
                && now.duration_since(before.at).abs() <= FRESH
        };
        let since = before.filter(is_watched).and_then(|before| before.settled).unwrap_or(now);
        Attestation {
            cluster: self.cluster.to_owned(),
            state,
            settled: why.is_none().then_some(since),
            at: now,
            record_version,
            signer: signer.cloned(),
            roots: published.map(|published| published.roots.clone()).unwrap_or_default(),
            istiods,
            namespaces,
            ttl_seen: *ttl,
            ready: false,
            why,
            version: self.version.to_owned(),
        }
    }

    /// What is attested to while there is no record of the signing kind yet: whether the cluster could go by one. `roots`:
    /// those of the shared kind's, if there is one. `engine`: whether the PKI engine can be asked.
    pub fn readiness(
        &self,
        roots: Option<&BTreeSet<Sha256>>,
        record_version: u64,
        engine: Result<(), String>,
        sight: &Sight,
        now: Timestamp,
    ) -> Attestation {
        let Sight { published, not_ours, istiods, namespaces, ttl } = sight;
        let published = published.as_ref();
        let other_roots = roots.is_some() && published.map(|published| &published.roots) != roots;
        let (istiods, of_istiods) = reached(istiods);
        let total = namespaces.as_ref().map_or(0, |seen| u64::try_from(seen.len()).unwrap_or(u64::MAX));
        let why = engine
            .err()
            .or(not_ours.map(str::to_owned))
            .or(other_roots.then(|| "cacerts does not hold Vault's root".to_owned()))
            .or(of_istiods)
            .or(namespaces.as_ref().err().cloned());
        Attestation {
            state: None,
            settled: None,
            signer: published.map(|published| published.signer.clone()),
            roots: published.map(|published| published.roots.clone()).unwrap_or_default(),
            istiods,
            namespaces: Namespaces { total, behind: Vec::new() },
            ttl_seen: *ttl,
            ready: why.is_none(),
            why,
            version: self.version.to_owned(),
            ..Attestation::joining(self.cluster, record_version, now)
        }
    }
}

/// Whether each istiod can be shaken hands with, whatever it presents.
fn reached(seen: &Result<Vec<(String, Presented)>, String>) -> (Istiods, Option<String>) {
    let seen = match seen {
        Ok(seen) => seen,
        Err(why) => return (Istiods::default(), Some(why.clone())),
    };
    let silent = || seen.iter().filter_map(|(name, presented)| Some((name, presented.as_ref().err()?)));
    let behind: Vec<_> = silent().map(|(name, _)| name.clone()).collect();
    let settled = u64::try_from(seen.len() - behind.len()).unwrap_or(u64::MAX);
    let why = match silent().next() {
        Some((_, why)) => Some(why.clone()),
        None => seen.is_empty().then(|| NO_ISTIOD.to_owned()),
    };
    (Istiods { settled, behind }, why)
}

const NO_ISTIOD: &str = "no istiod runs";

fn why_not_published(published: Option<&PublishedSigner>, record: &SigningRecord) -> Option<&'static str> {
    match published {
        None => Some("there is no sound cacerts"),
        Some(published) if published.state != Some(record.state()) => Some("cacerts is not published by the record"),
        Some(_) => None,
    }
}

/// An istiod is settled if what stands behind its leaf is the signer that is published: a new leaf alone proves nothing.
fn judge_istiods(
    seen: &Result<Vec<(String, Presented)>, String>,
    signer: Option<&AttestedSigner>,
) -> (Istiods, Option<String>) {
    let seen = match seen {
        Ok(seen) => seen,
        Err(why) => return (Istiods::default(), Some(why.clone())),
    };
    let mut istiods = Istiods::default();
    let mut why = seen.is_empty().then(|| NO_ISTIOD.to_owned());
    for (name, presented) in seen {
        let presents = presented.as_ref().is_ok_and(|chain| signer.is_some_and(|one| chain.contains(&one.sha256)));
        if presents {
            istiods.settled += 1;
        } else {
            istiods.behind.push(name.clone());
            let told = presented.as_ref().err().cloned();
            why.get_or_insert(
                told.unwrap_or_else(|| "an istiod presents another signer than was published".to_owned()),
            );
        }
    }
    (istiods, why)
}

fn judge_namespaces(seen: &Result<NamespaceRoots, String>, roots: &BTreeSet<Sha256>) -> (Namespaces, Option<String>) {
    let seen = match seen {
        Ok(seen) => seen,
        Err(why) => return (Namespaces::default(), Some(why.clone())),
    };
    let behind: Vec<_> =
        seen.iter().filter(|(_, served)| served.as_ref() != Some(roots)).map(|(name, _)| name.clone()).collect();
    let why = match (seen.is_empty(), behind.is_empty()) {
        (true, _) => Some("no namespace has ConfigMap istio-ca-root-cert".to_owned()),
        (_, false) => Some("a namespace has other roots than the record".to_owned()),
        (false, true) => None,
    };
    (Namespaces { total: u64::try_from(seen.len()).unwrap_or(u64::MAX), behind }, why)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::LazyLock;

    use jiff::SignedDuration;

    use super::*;
    use crate::ca::fixtures::{Ca, now};

    static RECORD: LazyLock<SigningRecord> = LazyLock::new(|| {
        let data = SigningRecord::first(&Ca::root("Root 1").certificate.pem(), &"root-1".parse().unwrap());
        SigningRecord::parse(&data, now()).unwrap()
    });

    const SIGNER: Sha256 = Sha256([1; 32]);
    const OTHER: Sha256 = Sha256([2; 32]);
    const MINUTE: SignedDuration = SignedDuration::from_mins(1);

    fn root() -> Sha256 {
        *RECORD.roots().first().unwrap()
    }

    fn signer(sha256: Sha256) -> AttestedSigner {
        AttestedSigner { sha256, root: root(), not_after: now() + SignedDuration::from_hours(2000) }
    }

    /// All is as it should be.
    fn sight() -> Sight {
        Sight {
            published: Some(PublishedSigner {
                state: Some(RECORD.state()),
                signer: signer(SIGNER),
                roots: RECORD.roots().clone(),
            }),
            not_ours: None,
            istiods: Ok(vec![
                ("istiod-1".to_owned(), Ok(vec![SIGNER])),
                ("istiod-2".to_owned(), Ok(vec![SIGNER, OTHER])),
            ]),
            namespaces: Ok(vec![("default".to_owned(), Some(RECORD.roots().clone()))]),
            ttl: Some(Duration::from_secs(3600)),
        }
    }

    fn attest(sight: &Sight, before: Option<&Attestation>, at: Timestamp) -> Attestation {
        Witness { cluster: "nas", version: "0" }.attestation(&RECORD, 7, sight, before, at)
    }

    /// What a sight with this change says that is wrong.
    fn why(change: impl FnOnce(&mut Sight)) -> (Attestation, String) {
        let mut sight = sight();
        change(&mut sight);
        let attestation = attest(&sight, None, now());
        assert_eq!(attestation.settled, None);
        (attestation.clone(), attestation.why.unwrap())
    }

    #[test]
    fn a_cluster_is_settled_when_every_istiod_presents_the_published_signer_and_every_namespace_has_the_roots() {
        let attestation = attest(&sight(), None, now());
        assert_eq!((attestation.settled, attestation.why.as_deref()), (Some(now()), None));
        assert_eq!((attestation.istiods.settled, attestation.namespaces.total), (2, 1));
        assert_eq!(attestation.state, Some(RECORD.state()));
    }

    #[test]
    fn one_istiod_with_another_signer_or_that_cannot_be_asked_is_named() {
        let (attestation, why_not) = why(|sight| sight.istiods.as_mut().unwrap()[1].1 = Ok(vec![OTHER]));
        assert_eq!(attestation.istiods, Istiods { settled: 1, behind: vec!["istiod-2".to_owned()] });
        assert_eq!(why_not, "an istiod presents another signer than was published");
        let (attestation, why_not) =
            why(|sight| sight.istiods.as_mut().unwrap()[0].1 = Err("no connection".to_owned()));
        assert_eq!((attestation.istiods.behind, why_not), (vec!["istiod-1".to_owned()], "no connection".to_owned()));
        // A certificate of its own says nothing.
        why(|sight| sight.istiods.as_mut().unwrap()[0].1 = Ok(Vec::new()));
    }

    #[test]
    fn what_is_not_known_is_not_settled() {
        assert_eq!(why(|sight| sight.istiods = Err("refused".to_owned())).1, "refused");
        assert_eq!(why(|sight| sight.namespaces = Err("refused".to_owned())).1, "refused");
        assert_eq!(why(|sight| sight.istiods = Ok(Vec::new())).1, "no istiod runs");
        assert!(why(|sight| sight.namespaces = Ok(Vec::new())).1.starts_with("no namespace"));
        assert_eq!(why(|sight| sight.published = None).1, "there is no sound cacerts");
    }

    #[test]
    fn a_namespace_with_other_roots_or_none_is_named() {
        for served in [None, Some(BTreeSet::from([OTHER])), Some([root(), OTHER].into())] {
            let (attestation, _) = why(|sight| sight.namespaces.as_mut().unwrap().push(("shop".to_owned(), served)));
            assert_eq!(attestation.namespaces, Namespaces { total: 2, behind: vec!["shop".to_owned()] });
        }
    }

    #[test]
    fn a_cacerts_of_another_state_is_not_settled_whatever_istiod_presents() {
        let (attestation, _) = why(|sight| sight.published.as_mut().unwrap().state = None);
        assert_eq!((attestation.state, attestation.istiods.settled), (None, 2));
    }

    #[test]
    fn a_cluster_is_ready_for_a_signer_if_its_gate_can_have_one_and_can_see_that_it_is_taken_up() {
        let roots = RECORD.roots();
        let look = |engine: Result<(), String>, change: &dyn Fn(&mut Sight)| {
            let mut sight = sight();
            change(&mut sight);
            let said = Witness { cluster: "nas", version: "0" }.readiness(Some(roots), 1, engine, &sight, now());
            assert_eq!((said.state, said.settled, said.ready), (None, None, said.why.is_none()));
            said
        };
        let ready = look(Ok(()), &|_| {});
        assert!(ready.ready && ready.istiods.settled == 2 && ready.namespaces.total == 1);
        // What istiod presents is not asked for: it signs by the shared CA.
        assert!(look(Ok(()), &|sight| sight.istiods.as_mut().unwrap()[0].1 = Ok(Vec::new())).ready);
        let not = |engine, change: &dyn Fn(&mut Sight)| look(engine, change).why.unwrap();
        assert_eq!(not(Err("no engine".to_owned()), &|_| {}), "no engine");
        assert_eq!(not(Ok(()), &|sight| sight.not_ours = Some("somebody else's")), "somebody else's");
        assert!(not(Ok(()), &|sight| sight.published = None).contains("cacerts"));
        assert!(not(Ok(()), &|sight| sight.published.as_mut().unwrap().roots = [OTHER].into()).contains("cacerts"));
        assert_eq!(not(Ok(()), &|sight| sight.istiods = Err("refused".to_owned())), "refused");
        assert_eq!(not(Ok(()), &|sight| sight.istiods = Ok(Vec::new())), "no istiod runs");
        assert_eq!(not(Ok(()), &|sight| sight.namespaces = Err("refused".to_owned())), "refused");
        let silent = look(Ok(()), &|sight| sight.istiods.as_mut().unwrap()[1].1 = Err("no answer".to_owned()));
        assert_eq!((silent.istiods.behind, silent.why.as_deref()), (vec!["istiod-2".to_owned()], Some("no answer")));
        // Where Vault has no root at all there is none to compare with.
        let mut bare = sight();
        bare.published = None;
        assert!(Witness { cluster: "nas", version: "0" }.readiness(None, 0, Ok(()), &bare, now()).ready);
    }

    #[test]
    fn it_keeps_its_time_as_long_as_somebody_has_looked() {
        let first = attest(&sight(), None, now());
        let second = attest(&sight(), Some(&first), now() + MINUTE * 4);
        assert_eq!(second.settled, Some(now()));
        let third = attest(&sight(), Some(&second), now() + MINUTE * 8);
        assert_eq!(third.settled, Some(now()));
        let away = attest(&sight(), Some(&third), now() + MINUTE * 14);
        assert_eq!(away.settled, Some(now() + MINUTE * 14));
    }

    #[test]
    fn it_starts_anew_after_a_break_and_after_a_publication_for_the_same_state() {
        let first = attest(&sight(), None, now());
        let mut broken = sight();
        broken.istiods.as_mut().unwrap()[0].1 = Ok(vec![OTHER]);
        let broken = attest(&broken, Some(&first), now() + MINUTE);
        assert_eq!(attest(&sight(), Some(&broken), now() + MINUTE * 2).settled, Some(now() + MINUTE * 2));

        let mut anew = sight();
        anew.published.as_mut().unwrap().signer = signer(OTHER);
        anew.istiods = Ok(vec![("istiod-1".to_owned(), Ok(vec![OTHER]))]);
        assert_eq!(attest(&anew, Some(&first), now() + MINUTE).settled, Some(now() + MINUTE));
    }
}

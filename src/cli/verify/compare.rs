//! What was read, compared. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::life::{MeshLife, Signed, attested_place};
use crate::ca::Sha256;
use crate::cli::source::Unread;
use crate::life::attestation::Attestation;
use crate::peers::served::Root;
use crate::report::{ReportedMesh, ReportedRotation};

/// What kind of place something was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Vault's record.
    Vault,
    /// Secret `cacerts` of a cluster.
    Cacerts,
    /// ConfigMap `istio-ca-root-cert`: what istiod serves.
    Served,
    /// What a gate tells of its cluster.
    Gate,
    /// What a gate tells of Vault, where that is something else.
    GateVault,
    /// A file.
    File,
}

/// A place, and what it told.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) told: Result<Root, Unread>,
    /// What a gate tells beside that.
    pub(super) says: GateSays,
}

/// What a gate tells beside the roots of its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GateSays {
    /// What its mesh works with.
    pub(super) mesh: Option<ReportedMesh>,
    /// The change of the root that it saw.
    pub(super) rotation: Option<ReportedRotation>,
}

impl Place {
    /// A place that is no gate.
    pub(super) fn new(kind: Kind, name: impl Into<String>, told: Result<Root, Unread>) -> Self {
        Self { kind, name: name.into(), told, says: GateSays::default() }
    }
}

/// A place beside the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The same set of roots.
    Equal,
    /// The same, of a record whose root is being replaced: several, of which one goes.
    Rotating,
    /// Another set, with some of the same in it.
    Partly,
    /// Other roots.
    Differs,
    /// It could not be read.
    Unread,
}

/// What the places are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reference {
    /// Vault's roots.
    Vault,
    /// Those that most places have.
    Most {
        /// So many of them.
        have: usize,
        /// So many could be read.
        of: usize,
    },
    /// Those of the first place: no others are in more places.
    First,
}

/// The end of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Agreement {
    /// All have the same.
    Equal,
    /// Two have not, whatever the others may have.
    Differs,
    /// Some place could not be read, and no two that could be differ.
    Unknown,
}

/// All places beside the reference.
#[derive(Clone, Debug)]
pub(super) struct Comparison {
    pub(super) places: Vec<(Place, Verdict)>,
    /// None, if no place could be read.
    pub(super) reference: Option<(Reference, BTreeSet<Sha256>)>,
    /// The signers of the clusters that have their own, by who tells them.
    pub(super) signed: Vec<Signed>,
    /// The clusters that attest, by name, and how what they attest to is to the reference.
    pub(super) attested: Vec<(Attestation, Verdict)>,
    /// Why it is not known what clusters attest to.
    pub(super) unheard: Option<Unread>,
    /// The change of the root that is under way.
    pub(super) rotation: Option<ReportedRotation>,
}

impl Comparison {
    /// The same with what Vault has beside its roots. What clusters attest to is compared, too, and has no vote.
    pub(super) fn with(mut self, life: Option<MeshLife>) -> Self {
        let (Some(MeshLife { rotation, heard }), Some((_, roots))) = (life, &self.reference) else { return self };
        match heard {
            Ok(heard) => {
                // Which key of one cannot be read, `rotate status` tells.
                for (name, attestation) in heard.into_iter().filter_map(|(name, read)| Some((name, read.ok()?))) {
                    self.signed.push(Signed::attested(&attested_place(&name), &attestation));
                    let verdict = verdict(Some(&attestation.roots).filter(|roots| !roots.is_empty()), Some(roots));
                    self.attested.push((attestation, verdict));
                }
            }
            Err(unread) => self.unheard = Some(unread),
        }
        let is_between = rotation.is_some() && roots.len() > 1;
        self.rotation = rotation;
        let verdicts = self.places.iter_mut().map(|(_, verdict)| verdict);
        let verdicts = verdicts.chain(self.attested.iter_mut().map(|(_, verdict)| verdict));
        for verdict in verdicts.filter(|verdict| is_between && **verdict == Verdict::Equal) {
            *verdict = Verdict::Rotating;
        }
        self
    }

    /// What they say together.
    pub(super) fn outcome(&self) -> Agreement {
        let attested = self.attested.iter().map(|(_, verdict)| *verdict);
        let verdicts: Vec<_> = self.places.iter().map(|(_, verdict)| *verdict).chain(attested).collect();
        let any = |is: &[Verdict]| verdicts.iter().any(|verdict| is.contains(verdict));
        if any(&[Verdict::Partly, Verdict::Differs]) {
            Agreement::Differs
        } else if any(&[Verdict::Unread]) || verdicts.is_empty() {
            Agreement::Unknown
        } else {
            Agreement::Equal
        }
    }

    /// How many places got this verdict.
    pub(super) fn count(&self, is: impl Fn(Verdict) -> bool) -> usize {
        self.places.iter().filter(|(_, verdict)| is(*verdict)).count()
    }
}

pub(super) fn compare(places: Vec<Place>) -> Comparison {
    let reference = reference(&places);
    let judge = |place: Place| {
        let told = place.told.as_ref().ok().map(|root| &root.roots);
        let verdict = verdict(told, reference.as_ref().map(|(_, roots)| roots));
        (place, verdict)
    };
    let signed = places.iter().filter_map(Signed::of).collect();
    let rotation = places.iter().find_map(|place| place.says.rotation.clone());
    let places: Vec<_> = places.into_iter().map(judge).collect();
    Comparison { places, reference, signed, attested: Vec::new(), unheard: None, rotation }
}

/// How these roots are to those of the reference.
fn verdict(roots: Option<&BTreeSet<Sha256>>, reference: Option<&BTreeSet<Sha256>>) -> Verdict {
    match (roots, reference) {
        (None, _) => Verdict::Unread,
        (Some(roots), Some(reference)) if roots == reference => Verdict::Equal,
        (Some(roots), Some(reference)) if !roots.is_disjoint(reference) => Verdict::Partly,
        (Some(_), _) => Verdict::Differs,
    }
}

fn reference(places: &[Place]) -> Option<(Reference, BTreeSet<Sha256>)> {
    let vault = places.iter().find(|place| place.kind == Kind::Vault).and_then(|place| place.told.as_ref().ok());
    if let Some(root) = vault {
        return Some((Reference::Vault, root.roots.clone()));
    }
    // What a gate says of Vault is hearsay: it is shown, and has no vote.
    let voters =
        || places.iter().filter(|place| place.kind != Kind::GateVault).filter_map(|place| place.told.as_ref().ok());
    let mut votes = BTreeMap::<_, usize>::new();
    for root in voters() {
        *votes.entry(&root.roots).or_default() += 1;
    }
    let have = *votes.values().max()?;
    let first = voters().find(|root| votes.get(&root.roots) == Some(&have))?;
    let alone = votes.values().filter(|votes| **votes == have).count() == 1;
    let by = if alone { Reference::Most { have, of: voters().count() } } else { Reference::First };
    Some((by, first.roots.clone()))
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ca::fixtures::now;

    fn sha256(byte: u8) -> Sha256 {
        Sha256([byte; 32])
    }

    /// A place with these roots.
    pub(in super::super) fn place(kind: Kind, name: &str, roots: &[u8]) -> Place {
        let root = Root {
            sha256: sha256(roots[0]),
            roots: roots.iter().map(|root| sha256(*root)).collect(),
            not_after: now(),
            usable_until: None,
            subject: Some(format!("CN=Root {}", roots[0])),
            signer: None,
        };
        Place::new(kind, name, Ok(root))
    }

    /// A place that cannot be read.
    pub(in super::super) fn silent(kind: Kind, name: &str) -> Place {
        Place::new(kind, name, Err(Unread::new("no answer within 5s")))
    }

    fn file(roots: &[u8]) -> Place {
        place(Kind::File, "file", roots)
    }

    fn verdicts(comparison: &Comparison) -> Vec<Verdict> {
        comparison.places.iter().map(|(_, verdict)| *verdict).collect()
    }

    fn by(comparison: &Comparison) -> Reference {
        comparison.reference.as_ref().unwrap().0
    }

    use Verdict::{Differs, Equal, Partly};

    #[test]
    fn places_with_the_same_set_of_roots_are_equal_whatever_their_order() {
        let comparison = compare(vec![file(&[1, 2]), file(&[2, 1])]);
        assert_eq!(verdicts(&comparison), [Equal, Equal]);
        assert_eq!((comparison.outcome(), by(&comparison)), (Agreement::Equal, Reference::Most { have: 2, of: 2 }));
        assert_eq!(compare(vec![file(&[1])]).outcome(), Agreement::Equal);
    }

    #[test]
    fn a_part_of_the_roots_is_not_all_of_them() {
        for (one, other) in [(&[1, 2][..], &[1][..]), (&[1], &[1, 2]), (&[1, 2], &[2, 3])] {
            let comparison = compare(vec![file(one), file(one), file(other)]);
            assert_eq!(verdicts(&comparison), [Equal, Equal, Partly]);
            assert_eq!(comparison.outcome(), Agreement::Differs);
        }
    }

    #[test]
    fn what_most_places_have_is_the_reference() {
        let comparison = compare(vec![file(&[1]), file(&[2]), file(&[2])]);
        assert_eq!(verdicts(&comparison), [Differs, Equal, Equal]);
        assert_eq!((comparison.outcome(), by(&comparison)), (Agreement::Differs, Reference::Most { have: 2, of: 3 }));
    }

    #[test]
    fn without_a_majority_the_first_place_is_the_reference() {
        let comparison = compare(vec![file(&[3]), file(&[1]), file(&[3]), file(&[1]), file(&[2])]);
        assert_eq!(verdicts(&comparison), [Equal, Differs, Equal, Differs, Differs]);
        assert_eq!((comparison.outcome(), by(&comparison)), (Agreement::Differs, Reference::First));
    }

    #[test]
    fn vault_is_the_reference_against_any_majority() {
        let vault = place(Kind::Vault, "vault", &[1]);
        let comparison = compare(vec![file(&[2]), file(&[2]), vault]);
        assert_eq!(verdicts(&comparison), [Differs, Differs, Equal]);
        assert_eq!(by(&comparison), Reference::Vault);
    }

    #[test]
    fn a_vault_that_cannot_be_read_is_no_reference() {
        let comparison = compare(vec![silent(Kind::Vault, "vault"), file(&[1]), file(&[1])]);
        assert_eq!(verdicts(&comparison), [Verdict::Unread, Equal, Equal]);
        assert_eq!((comparison.outcome(), by(&comparison)), (Agreement::Unknown, Reference::Most { have: 2, of: 2 }));
    }

    #[test]
    fn what_a_gate_says_of_vault_has_no_vote_but_counts_as_different() {
        let said = |roots| place(Kind::GateVault, "gate", roots);
        let comparison = compare(vec![said(&[2]), said(&[2]), place(Kind::Gate, "gate", &[1])]);
        assert_eq!(verdicts(&comparison), [Differs, Differs, Equal]);
        assert_eq!((comparison.outcome(), by(&comparison)), (Agreement::Differs, Reference::Most { have: 1, of: 1 }));
    }

    /// Vault's life with this rotation, in which these clusters attest to these roots.
    pub(in super::super) fn life(rotation: Option<ReportedRotation>, clusters: &[(&str, &[u8])]) -> MeshLife {
        let attests = |(name, roots): &(&str, &[u8])| {
            let roots = roots.iter().map(|root| sha256(*root)).collect();
            ((*name).to_owned(), Ok(Attestation { roots, ..crate::samples::attestation(name, now()) }))
        };
        MeshLife { rotation, heard: Ok(clusters.iter().map(attests).collect()) }
    }

    /// A change of the root that comes to its drop.
    pub(in super::super) fn rotation() -> ReportedRotation {
        let rotation = crate::samples::rotation();
        let next = Some(crate::life::rule::Step::Drop);
        let not_before = Some(now() + k8s_openapi::jiff::SignedDuration::from_hours(2));
        (&crate::life::course::Course { rotation, goal: Some(sha256(2)), next, not_before }).into()
    }

    #[test]
    fn what_clusters_attest_to_is_compared_with_vaults_and_has_no_vote() {
        let with = |clusters: &[(&str, &[u8])]| {
            compare(vec![place(Kind::Vault, "vault", &[1]), file(&[1])]).with(Some(life(None, clusters)))
        };
        for (clusters, outcome) in [
            (&[("nas", &[1][..])][..], Agreement::Equal),
            (&[("nas", &[1]), ("homelab", &[1, 2])], Agreement::Differs),
            (&[("nas", &[2]), ("homelab", &[2])], Agreement::Differs),
            // A cluster without a sound cacerts.
            (&[("nas", &[])], Agreement::Unknown),
        ] {
            let comparison = with(clusters);
            assert_eq!((comparison.outcome(), by(&comparison)), (outcome, Reference::Vault));
            assert_eq!((comparison.attested.len(), comparison.signed.len()), (clusters.len(), clusters.len()));
        }
    }

    #[test]
    fn a_bundle_that_is_the_records_is_rotating_while_a_root_is_replaced_and_another_one_is_not() {
        let vault = |roots| place(Kind::Vault, "vault", roots);
        let rotating = |places| compare(places).with(Some(life(Some(rotation()), &[("nas", &[1, 2])])));
        let all = rotating(vec![vault(&[1, 2]), file(&[1, 2])]);
        assert_eq!(verdicts(&all), [Verdict::Rotating, Verdict::Rotating]);
        assert_eq!((all.outcome(), all.attested[0].1), (Agreement::Equal, Verdict::Rotating));
        let behind = rotating(vec![vault(&[1, 2]), file(&[1])]);
        assert_eq!((verdicts(&behind)[1], behind.outcome()), (Partly, Agreement::Differs));
        // One root alone is as ever.
        let one = compare(vec![vault(&[1])]).with(Some(life(Some(rotation()), &[("nas", &[1])])));
        assert_eq!((verdicts(&one)[0], one.outcome()), (Equal, Agreement::Equal));
    }

    #[test]
    fn a_vault_that_does_not_tell_what_clusters_attest_to_changes_no_outcome() {
        let silent = MeshLife { rotation: None, heard: Err(Unread::new("no right")) };
        let comparison = compare(vec![place(Kind::Vault, "vault", &[1])]).with(Some(silent));
        assert_eq!(comparison.outcome(), Agreement::Equal);
        assert!(comparison.unheard.is_some());
    }

    #[test]
    fn a_place_that_cannot_be_read_leaves_equality_open_and_a_difference_certain() {
        let silent = || silent(Kind::File, "file");
        assert_eq!(compare(vec![file(&[1]), silent()]).outcome(), Agreement::Unknown);
        assert_eq!(compare(vec![file(&[1]), silent(), file(&[2])]).outcome(), Agreement::Differs);
        let nothing = compare(vec![silent(), silent()]);
        assert_eq!((nothing.outcome(), nothing.reference), (Agreement::Unknown, None));
        assert_eq!(compare(Vec::new()).outcome(), Agreement::Unknown);
    }
}

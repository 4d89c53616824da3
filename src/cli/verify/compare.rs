//! What was read, compared. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::ca::Sha256;
use crate::cli::source::Unread;
use crate::peers::served::Root;

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
}

/// A place beside the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The same set of roots.
    Equal,
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
    pub(super) outcome: Agreement,
}

impl Comparison {
    /// How many places got this verdict.
    pub(super) fn count(&self, is: impl Fn(Verdict) -> bool) -> usize {
        self.places.iter().filter(|(_, verdict)| is(*verdict)).count()
    }
}

pub(super) fn compare(places: Vec<Place>) -> Comparison {
    let reference = reference(&places);
    let verdict = |place: &Place| match (&place.told, &reference) {
        (Ok(root), Some((_, roots))) if root.roots == *roots => Verdict::Equal,
        (Ok(root), Some((_, roots))) if !root.roots.is_disjoint(roots) => Verdict::Partly,
        (Ok(_), _) => Verdict::Differs,
        (Err(_), _) => Verdict::Unread,
    };
    let places: Vec<_> = places.into_iter().map(|place| (verdict(&place), place)).map(|(v, p)| (p, v)).collect();
    let any = |is: &[Verdict]| places.iter().any(|(_, verdict)| is.contains(verdict));
    let outcome = if any(&[Verdict::Partly, Verdict::Differs]) {
        Agreement::Differs
    } else if any(&[Verdict::Unread]) || places.is_empty() {
        Agreement::Unknown
    } else {
        Agreement::Equal
    };
    Comparison { places, reference, outcome }
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
        Place { kind, name: name.to_owned(), told: Ok(root) }
    }

    /// A place that cannot be read.
    pub(in super::super) fn silent(kind: Kind, name: &str) -> Place {
        Place { kind, name: name.to_owned(), told: Err(Unread::new("no answer within 5s")) }
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
        assert_eq!((comparison.outcome, by(&comparison)), (Agreement::Equal, Reference::Most { have: 2, of: 2 }));
        assert_eq!(compare(vec![file(&[1])]).outcome, Agreement::Equal);
    }

    #[test]
    fn a_part_of_the_roots_is_not_all_of_them() {
        for (one, other) in [(&[1, 2][..], &[1][..]), (&[1], &[1, 2]), (&[1, 2], &[2, 3])] {
            let comparison = compare(vec![file(one), file(one), file(other)]);
            assert_eq!(verdicts(&comparison), [Equal, Equal, Partly]);
            assert_eq!(comparison.outcome, Agreement::Differs);
        }
    }

    #[test]
    fn what_most_places_have_is_the_reference() {
        let comparison = compare(vec![file(&[1]), file(&[2]), file(&[2])]);
        assert_eq!(verdicts(&comparison), [Differs, Equal, Equal]);
        assert_eq!((comparison.outcome, by(&comparison)), (Agreement::Differs, Reference::Most { have: 2, of: 3 }));
    }

    #[test]
    fn without_a_majority_the_first_place_is_the_reference() {
        let comparison = compare(vec![file(&[3]), file(&[1]), file(&[3]), file(&[1]), file(&[2])]);
        assert_eq!(verdicts(&comparison), [Equal, Differs, Equal, Differs, Differs]);
        assert_eq!((comparison.outcome, by(&comparison)), (Agreement::Differs, Reference::First));
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
        assert_eq!((comparison.outcome, by(&comparison)), (Agreement::Unknown, Reference::Most { have: 2, of: 2 }));
    }

    #[test]
    fn what_a_gate_says_of_vault_has_no_vote_but_counts_as_different() {
        let said = |roots| place(Kind::GateVault, "gate", roots);
        let comparison = compare(vec![said(&[2]), said(&[2]), place(Kind::Gate, "gate", &[1])]);
        assert_eq!(verdicts(&comparison), [Differs, Differs, Equal]);
        assert_eq!((comparison.outcome, by(&comparison)), (Agreement::Differs, Reference::Most { have: 1, of: 1 }));
    }

    #[test]
    fn a_place_that_cannot_be_read_leaves_equality_open_and_a_difference_certain() {
        let silent = || silent(Kind::File, "file");
        assert_eq!(compare(vec![file(&[1]), silent()]).outcome, Agreement::Unknown);
        assert_eq!(compare(vec![file(&[1]), silent(), file(&[2])]).outcome, Agreement::Differs);
        let nothing = compare(vec![silent(), silent()]);
        assert_eq!((nothing.outcome, nothing.reference), (Agreement::Unknown, None));
        assert_eq!(compare(Vec::new()).outcome, Agreement::Unknown);
    }
}

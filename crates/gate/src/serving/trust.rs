//! Which CAs the API server trusts, and since when: what the webhook configurations have in `caBundle`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::ca::CaCertificate;
use crate::ca::Sha256;

/// The two webhook configurations that the API server may call this service by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Configured {
    /// The ValidatingWebhookConfiguration.
    Validating,
    /// The MutatingWebhookConfiguration.
    Mutating,
}

/// What was seen of both.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    validating: Trusts,
    mutating: Trusts,
}

#[derive(Clone, Debug, Default)]
enum Trusts {
    /// Nothing yet.
    #[default]
    Unknown,
    /// It is not there, so that nobody calls by it.
    Absent,
    Bundles {
        /// In the `caBundle` of every webhook.
        trusted: BTreeSet<Sha256>,
        /// Since when. It survives a `caBundle` that was stripped and injected again, as no CA was preferred to another.
        since: BTreeMap<Sha256, Instant>,
    },
}

impl Trust {
    /// The configuration is not there.
    pub fn absent(&mut self, which: Configured) {
        *self.sight(which) = Trusts::Absent;
    }

    /// The configuration has these, one for each webhook.
    pub fn bundles<'a>(&mut self, which: Configured, bundles: impl Iterator<Item = &'a [u8]>, now: Instant) {
        let before = match std::mem::take(self.sight(which)) {
            Trusts::Bundles { since, .. } => since,
            Trusts::Unknown | Trusts::Absent => BTreeMap::new(),
        };
        let each: Option<Vec<BTreeSet<Sha256>>> = bundles.map(readable).collect();
        *self.sight(which) = match each {
            // Without webhooks it calls nobody, either.
            Some(each) if each.is_empty() => Trusts::Absent,
            None => Trusts::Bundles { trusted: BTreeSet::new(), since: before },
            Some(each) => {
                let trusted = each.into_iter().reduce(|all, one| &all & &one).unwrap_or_default();
                let since = trusted.iter().map(|id| (*id, before.get(id).copied().unwrap_or(now))).collect();
                Trusts::Bundles { trusted, since }
            }
        };
    }

    /// Whether whoever may call has trusted this CA for so long.
    pub fn has_settled(&self, id: &Sha256, settle: Duration, now: Instant) -> bool {
        [&self.validating, &self.mutating].into_iter().all(|sight| match sight {
            Trusts::Unknown => false,
            Trusts::Absent => true,
            Trusts::Bundles { trusted, since } => {
                trusted.contains(id) && since.get(id).is_some_and(|since| now.duration_since(*since) >= settle)
            }
        })
    }

    fn sight(&mut self, which: Configured) -> &mut Trusts {
        match which {
            Configured::Validating => &mut self.validating,
            Configured::Mutating => &mut self.mutating,
        }
    }
}

/// The CAs of a `caBundle`. `None`: it has none, or cannot be read.
fn readable(bundle: &[u8]) -> Option<BTreeSet<Sha256>> {
    let ids: BTreeSet<_> = CaCertificate::all_of(bundle).ok()?.into_iter().map(|ca| ca.id).collect();
    (!ids.is_empty()).then_some(ids)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::jiff::{SignedDuration, Timestamp};

    use super::super::ServingCa;
    use super::*;

    const SETTLE: Duration = Duration::from_secs(10);

    struct Seen {
        trust: Trust,
        began: Instant,
    }

    impl Seen {
        /// Without a MutatingWebhookConfiguration.
        fn new() -> Self {
            let mut trust = Trust::default();
            trust.absent(Configured::Mutating);
            Self { trust, began: Instant::now() }
        }

        fn at(&mut self, second: u64, bundles: &[&str]) {
            let bundles = bundles.iter().map(|bundle| bundle.as_bytes());
            self.trust.bundles(Configured::Validating, bundles, self.began + Duration::from_secs(second));
        }

        fn settled(&self, ca: &ServingCa, second: u64) -> bool {
            self.trust.has_settled(&ca.certificate().id, SETTLE, self.began + Duration::from_secs(second))
        }
    }

    fn ca() -> ServingCa {
        ServingCa::make(Timestamp::UNIX_EPOCH, SignedDuration::from_hours(1)).unwrap()
    }

    #[test]
    fn a_ca_has_settled_once_every_webhook_has_had_it_for_so_long() {
        let (old, new) = (ca(), ca());
        let (before, after) = (old.certificate_pem(), [old.certificate_pem(), new.certificate_pem()].concat());
        let mut seen = Seen::new();
        seen.at(0, &[before, before]);
        seen.at(20, &[&after, before]);
        assert!(seen.settled(&old, 20) && !seen.settled(&new, 40));
        seen.at(40, &[&after, &after]);
        assert!(!seen.settled(&new, 49) && seen.settled(&new, 50) && seen.settled(&old, 40));
        seen.at(60, &[before, before]);
        assert!(!seen.settled(&new, 90) && seen.settled(&old, 60));
    }

    #[test]
    fn a_stripped_bundle_does_not_start_the_time_anew_but_nobody_is_trusted_meanwhile() {
        let ca = ca();
        let mut seen = Seen::new();
        seen.at(0, &[ca.certificate_pem()]);
        for stripped in ["", "garbage"] {
            seen.at(12, &[ca.certificate_pem(), stripped]);
            assert!(!seen.settled(&ca, 12));
        }
        seen.at(13, &[ca.certificate_pem()]);
        assert!(seen.settled(&ca, 13));
    }

    #[test]
    fn both_configurations_count_and_an_absent_one_calls_nobody() {
        let ca = ca();
        let mut seen = Seen { trust: Trust::default(), began: Instant::now() };
        seen.at(0, &[ca.certificate_pem()]);
        assert!(!seen.settled(&ca, 99), "the other one is not known yet");
        seen.trust.absent(Configured::Mutating);
        assert!(seen.settled(&ca, 99));
        seen.trust.bundles(Configured::Mutating, std::iter::empty(), seen.began);
        assert!(seen.settled(&ca, 99));
        seen.trust.absent(Configured::Validating);
        assert!(seen.settled(&ca, 0));
    }
}

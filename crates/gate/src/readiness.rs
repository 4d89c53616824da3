//! What must have happened once before this replica can answer admission.

use std::sync::atomic::{AtomicU8, Ordering};

/// A part of readiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Part {
    /// The serving certificate is loaded.
    Tls = 1,
    /// `caBundle` is in the ValidatingWebhookConfiguration, or not ours to inject.
    ValidatingCaBundle = 2,
    /// Likewise for the MutatingWebhookConfiguration.
    MutatingCaBundle = 4,
    /// The first list of `cacerts` was answered, if only by a refusal.
    Cacerts = 8,
    /// It is known whether this cluster was consulted before.
    Consulted = 16,
}

impl Part {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Tls, "serving certificate"),
        (Self::ValidatingCaBundle, "caBundle of the ValidatingWebhookConfiguration"),
        (Self::MutatingCaBundle, "caBundle of the MutatingWebhookConfiguration"),
        (Self::Cacerts, "first look at cacerts"),
        (Self::Consulted, "first look at pin and blocked owners"),
    ];
}

/// Set while ending.
const ENDING: u8 = 128;

/// Which parts are done.
#[derive(Debug, Default)]
pub struct Readiness(AtomicU8);

impl Readiness {
    /// A part is done, for good.
    pub fn done(&self, part: Part) {
        self.0.fetch_or(part as u8, Ordering::AcqRel);
    }

    /// This process is about to end: send it nothing more.
    pub fn ending(&self) {
        self.0.fetch_or(ENDING, Ordering::AcqRel);
    }

    /// Whether this process is about to end.
    pub fn is_ending(&self) -> bool {
        self.0.load(Ordering::Acquire) & ENDING != 0
    }

    /// What keeps it from being ready.
    pub fn missing(&self) -> Vec<&'static str> {
        let done = self.0.load(Ordering::Acquire);
        if done & ENDING != 0 {
            return vec!["it is shutting down"];
        }
        Part::ALL.iter().filter(|(part, _)| done & *part as u8 == 0).map(|(_, name)| *name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_nothing_is_missing_until_the_end() {
        let readiness = Readiness::default();
        assert_eq!(readiness.missing().len(), 5);
        for (part, _) in Part::ALL {
            readiness.done(part);
        }
        assert!(readiness.missing().is_empty());
        readiness.ending();
        assert_eq!(readiness.missing(), ["it is shutting down"]);
    }
}

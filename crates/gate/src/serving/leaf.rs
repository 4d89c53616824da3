//! The certificate in use. Handshakes take whichever it is at their time.

use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::ca::ServingCa;

/// A certificate with its key, and its dates.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    /// It is dated back.
    pub(super) made: Timestamp,
}

impl Leaf {
    /// Whether it needs no other yet: not before two thirds of its life, but also where the clock says that it is from
    /// the future. By the wall clock: a suspended machine ages too.
    fn is_fresh(&self, now: Timestamp) -> bool {
        let due = self.not_after - self.not_after.duration_since(self.made.min(self.not_after)) / 3;
        self.not_before <= now && now < due
    }
}

/// What handshakes are answered by. Without a certificate they fail.
#[derive(Debug, Default)]
pub struct Serving(Mutex<Option<Leaf>>);

impl Serving {
    /// Issues a first leaf for these names.
    ///
    /// # Errors
    /// In words, if a name cannot be in a certificate.
    pub fn issue(ca: &ServingCa, names: &[String], now: Timestamp, life: SignedDuration) -> Result<Arc<Self>, String> {
        let serving = Self::default();
        serving.renew(ca, names, now, life)?;
        Ok(Arc::new(serving))
    }

    /// Puts a new leaf by this CA in use.
    ///
    /// # Errors
    /// In words, if there can be none; then the last one stays.
    pub fn renew(&self, ca: &ServingCa, names: &[String], now: Timestamp, life: SignedDuration) -> Result<(), String> {
        self.put(ca.leaf(names, now, life)?);
        Ok(())
    }

    /// The end of the certificate in use.
    pub fn not_after(&self) -> Option<Timestamp> {
        self.look(|leaf| leaf.not_after)
    }

    /// Whether the certificate in use needs no other yet.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        self.look(|leaf| leaf.is_fresh(now)).unwrap_or_default()
    }

    pub(super) fn put(&self, leaf: Leaf) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(leaf);
    }

    pub(super) fn look<T>(&self, at: impl FnOnce(&Leaf) -> T) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(at)
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.look(|leaf| Arc::clone(&leaf.certified))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::ca::BACKDATE;
    use super::*;

    #[test]
    fn a_leaf_is_renewed_at_two_thirds_of_its_life_and_if_it_is_from_the_future() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let (hour, second) = (SignedDuration::from_hours(1), SignedDuration::from_secs(1));
        let ca = ServingCa::make(now, hour * 24).unwrap();
        let serving = Serving::issue(&ca, &["gate.test".to_owned()], now, hour * 3).unwrap();
        for (at, fresh) in [
            (now, true),
            (now + hour * 2 - second, true),
            (now + hour * 2, false),
            (now + hour * 24 * 3650, false),
            // A clock that is put back a little is what the leaf is dated back for.
            (now - BACKDATE, true),
            (now - BACKDATE - second, false),
        ] {
            assert_eq!(serving.is_fresh(at), fresh, "{at}");
        }
        assert_eq!(serving.not_after(), Some(now + hour * 3));
    }

    #[test]
    fn without_a_leaf_there_is_none_to_keep() {
        let serving = Serving::default();
        assert_eq!((serving.not_after(), serving.is_fresh(Timestamp::UNIX_EPOCH)), (None, false));
    }
}

//! When a signer is to be certified anew.

use jiff::{SignedDuration, Timestamp};

use super::super::Sha256;
use super::SigningCa;

/// Clusters come at different times of a day, so that they do not all come to Vault at once.
const JITTER: SignedDuration = SignedDuration::from_hours(24);

/// From two thirds of its life on, and as much later, within a day, as the cluster's name says. Of a short life it is
/// never more than a tenth.
pub fn renewal_due(signer: &SigningCa, cluster: &str) -> Timestamp {
    let life = signer.valid_until.duration_since(signer.valid_from);
    let jitter = JITTER.min(life / 10).as_secs().max(0).unsigned_abs();
    let [first, second, third, fourth, ..] = Sha256::of(cluster.as_bytes()).0;
    let share = u64::from(u32::from_be_bytes([first, second, third, fourth]));
    let later = SignedDuration::from_secs(((jitter * share) >> 32).cast_signed());
    signer.valid_from.saturating_add(life / 3 * 2 + later).unwrap_or(Timestamp::MAX)
}

//! Two clocks at once: one that may be set, and one that may not and goes on while the machine is suspended.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustix::time::{ClockId, clock_gettime};

/// On Linux the monotonic clock stands still while the machine is suspended; elsewhere it goes on, and there is no other.
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

/// How far the clocks of machines differ without anybody being wrong.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// Since the machine started, times of suspension included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Boot(pub Duration);

impl Boot {
    /// Now.
    pub fn now() -> Self {
        let time = clock_gettime(CLOCK);
        // Neither is ever negative on this clock.
        Self(Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default()))
    }

    /// How long ago `then` was.
    pub fn since(self, then: Self) -> Duration {
        self.0.saturating_sub(then.0)
    }

    /// So much later.
    #[must_use]
    pub fn plus(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}

/// One moment by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// What certificates and other machines go by.
    pub wall: Timestamp,
    /// What nobody sets.
    pub boot: Boot,
}

impl Clocks {
    /// Now.
    pub fn now() -> Self {
        Self { wall: Timestamp::now(), boot: Boot::now() }
    }

    /// The moment of a date that was read now: another process, or another machine, wrote it down.
    pub fn of_date(self, date: Timestamp) -> Self {
        let age = Duration::try_from(self.wall.duration_since(date)).unwrap_or_default();
        Self { wall: date, boot: Boot(self.boot.0.saturating_sub(age)) }
    }

    /// How long ago `then` was: by whichever clock says more, so that a clock set back makes nothing younger. `None` if
    /// by the wall it lies in the future by more than clocks differ: that proves nothing about age.
    pub fn age(self, then: Self) -> Option<SignedDuration> {
        let by_wall = self.wall.duration_since(then.wall);
        let by_boot = SignedDuration::try_from(self.boot.since(then.boot)).unwrap_or(SignedDuration::MAX);
        (by_wall >= -SKEW).then_some(by_wall.max(by_boot))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::ca::fixtures::now;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    fn start() -> Clocks {
        Clocks { wall: now(), boot: Boot(Duration::from_secs(100_000)) }
    }

    /// So much later by the wall, and by the other.
    fn later(wall: SignedDuration, boot: u64) -> Clocks {
        Clocks { wall: start().wall + wall, boot: start().boot.plus(Duration::from_secs(boot)) }
    }

    #[test]
    fn of_two_ages_the_older_counts() {
        assert_eq!(later(HOUR, 3600).age(start()), Some(HOUR));
        assert_eq!(later(HOUR * 2, 3600).age(start()), Some(HOUR * 2));
        assert_eq!(later(HOUR, 7200).age(start()), Some(HOUR * 2));
    }

    #[test]
    fn a_wall_clock_that_is_set_back_makes_nothing_younger() {
        assert_eq!(later(SignedDuration::from_secs(-60), 7200).age(start()), Some(HOUR * 2));
        assert_eq!(later(SignedDuration::ZERO, 7200).age(start()), Some(HOUR * 2));
    }

    #[test]
    fn what_lies_in_the_future_by_more_than_clocks_differ_has_no_age() {
        assert_eq!(later(SignedDuration::from_mins(-5), 0).age(start()), Some(SignedDuration::ZERO));
        assert_eq!(later(SignedDuration::from_secs(-301), 0).age(start()), None);
        assert_eq!(later(SignedDuration::from_secs(-301), 7200).age(start()), None);
    }

    #[test]
    fn a_date_that_was_read_grows_old_although_the_wall_clock_is_set_back() {
        let read = start().of_date(start().wall - HOUR);
        assert_eq!(start().age(read), Some(HOUR));
        // An hour later by the one, and none by the other.
        assert_eq!(later(SignedDuration::ZERO, 3600).age(read), Some(HOUR * 2));
        assert_eq!(later(-HOUR, 3600).age(read), Some(HOUR * 2));
    }

    #[test]
    fn a_date_in_the_future_or_from_before_the_machine_started_is_taken_as_it_is() {
        let ahead = start().of_date(start().wall + SignedDuration::from_secs(60));
        assert_eq!(later(SignedDuration::ZERO, 7).age(ahead), Some(SignedDuration::from_secs(7)));
        let ancient = start().of_date(start().wall - HOUR * 1000);
        assert_eq!((start().age(ancient), ancient.boot), (Some(HOUR * 1000), Boot(Duration::ZERO)));
    }

    #[test]
    fn the_clock_that_nobody_sets_goes_on() {
        let before = Boot::now();
        assert!(before.0 > Duration::ZERO && Boot::now() >= before);
    }
}

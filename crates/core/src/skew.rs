//! Whether this clock is right, by the clocks of those whom it asks. A root that is made by a wrong one is not valid
//! elsewhere, and what is judged by one is judged wrongly. Pure.

use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};

use crate::reason::{ByItself, Held, Reason};

/// So far may clocks differ: what Kerberos and the strict check allow, too.
pub const SKEW_MAX: SignedDuration = SignedDuration::from_mins(5);

/// The time of a `Date` header.
pub fn http_date(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

/// How far the clocks of others are ahead of this one, as far as they tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ahead {
    /// Vault's.
    pub vault: Option<SignedDuration>,
    /// The API server's.
    pub api: Option<SignedDuration>,
}

impl Ahead {
    /// Holds where one of them differs, with the one that is the likeliest to be wrong.
    ///
    /// # Errors
    /// `ClockWrong`.
    pub fn judge(&self) -> Result<(), Held> {
        let off = |ahead: Option<SignedDuration>| ahead.filter(|ahead| ahead.abs() > SKEW_MAX);
        let (what, next) = match (off(self.vault), off(self.api)) {
            (None, None) => return Ok(()),
            (Some(vault), Some(api)) => off_from_both(vault, api),
            (Some(vault), None) => off_from_vault(vault, self.api.is_some()),
            (None, Some(api)) => off_from_api(api, self.vault.is_some()),
        };
        Err(Held::new(Reason::ClockWrong, what, next, ByItself::Unsaid))
    }

    /// Holds, too, where nobody tells the time: for what cannot be taken back.
    ///
    /// # Errors
    /// `ClockWrong`.
    pub fn known(&self) -> Result<(), Held> {
        if self.vault.is_none() && self.api.is_none() {
            let what = "neither Vault nor the API server tells the time, so that a root might be made for another one";
            let next = "let the Date header of their answers through";
            return Err(Held::new(Reason::ClockWrong, what, next, ByItself::Unsaid));
        }
        self.judge()
    }
}

/// How somebody else's clock is to this one.
fn ahead(ahead: SignedDuration) -> &'static str {
    if ahead.is_negative() { "behind" } else { "ahead of" }
}

/// How this clock is to somebody else's.
fn behind(ahead: SignedDuration) -> &'static str {
    if ahead.is_negative() { "ahead of" } else { "behind" }
}

/// What is wrong, and what to do.
type Fault = (String, &'static str);

fn off_from_both(vault: SignedDuration, api: SignedDuration) -> Fault {
    if (vault - api).abs() > SKEW_MAX {
        let what = "the clocks of the gate's node, of Vault and of the API server all differ by more than 5 min";
        return (what.to_owned(), "have all three set by NTP");
    }
    let what = format!(
        "the clock of the gate's node is {} that of Vault and that of the API server, which agree, by more than 5 min",
        behind(vault)
    );
    (what, "mend the clock of this node (timedatectl, chrony)")
}

fn off_from_vault(vault: SignedDuration, api_agrees: bool) -> Fault {
    if !api_agrees {
        let what = format!(
            "the clock of the gate's node is {} Vault's by more than 5 min, and nobody else tells the time",
            behind(vault)
        );
        return (what, "mend the one that is wrong");
    }
    let what = format!(
        "Vault's clock is {} that of the gate's node and that of the API server, which agree, by more than 5 min",
        ahead(vault)
    );
    (
        what,
        "mend Vault's clock; where the API server runs on the gate's own node, theirs is one clock, and it may be that one",
    )
}

fn off_from_api(api: SignedDuration, vault_agrees: bool) -> Fault {
    if !vault_agrees {
        let what = format!(
            "the clock of the gate's node is {} the API server's by more than 5 min, and Vault does not tell the time",
            behind(api)
        );
        return (what, "mend the one that is wrong");
    }
    let what = format!(
        "the API server's clock is {} that of the gate's node and that of Vault, which agree, by more than 5 min",
        ahead(api)
    );
    (what, "mend the clock of the API server's node")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::samples::assert_fit_for_users;

    fn of(vault: Option<i64>, api: Option<i64>) -> Ahead {
        Ahead { vault: vault.map(SignedDuration::from_mins), api: api.map(SignedDuration::from_mins) }
    }

    fn says(vault: Option<i64>, api: Option<i64>) -> String {
        let held = of(vault, api).judge().unwrap_err();
        assert_eq!(held.reason, Reason::ClockWrong);
        assert_fit_for_users(&held.message("nas"));
        held.sentence()
    }

    #[test]
    fn clocks_that_agree_within_five_minutes_are_right() {
        for (vault, api) in [(Some(0), Some(0)), (Some(5), Some(-5)), (None, Some(4)), (Some(-5), None), (None, None)] {
            assert_eq!(of(vault, api).judge(), Ok(()), "{vault:?} {api:?}");
        }
    }

    #[test]
    fn of_three_clocks_the_one_that_two_contradict_is_named() {
        let two_days = 2 * 24 * 60;
        assert!(
            says(Some(-two_days), Some(-two_days))
                .starts_with("the clock of the gate's node is ahead of that of Vault")
        );
        assert!(
            says(Some(two_days), Some(two_days - 3))
                .starts_with("the clock of the gate's node is behind that of Vault")
        );
        assert!(says(Some(6), Some(0)).starts_with("Vault's clock is ahead of"));
        assert!(says(Some(-6), Some(1)).starts_with("Vault's clock is behind"));
        assert!(says(Some(0), Some(-6)).starts_with("the API server's clock is behind"));
        assert!(says(Some(6), Some(-6)).contains("all differ"));
    }

    #[test]
    fn of_two_clocks_neither_is_named_as_the_wrong_one() {
        assert!(says(Some(6), None).contains("behind Vault's by more than 5 min, and nobody else tells the time"));
        assert!(says(None, Some(-6)).contains("ahead of the API server's"));
    }

    #[test]
    fn a_sentence_does_not_change_with_the_minutes() {
        assert_eq!(says(Some(600), Some(601)), says(Some(700), Some(699)));
    }

    #[test]
    fn nothing_is_made_where_nobody_tells_the_time() {
        assert_eq!(of(None, None).known().unwrap_err().reason, Reason::ClockWrong);
        assert_eq!(of(None, Some(0)).known(), Ok(()));
        assert_eq!(of(Some(0), None).known(), Ok(()));
        assert!(of(Some(6), None).known().is_err());
    }

    #[test]
    fn the_date_of_an_answer_is_read_as_http_has_it() {
        assert_eq!(http_date("Sat, 28 Nov 2026 03:22:13 GMT").unwrap().to_string(), "2026-11-28T03:22:13Z");
        for text in ["", "now", "2026-11-28T03:22:13Z"] {
            assert_eq!(http_date(text), None, "{text}");
        }
    }
}

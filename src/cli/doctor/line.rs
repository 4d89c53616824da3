//! A line of the report, and how it is shown.

use serde::Serialize;

use crate::cli::paint::{Tone, paint};
use crate::reason::{Held, Reason};

/// How a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    /// It holds.
    Ok,
    /// It holds, or cannot be looked at with the rights that are there; something about it is worth knowing.
    Note,
    /// It holds now, and something will break it, or would let it break.
    Warning,
    /// It does not hold.
    Failed,
    /// An earlier link is broken, so that it could not be looked at.
    Skipped,
}

impl Outcome {
    fn mark(self) -> (&'static str, Tone) {
        match self {
            Self::Ok => ("ok", Tone::Good),
            Self::Note => ("note", Tone::Faint),
            Self::Warning => ("warning", Tone::Doubtful),
            Self::Failed => ("FAILED", Tone::Bad),
            Self::Skipped => ("skipped", Tone::Faint),
        }
    }
}

/// One line: its names and shape are documented in docs/operate.md.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    /// The link, as docs/troubleshoot.md lists it.
    pub(super) id: &'static str,
    pub(super) outcome: Outcome,
    /// At what was looked.
    pub(super) looked: String,
    /// What was there.
    pub(super) seen: String,
    /// What to do about it.
    pub(super) next: Option<String>,
    /// The reason code that the gate has for it.
    #[serde(serialize_with = "code")]
    pub(super) reason: Option<Reason>,
}

fn code<S: serde::Serializer>(reason: &Option<Reason>, serializer: S) -> Result<S::Ok, S::Error> {
    reason.map(Reason::as_str).serialize(serializer)
}

/// A link, and at what of it was looked: a line begins with these.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) id: &'static str,
    pub(super) looked: String,
}

impl Link {
    pub(super) fn new(id: &'static str, looked: impl Into<String>) -> Self {
        Self { id, looked: looked.into() }
    }

    fn line(&self, outcome: Outcome, seen: impl Into<String>) -> Line {
        Line { id: self.id, outcome, looked: self.looked.clone(), seen: seen.into(), next: None, reason: None }
    }

    pub(super) fn ok(&self, seen: impl Into<String>) -> Line {
        self.line(Outcome::Ok, seen)
    }

    pub(super) fn note(&self, seen: impl Into<String>) -> Line {
        self.line(Outcome::Note, seen)
    }

    pub(super) fn warning(&self, seen: impl Into<String>, next: impl Into<String>) -> Line {
        self.line(Outcome::Warning, seen).next(next)
    }

    pub(super) fn failed(&self, seen: impl Into<String>, next: impl Into<String>) -> Line {
        self.line(Outcome::Failed, seen).next(next)
    }

    /// An earlier link is broken.
    pub(super) fn skipped(&self, why: &str) -> Line {
        self.line(Outcome::Skipped, format!("not looked at: {why}"))
    }

    /// RBAC, or a policy, does not let the asker look.
    pub(super) fn forbidden(&self, right: &str) -> Line {
        self.line(Outcome::Note, format!("may not be looked at: {right}"))
    }

    /// The gate's own reason. Its sentence is the cause, and after the last colon the next step.
    pub(super) fn held(&self, held: &Held) -> Line {
        let (seen, next) = held.sentence.rsplit_once(": ").unwrap_or((&held.sentence, ""));
        let next = next.trim_end_matches("; it is tried again by itself");
        let line = self.line(Outcome::Failed, seen).reason(held.reason);
        if next.is_empty() { line } else { line.next(next) }
    }
}

impl Line {
    pub(super) fn next(self, next: impl Into<String>) -> Self {
        Self { next: Some(next.into()), ..self }
    }

    pub(super) fn reason(self, reason: Reason) -> Self {
        Self { reason: Some(reason), ..self }
    }

    /// The same, and no more than a warning: another one of its kind does what it should.
    pub(super) fn at_most_a_warning(self) -> Self {
        let outcome = if self.outcome == Outcome::Failed { Outcome::Warning } else { self.outcome };
        Self { outcome, ..self }
    }

    /// One line of text.
    pub(super) fn text(&self, widest_id: usize) -> String {
        let (mark, tone) = self.outcome.mark();
        // Padded before it is painted: colours have no width.
        let (mark, id) = (paint(tone, &format!("{mark:<7}")), format!("{:<widest_id$}", self.id));
        let reason = self.reason.map(|reason| format!("{reason}: ")).unwrap_or_default();
        let next = self.next.as_ref().map(|next| format!(". Next: {next}")).unwrap_or_default();
        format!("{mark} {id}  {}: {reason}{}{next}", self.looked, self.seen)
    }
}

/// The end of the report: how many lines of which outcome.
pub(super) fn tally(lines: &[Line]) -> String {
    let count = |outcome| lines.iter().filter(|line| line.outcome == outcome).count();
    let some = |(outcome, word): (Outcome, &str)| match count(outcome) {
        0 => None,
        n => Some(format!("{n} {word}")),
    };
    let words = [
        (Outcome::Ok, "ok"),
        (Outcome::Note, "to note"),
        (Outcome::Warning, "with a warning"),
        (Outcome::Failed, "FAILED"),
        (Outcome::Skipped, "not looked at"),
    ];
    words.into_iter().filter_map(some).collect::<Vec<_>>().join(", ")
}

/// Whether the chain holds.
pub(super) fn holds(lines: &[Line]) -> bool {
    !lines.iter().any(|line| line.outcome == Outcome::Failed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn link() -> Link {
        Link::new("vault-login", "auth/kubernetes-nas")
    }

    #[test]
    fn every_id_has_its_entry_in_the_docs() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let docs = std::fs::read_to_string(folder.join("docs/troubleshoot.md")).unwrap();
        let mut ids = std::collections::BTreeSet::new();
        let parts = std::fs::read_dir(folder.join("src/cli/doctor")).unwrap().map(|part| part.unwrap().path());
        for path in parts.chain([folder.join("src/cli/doctor.rs")]) {
            let Some("rs") = path.extension().and_then(|end| end.to_str()) else { continue };
            let text = std::fs::read_to_string(&path).unwrap();
            let named = text.split("Link::new(\"").skip(1).filter_map(|rest| rest.split('"').next());
            ids.extend(named.map(str::to_owned));
        }
        // Those that are names of things, too.
        ids.extend([super::super::cluster::OWN_ROOT, super::super::cluster::SERVED_ROOT].map(str::to_owned));
        assert!(ids.len() >= 28, "{ids:?}");
        for id in ids {
            assert!(docs.contains(&format!("| `{id}` |")), "{id} has no entry in docs/troubleshoot.md");
        }
    }

    #[test]
    fn a_line_has_mark_id_what_was_looked_at_code_what_was_seen_and_what_to_do() {
        let line = link().failed("no such role", "create it").reason(Reason::VaultLoginDenied);
        let text = anstream::adapter::strip_str(&line.text(12)).to_string();
        assert_eq!(text, "FAILED  vault-login   auth/kubernetes-nas: VaultLoginDenied: no such role. Next: create it");
    }

    #[test]
    fn a_holds_sentence_is_what_was_seen_and_what_to_do() {
        let held = Held::new(
            Reason::VaultUnreachable,
            "https://v:8200 does not answer (a: b): check it; it is tried again by itself",
        );
        let line = link().held(&held);
        assert_eq!(line.seen, "https://v:8200 does not answer (a: b)");
        assert_eq!((line.next.as_deref(), line.reason), (Some("check it"), Some(Reason::VaultUnreachable)));
    }

    #[test]
    fn json_has_the_documented_keys() {
        let line = link().warning("soon", "renew");
        assert_eq!(
            serde_json::to_value(&line).unwrap(),
            serde_json::json!({
                "id": "vault-login", "outcome": "warning", "looked": "auth/kubernetes-nas",
                "seen": "soon", "next": "renew", "reason": null,
            })
        );
        let line = link().held(&Held::new(Reason::RootMissing, "a: b"));
        assert_eq!(serde_json::to_value(&line).unwrap()["reason"], "RootMissing");
    }

    #[test]
    fn only_a_failed_line_breaks_the_chain() {
        let fine = [link().ok(""), link().note(""), link().warning("", ""), link().skipped("")];
        assert!(holds(&fine));
        assert_eq!(tally(&fine), "1 ok, 1 to note, 1 with a warning, 1 not looked at");
        let broken = [link().failed("", "")];
        assert!(!holds(&broken));
        assert!(holds(&broken.map(Line::at_most_a_warning)));
    }
}

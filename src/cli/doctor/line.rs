//! A line of the report, and how it is shown.

use serde::Serialize;
use textwrap::{Options, WordSplitter};

use crate::cli::paint::{Tone, paint};
use crate::reason::{Held, Reason};

/// Of `istio-ca-root-cert`.
const WIDEST_ID: usize = 18;

/// Mark and id, and what is between.
const HEAD: usize = 7 + 1 + WIDEST_ID + 2;

/// On a narrower terminal there is no room beside mark and id.
const BESIDE_FROM: usize = 72;

/// What has to be seen if nothing is to be wrong; before an installation, the others.
const ESSENTIAL: [&str; 3] = ["vault-record", "cacerts", "webhook"];
const ESSENTIAL_BEFORE: [&str; 3] = ["vault-record", "cacerts", "istio-ca-root-cert"];

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
    /// It could not be looked at.
    #[serde(skip)]
    pub(super) unseen: bool,
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
        let looked = self.looked.clone();
        Line { id: self.id, outcome, looked, seen: seen.into(), next: None, reason: None, unseen: false }
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
        Line { unseen: true, ..self.line(Outcome::Skipped, format!("not looked at: {why}")) }
    }

    /// RBAC, or a policy, does not let the asker look.
    pub(super) fn forbidden(&self, right: &str) -> Line {
        Line { unseen: true, ..self.line(Outcome::Note, format!("may not be looked at: {right}")) }
    }

    /// The gate's own reason.
    pub(super) fn held(&self, held: &Held) -> Line {
        Line { next: held.next.clone(), ..self.line(Outcome::Failed, held.cause()).reason(held.reason) }
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

    /// On a terminal so wide it is wrapped; else it is one line, for programs and files.
    pub(super) fn shown(&self, columns: Option<usize>) -> String {
        let (mark, tone) = self.outcome.mark();
        // Padded before it is painted: colours have no width.
        let head = format!("{} {:<WIDEST_ID$}  ", paint(tone, &format!("{mark:<7}")), self.id);
        let reason = self.reason.map(|reason| format!("{reason}: ")).unwrap_or_default();
        let seen = format!("{}: {reason}{}", self.looked, self.seen);
        let next = self.next.as_ref().map(|next| format!("Next: {next}"));
        match columns {
            Some(columns) => wrapped(&head, &seen, next.as_deref(), columns),
            None => format!("{head}{seen}{}", next.map(|next| format!(". {next}")).unwrap_or_default()),
        }
    }
}

fn wrapped(head: &str, seen: &str, next: Option<&str>, columns: usize) -> String {
    let beside = columns >= BESIDE_FROM;
    let indent = " ".repeat(if beside { HEAD } else { 4 });
    let options = Options::new(columns).word_splitter(WordSplitter::NoHyphenation).subsequent_indent(&indent);
    let first = match beside {
        true => textwrap::fill(seen, options.clone().initial_indent(head)),
        false => format!("{}\n{}", head.trim_end(), textwrap::fill(seen, options.clone().initial_indent(&indent))),
    };
    let next = next.map(|next| format!("\n{}", textwrap::fill(next, options.initial_indent(&indent))));
    format!("{first}{}", next.unwrap_or_default())
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
fn holds(lines: &[Line]) -> bool {
    !lines.iter().any(|line| line.outcome == Outcome::Failed)
}

/// 1: a link FAILED. 2: none did, as far as could be seen, and that is not far enough.
pub(super) fn exit_code(lines: &[Line], before: bool) -> u8 {
    let essential = if before { ESSENTIAL_BEFORE } else { ESSENTIAL };
    let blind = lines.iter().any(|line| line.unseen && essential.contains(&line.id));
    match (holds(lines), blind) {
        (false, _) => 1,
        (true, true) => 2,
        (true, false) => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::reason::ByItself;

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
        let text = anstream::adapter::strip_str(&line.shown(None)).to_string();
        assert_eq!(
            text,
            "FAILED  vault-login         auth/kubernetes-nas: VaultLoginDenied: no such role. Next: create it"
        );
    }

    #[test]
    fn on_a_terminal_every_line_fits_and_no_word_is_lost() {
        let line = link()
            .failed(format!("no such role {}", "AB:".repeat(31)), "create it as the README says")
            .reason(Reason::VaultLoginDenied);
        for columns in [40, 72, 80, 200] {
            let text = anstream::adapter::strip_str(&line.shown(Some(columns))).to_string();
            assert!(text.lines().all(|line| line.len() <= columns), "{columns}:\n{text}");
            let words = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(
                words(&text),
                words(&anstream::adapter::strip_str(&line.shown(None)).to_string()).replace(".Next:", "Next:")
            );
        }
        let wide = anstream::adapter::strip_str(&line.shown(Some(80))).to_string();
        assert!(
            wide.starts_with("FAILED  vault-login         auth/kubernetes-nas: ")
                && wide.contains("\n                            Next: "),
            "{wide}"
        );
    }

    #[test]
    fn nothing_failed_is_success_only_where_what_matters_was_seen() {
        let of = |id: &'static str| Link::new(id, "");
        let fine = [of("vault-record").ok(""), of("cacerts").ok(""), of("webhook").warning("", "")];
        assert_eq!(exit_code(&fine, false), 0);
        assert_eq!(exit_code(&[of("gate").forbidden(""), of("istio-ca-root-cert").forbidden("")], false), 0);
        assert_eq!(exit_code(&[of("istio-ca-root-cert").forbidden("")], true), 2);
        for unseen in [of("cacerts").forbidden("no right"), of("vault-record").skipped("no login")] {
            assert_eq!(exit_code(std::slice::from_ref(&unseen), false), 2);
            assert_eq!(exit_code(&[unseen, of("gate").failed("", "")], false), 1);
        }
    }

    #[test]
    fn a_holds_sentence_is_what_was_seen_and_what_to_do() {
        let held = |by_itself| Held::new(Reason::VaultUnreachable, "it is down (a: b)", "check it: now", by_itself);
        for by_itself in [ByItself::Unsaid, ByItself::TriedWhenVaultAllows, ByItself::PodFollows] {
            let line = link().held(&held(by_itself).because("c"));
            assert_eq!(line.seen, "it is down (a: b): c");
            assert_eq!((line.next.as_deref(), line.reason), (Some("check it: now"), Some(Reason::VaultUnreachable)));
        }
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
        let line = link().held(&Held::new(Reason::RootMissing, "a", "b", ByItself::Unsaid));
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

//! What each reason code, alert and line of doctor means and what to do: docs/troubleshoot.md, in the program itself.

mod html;
mod text;

use std::borrow::Cow;

use pulldown_cmark::{Options, Parser};

pub(crate) use html::html;
pub use text::text;

/// The one source. Its shape is checked by this module's tests.
const DOCUMENT: &str = include_str!("../../../docs/troubleshoot.md");

/// Every entry of a reason code begins so.
const MEANING: &str = "**What it means.**";

/// The heading over the table of doctor's lines.
const DOCTOR: &str = "What doctor says";

/// What all alerts' names begin with.
const ALERT: &str = "IstioCaGate";

/// What a code is the name of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// Of a denial, and of all that is held.
    Reason,
    /// In the rules of component `monitoring`.
    Alert,
    /// The id of a line.
    Doctor,
}

impl Topic {
    /// For people, before the code.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reason => "reason code",
            Self::Alert => "alert",
            Self::Doctor => "line of doctor",
        }
    }
}

/// What is told of one code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The code.
    pub code: &'static str,
    /// What it is the name of.
    pub kind: Topic,
    /// Markdown.
    markdown: Cow<'static, str>,
}

impl Explanation {
    fn parsed(&self) -> Parser<'_> {
        Parser::new_ext(&self.markdown, Options::ENABLE_TABLES)
    }
}

/// All entries, in the order of the document.
pub fn entries() -> Vec<Explanation> {
    let mut entries = Vec::new();
    for (heading, body) in sections() {
        match heading.split_once(' ') {
            Some(("##", DOCTOR)) => entries.extend(body.lines().filter_map(of_doctor)),
            Some(("##", code)) if body.trim_start().starts_with(MEANING) => {
                entries.push(Explanation { code, kind: Topic::Reason, markdown: body.into() });
            }
            Some(("###", code)) if code.starts_with(ALERT) => {
                entries.push(Explanation { code, kind: Topic::Alert, markdown: body.into() });
            }
            _ => {}
        }
    }
    entries
}

/// The entry of a code, in any case of letters.
pub fn entry(code: &str) -> Option<Explanation> {
    entries().into_iter().find(|entry| entry.code.eq_ignore_ascii_case(code))
}

/// Headings with what stands below each up to the next one.
fn sections() -> impl Iterator<Item = (&'static str, &'static str)> {
    let mut fenced = false;
    let mut at = 0;
    let mut starts = Vec::new();
    for line in DOCUMENT.split_inclusive('\n') {
        fenced ^= line.starts_with("```");
        if !fenced && line.starts_with('#') {
            starts.push((at, at + line.len()));
        }
        at += line.len();
    }
    let ends: Vec<_> = starts.iter().skip(1).map(|(start, _)| *start).chain([DOCUMENT.len()]).collect();
    starts.into_iter().zip(ends).filter_map(|((start, body), end)| {
        Some((DOCUMENT.get(start..body)?.trim_end(), DOCUMENT.get(body..end)?.trim()))
    })
}

/// A row of doctor's table: id, what is looked at, what to do.
fn of_doctor(line: &'static str) -> Option<Explanation> {
    let (id, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
    // The marks are a table of their own, with two columns.
    let (looks, next) = rest.strip_suffix(" |")?.split_once(" | ")?;
    let markdown = format!("**What it looks at.** {}.\n\n**If it is not ok.** {next}", capital(looks));
    Some(Explanation { code: id, kind: Topic::Doctor, markdown: markdown.into() })
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// Where a link of the document leads.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Leads {
    /// To another entry.
    To(&'static str),
    /// Elsewhere on the same page, or to another one of docs/.
    Docs(String),
    /// To the world.
    Out,
}

fn leads(link: &str) -> Leads {
    if link.contains("://") {
        return Leads::Out;
    }
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let file = if file.is_empty() { "troubleshoot.md" } else { file };
    // GitHub's anchors of one word are that word in lower case.
    match entry(heading).filter(|entry| file == "troubleshoot.md" && entry.kind != Topic::Doctor) {
        Some(entry) => Leads::To(entry.code),
        None => Leads::Docs(format!("docs/{file}")),
    }
}

#[cfg(test)]
mod tests;

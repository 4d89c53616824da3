//! A comparison as a table and as JSON. Pure.

use std::fmt::Write;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::compare::{Agreement, Comparison, Kind, Place, Reference, Verdict};
use super::signed;
use crate::ca::Sha256;
use crate::cli::paint::{Tone, paint};
use crate::cli::table::Table;
use crate::peers::served::Root;
use crate::report::{ReportedRotation, ReportedSigner, stamp};

/// The most characters of a subject in the table: the fingerprint beside it has 95. JSON has more.
const SUBJECT_WIDTH: usize = 50;

const HEADINGS: [&str; 4] = ["PLACE", "VERDICT", "EXPIRES", "SHA-256"];
const HEADINGS_WIDE: [&str; 5] = ["PLACE", "VERDICT", "EXPIRES", "SUBJECT", "SHA-256"];

/// Pairs of digits of a fingerprint in the narrow table: eyes compare no more, and the verdict goes by all of it.
const SHORT: usize = 4;

/// How long before the end a person should know of it; the alerts begin then, too.
const SOON: SignedDuration = SignedDuration::from_hours(90 * 24);

/// Stands where there is nothing to tell.
pub(super) const NOTHING: &str = "-";

/// How much room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// At most so many columns: fingerprints are short, days have no hours, and subjects are left out.
    Columns(usize),
    /// As much as it needs.
    Wide,
}

impl Width {
    /// How many columns, where that is bounded.
    pub(super) const fn columns(self) -> Option<usize> {
        match self {
            Self::Columns(columns) => Some(columns),
            Self::Wide => None,
        }
    }
}

/// For people. What cannot be read is told below the table, with what to do.
pub(super) fn table(comparison: &Comparison, now: Timestamp, width: Width) -> String {
    let mut table = Table::new(if width == Width::Wide { &HEADINGS_WIDE } else { &HEADINGS });
    for (place, verdict) in &comparison.places {
        let row = row(place, *verdict, now, width);
        table.push(row.into_iter().map(|(cell, tone)| tone.map_or(cell.clone(), |tone| paint(tone, &cell))));
    }
    let mut text = table.text(width.columns());
    for (place, _) in &comparison.places {
        if let Err(unread) = &place.told {
            let _ = write!(text, "\n{}: {unread}", place.name);
        }
    }
    let signed = signed::table(comparison, width);
    if !signed.is_empty() {
        let _ = write!(text, "\n{signed}");
    }
    for (tone, line) in signed::lines(comparison, now).into_iter().chain([summary(comparison)]) {
        let _ = write!(text, "\n{}", paint(tone, &line));
    }
    text + "\n"
}

/// Between one comparison and the next.
pub(super) fn separator(now: Timestamp) -> String {
    format!("{}\n", paint(Tone::Faint, &format!("--- {}", stamp(now))))
}

type Cell = (String, Option<Tone>);

fn row(place: &Place, verdict: Verdict, now: Timestamp, width: Width) -> Vec<Cell> {
    let plain = |text: String| (text, None);
    let mut cells = vec![plain(place.name.clone())];
    match &place.told {
        Ok(root) => {
            let verdict = match verdict {
                Verdict::Equal => ("equal", Tone::Good),
                Verdict::Rotating => ("rotating", Tone::Good),
                Verdict::Partly => ("differs in part", Tone::Bad),
                Verdict::Differs | Verdict::Unread => ("differs", Tone::Bad),
            };
            let end = root.usable_until.unwrap_or(root.not_after);
            let expired = end < now;
            // A signer is renewed by itself.
            let renews = root.signer.as_ref().is_some_and(|signer| signer.renewal_due > stamp(now));
            let soon = !renews && end.duration_since(now) < SOON;
            let tone = if expired { Some(Tone::Bad) } else { soon.then_some(Tone::Doubtful) };
            let (end, fingerprint) = match width {
                Width::Wide => (stamp(end), root.sha256.openssl()),
                Width::Columns(_) => (end.strftime("%Y-%m-%d").to_string(), short(&root.sha256.openssl())),
            };
            let end = if expired { "expired " } else { "" }.to_owned() + &end;
            cells.extend([(verdict.0.to_owned(), Some(verdict.1)), (end, tone)]);
            cells.extend((width == Width::Wide).then(|| plain(subject(root))));
            cells.push(plain(fingerprint + &more(root)));
        }
        Err(unread) => {
            let code = unread.reason.map_or("unread", |reason| reason.as_str());
            cells.push((code.to_owned(), Some(Tone::Doubtful)));
            cells.extend(std::iter::repeat_n(plain(NOTHING.to_owned()), if width == Width::Wide { 3 } else { 2 }));
        }
    }
    cells
}

/// So much of a fingerprint as eyes compare.
pub(super) fn short(fingerprint: &str) -> String {
    let pairs: Vec<_> = fingerprint.split(':').take(SHORT).collect();
    format!("{}…", pairs.join(":"))
}

fn subject(root: &Root) -> String {
    let Some(subject) = root.subject.as_deref().filter(|subject| !subject.is_empty()) else {
        return NOTHING.to_owned();
    };
    let mut chars = subject.chars();
    let mut shown: String = chars.by_ref().take(SUBJECT_WIDTH).collect();
    if chars.next().is_some() {
        shown.pop();
        shown.push('…');
    }
    shown
}

/// How many more roots there are than the first.
fn more(root: &Root) -> String {
    match root.roots.len() {
        0 | 1 => String::new(),
        roots => format!(" and {} more", roots - 1),
    }
}

fn summary(comparison: &Comparison) -> (Tone, String) {
    let all = comparison.places.len();
    let of_all =
        |count: usize, verb: [&str; 2]| format!("{count} of {} {}", places(all), verb[usize::from(count != 1)]);
    let unread = comparison.count(|verdict| verdict == Verdict::Unread);
    let others = comparison.count(|verdict| matches!(verdict, Verdict::Partly | Verdict::Differs));
    let than = match comparison.reference {
        Some((Reference::Vault, _)) => "Vault".to_owned(),
        Some((Reference::Most { have, of }, _)) => format!("most ({have} of {of})"),
        Some((Reference::First, _)) => "the first, whose roots are as common as others".to_owned(),
        None => return (Tone::Doubtful, format!("Could not tell: none of {} could be read.", places(all))),
    };
    match comparison.outcome() {
        // The places are not to blame.
        Agreement::Differs if others == 0 => {
            (Tone::Bad, format!("Not equal: a cluster attests to other roots than {than}."))
        }
        Agreement::Unknown if unread == 0 => {
            (Tone::Doubtful, "Could not tell: a cluster attests to no root.".to_owned())
        }
        Agreement::Equal if all == 1 => (Tone::Good, "One place, and nothing to compare it with.".to_owned()),
        Agreement::Equal => (Tone::Good, format!("Equal: all {} have the same roots.", places(all))),
        Agreement::Differs => {
            let open = if unread == 0 { String::new() } else { format!(" {unread} could not be read.") };
            let differ = of_all(others, ["has", "have"]);
            (Tone::Bad, format!("Not equal: {differ} other roots than {than}.{open}"))
        }
        Agreement::Unknown => {
            let others = if all - unread == 1 { "one other was read" } else { "the others have the same roots" };
            (Tone::Doubtful, format!("Could not tell: {unread} of {} could not be read; {others}.", places(all)))
        }
    }
}

fn places(count: usize) -> String {
    if count == 1 { "1 place".to_owned() } else { format!("{count} places") }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    checked_at: String,
    verdict: &'static str,
    reference: Option<ReferenceOf>,
    places: Vec<PlaceOf<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attested: Option<Vec<signed::AttestedOf<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation: Option<&'a ReportedRotation>,
}

#[derive(Serialize)]
struct ReferenceOf {
    by: &'static str,
    roots: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PlaceOf<'a> {
    kind: &'static str,
    place: &'a str,
    verdict: &'static str,
    reason: Option<&'static str>,
    message: Option<&'a str>,
    sha256: Option<String>,
    roots: Option<Vec<String>>,
    subject: Option<&'a str>,
    not_after: Option<String>,
    usable_until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signer: Option<&'a ReportedSigner>,
}

/// For programs: the shape that docs/operate.md shows. On one line unless `pretty`.
pub(super) fn json(comparison: &Comparison, now: Timestamp, pretty: bool) -> String {
    let document = document(comparison, now);
    let text = if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) };
    // Strings and numbers always can be written.
    text.unwrap_or_default() + "\n"
}

/// The same in YAML, one document of a stream.
pub(super) fn yaml(comparison: &Comparison, now: Timestamp) -> String {
    format!("---\n{}", serde_saphyr::to_string(&document(comparison, now)).unwrap_or_default())
}

fn document(comparison: &Comparison, now: Timestamp) -> Document<'_> {
    Document {
        checked_at: stamp(now),
        verdict: match comparison.outcome() {
            Agreement::Equal => "equal",
            Agreement::Differs => "differs",
            Agreement::Unknown => "unknown",
        },
        reference: comparison.reference.as_ref().map(|(reference, roots)| ReferenceOf {
            by: match reference {
                Reference::Vault => "vault",
                Reference::Most { .. } => "most",
                Reference::First => "first",
            },
            roots: openssl(roots),
        }),
        places: comparison.places.iter().map(|(place, verdict)| of(place, *verdict)).collect(),
        attested: signed::attested(comparison),
        rotation: comparison.rotation.as_ref(),
    }
}

fn of(place: &Place, verdict: Verdict) -> PlaceOf<'_> {
    let root = place.told.as_ref().ok();
    let unread = place.told.as_ref().err();
    PlaceOf {
        kind: match place.kind {
            Kind::Vault => "vault",
            Kind::Cacerts => "cacerts",
            Kind::Served => "served",
            Kind::Gate => "gate",
            Kind::GateVault => "gate-vault",
            Kind::File => "file",
        },
        place: &place.name,
        verdict: word(verdict),
        reason: unread.and_then(|unread| unread.reason).map(|reason| reason.as_str()),
        message: unread.map(|unread| unread.sentence.as_str()),
        sha256: root.map(|root| root.sha256.openssl()),
        roots: root.map(|root| openssl(&root.roots)),
        subject: root.and_then(|root| root.subject.as_deref()),
        not_after: root.map(|root| stamp(root.not_after)),
        usable_until: root.and_then(|root| root.usable_until).map(stamp),
        signer: root.and_then(|root| root.signer.as_ref()),
    }
}

/// A verdict for programs.
pub(super) const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Equal => "equal",
        Verdict::Rotating => "rotating",
        Verdict::Partly => "differs-in-part",
        Verdict::Differs => "differs",
        Verdict::Unread => "unread",
    }
}

fn openssl<'a>(roots: impl IntoIterator<Item = &'a Sha256>) -> Vec<String> {
    roots.into_iter().map(Sha256::openssl).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::super::compare::compare;
    use super::super::compare::tests::{place, silent};
    use super::*;
    use crate::ca::fixtures::now;
    use crate::reason::{ByItself, Held, Reason};

    /// The table without its colours.
    fn plain(places: Vec<Place>) -> String {
        let table = table(&compare(places), now(), Width::Wide);
        anstream::adapter::strip_str(&table).to_string()
    }

    fn last_line(places: Vec<Place>) -> String {
        plain(places).lines().last().unwrap().to_owned()
    }

    fn file(roots: &[u8]) -> Place {
        place(Kind::File, "file", roots)
    }

    #[test]
    fn the_table_aligns_and_tells_what_cannot_be_read_below() {
        let mut sealed = silent(Kind::Vault, "Vault secret/istio/ca");
        sealed.told = Err(Held::without_next(Reason::VaultSealed, "unseal it", ByItself::Unsaid).into());
        let (one, two) = (Sha256([1; 32]).openssl(), Sha256([2; 32]).openssl());
        let places = vec![sealed, place(Kind::Cacerts, "nas cacerts", &[1]), place(Kind::Served, "nas x", &[2, 3])];
        let rows = [
            "PLACE                  VERDICT      EXPIRES               SUBJECT    SHA-256".to_owned(),
            "Vault secret/istio/ca  VaultSealed  -                     -          -".to_owned(),
            format!("nas cacerts            equal        2027-01-01T00:00:00Z  CN=Root 1  {one}"),
            format!("nas x                  differs      2027-01-01T00:00:00Z  CN=Root 2  {two} and 1 more"),
            String::new(),
            "Vault secret/istio/ca: VaultSealed: unseal it".to_owned(),
            "Not equal: 1 of 3 places has other roots than the first, whose roots are as common as others. 1 could not be read.".to_owned(),
        ];
        assert_eq!(plain(places).lines().collect::<Vec<_>>(), rows);
    }

    #[test]
    fn the_narrow_table_fits_and_its_fingerprints_are_short() {
        let mut sealed = silent(Kind::Vault, "https://vault.homelab.example:8200 secret/istio/ca");
        sealed.told = Err(Held::without_next(Reason::VaultPermissionDenied, "x", ByItself::Unsaid).into());
        let served = place(Kind::Served, "homelab istio-ca-root-cert", &[1, 2]);
        let comparison = compare(vec![served, place(Kind::Cacerts, "nas cacerts", &[1]), sealed]);
        for columns in [80, 60] {
            let text = anstream::adapter::strip_str(&table(&comparison, now(), Width::Columns(columns))).to_string();
            let rows: Vec<_> = text.lines().take_while(|line| !line.is_empty()).collect();
            assert!(rows.iter().all(|line| line.chars().count() <= columns), "{columns}:\n{text}");
            assert!(text.contains("01:01:01:01…") && text.contains("2027-01-01"), "{text}");
            assert!(!text.contains("01:01:01:01:01") && !text.contains("CN="), "{text}");
        }
    }

    #[test]
    fn yaml_says_what_json_says() {
        let mut sealed = silent(Kind::Vault, "Vault: a \"b\"");
        sealed.told = Err(Held::without_next(Reason::VaultSealed, "unseal it: - now", ByItself::Unsaid).into());
        let comparison = compare(vec![sealed, place(Kind::Cacerts, "nas cacerts", &[1, 2])]);
        let yaml: Value = serde_saphyr::from_str(&yaml(&comparison, now())).unwrap();
        assert_eq!(yaml, serde_json::from_str::<Value>(&json(&comparison, now(), true)).unwrap());
    }

    #[test]
    fn the_last_line_says_how_it_ended_and_by_what() {
        let vault = || place(Kind::Vault, "Vault", &[1]);
        let silent = || silent(Kind::File, "file");
        for (places, says) in [
            (vec![file(&[1])], "One place, and nothing to compare it with."),
            (vec![file(&[1]), file(&[1])], "Equal: all 2 places have the same roots."),
            (vec![vault(), file(&[2]), file(&[3])], "Not equal: 2 of 3 places have other roots than Vault."),
            (vec![vault(), file(&[2])], "Not equal: 1 of 2 places has other roots than Vault."),
            (vec![file(&[1]), file(&[1]), file(&[2])], "Not equal: 1 of 3 places has other roots than most (2 of 3)."),
            (vec![silent(), silent()], "Could not tell: none of 2 places could be read."),
            (vec![silent(), vault()], "Could not tell: 1 of 2 places could not be read; one other was read."),
            (
                vec![silent(), vault(), file(&[1])],
                "Could not tell: 1 of 3 places could not be read; the others have the same roots.",
            ),
        ] {
            assert_eq!(last_line(places), says);
        }
    }

    #[test]
    fn an_expired_root_is_told_so_and_changes_no_verdict() {
        let later = now() + SignedDuration::from_secs(1);
        let table = table(&compare(vec![file(&[1])]), later, Width::Wide);
        assert!(table.contains("expired 2027-01-01T00:00:00Z") && table.contains("equal"), "{table}");
    }

    #[test]
    fn a_long_subject_is_cut_and_a_missing_one_is_a_dash() {
        let mut place = file(&[1]);
        let told = |place: &Place| subject(place.told.as_ref().unwrap());
        place.told.as_mut().unwrap().subject = Some("ü".repeat(51));
        assert_eq!(told(&place), format!("{}…", "ü".repeat(49)));
        place.told.as_mut().unwrap().subject = None;
        assert_eq!(told(&place), "-");
    }

    #[test]
    fn the_end_is_that_of_the_whole_ca_where_it_is_known() {
        let mut ends = place(Kind::Vault, "Vault secret/istio/ca", &[1]);
        let soon = now() + SignedDuration::from_hours(24);
        ends.told.as_mut().unwrap().usable_until = Some(soon);
        ends.told.as_mut().unwrap().not_after = now() + SignedDuration::from_hours(24 * 3650);
        let table = table(&compare(vec![ends]), now(), Width::Wide);
        assert!(table.contains(&paint(Tone::Doubtful, &stamp(soon))), "{table}");
    }

    #[test]
    fn a_verdict_has_its_colour() {
        let painted = |tone, text: &str| paint(tone, text);
        let table = table(&compare(vec![file(&[1]), file(&[1]), file(&[2])]), now(), Width::Wide);
        assert!(table.contains(&painted(Tone::Good, "equal")) && table.contains(&painted(Tone::Bad, "differs")));
    }

    #[test]
    fn json_has_the_documented_shape() {
        let mut sealed = silent(Kind::Vault, "Vault secret/istio/ca");
        sealed.told = Err(Held::without_next(Reason::VaultSealed, "unseal it", ByItself::Unsaid).into());
        let comparison = compare(vec![sealed, place(Kind::Cacerts, "nas cacerts", &[1])]);
        let one = Sha256([1; 32]).openssl();
        let document: Value = serde_json::from_str(&json(&comparison, now(), true)).unwrap();
        assert_eq!(
            document,
            json!({
                "checkedAt": "2027-01-01T00:00:00Z", "verdict": "unknown",
                "reference": { "by": "most", "roots": [one] },
                "places": [
                    {
                        "kind": "vault", "place": "Vault secret/istio/ca", "verdict": "unread",
                        "reason": "VaultSealed", "message": "unseal it",
                        "sha256": null, "roots": null, "subject": null, "notAfter": null, "usableUntil": null,
                    },
                    {
                        "kind": "cacerts", "place": "nas cacerts", "verdict": "equal", "reason": null, "message": null,
                        "sha256": one, "roots": [one], "subject": "CN=Root 1", "notAfter": "2027-01-01T00:00:00Z",
                        "usableUntil": null,
                    },
                ],
            })
        );
        assert_eq!(json(&comparison, now(), false).lines().count(), 1);
    }
}

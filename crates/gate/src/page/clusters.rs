//! All clusters in one table, those that differ first.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use maud::{Markup, html};

use super::Here;
use super::parts::{BAD, GOOD, WAIT, distance, end, fingerprints, length};
use crate::ca::Sha256;
use crate::peers::served::Told;
use crate::peers::{Heard, Verdict, verdict};

type Roots = BTreeSet<Sha256>;

/// A cluster's row.
struct Row<'a> {
    name: &'a str,
    /// Of a peer.
    url: Option<&'a str>,
    roots: Option<&'a Roots>,
    agreement: Agreement,
    /// The fingerprint of its first root.
    first: Option<String>,
    usable_until: Option<Timestamp>,
    state: Markup,
}

/// How a cluster's roots are to those that all should have. In the order of the rows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Agreement {
    Differs,
    Shares,
    /// It has none that can be read, or does not tell.
    Untold,
    /// Of no other cluster it is known.
    Alone,
    Agrees,
}

impl Agreement {
    fn of(roots: Option<&Roots>, right: Option<&Roots>, known: usize) -> Self {
        match (roots, right) {
            (Some(_), _) if known < 2 => Self::Alone,
            (Some(own), Some(right)) if own == right => Self::Agrees,
            (Some(own), Some(right)) if !own.is_disjoint(right) => Self::Shares,
            (Some(_), _) => Self::Differs,
            (None, _) => Self::Untold,
        }
    }

    fn told(self) -> (&'static str, &'static str) {
        match self {
            Self::Differs => (BAD, "differs"),
            Self::Shares => (WAIT, "some of the same, and others: as in the middle of a change of the root"),
            Self::Untold => (WAIT, "cannot be told"),
            Self::Alone => (WAIT, "nothing to compare it with"),
            Self::Agrees => (GOOD, "agrees"),
        }
    }
}

/// The verdict, and the table below it.
pub(super) fn clusters(here: &Here, peers: &[Heard], now: Timestamp) -> Markup {
    let all = || [here.roots.as_ref()].into_iter().chain(peers.iter().map(Heard::roots));
    let (tone, text) = match verdict(all()) {
        Verdict::One => (GOOD, format!("All {} clusters have one root.", peers.len() + 1)),
        Verdict::Differs => (BAD, "Not all clusters have the same root.".to_owned()),
        Verdict::Unknown => (WAIT, "It cannot be told whether all clusters have one root.".to_owned()),
    };
    let (right, known) = (right(all().flatten(), here.stored.as_ref()), all().flatten().count());
    let mut rows: Vec<_> = std::iter::once(own(here, now)).chain(peers.iter().map(|heard| other(heard, now))).collect();
    for row in &mut rows {
        row.agreement = Agreement::of(row.roots, right, known);
    }
    // This cluster stays the first of its kind.
    rows.sort_by_key(|row| row.agreement);
    html! {
        section class=(tone) {
            h2 { strong class=(tone) { (text) } }
            table.clusters {
                thead { tr { th scope="col" { "Cluster" } th scope="col" { "Root" } th scope="col" { "Gate" } } }
                tbody { @for row in &rows { (shown(row, now)) } }
            }
        }
    }
}

/// The roots that all should have: Vault's, where any cluster has them, else those of the most. `None`: no two have the
/// same, so that nobody can tell.
fn right<'a>(all: impl Iterator<Item = &'a Roots>, stored: Option<&Roots>) -> Option<&'a Roots> {
    let mut counted: BTreeMap<&Roots, usize> = BTreeMap::new();
    all.for_each(|roots| *counted.entry(roots).or_default() += 1);
    let ranked = counted.into_iter().map(|(roots, count)| ((stored == Some(roots), count), roots));
    ranked.max_by_key(|(rank, _)| *rank).filter(|(rank, _)| *rank > (false, 1)).map(|(_, roots)| roots)
}

fn shown(row: &Row<'_>, now: Timestamp) -> Markup {
    let (tone, agreement) = row.agreement.told();
    let all: Vec<_> = row.roots.into_iter().flatten().map(Sha256::openssl).collect();
    html! {
        tr {
            th scope="row" {
                bdi { (row.name) }
                br;
                span.soft { @if let Some(url) = row.url { (url) } @else { "this cluster" } }
            }
            td {
                strong class=(tone) { (agreement) }
                @if let Some(first) = &row.first { br; (fingerprints(first, &all)) }
                @if let Some(at) = row.usable_until { br; "usable until " (end(at, now)) }
            }
            td { (row.state) }
        }
    }
}

fn own(here: &Here, now: Timestamp) -> Row<'_> {
    let report = &here.report;
    let cacerts = report.cacerts.as_ref();
    let end = cacerts.and_then(|side| side.end.at.as_ref());
    Row {
        name: &report.cluster,
        url: None,
        roots: here.roots.as_ref(),
        agreement: Agreement::Untold,
        first: cacerts.map(|side| side.root.sha256.clone()),
        usable_until: end.and_then(|at| at.parse().ok()),
        state: html! {
            (report.state)
            @if let Some(code) = &report.reason { "; " a href={ "/reasons/" (code) } { (code) } }
            @if let Some(since) = here.held_since { " for " (length(now.duration_since(since))) }
        },
    }
}

fn other(heard: &Heard, now: Timestamp) -> Row<'_> {
    let told = heard.told.as_ref().and_then(|told| told.as_ref().ok());
    let root = told.and_then(|told| told.cacerts.as_ref());
    Row {
        name: told.map_or("(not known)", |told| &told.cluster),
        url: Some(heard.url.trim_end_matches("/fingerprint")),
        roots: heard.roots(),
        agreement: Agreement::Untold,
        first: root.map(|root| root.sha256.openssl()),
        usable_until: root.and_then(|root| root.usable_until),
        state: html! {
            @match &heard.told {
                Some(Ok(told)) => (stands(told)),
                Some(Err(why)) => { "its gate does not tell: " bdi { (why) } }
                None => "it was not asked yet",
            }
            br;
            span.soft {
                @if let Some(at) = heard.reached { "reached " (distance(at.duration_since(now))) } @else { "never reached" }
            }
        },
    }
}

fn stands(told: &Told) -> Markup {
    html! {
        bdi { (told.state) }
        @if let Some(reason) = told.reason { "; " bdi { (reason) ": " (told.sentence) } }
        @if told.cacerts.is_none() { "; it has no cacerts that can be read" }
    }
}

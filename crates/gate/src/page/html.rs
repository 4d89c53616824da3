//! Its words. The library escapes every text; a foreign one is shortened and isolated besides, so that it can turn
//! neither the page nor the direction of what stands beside it.

use std::collections::BTreeSet;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{Here, STYLE};
use crate::ca::Sha256;
use crate::explain::{self, Explanation};
use crate::peers::served::Told;
use crate::peers::{Heard, Verdict};
use crate::reason::foreign_text;
use crate::report::{Report, ReportedRoot, ReportedSigner, UsableUntil, stamp};

/// As long as peers are left alone, too.
const REFRESH_SECONDS: u8 = 15;

/// How a state is meant. The words beside it say the same: a class is a colour and nothing more.
const GOOD: &str = "good";
const BAD: &str = "bad";
const WAIT: &str = "wait";

pub(super) fn document(
    here: &Here,
    peers: &[Heard],
    verdict: Option<Verdict>,
    version: &str,
    now: Timestamp,
) -> Markup {
    let Report { cluster, role, .. } = &here.report;
    let body = html! {
        header {
            h1 { "Cluster " (cluster) }
            p.soft { "istio-ca-gate " (version) ", role " (role) }
        }
        main {
            @if let Some(verdict) = verdict { (all_clusters(verdict, peers.len() + 1)) }
            (this_cluster(here, now))
            @if !peers.is_empty() { (other_clusters(here, peers, now)) }
        }
        footer {
            p {
                "What this one replica knew at " (time(now)) ". The page loads itself anew every "
                (REFRESH_SECONDS) " seconds. For programs: " a href="/fingerprint" { "/fingerprint" } ", "
                a href="/metrics" { "/metrics" } "."
            }
        }
    };
    framed(&html! { "istio-ca-gate: " (cluster) ", " (here.report.state) }, Some(REFRESH_SECONDS), &body)
}

pub(super) fn explanation(entry: &Explanation, version: &str) -> Markup {
    let body = html! {
        header {
            h1 { (entry.code) }
            p.soft { "istio-ca-gate " (version) ", " (entry.kind.as_str()) }
        }
        main { section { (PreEscaped(explain::html(entry))) } }
        footer { p { a href="/" { "How this cluster is" } } }
    };
    framed(&html! { (entry.code) }, None, &body)
}

/// What every page has around its body.
fn framed(title: &Markup, refresh: Option<u8>, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                @if let Some(seconds) = refresh { meta http-equiv="refresh" content=(seconds); }
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    }
}

fn all_clusters(verdict: Verdict, count: usize) -> Markup {
    let (tone, text) = match verdict {
        Verdict::One => (GOOD, format!("All {count} clusters have one root.")),
        Verdict::Differs => (BAD, "Not all clusters have the same root.".to_owned()),
        Verdict::Unknown => (WAIT, "It cannot be told whether all clusters have one root.".to_owned()),
    };
    html! { p class={ "verdict " (tone) } { strong { (text) } } }
}

fn this_cluster(here: &Here, now: Timestamp) -> Markup {
    let Report { state, reason, message, vault, cacerts, .. } = &here.report;
    let (tone, meaning) = meaning(state, reason.is_some());
    html! {
        section class=(tone) {
            h2 { "The gate is " strong class=(tone) { (state) } }
            p { (meaning) }
            @if let Some(message) = message { p { bdi { (message) } } }
            @if let Some(code) = reason { p { a href={ "/reasons/" (code) } { "What " (code) " means, and what to do" } } }
            @if vault.is_some() || cacerts.is_some() { (roots(here, now)) }
            p { strong { (matching(&here.report)) } }
            p {
                "Last verified: "
                @if let Some(at) = here.last_verified { (moment(&stamp(at), now)) } @else { "never" }
            }
        }
    }
}

/// Both sides, side by side.
fn roots(here: &Here, now: Timestamp) -> Markup {
    let Report { vault, cacerts, .. } = &here.report;
    let of_root = |cell: &dyn Fn(&ReportedRoot) -> Markup| {
        [vault.as_ref().map(|it| cell(&it.root)), cacerts.as_ref().map(|it| cell(&it.root))]
    };
    let text = |text: &str| html! { (text) };
    let versions = [
        vault.as_ref().map(|it| text(&it.version.to_string())),
        cacerts.as_ref().map(|it| text(&format!("resource {}", it.resource_version))),
    ];
    let read = [vault.as_ref().map(|it| moment(&it.checked_at, now)), cacerts.as_ref().map(|_| text("watched"))];
    html! {
        table {
            caption { "Its roots" }
            thead { tr { td {} th scope="col" { "Vault" } th scope="col" { "cacerts" } } }
            tbody {
                (both("SHA-256", of_root(&|root| fingerprints(&root.sha256, &root.roots))))
                (both("Subject", of_root(&|root| html! { bdi { (foreign_text(&root.subject)) } })))
                (both("Root ends", of_root(&|root| moment(&root.not_after, now))))
                (both("Usable until", [
                    vault.as_ref().and_then(|it| usable_until(&it.end, now)),
                    cacerts.as_ref().and_then(|it| usable_until(&it.end, now)),
                ]))
                @if let Some(signer) = cacerts.as_ref().and_then(|it| it.signer.as_ref()) {
                    (both("Signer", [None, Some(of_signer(signer, now))]))
                }
                (both("Version", versions))
                (both("Read", read))
                (both("Address", [vault.as_ref().map(|it| text(&it.address)), None]))
            }
        }
    }
}

/// Which root the cluster's own signer is under, and until when.
fn of_signer(signer: &ReportedSigner, now: Timestamp) -> Markup {
    html! {
        (fingerprint(&signer.sha256)) br;
        "under " (fingerprint(&signer.root)) br;
        "ends " (moment(&signer.not_after, now)) br;
        "renewed from " (moment(&signer.renewal_due, now)) " on"
    }
}

/// When the gate closes by itself, and what ends then.
fn usable_until(end: &UsableUntil, now: Timestamp) -> Option<Markup> {
    let (at, set_by) = (end.at.as_ref()?, end.set_by.as_ref()?);
    Some(html! { (moment(at, now)) br; (set_by) })
}

fn both(name: &str, sides: [Option<Markup>; 2]) -> Markup {
    html! {
        tr {
            th scope="row" { (name) }
            @for side in sides { td { @if let Some(side) = side { (side) } @else { "–" } } }
        }
    }
}

/// What a state means, and what there is to do where no message says it.
fn meaning(state: &str, has_reason: bool) -> (&'static str, &'static str) {
    match state {
        "open" if has_reason => (WAIT, "Gated pods are let in, with the root verified last: Vault cannot be asked."),
        "open" => (GOOD, "Gated pods are let in. Nothing has to be done."),
        "held" => (BAD, "Gated pods are kept out until the cause is mended. It is tried again by itself."),
        "dormant" => {
            (WAIT, "Nobody has asked yet, and nothing was written: deploy istiod, and the gate does the rest.")
        }
        _ => (WAIT, "An attempt is under way. Gated pods wait for it; nothing has to be done."),
    }
}

fn matching(report: &Report) -> &'static str {
    match (&report.vault, &report.cacerts) {
        (Some(_), Some(_)) if report.r#match => "Match: cacerts has the roots that Vault has.",
        (Some(_), Some(_)) => "No match: cacerts has other roots than Vault.",
        (None, Some(_)) => "It cannot be told whether they match: Vault's root is not known.",
        (Some(_), None) => "No match yet: there is no cacerts that can be read.",
        (None, None) => "Neither root is known.",
    }
}

fn other_clusters(here: &Here, peers: &[Heard], now: Timestamp) -> Markup {
    html! {
        section {
            h2 { "Other clusters" }
            @for peer in peers { (other_cluster(here, peer, now)) }
        }
    }
}

fn other_cluster(here: &Here, peer: &Heard, now: Timestamp) -> Markup {
    let told = peer.told.as_ref();
    let name = told.and_then(|told| told.as_ref().ok()).map_or(peer.url.as_str(), |told| told.cluster.as_str());
    let (tone, root) = compared(here.roots.as_ref(), peer);
    html! {
        h3 { bdi { (name) } }
        table {
            tbody {
                (row("Root", &html! { strong class=(tone) { (root) } }))
                (row("Address", &html! { (peer.url) }))
                (row("Reached", &reached(peer, now)))
                @match told {
                    Some(Ok(told)) => (what_it_told(told, now)),
                    Some(Err(why)) => (row("Now", &html! { bdi { (why) } })),
                    None => (row("Now", &html! { "it was not asked yet" })),
                }
            }
        }
    }
}

fn reached(peer: &Heard, now: Timestamp) -> Markup {
    peer.reached.map_or_else(|| html! { "not yet" }, |at| moment(&stamp(at), now))
}

fn what_it_told(told: &Told, now: Timestamp) -> Markup {
    let reason = told.reason.map(|reason| format!("{reason}: {}", told.sentence));
    html! {
        (row("State", &html! { bdi { (told.state) } @if let Some(reason) = reason { "; " bdi { (reason) } } }))
        @if let Some(root) = &told.cacerts {
            @let all: Vec<_> = root.roots.iter().map(Sha256::openssl).collect();
            (row("SHA-256", &fingerprints(&root.sha256.openssl(), &all)))
            (row("Root ends", &moment(&stamp(root.not_after), now)))
            @if let Some(end) = root.usable_until { (row("Usable until", &moment(&stamp(end), now))) }
        }
    }
}

fn row(name: &str, value: &Markup) -> Markup {
    html! { tr { th scope="row" { (name) } td { (value) } } }
}

/// Whether a peer has this cluster's roots, or why that cannot be told.
fn compared(own: Option<&BTreeSet<Sha256>>, peer: &Heard) -> (&'static str, &'static str) {
    match (own, peer.roots()) {
        (Some(own), Some(other)) if own == other => (GOOD, "the same as here"),
        (Some(own), Some(other)) if !own.is_disjoint(other) => {
            (WAIT, "some of the same as here, and others: as in the middle of a change of the root")
        }
        (Some(_), Some(_)) => (BAD, "another one than here"),
        (None, Some(_)) => (WAIT, "cannot be told: this cluster has no cacerts that can be read"),
        (_, None) => match &peer.told {
            Some(Ok(_)) => (WAIT, "cannot be told: that cluster has no cacerts that can be read"),
            _ => (WAIT, "cannot be told: its gate does not tell"),
        },
    }
}

/// The first root, and how many more there are; their fingerprints follow.
fn fingerprints(first: &str, all: &[String]) -> Markup {
    let more: Vec<_> = all.iter().filter(|other| *other != first).collect();
    html! {
        (fingerprint(first))
        @for other in more { br; "and " (fingerprint(other)) }
    }
}

/// Broken at the same places everywhere, so that two of them can be compared by eye.
fn fingerprint(text: &str) -> Markup {
    let pairs: Vec<_> = text.split(':').collect();
    let lines: Vec<_> = pairs.chunks(4).map(|pairs| pairs.join(":")).collect();
    let last = lines.len().saturating_sub(1);
    html! { code { @for (index, line) in lines.iter().enumerate() { span { (line) @if index < last { ":" } } wbr; } } }
}

fn time(at: Timestamp) -> Markup {
    // With a space to break at.
    html! { time datetime=(stamp(at)) { (at.strftime("%Y-%m-%d %H:%M:%S UTC")) } }
}

/// A moment, and how far away it is.
fn moment(at: &str, now: Timestamp) -> Markup {
    let Ok(moment) = at.parse::<Timestamp>() else { return html! { (at) } };
    html! { (time(moment)) " (" (distance(moment.duration_since(now))) ")" }
}

pub(super) fn distance(from_now: SignedDuration) -> String {
    let seconds = from_now.abs().as_secs();
    let (count, unit) = match seconds {
        0..120 => (seconds, "s"),
        120..7200 => (seconds / 60, "min"),
        7200..172_800 => (seconds / 3600, "h"),
        _ => (seconds / 86400, "days"),
    };
    if from_now.is_positive() { format!("in {count} {unit}") } else { format!("{count} {unit} ago") }
}

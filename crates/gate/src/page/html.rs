//! Its words. The library escapes every text; a foreign one is shortened and isolated besides, so that it can turn
//! neither the page nor the direction of what stands beside it.

use k8s_openapi::jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::clusters::clusters;
use super::parts::{BAD, GOOD, WAIT, distance, end_at, fingerprint, fingerprints, moment, moment_at, row, time};
use super::{Here, RELOAD_SECONDS, RELOADING, STYLE, SelfTested, rotation};
use crate::ca::Sha256;
use crate::explain::{self, Explanation};
use crate::peers::Heard;
use crate::reason::foreign_text;
use crate::report::{Report, ReportedRoot, ReportedSigner, UsableUntil};

pub(super) fn document(here: &Here, peers: &[Heard], version: &str, now: Timestamp) -> Markup {
    let Report { cluster, role, state, .. } = &here.report;
    let body = html! {
        header {
            h1 { "Cluster " (cluster) }
            p.soft { "istio-ca-gate " (version) ", role " (role) }
        }
        main {
            @if !peers.is_empty() { (clusters(here, peers, now)) }
            @if let Some(rotation) = &here.report.rotation { (rotation::section(rotation, here, peers, now)) }
            (this_cluster(here, now))
        }
        footer {
            p {
                "What this one replica knew at " (time(now)) ". "
                a href="/" { "Look again" } ", or "
                a href={ "/?" (RELOADING) } { "look again every " (RELOAD_SECONDS) " seconds" } ". For programs: "
                a href="/fingerprint" { "/fingerprint" } ", " a href="/metrics" { "/metrics" } "."
            }
        }
    };
    framed(&html! { (cluster) ": " (state) ", istio-ca-gate" }, &body)
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
    framed(&html! { (entry.code) }, &body)
}

/// What every page has around its body.
fn framed(title: &Markup, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    }
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
            table {
                tbody {
                    @if let Some(since) = here.held_since { (row(if state == "open" { "Troubled since" } else { "Held since" }, &moment(since, now))) }
                    (row("Waiting", &waiting(here, now)))
                    (row("Pin", &pin(here, now)))
                    (row("Self-test", &self_test(here.self_test, now)))
                }
            }
            @if vault.is_some() || cacerts.is_some() { (roots(here, now)) }
            p { strong { (matching(&here.report)) } }
        }
    }
}

/// Whose pods are kept out, as far as this replica was asked.
fn waiting(here: &Here, now: Timestamp) -> Markup {
    if here.waiting.is_empty() {
        return html! { "nobody, as far as this replica was asked" };
    }
    html! {
        ul {
            @for owner in &here.waiting {
                li {
                    bdi { (owner.owner) } ": its pods were refused " (times(owner.times)) ", since "
                    (moment(owner.since, now)) ", last " (distance(owner.last.duration_since(now)))
                }
            }
        }
    }
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// What this cluster has verified, and what Vault has said against it since.
fn pin(here: &Here, now: Timestamp) -> Markup {
    let Some(last) = &here.last_verified else {
        return html! { "none: nothing was verified in this cluster yet" };
    };
    let roots: Vec<_> = last.roots.iter().map(Sha256::openssl).collect();
    html! {
        "trusts" br;
        @for (index, root) in roots.iter().enumerate() { @if index > 0 { br; "and " } (fingerprint(root)) }
        br; "last verified " (moment(last.at.wall, now))
        @if let Some(contradicted) = &here.contradicted {
            br; strong class=(BAD) { "Vault then said " (contradicted.contradiction.by) }
            ": until it agrees again, no outage is bridged by it"
        }
    }
}

fn self_test(last: SelfTested, now: Timestamp) -> Markup {
    match last {
        SelfTested::Off => html! { "off (--self-test)" },
        SelfTested::Never => html! { "not run yet" },
        SelfTested::Last(true, at) => {
            html! { strong class=(GOOD) { "the API server calls a gate" } ": " (moment(at, now)) }
        }
        SelfTested::Last(false, at) => {
            html! { strong class=(BAD) { "the API server did not call a gate" } ": " (moment(at, now)) "; the log says why" }
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
    let read = [vault.as_ref().map(|it| moment_at(&it.checked_at, now)), cacerts.as_ref().map(|_| text("watched"))];
    html! {
        table {
            caption { "Its roots" }
            thead { tr { td {} th scope="col" { "Vault" } th scope="col" { "cacerts" } } }
            tbody {
                (both("SHA-256", of_root(&|root| fingerprints(&root.sha256, &root.roots))))
                (both("Subject", of_root(&|root| html! { bdi { (foreign_text(&root.subject)) } })))
                (both("Root ends", of_root(&|root| end_at(&root.not_after, now))))
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
        "ends " (moment_at(&signer.not_after, now)) br;
        "renewed from " (moment_at(&signer.renewal_due, now)) " on"
    }
}

/// When the gate closes by itself, and what ends then.
fn usable_until(end: &UsableUntil, now: Timestamp) -> Option<Markup> {
    let (at, set_by) = (end.at.as_ref()?, end.set_by.as_ref()?);
    Some(html! { (end_at(at, now)) br; (set_by) })
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
        "converging" if has_reason => {
            (BAD, "Gated pods are kept out until the cause is mended. It is tried again at this moment.")
        }
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

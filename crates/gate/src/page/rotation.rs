//! A change of the root: what comes next, until when it is waited for, and how far each cluster is.

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;
use maud::{Markup, html};

use super::Here;
use super::parts::{BAD, GOOD, WAIT, distance, fingerprint, moment_at, row};
use crate::ca::record::Rotation;
use crate::peers::Heard;
use crate::reason::foreign_text;
use crate::report::{ReportedMesh, ReportedRotation};

/// The steps that everybody waits for, and what each leads to.
const STEPS: [(&str, &str); 4] = [
    ("trust", "the new root is trusted beside the old one"),
    ("switch", "all signers are certified by the new root"),
    ("drop", "the old root is no longer trusted"),
    ("done", "it is over"),
];

/// A cluster that is waited for.
struct Member<'a> {
    name: &'a str,
    /// The root that its signer is under.
    under: Option<&'a str>,
    /// `None`: nothing is known here.
    mesh: Option<&'a ReportedMesh>,
}

impl Member<'_> {
    fn is_settled(&self) -> bool {
        self.mesh.is_some_and(|mesh| mesh.settled.is_some())
    }
}

pub(super) fn section(rotation: &ReportedRotation, here: &Here, peers: &[Heard], now: Timestamp) -> Markup {
    let members = members(rotation, here, peers);
    let ReportedRotation { goal, goal_sha256, from, started, by, .. } = rotation;
    html! {
        section class=(WAIT) {
            h2 { "The root is being replaced by " strong class=(WAIT) { (goal) } }
            p { (waits(rotation, &members, now)) }
            table {
                tbody {
                    (row("From", &html! { (Rotation::from_words(from)) }))
                    (row("To", &html! { (goal) @if let Some(root) = goal_sha256 { br; (fingerprint(root)) } }))
                    (row("Begun", &html! { (moment_at(started, now)) ", by " bdi { (foreign_text(by)) } }))
                    (row("Steps", &steps(rotation.next.as_deref())))
                }
            }
            table {
                caption { "Its clusters" }
                thead { tr {
                    th scope="col" { "Cluster" } th scope="col" { "Signer under" } th scope="col" { "Works with it" }
                } }
                tbody { @for member in &members { (shown(member, rotation, now)) } }
            }
            p.soft { "As the record and these gates tell. `istio-ca-gate rotate status` asks Vault about every cluster." }
        }
    }
}

/// What is waited for, and until when.
fn waits(rotation: &ReportedRotation, members: &[Member<'_>], now: Timestamp) -> Markup {
    if rotation.paused {
        return html! { "It is paused: no step is taken until " code { "istio-ca-gate rotate resume" } "." };
    }
    let unsettled: Vec<_> = members.iter().filter(|member| !member.is_settled()).map(|member| member.name).collect();
    if !unsettled.is_empty() {
        return html! { "It waits until every cluster works with what Vault's record says: " (unsettled.join(", ")) "." };
    }
    html! {
        @match (rotation.waits_until(now), rotation.next.as_deref()) {
            (Some(at), Some(step)) => {
                "It waits until " (moment_at(at, now)) ": certificates from before are about until then. Then comes " (step) "."
            }
            (_, Some(step)) => { "Next is " (step) ": " code { "istio-ca-gate rotate step" } " takes it." }
            (_, None) => { "What comes next is not known here: Vault did not give the certificate of the goal." }
        }
    }
}

fn steps(next: Option<&str>) -> Markup {
    // The way back is a switch, too.
    let at = next
        .and_then(|next| STEPS.iter().position(|(name, _)| *name == if next == "return" { "switch" } else { next }));
    html! {
        ul {
            @for (index, (name, leads_to)) in STEPS.iter().enumerate() {
                li {
                    (name) ", " (leads_to) ": "
                    @match at {
                        Some(at) if index < at => strong class=(GOOD) { "done" },
                        Some(at) if index == at => strong class=(WAIT) { "next" },
                        Some(_) => "later",
                        None => "not known",
                    }
                }
            }
        }
    }
}

/// This cluster, those whose gates tell, and those that are waited for by name.
fn members<'a>(rotation: &'a ReportedRotation, here: &'a Here, peers: &'a [Heard]) -> Vec<Member<'a>> {
    let report = &here.report;
    let under = report.cacerts.as_ref().and_then(|cacerts| cacerts.signer.as_ref()).map(|signer| signer.root.as_str());
    let mut members = vec![Member { name: &report.cluster, under, mesh: report.mesh.as_ref() }];
    for told in peers.iter().filter_map(|heard| heard.told.as_ref()?.as_ref().ok()) {
        let signer = told.cacerts.as_ref().and_then(|root| root.signer.as_ref());
        let under = signer.map(|signer| signer.root.as_str());
        members.push(Member { name: &told.cluster, under, mesh: told.mesh.as_ref() });
    }
    let known: BTreeSet<_> = members.iter().map(|member| member.name).collect();
    let silent = rotation.clusters.iter().filter(|name| !known.contains(name.as_str()));
    members.extend(silent.map(|name| Member { name, under: None, mesh: None }));
    members
}

fn shown(member: &Member<'_>, rotation: &ReportedRotation, now: Timestamp) -> Markup {
    html! {
        tr {
            th scope="row" { bdi { (foreign_text(member.name)) } }
            td {
                @match member.under {
                    Some(root) if rotation.goal_sha256.as_deref() == Some(root) => (rotation.goal),
                    Some(root) => (fingerprint(root)),
                    None => "–",
                }
            }
            td { @match member.mesh { Some(mesh) => (works(mesh, now)), None => "nothing is known of it here" } }
        }
    }
}

fn works(mesh: &ReportedMesh, now: Timestamp) -> Markup {
    let istiods = mesh.istiods_settled + behind(&mesh.istiods_behind);
    let namespaces = mesh.namespaces.saturating_sub(behind(&mesh.namespaces_behind));
    let since = mesh.settled.as_deref();
    html! {
        @match since {
            Some(since) => { strong class=(GOOD) { "settled" } " since " (moment_at(since, now)) }
            None => {
                strong class=(BAD) { "not yet" }
                @if let Some(why) = &mesh.why { ": " bdi { (why) } }
            }
        }
        br; (mesh.istiods_settled) " of " (istiods) " istiods, " (namespaces) " of " (mesh.namespaces) " namespaces"
        @for name in mesh.istiods_behind.iter().chain(&mesh.namespaces_behind) { br; "behind: " bdi { (name) } }
        br; span.soft { "seen " @if let Ok(at) = mesh.at.parse::<Timestamp>() { (distance(at.duration_since(now))) } }
    }
}

fn behind(names: &[String]) -> u64 {
    u64::try_from(names.len()).unwrap_or(u64::MAX)
}

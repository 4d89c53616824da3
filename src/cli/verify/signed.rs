//! Signers, meshes and a change of the root, below the table of places. Pure.

use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use super::compare::{Comparison, Verdict};
use super::life::{SeenHere, Signed, attested_place};
use super::show::{NOTHING, Width, short, word};
use crate::ca::Sha256;
use crate::ca::record::Rotation;
use crate::cli::paint::{Tone, paint};
use crate::cli::table::Table;
use crate::report::ReportedMesh;

const HEADINGS: [&str; 4] = ["SIGNER OF", "UNDER", "ENDS", "ITS MESH"];

/// A table of them, if any cluster has one.
pub(super) fn table(comparison: &Comparison, width: Width) -> String {
    if comparison.signed.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&HEADINGS);
    comparison.signed.iter().for_each(|signed| table.push(row(signed, width)));
    table.text(width.columns())
}

fn row(signed: &Signed, width: Width) -> [String; 4] {
    let cell = |of: &dyn Fn(&SeenHere) -> String| signed.signer.as_ref().map_or_else(|| NOTHING.to_owned(), of);
    let mesh = signed.mesh.as_ref().map_or_else(|| NOTHING.to_owned(), works);
    match width {
        Width::Wide => [signed.place.clone(), cell(&|it| it.root.clone()), cell(&|it| it.not_after.clone()), mesh],
        Width::Columns(_) => {
            let day = |it: &SeenHere| it.not_after.get(..10).unwrap_or_default().to_owned();
            [signed.place.clone(), cell(&|it| short(&it.root)), cell(&day), mesh]
        }
    }
}

fn works(mesh: &ReportedMesh) -> String {
    match (&mesh.settled, &mesh.why) {
        (Some(since), _) => paint(Tone::Good, &format!("settled since {since}")),
        (None, Some(why)) => paint(Tone::Doubtful, &format!("not settled: {why}")),
        (None, None) => paint(Tone::Doubtful, "not settled"),
    }
}

/// Sentences about what is compared beside the places: one a line.
pub(super) fn lines(comparison: &Comparison, now: Timestamp) -> Vec<(Tone, String)> {
    let mut lines = Vec::new();
    for (attestation, verdict) in &comparison.attested {
        let place = attested_place(&attestation.cluster);
        match verdict {
            Verdict::Equal | Verdict::Rotating => {}
            Verdict::Partly => {
                lines.push((Tone::Bad, format!("{place} to some of Vault's roots, or to more than those.")))
            }
            Verdict::Differs => lines.push((Tone::Bad, format!("{place} to other roots than Vault's."))),
            Verdict::Unread => lines.push((Tone::Doubtful, format!("{place} to no root: there is no sound cacerts."))),
        }
    }
    if let Some(unread) = &comparison.unheard {
        lines.push((Tone::Doubtful, format!("What clusters attest to is not known: {unread}")));
    }
    lines.extend(rotation(comparison, now));
    lines
}

/// How far a change of the root is, and what it waits for.
fn rotation(comparison: &Comparison, now: Timestamp) -> Option<(Tone, String)> {
    let rotation = comparison.rotation.as_ref()?;
    let (goal, from) = (&rotation.goal, Rotation::from_words(&rotation.from));
    let next = match (&rotation.next, rotation.waits_until(now)) {
        _ if rotation.paused => "it is paused".to_owned(),
        (Some(step), Some(at)) => format!("next is {step}, not before {at}"),
        (Some(step), None) => format!("next is {step}"),
        (None, _) => "`istio-ca-gate rotate status` tells what is next".to_owned(),
    };
    let unsettled = comparison.attested.iter().filter(|(attestation, _)| attestation.settled.is_none());
    let unsettled: Vec<_> = unsettled.map(|(attestation, _)| attestation.cluster.as_str()).collect();
    let waits = if unsettled.is_empty() { String::new() } else { format!(", and waits for {}", unsettled.join(", ")) };
    Some((Tone::Doubtful, format!("The root is being replaced by {goal}, from {from}: {next}{waits}.")))
}

/// A cluster that attests, for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AttestedOf<'a> {
    cluster: &'a str,
    verdict: &'static str,
    roots: Vec<String>,
    signer: Option<SignerOf>,
    mesh: ReportedMesh,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SignerOf {
    sha256: String,
    root: String,
    not_after: String,
}

/// All of them. `None`: it is not known what clusters attest to, or none does.
pub(super) fn attested(comparison: &Comparison) -> Option<Vec<AttestedOf<'_>>> {
    let all = comparison.attested.iter().map(|(attestation, verdict)| {
        let signed = Signed::attested("", attestation);
        AttestedOf {
            cluster: &attestation.cluster,
            verdict: word(*verdict),
            roots: attestation.roots.iter().map(Sha256::openssl).collect(),
            signer: signed.signer.map(|SeenHere { sha256, root, not_after, .. }| SignerOf { sha256, root, not_after }),
            mesh: ReportedMesh::of(attestation),
        }
    });
    (!comparison.attested.is_empty()).then(|| all.collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::super::compare::tests::{life, place, rotation};
    use super::super::compare::{Comparison, Kind, compare};
    use super::super::show;
    use super::*;
    use crate::ca::fixtures::now;
    use crate::life::attestation::AttestedSigner;
    use crate::report::ReportedSigner;

    fn sha256(byte: u8) -> Sha256 {
        Sha256([byte; 32])
    }

    /// Vault and the NAS, whose gate attests, while a root is replaced.
    fn rotating() -> Comparison {
        let mut nas = place(Kind::Cacerts, "nas cacerts", &[1, 2]);
        let signer = ReportedSigner {
            sha256: sha256(7).openssl(),
            root: sha256(2).openssl(),
            not_after: "2027-03-01T00:00:00Z".to_owned(),
            renewal_due: "2027-02-01T00:00:00Z".to_owned(),
        };
        nas.told.as_mut().unwrap().signer = Some(signer);
        let mut life = life(Some(rotation()), &[("homelab", &[1, 2]), ("nas", &[1, 2])]);
        for (name, attestation) in life.heard.as_mut().unwrap() {
            let attestation = attestation.as_mut().unwrap();
            let signer = AttestedSigner { sha256: sha256(7), root: sha256(2), not_after: now() };
            attestation.signer = Some(signer);
            attestation.settled = (name == "homelab").then(now);
            attestation.why = (name == "nas").then(|| "no istiod runs".to_owned());
        }
        compare(vec![place(Kind::Vault, "Vault secret/istio/ca", &[1, 2]), nas]).with(Some(life))
    }

    #[test]
    fn the_table_tells_of_each_signer_and_mesh_and_what_a_rotation_waits_for() {
        for width in [Width::Columns(80), Width::Wide] {
            let text = show::table(&rotating(), now(), width);
            let text = anstream::adapter::strip_str(&text).to_string();
            let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
            for says in [
                "Vault secret/istio/ca rotating",
                "SIGNER OF UNDER ENDS ITS MESH",
                "nas cacerts 02:02:02:02",
                "homelab attests 02:02:02:02",
                "settled since 2027-01-01T00:00:00Z",
                "not settled: no istiod runs",
                "The root is being replaced by root-2, from root-1: next is drop, not before 2027-01-01T02:00:00Z, and waits for nas.",
                "Equal: all 2 places have the same roots.",
            ] {
                assert!(words.contains(says), "{says:?} not in {words}");
            }
            if width == Width::Columns(80) {
                let rows = text.lines().take_while(|line| !line.starts_with("The root"));
                assert!(rows.filter(|line| line.chars().count() > 80).count() == 0, "{text}");
            }
        }
    }

    #[test]
    fn what_is_wrong_with_an_attestation_or_keeps_from_it_is_a_line() {
        let vault = || compare(vec![place(Kind::Vault, "Vault", &[1])]);
        let attests = |roots: &[u8]| {
            let text = show::table(&vault().with(Some(life(None, &[("nas", roots)]))), now(), Width::Wide);
            anstream::adapter::strip_str(&text).to_string()
        };
        assert!(attests(&[1, 2]).contains("nas attests to some of Vault's roots, or to more than those."));
        assert!(attests(&[2]).contains("nas attests to other roots than Vault's."));
        assert!(attests(&[2]).contains("Not equal: a cluster attests to other roots than Vault."));
        assert!(attests(&[]).contains("nas attests to no root"));
        assert!(attests(&[]).contains("Could not tell: a cluster attests to no root."));
    }

    #[test]
    fn json_has_the_rotation_and_what_each_cluster_attests_to() {
        let document: Value = serde_json::from_str(&show::json(&rotating(), now(), true)).unwrap();
        assert_eq!(document["verdict"], "equal");
        assert_eq!(document["places"][1]["verdict"], "rotating");
        assert_eq!(document["places"][1]["signer"]["root"], sha256(2).openssl());
        assert_eq!(
            document["rotation"],
            json!({
                "goal": "root-2", "goalSha256": sha256(2).openssl(), "from": ["root-1"], "next": "drop",
                "notBefore": "2027-01-01T02:00:00Z", "paused": false, "ttl": "1day", "started": "2026-12-31T22:00:00Z",
                "by": "ops@laptop", "clusters": ["homelab", "nas"],
            })
        );
        assert_eq!(
            document["attested"][1],
            json!({
                "cluster": "nas", "verdict": "rotating", "roots": [sha256(1).openssl(), sha256(2).openssl()],
                "signer": { "sha256": sha256(7).openssl(), "root": sha256(2).openssl(), "notAfter": "2027-01-01T00:00:00Z" },
                "mesh": {
                    "settled": null, "why": "no istiod runs", "istiodsSettled": 0, "istiodsBehind": [],
                    "namespaces": 0, "namespacesBehind": [], "at": "2027-01-01T00:00:00Z",
                },
            })
        );
    }
}

#![allow(clippy::unwrap_used)]

use super::html::distance;
use super::*;
use crate::ca::fixtures::now;
use crate::peers::samples::{heard, told};
use crate::peers::served::{Root, Told};
use crate::reason::{ByItself, Held, Reason};
use crate::samples::{Known, POLICY as DEFAULTS, R1, R2};
use k8s_openapi::jiff::SignedDuration;

fn here(known: &Known) -> Here {
    Here::of("nas", Role::Sync, known.snapshot(), &DEFAULTS, known.now)
}

/// The page as text, without its elements.
fn text(known: &Known, peers: &[Heard]) -> String {
    let page = page(&here(known), peers, "1.2.3", now());
    let body = page.split("<body>").nth(1).unwrap();
    let pieces = body.split('<').map(|piece| piece.rsplit_once('>').map_or(piece, |(_, text)| text));
    pieces.collect()
}

fn open() -> Known {
    Known::open(&R1)
}

/// A peer with this root.
fn peer(sound: &crate::ca::check::Sound) -> Heard {
    let root = Root::from(sound.glance.clone());
    heard(Told { cacerts: Some(root), ..told("homelab", 1) })
}

#[test]
fn every_state_says_what_it_means_and_what_to_do() {
    for (known, says) in [
        (open(), ["The gate is open", "Gated pods are let in. Nothing has to be done."]),
        (Known::nothing(), ["The gate is dormant", "deploy istiod"]),
        (
            Known::nothing().but(|it| it.convergence.running = true),
            ["The gate is converging", "nothing has to be done"],
        ),
        (
            Known::nothing().held(Reason::RootMissing),
            ["The gate is held", "RootMissing: cluster nas: the cause: the next step"],
        ),
        (open().held(Reason::VaultUnreachable), ["The gate is open", "Vault cannot be asked"]),
    ] {
        let text = text(&known, &[]);
        assert!(says.iter().all(|says| text.contains(says)), "{says:?} in {text}");
        assert!(!text.contains("clusters"), "without peers there is nothing to compare: {text}");
    }
}

#[test]
fn a_reason_leads_to_what_it_means() {
    let page = page(&here(&Known::nothing().held(Reason::RootMissing)), &[], "1.2.3", now());
    assert!(page.contains("<a href=\"/reasons/RootMissing\">"), "{page}");
}

#[test]
fn the_verdict_on_all_clusters_stands_first() {
    let unreached = Heard { url: "https://gate.example/".to_owned(), reached: None, told: None };
    for (peers, verdict, of_peer) in [
        (vec![peer(&R1)], "All 2 clusters have one root.", "the same as here"),
        (vec![peer(&R1), peer(&R2)], "Not all clusters have the same root.", "another one than here"),
        (vec![peer(&R1), unreached], "It cannot be told whether all clusters have one root.", "its gate does not tell"),
    ] {
        let text = text(&open(), &peers);
        assert!(text.contains(of_peer), "{text}");
        let (verdict, state) = (text.find(verdict).unwrap(), text.find("The gate is open").unwrap());
        assert!(verdict < state, "{text}");
    }
}

#[test]
fn a_peer_that_is_held_or_does_not_answer_says_why() {
    let held = Told {
        state: "held".to_owned(),
        reason: Some(Reason::VaultSealed),
        sentence: "cluster homelab: unseal it".to_owned(),
        cacerts: None,
        ..told("homelab", 1)
    };
    let text_of = text(&open(), &[heard(held)]);
    assert!(text_of.contains("held; VaultSealed: cluster homelab: unseal it"), "{text_of}");
    assert!(text_of.contains("that cluster has no cacerts that can be read"), "{text_of}");
    let silent = Heard { told: Some(Err("status 404: check the address".to_owned())), ..peer(&R1) };
    let text_of = text(&open(), &[silent]);
    assert!(text_of.contains("status 404: check the address") && text_of.contains("0 s ago"), "{text_of}");
}

#[test]
fn no_foreign_text_is_markup() {
    let evil = "</bdi></style><script>alert(1)</script><img src=x onerror='x'>\"&";
    let mut told = told(evil, 1);
    told.state = evil.to_owned();
    told.reason = Some(Reason::VaultSealed);
    told.sentence = evil.to_owned();
    let peers = [heard(told), Heard { told: Some(Err(evil.to_owned())), ..peer(&R1) }];
    let known = open().but(|known| {
        known.convergence.held = Some(Held::without_next(Reason::VaultSealed, evil, ByItself::Unsaid));
    });
    let page = page(&here(&known), &peers, "1.2.3", now());
    assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
    assert_eq!(page.matches("&lt;script&gt;").count(), 5, "{page}");
}

#[test]
fn the_policy_allows_its_own_style_and_nothing_else() {
    let page = page(&here(&open()), &[], "1.2.3", now());
    let style = page.split("<style>").nth(1).unwrap().split("</style>").next().unwrap();
    let digest = BASE64_STANDARD.encode(Sha256::of(style.as_bytes()).0);
    let policy = POLICY.to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; ") && policy.contains(&format!("'sha256-{digest}'")), "{policy}");
    assert!(!policy.contains("unsafe"));
    for loads in ["<script", "<link", "<img", "src=", "url(", "@import", " style=", " onclick"] {
        assert!(!page.contains(loads), "{loads}");
    }
}

#[test]
fn a_distance_is_told_in_a_unit_that_people_count_in() {
    for (seconds, says) in
        [(0, "0 s ago"), (-90, "90 s ago"), (-600, "10 min ago"), (7200, "in 2 h"), (90 * 86400, "in 90 days")]
    {
        assert_eq!(distance(SignedDuration::from_secs(seconds)), says);
    }
}

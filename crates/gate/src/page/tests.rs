#![allow(clippy::unwrap_used)]

use super::parts::distance;
use super::*;
use crate::ca::fixtures::now;
use crate::life::attestation::{Attestation, Istiods, Namespaces};
use crate::life::course::Course;
use crate::life::rule::Step;
use crate::peers::samples::{heard, told};
use crate::peers::served::{Root, Told};
use crate::plan::Contradiction;
use crate::reason::{ByItself, Held, Reason};
use crate::report::{ReportedMesh, ReportedSigner};
use crate::samples::{Known, POLICY as DEFAULTS, R1, R2, ago, attestation, known_root, rotation};
use k8s_openapi::jiff::SignedDuration;

fn here(known: &Known) -> Here {
    Here::of("nas", Role::Sync, known.snapshot(), &DEFAULTS, known.now)
}

/// The page as text, without its elements.
fn text(known: &Known, peers: &[Heard]) -> String {
    text_of(&page(&here(known), peers, "1.2.3", now()))
}

fn text_of(page: &str) -> String {
    let body = page.split("<body>").nth(1).unwrap();
    let pieces = body.split('<').map(|piece| piece.rsplit_once('>').map_or(piece, |(_, text)| text));
    pieces.collect::<String>().replace("&#39;", "'")
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
        (vec![peer(&R1)], "All 2 clusters have one root.", "agrees"),
        (vec![peer(&R1), peer(&R2)], "Not all clusters have the same root.", "differs"),
        (vec![peer(&R1), unreached], "It cannot be told whether all clusters have one root.", "it was not asked yet"),
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
    assert!(text_of.contains("it has no cacerts that can be read"), "{text_of}");
    let silent = Heard { told: Some(Err("status 404: check the address".to_owned())), ..peer(&R1) };
    let text_of = text(&open(), &[silent]);
    assert!(
        text_of.contains("its gate does not tell: status 404: check the address")
            && text_of.contains("reached 0 s ago"),
        "{text_of}"
    );
}

/// The names of the clusters, from top to bottom.
fn names(known: &Known, peers: &[Heard]) -> Vec<String> {
    let page = page(&here(known), peers, "0.1.0", now());
    let rows = page.split("<table class=\"clusters\">").nth(1).unwrap().split("</table>").next().unwrap();
    let names = rows.split("<th scope=\"row\"><bdi>").skip(1).map(|rest| rest.split('<').next().unwrap());
    names.map(str::to_owned).collect()
}

/// An open gate that has read this root in Vault.
fn knowing(stored: &crate::ca::check::Sound) -> Known {
    open().but(|known| known.convergence.root = Some(known_root(stored)))
}

fn named(name: &str, sound: &crate::ca::check::Sound) -> Heard {
    heard(Told { cacerts: Some(Root::from(sound.glance.clone())), ..told(name, 1) })
}

#[test]
fn each_cluster_has_a_row_and_the_one_that_differs_is_on_top_be_it_this_one() {
    let silent = Heard { told: Some(Err("status 404".to_owned())), ..peer(&R1) };
    for (known, peers, wanted) in [
        (open(), vec![named("a", &R1), named("b", &R2)], vec!["b", "nas", "a"]),
        (open(), vec![named("a", &R2), named("b", &R2)], vec!["nas", "a", "b"]),
        (open(), vec![named("a", &R1), named("b", &R1)], vec!["nas", "a", "b"]),
        (open(), vec![named("a", &R1), silent.clone()], vec!["(not known)", "nas", "a"]),
        // Of two that differ, Vault tells which one.
        (knowing(&R1), vec![named("a", &R2)], vec!["a", "nas"]),
        (knowing(&R2), vec![named("a", &R2)], vec!["nas", "a"]),
        // Of more, too.
        (knowing(&R1), vec![named("a", &R2), named("b", &R2)], vec!["a", "b", "nas"]),
    ] {
        assert_eq!(names(&known, &peers), wanted);
    }
    assert!(text(&open(), &[silent]).contains("nothing to compare it with"));
    // Where nobody can tell which of two is right, neither is said to be.
    let unsure = text(&open(), &[named("a", &R2)]);
    assert!(unsure.matches("differs").count() == 2 && !unsure.contains("agrees"), "{unsure}");
}

#[test]
fn a_peers_sentence_is_not_cut_before_its_next_step() {
    let root = R1.root.openssl();
    let sentence = format!(
        "cluster homelab: Vault's root is {root}, but this cluster trusts {root}: {}: restore it",
        "x".repeat(300)
    );
    let body = serde_json::json!({
        "cluster": "homelab", "state": "held", "reason": "RootChanged", "message": format!("RootChanged: {sentence}"),
    });
    let told = Told::parse(body.to_string().as_bytes()).unwrap();
    assert!(text(&open(), &[heard(told)]).contains(&sentence));
}

#[test]
fn since_when_it_is_not_well_who_waits_the_pin_and_the_self_test_stand_there() {
    let known = Known::open(&R1).but(|known| {
        known.convergence.contradicted =
            Some(Contradicted { contradiction: Contradiction { by: Reason::RootDeleted, at: now() }, recorded: true });
    });
    let known = known.held(Reason::RootDeleted);
    let waiting =
        Waiting { owner: "ReplicaSet istio-system/istiod-1".to_owned(), times: 3, since: ago(60), last: ago(5) };
    for (self_test, says) in [
        (SelfTested::Off, "off (--self-test)"),
        (SelfTested::Never, "not run yet"),
        (SelfTested::Last(true, ago(10)), "the API server calls a gate: 2026-12-31"),
        (SelfTested::Last(false, ago(10)), "the API server did not call a gate: 2026-12-31"),
    ] {
        let text = text_of(&page(&here(&known).with(vec![waiting.clone()], self_test, None), &[], "0.1.0", now()));
        for says in [
            says,
            "ReplicaSet istio-system/istiod-1: its pods were refused 3 times, since 2026-12-31 23:59:00 UTC (60 s ago), last 5 s ago",
            "Held since2026-12-31 23:55:00 UTC (5 min ago)",
            "Vault then said RootDeleted",
            &format!("trusts{}", R1.root.openssl()),
        ] {
            assert!(text.contains(says), "{says:?} in {text}");
        }
    }
    let well = text(&open(), &[]);
    assert!(well.contains("nobody, as far as this replica was asked") && !well.contains("since"), "{well}");
}

#[test]
fn the_days_that_are_left_are_coloured_as_the_alerts_have_them() {
    for (days, tone) in [(89, "wait"), (90, "good"), (29, "bad"), (-1, "bad")] {
        let page = parts::end(now() + SignedDuration::from_hours(24 * days), now()).into_string();
        assert!(page.contains(&format!("<strong class=\"{tone}\">")), "{days}: {page}");
    }
}

#[test]
fn it_is_loaded_anew_only_where_that_is_asked_for() {
    assert!(!page(&here(&open()), &[], "0.1.0", now()).contains("http-equiv"));
    for (query, wanted) in [(None, None), (Some(""), None), (Some("x"), None), (Some("reload"), Some("15"))] {
        let header = reload(query).map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
        assert_eq!(header, wanted.map(|wanted| ("refresh".to_owned(), wanted.to_owned())), "{query:?}");
    }
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

/// An open gate with a witness, while a root is replaced, and this is next.
fn rotating(settled: bool, change: impl FnOnce(&mut Course)) -> Here {
    let (why, settled) = if settled { (None, Some(ago(600))) } else { (Some("no istiod runs".to_owned()), None) };
    let istiods = Istiods { settled: 1, behind: if why.is_some() { vec!["istiod-7".to_owned()] } else { Vec::new() } };
    let namespaces = Namespaces { total: 3, behind: Vec::new() };
    let attestation = Attestation { settled, why, istiods, namespaces, ..attestation("nas", now()) };
    let next = Some(Step::Drop);
    let not_before = Some(now() + SignedDuration::from_hours(3));
    let mut course = Course { rotation: rotation(), goal: Some(R2.root), next, not_before };
    change(&mut course);
    here(&open()).with(Vec::new(), SelfTested::Off, Some(&Outlook { attestation, course: Some(course) }))
}

fn rotating_text(here: &Here, peers: &[Heard]) -> String {
    text_of(&page(here, peers, "1.2.3", now()))
}

#[test]
fn a_rotation_says_what_comes_next_what_is_waited_for_and_until_when() {
    let well = rotating_text(&rotating(true, |course| course.rotation.clusters = ["nas".to_owned()].into()), &[]);
    for says in [
        "The root is being replaced by root-2",
        "It waits until 2027-01-01 03:00:00 UTC (in 3 h): certificates from before are about until then. Then comes drop.",
        "Fromroot-1",
        &format!("Toroot-2{}", R2.root.openssl()),
        "by ops@laptop",
        "switch, all signers are certified by the new root: done",
        "drop, the old root is no longer trusted: next",
        "done, it is over: later",
        "settled since 2026-12-31 23:50:00 UTC (10 min ago)",
        "1 of 1 istiods, 3 of 3 namespaces",
    ] {
        assert!(well.contains(says), "{says:?} in {well}");
    }
    let behind = rotating_text(&rotating(false, |_| ()), &[]);
    for says in [
        "It waits until every cluster works with what Vault's record says: nas, homelab.",
        "not yet: no istiod runs",
        "1 of 2 istiods",
        "behind: istiod-7",
        "homelab–nothing is known of it here",
    ] {
        assert!(behind.contains(says), "{says:?} in {behind}");
    }
    let paused = rotating_text(&rotating(true, |course| course.rotation.paused = true), &[]);
    assert!(paused.contains("It is paused: no step is taken until istio-ca-gate rotate resume."), "{paused}");
    let unknown = rotating_text(&rotating(false, |course| course.next = None), &[]);
    assert_eq!(unknown.matches(": not known").count(), 4, "{unknown}");
    assert!(!text(&open(), &[]).contains("replaced"));
}

#[test]
fn a_rotation_shows_the_other_clusters_as_their_gates_tell() {
    let mut homelab = told("homelab", 1);
    let signer = ReportedSigner {
        sha256: R1.root.openssl(),
        root: R2.root.openssl(),
        not_after: "2027-03-01T00:00:00Z".to_owned(),
        renewal_due: "2027-02-01T00:00:00Z".to_owned(),
    };
    homelab.cacerts.as_mut().unwrap().signer = Some(signer);
    homelab.mesh = Some(ReportedMesh::of(&Attestation { settled: Some(ago(60)), ..attestation("homelab", ago(5)) }));
    let text = rotating_text(&rotating(true, |course| course.not_before = None), &[heard(homelab)]);
    assert!(text.contains("Next is drop: istio-ca-gate rotate step takes it."), "{text}");
    assert!(text.contains("homelabroot-2settled since 2026-12-31 23:59:00 UTC (60 s ago)"), "{text}");
    assert!(text.contains("seen 5 s ago"), "{text}");
}

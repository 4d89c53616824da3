#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::super::samples::reply;
use super::*;
use gate_core::ca::fixtures::now;
use gate_core::samples::assert_fit_for_users;

/// What Vault 1.21 says, but for these.
fn of(status: u16, other: &Value) -> Health {
    let mut body = json!({
        "initialized": true, "sealed": false, "standby": false, "performance_standby": false,
        "replication_performance_mode": "disabled", "replication_dr_mode": "disabled",
        "replication_primary_canary_age_ms": 0, "clock_skew_ms": 0, "echo_duration_ms": 0,
        "server_time_utc": now().as_second(), "version": "1.21.1", "enterprise": false,
        "cluster_name": "vault-cluster-4a1b", "cluster_id": "one",
    });
    for (key, value) in other.as_object().unwrap() {
        body[key] = value.clone();
    }
    health(&reply(status, &body.to_string()), now()).unwrap()
}

/// One of OpenBao's, which tells less.
fn openbao(status: u16, standby: bool) -> Health {
    let body = json!({
        "initialized": true, "sealed": false, "standby": standby, "version": "2.5.0", "cluster_id": "one",
        "server_time_utc": now().as_second(),
    });
    health(&reply(status, &body.to_string()), now()).unwrap()
}

fn reads(millis: Option<u64>) -> Node {
    Node::Reads { heard: millis.map(Duration::from_millis) }
}

#[test]
fn what_a_node_can_know_follows_from_what_it_says_of_itself() {
    let standby = |healthy: bool| json!({ "standby": true, "ha_connection_healthy": healthy, "last_request_forwarding_heartbeat_ms": 1200 });
    let performance = json!({
        "standby": true, "performance_standby": true, "enterprise": true,
        "ha_connection_healthy": true, "last_request_forwarding_heartbeat_ms": 4000,
    });
    let secondary =
        |age: u64| json!({ "replication_performance_mode": "secondary", "replication_primary_canary_age_ms": age });
    for (status, body, node) in [
        (200, json!({}), Node::Active),
        (429, standby(true), Node::Forwards),
        (429, json!({ "standby": true, "enterprise": null, "version": "1.16.3" }), Node::Forwards),
        (429, standby(false), Node::CutOff),
        (474, standby(false), Node::CutOff),
        (473, performance.clone(), reads(Some(4000))),
        // Asked by a load balancer with perfstandbyok, or standbyok.
        (200, performance, reads(Some(4000))),
        (200, json!({ "standby": true, "version": "2.5.0", "enterprise": null }), reads(None)),
        (473, json!({ "standby": true, "performance_standby": true }), reads(None)),
        (200, secondary(950), reads(Some(950))),
        (200, secondary(0), reads(None)),
        (472, json!({ "replication_dr_mode": "secondary" }), Node::Recovery),
        (503, json!({ "sealed": true, "standby": true }), Node::Sealed),
        (501, json!({ "initialized": false, "sealed": true }), Node::Sealed),
        (530, json!({ "removed_from_cluster": true, "standby": true }), Node::Other),
        (500, json!({}), Node::Other),
    ] {
        assert_eq!(of(status, &body).node, node, "{status} {body}");
    }
    assert_eq!(openbao(200, false).node, Node::Active);
    assert_eq!(openbao(429, true).node, reads(None), "its standbys answer by themselves");
}

#[test]
fn a_secondarys_standby_is_as_far_behind_as_the_longest_of_its_ways() {
    let both = json!({
        "standby": true, "performance_standby": true, "ha_connection_healthy": true,
        "last_request_forwarding_heartbeat_ms": 1000, "replication_performance_mode": "secondary",
        "replication_primary_canary_age_ms": 40_000,
    });
    assert_eq!(of(473, &both).node, reads(Some(40_000)));
}

#[test]
fn only_what_the_active_node_says_or_said_lately_counts() {
    let address = "https://vault.example";
    for node in [Node::Active, Node::Forwards, reads(Some(0)), reads(Some(30_000))] {
        assert_eq!(usable(address, node), Ok(()), "{node:?}");
    }
    for (node, says) in [
        (reads(None), "may be old): configure the active node's address"),
        (reads(Some(30_001)), "may be old"),
        (Node::CutOff, "lost the active node"),
        (Node::Recovery, "the primary's address"),
        (Node::Sealed, "unseal it"),
        (Node::Other, "neither active nor standby"),
    ] {
        let held = usable(address, node).unwrap_err();
        assert_fit_for_users(&held.message("nas"));
        assert!(held.sentence().contains(address) && held.sentence().contains(says), "{}", held.sentence());
        let reason = if node == Node::Sealed { Reason::VaultSealed } else { Reason::VaultUnreachable };
        assert_eq!(held.reason, reason);
    }
}

#[test]
fn the_bound_is_the_one_that_is_told() {
    let held = usable("https://vault.example", reads(None)).unwrap_err();
    assert!(held.sentence().contains(&format!("within {} s", LAG_MAX.as_secs())), "{}", held.sentence());
}

#[test]
fn its_clock_is_told_by_the_body_or_else_by_the_date() {
    let two_days = SignedDuration::from_hours(48);
    let ahead = |body: Value| of(200, &body).ahead;
    assert_eq!(ahead(json!({})), Some(SignedDuration::ZERO));
    assert_eq!(ahead(json!({ "server_time_utc": (now() + two_days).as_second() })), Some(two_days));
    assert_eq!(ahead(json!({ "server_time_utc": null })), None);
    let body = json!({ "initialized": true }).to_string();
    let dated = Reply { date: Some(now() - two_days), ..reply(200, &body) };
    assert_eq!(health(&dated, now()).unwrap().ahead, Some(-two_days));
}

#[test]
fn what_is_not_vaults_tells_nothing() {
    for body in ["", "ok", "{}", "[]", "null", "{\"initialized\":1}", "<html>"] {
        assert!(health(&reply(200, body), now()).is_none(), "{body}");
    }
    assert_eq!(of(503, &json!({ "sealed": true, "cluster_id": "" })).cluster_id, None);
}

// Whether they are one.

const HERE: &str = "https://a";

fn one(others: &[(Option<Health>, bool)]) -> Result<(), Held> {
    let here = of(200, &json!({}));
    let names = ["https://b", "https://c"];
    let others = others.iter().zip(names);
    let others = others.map(|((health, gone), address)| Asked { address, health: health.as_ref(), gone: *gone });
    let asked: Vec<_> = [Asked { address: HERE, health: Some(&here), gone: false }].into_iter().chain(others).collect();
    let told = one_vault(HERE, &asked);
    if let Err(held) = &told {
        assert_fit_for_users(&held.message("homelab"));
    }
    told
}

fn reason(others: &[(Option<Health>, bool)]) -> Option<Reason> {
    one(others).err().map(|held| held.reason)
}

#[test]
fn addresses_are_one_vault_only_if_each_has_said_so() {
    let same = || of(429, &json!({ "standby": true }));
    let other = || of(200, &json!({ "cluster_id": "two" }));
    let sealed = || of(503, &json!({ "sealed": true, "cluster_id": null }));
    let nameless = || of(200, &json!({ "cluster_id": null }));
    assert_eq!(reason(&[]), None);
    assert_eq!(reason(&[(Some(same()), false)]), None);
    assert_eq!(reason(&[(Some(same()), false), (Some(other()), false)]), Some(Reason::VaultAmbiguous));
    assert_eq!(reason(&[(None, false)]), Some(Reason::VaultAmbiguous), "it may hold the root");
    assert_eq!(reason(&[(None, false), (Some(same()), false)]), Some(Reason::VaultAmbiguous));
    assert_eq!(reason(&[(Some(sealed()), false)]), Some(Reason::VaultSealed));
    assert_eq!(reason(&[(Some(nameless()), false)]), Some(Reason::VaultAmbiguous));
}

#[test]
fn who_says_that_an_address_is_gone_answers_for_its_silence_and_for_no_more() {
    assert_eq!(reason(&[(None, true)]), None);
    assert_eq!(reason(&[(None, true), (None, false)]), Some(Reason::VaultAmbiguous));
    let sealed = of(503, &json!({ "sealed": true, "cluster_id": null }));
    assert_eq!(reason(&[(Some(sealed), true)]), Some(Reason::VaultSealed), "it is there");
    let other = of(200, &json!({ "cluster_id": "two" }));
    assert_eq!(reason(&[(Some(other), true)]), Some(Reason::VaultAmbiguous), "it is there, and another one");
}

/// As real ones are, some of which look like tokens, and are withheld where they are shown.
#[test]
fn two_vaults_are_told_apart_by_what_they_say_and_not_by_what_may_be_shown_of_it() {
    let said = |id: &str| of(200, &json!({ "cluster_id": id }));
    let long = "x".repeat(1000);
    for (first, second) in [
        ("b21be4c0-d7bf-d0e1-cda2-aeafd151dce4".to_owned(), "916f86cc-bbc9-cbe9-c847-a0167af4a44d".to_owned()),
        ("hvs.one".to_owned(), "hvs.two".to_owned()),
        (format!("{long}1"), format!("{long}2")),
        ("a\nb".to_owned(), "a b".to_owned()),
    ] {
        let (here, other) = (said(&first), said(&second));
        let asked = [
            Asked { address: HERE, health: Some(&here), gone: false },
            Asked { address: "https://b", health: Some(&other), gone: false },
        ];
        assert_eq!(one_vault(HERE, &asked).unwrap_err().reason, Reason::VaultAmbiguous, "{first} {second}");
    }
}

#[test]
fn a_silent_address_is_named_with_the_flag_that_ends_the_wait() {
    let held = one(&[(None, false)]).unwrap_err();
    assert!(held.sentence().contains("--vault-gone https://b"), "{}", held.sentence());
    let other = of(200, &json!({ "cluster_id": "two" }));
    let held = one(&[(Some(other), false)]).unwrap_err();
    assert!(held.sentence().contains("https://a and https://b are two different Vaults"), "{}", held.sentence());
}

#[test]
fn where_nothing_was_found_it_must_be_known_which_vault_that_is() {
    let nameless = of(200, &json!({ "cluster_id": "" }));
    let held = one_vault(HERE, &[Asked { address: HERE, health: Some(&nameless), gone: true }]).unwrap_err();
    assert_eq!(held.reason, Reason::VaultUnreachable);
}

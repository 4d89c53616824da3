#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{ValidatingWebhook, ValidatingWebhookConfiguration};

use super::*;
use crate::clock::Boot;
use crate::plan::{Contradiction, Owner, Published};
use crate::samples::{
    BOTH, Known, POLICY, R1, R1_OTHER_CA, R2, UNSOUND, VERSION, ago, assert_fit_for_users, every_combination, held,
    last_verified, present, published, verified,
};
use crate::selector;
use crate::snapshot::{Contradicted, VaultUnavailable};

const CONTRADICTED: Contradicted = Contradicted {
    contradiction: Contradiction { by: Reason::RootDeleted, at: Timestamp::UNIX_EPOCH },
    recorded: true,
};

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// As `serve` has it without a flag.
fn by_default() -> Gated {
    Gated(GATE_SELECTORS.map(|selector| selector::parse(selector).unwrap()).to_vec())
}

const CLASS: &str = "gateway.networking.k8s.io/gateway-class-name";

#[test]
fn the_pods_of_the_real_charts_are_gated_by_default() {
    let gated = by_default();
    for pod in [
        &[("app", "istiod"), ("istio", "pilot")][..],
        &[("app", "istiod"), ("istio", "istiod"), ("istio.io/rev", "1-27")],
        &[("app", "istio-eastwestgateway"), ("istio", "eastwestgateway")],
        &[(CLASS, "istio-east-west"), ("gateway.istio.io/managed", "istio.io-eastwest-controller")],
    ] {
        assert!(gated.matches(&labels(pod)), "{pod:?}");
    }
}

#[test]
fn near_misses_are_not_gated_by_default() {
    let gated = by_default();
    for pod in [
        &[][..],
        &[("app", "istio-ca-gate")],
        &[("app", "istio-ingressgateway"), ("istio", "ingressgateway")],
        &[("app", "istiod-canary")],
        &[("app", "Istiod")],
        &[("app", "")],
        &[("k8s-app", "istiod")],
        &[("istio.io/rev", "pilot")],
        &[("istio", "")],
        &[(CLASS, "istio")],
        &[(CLASS, "istio-waypoint"), ("gateway.istio.io/managed", "istio.io-mesh-controller")],
        &[("gateway.istio.io/managed", "istio.io-eastwest-controller")],
    ] {
        assert!(!gated.matches(&labels(pod)), "{pod:?}");
    }
}

/// The entries of the manifest.
fn manifest() -> Vec<ValidatingWebhook> {
    let manifest = include_str!("../../../../deploy/kustomize/base/webhook.yaml");
    // Any other kind is an error.
    serde_saphyr::from_str::<ValidatingWebhookConfiguration>(manifest).unwrap().webhooks.unwrap()
}

#[test]
fn the_manifest_sends_each_gated_pod_once_and_no_other() {
    let values = |list: &[&'static str]| list.iter().copied().map(Some).chain([None]).collect::<Vec<_>>();
    let selectors: Vec<Selector> =
        manifest().into_iter().map(|webhook| webhook.object_selector.unwrap().try_into().unwrap()).collect();
    assert_eq!(selectors.len(), 3);
    let gated = by_default();
    let mut calls = [0; 2];
    for app in values(&["istiod", "istio-eastwestgateway", "pilot", "other", ""]) {
        for istio in values(&["pilot", "istiod", "eastwestgateway", "ingressgateway", ""]) {
            for class in values(&["istio-east-west", "istio", ""]) {
                let pairs = [("app", app), ("istio", istio), (CLASS, class)];
                let pod: Vec<_> = pairs.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
                let sent = selectors.iter().filter(|selector| selector.matches(&labels(&pod))).count();
                assert_eq!(sent, usize::from(gated.matches(&labels(&pod))), "{pod:?}");
                calls[sent] += 1;
            }
        }
    }
    // 2 of 6 by app; of the others 3 of 6 by istio; of the others 1 of 4 by class.
    assert_eq!(calls, [144 - 48 - 48 - 12, 48 + 48 + 12]);
}

#[test]
fn the_manifest_fails_closed_and_asks_for_creations_of_pods_only() {
    for webhook in manifest() {
        assert_eq!(webhook.failure_policy.as_deref(), Some("Fail"));
        assert_eq!(webhook.side_effects, "NoneOnDryRun");
        assert_eq!(webhook.admission_review_versions, ["v1"]);
        assert_eq!(webhook.client_config.ca_bundle, None);
        let [rule] = webhook.rules.as_deref().unwrap() else { panic!("{:?}", webhook.rules) };
        let of = |list: &Option<Vec<String>>| list.clone().unwrap().join(",");
        let rule = [&rule.operations, &rule.api_groups, &rule.api_versions, &rule.resources].map(of);
        assert_eq!(rule, ["CREATE", "", "v1", "pods"]);
    }
}

fn ask(labels: &BTreeMap<String, String>) -> Ask<'_> {
    Ask { is_pod: true, is_create: true, dry_run: false, labels }
}

/// A decision as one line.
fn told(decision: &Result<Decision, Learn>) -> String {
    match decision {
        Ok(Decision::NotGated) => "not gated".to_owned(),
        Ok(Decision::Open { root, version }) => format!("open {root} {version}"),
        Ok(Decision::OpenUnverified { root, at, held }) => format!("open {root} since {at} despite {}", held.reason),
        Ok(Decision::Deny(held)) => format!("deny {}", held.reason),
        Err(Learn::Cacerts) => "read live".to_owned(),
        Err(Learn::Pin) => "look at the pin".to_owned(),
        Err(Learn::Convergence) => "consult".to_owned(),
    }
}

fn decision(ask: &Ask<'_>, known: &Known, policy: &Policy) -> Result<Decision, Learn> {
    static GATED: LazyLock<Gated> = LazyLock::new(by_default);
    gate(ask, &GATED, known.snapshot(), policy, known.now)
}

/// Everything that can be known, with what a gated pod must be told: outside of a dry run, and in one.
fn in_every_state(mut look: impl FnMut(&Known, &Policy, &str, &str)) -> usize {
    let day = 24 * 3600;
    let silences = [None, Some(89), Some(90)].map(|seconds| seconds.map(Duration::from_secs));
    let sound = |owner, sound| (Some(published(owner, sound)), Some(sound));
    let copies = [
        (None, None),
        (Some(Published::Absent), None),
        (Some(present(Owner::Ours, Err(UNSOUND))), None),
        sound(Owner::Ours, &R1),
        sound(Owner::Other, &R1_OTHER_CA),
        sound(Owner::Ours, &BOTH),
        sound(Owner::Ours, &R2),
    ];
    // Vault's CA and the root last verified, each with its age in seconds.
    let comparisons = [None, Some((&R1, 90)), Some((&R1, 91)), Some((&R1, -301)), Some((&R2, 0)), Some((&BOTH, 0))];
    let pins = [None, Some((&R1, day)), Some((&R1, day + 1)), Some((&R1, -301)), Some((&R2, 0)), Some((&BOTH, 0))];
    let reasons: Vec<_> = Reason::ALL.iter().copied().map(Some).chain([None]).collect();
    every_combination(|pick| {
        let (silence, (copy, sound)) = (*pick.of(&silences), pick.of(&copies));
        let (comparison, pin, reason) = (*pick.of(&comparisons), *pick.of(&pins), *pick.of(&reasons));
        let (contradicted, pin_known) = (*pick.of(&[false, true]), *pick.of(&[false, true]));
        let vault_unavailable = *pick.of(&[VaultUnavailable::AllowVerified, VaultUnavailable::Deny]);

        let mut known = Known::nothing();
        known.watched.heard = silence.map(|silence| Boot(known.now.boot.0 - silence));
        known.watched.published = copy.as_ref().map(Published::facts);
        known.convergence.held = reason.map(held);
        known.convergence.contradicted = contradicted.then_some(CONTRADICTED);
        known.convergence.pin_read = pin_known.then_some(known.now.boot);
        known.convergence.verified = comparison.map(|(sound, age)| verified(sound, age));
        known.convergence.last_verified = pin.and_then(|(sound, age)| last_verified(sound, age));

        let is_heard = silence == silences[1];
        let sound = sound.filter(|_| is_heard);
        let compared = comparison.filter(|(_, age)| [0, 90].contains(age)).map(|(stored, _)| stored);
        let may_be_bridged = !contradicted && vault_unavailable == VaultUnavailable::AllowVerified;
        let outage = reason.filter(|reason| reason.is_bridgeable() && may_be_bridged);
        let pinned = pin.filter(|(_, age)| [0, day].contains(age));
        let mut is_bridged = false;
        let open = match (sound, compared, outage, pinned) {
            (Some(sound), Some(stored), ..) if sound.roots() == stored.roots() => {
                Some(format!("open {} {VERSION}", stored.root))
            }
            (Some(sound), _, Some(reason), Some((pin, age)))
                if sound.root == pin.root && sound.roots() == pin.roots() =>
            {
                is_bridged = true;
                Some(format!("open {} since {} despite {reason}", pin.root, ago(age)))
            }
            _ => None,
        };
        let must = if is_bridged && !pin_known { Some("look at the pin") } else { open.as_deref() };
        let closed = if is_heard { "consult" } else { "read live" };
        let dry_run = format!("deny {}", reason.unwrap_or(Reason::DryRun));
        let policy = Policy { vault_unavailable, ..POLICY };
        look(&known, &policy, must.unwrap_or(closed), open.as_deref().unwrap_or(&dry_run));
    })
}

#[test]
fn in_every_state_a_gated_pod_is_let_in_over_vaults_root_only() {
    let istiod = labels(&[("app", "istiod")]);
    let mut seen = BTreeSet::new();
    let count = in_every_state(|known, policy, must, must_in_dry_run| {
        let real = told(&decision(&ask(&istiod), known, policy));
        assert_eq!(real, must, "{known:?} {policy:?}");
        // A dry run never asks for anything to be started: it is told what is known.
        let dry_run = told(&decision(&Ask { dry_run: true, ..ask(&istiod) }, known, policy));
        assert_eq!(dry_run, must_in_dry_run, "{known:?} {policy:?}");
        seen.extend([real, dry_run].map(|told| told.split(' ').next().unwrap().to_owned()));
    });
    assert_eq!(count, 3 * 7 * 6 * 6 * (Reason::ALL.len() + 1) * 2 * 2 * 2);
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["consult", "deny", "look", "open", "read"]);
}

#[test]
fn in_every_state_what_is_not_gated_is_let_in() {
    let (istiod, other, none) = (labels(&[("app", "istiod")]), labels(&[("app", "web")]), labels(&[]));
    let asks = [
        Ask { is_create: false, ..ask(&istiod) },
        Ask { is_pod: false, ..ask(&istiod) },
        Ask { is_pod: false, is_create: false, dry_run: true, ..ask(&istiod) },
        Ask { dry_run: true, ..ask(&other) },
        ask(&other),
        ask(&none),
    ];
    in_every_state(|known, policy, _, _| {
        for ask in &asks {
            assert!(matches!(decision(ask, known, policy), Ok(Decision::NotGated)), "{ask:?} {known:?}");
        }
    });
}

#[test]
fn a_dry_run_is_told_the_whole_hold_that_is_known() {
    let istiod = labels(&[("app", "istiod")]);
    let known = Known::open(&R1).held(Reason::RootMissing);
    let decision = decision(&Ask { dry_run: true, ..ask(&istiod) }, &known, &POLICY);
    assert!(matches!(decision, Ok(Decision::Deny(told)) if told == held(Reason::RootMissing)));
}

#[test]
fn a_dry_run_before_anything_is_known_says_so() {
    let istiod = labels(&[("app", "istiod")]);
    let decision = decision(&Ask { dry_run: true, ..ask(&istiod) }, &Known::nothing(), &POLICY);
    let Ok(Decision::Deny(held)) = decision else { panic!("{decision:?}") };
    assert_eq!(held.reason, Reason::DryRun);
    assert!(held.sentence().contains("create the pod without dry run"), "{held:?}");
    assert_fit_for_users(&held.message("nas"));
}

#[test]
fn an_open_gate_names_vaults_root_and_version() {
    // The signing CA in the cluster is another one, beneath the same root.
    let istiod = labels(&[("app", "istiod")]);
    let known = Known::open(&R1).but(|known| {
        known.watched.published = Some(published(Owner::Other, &R1_OTHER_CA).facts());
        known.convergence.verified = Some(verified(&R1, 0));
    });
    let decision = decision(&ask(&istiod), &known, &POLICY);
    assert!(matches!(decision, Ok(Decision::Open { root, version: VERSION }) if root == R1.root), "{decision:?}");
}

#[test]
fn no_selector_gates_nothing() {
    assert!(!Gated(Vec::new()).matches(&labels(&[("app", "istiod")])));
}

#[test]
fn a_decision_has_the_word_that_dashboards_know_and_the_code_of_what_is_wrong() {
    let (root, at, held) = (R1.root, Timestamp::UNIX_EPOCH, || held(Reason::VaultSealed));
    for (decision, word, reason) in [
        (Decision::NotGated, "not_gated", None),
        (Decision::Open { root, version: 1 }, "allowed", None),
        (Decision::OpenUnverified { root, at, held: held() }, "allowed_unverified", Some(Reason::VaultSealed)),
        (Decision::Deny(held()), "denied", Some(Reason::VaultSealed)),
    ] {
        assert_eq!((decision.as_str(), decision.reason()), (word, reason));
    }
}

//! What Prometheus' own library reads of `/metrics`.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use testbed::binaries;

use crate::gate::Gate;
use crate::world::{SOON, SmallWorld};

#[derive(Debug, Deserialize)]
struct Sample {
    labels: BTreeMap<String, String>,
    value: f64,
}

/// The names that dashboards and alerts rely on, apart from those that are there only with a certificate from files or
/// a self-test.
const NAMES: [&str; 14] = [
    "istio_ca_gate_admission_requests_total",
    "istio_ca_gate_admission_duration_seconds",
    "istio_ca_gate_admission_in_flight",
    "istio_ca_gate_convergences_total",
    "istio_ca_gate_convergence_duration_seconds",
    "istio_ca_gate_open",
    "istio_ca_gate_root_info",
    "istio_ca_gate_root_not_after_timestamp_seconds",
    "istio_ca_gate_serving_certificate_not_after_timestamp_seconds",
    "istio_ca_gate_usable_until_timestamp_seconds",
    "istio_ca_gate_vault_requests_total",
    "istio_ca_gate_last_verified_timestamp_seconds",
    "istio_ca_gate_build_info",
    "process_resident_memory_bytes",
];

/// Scrapes, and has the text read and linted.
async fn scrape(gate: &Gate) -> Result<BTreeMap<String, Vec<Sample>>> {
    let text = reqwest::get(gate.url("metrics")).await?.text().await?;
    ensure!(!text.contains("PRIVATE KEY") && !text.contains("hvs."), "{text}");
    let read = binaries::prometheus()?.output(Some(&text)).await.context(text)?;
    Ok(serde_json::from_str(&read)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_reads_every_promised_metric_and_its_linter_finds_nothing() -> Result<()> {
    let world = SmallWorld::homelab().await?;
    let gate = Gate::start(&world.side, &world.vault).await?;
    let before = scrape(&gate).await?;
    ensure!(before["istio_ca_gate_open"][0].value == 0.0 && !before.contains_key("istio_ca_gate_root_info"));

    world.side.deploy_istiod().await?;
    world.side.pod("istiod").await?;
    let metrics = gate.process.until("the scrape after the opening", SOON, || scrape_open(&gate)).await?;
    for name in NAMES {
        ensure!(metrics.contains_key(name), "no {name}");
    }
    for (name, samples) in &metrics {
        let are_ours = |sample: &Sample| sample.labels.contains_key("cluster") && sample.labels["role"] == "bootstrap";
        ensure!(samples.iter().all(are_ours), "{name} does not tell whose it is: {samples:?}");
    }
    let roots: Vec<_> = metrics["istio_ca_gate_root_info"].iter().map(|root| &root.labels["sha256"]).collect();
    ensure!(roots.len() == 2 && roots[0] == roots[1], "{roots:?}");
    let made = metrics["istio_ca_gate_convergences_total"].iter().find(|counted| counted.labels["step"] == "bootstrap");
    ensure!(made.is_some_and(|counted| counted.labels["outcome"] == "open" && counted.value == 1.0));
    let written =
        metrics["istio_ca_gate_vault_requests_total"].iter().find(|asked| asked.labels["operation"] == "write");
    ensure!(written.is_some_and(|asked| asked.labels["code"] == "200" && asked.value == 1.0));
    println!("{} metrics, {} samples", metrics.len(), metrics.values().map(Vec::len).sum::<usize>());
    Ok(())
}

async fn scrape_open(gate: &Gate) -> Result<BTreeMap<String, Vec<Sample>>> {
    let metrics = scrape(gate).await?;
    ensure!(metrics["istio_ca_gate_open"][0].value == 1.0);
    Ok(metrics)
}

/// An alert that fires: its name, and the cluster that it is of.
#[derive(Debug, Deserialize)]
struct Alert {
    name: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

/// Both clusters' gates in one Prometheus, in which all is well, but for these series of the NAS.
fn two_clusters(nas: &[(&str, &str)]) -> Vec<String> {
    let day = 86_400;
    let usual = [
        (r#"istio_ca_gate_build_info{pod="a""#, "1x600".to_owned()),
        (r#"istio_ca_gate_build_info{pod="b""#, "1x600".to_owned()),
        (r#"istio_ca_gate_open{pod="a""#, "1x600".to_owned()),
        (r#"istio_ca_gate_self_test_ok{pod="a""#, "1x600".to_owned()),
        (r#"istio_ca_gate_root_info{source="vault",sha256="one""#, "1x600".to_owned()),
        (r#"istio_ca_gate_root_info{source="cacerts",sha256="one""#, "1x600".to_owned()),
        (r#"istio_ca_gate_usable_until_timestamp_seconds{source="vault""#, format!("{}x600", 3650 * day)),
        (r#"istio_ca_gate_usable_until_timestamp_seconds{source="cacerts""#, format!("{}x600", 3650 * day)),
        (r#"istio_ca_gate_serving_certificate_not_after_timestamp_seconds{pod="a""#, format!("{}x600", 30 * day)),
        (r#"istio_ca_gate_last_verified_timestamp_seconds{pod="a""#, "0+60x600".to_owned()),
        (r#"istio_ca_gate_peer_match{peer="other""#, "1x600".to_owned()),
    ];
    let mut series = Vec::new();
    for (cluster, changed) in [("homelab", &[][..]), ("nas", nas)] {
        let end = format!(r#",cluster="{cluster}",namespace="istio-system"}}"#);
        let kept = usual.iter().filter(|(name, _)| changed.iter().all(|(other, _)| name != other));
        series.extend(kept.map(|(name, values)| format!("{name}{end} {values}")));
        series.extend(changed.iter().map(|(name, values)| format!("{name}{end} {values}")));
    }
    series
}

/// What fires in a cluster that has a signer of its own, from this day to that, with this outcome of each renewal.
async fn firing_with_signer(from: i64, until: i64, outcome: &str) -> Result<Vec<String>> {
    let [from, until] = [from, until].map(|day| format!("{}x600", day * 86_400));
    let renewals = format!(r#"istio_ca_gate_signer_renewals_total{{outcome="{outcome}""#);
    let nas = [
        (r#"istio_ca_gate_signer_not_before_timestamp_seconds{pod="a""#, from.as_str()),
        (r#"istio_ca_gate_signer_not_after_timestamp_seconds{pod="a""#, &until),
        (r#"istio_ca_gate_usable_until_timestamp_seconds{source="cacerts""#, &until),
        (renewals.as_str(), if outcome.is_empty() { "0x600" } else { "0+1x600" }),
    ];
    // Longer than a day.
    let series = two_clusters(&nas).into_iter().map(|line| line.replace("x600", "x1800")).collect();
    alerts(series, 1700).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signer_has_alerts_of_its_own_in_place_of_those_of_the_root() -> Result<()> {
    ensure!(firing_with_signer(-20, 70, "").await?.is_empty(), "a signer of 90 days is nothing to tell of");
    ensure!(firing_with_signer(-61, 29, "renewed").await?.is_empty(), "nor one that is being renewed");
    let failing = firing_with_signer(-61, 29, "SigningRefused").await?;
    ensure!(failing == ["IstioCaGateSignerNotRenewed nas"], "{failing:?}");
    let ending = firing_with_signer(-70, 20, "").await?;
    ensure!(ending == ["IstioCaGateSignerEnds nas"], "{ending:?}");
    Ok(())
}

/// What fires in a cluster of a mesh whose root is being replaced, by these series and those of a look at its mesh.
async fn firing_in_rotation(changed: &[(&str, &str)], minutes: u32) -> Result<Vec<String>> {
    let usual = [
        (r#"istio_ca_gate_rotation_info{goal="root-2",step="drop""#, "1x3000"),
        (r#"istio_ca_gate_rotation_ttl_seconds{goal="root-2""#, "86400x3000"),
        (r#"istio_ca_gate_rotation_step_timestamp_seconds{goal="root-2""#, "0x3000"),
        (r#"istio_ca_gate_settled{pod="a""#, "1x3000"),
        (r#"istio_ca_gate_attested_timestamp_seconds{pod="a""#, "0+60x3000"),
        (r#"istio_ca_gate_istiods{state="settled""#, "2x3000"),
        (r#"istio_ca_gate_istiods{state="behind""#, "0x3000"),
    ];
    let mut nas: Vec<_> =
        usual.into_iter().filter(|(name, _)| changed.iter().all(|(other, _)| name != other)).collect();
    nas.extend(changed);
    alerts(two_clusters(&nas).into_iter().map(|line| line.replace("x600", "x3000")).collect(), minutes).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_has_alerts_about_whom_it_waits_for_and_about_its_steps() -> Result<()> {
    ensure!(firing_in_rotation(&[], 1440).await?.is_empty(), "a rotation that waits for a day is nothing to tell of");
    for (series, values, minutes, wanted) in [
        (r#"istio_ca_gate_settled{pod="a""#, "0x3000", 60, vec!["ClusterBehind"]),
        (r#"istio_ca_gate_settled{pod="a""#, "0x10 1x3000", 60, vec![]),
        (r#"istio_ca_gate_attested_timestamp_seconds{pod="a""#, "0x3000", 60, vec!["NotAttesting"]),
        (r#"istio_ca_gate_istiods{state="behind""#, "1x3000", 60, vec!["IstiodsApart"]),
        (r#"istio_ca_gate_rotation_step_timestamp_seconds{goal="root-2""#, "0x3000", 1900, vec!["RotationStuck"]),
        (r#"istio_ca_gate_rotation_step_timestamp_seconds{goal="root-2""#, "0x1440 86400x3000", 1900, vec![]),
        // Nobody waits for a cluster where nothing is replaced.
        (r#"istio_ca_gate_rotation_info{goal="root-2",step="drop""#, "0x3000", 60, vec![]),
    ] {
        let wanted: Vec<_> = wanted.into_iter().map(|name| format!("IstioCaGate{name} nas")).collect();
        let fired = firing_in_rotation(&[(series, values)], minutes).await?;
        ensure!(fired == wanted, "{series} {values}: {fired:?}, wanted {wanted:?}");
    }
    let at_rest = [
        (r#"istio_ca_gate_rotation_info{goal="root-2",step="drop""#, "stale"),
        (r#"istio_ca_gate_rotation_step_timestamp_seconds{goal="root-2""#, "stale"),
        (r#"istio_ca_gate_settled{pod="a""#, "0x3000"),
    ];
    ensure!(firing_in_rotation(&at_rest, 1900).await?.is_empty(), "at rest nobody waits");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_can_be_replaced_step_by_step_is_told_of_two_years_before_its_end() -> Result<()> {
    let signer = [
        (r#"istio_ca_gate_signer_not_before_timestamp_seconds{pod="a""#, "0x600"),
        (r#"istio_ca_gate_signer_not_after_timestamp_seconds{pod="a""#, "7776000x600"),
    ];
    for (days, wanted) in [(731, vec![]), (729, vec!["IstioCaGateRootFor2Years nas"])] {
        let ends = format!("{}x600", days * 86_400);
        let vault = (r#"istio_ca_gate_usable_until_timestamp_seconds{source="vault""#, ends.as_str());
        let fired = firing(&[&signer[..], &[vault]].concat(), 120).await?;
        ensure!(fired == wanted, "{days} days: {fired:?}");
        ensure!(firing(&[vault], 120).await?.is_empty(), "a root whose key all clusters have");
    }
    Ok(())
}

/// What fires after so many minutes, as `alert cluster`.
async fn firing(nas: &[(&str, &str)], minutes: u32) -> Result<Vec<String>> {
    alerts(two_clusters(nas), minutes).await
}

async fn alerts(series: Vec<String>, minutes: u32) -> Result<Vec<String>> {
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/helm/istio-ca-gate/files/rules.yaml");
    let scenario = serde_json::json!({ "series": series, "minutes": minutes }).to_string();
    let told = binaries::prometheus()?.arg(rules).output(Some(&scenario)).await?;
    let alerts: Vec<Alert> = serde_json::from_str(&told)?;
    for alert in &alerts {
        let code = alert.labels.get("outcome").unwrap_or(&alert.name);
        ensure!(alert.annotations["runbook_url"].ends_with(&format!("/reasons/{code}")), "{alert:?}");
        ensure!(alert.annotations["summary"].contains(&alert.labels["cluster"]), "{alert:?}");
    }
    let mut firing: Vec<_> = alerts.iter().map(|alert| format!("{} {}", alert.name, alert.labels["cluster"])).collect();
    firing.sort();
    Ok(firing)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_is_of_the_cluster_that_has_the_fault_whatever_the_other_one_is() -> Result<()> {
    ensure!(firing(&[], 120).await?.is_empty(), "all is well");
    for (series, values, wanted) in [
        (r#"istio_ca_gate_open{pod="a""#, "1x30 0x600", vec!["ClosedAgain"]),
        (r#"istio_ca_gate_self_test_ok{pod="a""#, "0x600", vec!["SelfTestFails"]),
        (r#"istio_ca_gate_build_info{pod="b""#, "1x10 stale", vec!["OneReplica"]),
        (r#"istio_ca_gate_root_info{source="cacerts",sha256="one""#, "0x0 stale", vec![]),
        (r#"istio_ca_gate_peer_match{peer="other""#, "0x600", vec!["ClustersDiffer"]),
        (r#"istio_ca_gate_last_verified_timestamp_seconds{pod="a""#, "1x600", vec!["NotVerified"]),
        (r#"istio_ca_gate_usable_until_timestamp_seconds{source="cacerts""#, "6912000x600", vec!["UsableFor90Days"]),
        (
            r#"istio_ca_gate_usable_until_timestamp_seconds{source="vault""#,
            "518400x600",
            vec!["UsableFor30Days", "UsableFor7Days", "UsableFor90Days"],
        ),
        (
            r#"istio_ca_gate_serving_certificate_not_after_timestamp_seconds{pod="a""#,
            "172800x600",
            vec!["ServingCertificateEnds", "ServingCertificateFor7Days"],
        ),
        (
            r#"istio_ca_gate_serving_certificate_not_after_timestamp_seconds{pod="a""#,
            "518400x600",
            vec!["ServingCertificateFor7Days"],
        ),
        (
            r#"istio_ca_gate_vault_token_not_after_timestamp_seconds{pod="a""#,
            "2000000x600",
            vec!["VaultTokenFor30Days"],
        ),
        (
            r#"istio_ca_gate_vault_token_not_after_timestamp_seconds{pod="a""#,
            "518400x600",
            vec!["VaultTokenFor30Days", "VaultTokenFor7Days"],
        ),
        (r#"istio_ca_gate_convergences_total{step="read",outcome="VaultSealed""#, "0+1x600", vec!["VaultAway"]),
    ] {
        let wanted: Vec<_> = wanted.into_iter().map(|name| format!("IstioCaGate{name} nas")).collect();
        let minutes = if series.contains("last_verified") { 400 } else { 120 };
        let fired = firing(&[(series, values)], minutes).await?;
        ensure!(fired == wanted, "{series} {values}: {fired:?}, wanted {wanted:?}");
    }
    let gone =
        [(r#"istio_ca_gate_build_info{pod="a""#, "1x5 stale"), (r#"istio_ca_gate_build_info{pod="b""#, "1x5 stale")];
    ensure!(firing(&gone, 120).await? == ["IstioCaGateAbsent nas"], "a cluster whose gate is gone");
    let other = [
        (r#"istio_ca_gate_root_info{source="cacerts",sha256="two""#, "1x600"),
        (r#"istio_ca_gate_root_info{source="cacerts",sha256="one""#, "stale"),
    ];
    ensure!(firing(&other, 120).await? == ["IstioCaGateRootsDiffer nas", "IstioCaGateRootsDiffer nas"], "two roots");
    Ok(())
}

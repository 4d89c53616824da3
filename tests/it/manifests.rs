//! What the manifests of deploy/ say of the program and of each other. That Kubernetes takes them is a matter for
//! tests/real.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use istio_ca_gate::reason::Reason;
use serde_json::Value;

/// What `/metrics` has, beside `process_*`; of a histogram the name without its suffixes.
pub const METRICS: [&str; 27] = [
    "istio_ca_gate_admission_duration_seconds",
    "istio_ca_gate_admission_in_flight",
    "istio_ca_gate_admission_requests_total",
    "istio_ca_gate_attested_timestamp_seconds",
    "istio_ca_gate_build_info",
    "istio_ca_gate_convergence_duration_seconds",
    "istio_ca_gate_convergences_total",
    "istio_ca_gate_istiods",
    "istio_ca_gate_last_verified_timestamp_seconds",
    "istio_ca_gate_namespaces_behind",
    "istio_ca_gate_open",
    "istio_ca_gate_peer_match",
    "istio_ca_gate_vault_token_not_after_timestamp_seconds",
    "istio_ca_gate_root_info",
    "istio_ca_gate_root_not_after_timestamp_seconds",
    "istio_ca_gate_rotation_info",
    "istio_ca_gate_rotation_step_timestamp_seconds",
    "istio_ca_gate_rotation_ttl_seconds",
    "istio_ca_gate_self_test_ok",
    "istio_ca_gate_serving_certificate_not_after_timestamp_seconds",
    "istio_ca_gate_settled",
    "istio_ca_gate_signer_not_after_timestamp_seconds",
    "istio_ca_gate_signer_not_before_timestamp_seconds",
    "istio_ca_gate_signer_renewals_total",
    "istio_ca_gate_usable_until_timestamp_seconds",
    "istio_ca_gate_vault_requests_total",
    "process_",
];

/// Where the gate explains each, by its Service's name.
const PAGES: &str = "http://istio-ca-gate.istio-system.svc:8080/reasons/";

/// Reasons that pass by themselves, and the one that a command has and no gate.
const NOBODY_IS_NEEDED: [Reason; 3] = [Reason::Converging, Reason::DryRun, Reason::RotationHeld];

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(deploy().join(path)).with_context(|| path.to_owned())
}

fn documents(text: &str) -> Result<Vec<Value>> {
    Ok(serde_saphyr::from_multiple(text)?)
}

/// The alerts of the component, by name.
pub fn alerts() -> Result<BTreeMap<String, Value>> {
    let rules = documents(&read("kustomize/components/monitoring/rules.yaml")?)?.remove(0);
    let groups = rules["spec"]["groups"].as_array().context("no groups")?.clone();
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten());
    rules.map(|rule| Ok((rule["alert"].as_str().context("no name")?.to_owned(), rule.clone()))).collect()
}

fn dashboard() -> Result<Value> {
    Ok(serde_json::from_str(&read("kustomize/components/monitoring/dashboard.json")?)?)
}

fn expression(alert: &Value) -> &str {
    alert["expr"].as_str().unwrap_or_default()
}

/// The words of a text that may be a metric's name.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(move |c| !is_part(c)).filter(|word| word.starts_with("istio_ca_gate_") || word.starts_with("process_"))
}

fn is_known(metric: &str) -> bool {
    let name = metric.strip_suffix("_bucket").unwrap_or(metric);
    METRICS.iter().any(|known| *known == name || (known.ends_with('_') && name.starts_with(known)))
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_the_gate_has() -> Result<()> {
    let alerts = alerts()?;
    ensure!(alerts.len() > 10, "{}", alerts.len());
    let dashboard = dashboard()?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let asked: Vec<&str> =
        alerts.values().map(expression).chain(targets.filter_map(|target| target["expr"].as_str())).collect();
    for expression in &asked {
        ensure!(words(expression).next().is_some(), "no metric in {expression}");
        let unknown: Vec<_> = words(expression).filter(|word| !is_known(word)).collect();
        ensure!(unknown.is_empty(), "{unknown:?} in {expression}");
    }
    // And all of them are looked at.
    let asked: BTreeSet<&str> = asked.into_iter().flat_map(words).collect();
    for metric in METRICS {
        ensure!(asked.iter().any(|word| word.starts_with(metric)), "nobody looks at {metric}");
    }
    Ok(())
}

#[test]
fn each_alert_is_of_one_cluster_whatever_else_the_same_prometheus_has() -> Result<()> {
    for (name, alert) in alerts()? {
        let expression = expression(&alert);
        // Every aggregation and every match keeps the cluster, or another cluster's gate would hide this one's.
        for keyword in ["by (", "on ("] {
            let mut lists = expression.split(keyword).skip(1).map(|rest| rest.split(')').next().unwrap_or_default());
            ensure!(lists.all(|labels| labels.split(", ").any(|label| label == "cluster")), "{name}: {expression}");
        }
        ensure!(expression.contains("by (cluster"), "{name}: {expression}");
    }
    Ok(())
}

#[test]
fn each_reason_that_needs_a_person_has_one_alert() -> Result<()> {
    let alerts = alerts()?;
    for reason in Reason::ALL {
        let code = reason.as_str();
        // The codes of a matcher stand between quotes, one or several with bars.
        let names = |alert: &Value| {
            let mut quoted = expression(alert).split('"').skip(1).step_by(2);
            quoted.any(|codes| codes.split('|').any(|one| one == code))
        };
        let of: Vec<_> = alerts.iter().filter(|(_, alert)| names(alert)).map(|(name, _)| name).collect();
        let wanted = usize::from(!NOBODY_IS_NEEDED.contains(reason));
        ensure!(of.len() == wanted, "{code}: {of:?}");
    }
    Ok(())
}

#[test]
fn each_alert_says_how_bad_it_is_and_points_to_a_section_that_exists() -> Result<()> {
    for (name, alert) in alerts()? {
        ensure!(matches!(alert["labels"]["severity"].as_str(), Some("critical" | "warning")), "{name}");
        ensure!(alert["annotations"]["summary"].is_string(), "{name}");
        // A page of the gate: that it has one of each name is tested where the names are.
        let runbook = alert["annotations"]["runbook_url"].as_str().context(name.clone())?;
        let code = runbook.strip_prefix(PAGES).context(name.clone())?;
        ensure!(code == name || code == "{{ $labels.outcome }}", "{name}: {runbook}");
        let description = alert["annotations"]["description"].as_str().context(name.clone())?;
        for word in description.split_whitespace().filter(|word| word.starts_with("docs/")) {
            let (page, section) = word.trim_end_matches('.').split_once('#').context(name.clone())?;
            let page = fs::read_to_string(deploy().join("..").join(page))?;
            let titles = page.lines().filter(|line| line.starts_with('#'));
            let mut anchors = titles.map(|line| line.trim_start_matches(['#', ' ']).to_lowercase().replace(' ', "-"));
            // A section by the reason's code: each has one, which is tested where the reasons are.
            ensure!(section.starts_with("{{") || anchors.any(|anchor| anchor == section), "{name}: {word}");
        }
    }
    Ok(())
}

#[test]
fn the_chart_has_the_alerts_and_the_dashboard_of_the_component() -> Result<()> {
    let rules = documents(&read("kustomize/components/monitoring/rules.yaml")?)?.remove(0);
    ensure!(rules["spec"] == documents(&read("helm/istio-ca-gate/files/rules.yaml")?)?.remove(0));
    let dashboard = read("kustomize/components/monitoring/dashboard.json")?;
    ensure!(dashboard == read("helm/istio-ca-gate/files/dashboard.json")?);
    Ok(())
}

#[test]
fn the_chart_is_of_the_programs_version() -> Result<()> {
    let chart = documents(&read("helm/istio-ca-gate/Chart.yaml")?)?.remove(0);
    ensure!(chart["appVersion"] == env!("CARGO_PKG_VERSION"), "{chart}");
    for cluster in ["homelab", "nas"] {
        let overlay = documents(&read(&format!("kustomize/overlays/{cluster}/kustomization.yaml"))?)?.remove(0);
        ensure!(overlay["images"][0]["newTag"] == env!("CARGO_PKG_VERSION"), "{overlay}");
    }
    Ok(())
}

/// Folders below this one, and this one.
fn folders(of: &Path) -> Result<Vec<PathBuf>> {
    let mut all = vec![of.to_owned()];
    for entry in fs::read_dir(of)? {
        let path = entry?.path();
        if path.is_dir() {
            all.extend(folders(&path)?);
        }
    }
    Ok(all)
}

#[test]
fn each_kustomization_names_all_that_is_beside_it_and_nothing_else() -> Result<()> {
    let mut seen = 0;
    for root in ["kustomize", "flux"] {
        for folder in folders(&deploy().join(root))? {
            let Ok(text) = fs::read_to_string(folder.join("kustomization.yaml")) else { continue };
            let kustomization = documents(&text)?.remove(0);
            let strings = |value: &Value| -> Vec<String> { serde_json::from_value(value.clone()).unwrap_or_default() };
            let mut named = strings(&kustomization["resources"]);
            named.extend(strings(&kustomization["components"]));
            let generators = kustomization["configMapGenerator"].as_array().into_iter().flatten();
            let files = generators.flat_map(|generator| strings(&generator["files"]));
            named.extend(files.map(|file| file.rsplit('=').next().unwrap_or_default().to_owned()));
            for name in &named {
                ensure!(folder.join(name).exists(), "{} names {name}", folder.display());
            }
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let is_said = entry.path().is_dir() || name == "kustomization.yaml" || named.contains(&name);
                ensure!(is_said, "{} is in no kustomization", entry.path().display());
            }
            seen += 1;
        }
    }
    ensure!(seen > 10, "{seen}");
    Ok(())
}

#[test]
fn each_overlay_has_every_component_to_be_uncommented() -> Result<()> {
    let components: BTreeSet<_> = fs::read_dir(deploy().join("kustomize/components"))?
        .map(|entry| Ok(format!("#   - ../../components/{}", entry?.file_name().to_string_lossy())))
        .collect::<Result<_>>()?;
    for cluster in ["homelab", "nas"] {
        let overlay = read(&format!("kustomize/overlays/{cluster}/kustomization.yaml"))?;
        let there: BTreeSet<_> = overlay.lines().filter(|line| line.starts_with("#   - ")).map(str::to_owned).collect();
        ensure!(there == components, "{cluster}: {:?}", there.symmetric_difference(&components));
    }
    Ok(())
}

/// The HelmReleases of deploy/flux.
fn releases() -> Result<Vec<Value>> {
    let mut releases = Vec::new();
    for folder in ["flux/gate-by-helm", "flux/istio", "flux/vault"] {
        for entry in fs::read_dir(deploy().join(folder))? {
            let objects = documents(&fs::read_to_string(entry?.path())?)?;
            releases.extend(objects.into_iter().filter(|object| object["kind"] == "HelmRelease"));
        }
    }
    Ok(releases)
}

#[test]
fn fluxs_releases_are_called_by_their_own_names_from_which_the_gated_labels_are_made() -> Result<()> {
    let releases = releases()?;
    ensure!(releases.len() == 5, "{releases:?}");
    for release in releases {
        // By default it has the namespace before it.
        ensure!(release["spec"]["releaseName"] == release["metadata"]["name"], "{release}");
    }
    Ok(())
}

#[test]
fn with_flux_an_istiod_that_was_earlier_than_the_webhooks_waits_for_cacerts_and_is_installed_anew() -> Result<()> {
    let releases = releases()?;
    let istiod = releases.iter().find(|release| release["metadata"]["name"] == "istiod").context("no istiod")?;
    let patch = &istiod["spec"]["postRenderers"][0]["kustomize"]["patches"][0];
    ensure!(patch["target"] == serde_json::json!({ "kind": "Deployment", "name": "istiod" }), "{patch}");
    let patch = documents(patch["patch"].as_str().context("no patch")?)?.remove(0);
    let volume = &patch["spec"]["template"]["spec"]["volumes"][0];
    let wanted = serde_json::json!({ "name": "cacerts", "secret": { "secretName": "cacerts", "optional": false } });
    ensure!(*volume == wanted, "{volume}");
    // Its pod asked no gate. Only a new one does.
    let install = &istiod["spec"]["install"];
    ensure!(
        install["strategy"]["name"] == "RemediateOnFailure" && install["remediation"]["retries"] == -1,
        "{install}"
    );
    Ok(())
}

/// Flux uninstalls what it remediates, webhooks and all, and whoever is next is let in.
#[test]
fn no_manifest_of_ours_can_open_the_gate_by_itself() -> Result<()> {
    let releases = releases()?;
    let chart = |release: &&Value| release["spec"]["chart"]["spec"]["chart"] == "./deploy/helm/istio-ca-gate";
    let gates: Vec<_> = releases.iter().filter(chart).collect();
    ensure!(gates.len() == 1, "{gates:?}");
    for release in gates {
        for action in ["install", "upgrade"] {
            let action = &release["spec"][action];
            ensure!(action["remediation"].is_null() && action["strategy"]["name"] == "RetryOnFailure", "{release}");
        }
        for field in ["rollback", "uninstall", "test"] {
            ensure!(release["spec"][field].is_null(), "{release}");
        }
    }
    // Nor does Helm, whatever makes it uninstall.
    ensure!(documents(&read("helm/istio-ca-gate/values.yaml")?)?[0]["webhooks"]["keep"] == true);
    // And where Flux applies the manifests, it replaces none by deleting it first.
    for cluster in ["homelab", "nas"] {
        let kustomization = documents(&read(&format!("flux/{cluster}/istio-ca-gate.yaml"))?)?.remove(0);
        ensure!(kustomization["spec"]["force"].is_null(), "{kustomization}");
    }
    Ok(())
}

/// A value of the chart: its name with dots, and the comment that helm-docs takes.
fn described_values(text: &str) -> Vec<(String, String)> {
    let (mut parents, mut comment, mut found): (Vec<(usize, String)>, Option<String>, _) =
        (Vec::new(), None, Vec::new());
    for line in text.lines() {
        let (indent, trimmed) = (line.len() - line.trim_start().len(), line.trim_start());
        if let Some(first) = trimmed.strip_prefix("# -- ") {
            comment = Some(first.to_owned());
        } else if let (Some(more), Some(comment)) = (trimmed.strip_prefix("# "), comment.as_mut()) {
            comment.push(' ');
            comment.push_str(more);
        } else if let Some((key, _)) = trimmed.split_once(':') {
            parents.retain(|(of, _)| *of < indent);
            parents.push((indent, key.to_owned()));
            let name = parents.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>().join(".");
            found.extend(comment.take().map(|comment| (name, comment)));
        }
    }
    found
}

/// Where a schema describes a value.
fn in_schema<'a>(schema: &'a Value, name: &str) -> &'a Value {
    name.split('.').fold(schema, |schema, key| &schema["properties"][key])
}

#[test]
fn each_value_of_the_chart_is_told_in_its_readme_and_its_schema_says_why() -> Result<()> {
    let values = described_values(&read("helm/istio-ca-gate/values.yaml")?);
    ensure!(values.len() > 45, "{}", values.len());
    let readme = read("helm/istio-ca-gate/README.md")?;
    let schema: Value = serde_json::from_str(&read("helm/istio-ca-gate/values.schema.json")?)?;
    for (name, comment) in &values {
        let row = readme.lines().find(|line| line.starts_with(&format!("| {name} |"))).context(name.clone())?;
        ensure!(row.ends_with(&format!("| {comment} |")), "{name}: run helm-docs: {row}");
        ensure!(in_schema(&schema, name)["description"].is_string(), "{name}: the schema does not say why");
    }
    let rows = readme.lines().filter(|line| line.starts_with("| ") && line.contains("` |")).count();
    ensure!(rows == values.len(), "{rows} rows for {} values: run helm-docs", values.len());
    // What may be a key is judged by a template: a schema's message would show it.
    for name in ["vault.caCertificate", "clientCaCertificate", "peers.caCertificate"] {
        ensure!(in_schema(&schema, name)["pattern"].is_null(), "{name}");
    }
    Ok(())
}

#[test]
fn both_webhook_configurations_ask_about_the_same_pods_in_the_same_way() -> Result<()> {
    let webhooks = |file: &str, path: &str| -> Result<Value> {
        let mut webhooks = documents(&read(&format!("kustomize/base/{file}.yaml"))?)?.remove(0)["webhooks"].take();
        for webhook in webhooks.as_array_mut().context("no webhooks")? {
            ensure!(webhook["clientConfig"]["service"]["path"] == path, "{webhook}");
            webhook["clientConfig"]["service"]["path"] = Value::Null;
            let fields = webhook.as_object_mut().context("no webhook")?;
            ensure!(fields.remove("reinvocationPolicy").is_none_or(|policy| policy == "Never"), "{fields:?}");
        }
        Ok(webhooks)
    };
    ensure!(webhooks("webhook", "/validate")? == webhooks("mutating", "/mutate")?);
    Ok(())
}

/// The policies of a file, without their names.
fn policies(file: &str) -> Result<BTreeMap<String, Value>> {
    let mut policies = BTreeMap::new();
    for object in documents(&read(file)?)? {
        let name = object["metadata"]["name"].as_str().context("no name")?.to_owned();
        if object["kind"] == "ValidatingAdmissionPolicyBinding" {
            ensure!(object["spec"]["policyName"] == name && policies.contains_key(&name), "{object}");
            ensure!(object["spec"]["validationActions"] == serde_json::json!(["Deny"]), "{object}");
            continue;
        }
        ensure!(policies.insert(name, object["spec"].clone()).is_none(), "{object}");
    }
    Ok(policies)
}

const POLICIES: [&str; 5] = [
    "kustomize/base/policy.yaml",
    "kustomize/components/external-secrets/policy.yaml",
    "kustomize/components/flux-reconcile/policy.yaml",
    "kustomize/components/self-test/policy.yaml",
    "kustomize/jobs/base/policy.yaml",
];

#[test]
fn each_policy_is_about_the_accounts_of_all_overlays_and_of_nobody_else() -> Result<()> {
    let mut accounts = BTreeSet::from(["istio-ca-gate".to_owned(), "istio-ca-job".to_owned()]);
    for overlay in ["overlays/homelab", "overlays/nas", "jobs/homelab", "jobs/nas"] {
        let kustomization = documents(&read(&format!("kustomize/{overlay}/kustomization.yaml"))?)?.remove(0);
        let patches = kustomization["patches"].as_array().into_iter().flatten();
        let renamed = patches.filter(|patch| patch["target"]["kind"] == "ServiceAccount");
        for patch in renamed {
            let patch = &documents(patch["patch"].as_str().context("no patch")?)?[0][0];
            ensure!(patch["path"] == "/metadata/name", "{patch}");
            accounts.insert(patch["value"].as_str().context("no name")?.to_owned());
        }
    }
    for file in POLICIES {
        let policies = policies(file)?;
        ensure!(!policies.is_empty(), "{file}");
        for (name, policy) in policies {
            let conditions = policy["matchConditions"].as_array().context(name.clone())?;
            let expression = conditions[0]["expression"].as_str().context(name.clone())?;
            let quoted: Vec<_> = expression.split('\'').skip(1).step_by(2).collect();
            let (prefix, named) = quoted.split_last().context(name.clone())?;
            ensure!(conditions.len() == 1 && *prefix == "system:serviceaccount:istio-system:", "{name}: {expression}");
            ensure!(named.iter().copied().eq(["istio-ca-gate", "istio-ca-bootstrap", "istio-ca-sync", "istio-ca-job"]));
            ensure!(accounts.iter().all(|account| named.contains(&account.as_str())), "{name}: {accounts:?}");
        }
    }
    Ok(())
}

#[test]
fn where_the_job_has_the_account_of_a_gate_its_policies_let_the_gate_work() -> Result<()> {
    let (gate, job) = (policies("kustomize/base/policy.yaml")?, policies("kustomize/jobs/base/policy.yaml")?);
    ensure!(job.len() == 2, "{job:?}");
    for (name, policy) in job {
        ensure!(gate.get(&name.replace("istio-ca-job", "istio-ca-gate")) == Some(&policy), "{name}");
    }
    Ok(())
}

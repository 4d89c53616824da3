//! What the documents promise of each other: that links lead somewhere, and that nothing has been left out.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use istio_ca_gate::reason::Reason;

use crate::manifests::{METRICS, alerts};

/// Of the Admission Control Threat Model of Kubernetes SIG Security.
const THREATS: u32 = 18;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(page: &str) -> Result<String> {
    fs::read_to_string(root().join(page)).with_context(|| page.to_owned())
}

/// The lines that are not of a code block.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    page.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// The titles at this level and below.
fn titles(page: &str, level: usize) -> impl Iterator<Item = &str> {
    prose(page).filter_map(move |line| {
        let text = line.trim_start_matches('#');
        (line.len() - text.len() >= level).then(|| text.trim())
    })
}

/// What GitHub makes of a title.
fn anchor(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// Where a page's links lead, but those to other sites.
fn links(page: &str) -> Vec<String> {
    let text = prose(page).collect::<Vec<_>>().join("\n");
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://")).map(str::to_owned).collect()
}

/// All documents. Folders that git does not have begin with a dot, or are named.
pub fn pages(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && !matches!(name.as_str(), "target" | "node_modules") {
            pages(&path, found)?;
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
    Ok(())
}

#[test]
fn every_link_leads_to_a_file_and_a_section_that_are_there() -> Result<()> {
    let mut found = Vec::new();
    pages(root(), &mut found)?;
    let mut seen = 0;
    for page in &found {
        let text = fs::read_to_string(page)?;
        for link in links(&text) {
            let (file, section) = link.split_once('#').unwrap_or((&link, ""));
            let target = page.parent().context("no folder")?.join(file);
            ensure!(file.is_empty() || target.exists(), "{}: {link}", page.display());
            if !section.is_empty() {
                let text = if file.is_empty() { text.clone() } else { fs::read_to_string(&target)? };
                let is_there = titles(&text, 1).any(|title| anchor(title) == section);
                ensure!(is_there, "{}: no section for {link}", page.display());
            }
            seen += 1;
        }
    }
    ensure!(seen > 100, "{seen}");
    Ok(())
}

#[test]
fn each_reason_has_its_entry() -> Result<()> {
    let page = read("docs/troubleshoot.md")?;
    for reason in Reason::ALL {
        ensure!(titles(&page, 2).any(|title| title == reason.as_str()), "{reason}");
    }
    Ok(())
}

#[test]
fn each_alert_has_its_entry_and_each_entry_its_alert() -> Result<()> {
    let page = read("docs/troubleshoot.md")?;
    let entries: BTreeSet<_> =
        titles(&page, 3).filter(|title| title.starts_with("IstioCaGate")).map(str::to_owned).collect();
    let alerts: BTreeSet<_> = alerts()?.into_keys().collect();
    ensure!(entries == alerts, "{:?}", entries.symmetric_difference(&alerts));
    Ok(())
}

#[test]
fn each_metric_has_its_line() -> Result<()> {
    let page = read("docs/troubleshoot.md")?;
    for metric in METRICS {
        let has = |line: &str| line.starts_with("| `") && line.contains(&format!("`{metric}"));
        ensure!(prose(&page).any(has), "{metric}");
    }
    Ok(())
}

#[test]
fn each_threat_of_the_kubernetes_model_is_answered() -> Result<()> {
    let page = read("docs/security.md")?;
    for id in 1..=THREATS {
        ensure!(prose(&page).any(|line| line.starts_with(&format!("| {id} | "))), "{id}");
    }
    Ok(())
}

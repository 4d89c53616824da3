//! The commands of the documents: what they have to say of Flux, and what they must never ask for.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::documents::pages;

/// What changes an object of deploy/, so that Flux takes it back within its interval.
const TAKEN_BACK: [&str; 6] = [
    "delete validatingwebhookconfiguration",
    "delete mutatingwebhookconfiguration",
    "set env deploy",
    "scale deploy",
    "patch deploy",
    "rollout undo",
];

/// Sections that tell Flux's users to do something else.
const OTHER_WAY: [(&str, &str); 4] = [
    ("docs/migrate.md", "Back"),
    ("docs/operate.md", "Remove"),
    ("docs/operate.md", "Upgrade"),
    ("docs/external-secrets.md", "Move to the gate alone"),
];

/// A title and all that stands below it up to the next one.
struct Section {
    page: String,
    title: String,
    text: String,
}

fn sections() -> Result<Vec<Section>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found: Vec<PathBuf> = Vec::new();
    pages(root, &mut found)?;
    let mut sections = Vec::new();
    for path in found {
        let page = path.strip_prefix(root)?.to_string_lossy().into_owned();
        let mut is_code = false;
        let mut section = Section { page: page.clone(), title: String::new(), text: String::new() };
        for line in fs::read_to_string(&path)?.lines() {
            is_code ^= line.trim_start().starts_with("```");
            if !is_code && line.starts_with('#') {
                let title = line.trim_start_matches(['#', ' ']).to_owned();
                sections
                    .push(std::mem::replace(&mut section, Section { page: page.clone(), title, text: String::new() }));
            }
            section.text.push_str(line);
            section.text.push('\n');
        }
        sections.push(section);
    }
    Ok(sections)
}

/// Where a command stands that begins with one of these words, in a block or between backticks.
fn places(text: &str, command: &str) -> Vec<usize> {
    let starts_command = |at: usize| {
        let line = text[..at].rsplit('\n').next().unwrap_or_default();
        line.contains("kubectl") || line.contains("helm ")
    };
    text.match_indices(command).map(|(at, _)| at).filter(|at| starts_command(*at)).collect()
}

#[test]
fn whatever_flux_takes_back_is_done_between_suspend_and_resume() -> Result<()> {
    let mut seen = 0;
    for Section { page, title, text } in sections()? {
        let mut found: Vec<usize> = TAKEN_BACK.iter().flat_map(|command| places(&text, command)).collect();
        found.sort_unstable();
        let (Some(first), Some(last)) = (found.first(), found.last()) else { continue };
        seen += found.len();
        if OTHER_WAY.contains(&(page.as_str(), title.as_str())) {
            ensure!(text.contains("Flux"), "{page}, {title}: nothing of Flux");
            continue;
        }
        let suspended = text.find(" suspend kustomization istio-ca-gate");
        let resumed = text.rfind(" resume kustomization istio-ca-gate");
        ensure!(suspended.is_some_and(|at| at < *first), "{page}, {title}: flux suspend does not come before");
        ensure!(resumed.is_some_and(|at| at > *last), "{page}, {title}: flux resume does not come after");
    }
    ensure!(seen >= 10, "{seen}");
    Ok(())
}

#[test]
fn no_command_has_helm_undo_an_installation_of_the_gate() -> Result<()> {
    for Section { page, title, text } in sections()? {
        let mut lines = text.lines().filter(|line| line.trim_start().starts_with("helm "));
        ensure!(
            lines.all(|line| !line.contains("--atomic") && !line.contains("--rollback-on-failure")),
            "{page}, {title}"
        );
    }
    Ok(())
}

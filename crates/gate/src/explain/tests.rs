#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use super::*;
use crate::reason::Reason;

fn codes(kind: Topic) -> BTreeSet<String> {
    entries().iter().filter(|entry| entry.kind == kind).map(|entry| entry.code.to_owned()).collect()
}

#[test]
fn every_reason_has_its_entry_and_every_entry_is_of_a_reason() {
    assert_eq!(codes(Topic::Reason), Reason::ALL.iter().map(ToString::to_string).collect());
}

#[test]
fn every_alert_that_is_shipped_has_its_entry() {
    let rules = [
        include_str!("../../../../deploy/kustomize/components/monitoring/rules.yaml"),
        include_str!("../../../../deploy/helm/istio-ca-gate/files/rules.yaml"),
    ];
    for rules in rules {
        let alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::to_owned);
        assert_eq!(codes(Topic::Alert), alerts.collect());
    }
}

#[test]
fn no_code_is_told_twice_and_none_in_a_few_words() {
    let all = entries();
    let names: BTreeSet<_> = all.iter().map(|entry| entry.code.to_ascii_lowercase()).collect();
    assert_eq!(names.len(), all.len());
    assert!(codes(Topic::Doctor).len() > 28, "{:?}", codes(Topic::Doctor));
    for entry in all {
        assert!(text(&entry, 80).split_whitespace().count() > 5, "{entry:?}");
    }
}

#[test]
fn a_code_is_found_in_any_case_of_letters_and_another_word_is_not() {
    assert_eq!(entry("vaultsealed").unwrap().code, "VaultSealed");
    assert_eq!(entry("VAULT-TLS").unwrap().kind, Topic::Doctor);
    for other in ["", "VaultSeale", "What doctor says", "Troubleshoot"] {
        assert_eq!(entry(other), None, "{other}");
    }
}

#[test]
fn a_reason_has_what_it_means_its_causes_what_to_do_and_what_happens_by_itself() {
    for entry in entries().iter().filter(|entry| entry.kind == Topic::Reason) {
        let text = text(entry, 80);
        for part in ["What it means. ", "Usual causes. ", "What to do. ", "What happens by itself. "] {
            assert!(text.split_inclusive(' ').collect::<String>().replace('\n', " ").contains(part), "{text}");
        }
    }
}

#[test]
fn text_fits_the_columns_and_commands_stay_whole() {
    for entry in entries() {
        let text = text(&entry, 60);
        for line in text.lines().filter(|line| !line.starts_with("    ") && line.contains(' ')) {
            assert!(textwrap::core::display_width(line) <= 60 || !line.trim().contains(' '), "{line}");
        }
        for mark in ["**", "](", "| ---"] {
            assert!(!text.contains(mark), "{text}");
        }
    }
    assert!(text(&entry("VaultSealed").unwrap(), 20).contains("\n    vault operator unseal        # as often"));
}

#[test]
fn links_lead_to_other_entries_and_name_other_pages() {
    let told = html(&entry("vault-state").unwrap());
    assert!(told.contains("<a href=\"/reasons/VaultSealed\">VaultSealed</a>"), "{told}");
    let told = html(&entry("gate-mesh").unwrap());
    assert!(told.contains("Outside the mesh (docs/operate.md)") && !told.contains("href"), "{told}");
    for entry in entries() {
        for link in html(&entry).split("href=\"").skip(1) {
            assert!(link.starts_with("/reasons/") || link.starts_with("https://"), "{link}");
        }
    }
}

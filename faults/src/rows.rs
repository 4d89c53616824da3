//! The table of all faults: what each may break, and what shows that it does not.
//!
//! A proof is named `layer:test`, where the layer is where the fault is tried: `real`, on real components; `it`, on the
//! embedded ones; a crate's name, in memory. A name that ends with `::` is a whole module. `random` and `crash` are the
//! runs of `tests/faults`, `model` the layer of that name.

mod cluster;
mod process;
mod vault;

/// What is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// A gated pod comes in by Vault's root alone.
    Closed,
    /// There is one root.
    One,
    /// What is over is over within seconds.
    Heals,
    /// Others notice nothing.
    Bystanders,
    /// No key and no token is seen.
    Quiet,
    /// A denial has its code and its next step, in time.
    Tells,
    /// What a caller or a fault can take is bounded.
    Bound,
}

/// One fault.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// A letter of the table, and a number.
    pub id: &'static str,
    /// What goes wrong.
    pub fault: &'static str,
    /// What it may break.
    pub promises: &'static [Promise],
    /// What shows that it does not; none, with the reason in `not_run`.
    pub proofs: &'static [&'static str],
    /// Why nothing tries it.
    pub not_run: &'static str,
}

/// The parts of the table.
pub const PARTS: [(&str, &str); 9] = [
    ("A", "Is Vault there?"),
    ("B", "Does Vault allow it?"),
    ("C", "What Vault has"),
    ("D", "Ends of processes, and races"),
    ("E", "Kubernetes"),
    ("F", "`cacerts`"),
    ("G", "Time, and certificates"),
    ("H", "Hostile callers"),
    ("I", "Installing and operating"),
];

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Row> {
    vault::ROWS.iter().chain(process::RACES).chain(cluster::ROWS).chain(process::ROWS)
}

const fn row(
    id: &'static str,
    fault: &'static str,
    promises: &'static [Promise],
    proofs: &'static [&'static str],
) -> Row {
    Row { id, fault, promises, proofs, not_run: "" }
}

const fn not_run(id: &'static str, fault: &'static str, promises: &'static [Promise], why: &'static str) -> Row {
    Row { id, fault, promises, proofs: &[], not_run: why }
}

/// Where the sources of a layer's tests are, and how cargo is told to run them.
pub fn layer(name: &str) -> Option<(&'static str, &'static [&'static str])> {
    Some(match name {
        "real" => ("tests/real", &["--test", "real"]),
        "it" => ("tests/it", &["--test", "it"]),
        "program" => ("src", &["--package", "istio-ca-gate", "--lib"]),
        "core" => ("crates/core/src", &["--package", "istio-ca-gate-core", "--lib"]),
        "vault" => ("crates/vault/src", &["--package", "istio-ca-gate-vault", "--lib"]),
        "cluster" => ("crates/cluster/src", &["--package", "istio-ca-gate-cluster", "--lib"]),
        "https" => ("crates/https/src", &["--package", "istio-ca-gate-https", "--lib"]),
        "gate" => ("crates/gate/src", &["--package", "istio-ca-gate-service", "--lib"]),
        "judge" => ("judge/tests", &["--package", "judge"]),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::*;

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                found.push(path);
            }
        }
    }

    /// Whether the layer has this test, or this module.
    fn exists(proof: &str) -> bool {
        if ["random", "model", "crash homelab", "crash nas", "scenes"].contains(&proof) {
            return true;
        }
        let Some((name, test)) = proof.split_once(':') else { return false };
        let Some((folder, _)) = layer(name) else { return false };
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
        let mut files = Vec::new();
        sources(&root, &mut files);
        let (module, function) = test.rsplit_once("::").unwrap_or(("", test));
        let module = module.trim_end_matches("::tests").replace("::", "/");
        let of_module = files.iter().filter(|file| {
            let path = file.with_extension("");
            path.ends_with(&module) || path.parent().is_some_and(|parent| parent.ends_with(&module))
        });
        let text: String = of_module.filter_map(|file| std::fs::read_to_string(file).ok()).collect();
        !text.is_empty() && (function.is_empty() || text.contains(&format!("fn {function}(")))
    }

    #[test]
    fn each_proof_is_a_test_that_there_is() {
        let missing: Vec<_> = all().flat_map(|row| row.proofs.iter().map(move |proof| (row.id, proof))).collect();
        let missing: Vec<_> = missing.into_iter().filter(|(_, proof)| !exists(proof)).collect();
        assert!(missing.is_empty(), "{missing:#?}");
        assert!(!exists("it:hostile::no_such_test") && !exists("it:nothing::") && !exists("none:hostile::"));
    }

    #[test]
    fn each_defect_is_shown_by_something_that_there_is() -> anyhow::Result<()> {
        let page = std::fs::read_to_string(crate::report::page_file())?;
        let (_, table) = page.split_once("## Found by these").unwrap_or_default();
        let cells = table.lines().filter(|line| line.starts_with("| ")).skip(2);
        let shown: Vec<_> = cells.filter_map(|line| line.split('`').rev().nth(1)).collect();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        // `unit` is any crate of the product.
        let crates = ["program", "core", "vault", "cluster", "https", "gate"];
        let in_a_crate = |test: &str| crates.iter().any(|layer| exists(&format!("{layer}:{test}")));
        let is_there = |name: &str| {
            let of_unit = name.strip_prefix("unit:").is_some_and(in_a_crate);
            of_unit || exists(name) || root.join(name).exists()
        };
        let missing: Vec<_> = shown.iter().filter(|name| !is_there(name)).collect();
        assert!(missing.is_empty() && shown.len() > 10, "{missing:#?}");
        Ok(())
    }

    #[test]
    fn each_row_has_a_name_of_its_own_and_a_proof_or_a_reason() {
        let ids: BTreeSet<_> = all().map(|row| row.id).collect();
        assert_eq!(ids.len(), all().count(), "an id stands twice");
        for row in all() {
            assert!(row.proofs.is_empty() != row.not_run.is_empty(), "{}", row.id);
            assert!(!row.promises.is_empty() && PARTS.iter().any(|(part, _)| row.id.starts_with(part)), "{}", row.id);
        }
    }

    #[test]
    fn the_rows_of_a_part_are_numbered_from_one_in_their_order() {
        for (part, _) in PARTS {
            let numbers: Vec<_> = all().filter_map(|row| row.id.strip_prefix(part)).collect();
            let wanted: Vec<_> = (1..=numbers.len()).map(|number| number.to_string()).collect();
            assert_eq!(numbers, wanted, "{part}");
        }
    }
}

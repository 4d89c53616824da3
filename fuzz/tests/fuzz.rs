//! Each target that needs nobody beside it: what is in its corpus, and a short search around it.
//!
//! `FUZZ_SEED` (1) and `FUZZ_CASES` (a factor, 1) choose others.

use std::path::Path;

use anyhow::Result;
use fuzz::search::searched;

fn holds(name: &str) -> Result<()> {
    searched(name, &Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz"))
}

#[test]
fn flags_and_variables_mean_the_same_and_no_error_repeats_a_password() -> Result<()> {
    holds("flags")
}

#[test]
fn a_request_is_the_same_request_however_its_bytes_come() -> Result<()> {
    holds("http")
}

#[test]
fn objects_of_kubernetes_are_read_whole_or_refused() -> Result<()> {
    holds("objects")
}

#[test]
fn no_record_and_no_attestation_makes_the_rule_go_on_without_those_it_waits_for() -> Result<()> {
    holds("signing")
}

#[test]
fn nothing_but_vaults_own_word_is_taken_for_an_absent_root() -> Result<()> {
    holds("vault")
}

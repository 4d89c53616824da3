//! The targets that are held against a program in Go: what is in their corpus, and a short search around it.
//!
//! Compiled and not run yet, since the judge in Go could not be built where they were written: the words of what is refused
//! on purpose (`STRICTER` of the reviews) may lack some.
//!
//! `FUZZ_SEED` (1) and `FUZZ_CASES` (a factor, 1) choose others.

use std::path::Path;

use anyhow::Result;
use fuzz::search::searched;

fn holds(name: &str) -> Result<()> {
    searched(name, &Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz"))
}

#[test]
fn what_the_check_takes_is_taken_by_all_and_trusted_is_what_they_read() -> Result<()> {
    holds("bundle")
}

#[test]
fn a_review_is_read_as_the_api_servers_own_types_read_it() -> Result<()> {
    holds("review")
}

#[test]
fn a_selector_means_what_it_means_to_kubectl() -> Result<()> {
    holds("selector")
}

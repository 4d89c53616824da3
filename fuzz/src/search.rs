//! The search of the tests: what is in the corpus, and changes of it by a seed. Each case depends on its number alone.

use std::env;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use crate::mutate::{mutate, seeded};
use crate::{Target, corpus};

/// How much was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Files of the corpus.
    pub files: usize,
    /// Changes of them.
    pub cases: u64,
}

/// Tries every file of the corpus and so many cases.
///
/// # Errors
/// The first input by which the target panics, and where it was put.
pub fn search(target: &Target, seed: u64, cases: u64, findings: &Path) -> Result<Tried> {
    let files = files(target.name)?;
    ensure!(!files.is_empty(), "{} has no corpus", target.name);
    for (path, input) in &files {
        attempt(target, input).with_context(|| path.display().to_string())?;
    }
    for number in 0..cases {
        let mut rng = seeded(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (_, from) = &files[rng.usize(0..files.len())];
        let input = mutate(&mut rng, from, target.words);
        if let Err(error) = attempt(target, &input) {
            fs::create_dir_all(findings)?;
            let path = findings.join(format!("{}-{seed}-{number}", target.name));
            fs::write(&path, &input)?;
            return Err(error.context(path.display().to_string()));
        }
    }
    Ok(Tried { files: files.len(), cases })
}

/// The corpus, in the order of its names.
fn files(name: &str) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let folder = corpus(name);
    let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    paths.into_iter().map(|path| fs::read(&path).map(|input| (path, input)).map_err(Into::into)).collect()
}

fn attempt(target: &Target, input: &[u8]) -> Result<()> {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
        bail!("{} fails by this input", target.name);
    }
    Ok(())
}

/// The same as `FUZZ_SEED` (1) and `FUZZ_CASES` (a factor, 1) say. What was tried is printed.
///
/// # Errors
/// As [`search`].
#[allow(clippy::print_stdout, reason = "what was tried is the result")]
pub fn searched(name: &str, findings: &Path) -> Result<()> {
    let target = crate::target(name).context("no such target")?;
    let (seed, factor, began) = (setting("FUZZ_SEED")?, setting("FUZZ_CASES")?, Instant::now());
    let tried = search(target, seed, target.cases * factor, findings)?;
    println!("{name}: {} files, {} cases by seed {seed}, {:?}", tried.files, tried.cases, began.elapsed());
    Ok(())
}

fn setting(name: &str) -> Result<u64> {
    env::var(name).map_or(Ok(1), |value| value.parse().with_context(|| format!("{name}={value}")))
}

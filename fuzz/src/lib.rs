//! What the program reads of others, each kind with one target: it takes any bytes, and panics where the program does
//! not what it has to. Most are held against somebody else who reads the same.
//!
//! ```text
//! corpus/ ─┬→ mutate ─→ target ←── mutate ←─ libFuzzer, by coverage (cargo fuzz)
//!          └──────────────┘
//!   tests/: every file of the corpus, and a short search by a seed
//! ```
//! Two engines, the same targets. Stable Rust has no search by coverage of its own, so that the tests' is blind: it
//! changes what is in the corpus. libFuzzer finds what nobody thought of, and its findings become files of the corpus.

mod bundle;
mod flags;
mod http;
mod judged;
pub mod mutate;
mod objects;
mod review;
pub mod search;
mod selector;
mod signing;
mod vault;

use std::path::PathBuf;

/// What reads one kind of input.
#[derive(Debug)]
pub struct Target {
    /// The name of its program and of its folder.
    pub name: &'static str,
    /// Reads an input.
    pub run: fn(&[u8]),
    /// What its inputs are made of.
    pub words: &'static [&'static str],
    /// So many cases of the tests' search take some seconds.
    pub cases: u64,
}

/// All of them.
pub const TARGETS: [Target; 8] = [
    Target { name: "bundle", run: bundle::run, words: bundle::WORDS, cases: 2_000 },
    Target { name: "flags", run: flags::run, words: flags::WORDS, cases: 500 },
    Target { name: "http", run: http::run, words: http::WORDS, cases: 1_000 },
    Target { name: "objects", run: objects::run, words: objects::WORDS, cases: 1_000 },
    Target { name: "review", run: review::run, words: review::WORDS, cases: 10_000 },
    Target { name: "selector", run: selector::run, words: selector::WORDS, cases: 10_000 },
    Target { name: "signing", run: signing::run, words: signing::WORDS, cases: 1_000 },
    Target { name: "vault", run: vault::run, words: vault::WORDS, cases: 3_000 },
];

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// The folder with the inputs that every run begins with.
pub fn corpus(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus")).join(name)
}

/// A program of cargo-fuzz for one target. Half of its inputs are changed by the rules of the target's own format.
#[macro_export]
macro_rules! libfuzzer {
    ($name:literal) => {
        libfuzzer_sys::fuzz_target!(|input: &[u8]| {
            if let Some(target) = fuzz::target($name) {
                (target.run)(input);
            }
        });

        libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, most: usize, seed: u32| {
            if seed % 2 == 0 {
                return libfuzzer_sys::fuzzer_mutate(data, size, most);
            }
            let words = fuzz::target($name).map_or(&[][..], |target| target.words);
            let made = fuzz::mutate::mutate(&mut fuzz::mutate::seeded(seed.into()), &data[..size], words);
            let size = made.len().min(most);
            data[..size].copy_from_slice(&made[..size]);
            size
        });
    };
}

//! Tells the program its version, `0.1.0 (abcdef123456)`, with the commit where it is known, and has a static one loaded at
//! a random address.
//!
//! The commit is `GATE_COMMIT`'s, else git's. A source archive, or a container's build without `.git`, has neither,
//! and that is no error. A dirty tree is not marked: this runs again only when HEAD moves, so the mark would lie.

use std::path::Path;
use std::process::Command;

/// For builds where there is no repository.
const VARIABLE: &str = "GATE_COMMIT";

/// Digits of a commit that are shown: no two of one repository are alike in so many.
const DIGITS: usize = 12;

fn main() -> Result<(), String> {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    println!("cargo::rerun-if-changed=build.rs");
    let commit = match std::env::var(VARIABLE).ok().filter(|given| !given.is_empty()) {
        Some(given) => Some(hash(&given).ok_or(format!("{VARIABLE} is not the hash of a commit: {given:?}"))?),
        None => head(),
    };
    let version = env!("CARGO_PKG_VERSION");
    match commit {
        Some(commit) => println!("cargo::rustc-env=GATE_VERSION={version} ({commit})"),
        None => println!("cargo::rustc-env=GATE_VERSION={version}"),
    }
    if is_static_by_zig() {
        println!("cargo::rustc-link-arg-bins=-pie");
    }
    Ok(())
}

/// Whether zig links a static program. rustc asks for one that is loaded at a random address, in words that zig does not
/// heed.
fn is_static_by_zig() -> bool {
    let is = |variable: &str, part: &str| std::env::var(variable).is_ok_and(|value| value.contains(part));
    is("CARGO_CFG_TARGET_ENV", "musl") && is("RUSTC_LINKER", "zig")
}

/// The commit that is checked out, if this package is a repository's top folder: a source archive that was unpacked
/// inside of another repository is not that one's commit.
fn head() -> Option<String> {
    if !git(&["rev-parse", "--show-prefix"])?.is_empty() {
        return None;
    }
    let commit = hash(&git(&["rev-parse", "HEAD"])?)?;
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    // One of these changes whenever HEAD moves: the reflog if it is kept, else the branch where it is stored.
    for name in ["HEAD", "logs/HEAD", "packed-refs"].into_iter().chain(branch.as_deref()) {
        // A file that is not there would be taken for changed at each build.
        if let Some(file) = git(&["rev-parse", "--git-path", name]).filter(|file| Path::new(file).is_file()) {
            println!("cargo::rerun-if-changed={file}");
        }
    }
    Some(commit)
}

/// What git prints, if it is there and succeeds.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

/// The first digits of a commit's hash.
fn hash(text: &str) -> Option<String> {
    let text = text.trim().to_lowercase();
    let sound = text.len() >= DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    sound.then(|| text[..DIGITS].to_owned())
}

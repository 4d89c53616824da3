//! Compiles the few functions in C against the headers of the AWS-LC that is linked anyhow.

use std::env;

fn main() {
    let include = env::vars().find(|(name, _)| name.starts_with("DEP_AWS_LC_") && name.ends_with("_INCLUDE"));
    let (_, folder) = include.unwrap_or_default();
    println!("cargo:rerun-if-changed=src/boring.c");
    cc::Build::new().file("src/boring.c").include(folder).warnings(false).compile("judge_boring");
}

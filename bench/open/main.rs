//! What an open gate costs, beside the least that a webhook in Rust can be and one in Go as an operator's author would write
//! it. All three run as processes of their own, and are asked in turn, so that a machine whose speed drifts slows all.
//!
//!     cargo bench --bench open
//!
//! `-- instructions` counts instructions alone, by valgrind; `-- figures` prints what `.ci/cost` compares.

#![allow(missing_docs, unreachable_pub, dead_code, clippy::print_stdout, clippy::unwrap_used)]

#[path = "../../tests/it/certificates.rs"]
mod certificates;
mod count;
#[path = "../../tests/it/kubernetes.rs"]
mod kubernetes;
mod load;
#[path = "../../tests/it/product.rs"]
mod product;
mod reviews;
mod servers;
mod table;
#[path = "../../tests/it/vault.rs"]
mod vault;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let words: Vec<_> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    match words[..] {
        [] => runtime.block_on(table::compare()),
        ["instructions"] => runtime.block_on(count::compare()),
        ["count", server] => runtime.block_on(count::count(server)),
        ["figures"] => runtime.block_on(count::figures()),
        _ => bail!("not known: {words:?}"),
    }
}

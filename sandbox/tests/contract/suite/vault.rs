//! Vault: KV version 2, mounts, policies, health, seal, and the words of its refusals.

use anyhow::{Result, ensure};
use serde_json::json;
use testbed::VaultApi;

use super::{Case, cases};

pub const CASES: &[Case<VaultApi>] = cases![a_path_that_was_never_written_has_no_errors];

async fn a_path_that_was_never_written_has_no_errors(vault: &VaultApi) -> Result<()> {
    let (status, answer) = vault.api("GET", "secret/data/never", None).await?;
    ensure!(status == 404 && answer == json!({ "errors": [] }), "{status}: {answer}");
    Ok(())
}

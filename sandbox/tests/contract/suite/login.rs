//! Service accounts of a cluster log in to Vault.

use anyhow::{Result, ensure};

use super::{Case, Pair, cases};

pub const CASES: &[Case<Pair>] = cases![a_login_at_no_mount_is_denied];

async fn a_login_at_no_mount_is_denied(pair: &Pair) -> Result<()> {
    let (status, answer) = pair.vault.api_with(None, "POST", "auth/nowhere/login", None).await?;
    ensure!(status == 403, "{status}: {answer}");
    Ok(())
}

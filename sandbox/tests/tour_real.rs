//! The tour on real control planes and a real Vault.

use anyhow::Result;
use sandbox::tell::Teller;
use sandbox::tour;

#[tokio::test(flavor = "multi_thread")]
async fn the_tour_of_the_sandbox_goes_as_told_on_the_real_components() -> Result<()> {
    // Its gates are in this process. Only fails if there is a provider already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::tempdir()?;
    let teller = Teller::default();
    let standing = tour::start(&teller, true, folder.path()).await?;
    tour::go(&teller, &standing).await?;
    tokio::try_join!(standing.homelab.stop(), standing.nas.stop())?;
    Ok(())
}

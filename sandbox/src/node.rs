//! The node of each cluster, and its istiod: neither is there, and this says what they would.

use std::time::Duration;

use anyhow::Result;
use testbed::side::{NAMESPACE, Side};

/// Before it is tried again, where the API server does not answer as it should.
const PAUSE: Duration = Duration::from_secs(1);

/// A watch is begun anew after so many seconds: below the client's deadline for one answer.
const WATCH: u8 = 20;

/// Lets each pod run, for ever.
pub(crate) async fn run(side: Side) {
    loop {
        if watch(&side).await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// A watch tells of all pods at its beginning, and of every new one.
async fn watch(side: &Side) -> Result<()> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods?watch=true&timeoutSeconds={WATCH}");
    let mut news = side.api.raw(Some(side.api.admin_token()), "GET", &path, &[], None).await?;
    while news.chunk().await?.is_some() {
        side.run_pods().await?;
    }
    Ok(())
}

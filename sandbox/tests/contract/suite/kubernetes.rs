//! The API server: objects, watches, patches, rights, admission; and the controllers that make pods.

use anyhow::{Result, ensure};
use testbed::KubernetesApi;

use super::{Case, cases};

pub const CASES: &[Case<KubernetesApi>] = cases![it_is_ready];

async fn it_is_ready(cluster: &KubernetesApi) -> Result<()> {
    let (status, answer) = cluster.request("GET", "/readyz", None).await?;
    ensure!(status == 200 && answer == "ok", "{status}: {answer}");
    Ok(())
}

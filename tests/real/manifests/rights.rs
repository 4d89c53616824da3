//! Who may do what with the manifests applied, as `kubectl auth can-i` tells it.

use anyhow::{Result, bail, ensure};
use testbed::{Cluster, eventually};

use super::{apply, apply_all, cluster, deploy};
use crate::world::{self, NAMESPACE, SOON};

/// Verb, resource and name, namespace; empty where there is none.
type Deed = (&'static str, &'static str, &'static str);

/// Of the gate, by the overlay alone.
const THE_GATE_MAY: [Deed; 33] = [
    ("get", "secrets/cacerts", NAMESPACE),
    ("list", "secrets/cacerts", NAMESPACE),
    ("watch", "secrets/cacerts", NAMESPACE),
    ("patch", "secrets/cacerts", NAMESPACE),
    ("get", "secrets/istio-ca-gate-tls", NAMESPACE),
    ("list", "secrets/istio-ca-gate-tls", NAMESPACE),
    ("watch", "secrets/istio-ca-gate-tls", NAMESPACE),
    ("patch", "secrets/istio-ca-gate-tls", NAMESPACE),
    ("create", "secrets", NAMESPACE),
    ("get", "configmaps/istio-ca-gate", NAMESPACE),
    ("patch", "configmaps/istio-ca-gate", NAMESPACE),
    ("create", "configmaps", NAMESPACE),
    ("create", "events", NAMESPACE),
    ("patch", "events", NAMESPACE),
    ("get", "deployments.apps", NAMESPACE),
    ("get", "replicasets.apps", NAMESPACE),
    ("list", "replicasets.apps", NAMESPACE),
    ("patch", "replicasets.apps --subresource=status", NAMESPACE),
    ("get", "statefulsets.apps", NAMESPACE),
    ("list", "statefulsets.apps", NAMESPACE),
    ("patch", "statefulsets.apps --subresource=status", NAMESPACE),
    ("get", "daemonsets.apps", NAMESPACE),
    ("list", "daemonsets.apps", NAMESPACE),
    ("patch", "daemonsets.apps --subresource=status", NAMESPACE),
    ("get", "jobs.batch", NAMESPACE),
    ("list", "jobs.batch", NAMESPACE),
    ("patch", "jobs.batch --subresource=status", NAMESPACE),
    ("list", "validatingwebhookconfigurations/istio-ca-gate", ""),
    ("watch", "validatingwebhookconfigurations/istio-ca-gate", ""),
    ("patch", "validatingwebhookconfigurations/istio-ca-gate", ""),
    ("list", "mutatingwebhookconfigurations/istio-ca-gate", ""),
    ("watch", "mutatingwebhookconfigurations/istio-ca-gate", ""),
    ("patch", "mutatingwebhookconfigurations/istio-ca-gate", ""),
];

/// Of the gate, by the components alone.
const COMPONENTS_LET_IT: [Deed; 12] = [
    ("get", "externalsecrets.external-secrets.io/istio-cacerts", NAMESPACE),
    ("patch", "externalsecrets.external-secrets.io/istio-cacerts", NAMESPACE),
    ("list", "externalsecrets.external-secrets.io", NAMESPACE),
    ("get", "helmreleases.helm.toolkit.fluxcd.io/istiod", "flux-system"),
    ("patch", "helmreleases.helm.toolkit.fluxcd.io/istio-eastwestgateway", "flux-system"),
    ("list", "replicasets.apps", "istio-ingress"),
    ("get", "deployments.apps", "istio-ingress"),
    ("patch", "replicasets.apps --subresource=status", "istio-ingress"),
    ("patch", "jobs.batch --subresource=status", "istio-ingress"),
    ("create", "pods", "istio-ca-gate-self-test"),
    ("list", "pods", NAMESPACE),
    ("list", "configmaps/istio-ca-root-cert", "default"),
];

/// Not by any manifest.
const NOBODY_MAY: [Deed; 33] = [
    ("get", "secrets", NAMESPACE),
    ("list", "secrets", NAMESPACE),
    ("watch", "secrets", NAMESPACE),
    ("get", "secrets/istio-ca-secret", NAMESPACE),
    ("get", "secrets/cacerts", "default"),
    ("update", "secrets/cacerts", NAMESPACE),
    ("delete", "secrets/cacerts", NAMESPACE),
    ("delete", "secrets/istio-ca-gate-tls", NAMESPACE),
    ("create", "secrets", "default"),
    ("patch", "configmaps/istio-ca-root-cert", NAMESPACE),
    ("list", "configmaps", NAMESPACE),
    ("delete", "configmaps/istio-ca-gate", NAMESPACE),
    ("patch", "deployments.apps", NAMESPACE),
    ("patch", "replicasets.apps", NAMESPACE),
    ("update", "replicasets.apps --subresource=status", NAMESPACE),
    ("delete", "replicasets.apps", NAMESPACE),
    ("create", "jobs.batch", NAMESPACE),
    ("get", "pods", NAMESPACE),
    ("create", "pods", NAMESPACE),
    ("create", "pods", "default"),
    ("get", "pods", "istio-ca-gate-self-test"),
    ("delete", "pods", "istio-ca-gate-self-test"),
    ("create", "pods --subresource=exec", "istio-ca-gate-self-test"),
    ("create", "serviceaccounts --subresource=token", NAMESPACE),
    ("get", "helmreleases.helm.toolkit.fluxcd.io/vault", "flux-system"),
    ("list", "helmreleases.helm.toolkit.fluxcd.io", "flux-system"),
    ("patch", "kustomizations.kustomize.toolkit.fluxcd.io/istio", "flux-system"),
    ("patch", "validatingwebhookconfigurations/another", ""),
    ("create", "validatingwebhookconfigurations", ""),
    ("delete", "validatingwebhookconfigurations/istio-ca-gate", ""),
    ("patch", "clusterroles.rbac.authorization.k8s.io", ""),
    ("get", "namespaces", ""),
    ("list", "configmaps", "default"),
];

/// Of the Job, where there is no gate.
const THE_JOB_MAY: [Deed; 9] = [
    ("get", "secrets/cacerts", NAMESPACE),
    ("patch", "secrets/cacerts", NAMESPACE),
    ("create", "secrets", NAMESPACE),
    ("get", "configmaps/istio-ca-gate", NAMESPACE),
    ("patch", "configmaps/istio-ca-gate", NAMESPACE),
    ("create", "configmaps", NAMESPACE),
    ("create", "events", NAMESPACE),
    ("list", "replicasets.apps", NAMESPACE),
    ("patch", "replicasets.apps --subresource=status", NAMESPACE),
];

/// And not, though the gate may.
const THE_JOB_MAY_NOT: [Deed; 7] = [
    ("list", "secrets/cacerts", NAMESPACE),
    ("watch", "secrets/cacerts", NAMESPACE),
    ("get", "secrets/istio-ca-gate-tls", NAMESPACE),
    ("patch", "secrets/istio-ca-gate-tls", NAMESPACE),
    ("get", "deployments.apps", NAMESPACE),
    ("list", "validatingwebhookconfigurations/istio-ca-gate", ""),
    ("patch", "validatingwebhookconfigurations/istio-ca-gate", ""),
];

/// Whether the API server lets a service account of the gate's namespace do this.
async fn can(cluster: &Cluster, account: &str, (verb, object, namespace): Deed) -> Result<bool> {
    let user = format!("system:serviceaccount:{NAMESPACE}:{account}");
    let mut args = vec!["auth", "can-i", "--as", &user, verb];
    args.extend(object.split(' '));
    if !namespace.is_empty() {
        args.extend(["--namespace", namespace]);
    }
    match cluster.kubectl(&args).await {
        Ok(said) if said.trim() == "yes" => Ok(true),
        // No is its exit code 1.
        Err(error) if error.to_string().lines().last() == Some("no") => Ok(false),
        Ok(said) => bail!("{args:?}: {said}"),
        Err(error) => Err(error),
    }
}

/// How many deeds were asked about.
async fn all_are(cluster: &Cluster, account: &str, deeds: &[Deed], allowed: bool) -> Result<usize> {
    for deed in deeds {
        let can = can(cluster, account, *deed).await?;
        ensure!(can == allowed, "{} in {}: {account} may {deed:?}: {can}", deed.1, cluster.name());
    }
    Ok(deeds.len())
}

/// RBAC is read from a cache that follows.
async fn settled(cluster: &Cluster, account: &str, deed: Deed) -> Result<()> {
    eventually("the rights to be in force", SOON, || async {
        ensure!(can(cluster, account, deed).await?, "not yet");
        Ok(())
    })
    .await
}

async fn least_rights(name: &str, job: &str, other: &str) -> Result<()> {
    let (cluster, account) = (cluster(name).await?, "istio-ca-gate");
    apply(&cluster, &deploy(&format!("kustomize/jobs/{name}"))).await?;
    settled(&cluster, job, THE_JOB_MAY[0]).await?;
    let mut asked = all_are(&cluster, job, &THE_JOB_MAY, true).await?;
    asked += all_are(&cluster, job, &THE_JOB_MAY_NOT, false).await?;
    asked += all_are(&cluster, account, &THE_JOB_MAY, false).await?;

    apply(&cluster, &deploy(&format!("kustomize/overlays/{name}"))).await?;
    settled(&cluster, account, THE_GATE_MAY[32]).await?;
    asked += all_are(&cluster, account, &THE_GATE_MAY, true).await?;
    asked += all_are(&cluster, account, &COMPONENTS_LET_IT, false).await?;

    apply_all(&cluster).await?;
    settled(&cluster, account, COMPONENTS_LET_IT[11]).await?;
    asked += all_are(&cluster, account, &COMPONENTS_LET_IT, true).await?;
    asked += all_are(&cluster, account, &NOBODY_MAY, false).await?;
    // Whoever takes the steps of a change of the root asks nothing of Kubernetes.
    for deeds in [&THE_GATE_MAY[..], &COMPONENTS_LET_IT] {
        asked += all_are(&cluster, "istio-ca-rotate", deeds, false).await?;
    }
    // Nothing is granted to anybody else.
    asked += all_are(&cluster, job, &THE_JOB_MAY_NOT, false).await?;
    for stranger in ["default", other] {
        asked += all_are(&cluster, stranger, &[THE_GATE_MAY[0], THE_GATE_MAY[32], COMPONENTS_LET_IT[9]], false).await?;
    }
    println!("{name}: {asked} answers of kubectl auth can-i");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_service_account_may_do_what_the_tables_say_and_no_more() -> Result<()> {
    let _place = world::place().await?;
    tokio::try_join!(
        least_rights("homelab", "istio-ca-bootstrap", "istio-ca-sync"),
        least_rights("nas", "istio-ca-sync", "istio-ca-bootstrap"),
    )?;
    Ok(())
}

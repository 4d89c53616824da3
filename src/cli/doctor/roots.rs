//! Links 13 and 14: a root of istiod's own making, and the root that the mesh really has.

use std::collections::BTreeSet;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use super::asked::Asked;
use super::cacerts::published;
use super::check::{Check, Eyes, Sight};
use super::cluster::{Cluster, OWN_ROOT, SERVED_ROOT};
use super::line::{Line, Link};
use crate::ca::Sha256;
use crate::ca::bundle::{CA_CERT, Glance, ROOT_CERT, glance};
use crate::plan::{Published, Stored};
use crate::reason::Reason;

/// Where there is no sound `cacerts` to compare with.
const VAULT: &str = "Vault";

/// Both.
pub(super) struct Roots;

#[async_trait(?Send)]
impl Check for Roots {
    async fn look(&self, eyes: &Eyes<'_>, seen: &mut Sight) {
        if !seen.cluster.answers() {
            return;
        }
        let namespace = &eyes.asked.namespace;
        let (own, served) = tokio::join!(
            eyes.asker.get::<Secret>(namespace, "secrets", OWN_ROOT),
            eyes.asker.get::<ConfigMap>(namespace, "configmaps", SERVED_ROOT),
        );
        seen.cluster.own_root = own.map(|secret| glance(&secret.data?.get(CA_CERT)?.0));
        seen.cluster.served_root = served.map(|map| glance(map.data?.get(ROOT_CERT)?.as_bytes()));
    }

    fn lines(&self, seen: &Sight, asked: &Asked) -> Vec<Line> {
        vec![own(&seen.cluster, asked), served(&seen.cluster, seen.told.stored(), asked)]
    }
}

/// A Secret that istiod makes only where it did not find `cacerts`.
pub(super) fn own(cluster: &Cluster, asked: &Asked) -> Line {
    let link = Link::new(OWN_ROOT, format!("Secret {}/{OWN_ROOT}", asked.namespace));
    let delete = format!("`kubectl -n {} delete secret {OWN_ROOT}`", asked.namespace);
    let own = match cluster.own_root.or_line(&link) {
        Err(line) => return line,
        Ok(None) => return link.ok("not there: istiod has never made a root of its own here"),
        Ok(Some(own)) => own,
    };
    let served = cluster.served_root.seen().and_then(Option::as_ref);
    match (own, served) {
        (Some(own), Some(served)) if served.roots.contains(&own.sha256) => link
            .failed(
                format!(
                    "istiod made a root of its own, {}, and the mesh has it: it is split from the other clusters",
                    own.sha256.openssl()
                ),
                format!("once cacerts is ok: {delete}, restart istiod, then all workloads"),
            )
            .reason(Reason::RootChanged),
        _ => link.warning(
            "istiod once made a root of its own, which the mesh does not have now",
            format!("delete what is left of it: {delete}"),
        ),
    }
}

/// What workloads verify each other with.
pub(super) fn served(cluster: &Cluster, stored: Option<&Stored>, asked: &Asked) -> Line {
    let link = Link::new(SERVED_ROOT, format!("ConfigMap {}/{SERVED_ROOT}", asked.namespace));
    let served = match cluster.served_root.or_line(&link) {
        Err(line) => return line,
        Ok(None) => return link.note("not there: istiod has not run here yet"),
        Ok(Some(None)) => {
            let next = "restart istiod, which writes it";
            return link.failed("has no certificate that can be read", next).reason(Reason::RootChanged);
        }
        Ok(Some(Some(served))) => served,
    };
    match (expected(cluster, stored), stored) {
        (Some((whose, expected)), _) => compare(&link, served, whose, expected, asked),
        (None, Some(Stored::Absent)) => other_root(&link, served, "Vault has none", asked),
        (None, _) => link.note(format!(
            "the mesh has root sha256 {}; not compared: there is nothing sound to compare it with",
            served.sha256.openssl()
        )),
    }
}

/// A mesh that runs already would be split by the root that the gate makes or publishes.
fn other_root(link: &Link, served: &Glance, vault: &str, asked: &Asked) -> Line {
    let namespace = &asked.namespace;
    link.failed(
        format!("the mesh serves root sha256 {}, and {vault}: another one would split it", served.sha256.openssl()),
        format!(
            "where the mesh runs, bring that root into Vault (`istio-ca-gate adopt`) or follow \"Change the root\" in docs/operate.md; where Istio was removed, delete what it left: `kubectl -n {namespace} delete configmap {SERVED_ROOT}`"
        ),
    )
    .reason(Reason::MeshOnOtherRoot)
}

/// The roots of `cacerts`, else of Vault.
fn expected<'a>(cluster: &'a Cluster, stored: Option<&'a Stored>) -> Option<(&'static str, &'a BTreeSet<Sha256>)> {
    if let Some(Published::Present(copy)) = published(cluster)
        && let Ok(sound) = &copy.verdict
    {
        return Some(("cacerts", sound.roots()));
    }
    stored.and_then(Stored::roots).map(|roots| (VAULT, roots))
}

fn compare(link: &Link, served: &Glance, whose: &str, expected: &BTreeSet<Sha256>, asked: &Asked) -> Line {
    let restart = "restart istiod, then the workloads: a running istiod does not take a changed root unless ISTIO_MULTIROOT_MESH is true";
    if served.roots == *expected {
        return link.ok(format!("the mesh has the root of {whose}"));
    }
    if served.roots.is_disjoint(expected) && whose == VAULT {
        return other_root(link, served, "not that of Vault", asked);
    }
    if served.roots.is_disjoint(expected) {
        return link
            .failed(format!("the mesh has root sha256 {}, and not that of {whose}", served.sha256.openssl()), restart)
            .reason(Reason::RootChanged);
    }
    link.warning(format!("the mesh has some of the roots of {whose}, or more than those"), restart)
}

#[cfg(test)]
mod tests;

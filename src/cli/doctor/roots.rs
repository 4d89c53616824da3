//! Links 13 and 14: a root of istiod's own making, and the root that the mesh really has.

use std::collections::BTreeSet;

use super::asked::Asked;
use super::cacerts::published;
use super::cluster::{Cluster, OWN_ROOT, SERVED_ROOT};
use super::line::{Line, Link};
use crate::ca::Sha256;
use crate::ca::bundle::Glance;
use crate::plan::{Published, Stored};
use crate::reason::Reason;

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
    let Some((whose, expected)) = expected(cluster, stored) else {
        return link.note(format!(
            "the mesh has root sha256 {}; not compared: there is nothing sound to compare it with",
            served.sha256.openssl()
        ));
    };
    compare(&link, served, whose, expected)
}

/// The roots of `cacerts`, else of Vault.
fn expected<'a>(cluster: &'a Cluster, stored: Option<&'a Stored>) -> Option<(&'static str, &'a BTreeSet<Sha256>)> {
    if let Some(Published::Present(copy)) = published(cluster)
        && let Ok(sound) = &copy.verdict
    {
        return Some(("cacerts", sound.roots()));
    }
    match stored {
        Some(Stored::Sound { sound, .. }) => Some(("Vault", sound.roots())),
        _ => None,
    }
}

fn compare(link: &Link, served: &Glance, whose: &str, expected: &BTreeSet<Sha256>) -> Line {
    let restart = "restart istiod, then the workloads: a running istiod does not take a changed root unless ISTIO_MULTIROOT_MESH is true";
    if served.roots == *expected {
        return link.ok(format!("the mesh has the root of {whose}"));
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

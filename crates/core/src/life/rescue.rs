//! What is done about clusters that run on roots that their istiods made for themselves, as far as what is there tells.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::audience::Heard;
use super::start::{Obstacle, unready};
use crate::ca::Sha256;
use crate::ca::record::SigningRecord;
use crate::plan::{Mesh, Owner, Published};

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct SplitCluster<'a> {
    /// Its name.
    pub name: &'a str,
    /// The root that its istiod made, where its key is at hand.
    pub own: Option<Sha256>,
    /// What its mesh is served.
    pub mesh: &'a Mesh,
    /// Its `cacerts`.
    pub cacerts: &'a Published,
}

/// What is still to be done in a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rescue {
    /// Give it a signer under its own root, and have istiod read it.
    Bring,
    /// Have istiod read what is there.
    Restart,
    /// Nothing.
    Done,
}

/// Why nothing is done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unrescuable {
    /// A cluster that the gates know of is not ready for signers.
    Unready(Obstacle),
    /// This one attests, and is not among those that are to be rescued.
    NotGiven(String),
    /// No mesh has run there.
    NoMesh(String),
    /// What its mesh is served is not the root whose key is at hand.
    OtherRoot {
        /// Which cluster.
        cluster: String,
        /// What its mesh is served.
        served: Option<Sha256>,
    },
    /// It has a `cacerts` that no rescue has put there.
    HasCacerts(String),
    /// Two names, and one root: one cluster, by two contexts.
    SameRoot(String, String),
    /// The record was written without this cluster's root.
    LeftOut(String),
    /// Signers are under the shared root by now.
    Switched(String),
}

/// What is still to be done, or all that stands in the way. `record`: that of a rescue that was begun.
///
/// # Errors
/// What stands in the way.
pub fn rescue<'a>(
    record: Option<&SigningRecord>,
    clusters: &[SplitCluster<'a>],
    heard: &Heard,
    now: Timestamp,
) -> Result<BTreeMap<&'a str, Rescue>, Vec<Unrescuable>> {
    let mut obstacles = match record {
        None => before_the_first_write(clusters, heard, now),
        Some(_) => Vec::new(),
    };
    let mut todo = BTreeMap::new();
    for cluster in clusters {
        match cluster.todo(record) {
            Ok(step) => drop(todo.insert(cluster.name, step)),
            Err(obstacle) => obstacles.push(obstacle),
        }
    }
    if obstacles.is_empty() { Ok(todo) } else { Err(obstacles) }
}

fn before_the_first_write(clusters: &[SplitCluster<'_>], heard: &Heard, now: Timestamp) -> Vec<Unrescuable> {
    let names: BTreeSet<String> = clusters.iter().map(|cluster| cluster.name.to_owned()).collect();
    let (given, others): (Heard, Heard) = heard.clone().into_iter().partition(|(name, _)| names.contains(name));
    let mut obstacles: Vec<_> = unready(&names, &given, now).into_iter().map(Unrescuable::Unready).collect();
    // It would be waited for, and never have a signer.
    obstacles.extend(others.into_keys().map(Unrescuable::NotGiven));
    let mut roots = BTreeMap::new();
    for cluster in clusters {
        let other = cluster.own.and_then(|own| roots.insert(own, cluster.name));
        obstacles.extend(other.map(|other| Unrescuable::SameRoot(other.to_owned(), cluster.name.to_owned())));
    }
    obstacles
}

impl SplitCluster<'_> {
    fn todo(&self, record: Option<&SigningRecord>) -> Result<Rescue, Unrescuable> {
        let name = || self.name.to_owned();
        let served = match self.mesh {
            Mesh::Absent => return Err(Unrescuable::NoMesh(name())),
            Mesh::Serves { roots, .. } => Some(roots),
            Mesh::Unreadable => None,
        };
        match (self.cacerts, record) {
            (Published::Absent, _) if served.is_none() || served != self.own.map(|own| [own].into()).as_ref() => {
                let served = served.and_then(|roots| roots.first().copied());
                Err(Unrescuable::OtherRoot { cluster: name(), served })
            }
            (Published::Absent, Some(record)) if record.issuer.is_some() => Err(Unrescuable::Switched(name())),
            (Published::Absent, Some(record)) if !self.own.is_some_and(|own| record.roots().contains(&own)) => {
                Err(Unrescuable::LeftOut(name()))
            }
            (Published::Absent, _) => Ok(Rescue::Bring),
            (Published::Present(copy), Some(record)) if copy.owner == Owner::Ours && copy.annotated_state.is_some() => {
                if served == Some(record.roots()) {
                    Ok(Rescue::Done)
                } else {
                    Ok(Rescue::Restart)
                }
            }
            (Published::Present(_), _) => Err(Unrescuable::HasCacerts(name())),
        }
    }
}

#[cfg(test)]
mod tests;

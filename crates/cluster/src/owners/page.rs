//! One page of a list of owners: of each a few fields are looked at, and of one that is blocked its names are kept.

use kube::Client;
use kube::api::ListParams;
use kube::core::Request;

use super::blocked::{Metadata, Wire};
use crate::stream;

/// An owner that is blocked.
pub(super) struct Owner {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) version: String,
}

/// The blocked owners of a page, and where the next one begins.
pub(super) struct Page {
    pub(super) blocked: Vec<Owner>,
    pub(super) next: Option<String>,
}

/// Reads the page that `path` and `params` name. `is_blocked` tells of each owner.
pub(super) async fn read(
    client: &Client,
    path: &str,
    params: &ListParams,
    is_blocked: impl Fn(&Wire) -> bool,
) -> kube::Result<Page> {
    let request = Request::new(path).list(params).map_err(kube::Error::BuildRequest)?;
    let mut blocked = Vec::new();
    let take = |owner: Wire| {
        if is_blocked(&owner) {
            blocked.push(Owner::from(owner));
        }
    };
    let next = stream::items(client, request, take).await?;
    Ok(Page { blocked, next })
}

impl From<Wire> for Owner {
    fn from(wire: Wire) -> Self {
        let Metadata { namespace, name, uid, resource_version } = wire.metadata;
        Self { namespace, name, uid, version: resource_version }
    }
}

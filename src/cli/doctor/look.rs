//! Reads for the report: each with a deadline, and each with an outcome that tells apart what is absent,
//! what may not be read and what could not be.

use std::fmt::Debug;
use std::time::Duration;

use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde::de::DeserializeOwned;

use crate::k8s::{ApiClock, failed};
use crate::reason::{ByItself, Held, Reason};

use super::line::{Line, Link};

/// Objects in one answer.
const PAGE: u32 = 250;

/// How a look ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Look<T> {
    /// It is there.
    Seen(T),
    /// There is none.
    Absent,
    /// The asker lacks this right.
    Forbidden(String),
    /// No answer, or none that says anything.
    Failed(Held),
    /// An earlier link is broken.
    Skipped(&'static str),
}

impl<T> Look<T> {
    pub(super) fn map<U>(self, map: impl FnOnce(T) -> U) -> Look<U> {
        self.and_then(|seen| Look::Seen(map(seen)))
    }

    pub(super) fn and_then<U>(self, then: impl FnOnce(T) -> Look<U>) -> Look<U> {
        match self {
            Self::Seen(seen) => then(seen),
            Self::Absent => Look::Absent,
            Self::Forbidden(right) => Look::Forbidden(right),
            Self::Failed(held) => Look::Failed(held),
            Self::Skipped(why) => Look::Skipped(why),
        }
    }

    pub(super) fn seen(&self) -> Option<&T> {
        if let Self::Seen(seen) = self { Some(seen) } else { None }
    }

    /// What is there, or nothing, or else the line that says why neither can be told.
    pub(super) fn or_line(&self, link: &Link) -> Result<Option<&T>, Line> {
        match self {
            Self::Seen(seen) => Ok(Some(seen)),
            Self::Absent => Ok(None),
            Self::Forbidden(right) => Err(link.forbidden(right)),
            Self::Failed(held) => Err(link.held(held)),
            Self::Skipped(why) => Err(link.skipped(why)),
        }
    }
}

/// Nothing else can be asked of a cluster that does not answer.
impl<T> Default for Look<T> {
    fn default() -> Self {
        Self::Skipped("kubernetes-api failed")
    }
}

impl<T> From<Result<T, Held>> for Look<T> {
    fn from(result: Result<T, Held>) -> Self {
        match result {
            Ok(seen) => Self::Seen(seen),
            Err(held) => Self::Failed(held),
        }
    }
}

/// A kind, by group, versions (the newest first) and names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) group: &'static str,
    pub(super) versions: &'static [&'static str],
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
}

impl Kind {
    fn resource(&self, version: &str) -> ApiResource {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(self.group, version, self.kind), self.plural)
    }

    /// As RBAC names it: `replicasets.apps`.
    fn full_name(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }
}

/// Asks the API server, each time with a deadline.
#[derive(Clone)]
pub(super) struct Asker {
    pub(super) client: Client,
    /// What its answers tell of the API server's.
    pub(super) clock: ApiClock,
    pub(super) timeout: Duration,
}

impl Asker {
    /// One call. `right` is what the asker lacks if it is refused.
    pub(super) async fn ask<T>(&self, right: &str, call: impl Future<Output = kube::Result<T>>) -> Look<T> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(answer)) => Look::Seen(answer),
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => Look::Forbidden(format!("no right to {right}")),
            // Of a namespace, too: a missing one is the answer here, and not in the way of it.
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Look::Absent,
            Ok(Err(error)) => Look::Failed(failed(right, &error).into_held(right)),
            Err(_) => Look::Failed(Held::new(
                Reason::KubernetesUnreachable,
                format!("cannot {right} (its answer took too long)"),
                "check the API server and the network to it",
                ByItself::Unsaid,
            )),
        }
    }

    /// A named object of a namespace.
    pub(super) async fn get<K>(&self, namespace: &str, plural: &str, name: &str) -> Look<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        self.ask(&format!("get {plural} {name} in {namespace}"), api.get(name)).await
    }

    /// The object of a kind without namespace, by list: RBAC may name it, and the gate has no right to get it.
    pub(super) async fn find(&self, kind: &Kind, name: &str) -> Look<DynamicObject> {
        let api = Api::all_with(self.client.clone(), &kind.resource(kind.versions[0]));
        let params = ListParams::default().fields(&format!("metadata.name={name}"));
        let list = self.ask(&format!("list {} {name}", kind.full_name()), api.list(&params)).await;
        list.and_then(|list| list.items.into_iter().next().map_or(Look::Absent, Look::Seen))
    }

    /// All objects of a kind: in all namespaces where the asker may, else in this one. `Absent`: the cluster has
    /// no such kind.
    pub(super) async fn list(&self, kind: &Kind, namespace: &str) -> Look<Vec<DynamicObject>> {
        for version in kind.versions {
            let resource = kind.resource(version);
            let right = format!("list {}", kind.full_name());
            let everywhere = self.pages(&right, Api::all_with(self.client.clone(), &resource), "").await;
            let looked = match everywhere {
                Look::Forbidden(_) if kind.plural != "namespaces" => {
                    let api = Api::namespaced_with(self.client.clone(), namespace, &resource);
                    self.pages(&format!("{right} in {namespace}"), api, "").await
                }
                other => other,
            };
            if looked != Look::Absent {
                return looked;
            }
        }
        Look::Absent
    }

    /// Those of one namespace that have these labels.
    pub(super) async fn list_in(&self, kind: &Kind, namespace: &str, labels: &str) -> Look<Vec<DynamicObject>> {
        let api = Api::namespaced_with(self.client.clone(), namespace, &kind.resource(kind.versions[0]));
        self.pages(&format!("list {} in {namespace}", kind.full_name()), api, labels).await
    }

    async fn pages(&self, right: &str, api: Api<DynamicObject>, labels: &str) -> Look<Vec<DynamicObject>> {
        let mut params = ListParams::default().limit(PAGE).labels(labels);
        let mut items = Vec::new();
        loop {
            let page = match self.ask(right, api.list(&params)).await {
                Look::Seen(page) => page,
                other => return other.map(|page| page.items),
            };
            items.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Look::Seen(items),
            }
        }
    }
}

//! Owners of gated pods whose creation was refused. Their controllers back off for up to 1000 s;
//! any change of the owner makes them try again at once. An annotation is written through the
//! `status` subresource, which needs no right to change a spec.

mod blocked;
mod page;
mod touched;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch};
use kube::core::GroupVersionKind;
use kube::{Api, Client, Resource};
use serde_json::json;
use tokio::time::{Instant as Deadline, timeout_at};

use super::{Failed, call, patch};
use blocked::Wire;
use gate_core::cluster::Passed;
use gate_core::gate::Gated;
use gate_core::reason::{Held, Reason};
use page::{Owner, Page};
use touched::Touched;

/// Tells when a blocked owner was last touched.
const TOUCHED: &str = "istio-ca-gate.io/touched-at";

/// The kinds that make pods, with their API group.
const KINDS: [(&str, &str); 4] =
    [("apps", "ReplicaSet"), ("apps", "StatefulSet"), ("apps", "DaemonSet"), ("batch", "Job")];

/// Owners in one answer; where that takes too long, a fifth, down to one: of the largest that there can be, it is 40 MB.
const PAGE: u32 = 25;

/// Longest pass: consultations wait for it. The next one goes on where it ended.
const PASS: Duration = Duration::from_secs(5);

/// Most writes of a pass.
const WRITES: usize = 50;

/// How long a refusal to list them in all namespaces is taken for granted.
const REFUSED_PAUSE: Duration = Duration::from_secs(600);

/// The owners of one cluster's gated pods.
pub struct Owners {
    client: Client,
    namespace: String,
    gated: Gated,
    /// When RBAC last refused to list them in all namespaces.
    refused: Mutex<Option<Instant>>,
    /// Owners in the next answer.
    limit: AtomicU32,
    /// Where a pass ended that did not come to its end.
    left_at: Mutex<Option<At>>,
    touched: Mutex<Touched>,
}

/// A place in the pass over all kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct At {
    kind: usize,
    page: Option<String>,
    /// Blocked owners of the page that had their turn.
    done: usize,
}

impl Owners {
    /// Owners of pods that `gated` matches: in all namespaces where RBAC lets it, else in this one.
    pub fn new(client: Client, namespace: &str, gated: Gated) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            gated,
            refused: Mutex::default(),
            limit: AtomicU32::new(PAGE),
            left_at: Mutex::default(),
            touched: Mutex::default(),
        }
    }

    /// Whether any owner of gated pods lacks pods.
    ///
    /// # Errors
    /// The reason why it cannot be told.
    pub async fn any_blocked(&self) -> Result<bool, Held> {
        let mut at = Some(At::default());
        while let Some(here) = at {
            let page = self.page(&here).await?;
            if !page.blocked.is_empty() {
                return Ok(true);
            }
            at = here.after(page.next);
        }
        Ok(false)
    }

    /// Touches blocked owners, so that their controllers try again now, until all are touched or it has had its time.
    ///
    /// # Errors
    /// The first failure, after the others were tried.
    pub async fn touch_blocked(&self, now: Timestamp) -> Result<Passed, Held> {
        let mut pass = Pass { now, deadline: Deadline::now() + PASS, writes: WRITES, any: false, failure: None };
        let mut at = lock(&self.left_at).take().or_else(|| Some(At::default()));
        while let Some(mut here) = at {
            let Ok(page) = timeout_at(pass.deadline, self.page(&here)).await else { return self.leave(here, pass) };
            let next = match page {
                Ok(page) => {
                    if !self.touch_page(&mut here, &page, &mut pass).await {
                        return self.leave(here, pass);
                    }
                    page.next
                }
                Err(held) => {
                    pass.failure = pass.failure.or(Some(held));
                    None
                }
            };
            at = here.after(next);
        }
        self.limit.store(PAGE, Ordering::Relaxed);
        pass.ended(true)
    }

    /// Ends a pass that is not at its end.
    fn leave(&self, here: At, pass: Pass) -> Result<Passed, Held> {
        *lock(&self.left_at) = Some(here);
        pass.ended(false)
    }

    /// Whether all of them had their turn within what the pass may use.
    async fn touch_page(&self, at: &mut At, page: &Page, pass: &mut Pass) -> bool {
        pass.any |= !page.blocked.is_empty();
        for owner in page.blocked.iter().skip(at.done) {
            if self.is_due(at.kind, owner) {
                if pass.writes == 0 {
                    return false;
                }
                pass.writes -= 1;
                match timeout_at(pass.deadline, self.touch(at.kind, owner, pass.now)).await {
                    Ok(touched) => pass.failure = pass.failure.take().or(touched.err()),
                    Err(_) => return false,
                }
            }
            at.done += 1;
        }
        true
    }

    /// One that tells by its counts alone may lack pods for any reason: if a touch does not help, it is left for a while.
    fn is_due(&self, kind: usize, owner: &Owner) -> bool {
        blocked::tells_why(KINDS[kind].1) || lock(&self.touched).is_due(&owner.uid, Instant::now())
    }

    async fn page(&self, at: &At) -> Result<Page, Held> {
        let page = self.page_where_allowed(at).await;
        if page.as_ref().is_err_and(|held| held.reason == Reason::KubernetesUnreachable) {
            let limit = self.limit.load(Ordering::Relaxed);
            self.limit.store((limit / 5).max(1), Ordering::Relaxed);
        }
        page
    }

    async fn page_where_allowed(&self, at: &At) -> Result<Page, Held> {
        if !self.may_look_everywhere() {
            return self.page_of(at, Some(&self.namespace)).await;
        }
        match self.page_of(at, None).await {
            Err(held) if held.reason == Reason::KubernetesForbidden => {
                *lock(&self.refused) = Some(Instant::now());
                self.page_of(&At { kind: at.kind, page: None, done: 0 }, Some(&self.namespace)).await
            }
            answered => answered,
        }
    }

    async fn page_of(&self, at: &At, namespace: Option<&str>) -> Result<Page, Held> {
        let (resource, kind) = resource(at.kind);
        let doing = format!("list {kind}s");
        let path = DynamicObject::url_path(&resource, namespace);
        let read = |page: Option<String>| {
            let mut params = ListParams::default().limit(self.limit.load(Ordering::Relaxed));
            params.continue_token = page;
            let (path, gated) = (path.clone(), self.gated.clone());
            let is_blocked = move |owner: &Wire| blocked::is_blocked(kind, owner, &gated);
            async move { page::read(&self.client, &path, &params, is_blocked).await }
        };
        let read = call(&doing, async {
            match read(at.page.clone()).await {
                // The place is from too long ago: the kind is begun again.
                Err(kube::Error::Api(status)) if status.code == 410 && at.page.is_some() => read(None).await,
                answered => answered,
            }
        });
        read.await.map_err(|error| error.into_held(&doing))
    }

    fn may_look_everywhere(&self) -> bool {
        lock(&self.refused).is_none_or(|refused| refused.elapsed() > REFUSED_PAUSE)
    }

    async fn touch(&self, kind: usize, owner: &Owner, now: Timestamp) -> Result<(), Held> {
        let (resource, kind) = resource(kind);
        let Owner { namespace, name, uid, version } = owner;
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        let doing = format!("touch {kind} {namespace}/{name}");
        let body = json!({ "metadata": {
            "resourceVersion": version,
            "annotations": { TOUCHED: now.to_string() },
        }});
        match call(&doing, api.patch_status(name, &patch(), &Patch::Merge(&body))).await {
            Ok(_) => {
                lock(&self.touched).note(uid, Instant::now());
                tracing::info!(kind, namespace, name, "touched a blocked owner, so that it tries again");
                Ok(())
            }
            // A conflict is a change by somebody else, which does as well; one that is gone needs nothing.
            Err(Failed::Conflict | Failed::NotFound) => Ok(()),
            Err(Failed::Held(held)) => Err(held),
        }
    }
}

/// A pass over blocked owners under way.
struct Pass {
    now: Timestamp,
    deadline: Deadline,
    /// How many are left.
    writes: usize,
    any: bool,
    failure: Option<Held>,
}

impl Pass {
    fn ended(self, whole: bool) -> Result<Passed, Held> {
        let passed = Passed { any: self.any, whole };
        self.failure.map_or(Ok(passed), Err)
    }
}

impl At {
    /// The next place, by where the next page of this kind begins; none after the last.
    fn after(&self, page: Option<String>) -> Option<Self> {
        match page {
            Some(page) => Some(Self { kind: self.kind, page: Some(page), done: 0 }),
            None => (self.kind + 1 < KINDS.len()).then_some(Self { kind: self.kind + 1, page: None, done: 0 }),
        }
    }
}

fn resource(kind: usize) -> (ApiResource, &'static str) {
    let (group, kind) = KINDS[kind];
    (ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind)), kind)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_goes_through_all_pages_of_each_kind() {
        let first = At::default();
        let second = first.after(Some("more".to_owned()));
        assert_eq!(second, Some(At { kind: 0, page: Some("more".to_owned()), done: 0 }));
        let mut kinds = 1;
        let mut at = second.and_then(|at| at.after(None));
        while let Some(here) = at {
            kinds += 1;
            assert_eq!(here.page, None);
            at = here.after(None);
        }
        assert_eq!(kinds, KINDS.len());
    }
}

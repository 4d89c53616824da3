//! Follows one named object: list, watch, and start over. Unlike kube's watcher it tells of every
//! sign of life, bookmarks and renewed watches included, since a silent watch must not be trusted.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use kube::api::{ListParams, ObjectList, PartialObjectMeta, WatchEvent, WatchParams};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use super::{Failed, call, failed};
use gate_core::backoff::{Backoff, SOON};
use gate_core::reason::Held;
use gate_core::snapshot::WATCH_TRUST;

/// The API server ends each watch after so long, so that a working one is never silent for longer.
const WATCH_SECONDS: u32 = (WATCH_TRUST.as_secs() / 2) as u32;

/// A watch without even its end after so long is dead.
const WATCH_DEAD: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 15);

/// First pause before the next list.
const PAUSE_FIRST: Duration = Duration::from_millis(50);

/// A watch that lasted for longer was a sound one.
const SOUND: Duration = Duration::from_secs(5);

/// What is seen of the object.
pub enum Seen<K> {
    /// It is not there, by this resourceVersion.
    Absent(String),
    /// It is there, as this.
    Present(K),
    /// Nothing new, but the watch is alive.
    Alive,
    /// It could not be listed or watched.
    Failed(Held),
}

/// What a watch tells.
type Events<K> = BoxStream<'static, kube::Result<WatchEvent<K>>>;

/// How an object is followed: whole, or by its metadata alone.
pub trait Source {
    /// What is seen of it.
    type Item: ResourceExt + Clone;

    /// Its kind, for people.
    fn kind() -> String;

    /// Lists.
    fn list(&self, params: &ListParams) -> impl Future<Output = kube::Result<ObjectList<Self::Item>>> + Send;

    /// Watches.
    fn watch(
        &self,
        params: &WatchParams,
        version: &str,
    ) -> impl Future<Output = kube::Result<Events<Self::Item>>> + Send;
}

impl<K> Source for Api<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    type Item = K;

    fn kind() -> String {
        K::kind(&()).into_owned()
    }

    async fn list(&self, params: &ListParams) -> kube::Result<ObjectList<K>> {
        self.list(params).await
    }

    async fn watch(&self, params: &WatchParams, version: &str) -> kube::Result<Events<K>> {
        Ok(self.watch(params, version).await?.boxed())
    }
}

/// Follows metadata: what is in the object is neither sent nor kept in a buffer.
pub struct MetadataOf<K>(pub Api<K>);

impl<K> Source for MetadataOf<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    type Item = PartialObjectMeta<K>;

    fn kind() -> String {
        K::kind(&()).into_owned()
    }

    async fn list(&self, params: &ListParams) -> kube::Result<ObjectList<Self::Item>> {
        self.0.list_metadata(params).await
    }

    async fn watch(&self, params: &WatchParams, version: &str) -> kube::Result<Events<Self::Item>> {
        Ok(self.0.watch_metadata(params, version).await?.boxed())
    }
}

/// Follows the object for ever, and logs what keeps it from it. RBAC may name it: list and watch select it by its name.
/// It begins `anew` whenever it is told to.
pub async fn follow<S: Source>(source: S, name: &str, anew: &Notify, mut on: impl FnMut(Seen<S::Item>)) {
    let doing = format!("watch {} {name}", S::kind());
    let (mut backoff, mut said) = (Backoff::new(PAUSE_FIRST, SOON), None);
    loop {
        let began = Instant::now();
        // What begins now is new enough.
        let _ = anew.notified().now_or_never();
        let ended = tokio::select! {
            // What the old watch still has to tell is not to be believed.
            biased;
            () = anew.notified() => Ended::Gone,
            ended = list_and_watch(&source, name, &doing, &mut on) => ended,
        };
        if let Ended::Failed(held) = ended {
            // What stays is told once, and again after it worked for a while.
            if said.as_ref() != Some(&held) || began.elapsed() > SOUND {
                tracing::warn!(reason = %held.reason, "{}", held.sentence());
            }
            said = Some(held.clone());
            on(Seen::Failed(held));
        }
        // What ends at once again and again must not become a storm of lists.
        if began.elapsed() > SOUND {
            backoff.reset();
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}

enum Ended {
    /// The version watched from is too old, or the stream broke: list again.
    Gone,
    Failed(Held),
}

async fn list_and_watch<S: Source>(source: &S, name: &str, doing: &str, on: &mut impl FnMut(Seen<S::Item>)) -> Ended {
    let field = format!("metadata.name={name}");
    let list = match call(doing, source.list(&ListParams::default().fields(&field))).await {
        Ok(list) => list,
        Err(error) => return Ended::Failed(error.into_held(doing)),
    };
    let mut version = list.metadata.resource_version.unwrap_or_default();
    on(list.items.into_iter().next().map_or_else(|| Seen::Absent(version.clone()), Seen::Present));

    let params = WatchParams::default().fields(&field).timeout(WATCH_SECONDS);
    loop {
        let stream = match call(doing, source.watch(&params, &version)).await {
            Ok(stream) => stream,
            Err(Failed::Held(held)) => return Ended::Failed(held),
            Err(_) => return Ended::Gone,
        };
        on(Seen::Alive);
        let began = Instant::now();
        let mut stream = std::pin::pin!(stream);
        loop {
            let event = match tokio::time::timeout(WATCH_DEAD, stream.next()).await {
                Ok(Some(event)) => event,
                // The regular end: go on from where it was.
                Ok(None) if began.elapsed() > SOUND => break,
                Ok(None) => return Ended::Gone,
                Err(_) => return Ended::Gone,
            };
            match event.map(|event| seen(event, &mut version)) {
                Ok(Some(seen)) => on(seen),
                // 410 Gone and its like.
                Ok(None) => return Ended::Gone,
                Err(error) => return Ended::Failed(failed(doing, &error).into_held(doing)),
            }
        }
    }
}

/// What an event tells, and the version to go on from. `None`: the watch cannot go on.
fn seen<K: ResourceExt + Clone>(event: WatchEvent<K>, version: &mut String) -> Option<Seen<K>> {
    match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => {
            *version = object.resource_version().unwrap_or_default();
            Some(Seen::Present(object))
        }
        WatchEvent::Deleted(object) => {
            *version = object.resource_version().unwrap_or_default();
            Some(Seen::Absent(version.clone()))
        }
        WatchEvent::Bookmark(bookmark) => {
            *version = bookmark.metadata.resource_version;
            Some(Seen::Alive)
        }
        WatchEvent::Error(_) => None,
    }
}

//! The objects, and what happened to them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;

/// Where versions begin: those before were compacted away, as in any cluster that has run for a while.
const FIRST: u64 = 100;

/// So many changes are remembered for watches and for lists that go on.
const HISTORY: usize = 20_000;

/// An object's place, in the order of lists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) plural: &'static str,
    /// Empty for an object of the cluster.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// Something that happened to an object.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) version: u64,
    pub(crate) key: Key,
    pub(crate) old: Option<Arc<Value>>,
    /// None: it was deleted.
    pub(crate) new: Option<Arc<Value>>,
}

/// The version asked for is not remembered any more; this is the oldest that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooOld(pub(crate) u64);

/// Why a write was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stale {
    Exists,
    Gone,
    Changed,
}

/// All objects of a cluster.
#[derive(Debug)]
pub(crate) struct Store {
    objects: BTreeMap<Key, Arc<Value>>,
    history: VecDeque<Change>,
    version: u64,
    /// Changes after this one are remembered.
    compacted: u64,
    /// What the ConfigMap `kube-root-ca.crt` of every namespace holds.
    pub(crate) ca_pem: String,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            version: FIRST,
            compacted: FIRST,
            ca_pem: String::new(),
        }
    }
}

impl Store {
    /// The version of the last change.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.objects.get(key).cloned()
    }

    /// The objects of a resource, in one namespace or all.
    pub(crate) fn list(&self, plural: &'static str, namespace: Option<&str>) -> Vec<Arc<Value>> {
        self.keyed(plural, namespace).map(|(_, object)| Arc::clone(object)).collect()
    }

    fn keyed(&self, plural: &'static str, namespace: Option<&str>) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        let from = Key { plural, namespace: namespace.unwrap_or_default().to_owned(), name: String::new() };
        let namespace = namespace.map(ToOwned::to_owned);
        self.objects.range(from..).take_while(move |(key, _)| {
            key.plural == plural && namespace.as_ref().is_none_or(|namespace| key.namespace == *namespace)
        })
    }

    /// The keys of everything in a namespace.
    pub(crate) fn contents(&self, namespace: &str) -> Vec<Key> {
        self.objects.keys().filter(|key| key.namespace == namespace).cloned().collect()
    }

    /// The objects of a resource as they were at a version.
    ///
    /// # Errors
    /// That it is not remembered.
    pub(crate) fn list_at(
        &self,
        version: u64,
        plural: &'static str,
        namespace: Option<&str>,
    ) -> Result<Vec<(Key, Arc<Value>)>, TooOld> {
        let mut then: BTreeMap<Key, Arc<Value>> =
            self.keyed(plural, namespace).map(|(key, object)| (key.clone(), Arc::clone(object))).collect();
        for change in self.since(version)?.iter().rev() {
            if change.key.plural != plural || namespace.is_some_and(|namespace| change.key.namespace != namespace) {
                continue;
            }
            match &change.old {
                Some(old) => then.insert(change.key.clone(), Arc::clone(old)),
                None => then.remove(&change.key),
            };
        }
        Ok(then.into_iter().collect())
    }

    /// What happened after a version.
    ///
    /// # Errors
    /// That not all of it is remembered.
    pub(crate) fn since(&self, version: u64) -> Result<Vec<Change>, TooOld> {
        if version < self.compacted {
            return Err(TooOld(self.compacted));
        }
        let seen = self.history.partition_point(|change| change.version <= version);
        Ok(self.history.range(seen..).cloned().collect())
    }

    /// Forgets what happened until now.
    pub(crate) fn compact(&mut self) {
        self.history.clear();
        self.compacted = self.version;
    }

    /// Stores a new object.
    pub(crate) fn create(&mut self, key: Key, object: Value) -> Result<Arc<Value>, Stale> {
        match self.objects.contains_key(&key) {
            true => Err(Stale::Exists),
            false => Ok(self.put(key, object)),
        }
    }

    /// Stores an object over the version that it was made from.
    pub(crate) fn replace(&mut self, key: Key, over: &Value, object: Value) -> Result<Arc<Value>, Stale> {
        self.is_still(&key, over)?;
        Ok(self.put(key, object))
    }

    /// Removes an object if it is still the one that was read, and returns its last state, with the version of its end.
    pub(crate) fn remove(&mut self, key: Key, over: &Value) -> Result<Arc<Value>, Stale> {
        self.is_still(&key, over)?;
        let old = self.objects.remove(&key).ok_or(Stale::Gone)?;
        self.version += 1;
        let mut last = (*old).clone();
        last["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.remember(Change { version: self.version, key, old: Some(old), new: None });
        Ok(Arc::new(last))
    }

    fn is_still(&self, key: &Key, over: &Value) -> Result<(), Stale> {
        let now = self.objects.get(key).ok_or(Stale::Gone)?;
        let same = |field: &str| now["metadata"][field] == over["metadata"][field];
        if !same("uid") {
            return Err(Stale::Gone);
        }
        if same("resourceVersion") { Ok(()) } else { Err(Stale::Changed) }
    }

    fn put(&mut self, key: Key, mut object: Value) -> Arc<Value> {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let new = Arc::new(object);
        let old = self.objects.insert(key.clone(), Arc::clone(&new));
        self.remember(Change { version: self.version, key, old, new: Some(Arc::clone(&new)) });
        new
    }

    fn remember(&mut self, change: Change) {
        self.history.push_back(change);
        if self.history.len() > HISTORY
            && let Some(forgotten) = self.history.pop_front()
        {
            self.compacted = forgotten.version;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn key(namespace: &str, name: &str) -> Key {
        Key { plural: "secrets", namespace: namespace.to_owned(), name: name.to_owned() }
    }

    fn object(uid: u8) -> Value {
        json!({"metadata": {"uid": uid}})
    }

    #[test]
    fn a_write_is_decided_on_the_version_that_was_read() {
        let mut store = Store::default();
        let first = store.create(key("a", "x"), object(1)).unwrap();
        assert_eq!(store.create(key("a", "x"), object(2)), Err(Stale::Exists));
        let second = store.replace(key("a", "x"), &first, (*first).clone()).unwrap();
        assert_eq!(store.replace(key("a", "x"), &first, (*first).clone()), Err(Stale::Changed));
        assert_eq!(store.remove(key("a", "x"), &first), Err(Stale::Changed));
        store.remove(key("a", "x"), &second).unwrap();
        assert_eq!(store.replace(key("a", "x"), &second, (*second).clone()), Err(Stale::Gone));
        store.create(key("a", "x"), object(2)).unwrap();
        assert_eq!(store.remove(key("a", "x"), &second), Err(Stale::Gone));
    }

    #[test]
    fn a_list_is_of_one_namespace_or_all_and_in_order() {
        let mut store = Store::default();
        for (namespace, name) in [("b", "y"), ("a", "z"), ("b", "x"), ("bb", "x")] {
            store.create(key(namespace, name), json!({"metadata": {"name": format!("{namespace}/{name}")}})).unwrap();
        }
        let names = |namespace| -> Vec<String> {
            let objects = store.list("secrets", namespace);
            objects.iter().map(|object| object["metadata"]["name"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names(None), ["a/z", "b/x", "b/y", "bb/x"]);
        assert_eq!(names(Some("b")), ["b/x", "b/y"]);
        assert!(store.list("pods", None).is_empty());
    }

    #[test]
    fn the_past_is_remembered_until_it_is_compacted() {
        let mut store = Store::default();
        let x = store.create(key("a", "x"), object(1)).unwrap();
        let then = store.version();
        store.create(key("a", "y"), object(2)).unwrap();
        store.remove(key("a", "x"), &x).unwrap();
        let listed = store.list_at(then, "secrets", Some("a")).unwrap();
        assert_eq!(listed, [(key("a", "x"), x)]);
        assert_eq!(store.since(then).unwrap().len(), 2);
        store.compact();
        assert_eq!(store.since(then).unwrap_err(), TooOld(store.version()));
        assert!(store.since(store.version()).unwrap().is_empty());
    }
}

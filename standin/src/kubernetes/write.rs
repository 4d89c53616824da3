//! Create, update, patch and delete: each decided on a version of the object that was read, and done only over that.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::admission::{self, Attempt, Webhooks};
use super::object::{has_finalizers, meta, remove, set_meta};
use super::options::Options;
use super::refusal::Refusal;
use super::server::{Call, Core};
use super::store::{Key, Stale, Store};
use super::{body, kinds, managed, namespaces, patch, validate};
use crate::wire::Answer;

/// So often a patch is made anew over an object that changed meanwhile, as in
/// `k8s.io/apiserver/pkg/endpoints/handlers/patch.go`.
const PATCH_TRIES: usize = 5;

/// What came of a change.
pub(crate) struct Written {
    pub(crate) object: Value,
    pub(crate) warnings: Vec<String>,
    created: bool,
}

/// What came of a deletion, with the object's last state.
pub(crate) enum Ended {
    Gone(Value),
    /// It waits for its finalizers.
    Dying(Value),
}

impl Core {
    pub(crate) async fn create(&self, call: &Call<'_>) -> Result<Answer, Refusal> {
        let options = Options::of(call)?;
        let object = body::object(call)?;
        let written = self.create_object(call, &options, object, None).await?;
        Ok(answered(call, &written))
    }

    /// Creates an object, by a POST or by an apply of one that is not there.
    async fn create_object(
        &self,
        call: &Call<'_>,
        options: &Options,
        mut object: Value,
        applied: Option<&Value>,
    ) -> Result<Written, Refusal> {
        let resource = call.resource;
        let labels = self.namespace_labels(call, Some(&object))?;
        kinds::begin(resource, &mut object)?;
        object = match applied {
            Some(applied) => managed::created_by_apply(call, options, applied, object),
            None => managed::created(call, options, object),
        };
        name(&mut object)?;
        let named = meta(&object, "name").to_owned();
        set_meta(&mut object, "uid", super::uid()?);
        set_meta(&mut object, "creationTimestamp", super::seconds(super::now().as_second()));
        self.has_account(call, &object)?;
        kinds::complete(resource, &mut object, &suffix()?);
        let (object, warnings) = self.admit(call, options, "CREATE", (&named, labels), (Some(object), None)).await?;
        let object = object.unwrap_or_default();
        validate::check(resource, &object, None)?;
        let key = call.key_of(meta(&object, "name"));
        if options.dry_run {
            return match self.store().get(&key) {
                Some(_) => Err(Refusal::already_exists(resource, &key.name)),
                None => Ok(Written { object, warnings, created: true }),
            };
        }
        let stored = self.state.write(|store| {
            // While the webhooks were asked, it may have gone.
            namespaces::is_there(store, &key.namespace)?;
            let stored = store.create(key.clone(), object).map_err(|stale: Stale| refused(stale, call, &key.name))?;
            if resource.plural == "namespaces" {
                namespaces::furnish(store, &key.name);
            }
            Ok(stored)
        })?;
        Ok(Written { object: (*stored).clone(), warnings, created: true })
    }

    /// The plugin ServiceAccount lets no pod in without its account.
    fn has_account(&self, call: &Call<'_>, object: &Value) -> Result<(), Refusal> {
        if call.resource.plural != "pods" {
            return Ok(());
        }
        let namespace = call.ask.namespace.clone();
        let name = object["spec"]["serviceAccountName"].as_str().unwrap_or("default").to_owned();
        let key = Key { plural: "serviceaccounts", namespace: namespace.clone(), name: name.clone() };
        if self.store().get(&key).is_some() {
            return Ok(());
        }
        let why = format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
        Err(Refusal::forbidden(call.resource, meta(object, "name"), &why))
    }

    /// Update, patch and apply, of the object or of its status.
    pub(crate) async fn change(&self, call: &Call<'_>) -> Result<Answer, Refusal> {
        let options = Options::of(call)?;
        let change = patch::Change::of(call)?;
        for _ in 0..PATCH_TRIES {
            let Some(old) = self.store().get(&call.key()) else {
                let Some(object) = change.creates(call)? else {
                    return Err(Refusal::not_found(call.resource, &call.ask.name));
                };
                let written = self.create_object(call, &options, object, change.applied()).await?;
                return Ok(answered(call, &written));
            };
            match self.change_object(call, &options, &change, &old).await {
                Ok(Some(written)) => return Ok(answered(call, &written)),
                Ok(None) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Err(Refusal::modified(call.resource, &call.ask.name))
    }

    /// None: the object changed meanwhile, and the change did not say over which version it is to be made.
    async fn change_object(
        &self,
        call: &Call<'_>,
        options: &Options,
        change: &patch::Change,
        old: &Arc<Value>,
    ) -> Result<Option<Written>, Refusal> {
        let resource = call.resource;
        let sent = change.made(call, options, old)?;
        let asked = meta(&sent, "resourceVersion").to_owned();
        let mut new = kinds::succeed(resource, &call.ask.subresource, sent, old);
        if !matches!(change, patch::Change::Apply(_)) {
            new = managed::changed(call, options, new, old);
        }
        if !asked.is_empty() && asked != meta(old, "resourceVersion") {
            return Err(Refusal::modified(resource, &call.ask.name));
        }
        change.keeps_uid(call, &new, old)?;
        let labels = self.namespace_labels(call, None)?;
        let objects = (Some(new), Some((**old).clone()));
        let (new, warnings) = self.admit(call, options, "UPDATE", (&call.ask.name, labels), objects).await?;
        let new = new.unwrap_or_default();
        validate::check(resource, &new, Some(old))?;
        if same(&new, old) {
            return Ok(Some(Written { object: (**old).clone(), warnings, created: false }));
        }
        if options.dry_run {
            return Ok(Some(Written { object: new, warnings, created: false }));
        }
        match self.state.write(|store| put(store, call.key(), old, new)) {
            Ok(stored) => Ok(Some(Written { object: (*stored).clone(), warnings, created: false })),
            Err(Stale::Changed) if !change.pins_version() => Ok(None),
            Err(stale) => Err(refused(stale, call, &call.ask.name)),
        }
    }

    /// Asks the webhooks.
    async fn admit(
        &self,
        call: &Call<'_>,
        options: &Options,
        operation: &'static str,
        (name, namespace_labels): (&str, Map<String, Value>),
        (object, old): (Option<Value>, Option<Value>),
    ) -> Result<(Option<Value>, Vec<String>), Refusal> {
        let resource = call.resource;
        if !kinds::is_admitted(resource) {
            return Ok((object, Vec::new()));
        }
        let about = object.as_ref().or(old.as_ref());
        let (namespace, namespace_labels) = surroundings(call, name, about, namespace_labels);
        let attempt = Attempt {
            operation,
            group: resource.group,
            version: resource.version,
            plural: resource.plural,
            kind: resource.kind,
            namespaced: resource.namespaced,
            subresource: Some(call.ask.subresource.as_str()).filter(|subresource| !subresource.is_empty()),
            namespace: Some(namespace).filter(|namespace| !namespace.is_empty()),
            namespace_labels,
            name,
            object,
            old,
            user: call.user.info(),
            dry_run: options.dry_run,
            options: options.as_sent(operation),
        };
        let configurations = |plural| self.store().list(plural, None).iter().map(|c| (**c).clone()).collect();
        let webhooks = Webhooks {
            mutating: configurations("mutatingwebhookconfigurations"),
            validating: configurations("validatingwebhookconfigurations"),
            services: configurations("services"),
        };
        let admitted = admission::admit(&webhooks, attempt).await?;
        Ok((admitted.object, admitted.warnings))
    }

    /// The labels of the namespace that the request is about, which has to be there for this new object.
    fn namespace_labels(&self, call: &Call<'_>, new: Option<&Value>) -> Result<Map<String, Value>, Refusal> {
        if !call.resource.namespaced {
            return Ok(Map::new());
        }
        let name = call.ask.namespace.clone();
        let key = Key { plural: "namespaces", namespace: String::new(), name: name.clone() };
        let namespace = self.store().get(&key);
        if let Some(new) = new {
            let namespace = namespace.as_ref().ok_or_else(|| namespaces::not_found(&name))?;
            namespaces::takes(call.resource, meta(new, "name"), namespace)?;
        }
        Ok(namespace.and_then(|namespace| namespace["metadata"]["labels"].as_object().cloned()).unwrap_or_default())
    }

    pub(crate) async fn delete(&self, call: &Call<'_>) -> Result<Answer, Refusal> {
        let options = Options::of(call)?;
        let deletion = body::deletion(call)?;
        for _ in 0..PATCH_TRIES {
            let old = self.store().get(&call.key());
            let old = old.ok_or_else(|| Refusal::not_found(call.resource, &call.ask.name))?;
            if let Some(last) = self.delete_object(call, &options, &deletion, &old).await? {
                return Ok(call.object(200, &kinds::deleted(call.resource, last)));
            }
        }
        Err(Refusal::modified(call.resource, &call.ask.name))
    }

    pub(crate) async fn delete_collection(&self, call: &Call<'_>) -> Result<Answer, Refusal> {
        let options = Options::of(call)?;
        let deletion = body::deletion(call)?;
        let selector = super::read::selector(call)?;
        let objects = self.store().list(call.resource.plural, call.within());
        let objects: Vec<_> = objects.into_iter().filter(|object| selector.matches(object)).collect();
        for old in &objects {
            let name = meta(old, "name").to_owned();
            let ask = super::route::Ask { name, ..call.ask.clone() };
            let one = Call { request: call.request, ask, resource: call.resource, user: call.user.clone() };
            // One that is gone or changed meanwhile is no longer what was asked about.
            self.delete_object(&one, &options, &deletion, old).await?;
        }
        let items = objects.iter().map(|object| super::read::item(call.resource, object)).collect();
        let metadata = json!({"resourceVersion": self.store().version().to_string()});
        Ok(call.object(200, &super::read::list(call.resource, metadata, items)))
    }

    /// None: it changed meanwhile.
    async fn delete_object(
        &self,
        call: &Call<'_>,
        options: &Options,
        deletion: &body::Deletion,
        old: &Arc<Value>,
    ) -> Result<Option<Ended>, Refusal> {
        if call.resource.plural == "namespaces" {
            namespaces::may_be_deleted(call.resource, &call.ask.name)?;
        }
        deletion.preconditions(call, old)?;
        let labels = self.namespace_labels(call, None)?;
        let objects = (None, Some((**old).clone()));
        self.admit(call, options, "DELETE", (&call.ask.name, labels), objects).await?;
        if options.dry_run {
            return Ok(Some(Ended::Gone((**old).clone())));
        }
        let key = call.key();
        let finalized = deletion.finalized(old);
        match self.state.write(|store| end(store, &key, old, finalized)) {
            Ok(last) => Ok(Some(last)),
            Err(Stale::Changed) => Ok(None),
            Err(stale) => Err(refused(stale, call, &key.name)),
        }
    }
}

/// The namespace that an object is in, with its labels. A namespace is in itself.
fn surroundings<'a>(
    call: &'a Call<'_>,
    name: &'a str,
    object: Option<&Value>,
    labels: Map<String, Value>,
) -> (&'a str, Map<String, Value>) {
    if call.resource.plural != "namespaces" {
        return (call.ask.namespace.as_str(), labels);
    }
    let own = object.and_then(|object| object["metadata"]["labels"].as_object().cloned());
    (name, own.unwrap_or_default())
}

/// Removes an object, or marks it as deleted while it has finalizers.
fn end(store: &mut Store, key: &Key, old: &Arc<Value>, finalized: Value) -> Result<Ended, Stale> {
    if key.plural == "namespaces" {
        return namespaces::delete(store, &key.name, old).map(Ended::Dying);
    }
    let dying = dying(finalized.clone());
    if has_finalizers(&finalized) {
        let kept = if same(&dying, old) { Arc::clone(old) } else { store.replace(key.clone(), old, dying)? };
        return Ok(Ended::Dying((*kept).clone()));
    }
    // A pod is marked also when it goes at once.
    let last = if key.plural == "pods" { store.replace(key.clone(), old, dying)? } else { Arc::clone(old) };
    let gone = store.remove(key.clone(), &last)?;
    namespaces::finish(store, &key.namespace);
    namespaces::refurnish(store, key);
    Ok(Ended::Gone((*gone).clone()))
}

/// Marked as deleted, once.
pub(crate) fn dying(mut object: Value) -> Value {
    if object["metadata"]["deletionTimestamp"].is_null() {
        set_meta(&mut object, "deletionTimestamp", super::seconds(super::now().as_second()));
        set_meta(&mut object, "deletionGracePeriodSeconds", 0);
        if let Some(generation) = object["metadata"]["generation"].as_u64() {
            set_meta(&mut object, "generation", generation + 1);
        }
    }
    object
}

/// A deleted object goes with its last finalizer.
fn put(store: &mut Store, key: Key, old: &Value, new: Value) -> Result<Arc<Value>, Stale> {
    if new["metadata"]["deletionTimestamp"].is_null() || has_finalizers(&new) {
        return store.replace(key, old, new);
    }
    let namespace = key.namespace.clone();
    store.remove(key, old)?;
    namespaces::finish(store, &namespace);
    Ok(Arc::new(new))
}

/// Whether two states differ only in their versions.
fn same(new: &Value, old: &Value) -> bool {
    let bare = |object: &Value| {
        let mut object = object.clone();
        remove(&mut object["metadata"], "resourceVersion");
        object
    };
    bare(new) == bare(old)
}

/// Names an object that leaves its name to the server: five letters without vowels, as
/// `k8s.io/apiserver/pkg/storage/names` makes them.
fn name(object: &mut Value) -> Result<(), Refusal> {
    const LONGEST: usize = 58;
    let prefix: String = meta(object, "generateName").chars().take(LONGEST).collect();
    if meta(object, "name").is_empty() && !prefix.is_empty() {
        set_meta(object, "name", prefix + &suffix()?);
    }
    Ok(())
}

fn suffix() -> Result<String, Refusal> {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    const LENGTH: usize = 5;
    let random = crate::wire::random_hex(LENGTH).map_err(Refusal::internal)?;
    let byte = |at: usize| u8::from_str_radix(random.get(2 * at..2 * at + 2)?, 16).ok();
    let letter = |at| Some(char::from(LETTERS[usize::from(byte(at)?) % LETTERS.len()]));
    Ok((0..LENGTH).filter_map(letter).collect())
}

fn refused(stale: Stale, call: &Call<'_>, name: &str) -> Refusal {
    match stale {
        Stale::Exists => Refusal::already_exists(call.resource, name),
        Stale::Gone => Refusal::not_found(call.resource, name),
        Stale::Changed => Refusal::modified(call.resource, name),
    }
}

fn answered(call: &Call<'_>, written: &Written) -> Answer {
    let mut answer = call.object(if written.created { 201 } else { 200 }, &written.object);
    super::server::warn(&mut answer, &written.warnings);
    answer
}

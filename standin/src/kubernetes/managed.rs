//! Who owns which field of an object, and server-side apply.
//!
//! As `merge.Updater` of `sigs.k8s.io/structured-merge-diff` and `k8s.io/apimachinery/pkg/util/managedfields` do it.

use serde_json::{Value, json};

use super::fields::{Difference, Fields};
use super::object::{remove, set_meta};
use super::options::Options;
use super::refusal::Refusal;
use super::resources::Resource;
use super::schema::{part_mut, parts, shape, take_out};
use super::server::Call;

/// Fields that nobody owns.
const UNOWNED: [&[&str]; 10] = [
    &["f:apiVersion"],
    &["f:kind"],
    &["f:metadata", "f:name"],
    &["f:metadata", "f:namespace"],
    &["f:metadata", "f:creationTimestamp"],
    &["f:metadata", "f:uid"],
    &["f:metadata", "f:generation"],
    &["f:metadata", "f:managedFields"],
    &["f:metadata", "f:resourceVersion"],
    &["f:metadata", "f:selfLink"],
];

/// What is there in any object of its kind, if only empty, so that nobody added it.
const GIVEN: [&[&str]; 16] = [
    &["spec"],
    &["spec", "containers"],
    &["spec", "strategy"],
    &["spec", "updateStrategy"],
    &["spec", "template"],
    &["spec", "template", "metadata"],
    &["spec", "template", "spec"],
    &["spec", "template", "spec", "containers"],
    &["spec", "serviceName"],
    &["status"],
    &["source"],
    &["firstTimestamp"],
    &["lastTimestamp"],
    &["eventTime"],
    &["reportingComponent"],
    &["reportingInstance"],
];

/// Somebody who owns fields, and which.
#[derive(Clone, Debug, PartialEq)]
struct Manager {
    name: String,
    is_apply: bool,
    api_version: String,
    time: String,
    subresource: String,
    fields: Fields,
}

impl Manager {
    fn parse(entry: &Value) -> Self {
        let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        Self {
            name: text("manager"),
            is_apply: entry["operation"] == "Apply",
            api_version: text("apiVersion"),
            time: text("time"),
            subresource: text("subresource"),
            fields: Fields::parse(&entry["fieldsV1"]),
        }
    }

    fn to_json(&self) -> Value {
        let mut entry = json!({
            "manager": self.name,
            "operation": if self.is_apply { "Apply" } else { "Update" },
            "apiVersion": self.api_version,
            "time": self.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.to_json(),
        });
        if !self.subresource.is_empty() {
            entry["subresource"] = self.subresource.clone().into();
        }
        entry
    }

    fn is_same(&self, other: &Self) -> bool {
        let key = |m: &Self| (m.name.clone(), m.is_apply, m.api_version.clone(), m.subresource.clone());
        key(self) == key(other)
    }

    /// As a conflict tells of it.
    fn shown(&self) -> String {
        let mut shown = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            shown += &format!(" with subresource {:?}", self.subresource);
        }
        if !self.is_apply {
            shown += &format!(" using {}", self.api_version);
        }
        shown
    }
}

fn managers(object: &Value) -> Vec<Manager> {
    object["metadata"]["managedFields"].as_array().into_iter().flatten().map(Manager::parse).collect()
}

fn store(object: &mut Value, mut managers: Vec<Manager>) {
    managers.retain(|manager| !manager.fields.is_empty());
    managers
        .sort_by_key(|m| (!m.is_apply, m.time.clone(), m.name.clone(), m.api_version.clone(), m.subresource.clone()));
    if managers.is_empty() {
        remove(&mut object["metadata"], "managedFields");
    } else {
        set_meta(object, "managedFields", managers.iter().map(Manager::to_json).collect::<Vec<_>>());
    }
}

/// Who makes the change of a call.
fn author(call: &Call<'_>, options: &Options, is_apply: bool) -> Manager {
    Manager {
        name: options.manager.clone(),
        is_apply,
        api_version: call.resource.api_version(),
        time: super::seconds(super::now().as_second()),
        subresource: call.ask.subresource.clone(),
        fields: Fields::default(),
    }
}

fn owned(fields: Fields) -> Fields {
    UNOWNED.iter().fold(fields, |fields, path| fields.without(path)).minus(&Fields::parse(&json!({"f:metadata": {}})))
}

/// A new object, all of whose fields are its author's.
pub(crate) fn created(call: &Call<'_>, options: &Options, object: Value) -> Value {
    let old = if call.resource.is_custom() { json!({"metadata": {}}) } else { given(&object) };
    updated(call.resource, author(call, options, false), object, &old)
}

/// An object by an apply where there was none.
pub(crate) fn created_by_apply(call: &Call<'_>, options: &Options, applied: &Value, mut object: Value) -> Value {
    let mut author = author(call, options, true);
    author.fields = applied_fields(call, applied);
    store(&mut object, vec![author]);
    object
}

fn applied_fields(call: &Call<'_>, applied: &Value) -> Fields {
    let fields = owned(Fields::of(call.resource, "", applied));
    match call.ask.subresource.as_str() {
        "status" => fields.without(&["f:spec"]),
        _ if call.resource.has_status() => fields.without(&["f:status"]),
        _ => fields,
    }
}

fn given(object: &Value) -> Value {
    let mut given = json!({"metadata": {}});
    for path in GIVEN {
        let found = path.iter().try_fold(object, |value, field| value.get(field));
        let empty = match found {
            Some(Value::Object(_)) => json!({}),
            Some(Value::Array(_)) => json!([]),
            Some(Value::String(_)) => json!(""),
            Some(Value::Null) => Value::Null,
            _ => continue,
        };
        let at = path.iter().fold(&mut given, |value, field| &mut value[*field]);
        *at = empty;
    }
    given
}

/// An object after an update or a patch: what changed is its author's.
pub(crate) fn changed(call: &Call<'_>, options: &Options, new: Value, old: &Value) -> Value {
    updated(call.resource, author(call, options, false), new, old)
}

fn updated(resource: &Resource, mut author: Manager, mut new: Value, old: &Value) -> Value {
    let difference = Difference::between(resource, "", Some(old), Some(&new));
    let set = owned(difference.set);
    let mut managers = managers(old);
    if !set.is_empty() || !difference.removed.is_empty() {
        for manager in managers.iter_mut().filter(|manager| !manager.is_same(&author)) {
            manager.fields = manager.fields.minus(&set).minus(&difference.removed);
        }
        let own = managers.iter().position(|manager| manager.is_same(&author)).map(|at| managers.remove(at));
        let before = own.as_ref().map(|own| own.fields.clone()).unwrap_or_default();
        author.fields = before.union(&set).minus(&difference.removed);
        if let Some(own) = own.filter(|own| own.fields == author.fields) {
            author.time = own.time;
        }
        managers.push(author);
    }
    store(&mut new, managers);
    new
}

/// An object after an apply.
///
/// # Errors
/// The conflicts with others who own what the apply would change.
pub(crate) fn applied(call: &Call<'_>, options: &Options, applied: &Value, old: &Value) -> Result<Value, Refusal> {
    let resource = call.resource;
    let mut author = author(call, options, true);
    author.fields = applied_fields(call, applied);
    let mut managers = managers(old);
    let own = managers.iter().position(|manager| manager.is_same(&author)).map(|at| managers.remove(at));
    let mut new = old.clone();
    merge(resource, "", &mut new, applied);
    if let Some(own) = &own {
        let still = managers.iter().fold(author.fields.clone(), |all, manager| all.union(&manager.fields));
        prune(resource, "", &mut new, &own.fields, &still);
    }
    let difference = Difference::between(resource, "", Some(old), Some(&new));
    let set = owned(difference.set);
    if !options.force {
        conflicts(&managers, &set)?;
    }
    for manager in &mut managers {
        manager.fields = manager.fields.minus(&set).minus(&difference.removed);
    }
    if let Some(own) = own.filter(|own| own.fields == author.fields && set.is_empty()) {
        author.time = own.time;
    }
    managers.push(author);
    store(&mut new, managers);
    Ok(new)
}

fn conflicts(managers: &[Manager], set: &Fields) -> Result<(), Refusal> {
    let conflicts: Vec<(String, Vec<String>)> = managers
        .iter()
        .map(|manager| (manager.shown(), manager.fields.both(set).paths()))
        .filter(|(_, paths)| !paths.is_empty())
        .collect();
    let count: usize = conflicts.iter().map(|(_, paths)| paths.len()).sum();
    let causes = conflicts.iter().flat_map(|(manager, paths)| {
        let message = format!("conflict with {manager}");
        paths.iter().map(move |path| json!({"reason": "FieldManagerConflict", "message": message, "field": path}))
    });
    let text = match conflicts.as_slice() {
        [] => return Ok(()),
        [(manager, paths)] if paths.len() == 1 => format!("1 conflict: conflict with {manager}: {}", paths.concat()),
        several => {
            let lists: Vec<String> = several
                .iter()
                .map(|(manager, paths)| format!("conflicts with {manager}:\n- {}", paths.join("\n- ")))
                .collect();
            format!("{count} conflicts: {}", lists.join("\n"))
        }
    };
    let details = json!({"causes": causes.collect::<Vec<_>>()});
    Err(Refusal::new(409, "Conflict", format!("Apply failed with {text}"), Some(details)))
}

/// Puts what is applied over what is there.
fn merge(resource: &Resource, field: &str, old: &mut Value, applied: &Value) {
    let same_shape = shape(resource, field, old) == shape(resource, field, applied);
    let (true, Some(parts)) = (same_shape, parts(resource, field, applied)) else {
        *old = applied.clone();
        return;
    };
    for (name, value, _) in parts {
        if let Some((there, field)) = part_mut(resource, field, old, &name) {
            merge(resource, &field, there, value);
            continue;
        }
        match old {
            Value::Object(map) => drop(map.insert(name.trim_start_matches("f:").to_owned(), value.clone())),
            Value::Array(items) => items.push(value.clone()),
            _ => {}
        }
    }
}

/// Removes what its manager owned, no longer applies, and nobody else owns.
fn prune(resource: &Resource, field: &str, value: &mut Value, before: &Fields, still: &Fields) {
    for (name, before) in &before.below {
        let nothing = Fields::default();
        let still = still.below.get(name).unwrap_or(&nothing);
        if before.here && still.is_empty() {
            take_out(resource, field, value, name);
        } else if let Some((part, field)) = part_mut(resource, field, value, name) {
            prune(resource, &field, part, before, still);
        }
    }
}

//! Sets of fields: `fieldsV1` of `managedFields`.
//!
//! They behave as those of `sigs.k8s.io/structured-merge-diff`: a path may be in the set without its parts, and its
//! parts without it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::resources::Resource;
use super::schema::parts;

/// A set of fields below one field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    /// Whether that field itself is in the set.
    pub(crate) here: bool,
    pub(crate) below: BTreeMap<String, Fields>,
}

impl Fields {
    pub(crate) fn is_empty(&self) -> bool {
        !self.here && self.below.values().all(Self::is_empty)
    }

    pub(crate) fn parse(json: &Value) -> Self {
        let mut fields = Self::default();
        for (name, below) in json.as_object().into_iter().flatten() {
            if name == "." {
                fields.here = true;
                continue;
            }
            let mut below_it = Self::parse(below);
            // One with nothing below it is a field.
            below_it.here |= below_it.below.is_empty();
            fields.below.insert(name.clone(), below_it);
        }
        fields
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut json = Map::new();
        for (name, below) in self.below.iter().filter(|(_, below)| !below.is_empty()) {
            let mut value = below.to_json();
            if below.here && value.as_object().is_some_and(|fields| !fields.is_empty()) {
                value["."] = Value::Object(Map::new());
            }
            json.insert(name.clone(), value);
        }
        Value::Object(json)
    }

    /// The fields that a value sets, as an apply owns them.
    pub(crate) fn of(resource: &Resource, field: &str, value: &Value) -> Self {
        let Some(parts) = parts(resource, field, value) else { return Self { here: true, ..Self::default() } };
        let mut fields = Self::default();
        for (name, part, field) in parts {
            let mut below = Self::of(resource, &field, part);
            let is_empty_map = part.as_object().is_some_and(Map::is_empty);
            below.here |= is_empty_map || !name.starts_with("f:");
            fields.below.insert(name, below);
        }
        fields
    }

    #[must_use]
    pub(crate) fn union(mut self, other: &Self) -> Self {
        self.here |= other.here;
        for (name, theirs) in &other.below {
            let ours = self.below.remove(name).unwrap_or_default();
            self.below.insert(name.clone(), ours.union(theirs));
        }
        self
    }

    #[must_use]
    pub(crate) fn minus(&self, other: &Self) -> Self {
        let below = self.below.iter().map(|(name, ours)| match other.below.get(name) {
            Some(theirs) => (name.clone(), ours.minus(theirs)),
            None => (name.clone(), ours.clone()),
        });
        Self { here: self.here && !other.here, below: below.filter(|(_, below)| !below.is_empty()).collect() }
    }

    pub(crate) fn both(&self, other: &Self) -> Self {
        let below =
            self.below.iter().filter_map(|(name, ours)| Some((name.clone(), ours.both(other.below.get(name)?))));
        Self { here: self.here && other.here, below: below.filter(|(_, below)| !below.is_empty()).collect() }
    }

    /// Without a field and all below it.
    #[must_use]
    pub(crate) fn without(mut self, path: &[&str]) -> Self {
        match path {
            [] => return Self::default(),
            [last] => drop(self.below.remove(*last)),
            [first, rest @ ..] => {
                if let Some(below) = self.below.remove(*first) {
                    self.below.insert((*first).to_owned(), below.without(rest));
                }
            }
        }
        self
    }

    /// Each field's path, as a conflict tells it: `.data.k`, `.spec.containers[name="c"].image`.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect(String::new(), &mut paths);
        paths
    }

    fn collect(&self, path: String, paths: &mut Vec<String>) {
        if self.here {
            paths.push(path.clone());
        }
        for (name, below) in &self.below {
            below.collect(format!("{path}{}", shown(name)), paths);
        }
    }
}

fn shown(name: &str) -> String {
    match name.split_once(':') {
        Some(("k", key)) => {
            let key: Map<String, Value> = serde_json::from_str(key).unwrap_or_default();
            let parts: Vec<String> = key.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("[{}]", parts.join(","))
        }
        Some(("v", value)) => format!("[={value}]"),
        Some((_, name)) => format!(".{name}"),
        None => name.to_owned(),
    }
}

/// What is different between two values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Difference {
    /// Added or modified.
    pub(crate) set: Fields,
    pub(crate) removed: Fields,
}

impl Difference {
    /// Of a field from an old to a new value.
    pub(crate) fn between(resource: &Resource, field: &str, old: Option<&Value>, new: Option<&Value>) -> Self {
        let mut difference = Self::default();
        let old_parts = old.and_then(|old| parts(resource, field, old));
        let new_parts = new.and_then(|new| parts(resource, field, new));
        match (old, new) {
            (None, Some(_)) => difference.set.here = true,
            (Some(_), None) => difference.removed.here = true,
            (Some(old), Some(new)) if old_parts.is_none() || new_parts.is_none() => difference.set.here = old != new,
            _ => {}
        }
        let (old_parts, new_parts) = (old_parts.unwrap_or_default(), new_parts.unwrap_or_default());
        let names: BTreeSet<&String> = old_parts.iter().chain(&new_parts).map(|(name, ..)| name).collect();
        for name in names {
            let old = old_parts.iter().find(|(other, ..)| other == name);
            let new = new_parts.iter().find(|(other, ..)| other == name);
            let field = old.or(new).map(|(_, _, field)| field.as_str()).unwrap_or_default();
            let below =
                Self::between(resource, field, old.map(|(_, value, _)| *value), new.map(|(_, value, _)| *value));
            difference.set.below.insert(name.clone(), below.set);
            difference.removed.below.insert(name.clone(), below.removed);
        }
        difference
    }
}

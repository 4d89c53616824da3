//! KV version 2. What it does is in the documentation of its API, *KV secrets engine - version 2 (API)*.

mod metadata;
mod versions;

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::asked::{Asked, Operation};
use super::fields;
use super::reply::{Refusal, Said};
use versions::{Secret, Settings, no_version};

const ASTRAY: &str = "Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API \
    endpoints to use. If using the Vault CLI, use 'vault kv";

/// A mount of KV version 2.
#[derive(Clone, Debug, Default)]
pub(super) struct Versioned {
    settings: Settings,
    secrets: BTreeMap<String, Secret>,
}

/// Who does something, as the metadata keep it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Actor {
    pub(super) name: String,
    pub(super) client_id: String,
    pub(super) entity_id: String,
}

impl Actor {
    fn did(&self, operation: &str) -> Value {
        let parts = [
            ("actor", self.name.as_str()),
            ("client_id", &self.client_id),
            ("entity_id", &self.entity_id),
            ("operation", operation),
        ];
        let parts = parts.iter().filter(|(_, value)| !value.is_empty());
        parts.map(|(name, value)| ((*name).to_owned(), json!(value))).collect::<Map<_, _>>().into()
    }
}

/// What a request is about, below the mount.
enum Part<'a> {
    Config,
    Data(&'a str),
    Delete(&'a str),
    Undelete(&'a str),
    Destroy(&'a str),
    Metadata(&'a str),
    /// The name of a part alone.
    Root,
    Unknown,
}

fn part(path: &str) -> Part<'_> {
    match path.split_once('/') {
        None if path == "config" => Part::Config,
        None if ["data", "metadata", "delete", "undelete", "destroy"].contains(&path) => Part::Root,
        // A name of a secret does not end in a slash.
        Some(("data", name)) if !name.is_empty() && !name.ends_with('/') => Part::Data(name),
        Some(("delete", name)) => Part::Delete(name),
        Some(("undelete", name)) => Part::Undelete(name),
        Some(("destroy", name)) => Part::Destroy(name),
        Some(("metadata", name)) => Part::Metadata(name),
        _ => Part::Unknown,
    }
}

impl Versioned {
    /// Whether a write would be an update; `None` where it always is.
    pub(super) fn exists(&self, path: &str) -> Option<bool> {
        match part(path) {
            Part::Data(name) | Part::Metadata(name) => Some(self.secrets.contains_key(name)),
            _ => None,
        }
    }

    pub(super) fn handle(&mut self, now: Timestamp, by: &Actor, asked: &Asked) -> Result<Said, Refusal> {
        use Operation::{Create, Delete, List, Patch, Read, Update};
        match (part(&asked.path), asked.operation) {
            (Part::Config, Read) => Ok(Said::Data(self.settings.show())),
            (Part::Config, Update) => self.configure(asked),
            (Part::Data(name), Read) => self.read(now, asked, name),
            (Part::Data(name), Create | Update) => self.write(now, by, asked, name),
            (Part::Data(name), Patch) => self.patch(now, by, asked, name),
            (Part::Data(name), Delete) => {
                self.delete_latest(now, by, name);
                Ok(Said::Nothing)
            }
            (Part::Delete(name), Update) => self.delete(now, by, asked, name),
            (Part::Undelete(name), Update) => self.undelete(now, by, asked, name),
            (Part::Destroy(name), Update) => self.destroy(asked, name),
            (Part::Metadata(folder), List) => Ok(Said::keys(below(self.secrets.keys(), folder))),
            (Part::Metadata(name), Read) => {
                Ok(self.secrets.get(name).map_or(Said::Nothing, |it| Said::Data(it.show())))
            }
            (Part::Metadata(name), Create | Update) if !name.is_empty() => self.write_metadata(now, asked, name),
            (Part::Metadata(name), Delete) => {
                self.secrets.remove(name);
                Ok(Said::Nothing)
            }
            (Part::Data(_), List) | (Part::Unknown, _) => Ok(Said::Astray(astray(asked.operation))),
            (Part::Root, _) => {
                Ok(Said::Astray("Non-listing operations on the root of a K/V v2 mount are not supported.".to_owned()))
            }
            _ => Err(Refusal::unsupported_operation()),
        }
    }

    fn read(&self, now: Timestamp, asked: &Asked, name: &str) -> Result<Said, Refusal> {
        let wanted = asked.int("version").map_err(Refusal::in_validation)?;
        let Some(secret) = self.secrets.get(name) else { return Ok(Said::Nothing) };
        let number = wanted.and_then(|number| u64::try_from(number).ok()).filter(|number| *number > 0);
        let number = number.unwrap_or(secret.current);
        let Some(version) = secret.versions.get(&number) else { return Ok(Said::Nothing) };
        let metadata = version.show(number, &secret.custom);
        Ok(match version.data_at(now) {
            Some(data) => Said::Data(json!({ "data": data, "metadata": metadata })),
            None => Said::Gone(json!({ "data": null, "metadata": metadata })),
        })
    }

    fn write(&mut self, now: Timestamp, by: &Actor, asked: &Asked, name: &str) -> Result<Said, Refusal> {
        let data = data(asked)?;
        let cas = cas(asked)?;
        let current = self.secrets.get(name);
        check(cas, &self.settings, current)?;
        let secret = self.secrets.entry(name.to_owned()).or_default();
        let operation = if secret.current == 0 && asked.operation == Operation::Create { "create" } else { "update" };
        Ok(Said::Data(secret.add(now, data, by.did(operation), &self.settings)))
    }

    fn patch(&mut self, now: Timestamp, by: &Actor, asked: &Asked, name: &str) -> Result<Said, Refusal> {
        let changes = data(asked)?;
        let cas = cas(asked)?;
        let Some(secret) = self.secrets.get_mut(name) else { return Ok(Said::Absent) };
        check(cas, &self.settings, Some(secret))?;
        let Some(version) = secret.versions.get(&secret.current) else { return Ok(Said::Absent) };
        let Some(mut data) = version.data_at(now).cloned() else {
            return Ok(Said::Gone(version.show(secret.current, &secret.custom)));
        };
        if data.is_null() {
            return Err(Refusal::listed(500, &["resource does not exist"]));
        }
        json_patch::merge(&mut data, &changes);
        Ok(Said::Data(secret.add(now, data, by.did("patch"), &self.settings)))
    }

    fn delete_latest(&mut self, now: Timestamp, by: &Actor, name: &str) {
        let Some(secret) = self.secrets.get_mut(name) else { return };
        let current = secret.current;
        if let Some(latest) = secret.versions.get_mut(&current)
            && latest.data_at(now).is_some()
        {
            latest.delete(now, by.did("delete"));
            secret.last_updated_by = by.did("delete");
        }
    }

    fn delete(&mut self, now: Timestamp, by: &Actor, asked: &Asked, name: &str) -> Result<Said, Refusal> {
        let numbers = numbers(asked).ok_or_else(|| no_version("No"))?;
        if let Some(secret) = self.secrets.get_mut(name) {
            for version in secret.of(&numbers).filter(|version| version.data_at(now).is_some()) {
                version.delete(now, by.did("update"));
            }
            secret.last_updated_by = by.did("update");
        }
        Ok(Said::Nothing)
    }

    fn undelete(&mut self, now: Timestamp, by: &Actor, asked: &Asked, name: &str) -> Result<Said, Refusal> {
        let numbers = numbers(asked).ok_or_else(|| no_version("No"))?;
        if let Some(secret) = self.secrets.get_mut(name) {
            let deletion = versions::deletion(now, &self.settings, &secret.settings);
            secret.of(&numbers).for_each(|version| version.undelete(deletion));
            secret.last_updated_by = by.did("undelete");
        }
        Ok(Said::Nothing)
    }

    fn destroy(&mut self, asked: &Asked, name: &str) -> Result<Said, Refusal> {
        let numbers = numbers(asked).ok_or_else(|| no_version("no"))?;
        if let Some(secret) = self.secrets.get_mut(name) {
            secret.of(&numbers).for_each(versions::Version::destroy);
        }
        Ok(Said::Nothing)
    }
}

/// The names in a folder, and its folders, as Vault lists them.
pub(super) fn below<'a>(names: impl Iterator<Item = &'a String>, folder: &str) -> Vec<String> {
    let mut found: Vec<String> = names
        .filter_map(|name| name.strip_prefix(folder))
        .filter(|name| !name.is_empty())
        .map(|name| name.split_inclusive('/').next().unwrap_or_default().to_owned())
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn astray(operation: Operation) -> String {
    let command = match operation {
        Operation::Read => "get",
        Operation::List => "list",
        Operation::Create | Operation::Update => "put",
        Operation::Patch => "patch",
        Operation::Delete => "delete",
    };
    format!("{ASTRAY} {command}' for this operation.")
}

fn data(asked: &Asked) -> Result<Value, Refusal> {
    let kind = match asked.data.get("data") {
        None => return Err(Refusal::bad("no data provided")),
        Some(data @ (Value::Object(_) | Value::Null)) => return Ok(data.clone()),
        Some(Value::Array(_)) => "slice",
        Some(Value::Bool(_)) => "bool",
        Some(Value::String(_) | Value::Number(_)) => "string",
    };
    Err(Refusal::bad(format!("error converting input for field \"data\": '' expected a map, got '{kind}'")))
}

fn cas(asked: &Asked) -> Result<Option<u64>, Refusal> {
    let Some(cas) = asked.get("options").and_then(|options| options.get("cas")) else { return Ok(None) };
    let number = fields::int(cas).and_then(|number| u64::try_from(number).ok());
    number.map(Some).ok_or_else(|| Refusal::bad("error parsing check-and-set parameter"))
}

/// Check-and-set: a write says which version it was decided on.
fn check(cas: Option<u64>, mount: &Settings, secret: Option<&Secret>) -> Result<(), Refusal> {
    let required = mount.cas_required || secret.is_some_and(|secret| secret.settings.cas_required);
    match cas {
        Some(cas) if cas != secret.map_or(0, |secret| secret.current) => {
            Err(Refusal::bad("check-and-set parameter did not match the current version"))
        }
        None if required => Err(Refusal::bad("check-and-set parameter required for this call")),
        _ => Ok(()),
    }
}

fn numbers(asked: &Asked) -> Option<Vec<u64>> {
    let numbers = asked.get("versions").and_then(fields::ints)?;
    Some(numbers.into_iter().filter_map(|number| u64::try_from(number).ok()).collect())
        .filter(|it: &Vec<_>| !it.is_empty())
}

#[cfg(test)]
mod tests;

//! The versions of a secret.

use std::collections::BTreeMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::vault::fields;
use crate::vault::moment::timestamp;
use crate::vault::reply::Refusal;

/// Versions that are kept where nothing else is set.
const MAX_VERSIONS: u64 = 10;

/// What can be set for a mount, and for a secret.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) max_versions: u64,
    pub(super) cas_required: bool,
    /// In seconds. Zero: not set; negative, of a mount: never.
    pub(super) delete_version_after: i64,
}

impl Settings {
    pub(super) fn show(&self) -> Value {
        json!({
            "cas_required": self.cas_required,
            "delete_version_after": fields::go_duration(self.delete_version_after),
            "max_versions": self.max_versions,
        })
    }
}

/// When a version that is made now is deleted by itself: after the shorter of both times, if any.
pub(super) fn deletion(now: Timestamp, mount: &Settings, secret: &Settings) -> Option<Timestamp> {
    if mount.delete_version_after < 0 {
        return None;
    }
    let set = [mount.delete_version_after, secret.delete_version_after].into_iter().filter(|after| *after > 0);
    set.min().and_then(|after| now.checked_add(SignedDuration::from_secs(after)).ok())
}

#[derive(Clone, Debug)]
pub(super) struct Version {
    created: Timestamp,
    deletion: Option<Timestamp>,
    destroyed: bool,
    data: Value,
    created_by: Value,
    deleted_by: Value,
}

impl Version {
    /// Its data, unless it is deleted or destroyed.
    pub(super) fn data_at(&self, now: Timestamp) -> Option<&Value> {
        let is_there = !self.destroyed && self.deletion.is_none_or(|deletion| deletion > now);
        is_there.then_some(&self.data)
    }

    pub(super) fn delete(&mut self, now: Timestamp, by: Value) {
        self.deletion = Some(now);
        self.deleted_by = by;
    }

    pub(super) fn undelete(&mut self, deletion: Option<Timestamp>) {
        if !self.destroyed {
            self.deletion = deletion;
            self.deleted_by = Value::Null;
        }
    }

    pub(super) fn destroy(&mut self) {
        self.destroyed = true;
        self.data = Value::Null;
    }

    /// As a read of the data shows it.
    pub(super) fn show(&self, number: u64, custom: &Value) -> Value {
        json!({
            "created_time": timestamp(self.created),
            "custom_metadata": custom,
            "deletion_time": self.deletion.map(timestamp).unwrap_or_default(),
            "destroyed": self.destroyed,
            "version": number,
        })
    }

    fn show_in_metadata(&self) -> Value {
        json!({
            "created_by": self.created_by,
            "created_time": timestamp(self.created),
            "deleted_by": self.deleted_by,
            "deletion_time": self.deletion.map(timestamp).unwrap_or_default(),
            "destroyed": self.destroyed,
        })
    }
}

/// A secret: its versions, and what is kept when they are gone.
#[derive(Clone, Debug, Default)]
pub(super) struct Secret {
    pub(super) current: u64,
    /// Zero until a version was dropped.
    oldest: u64,
    pub(super) created: Option<Timestamp>,
    pub(super) updated: Option<Timestamp>,
    pub(super) versions: BTreeMap<u64, Version>,
    pub(super) settings: Settings,
    pub(super) custom: Value,
    pub(super) last_updated_by: Value,
}

impl Secret {
    /// Adds a version, and drops those that are too many.
    pub(super) fn add(&mut self, now: Timestamp, data: Value, by: Value, mount: &Settings) -> Value {
        self.last_updated_by = by.clone();
        let deletion = deletion(now, mount, &self.settings);
        let version =
            Version { created: now, deletion, destroyed: false, data, created_by: by, deleted_by: Value::Null };
        self.current += 1;
        self.updated = Some(now);
        self.created.get_or_insert(now);
        let shown = version.show(self.current, &self.custom);
        self.versions.insert(self.current, version);

        let set = self.settings.max_versions.max(mount.max_versions);
        let max = if set == 0 { MAX_VERSIONS } else { set };
        if self.current - self.oldest >= max {
            self.oldest = self.current - max + 1;
            self.versions = self.versions.split_off(&self.oldest);
        }
        shown
    }

    /// Those of these versions that there are.
    pub(super) fn of(&mut self, numbers: &[u64]) -> impl Iterator<Item = &mut Version> {
        self.versions.iter_mut().filter(|(number, _)| numbers.contains(number)).map(|(_, version)| version)
    }

    /// As its metadata show it.
    pub(super) fn show(&self) -> Value {
        let versions = self.versions.iter().map(|(number, version)| (number.to_string(), version.show_in_metadata()));
        json!({
            "cas_required": self.settings.cas_required,
            "created_time": self.created.map(timestamp),
            "current_version": self.current,
            "custom_metadata": self.custom,
            "delete_version_after": fields::go_duration(self.settings.delete_version_after),
            "last_updated_by": self.last_updated_by,
            "max_versions": self.settings.max_versions,
            "oldest_version": self.oldest,
            "updated_time": self.updated.map(timestamp),
            "versions": versions.collect::<serde_json::Map<_, _>>(),
        })
    }
}

/// Two of the three paths that take versions begin this with a capital.
pub(super) fn no_version(no: &str) -> Refusal {
    Refusal::bad(format!("{no} version number provided"))
}

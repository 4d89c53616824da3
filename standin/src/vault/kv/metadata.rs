//! Settings of a mount and of a secret.

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::{Asked, Refusal, Said, Settings, Versioned};

/// The settings that a request changes.
struct Change {
    max_versions: Option<u64>,
    cas_required: Option<bool>,
    delete_version_after: Option<i64>,
}

impl Change {
    fn of(asked: &Asked) -> Result<Self, Refusal> {
        Ok(Self {
            max_versions: asked.int("max_versions")?.map(i64::unsigned_abs),
            cas_required: asked.flag("cas_required")?,
            delete_version_after: asked.seconds("delete_version_after")?,
        })
    }

    fn apply(&self, settings: &mut Settings) {
        settings.max_versions = self.max_versions.unwrap_or(settings.max_versions);
        settings.cas_required = self.cas_required.unwrap_or(settings.cas_required);
        settings.delete_version_after = self.delete_version_after.unwrap_or(settings.delete_version_after);
    }

    fn is_empty(&self) -> bool {
        self.max_versions.is_none() && self.cas_required.is_none() && self.delete_version_after.is_none()
    }
}

impl Versioned {
    pub(super) fn configure(&mut self, asked: &Asked) -> Result<Said, Refusal> {
        let change = Change::of(asked)?;
        change.apply(&mut self.settings);
        // The real one keeps any negative time as this.
        self.settings.delete_version_after = self.settings.delete_version_after.max(-1);
        Ok(Said::Nothing)
    }

    pub(super) fn write_metadata(&mut self, now: Timestamp, asked: &Asked, name: &str) -> Result<Said, Refusal> {
        let change = Change::of(asked)?;
        let custom = asked.get("custom_metadata").filter(|custom| custom.is_object());
        if change.is_empty() && custom.is_none() {
            return Ok(Said::Nothing);
        }
        let secret = self.secrets.entry(name.to_owned()).or_default();
        secret.created.get_or_insert(now);
        secret.updated.get_or_insert(now);
        change.apply(&mut secret.settings);
        if let Some(custom) = custom {
            secret.custom = Value::clone(custom);
        }
        if self.settings.cas_required && change.cas_required == Some(false) {
            let ignored =
                "\"cas_required\" set to false, but is mandated by backend config. This value will be ignored.";
            return Ok(Said::Warned(vec![ignored.to_owned()]));
        }
        Ok(Said::Nothing)
    }
}

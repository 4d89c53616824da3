//! What `/mutate` changes in a gated pod that is let in.
//!
//! The annotations tell later which root a pod came in under. And its volumes of `cacerts` stop being optional: istiod's
//! chart has them so, and a pod that is mounted again later, with the Secret gone, would start on a root of its own.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation};
use serde_json::{Value, json};

use crate::ca::Sha256;
use crate::names::{ROOT_SHA256, VAULT_VERSION};

/// What the patch of a pod depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// It has annotations, if only an empty map of them.
    pub has_annotations: bool,
    /// Its volumes, or parts of them, that are filled from a Secret.
    pub secrets: Vec<SecretSource>,
}

/// A volume, or a part of a projected one, that is filled from a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretSource {
    /// Index in `spec.volumes`.
    pub volume: usize,
    /// Index in `projected.sources`, if it is a projected volume's.
    pub source: Option<usize>,
    /// The Secret's name.
    pub name: String,
    /// The pod may start without it.
    pub optional: bool,
}

impl SecretSource {
    fn pointer(&self) -> PointerBuf {
        let volume = self.volume.to_string();
        match self.source {
            None => PointerBuf::from_tokens(["spec", "volumes", &volume, "secret", "optional"]),
            Some(source) => PointerBuf::from_tokens([
                "spec",
                "volumes",
                &volume,
                "projected",
                "sources",
                &source.to_string(),
                "secret",
                "optional",
            ]),
        }
    }
}

/// The patch of a pod of this shape, that is let in with this root. `secret` is `cacerts`.
pub fn patch(shape: &Shape, secret: &str, root: Sha256, vault_version: Option<u64>) -> Patch {
    let mut operations = Vec::new();
    let mut add = |path, value| operations.push(PatchOperation::Add(AddOperation { path, value }));
    if !shape.has_annotations {
        add(PointerBuf::from_tokens(["metadata", "annotations"]), json!({}));
    }
    let annotation = |name: &str| PointerBuf::from_tokens(["metadata", "annotations", name]);
    add(annotation(ROOT_SHA256), Value::String(root.hex()));
    if let Some(version) = vault_version {
        add(annotation(VAULT_VERSION), Value::String(version.to_string()));
    }
    for source in shape.secrets.iter().filter(|source| source.optional && source.name == secret) {
        add(source.pointer(), Value::Bool(false));
    }
    Patch(operations)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ROOT: Sha256 = Sha256([0xab; 32]);

    fn source(volume: usize, source: Option<usize>, name: &str, optional: bool) -> SecretSource {
        SecretSource { volume, source, name: name.to_owned(), optional }
    }

    fn patched(mut pod: Value, shape: &Shape) -> Value {
        json_patch::patch(&mut pod, &patch(shape, "cacerts", ROOT, Some(3))).unwrap();
        pod
    }

    #[test]
    fn annotations_tell_root_and_version_beside_those_that_are_there() {
        let annotations = json!({ ROOT_SHA256: "ab".repeat(32), VAULT_VERSION: "3" });
        let pod = patched(json!({ "metadata": {} }), &Shape::default());
        assert_eq!(pod, json!({ "metadata": { "annotations": annotations } }));
        let shape = Shape { has_annotations: true, ..Shape::default() };
        let pod = patched(json!({ "metadata": { "annotations": { "a/b": "c", ROOT_SHA256: "forged" } } }), &shape);
        assert_eq!(pod["metadata"]["annotations"]["a/b"], "c");
        assert_eq!(pod["metadata"]["annotations"][ROOT_SHA256], "ab".repeat(32));
    }

    #[test]
    fn a_version_that_is_not_known_is_not_told() {
        let mut pod = json!({ "metadata": {} });
        json_patch::patch(&mut pod, &patch(&Shape::default(), "cacerts", ROOT, None)).unwrap();
        assert!(pod["metadata"]["annotations"].get(VAULT_VERSION).is_none(), "{pod}");
    }

    #[test]
    fn volumes_of_cacerts_stop_being_optional_and_no_other_changes() {
        let pod = json!({ "metadata": {}, "spec": { "volumes": [
            { "name": "other", "secret": { "secretName": "other", "optional": true } },
            { "name": "cacerts", "secret": { "secretName": "cacerts", "optional": true } },
            { "name": "both", "projected": { "sources": [
                { "secret": { "name": "cacerts", "optional": true } }, { "secret": { "name": "x", "optional": true } },
            ] } },
            { "name": "wanted", "secret": { "secretName": "cacerts" } },
        ] } });
        let shape = Shape {
            has_annotations: false,
            secrets: vec![
                source(0, None, "other", true),
                source(1, None, "cacerts", true),
                source(2, Some(0), "cacerts", true),
                source(2, Some(1), "x", true),
                source(3, None, "cacerts", false),
            ],
        };
        let mut wanted = pod.clone();
        wanted["spec"]["volumes"][1]["secret"]["optional"] = json!(false);
        wanted["spec"]["volumes"][2]["projected"]["sources"][0]["secret"]["optional"] = json!(false);
        assert_eq!(patched(pod, &shape)["spec"], wanted["spec"]);
    }
}

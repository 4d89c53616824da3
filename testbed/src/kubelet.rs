//! The part of a kubelet without which no container of a pod starts: its volumes.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::kubernetes_api::KubernetesApi;

/// What came of an attempt to mount a pod's volumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mounting {
    /// The container may start.
    Done,
    /// An object is missing that is not optional: a kubelet says `FailedMount`, tries again, and starts nothing.
    Waits(String),
}

/// Mounts the volumes of a pod's first container below `root`, as they are now.
///
/// Secrets and ConfigMaps are written with all of their keys, as a kubelet does, and one that is optional and missing
/// leaves an empty folder. So does every other kind of volume: a token is no file here.
pub async fn mount_volumes(api: &KubernetesApi, pod: &Value, root: &Path) -> Result<Mounting> {
    let namespace = pod["metadata"]["namespace"].as_str().context("a pod without namespace")?;
    let volumes = pod["spec"]["volumes"].as_array().context("a pod without volumes")?;
    let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array().context("a container without volumes")?;
    for mount in mounts {
        let name = mount["name"].as_str().context("a mount without name")?;
        let path = mount["mountPath"].as_str().context("a mount without path")?;
        let volume = volumes.iter().find(|volume| volume["name"] == name).context("a mount without volume")?;
        let folder = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(&folder)?;
        let Some(source) = Source::of(volume) else { continue };
        let object = format!("/api/v1/namespaces/{namespace}/{}/{}", source.plural, source.name);
        match api.request("GET", &object, None).await? {
            (200, found) => write(&source, &found["data"], &folder)?,
            (404, _) if source.optional => {}
            (404, _) => return Ok(Mounting::Waits(format!("{} {namespace}/{} not found", source.plural, source.name))),
            (status, answer) => bail!("{object}: {status}: {answer}"),
        }
    }
    Ok(Mounting::Done)
}

/// The object that a volume shows.
struct Source<'a> {
    plural: &'static str,
    name: &'a str,
    optional: bool,
}

impl<'a> Source<'a> {
    fn of(volume: &'a Value) -> Option<Self> {
        let (plural, source, name) = match (&volume["secret"], &volume["configMap"]) {
            (Value::Object(secret), _) => ("secrets", secret, "secretName"),
            (_, Value::Object(config_map)) => ("configmaps", config_map, "name"),
            _ => return None,
        };
        let optional = source.get("optional").and_then(Value::as_bool).unwrap_or(false);
        Some(Self { plural, name: source.get(name)?.as_str()?, optional })
    }
}

fn write(source: &Source<'_>, data: &Value, folder: &Path) -> Result<()> {
    for (key, value) in data.as_object().into_iter().flatten() {
        let text = value.as_str().context("data that is no string")?;
        let bytes = if source.plural == "secrets" { STANDARD.decode(text)? } else { text.into() };
        ensure!(!key.contains('/'), "{key} is no file name");
        fs::write(folder.join(key), bytes)?;
    }
    Ok(())
}

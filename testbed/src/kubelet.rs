//! The part of a kubelet without which no container of a pod starts: its volumes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
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

/// Mounts the volumes of a pod's first container below `root`, as they are now; or brings them up to date.
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
    let mut files = BTreeMap::new();
    for (key, value) in data.as_object().into_iter().flatten() {
        let text = value.as_str().context("data that is no string")?;
        let bytes = if source.plural == "secrets" { STANDARD.decode(text)? } else { text.into() };
        ensure!(!key.contains('/'), "{key} is no file name");
        files.insert(key.as_str(), bytes);
    }
    swap(&files, folder)
}

/// All files at once, as a kubelet does it: each is a link through `..data`, which is a link to the folder that has them.
fn swap(files: &BTreeMap<&str, Vec<u8>>, folder: &Path) -> Result<()> {
    let data = folder.join("..data");
    let old = fs::read_link(&data).ok().map(|name| folder.join(name));
    let is_there = |(name, bytes): (&&str, &Vec<u8>)| fs::read(data.join(name)).is_ok_and(|there| there == *bytes);
    let count = fs::read_dir(&data).map_or(0, Iterator::count);
    if old.is_some() && count == files.len() && files.iter().all(is_there) {
        return Ok(());
    }
    let fresh = tempfile::Builder::new().prefix("..").tempdir_in(folder)?.keep();
    for (name, bytes) in files {
        fs::write(fresh.join(name), bytes)?;
    }
    let next = folder.join("..data_tmp");
    symlink(fresh.file_name().context("a folder without name")?, &next)?;
    fs::rename(&next, &data)?;
    for name in files.keys().filter(|name| folder.join(name).symlink_metadata().is_err()) {
        symlink(Path::new("..data").join(name), folder.join(name))?;
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_stale = name.to_str().is_some_and(|name| !name.starts_with("..") && !files.contains_key(name));
        if is_stale {
            fs::remove_file(entry.path())?;
        }
    }
    old.map_or(Ok(()), |old| Ok(fs::remove_dir_all(old)?))
}

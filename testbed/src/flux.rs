//! Flux's real kustomize-controller, and a repository for it: folders of this machine, handed over as source-controller does.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::binaries;
use crate::cluster::Cluster;
use crate::kubernetes_api::KubernetesApi;
use crate::process::{Process, Program};
use crate::{eventually, temporary_folder};

/// Where Flux and its objects are.
const NAMESPACE: &str = "flux-system";

/// Of the controller and for one reconciliation, on busy cores.
const LONGEST: Duration = Duration::from_secs(60);

/// The kinds of sources that the controller watches. It asks for fields of their status alone.
const SOURCES: [(&str, &str); 4] = [
    ("GitRepository", "gitrepositories"),
    ("OCIRepository", "ocirepositories"),
    ("Bucket", "buckets"),
    ("ExternalArtifact", "externalartifacts"),
];

/// The definition of a kind that others bring. Of it only names are defined, and any field is taken.
pub fn definition(group: &str, version: &str, kind: &str, plural: &str) -> Value {
    let any = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.{group}") },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": { "kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": kind.to_lowercase() },
            "versions": [{
                "name": version, "served": true, "storage": true, "subresources": { "status": {} },
                "schema": { "openAPIV3Schema": { "type": "object", "properties": { "spec": any, "status": any } } },
            }],
        },
    })
}

/// Archives by their path, served on 127.0.0.1 until dropped.
#[derive(Debug)]
struct Archives {
    held: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    url: String,
    server: JoinHandle<()>,
}

impl Archives {
    async fn serve() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let held = Arc::<Mutex<BTreeMap<String, Vec<u8>>>>::default();
        let served = held.clone();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // One that goes away meanwhile asks again.
                let _ = answer(stream, &served).await;
            }
        });
        Ok(Self { held, url, server })
    }
}

impl Drop for Archives {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(mut stream: TcpStream, held: &Mutex<BTreeMap<String, Vec<u8>>>) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head)?;
    let path = head.split_whitespace().nth(1).context("no path")?.to_owned();
    let archive = held.lock().unwrap_or_else(PoisonError::into_inner).get(&path).cloned();
    let (status, body) = archive.map_or(("404 Not Found", Vec::new()), |archive| ("200 OK", archive));
    let length = body.len();
    stream
        .write_all(format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n").as_bytes())
        .await?;
    stream.write_all(&body).await?;
    Ok(())
}

/// kustomize-controller in a cluster, with all rights, as Flux installs it.
#[derive(Debug)]
pub struct Flux {
    /// The controller.
    pub controller: Process,
    api: KubernetesApi,
    archives: Archives,
    folder: TempDir,
}

impl Flux {
    /// Builds the controller unless it is built, and starts it on an empty repository.
    pub async fn start(cluster: &Cluster) -> Result<Self> {
        let (program, kind) =
            tokio::task::spawn_blocking(|| anyhow::Ok((binaries::flux()?, binaries::flux_definition()?))).await??;
        cluster.kubectl(&["create", "namespace", NAMESPACE]).await?;
        cluster.kubectl(&["create", "-f", kind.to_str().context("the file's name is not UTF-8")?]).await?;
        for (kind, plural) in SOURCES {
            let definition = definition("source.toolkit.fluxcd.io", "v1", kind, plural);
            cluster.kubectl_stdin(&["create", "-f", "-"], &definition.to_string()).await?;
        }
        cluster.kubectl(&["wait", "--for=condition=established", "--timeout=30s", "crd", "--all"]).await?;
        let repository = json!({
            "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository",
            "metadata": { "name": "repository", "namespace": NAMESPACE },
            "spec": { "interval": "1h", "url": "https://git.example/repository" },
        });
        let (create, repository) = (["create", "-f", "-"], repository.to_string());
        eventually("the repository to be taken", LONGEST, || cluster.kubectl_stdin(&create, &repository)).await?;
        let folder = temporary_folder("flux")?;
        let controller = program
            .args(["--metrics-addr=0", "--health-addr=0", "--requeue-dependency=1s", "--log-level=debug"])
            .env("KUBECONFIG", cluster.kubeconfig())
            .env("RUNTIME_NAMESPACE", NAMESPACE)
            .env("HOME", folder.path())
            .spawn(folder.path().join("log"))?;
        Ok(Self { controller, api: (**cluster).clone(), archives: Archives::serve().await?, folder })
    }

    /// Makes what is in a folder the repository's newest revision, and returns that.
    pub async fn commit(&self, folder: &Path) -> Result<String> {
        let archive = self.folder.path().join("archive.tar.gz");
        let tar = Program::new("tar").arg("-czf").arg(&archive).arg("-C").arg(folder).arg(".");
        tar.output(None).await?;
        let archive = std::fs::read(&archive)?;
        let sum: String = digest(&SHA256, &archive).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let (path, revision) = (format!("/{sum}.tar.gz"), format!("main@sha1:{}", &sum[..40]));
        let size = archive.len();
        self.archives.held.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone(), archive);
        let artifact = json!({
            "digest": format!("sha256:{sum}"), "revision": revision, "size": size, "path": &path[1..],
            "url": format!("{}{path}", self.archives.url), "lastUpdateTime": "2026-11-28T00:00:00Z",
        });
        let place =
            format!("/apis/source.toolkit.fluxcd.io/v1/namespaces/{NAMESPACE}/gitrepositories/repository/status");
        let (status, answer) =
            self.api.request("PATCH", &place, Some(json!({ "status": { "artifact": artifact } }))).await?;
        ensure!(status == 200, "{answer}");
        Ok(revision)
    }

    /// A Kustomization of the repository's folder, as it is written in a repository.
    pub fn kustomization(name: &str, path: &str) -> Value {
        json!({
            "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
            "metadata": { "name": name, "namespace": NAMESPACE },
            "spec": {
                "interval": "1h", "retryInterval": "1s", "timeout": "1m", "prune": true, "path": path,
                "sourceRef": { "kind": "GitRepository", "name": "repository" },
            },
        })
    }

    fn place(name: &str) -> String {
        format!("/apis/kustomize.toolkit.fluxcd.io/v1/namespaces/{NAMESPACE}/kustomizations/{name}")
    }

    /// A Kustomization as it stands, if it is there.
    async fn stands(&self, name: &str) -> Result<Option<Value>> {
        let (status, answer) = self.api.request("GET", &Self::place(name), None).await?;
        ensure!(matches!(status, 200 | 404), "{answer}");
        Ok((status == 200).then_some(answer))
    }

    /// Waits until a Kustomization has been applied at a revision.
    pub async fn applied(&self, name: &str, revision: &str) -> Result<()> {
        let applied = || async {
            let object = self.stands(name).await?.context("no such Kustomization")?;
            let conditions = object["status"]["conditions"].as_array().context("no conditions")?;
            let is_ready = conditions.iter().any(|each| each["type"] == "Ready" && each["status"] == "True");
            ensure!(is_ready && object["status"]["lastAppliedRevision"] == revision, "{}", object["status"]);
            Ok(())
        };
        self.controller.until(&format!("Kustomization {name} at {revision}"), LONGEST, applied).await
    }

    /// Waits until a Kustomization cannot be applied, for a reason with these words.
    pub async fn refused(&self, name: &str, words: &str) -> Result<()> {
        let refused = || async {
            let object = self.stands(name).await?.context("no such Kustomization")?;
            let conditions = object["status"]["conditions"].as_array().context("no conditions")?;
            let says = |each: &Value| each["message"].as_str().is_some_and(|message| message.contains(words));
            let is_refused =
                conditions.iter().any(|each| each["type"] == "Ready" && each["status"] == "False" && says(each));
            ensure!(is_refused, "{}", object["status"]);
            Ok(())
        };
        self.controller.until(&format!("Kustomization {name} to be refused"), LONGEST, refused).await
    }

    /// Waits until a Kustomization is gone, and all that it had with it.
    pub async fn gone(&self, name: &str) -> Result<()> {
        let gone = || async {
            let left = self.stands(name).await?;
            ensure!(left.is_none(), "{left:?}");
            Ok(())
        };
        self.controller.until(&format!("Kustomization {name} to be gone"), LONGEST, gone).await
    }

    /// Suspends a Kustomization or resumes it, as `flux suspend` and `flux resume` do.
    pub async fn suspend(&self, name: &str, is_suspended: bool) -> Result<()> {
        let spec = json!({ "spec": { "suspend": is_suspended } });
        let (status, answer) = self.api.request("PATCH", &Self::place(name), Some(spec)).await?;
        ensure!(status == 200, "{answer}");
        Ok(())
    }

    /// Has a Kustomization reconciled once more, as `flux reconcile` does, and waits for it.
    pub async fn reconcile(&self, name: &str) -> Result<()> {
        let before = self.stands(name).await?.context("no such Kustomization")?;
        let asked = json!(format!("after {}", before["metadata"]["resourceVersion"]));
        let annotation = json!({ "metadata": { "annotations": { "reconcile.fluxcd.io/requestedAt": asked } } });
        let (status, answer) = self.api.request("PATCH", &Self::place(name), Some(annotation)).await?;
        ensure!(status == 200, "{answer}");
        let handled = || async {
            let object = self.stands(name).await?.context("no such Kustomization")?;
            ensure!(object["status"]["lastHandledReconcileAt"] == asked, "{}", object["status"]);
            Ok(())
        };
        self.controller.until(&format!("Kustomization {name} to be reconciled"), LONGEST, handled).await
    }
}

//! Asks all places at once: each has its deadline, and together they have a bound.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, join, join3};
use futures::stream::{self, StreamExt};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::config::Kubeconfig;
use url::Url;

use super::Verify;
use super::compare::{Kind, Place};
use super::life::{self, MeshLife};
use super::served;
use crate::ca::{file, signer};
use crate::cli::source::{self, Unread};
use crate::k8s::client;
use crate::k8s::root_cert::{Holder, PublicFiles};
use crate::peers::served::{Client as Gates, Root};
use crate::report::ReportedSigner;
use crate::run::Failure;
use crate::vault::Vault;

/// Places that are asked at a time. A descriptor each: a quarter of the usual 1,024, and a thousand
/// silent ones take four deadlines.
const AT_ONCE: usize = 256;

/// Clusters that are asked at a time: each may start a program for its credentials.
const CLUSTERS_AT_ONCE: usize = 32;

/// The ConfigMap in which istiod tells every namespace what it serves.
const SERVED: &str = "istio-ca-root-cert";

/// All places of a command line.
pub(super) struct Places {
    vault: Option<Vault>,
    clusters: Vec<Cluster>,
    gates: Gates,
    urls: Vec<Url>,
    files: Vec<PathBuf>,
    timeout: Duration,
}

/// A cluster, by its context.
struct Cluster {
    context: String,
    kubeconfig: Arc<Kubeconfig>,
    namespace: String,
    secret: String,
}

/// What one place told; a cluster has two.
type Asked<'a> = BoxFuture<'a, Vec<Place>>;

impl Places {
    /// Takes up the configuration, and asks nobody yet.
    ///
    /// # Errors
    /// A wrong configuration.
    pub(super) fn new(args: &Verify) -> Result<Self, Failure> {
        if args.contexts.is_empty() && args.urls.is_empty() && args.files.is_empty() && !args.vault {
            return Err(Failure::Usage(
                "nothing to compare: name places with --context, --url, --vault or --file (variables GATE_VERIFY_CONTEXTS, GATE_VERIFY_URLS, GATE_VERIFY_VAULT, GATE_VERIFY_FILE)"
                    .to_owned(),
            ));
        }
        let any_https = args.urls.iter().any(|url| url.scheme() == "https");
        let gates = Gates::new(args.ca_cert.as_deref(), any_https, "--ca-cert")
            .map_err(|error| Failure::Usage(format!("--ca-cert (variable GATE_VERIFY_CA_CERT): {error}")))?;
        Ok(Self {
            vault: args.vault.then(|| source::vault(&args.vault_args)).transpose()?,
            clusters: clusters(args)?,
            gates,
            urls: args.urls.clone(),
            files: args.files.clone(),
            timeout: args.timeout,
        })
    }

    /// Asks them, and waits for none longer than its deadline. Vault, which the others are compared with, comes first, and
    /// tells what it has beside its roots.
    pub(super) async fn ask(&mut self) -> (Vec<Place>, Option<MeshLife>) {
        let Self { vault, clusters, gates, urls, files, timeout } = self;
        let timeout = *timeout;
        let vault = async {
            match vault {
                Some(vault) => Some(ask_vault(vault, timeout).await),
                None => None,
            }
        };
        let urls = urls.iter().map(|url| ask_url(gates, url, timeout).boxed());
        let files = files.iter().map(|path| ask_file(path, timeout).boxed());
        let clusters = clusters.iter().map(|cluster| cluster.ask(timeout).boxed());
        let others = gather(urls.chain(files), AT_ONCE);
        let (vault, clusters, others) = join3(vault, gather(clusters, CLUSTERS_AT_ONCE), others).await;
        let (vault, life) = vault.unzip();
        (vault.into_iter().chain(clusters).chain(others).collect(), life.flatten())
    }
}

/// What these told, in their order, so many at a time.
async fn gather<'a>(asked: impl Iterator<Item = Asked<'a>>, at_once: usize) -> Vec<Place> {
    let numbered = asked.enumerate().map(|(index, asked)| asked.map(move |told| (index, told)));
    // In the order of their ends: a silent place holds up no other.
    let mut told: Vec<_> = stream::iter(numbered).buffer_unordered(at_once).collect().await;
    told.sort_by_key(|(index, _)| *index);
    told.into_iter().flat_map(|(_, places)| places).collect()
}

/// What is told before the deadline.
pub(super) async fn within<T>(timeout: Duration, asked: impl Future<Output = Result<T, Unread>>) -> Result<T, Unread> {
    tokio::time::timeout(timeout, asked).await.unwrap_or_else(|_| Err(late(timeout)))
}

fn late(timeout: Duration) -> Unread {
    let timeout = humantime::format_duration(timeout);
    Unread::new(format!("no answer within {timeout}: check the network, or give it more time with --timeout"))
}

async fn ask_vault(vault: &mut Vault, timeout: Duration) -> (Place, Option<MeshLife>) {
    let name = format!("Vault {}", vault.settings().record());
    vault.reload_ca();
    let told = within(timeout, source::stored(vault, Timestamp::now())).await;
    let life = match told.as_ref().ok().and_then(|stored| stored.signing.clone()) {
        Some(record) => Some(life::ask(vault, &record, timeout).await),
        None => None,
    };
    let told = told.map(|stored| Root { usable_until: Some(stored.end), ..Root::from(stored.glance) });
    (Place::new(Kind::Vault, name, told), life)
}

async fn ask_url(gates: &Gates, url: &Url, timeout: Duration) -> Vec<Place> {
    tokio::time::timeout(timeout, served::ask(gates, url))
        .await
        .unwrap_or_else(|_| vec![Place::new(Kind::Gate, url.to_string(), Err(late(timeout)))])
}

async fn ask_file(path: &Path, timeout: Duration) -> Vec<Place> {
    let name = path.display().to_string();
    let told = within(timeout, source::file(path)).await.and_then(|pem| roots(&pem, &name));
    vec![Place::new(Kind::File, name, told)]
}

fn roots(pem: &[u8], file: &str) -> Result<Root, Unread> {
    file::roots(pem).map(Root::from).map_err(|why| Unread::new(format!("{}: give it whole", why.of(file))))
}

fn clusters(args: &Verify) -> Result<Vec<Cluster>, Failure> {
    if args.contexts.is_empty() {
        return Ok(Vec::new());
    }
    let kubeconfig = match &args.kubeconfig {
        Some(file) => Kubeconfig::read_from(file),
        None => Kubeconfig::read(),
    };
    let kubeconfig =
        Arc::new(kubeconfig.map_err(|error| {
            Failure::Usage(format!("--kubeconfig (variable KUBECONFIG): {}", client::told(&error)))
        })?);
    let cluster = |context: &String| Cluster {
        context: context.clone(),
        kubeconfig: Arc::clone(&kubeconfig),
        namespace: args.namespace.clone(),
        secret: args.secret.clone(),
    };
    Ok(args.contexts.iter().map(cluster).collect())
}

impl Cluster {
    async fn ask(&self, timeout: Duration) -> Vec<Place> {
        let both = [(Kind::Cacerts, Holder::Secret, self.secret.as_str()), (Kind::Served, Holder::ConfigMap, SERVED)];
        let deadline = tokio::time::Instant::now() + timeout;
        let client = within(timeout, self.client()).await;
        let ask = |(kind, holder, object)| {
            let client = &client;
            async move {
                let told = match client {
                    Ok(client) => tokio::time::timeout_at(deadline, self.object(client, holder, object))
                        .await
                        .unwrap_or_else(|_| Err(late(timeout))),
                    Err(unread) => Err(unread.clone()),
                };
                Place::new(kind, format!("{} {object}", self.context), told)
            }
        };
        let (cacerts, served) = join(ask(both[0]), ask(both[1])).await;
        vec![cacerts, served]
    }

    async fn object(&self, client: &Client, holder: Holder, name: &str) -> Result<Root, Unread> {
        let PublicFiles { root_cert, ca_cert } = source::object(client, holder, &self.namespace, name).await?;
        let root = roots(&root_cert, &format!("root-cert.pem of {} {}/{name}", holder.kind(), self.namespace))?;
        let signer = ca_cert.and_then(|ca_cert| signer::seen(&ca_cert, &root_cert));
        let signer = signer.map(|seen| ReportedSigner::of(&seen.ca, seen.root, &seen.cluster));
        Ok(Root { signer, ..root })
    }

    /// A client for this context. Its credentials may be from a program, which is waited for elsewhere.
    async fn client(&self) -> Result<Client, Unread> {
        let kubeconfig = only(&self.kubeconfig, &self.context).ok_or_else(|| {
            Unread::new("there is no such context in the kubeconfig: see `kubectl config get-contexts`")
        })?;
        let wrong = |error: String| Unread::new(format!("its context cannot be used ({error}): try it with kubectl"));
        let config = client::config_of(kubeconfig, None).await.map_err(wrong)?;
        let runtime = tokio::runtime::Handle::current();
        let made = tokio::task::spawn_blocking(move || {
            let _entered = runtime.enter();
            client::client_of(config)
        });
        match made.await {
            Ok(client) => client.map_err(wrong),
            Err(error) => Err(wrong(error.to_string())),
        }
    }
}

/// One context of a kubeconfig, which may have a thousand, with its cluster and user.
fn only(kubeconfig: &Kubeconfig, context: &str) -> Option<Kubeconfig> {
    let named = kubeconfig.contexts.iter().find(|named| named.name == context)?;
    let inner = named.context.as_ref()?;
    let cluster = kubeconfig.clusters.iter().find(|named| named.name == inner.cluster);
    let user = kubeconfig.auth_infos.iter().find(|named| Some(&named.name) == inner.user.as_ref());
    Some(Kubeconfig {
        contexts: vec![named.clone()],
        clusters: cluster.into_iter().cloned().collect(),
        auth_infos: user.into_iter().cloned().collect(),
        current_context: Some(context.to_owned()),
        ..Kubeconfig::default()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const KUBECONFIG: &str = r#"{
        "clusters": [{ "name": "c1", "cluster": { "server": "https://one" } }, { "name": "c2", "cluster": {} }],
        "users": [{ "name": "u1", "user": { "token": "4711" } }, { "name": "u2", "user": {} }],
        "contexts": [
            { "name": "one", "context": { "cluster": "c1", "user": "u1" } },
            { "name": "two", "context": { "cluster": "c2", "user": "u2" } },
            { "name": "nobody", "context": { "cluster": "gone" } },
            { "name": "empty" }
        ],
        "current-context": "two"
    }"#;

    #[test]
    fn a_context_is_taken_with_its_cluster_and_user_alone() {
        let kubeconfig = Kubeconfig::from_yaml(KUBECONFIG).unwrap();
        let one = only(&kubeconfig, "one").unwrap();
        assert_eq!((one.clusters.len(), one.auth_infos.len(), one.contexts.len()), (1, 1, 1));
        assert_eq!((one.clusters[0].name.as_str(), one.auth_infos[0].name.as_str()), ("c1", "u1"));
        assert_eq!(one.current_context.as_deref(), Some("one"));
        let nobody = only(&kubeconfig, "nobody").unwrap();
        assert!(nobody.clusters.is_empty() && nobody.auth_infos.is_empty());
        assert!(only(&kubeconfig, "empty").is_none() && only(&kubeconfig, "three").is_none());
    }

    #[tokio::test]
    async fn so_many_are_asked_at_a_time_and_told_in_their_order() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let ask = |index: usize| {
            let (now, most) = (&now, &most);
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                // The first is the last to answer.
                for _ in index..100 {
                    tokio::task::yield_now().await;
                }
                now.fetch_sub(1, Ordering::Relaxed);
                vec![Place::new(Kind::File, index.to_string(), Err(Unread::new("x")))]
            }
            .boxed()
        };
        let told = gather((0..20).map(ask), 4).await;
        let names: Vec<_> = told.iter().map(|place| place.name.as_str()).collect();
        assert_eq!(names, (0..20).map(|index| index.to_string()).collect::<Vec<_>>());
        assert_eq!(most.into_inner(), 4);
    }
}

//! What both sides, the embedded and the real one, have to do alike. A case speaks to them over the network only.

mod admission;
mod controllers;
mod kubernetes;
mod login;
mod vault;
mod webhook;

use std::ops::Deref;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures::future::BoxFuture;
use libtest_mimic::{Arguments, Failed, Trial};
use testbed::{KubernetesApi, VaultApi};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

/// Longest wait for what takes the controllers or an election a moment, on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);

/// A case, and what it is run on.
pub struct Case<T> {
    name: &'static str,
    run: for<'a> fn(&'a T) -> BoxFuture<'a, Result<()>>,
}

/// A list of cases from `async fn(&T) -> Result<()>`.
macro_rules! cases {
    ($($case:ident),+ $(,)?) => {
        &[$(crate::suite::Case { name: stringify!($case), run: |on| Box::pin($case(on)) }),+]
    };
}
pub(crate) use cases;

/// A Vault of its own, and a cluster in which the case keeps to a namespace of its own.
pub struct Pair {
    pub vault: VaultApi,
    pub cluster: KubernetesApi,
}

/// Runs all cases. Each has a Vault of its own; the cluster is shared.
pub fn run<V, K, FutV, FutK>(
    side: &str,
    vault: impl Fn() -> FutV + Clone + Send + Sync + 'static,
    cluster: impl Fn() -> FutK + Clone + Send + Sync + 'static,
) -> ExitCode
where
    V: Deref<Target = VaultApi> + Send + Sync + 'static,
    K: Deref<Target = KubernetesApi> + Send + Sync + 'static,
    FutV: Future<Output = Result<V>> + Send,
    FutK: Future<Output = Result<K>> + Send,
{
    // Fails only if there is one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = match Runtime::new() {
        Ok(runtime) => Arc::new(runtime),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let shared = Arc::new(OnceCell::<K>::new());
    let mut trials = Vec::new();
    for case in vault::CASES {
        let (runtime, vault) = (Arc::clone(&runtime), vault.clone());
        trials.push(trial(side, "vault", case.name, move || {
            runtime.block_on(async { (case.run)(&*vault().await?).await })
        }));
    }
    let of_cluster: [(&str, &[&[Case<KubernetesApi>]]); 3] =
        [("kubernetes", &[kubernetes::CASES]), ("admission", admission::CASES), ("controllers", controllers::CASES)];
    for (group, cases) in of_cluster {
        for case in cases.iter().copied().flatten() {
            let (runtime, shared, cluster) = (Arc::clone(&runtime), Arc::clone(&shared), cluster.clone());
            trials.push(trial(side, group, case.name, move || {
                runtime.block_on(async { (case.run)(&**shared.get_or_try_init(&cluster).await?).await })
            }));
        }
    }
    for case in login::CASES {
        let (runtime, shared) = (Arc::clone(&runtime), Arc::clone(&shared));
        let (vault, cluster) = (vault.clone(), cluster.clone());
        trials.push(trial(side, "login", case.name, move || {
            runtime.block_on(async {
                let (vault, cluster) = (vault().await?, shared.get_or_try_init(&cluster).await?);
                let pair = Pair { vault: (*vault).clone(), cluster: (**cluster).clone() };
                (case.run)(&pair).await
            })
        }));
    }
    let ended = libtest_mimic::run(&Arguments::from_args(), trials);
    // Ends the cluster within the runtime that it was started in.
    let _entered = runtime.enter();
    drop(shared);
    ended.exit_code()
}

fn trial(side: &str, of: &str, name: &str, run: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(format!("{side}::{of}::{name}"), move || run().map_err(|error| Failed::from(format!("{error:#}"))))
}

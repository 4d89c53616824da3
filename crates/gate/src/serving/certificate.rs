//! The serving certificate and the callers, as the flags say.

use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use kube::Client;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::args::PAIR;
use crate::args::Serve;
use crate::readiness::{Part, Readiness};
use crate::run::Failure;
use crate::serving::ca_bundle::{self, Injection};
use crate::serving::client::CallersFile;
use crate::serving::files::{POLL, Pair};
use crate::serving::rotation::Lives;
use crate::serving::secret::ServingSecret;
use crate::serving::secret::keep::{Exchange, Wanted, keep};
use crate::serving::{Callers, Serving};

/// What is kept, and where its certificate is from.
pub(crate) struct Certificate {
    /// The certificate in use.
    pub(crate) serving: Arc<Serving>,
    source: Source,
    callers: Option<(Arc<Callers>, CallersFile)>,
}

enum Source {
    /// By the CAs in the Secret.
    Own(Lives),
    Files(Pair),
}

impl Certificate {
    /// Checks the flags, and reads the files that they name.
    pub(crate) async fn new(args: &Serve) -> Result<Self, Failure> {
        let serving = Arc::new(Serving::default());
        let lives = args.tls.lives().map_err(Failure::Usage)?;
        let source = match args.tls.pair().map_err(Failure::Usage)? {
            None => Source::Own(lives),
            Some((certificate, key)) => {
                let pair = Pair::load(certificate, key, &serving).await;
                Source::Files(pair.map_err(|error| Failure::Usage(format!("{PAIR}: {error}")))?)
            }
        };
        let callers = match args.tls.client_ca_file.clone() {
            None => None,
            Some(file) => Some(Callers::load(file).await.map_err(|error| {
                Failure::Usage(format!("--client-ca-file (variable GATE_CLIENT_CA_FILE): {error}"))
            })?),
        };
        Ok(Self { serving, source, callers })
    }

    /// Who may call, if not everybody.
    pub(crate) fn callers(&self) -> Option<Arc<Callers>> {
        self.callers.as_ref().map(|(callers, _)| Arc::clone(callers))
    }

    /// Starts the tasks that keep it. `first` is told once there is one.
    pub(crate) fn spawn(
        self,
        tasks: &mut JoinSet<()>,
        client: Client,
        args: &Serve,
        readiness: &Arc<Readiness>,
        first: oneshot::Sender<()>,
    ) {
        let Self { serving, source, callers } = self;
        if let Some((callers, file)) = callers {
            tasks.spawn(async move { callers.keep(file, POLL).await });
        }
        match source {
            Source::Files(pair) => {
                // caBundle is for whoever made the files to inject.
                readiness.done(Part::ValidatingCaBundle);
                readiness.done(Part::MutatingCaBundle);
                let _ = first.send(());
                tasks.spawn(pair.keep(serving, POLL));
            }
            Source::Own(lives) => {
                let secret = ServingSecret::new(client.clone(), &args.cluster.namespace, &args.tls.tls_secret);
                let exchange = Arc::new(Exchange::default());
                let wanted = Wanted { names: args.tls.dns_names(&args.cluster.namespace), lives };
                let injection = Injection {
                    configuration: args.tls.webhook_config.clone(),
                    secret: secret.clone(),
                    exchange: Arc::clone(&exchange),
                };
                let inject = (client, injection, Arc::clone(readiness));
                tasks.spawn(injecting::<ValidatingWebhookConfiguration>(inject.clone(), Part::ValidatingCaBundle));
                tasks.spawn(injecting::<MutatingWebhookConfiguration>(inject, Part::MutatingCaBundle));
                tasks.spawn(keep(secret, wanted, serving, exchange, || first.send(()).unwrap_or_default()));
            }
        }
    }
}

async fn injecting<K: ca_bundle::Configuration>(
    (client, injection, readiness): (Client, Injection, Arc<Readiness>),
    part: Part,
) {
    ca_bundle::keep::<K>(client, injection, || readiness.done(part)).await;
}

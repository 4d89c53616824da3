//! The clusters of a rescue: what they have, and what is put there.

use std::str::FromStr;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::RescueArgs;
use crate::args::{KubernetesArgs, signing_cluster_name};
use crate::ca::record::SigningRecord;
use crate::ca::signer::{Asked, OwnRoot, SignerKey, certified, common_name};
use crate::cluster::Write;
use crate::k8s::cacerts::Cacerts;
use crate::k8s::mesh::Served;
use crate::k8s::split::{OWN_ROOT, SplitSide};
use crate::life::rescue::Rescue;
use crate::plan::{Mesh, Published};
use crate::reason::{ByItself, Held, Reason};
use crate::run::{Failure, parts};

/// The Secret that istiod reads.
const CACERTS: &str = "cacerts";

/// A cluster, and the context by which it is reached.
#[derive(Clone, Debug)]
pub(super) struct Split {
    name: String,
    context: String,
}

impl FromStr for Split {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, context) = text.split_once('=').unwrap_or((text, text));
        let name =
            signing_cluster_name(name).map_err(|error| format!("the cluster's name: {error}; CLUSTER=CONTEXT"))?;
        Ok(Self { name, context: context.to_owned() })
    }
}

/// One cluster at one moment.
pub(super) struct Side {
    pub(super) name: String,
    pub(super) own: Option<OwnRoot>,
    pub(super) mesh: Mesh,
    pub(super) cacerts: Published,
    secret: Cacerts,
    split: SplitSide,
}

impl Side {
    /// Reads it. A wrong context is wrong use; what a cluster does not tell is a reason of its own.
    pub(super) async fn look(split: &Split, args: &RescueArgs) -> Result<Result<Self, Held>, Failure> {
        let Split { name, context } = split;
        let access = parts::access(&KubernetesArgs { kubeconfig: None, context: Some(context.clone()) }).await?;
        let (client, namespace) = (access.client, args.namespace.as_str());
        let (secret, split) = (Cacerts::new(client.clone(), namespace, CACERTS), SplitSide::new(&client, namespace));
        let served = Served::new(client, namespace);
        let read = tokio::try_join!(split.own_root(), served.read(), secret.read());
        let side = read.and_then(|(own, mesh, cacerts)| {
            let own = own.transpose().map_err(|flaw| unfit(&flaw.to_string()))?;
            Ok(Self { name: name.clone(), own, mesh, cacerts, secret, split })
        });
        Ok(side.map_err(|held| of(name, &held)))
    }

    /// Does what is to be done in it, and tells what was.
    pub(super) async fn bring(
        &self,
        todo: Rescue,
        life: Duration,
        (version, record): &(u64, SigningRecord),
    ) -> Result<Vec<String>, Held> {
        let mut said = Vec::new();
        if todo == Rescue::Bring {
            self.publish(life, *version, record).await.map_err(|held| of(&self.name, &held))?;
            said.push(format!("{}: a signer under its own root is in Secret {CACERTS}, beside all roots", self.name));
        }
        if todo != Rescue::Done {
            let count = self.split.restart_istiod(record.state()).await.map_err(|held| of(&self.name, &held))?;
            said.push(match count {
                0 => format!("{}: no Deployment of istiod was found: restart it by hand", self.name),
                count => format!("{}: {count} Deployment(s) of istiod are restarted, once", self.name),
            });
        }
        Ok(said)
    }

    async fn publish(&self, life: Duration, version: u64, record: &SigningRecord) -> Result<(), Held> {
        let own = self.own.as_ref().ok_or_else(|| unfit("it is not there"))?;
        let key = SignerKey::generate().map_err(|_| unfit("a signer's key could not be made"))?;
        let name = common_name(&self.name);
        let asked = Asked { key: &key, common_name: &name, life, at: Timestamp::now() };
        let signed = own.certify(&asked).map_err(|_| unfit("its key does not sign"))?;
        // The same check that what Vault certifies has to pass.
        let sound = certified(record, own.sha256, &signed, &asked).map_err(|flaw| unfit(&flaw.to_string()))?;
        match self.secret.publish(&self.cacerts, &sound, version, Some(record.state())).await? {
            Write::Done => Ok(()),
            Write::Changed => {
                let what = format!("Secret {CACERTS} was made meanwhile");
                Err(Held::new(Reason::RotationHeld, what, "run this again", ByItself::Unsaid))
            }
        }
    }
}

fn of(cluster: &str, held: &Held) -> Held {
    let held = held.without_promise();
    Held { what: format!("cluster {cluster}: {}", held.what), ..held }
}

fn unfit(why: &str) -> Held {
    let what = format!("nothing can be signed by the root in Secret {OWN_ROOT}");
    let next = "see that it is the one that istiod runs on, and ends later than a signer (--signer-life)";
    Held::new(Reason::RotationHeld, what, next, ByItself::Unsaid).because(why)
}

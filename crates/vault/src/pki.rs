//! Vault's PKI engine, as far as this cluster's signer needs it: the root's key is there and nowhere else.

mod import;
mod roots;
mod said;
#[cfg(any(test, feature = "samples"))]
pub(super) mod samples;
#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use vaultrs::api::pki::requests::ReadIssuerCertificateRequest;

use super::transport::{NoAnswer, Reply};
use super::{Plain, Refused, Vault, Way, answer, is_elsewhere_worth_a_try};
use gate_core::signer::{Engine, Signer};
use said::{Asked, Question};

/// How long before its making a certificate begins: a clock that is behind stops istiod. The policies pin it.
const BACK_DATED: &str = "1h";

/// How long a root lives. The policies pin it.
const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Vault makes a 4096-bit key on a small machine in some seconds, and forgets it with a caller who does not wait.
const ROOT_PATIENCE: Duration = Duration::from_secs(60);

/// Makes a span what Vault's policies compare to the letter.
fn ttl(span: Duration) -> String {
    let seconds = span.as_secs();
    if seconds.is_multiple_of(3600) { format!("{}h", seconds / 3600) } else { format!("{seconds}s") }
}

impl Signer for Vault {
    async fn issuer(&mut self, name: &str) -> Result<String, Refused> {
        let question = self.question(Asked::Issuer { name: name.to_owned() })?;
        let request = ReadIssuerCertificateRequest::builder().mount(question.mount.as_str()).issuer(name).build();
        let at = self.signs_at().await?;
        // Vault tells it to anybody.
        let reply = match request {
            Ok(request) => self.transports[at].call(request, &self.middleware(None)).await,
            Err(error) => Err(NoAnswer::of(error)),
        };
        said::issuer(&question, &self.answered(at, &question, reply)?)
    }

    async fn certify(&mut self, issuer: &str, csr: &str, common_name: &str, life: Duration) -> Result<String, Refused> {
        let ttl = ttl(life);
        let question = self.question(Asked::Signer {
            issuer: issuer.to_owned(),
            common_name: common_name.to_owned(),
            ttl: ttl.clone(),
        })?;
        // vaultrs' own request has numbers and empty lists, which no policy that pins the parameters lets pass.
        let body = json!({
            "csr": csr, "common_name": common_name, "organization": "Istio", "ttl": ttl, "max_path_length": "0",
            "not_before_duration": BACK_DATED, "format": "pem",
        });
        let at = self.signs_at().await?;
        let path = format!("{}/issuer/{issuer}/sign-intermediate", question.mount);
        let reply = self.ask_signer(at, &question, &Plain::post(path, body)).await?;
        said::signer(&question, &reply)
    }

    async fn make_root(&mut self, name: &str, common_name: &str) -> Result<String, Refused> {
        let question = self.question(Asked::Root { name: name.to_owned(), life: ROOT_LIFE })?;
        let at = self.signs_at().await?;
        let mount = Plain::get(format!("sys/internal/ui/mounts/{}", question.mount));
        said::mount(&question, &self.ask_signer(at, &question, &mount).await?)?;
        let body = json!({
            "issuer_name": name, "common_name": common_name, "organization": "Istio", "ttl": ttl(ROOT_LIFE),
            "key_type": "rsa", "key_bits": "4096", "not_before_duration": BACK_DATED, "exclude_cn_from_sans": "true",
            "format": "pem",
        });
        let make = Plain::post(format!("{}/root/generate/internal", question.mount), body);
        let patience = ROOT_PATIENCE.max(self.settings.timeout);
        said::made(&question, &self.ask_signer_by(Way::Within(patience), at, &question, &make).await?)?;
        self.never_outlived(at, name).await?;
        let certificate = self.issuer(name).await?;
        said::lasting(&question, certificate, Timestamp::now())
    }
}

impl Engine for Vault {
    async fn reach(&mut self) -> Result<(), Refused> {
        let question = self.question(Asked::Mount)?;
        let at = self.signs_at().await?;
        let mount = Plain::get(format!("sys/internal/ui/mounts/{}", question.mount));
        said::mount(&question, &self.ask_signer(at, &question, &mount).await?)
    }
}

impl Vault {
    /// Has Vault refuse a signer that would end after its root, in place of cutting its life.
    async fn never_outlived(&mut self, at: usize, issuer: &str) -> Result<(), Refused> {
        let question = self.question(Asked::Behavior { issuer: issuer.to_owned() })?;
        let path = format!("{}/issuer/{issuer}", question.mount);
        let body = json!({ "leaf_not_after_behavior": "always_enforce_err" });
        let change = Plain::patch(path, body);
        said::changed(&question, &self.ask_signer(at, &question, &change).await?)
    }

    fn question(&self, asked: Asked) -> Result<Question, Refused> {
        let Some(mount) = self.settings.pki_mount.clone() else { return Err(said::no_mount().into()) };
        Ok(Question { mount, role: self.settings.role.clone(), asked })
    }

    /// The address where the record was read, which is the Vault that this cluster is kept on.
    pub(super) async fn signs_at(&mut self) -> Result<usize, Refused> {
        if let Some(at) = self.read_at {
            return Ok(at);
        }
        let mut silent = Vec::new();
        for (at, looked) in self.look().await {
            match looked {
                Ok(_) => return Ok(at),
                Err(refused) if is_elsewhere_worth_a_try(&refused) => silent.push(refused),
                Err(refused) => return Err(refused),
            }
        }
        Err(answer::none_answered(silent))
    }

    async fn ask_signer(&mut self, at: usize, question: &Question, request: &Plain) -> Result<Reply, Refused> {
        self.ask_signer_by(Way::Own, at, question, request).await
    }

    async fn ask_signer_by(
        &mut self,
        way: Way,
        at: usize,
        question: &Question,
        request: &Plain,
    ) -> Result<Reply, Refused> {
        self.with_token(at, way, |_| Ok(request.clone()), |vault, reply| vault.answered(at, question, reply)).await
    }

    /// Sorts out what is no answer. The engine answers some questions with a 500, which is none of the server's.
    fn answered(&self, at: usize, question: &Question, reply: Result<Reply, NoAnswer>) -> Result<Reply, Refused> {
        match reply {
            Ok(reply) if said::is_answer(&reply) => Err(said::refused(question, &reply)),
            reply => self.told(at, reply),
        }
    }
}

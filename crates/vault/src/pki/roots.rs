//! What whoever changes the root asks of the PKI engine.

use serde_json::json;

use super::said::{self, Asked};
use super::{Plain, Refused, Vault};

/// Of an issuer that may certify.
const ISSUING: &str = "issuing-certificates";
/// What it may do then, and what it may do without.
const USAGES: [&str; 2] = ["read-only,issuing-certificates,crl-signing", "read-only,crl-signing"];

impl Vault {
    /// Whether this issuer may not certify any more.
    ///
    /// # Errors
    /// If that cannot be told.
    pub async fn is_retired(&mut self, issuer: &str) -> Result<bool, Refused> {
        let question = self.question(Asked::Usage { issuer: issuer.to_owned() })?;
        let at = self.signs_at().await?;
        let request = Plain::get(format!("{}/issuer/{issuer}", question.mount));
        let reply = self.ask_signer(at, &question, &request).await?;
        Ok(!said::usage(&question, &reply)?.iter().any(|usage| usage == ISSUING))
    }

    /// Takes away an issuer's right to certify, or gives it back.
    ///
    /// # Errors
    /// If it is not known to be done.
    pub async fn retire(&mut self, issuer: &str, is_retired: bool) -> Result<(), Refused> {
        if self.is_retired(issuer).await? == is_retired {
            return Ok(());
        }
        let question = self.question(Asked::NewUsage { issuer: issuer.to_owned() })?;
        let at = self.signs_at().await?;
        let change = json!({ "usage": USAGES[usize::from(is_retired)] });
        let request = Plain::patch(format!("{}/issuer/{issuer}", question.mount), change);
        said::changed(&question, &self.ask_signer(at, &question, &request).await?)
    }

    /// This root, certified by this issuer. Nothing is kept of it in Vault.
    ///
    /// # Errors
    /// Why it is not.
    pub async fn cross(&mut self, issuer: &str, root: &str) -> Result<String, Refused> {
        let question = self.question(Asked::Cross { issuer: issuer.to_owned() })?;
        let at = self.signs_at().await?;
        let path = format!("{}/issuer/{issuer}/sign-self-issued", question.mount);
        let request = Plain::post(path, json!({ "certificate": root }));
        let reply = self.ask_signer(at, &question, &request).await?;
        said::issuer(&question, &reply)
    }
}

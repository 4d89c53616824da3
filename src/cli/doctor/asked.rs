//! What the report is about: the names of things in this installation.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::ca::signer::SignerTerms;
use crate::gate::Gated;
use crate::plan::{Names, Role};
use crate::vault::Claims;

/// A certificate that ends sooner is a warning: a CA is not renewed in a hurry.
pub(super) const CA_ENDS_SOON: SignedDuration = SignedDuration::from_hours(90 * 24);

/// The same of a server's certificate, which ACME clients renew about a month before its end.
pub(super) const CERTIFICATE_ENDS_SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

/// Older than `--max-staleness` at its default: this gate would not bridge an outage of Vault's any more.
pub(super) const VERIFIED_LONG_AGO: SignedDuration = SignedDuration::from_hours(24);

/// The subject of a report.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) role: Role,
    /// Nothing is installed yet.
    pub(super) pre: bool,
    pub(super) namespace: String,
    pub(super) secret: String,
    /// `None`: the gate's certificate is from files.
    pub(super) tls_secret: Option<String>,
    pub(super) webhook_config: String,
    /// Namespace of the pod that is created by dry run.
    pub(super) self_test: String,
    pub(super) gated: Gated,
    /// Name of the gate's service account.
    pub(super) account: String,
    pub(super) names: Names,
    /// How this cluster's signer is made, where the PKI engine is named.
    pub(super) signer: Option<SignerTerms>,
    /// `VAULT_TOKEN` is used, and not a login.
    pub(super) own_token: bool,
    pub(super) auth_mount: String,
    pub(super) vault_role: String,
    pub(super) mount: String,
    pub(super) path: String,
    pub(super) now: Timestamp,
}

impl Asked {
    /// Days until then; what is past counts as none.
    pub(super) fn days_until(&self, end: Timestamp) -> i64 {
        (end.duration_since(self.now).as_hours() / 24).max(0)
    }

    /// Whether a token is past its end.
    pub(super) fn has_ended(&self, claims: &Claims) -> bool {
        claims.expires.is_some_and(|end| end <= self.now)
    }

    pub(super) fn ends_within(&self, end: Timestamp, soon: SignedDuration) -> bool {
        end.duration_since(self.now) < soon
    }
}

/// As `date -u` is read.
pub(super) fn day(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

/// The same with the time of day.
pub(super) fn minute(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%MZ").to_string()
}

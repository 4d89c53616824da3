//! `GET /`: the facts of `/fingerprint` for people, and beside them those of other clusters' gates. No script, and
//! nothing from elsewhere.

mod clusters;
mod html;
mod parts;
mod rotation;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, REFRESH, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue};
use k8s_openapi::jiff::Timestamp;

use crate::ca::Sha256;
use crate::clock::Clocks;
use crate::explain::Explanation;
use crate::life::course::Outlook;
use crate::peers::Heard;
use crate::plan::Role;
use crate::report::{self, Report};
use crate::snapshot::{Contradicted, LastVerified, Policy, Snapshot};
use crate::webhook::kept_out::Waiting;

/// The one style sheet, in the page itself.
const STYLE: &str = include_str!("page/style.css");

/// Nothing is loaded, run, framed or sent, and no style but ours is used, whatever a foreign text smuggled in.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let digest = BASE64_STANDARD.encode(Sha256::of(STYLE.as_bytes()).0);
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    // Base64 always can be in a header.
    HeaderValue::try_from(policy).unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"))
});

/// The query of the page that loads itself anew.
const RELOADING: &str = "reload";

/// As long as peers are left alone, too.
const RELOAD_SECONDS: u16 = 15;

/// The header by which a browser loads it anew, where that is asked for: a selection is lost by it.
pub(crate) fn reload(query: Option<&str>) -> Option<(HeaderName, HeaderValue)> {
    (query == Some(RELOADING)).then(|| (REFRESH, HeaderValue::from(RELOAD_SECONDS)))
}

/// The headers of the page.
pub fn headers() -> [(HeaderName, HeaderValue); 5] {
    let fixed = HeaderValue::from_static;
    [
        (CONTENT_TYPE, fixed("text/html; charset=utf-8")),
        (CONTENT_SECURITY_POLICY, POLICY.clone()),
        (X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
        (REFERRER_POLICY, fixed("no-referrer")),
        (CACHE_CONTROL, fixed("no-store")),
    ]
}

/// What this gate knows of its own cluster.
pub struct Here {
    report: Report,
    /// The roots of `cacerts`.
    roots: Option<BTreeSet<Sha256>>,
    /// Vault's, as last read.
    stored: Option<BTreeSet<Sha256>>,
    /// Since when no attempt has ended with an open gate.
    held_since: Option<Timestamp>,
    /// What the pin says.
    last_verified: Option<LastVerified>,
    /// What Vault then said against it.
    contradicted: Option<Contradicted>,
    /// Whose pods this replica keeps out.
    waiting: Vec<Waiting>,
    self_test: SelfTested,
}

/// Whether the API server calls a gate, as far as that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelfTested {
    /// Nobody wants it.
    Off,
    /// Not yet.
    Never,
    /// Whether it came back to a gate, and when.
    Last(bool, Timestamp),
}

impl Here {
    /// Takes it from what is known.
    pub fn of(cluster: &str, role: Role, known: Snapshot<'_>, policy: &Policy, now: Clocks) -> Self {
        let convergence = known.convergence;
        Self {
            report: report::report(cluster, role, known, policy, now),
            roots: known.watched.glance().map(|(glance, _)| glance.roots.clone()),
            stored: convergence.root.as_ref().map(|root| root.glance.roots.clone()),
            held_since: convergence.held_since,
            last_verified: convergence.last_verified.clone(),
            contradicted: convergence.contradicted,
            waiting: Vec::new(),
            self_test: SelfTested::Off,
        }
    }

    /// The same with what stands beside the convergence.
    pub fn with(self, waiting: Vec<Waiting>, self_test: SelfTested, outlook: Option<&Outlook>) -> Self {
        Self { report: self.report.with(outlook), waiting, self_test, ..self }
    }
}

/// The page.
pub(crate) fn page(here: &Here, peers: &[Heard], version: &str, now: Timestamp) -> String {
    html::document(here, peers, version, now).into_string()
}

/// What a code means and what to do.
pub(crate) fn explanation(entry: &Explanation, version: &str) -> String {
    html::explanation(entry, version).into_string()
}

#[cfg(test)]
mod tests;

//! `GET /`: the facts of `/fingerprint` for people, and beside them those of other clusters' gates. No script, and
//! nothing from elsewhere.

mod html;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue};
use k8s_openapi::jiff::Timestamp;

use crate::ca::Sha256;
use crate::clock::Clocks;
use crate::explain::Explanation;
use crate::peers::{Heard, Verdict, verdict};
use crate::plan::Role;
use crate::report::{self, Report};
use crate::snapshot::{Policy, Snapshot};

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
    last_verified: Option<Timestamp>,
}

impl Here {
    /// Takes it from what is known.
    pub fn of(cluster: &str, role: Role, known: Snapshot<'_>, policy: &Policy, now: Clocks) -> Self {
        let roots = known.watched.glance().map(|(glance, _)| glance.roots.clone());
        let last_verified = known.convergence.last_verified.as_ref().map(|last| last.at.wall);
        Self { report: report::report(cluster, role, known, policy, now), roots, last_verified }
    }
}

/// The page.
pub(crate) fn page(here: &Here, peers: &[Heard], version: &str, now: Timestamp) -> String {
    let all = [here.roots.as_ref()].into_iter().chain(peers.iter().map(Heard::roots));
    let verdict: Option<Verdict> = (!peers.is_empty()).then(|| verdict(all));
    html::document(here, peers, verdict, version, now).into_string()
}

/// What a code means and what to do.
pub(crate) fn explanation(entry: &Explanation, version: &str) -> String {
    html::explanation(entry, version).into_string()
}

#[cfg(test)]
mod tests;

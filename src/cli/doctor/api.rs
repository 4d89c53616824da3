//! Link 9: the API server, its version, and who asks it.

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::Api;
use kube::api::PostParams;

use super::asked::Asked;
use super::check::{Check, Eyes, Sight};
use super::cluster::Cluster;
use super::line::{Line, Link};
use super::look::{Asker, Look};
use crate::reason::foreign_text;

/// The oldest minor version that docs/install.md names.
const OLDEST: u32 = 30;

/// That it answers.
pub(super) struct ApiServer;

#[async_trait(?Send)]
impl Check for ApiServer {
    async fn look(&self, eyes: &Eyes<'_>, seen: &mut Sight) {
        if seen.cluster.answers() {
            seen.cluster.me = me(eyes.asker).await;
        }
    }

    fn lines(&self, seen: &Sight, _: &Asked) -> Vec<Line> {
        vec![line(&seen.cluster)]
    }
}

/// Its version: all the rest is asked only if there is an answer to this.
pub(super) async fn version(asker: &Asker) -> Look<String> {
    let version = asker.ask("get /version", asker.client.apiserver_version()).await;
    version.map(|version| foreign_text(&version.git_version))
}

async fn me(asker: &Asker) -> Look<String> {
    let review: Api<SelfSubjectReview> = Api::all(asker.client.clone());
    let (post, who) = (PostParams::default(), SelfSubjectReview::default());
    let me = asker.ask("create selfsubjectreviews.authentication.k8s.io", review.create(&post, &who)).await;
    let me = me.map(|review| review.status.and_then(|status| status.user_info?.username).unwrap_or_default());
    me.map(|name| foreign_text(&name))
}

fn line(cluster: &Cluster) -> Line {
    let link = Link::new("kubernetes-api", "the API server");
    let version = match cluster.version.or_line(&link) {
        Err(line) => return line,
        Ok(version) => version.map_or("unknown", String::as_str),
    };
    let me = cluster.me.seen().map_or("somebody", String::as_str);
    let seen = format!("version {version}, asked as {me}");
    if minor(version).is_some_and(|minor| minor < OLDEST) {
        return link.warning(
            format!("{seen}; older than 1.{OLDEST}"),
            "upgrade Kubernetes: docs/install.md says what is tested",
        );
    }
    link.ok(seen)
}

/// Of `v1.34.4+k3s1`: 34.
fn minor(version: &str) -> Option<u32> {
    version.trim_start_matches('v').strip_prefix("1.")?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::line::Outcome;
    use super::super::samples::{self, expect};
    use super::*;

    #[test]
    fn an_api_server_that_is_too_old_is_warned_of_and_one_of_a_distribution_is_not() {
        let of = |version: &str| line(&Cluster { version: Look::Seen(version.to_owned()), ..samples::cluster() });
        expect(&of("v1.29.15"), Outcome::Warning, "older than 1.30");
        for fine in ["v1.30.0", "v1.34.4+k3s1", "v1.31.1-eks-1b3e656", "unknown", "v2.0.0"] {
            expect(&of(fine), Outcome::Ok, fine);
        }
    }
}

//! Whether RBAC grants what deploy/kustomize/base/rbac.yaml says, to whom it has to be granted.

use async_trait::async_trait;
use futures::StreamExt;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReview,
    SubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;

use super::asked::Asked;
use super::check::{Check, Eyes, Sight};
use super::line::{Line, Link};
use super::look::{Asker, Look};
use crate::k8s::{mesh, pin};
use crate::reason::Reason;

/// Reviews at a time: the API server need not notice.
const AT_A_TIME: usize = 8;

/// A right of the gate's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Right {
    pub(super) group: &'static str,
    pub(super) resource: &'static str,
    pub(super) verb: &'static str,
    /// Empty: any.
    pub(super) name: String,
    /// Empty: not in a namespace.
    pub(super) namespace: String,
}

impl Right {
    /// To what.
    fn object(&self) -> String {
        let of_group = if self.group.is_empty() { String::new() } else { format!(".{}", self.group) };
        let name = if self.name.is_empty() { String::new() } else { format!(" {}", self.name) };
        format!("{}{of_group}{name}", self.resource)
    }

    fn attributes(&self) -> ResourceAttributes {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let (resource, subresource) = self.resource.split_once('/').unwrap_or((self.resource, ""));
        ResourceAttributes {
            group: some(self.group),
            resource: some(resource),
            subresource: some(subresource),
            verb: some(self.verb),
            name: some(&self.name),
            namespace: some(&self.namespace),
            ..ResourceAttributes::default()
        }
    }
}

/// What things are called that rights name.
#[derive(Clone, Copy, Debug)]
pub(super) struct RuleNames<'a> {
    pub(super) namespace: &'a str,
    pub(super) secret: &'a str,
    pub(super) tls_secret: Option<&'a str>,
    pub(super) webhook_config: &'a str,
}

/// Group, resources, names and verbs, as in deploy/kustomize/base/rbac.yaml.
type Rule<'a> = (&'static str, &'static [&'static str], &'a str, &'static [&'static str]);

/// Every right of deploy/kustomize/base/rbac.yaml.
pub(super) fn needed(names: &RuleNames<'_>) -> Vec<Right> {
    let mut here: Vec<Rule<'_>> = vec![
        ("", &["secrets"], names.secret, &["get", "list", "watch", "patch"]),
        ("", &["configmaps"], pin::NAME, &["get", "patch"]),
        ("", &["configmaps"], mesh::NAME, &["get"]),
        ("", &["secrets", "configmaps"], "", &["create"]),
        ("", &["events"], "", &["create", "patch"]),
        ("apps", &["replicasets", "statefulsets", "daemonsets"], "", &["get", "list"]),
        ("apps", &["deployments"], "", &["get"]),
        ("apps", &["replicasets/status", "statefulsets/status", "daemonsets/status"], "", &["patch"]),
        ("batch", &["jobs"], "", &["get", "list"]),
        ("batch", &["jobs/status"], "", &["patch"]),
    ];
    if let Some(secret) = names.tls_secret {
        here.insert(1, ("", &["secrets"], secret, &["get", "list", "watch", "patch"]));
    }
    let everywhere: [Rule<'_>; 1] = [(
        "admissionregistration.k8s.io",
        &["validatingwebhookconfigurations", "mutatingwebhookconfigurations"],
        names.webhook_config,
        &["list", "watch", "patch"],
    )];
    let rights = |(group, resources, name, verbs): Rule<'_>, namespace: &str| {
        let pairs = resources.iter().flat_map(|resource| verbs.iter().map(move |verb| (*resource, *verb)));
        let right =
            |(resource, verb)| Right { group, resource, verb, name: name.to_owned(), namespace: namespace.to_owned() };
        pairs.map(right).collect::<Vec<_>>()
    };
    let here = here.into_iter().flat_map(|rule| rights(rule, names.namespace));
    here.chain(everywhere.into_iter().flat_map(|rule| rights(rule, ""))).collect()
}

/// What the component external-secrets grants beside them: to have the ExternalSecret of `cacerts` synced.
pub(super) fn of_external_secret(namespace: &str, name: &str) -> Vec<Right> {
    let right = |verb, name: &str| Right {
        group: "external-secrets.io",
        resource: "externalsecrets",
        verb,
        name: name.to_owned(),
        namespace: namespace.to_owned(),
    };
    vec![right("get", name), right("patch", name), right("list", "")]
}

/// Whether it has all of them.
pub(super) struct GateRights;

#[async_trait(?Send)]
impl Check for GateRights {
    async fn look(&self, eyes: &Eyes<'_>, seen: &mut Sight) {
        if seen.cluster.answers() {
            let gate = user_of(&eyes.asked.namespace, &eyes.asked.account);
            let needed = needed(&names(eyes.asked));
            seen.cluster.rights = look(eyes.asker, &seen.cluster.me, &eyes.asked.namespace, &gate, &needed).await;
        }
    }

    fn lines(&self, seen: &Sight, asked: &Asked) -> Vec<Line> {
        let gate = user_of(&asked.namespace, &asked.account);
        vec![line(&gate, &seen.cluster.me, &seen.cluster.rights, needed(&names(asked)).len())]
    }
}

fn names(asked: &Asked) -> RuleNames<'_> {
    RuleNames {
        namespace: &asked.namespace,
        secret: &asked.secret,
        tls_secret: asked.tls_secret.as_deref(),
        webhook_config: &asked.webhook_config,
    }
}

/// On whose behalf it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Behalf {
    /// The gate's service account asks, or was asked for.
    Gate,
    /// The asker's own, since it may not ask for others.
    Asker,
}

/// The rights that are lacking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rights {
    pub(super) behalf: Behalf,
    pub(super) missing: Vec<Right>,
}

/// For people: the verbs of one object together.
pub(super) fn listed(rights: &[Right]) -> String {
    let mut objects: Vec<(String, Vec<&str>)> = Vec::new();
    for right in rights {
        let object = right.object();
        match objects.iter_mut().find(|(other, _)| *other == object) {
            Some((_, verbs)) => verbs.push(right.verb),
            None => objects.push((object, vec![right.verb])),
        }
    }
    let texts: Vec<_> = objects.iter().map(|(object, verbs)| format!("{} {object}", verbs.join(", "))).collect();
    texts.join("; ")
}

/// The user name of a service account.
pub(super) fn user_of(namespace: &str, account: &str) -> String {
    format!("system:serviceaccount:{namespace}:{account}")
}

/// Asks for each right.
pub(super) async fn look(
    asker: &Asker,
    me: &Look<String>,
    namespace: &str,
    gate: &str,
    rights: &[Right],
) -> Look<Rights> {
    if me.seen().is_some_and(|me| me == gate) {
        return reviews(asker, rights, None).await.map(|missing| Rights { behalf: Behalf::Gate, missing });
    }
    match reviews(asker, rights, Some((gate, namespace))).await {
        Look::Forbidden(_) => {
            reviews(asker, rights, None).await.map(|missing| Rights { behalf: Behalf::Asker, missing })
        }
        asked => asked.map(|missing| Rights { behalf: Behalf::Gate, missing }),
    }
}

/// The rights that are not granted to a user of this name in this namespace, or to the asker.
async fn reviews(asker: &Asker, rights: &[Right], user: Option<(&str, &str)>) -> Look<Vec<Right>> {
    let asked =
        rights.iter().map(|right| async move { review(asker, right, user).await.map(|granted| (granted, right)) });
    let answers: Vec<_> = futures::stream::iter(asked).buffered(AT_A_TIME).collect().await;
    let mut missing = Vec::new();
    for answer in answers {
        match answer {
            Look::Seen((true, _)) => {}
            Look::Seen((false, right)) => missing.push(right.clone()),
            other => return other.map(|_| Vec::new()),
        }
    }
    Look::Seen(missing)
}

async fn review(asker: &Asker, right: &Right, user: Option<(&str, &str)>) -> Look<bool> {
    let post = PostParams::default();
    let resource_attributes = Some(right.attributes());
    let status = match user {
        Some((user, namespace)) => {
            let groups =
                ["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}"), "system:authenticated"]
                    .map(str::to_owned);
            let spec = SubjectAccessReviewSpec {
                user: Some(user.to_owned()),
                groups: Some(groups.to_vec()),
                resource_attributes,
                ..SubjectAccessReviewSpec::default()
            };
            let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
            let api: Api<SubjectAccessReview> = Api::all(asker.client.clone());
            let asked = asker.ask("create subjectaccessreviews.authorization.k8s.io", api.create(&post, &review));
            asked.await.map(|review| review.status)
        }
        None => {
            let spec = SelfSubjectAccessReviewSpec { resource_attributes, ..SelfSubjectAccessReviewSpec::default() };
            let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
            let api: Api<SelfSubjectAccessReview> = Api::all(asker.client.clone());
            let asked = asker.ask("create selfsubjectaccessreviews.authorization.k8s.io", api.create(&post, &review));
            asked.await.map(|review| review.status)
        }
    };
    status.map(|status| status.is_some_and(|status| status.allowed))
}

/// The line about them.
pub(super) fn line(gate: &str, me: &Look<String>, rights: &Look<Rights>, needed: usize) -> Line {
    let link = Link::new("kubernetes-rights", format!("rights of {gate}"));
    let Rights { behalf, missing } = match rights.or_line(&link) {
        Ok(Some(rights)) => rights,
        Ok(None) => return link.note("the API server has no access reviews"),
        Err(line) => return line,
    };
    match (behalf, missing.as_slice()) {
        (Behalf::Gate, []) => link.ok(format!("all {needed} of deploy/kustomize/base/rbac.yaml")),
        (Behalf::Gate, missing) => link
            .failed(
                format!("lacks {} of {needed}: {}", missing.len(), listed(missing)),
                "apply the RBAC of deploy/ with this service account as its subject, or name the gate's with --service-account",
            )
            .reason(Reason::KubernetesForbidden),
        (Behalf::Asker, missing) => {
            let me = me.seen().map_or("the asker", String::as_str);
            let own = if missing.is_empty() { "has them all".to_owned() } else { format!("lacks {}", listed(missing)) };
            link.note(format!(
                "may not be looked at: no right to create subjectaccessreviews.authorization.k8s.io; asked on behalf of {me} instead, who {own}"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::super::line::Outcome;
    use super::*;

    const NAMES: RuleNames<'_> = RuleNames {
        namespace: "istio-system",
        secret: "cacerts",
        tls_secret: Some("istio-ca-gate-tls"),
        webhook_config: "istio-ca-gate",
    };

    /// Group, resource, verb, name and namespace of all that a manifest grants.
    fn granted(manifest: &str) -> BTreeSet<[String; 5]> {
        let strings = |value: &Value| -> Vec<String> { serde_json::from_value(value.clone()).unwrap_or_default() };
        let mut granted = BTreeSet::new();
        for object in serde_saphyr::from_multiple::<Value>(manifest).unwrap() {
            let namespace = if object["kind"] == "Role" { "istio-system" } else { "" };
            for rule in object["rules"].as_array().into_iter().flatten() {
                let mut names = strings(&rule["resourceNames"]);
                if names.is_empty() {
                    names.push(String::new());
                }
                for group in strings(&rule["apiGroups"]) {
                    for resource in strings(&rule["resources"]) {
                        for verb in strings(&rule["verbs"]) {
                            let of = |name: &String| {
                                [group.clone(), resource.clone(), verb.clone(), name.clone(), namespace.to_owned()]
                            };
                            granted.extend(names.iter().map(of));
                        }
                    }
                }
            }
        }
        granted
    }

    fn flat(right: Right) -> [String; 5] {
        let Right { group, resource, verb, name, namespace } = right;
        [group.to_owned(), resource.to_owned(), verb.to_owned(), name, namespace]
    }

    #[test]
    fn the_rights_are_those_of_the_manifests_and_no_others() {
        let base = include_str!("../../../deploy/kustomize/base/rbac.yaml");
        let external_secrets = include_str!("../../../deploy/kustomize/components/external-secrets/rbac.yaml");
        for (needed, manifest) in
            [(needed(&NAMES), base), (of_external_secret("istio-system", "istio-cacerts"), external_secrets)]
        {
            let granted = granted(manifest);
            assert_eq!(needed.len(), granted.len());
            assert_eq!(needed.into_iter().map(flat).collect::<BTreeSet<_>>(), granted);
        }
    }

    #[test]
    fn a_subresource_is_asked_for_as_one() {
        let right = needed(&NAMES).into_iter().find(|right| right.resource == "jobs/status").unwrap();
        let attributes = right.attributes();
        assert_eq!((attributes.resource.as_deref(), attributes.subresource.as_deref()), (Some("jobs"), Some("status")));
        assert_eq!(right.object(), "jobs/status.batch");
    }

    fn line_of(rights: Look<Rights>) -> Line {
        line("system:serviceaccount:istio-system:gate", &Look::Seen("kim".to_owned()), &rights, needed(&NAMES).len())
    }

    /// Without the first so many.
    fn rights(behalf: Behalf, lacking: usize) -> Look<Rights> {
        Look::Seen(Rights { behalf, missing: needed(&NAMES).into_iter().take(lacking).collect() })
    }

    #[test]
    fn a_missing_right_of_the_gates_fails_and_is_named() {
        assert_eq!(line_of(rights(Behalf::Gate, 0)).outcome, Outcome::Ok);
        let line = line_of(rights(Behalf::Gate, 5));
        assert_eq!((line.outcome, line.reason), (Outcome::Failed, Some(Reason::KubernetesForbidden)));
        assert!(
            line.seen.contains("lacks 5 of 34: get, list, watch, patch secrets cacerts; get secrets istio-ca-gate-tls"),
            "{}",
            line.seen
        );
    }

    #[test]
    fn the_askers_own_rights_say_nothing_of_the_gates() {
        for lacking in [0, 1] {
            let line = line_of(rights(Behalf::Asker, lacking));
            assert_eq!(line.outcome, Outcome::Note);
            assert!(line.seen.contains("on behalf of kim"), "{}", line.seen);
        }
    }
}

//! Who may do what, by the roles and bindings that are stored.
//!
//! The rules are those of `plugin/pkg/auth/authorizer/rbac` and `pkg/apis/rbac/v1/evaluation_helpers.go`.

use serde_json::{Value, json};

use super::object::meta;
use super::refusal::Refusal;
use super::route::Ask;
use super::store::{Key, Store};
use super::tokens::User;

/// Every right that a user has.
pub(crate) struct Rights {
    /// Each rule with the namespace that it is for; none is everywhere.
    rules: Vec<(Option<String>, Value)>,
    /// Roles that are bound and not there, with the same.
    missing: Vec<(Option<String>, String)>,
    all: bool,
}

impl Rights {
    pub(crate) fn of(store: &Store, user: &User) -> Self {
        let mut rights = Self { rules: Vec::new(), missing: Vec::new(), all: has_all(user) };
        if rights.all {
            return rights;
        }
        for plural in ["clusterrolebindings", "rolebindings"] {
            for binding in store.list(plural, None).iter().filter(|binding| binds(binding, user)) {
                let namespace = Some(meta(binding, "namespace").to_owned()).filter(|namespace| !namespace.is_empty());
                match role_rules(store, binding) {
                    Ok(rules) => rights.rules.extend(rules.into_iter().map(|rule| (namespace.clone(), rule))),
                    Err(missing) => rights.missing.push((namespace, missing)),
                }
            }
        }
        rights
    }

    pub(crate) fn allow(&self, ask: &Ask) -> bool {
        self.all || self.rules.iter().any(|(namespace, rule)| is_for(namespace.as_ref(), ask) && allows(rule, ask))
    }

    /// What stood in the way of finding a right, in the authorizer's words.
    pub(crate) fn trouble(&self, ask: &Ask) -> Option<String> {
        let missing: Vec<&str> = self
            .missing
            .iter()
            .filter(|(namespace, _)| is_for(namespace.as_ref(), ask))
            .map(|(_, role)| role.as_str())
            .collect();
        match missing.as_slice() {
            [] => None,
            [one] => Some(format!("RBAC: {one}")),
            several => Some(format!("RBAC: [{}]", several.join(", "))),
        }
    }
}

fn is_for(namespace: Option<&String>, ask: &Ask) -> bool {
    namespace.is_none_or(|namespace| ask.is_resource && *namespace == ask.namespace)
}

fn binds(binding: &Value, user: &User) -> bool {
    let own = meta(binding, "namespace");
    binding["subjects"].as_array().into_iter().flatten().any(|subject| is(user, own, subject))
}

/// Members of `system:masters` are asked for nothing, nor are the controllers, whose roles are not written out here.
fn has_all(user: &User) -> bool {
    const CONTROLLERS: [&str; 5] = [
        "deployment-controller",
        "replicaset-controller",
        "job-controller",
        "generic-garbage-collector",
        "namespace-controller",
    ];
    let controller = user.name.strip_prefix("system:serviceaccount:kube-system:");
    user.groups.iter().any(|group| group == "system:masters")
        || controller.is_some_and(|name| CONTROLLERS.contains(&name))
}

fn is(user: &User, own_namespace: &str, subject: &Value) -> bool {
    let name = subject["name"].as_str().unwrap_or_default();
    match subject["kind"].as_str() {
        Some("User") => name == user.name,
        Some("Group") => user.groups.iter().any(|group| group == name),
        Some("ServiceAccount") => {
            let namespace = subject["namespace"].as_str().unwrap_or(own_namespace);
            user.name == format!("system:serviceaccount:{namespace}:{name}")
        }
        _ => false,
    }
}

/// The rules of the role that is bound, or what is said if it is not there.
fn role_rules(store: &Store, binding: &Value) -> Result<Vec<Value>, String> {
    let role = &binding["roleRef"];
    let (plural, kind, namespace) = match role["kind"].as_str() {
        Some("ClusterRole") => ("clusterroles", "clusterrole", ""),
        _ => ("roles", "role", meta(binding, "namespace")),
    };
    let name = role["name"].as_str().unwrap_or_default().to_owned();
    match store.get(&Key { plural, namespace: namespace.to_owned(), name: name.clone() }) {
        Some(role) => Ok(role["rules"].as_array().cloned().unwrap_or_default()),
        None => Err(format!("{kind}.rbac.authorization.k8s.io {name:?} not found")),
    }
}

fn allows(rule: &Value, ask: &Ask) -> bool {
    let values = |field: &str| rule[field].as_array().into_iter().flatten().filter_map(Value::as_str);
    let has = |field: &str, wanted: &str| values(field).any(|value| value == "*" || value == wanted);
    if !has("verbs", &ask.verb) {
        return false;
    }
    if !ask.is_resource {
        return values("nonResourceURLs").any(|url| match url.strip_suffix('*') {
            Some(prefix) => ask.path.starts_with(prefix),
            None => url == ask.path,
        });
    }
    let resource = match ask.subresource.as_str() {
        "" => has("resources", &ask.plural),
        sub => {
            has("resources", &format!("{}/{sub}", ask.plural)) || values("resources").any(|v| v == format!("*/{sub}"))
        }
    };
    let named = values("resourceNames").next().is_none() || values("resourceNames").any(|name| name == ask.name);
    has("apiGroups", &ask.group) && resource && named
}

/// As `k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go` says it.
pub(crate) fn refusal(user: &User, ask: &Ask, trouble: Option<String>) -> Refusal {
    let who = &user.name;
    let trouble = trouble.map(|trouble| format!(": {trouble}")).unwrap_or_default();
    if !ask.is_resource {
        let message = format!("forbidden: User {who:?} cannot {} path {:?}{trouble}", ask.verb, ask.path);
        return Refusal::new(403, "Forbidden", message, Some(json!({})));
    }
    let Ask { verb, group, plural, subresource, namespace, name, .. } = ask;
    let resource = if subresource.is_empty() { plural.clone() } else { format!("{plural}/{subresource}") };
    let scope = match namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let what = if group.is_empty() { plural.clone() } else { format!("{plural}.{group}") };
    let what = if name.is_empty() { what } else { format!("{what} {name:?}") };
    let message = format!(
        "{what} is forbidden: User {who:?} cannot {verb} resource {resource:?} in API group {group:?} {scope}{trouble}"
    );
    let mut details = json!({"kind": plural});
    for (field, value) in [("name", name), ("group", group)] {
        if !value.is_empty() {
            details[field] = value.clone().into();
        }
    }
    Refusal::new(403, "Forbidden", message, Some(details))
}

//! Which webhooks are asked: `k8s.io/apiserver/pkg/admission/plugin/webhook/predicates`.

use serde_json::{Map, Value};

use super::Attempt;

/// Whether this webhook has to be asked. Equivalent resources (`matchPolicy`) there are none here: every resource is
/// served in one version of one group.
pub(super) fn matches(webhook: &Value, attempt: &Attempt<'_>) -> bool {
    items(&webhook["rules"]).any(|rule| rule_matches(rule, attempt))
        && namespace_matches(&webhook["namespaceSelector"], attempt)
        && object_matches(&webhook["objectSelector"], attempt)
}

fn rule_matches(rule: &Value, attempt: &Attempt<'_>) -> bool {
    let in_namespace = attempt.namespaced && attempt.namespace.is_some();
    let scope = match rule["scope"].as_str() {
        Some("Namespaced") => in_namespace,
        Some("Cluster") => !in_namespace,
        _ => true,
    };
    scope
        && any(&rule["operations"], |operation| is(operation, attempt.operation))
        && any(&rule["apiGroups"], |group| is(group, attempt.group))
        && any(&rule["apiVersions"], |version| is(version, attempt.version))
        && any(&rule["resources"], |resource| {
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            is(resource, attempt.plural) && is(subresource, attempt.subresource.unwrap_or_default())
        })
}

fn is(pattern: &str, value: &str) -> bool {
    pattern == "*" || pattern == value
}

/// What is in no namespace is never exempted, but for the namespaces themselves.
fn namespace_matches(selector: &Value, attempt: &Attempt<'_>) -> bool {
    if attempt.is_namespace() {
        let changed = attempt.subresource.is_none() && attempt.operation != "DELETE";
        let namespace = if changed { &attempt.object } else { &attempt.old };
        return selects(selector, labels(namespace.as_ref()));
    }
    attempt.namespace.is_none() || selects(selector, Some(&attempt.namespace_labels))
}

fn object_matches(selector: &Value, attempt: &Attempt<'_>) -> bool {
    let matches =
        |object: &Option<Value>| object.as_ref().is_some_and(|object| selects(selector, labels(Some(object))));
    is_empty(selector) || matches(&attempt.object) || matches(&attempt.old)
}

fn labels(object: Option<&Value>) -> Option<&Map<String, Value>> {
    object?["metadata"]["labels"].as_object()
}

fn is_empty(selector: &Value) -> bool {
    selector["matchLabels"].as_object().is_none_or(Map::is_empty)
        && items(&selector["matchExpressions"]).next().is_none()
}

/// Whether a LabelSelector selects these labels: `metav1.LabelSelectorAsSelector`.
fn selects(selector: &Value, labels: Option<&Map<String, Value>>) -> bool {
    let label = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
    let pairs = selector["matchLabels"].as_object().into_iter().flatten();
    pairs.into_iter().all(|(key, value)| label(key) == value.as_str())
        && items(&selector["matchExpressions"]).all(|expression| {
            let value = label(expression["key"].as_str().unwrap_or_default());
            let listed = items(&expression["values"]).any(|listed| listed.as_str() == value);
            match expression["operator"].as_str() {
                Some("In") => value.is_some() && listed,
                Some("NotIn") => value.is_none() || !listed,
                Some("Exists") => value.is_some(),
                Some("DoesNotExist") => value.is_none(),
                _ => false,
            }
        })
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn any(list: &Value, wanted: impl Fn(&str) -> bool) -> bool {
    items(list).filter_map(Value::as_str).any(wanted)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Attempt<'static> {
        let labels = json!({"team": "a"}).as_object().cloned().unwrap_or_default();
        Attempt {
            operation: "CREATE",
            group: "",
            version: "v1",
            plural: "pods",
            kind: "Pod",
            namespaced: true,
            subresource: None,
            namespace: Some("ns"),
            namespace_labels: labels,
            name: "p",
            object: Some(json!({"metadata": {"labels": {"app": "istiod"}}})),
            old: None,
            user: Value::Null,
            dry_run: false,
            options: Value::Null,
        }
    }

    fn rule(groups: &str, versions: &str, operations: &str, resources: &str) -> Value {
        json!({"apiGroups": [groups], "apiVersions": [versions], "operations": [operations], "resources": [resources]})
    }

    #[test]
    fn a_rule_matches_by_name_and_by_star() {
        let matching =
            [("", "v1", "CREATE", "pods"), ("*", "*", "*", "*"), ("*", "*", "*", "*/*"), ("", "v1", "*", "pods/*")];
        for (groups, versions, operations, resources) in matching {
            assert!(rule_matches(&rule(groups, versions, operations, resources), &pod()), "{resources}");
        }
        let others = [
            ("apps", "v1", "*", "pods"),
            ("", "v2", "*", "pods"),
            ("", "v1", "UPDATE", "pods"),
            ("", "v1", "*", "pods/status"),
        ];
        for (groups, versions, operations, resources) in others {
            assert!(!rule_matches(&rule(groups, versions, operations, resources), &pod()), "{resources}");
        }
    }

    #[test]
    fn a_subresource_is_matched_only_where_it_is_named() {
        let status = Attempt { subresource: Some("status"), ..pod() };
        for (resources, expected) in
            [("pods", false), ("*", false), ("pods/status", true), ("*/status", true), ("*/*", true)]
        {
            assert_eq!(rule_matches(&rule("*", "*", "*", resources), &status), expected, "{resources}");
        }
    }

    #[test]
    fn a_scope_tells_namespaced_objects_from_others() {
        let scoped = |scope: &str| {
            let mut rule = rule("*", "*", "*", "*");
            rule["scope"] = scope.into();
            rule
        };
        let namespace = Attempt { plural: "namespaces", namespaced: false, namespace: None, ..pod() };
        for (scope, of_pod, of_namespace) in [("*", true, true), ("Namespaced", true, false), ("Cluster", false, true)]
        {
            assert_eq!(rule_matches(&scoped(scope), &pod()), of_pod, "{scope}");
            assert_eq!(rule_matches(&scoped(scope), &namespace), of_namespace, "{scope}");
        }
    }

    #[test]
    fn expressions_select_as_their_operators_say() {
        let labels = json!({"a": "1"});
        let selected = |key: &str, operator: &str, values: Value| {
            let selector = json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
            selects(&selector, labels.as_object())
        };
        assert!(selected("a", "In", json!(["1", "2"])) && !selected("a", "In", json!(["2"])));
        assert!(!selected("b", "In", json!(["1"])));
        assert!(selected("a", "NotIn", json!(["2"])) && !selected("a", "NotIn", json!(["1"])));
        assert!(selected("b", "NotIn", json!(["1"])));
        assert!(selected("a", "Exists", json!([])) && !selected("b", "Exists", json!([])));
        assert!(!selected("a", "DoesNotExist", json!([])) && selected("b", "DoesNotExist", json!([])));
    }

    #[test]
    fn the_selectors_look_at_the_namespace_and_at_either_object() {
        let webhook = |namespace: Value, object: Value| json!({"rules": [rule("*", "*", "*", "*")], "namespaceSelector": namespace, "objectSelector": object});
        let by = |key: &str, value: &str| json!({"matchLabels": {key: value}});
        assert!(matches(&webhook(by("team", "a"), by("app", "istiod")), &pod()));
        assert!(!matches(&webhook(by("team", "b"), json!({})), &pod()));
        assert!(!matches(&webhook(json!({}), by("app", "other")), &pod()));
        let gone = Attempt { old: pod().object, object: None, operation: "DELETE", ..pod() };
        assert!(matches(&webhook(json!({}), by("app", "istiod")), &gone));
    }

    #[test]
    fn a_namespace_is_selected_by_its_own_labels() {
        let by_label =
            json!({"rules": [rule("*", "*", "*", "*")], "namespaceSelector": {"matchLabels": {"app": "istiod"}}});
        let namespace = Attempt { plural: "namespaces", namespaced: false, namespace: None, ..pod() };
        assert!(matches(&by_label, &namespace));
        let other = Attempt { object: Some(json!({"metadata": {}})), ..namespace };
        assert!(!matches(&by_label, &other));
    }
}

//! What a request is about, told by its method and path.
//!
//! The rules are those of `RequestInfoFactory` in `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`.

use http::Method;

use crate::wire::Request;

/// What a request asks for; what is authorized.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ask {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; of another path, its method.
    pub(crate) verb: String,
    /// Whether it is about a resource.
    pub(crate) is_resource: bool,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    /// Empty for the object itself.
    pub(crate) subresource: String,
    /// Empty for the cluster.
    pub(crate) namespace: String,
    /// Empty for all; a list that selects one name names it.
    pub(crate) name: String,
    pub(crate) path: String,
}

/// What a request asks for.
pub(crate) fn ask(request: &Request) -> Ask {
    let segments = request.segments();
    let path = request.uri.path().to_owned();
    let other = |verb: &str| Ask { verb: verb.to_ascii_lowercase(), path: path.clone(), ..Ask::default() };
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
        _ => return other(request.method.as_str()),
    };
    let mut ask = Ask {
        is_resource: true,
        group: group.to_owned(),
        version: version.to_owned(),
        path: path.clone(),
        ..Ask::default()
    };
    let rest = match rest {
        ["namespaces", namespace, rest @ ..] => {
            ask.namespace = (*namespace).to_owned();
            if rest.is_empty() || ["status", "finalize"].contains(&rest[0]) {
                ["namespaces", *namespace].iter().chain(rest).copied().collect()
            } else {
                rest.to_vec()
            }
        }
        rest => rest.to_vec(),
    };
    let mut rest = rest.into_iter().map(ToOwned::to_owned);
    ask.plural = rest.next().unwrap_or_default();
    ask.name = rest.next().unwrap_or_default();
    ask.subresource = rest.next().unwrap_or_default();
    ask.verb = verb(request, ask.name.is_empty()).to_owned();
    if ask.name.is_empty() && ["list", "watch", "deletecollection"].contains(&ask.verb.as_str()) {
        ask.name = request.query("fieldSelector").and_then(|fields| selected_name(&fields)).unwrap_or_default();
    }
    ask
}

fn verb(request: &Request, many: bool) -> &'static str {
    let watches = || request.query("watch").is_some_and(|watch| !["", "0", "false"].contains(&watch.as_str()));
    match request.method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if many => "deletecollection",
        Method::DELETE => "delete",
        _ if watches() => "watch",
        _ if many => "list",
        _ => "get",
    }
}

fn selected_name(fields: &str) -> Option<String> {
    let mut names = fields.split(',').filter_map(|field| field.strip_prefix("metadata.name="));
    names.next().map(|name| name.trim_start_matches('=').to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;

    use super::*;

    fn of(method: Method, target: &str) -> Ask {
        ask(&Request { method, uri: target.parse().unwrap(), headers: http::HeaderMap::new(), body: Bytes::new() })
    }

    #[test]
    fn a_path_names_a_resource_a_namespace_and_an_object() {
        let ask = of(Method::PATCH, "/apis/apps/v1/namespaces/a/deployments/x/status?dryRun=All");
        assert_eq!((ask.group.as_str(), ask.version.as_str(), ask.plural.as_str()), ("apps", "v1", "deployments"));
        assert_eq!((ask.namespace.as_str(), ask.name.as_str(), ask.subresource.as_str()), ("a", "x", "status"));
        assert_eq!(ask.verb, "patch");
        let ask = of(Method::GET, "/api/v1/namespaces/a");
        assert_eq!((ask.plural.as_str(), ask.namespace.as_str(), ask.name.as_str()), ("namespaces", "a", "a"));
        assert!(!of(Method::GET, "/api/v1").is_resource);
        assert!(!of(Method::GET, "/readyz").is_resource);
    }

    #[test]
    fn a_list_that_selects_one_name_is_about_that_object() {
        let ask = of(Method::GET, "/api/v1/namespaces/a/secrets?watch=true&fieldSelector=metadata.name%3Dcacerts");
        assert_eq!((ask.verb.as_str(), ask.name.as_str()), ("watch", "cacerts"));
        assert_eq!(of(Method::GET, "/api/v1/secrets").verb, "list");
        assert_eq!(of(Method::DELETE, "/api/v1/namespaces/a/secrets").verb, "deletecollection");
    }
}

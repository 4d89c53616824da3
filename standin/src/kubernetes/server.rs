//! The shell: who asks, may he, and which part answers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderValue, header};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::refusal::Refusal;
use super::resources::{Resource, find, serves};
use super::route::{Ask, ask};
use super::store::{Key, Store};
use super::table::{self, Included};
use super::tokens::{Tokens, User};
use super::{discovery, namespaces, rbac, reviews, roles};
use crate::faults::Fault;
use crate::wire::{self, Answer, Request, Service};

/// The objects, and who waits for a change of them.
#[derive(Debug)]
pub(crate) struct State {
    store: Mutex<Store>,
    changed: watch::Sender<u64>,
}

impl State {
    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version of the last change, at each.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// What is there from the beginning.
    pub(crate) fn furnish(&self, ca_pem: &str) {
        self.write(|store| {
            store.ca_pem = ca_pem.to_owned();
            for (plural, object) in roles::all() {
                namespaces::plant(store, plural, object);
            }
            for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
                namespaces::make(store, name);
            }
        });
    }

    /// Does something to the objects, and tells the watches.
    pub(crate) fn write<T>(&self, act: impl FnOnce(&mut Store) -> T) -> T {
        let mut store = self.store();
        let done = act(&mut store);
        self.changed.send_replace(store.version());
        done
    }
}

/// An API server.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) state: Arc<State>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) admin_token: String,
}

/// A request about objects.
pub(crate) struct Call<'a> {
    pub(crate) request: &'a Request,
    pub(crate) ask: Ask,
    pub(crate) resource: &'static Resource,
    pub(crate) user: User,
}

impl Call<'_> {
    /// A query parameter; an empty one is none.
    pub(crate) fn query(&self, name: &str) -> Option<String> {
        self.request.query(name).filter(|value| !value.is_empty())
    }

    pub(crate) fn key(&self) -> Key {
        self.key_of(&self.ask.name)
    }

    pub(crate) fn key_of(&self, name: &str) -> Key {
        let namespace = if self.resource.namespaced { self.ask.namespace.clone() } else { String::new() };
        Key { plural: self.resource.plural, namespace, name: name.to_owned() }
    }

    /// The namespace of a list; none is all.
    pub(crate) fn within(&self) -> Option<&str> {
        Some(self.ask.namespace.as_str()).filter(|namespace| self.resource.namespaced && !namespace.is_empty())
    }

    /// What the rows are to have of their objects, where a table is asked for.
    pub(crate) fn table(&self) -> Option<Included> {
        let wanted = self.request.header(header::ACCEPT).is_some_and(|accept| accept.contains("as=Table"));
        wanted.then(|| Included::of(&self.query("includeObject").unwrap_or_default())).flatten()
    }

    /// An answer with objects, as the client wants to see them.
    pub(crate) fn object(&self, status: u16, object: &Value) -> Answer {
        if let Some(included) = self.table()
            && object["kind"] != "Status"
        {
            return answer(self.request, status, &table::table(self.resource, object, included, super::now()));
        }
        answer(self.request, status, object)
    }
}

impl Core {
    pub(crate) fn new(tokens: Arc<Tokens>, admin_token: String) -> Self {
        let state = Arc::new(State { store: Mutex::default(), changed: watch::Sender::new(0) });
        Self { state, tokens, admin_token }
    }

    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.state.store()
    }

    async fn handle(&self, request: &Request) -> Result<Answer, Refusal> {
        let user = self.authenticate(request)?;
        let ask = ask(request);
        let rights = rbac::Rights::of(&self.store(), &user);
        if !rights.allow(&ask) {
            return Err(rbac::refusal(&user, &ask, rights.trouble(&ask)));
        }
        if !ask.is_resource {
            return Ok(discovery::answer(self, request));
        }
        let Some(resource) = find(&ask.group, &ask.version, &ask.plural) else {
            return Err(unknown(&ask));
        };
        let call = Call { request, ask, resource, user };
        self.dispatch(call).await
    }

    async fn dispatch(&self, call: Call<'_>) -> Result<Answer, Refusal> {
        let (verb, subresource) = (call.ask.verb.as_str(), call.ask.subresource.as_str());
        match (verb, subresource) {
            ("create", "") if call.resource.is_review() => reviews::review(self, &call),
            ("create", "token") if call.resource.plural == "serviceaccounts" => reviews::token_request(self, &call),
            _ if call.resource.is_review() => Err(Refusal::method_not_allowed()),
            ("get" | "update" | "patch", "status") if !call.resource.has_status() => Err(unknown(&call.ask)),
            (_, subresource) if !["", "status"].contains(&subresource) => Err(unknown(&call.ask)),
            ("get", _) => self.get(&call),
            ("list", "") => self.list(&call),
            ("watch", "") => self.watch(&call),
            ("create", "") if call.ask.name.is_empty() && (!call.resource.namespaced || call.within().is_some()) => {
                self.create(&call).await
            }
            ("update" | "patch", _) if !call.ask.name.is_empty() => self.change(&call).await,
            ("delete", "") => self.delete(&call).await,
            ("deletecollection", "")
                if call.resource.is_deleted_at_once() && (!call.resource.namespaced || call.within().is_some()) =>
            {
                self.delete_collection(&call).await
            }
            _ => Err(Refusal::method_not_allowed()),
        }
    }
}

impl Service for Core {
    async fn answer(&self, request: Request) -> Answer {
        match self.handle(&request).await {
            Ok(answer) => answer,
            Err(refusal) => refused(&request, &refusal),
        }
    }

    fn pretend(&self, request: &Request, fault: Fault) -> Answer {
        match fault {
            Fault::Status(status) => pretended(self, request, status),
            // Sealed, which is a Vault's.
            _ => pretended(self, request, 503),
        }
    }
}

/// As `errors.NewGenericServerResponse` in `k8s.io/apimachinery` words them where no object is known.
fn pretended(core: &Core, request: &Request, status: u16) -> Answer {
    let ask = ask(request);
    let refusal = match status {
        401 => Refusal::unauthorized(),
        403 => rbac::refusal(&core.authenticate(request).unwrap_or_else(|_| User::anonymous()), &ask, None),
        409 => match find(&ask.group, &ask.version, &ask.plural) {
            Some(resource) => Refusal::modified(resource, &ask.name),
            None => Refusal::new(409, "Conflict", "the server reported a conflict", None),
        },
        410 => Refusal::expired(format!("too old resource version: 1 ({})", core.store().version())),
        429 => {
            let details = json!({"retryAfterSeconds": 1});
            Refusal::new(429, "TooManyRequests", "Too many requests, please try again later.", Some(details))
        }
        503 => {
            let message = "the server is currently unable to handle the request";
            Refusal::new(503, "ServiceUnavailable", message, None)
        }
        other => Refusal::new(
            other,
            "InternalError",
            "an error on the server has prevented the request from succeeding",
            None,
        ),
    };
    if status == 410 && ask.verb == "watch" {
        let event = json!({"type": "ERROR", "object": refusal.status});
        return wire::text(200, "application/json", format!("{event}\n"));
    }
    refused(request, &refusal)
}

fn refused(request: &Request, refusal: &Refusal) -> Answer {
    let mut answer = answer(request, refusal.code, &refusal.status);
    if let Some(seconds) = refusal.status["details"]["retryAfterSeconds"].as_u64() {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    warn(&mut answer, &refusal.warnings);
    answer
}

/// Tells the warnings of webhooks in headers.
pub(crate) fn warn(answer: &mut Answer, warnings: &[String]) {
    for warning in warnings {
        let escaped = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{escaped}\"")) {
            answer.headers_mut().append(header::WARNING, value);
        }
    }
}

/// JSON, to be read by people where the client is theirs, as `pretty` in
/// `k8s.io/apiserver/pkg/endpoints/handlers/negotiation` has it.
pub(crate) fn answer(request: &Request, status: u16, value: &Value) -> Answer {
    let client = request.header(header::USER_AGENT).unwrap_or_default();
    let people = ["curl", "Wget", "Mozilla/5.0"].iter().any(|name| client.starts_with(name));
    if let Value::String(text) = value {
        return wire::text(status, "text/plain; charset=utf-8", format!("{text}\n"));
    }
    let text = if people { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    wire::text(status, "application/json", text.unwrap_or_default() + "\n")
}

fn unknown(ask: &Ask) -> Refusal {
    if serves(&ask.group) {
        let message = "the server could not find the requested resource";
        return Refusal::new(404, "NotFound", message, Some(json!({})));
    }
    Refusal { code: 404, status: "404 page not found".into(), warnings: Vec::new() }
}

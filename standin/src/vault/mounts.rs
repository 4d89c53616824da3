//! What is mounted where, and the answers that tell of it.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::acl::Acl;
use super::asked::{Asked, Operation};
use super::jwt::Jwt;
use super::kubernetes::Kubernetes;
use super::kv::Versioned;
use super::moment::Moment;
use super::pki::{Pki, Wanted};
use super::plain::Plain;
use super::reply::{Refusal, Said};
use super::tokens::TTL_MAX;

/// What a mount is.
#[derive(Clone, Debug)]
pub(super) enum Engine {
    /// Part of Vault itself.
    Builtin,
    Versioned(Versioned),
    Plain(Plain),
    Pki(Pki),
    Kubernetes(Kubernetes),
    Jwt(Jwt),
}

#[derive(Clone, Debug)]
pub(super) struct Mount {
    kind: String,
    description: String,
    accessor: String,
    uuid: String,
    options: Value,
    /// What it is given for as long as possible, in seconds. Zero: as long as everywhere.
    max_ttl: i64,
    pub(super) engine: Engine,
}

/// Two tables of mounts in one: those of auth methods are below `auth/`.
#[derive(Clone, Debug)]
pub(super) struct Mounts(BTreeMap<String, Mount>);

/// What is there from the start, with its description.
const BUILTIN: [(&str, &str, &str); 5] = [
    ("auth/token/", "token", "token based credentials"),
    ("cubbyhole/", "cubbyhole", "per-token private secret storage"),
    ("identity/", "identity", "identity store"),
    ("secret/", "kv", ""),
    ("sys/", "system", "system endpoints used for control, policy and debugging"),
];

impl Mounts {
    /// Those of a new Vault, and KV version 2 at `secret/`.
    pub(super) fn new(moment: &Moment) -> Self {
        let mount = |(path, kind, description): (&str, &str, &str)| {
            let engine = if kind == "kv" { Engine::Versioned(Versioned::default()) } else { Engine::Builtin };
            let options = if kind == "kv" { json!({ "version": "2" }) } else { Value::Null };
            (path.to_owned(), Mount::new(moment, path, kind, description, options, engine))
        };
        Self(BUILTIN.map(mount).into())
    }

    /// The mount that a path belongs to.
    pub(super) fn of(&self, path: &str) -> Option<(String, &Mount)> {
        let path = if path.ends_with('/') { path.to_owned() } else { format!("{path}/") };
        let (at, mount) = self.0.iter().rfind(|(at, _)| path.starts_with(at.as_str()))?;
        Some((at.clone(), mount))
    }

    pub(super) fn at(&mut self, at: &str) -> Option<&mut Mount> {
        self.0.get_mut(at)
    }

    /// `sys/mounts`, or with `auth/` as the table `sys/auth`.
    pub(super) fn handle(&mut self, moment: &Moment, asked: &Asked, table: &str, path: &str) -> Result<Said, Refusal> {
        let at = format!("{table}{}/", path.trim_matches('/'));
        match (path.trim_matches('/'), asked.operation) {
            ("", Operation::Read) => Ok(Said::Injected(self.list(table, |_| true, Mount::show).into())),
            ("", _) => Err(Refusal::unsupported_operation()),
            (path, Operation::Read) => match self.0.get(&at) {
                Some(mount) => Ok(Said::Injected(mount.show(&at).into())),
                None if table.is_empty() => Err(Refusal::bad(format!("No secret engine mount at {path}/"))),
                None => Err(Refusal::bad(format!("No auth engine at {path}/"))),
            },
            (path, Operation::Update) => match path.strip_suffix("/tune") {
                Some(path) => self.tune(asked, table, path),
                None => self.enable(moment, asked, table, &at),
            },
            (_, Operation::Delete) => {
                let is_builtin = BUILTIN.iter().any(|(builtin, kind, _)| *builtin == at && *kind != "kv");
                if at == "auth/token/" {
                    return Err(Refusal::bad("token credential backend cannot be disabled"));
                }
                if is_builtin {
                    return Err(Refusal::bad(format!("cannot unmount {at:?}")));
                }
                self.0.remove(&at);
                Ok(Said::Nothing)
            }
            _ => Err(Refusal::unsupported_operation()),
        }
    }

    fn tune(&mut self, asked: &Asked, table: &str, path: &str) -> Result<Said, Refusal> {
        let Some(mount) = self.0.get_mut(&format!("{table}{path}/")) else {
            return Err(Refusal::bad(format!("tune of path \"{path}/\" failed: no mount entry found")));
        };
        mount.max_ttl = asked.seconds("max_lease_ttl")?.unwrap_or(mount.max_ttl);
        Ok(Said::Nothing)
    }

    fn enable(&mut self, moment: &Moment, asked: &Asked, table: &str, at: &str) -> Result<Said, Refusal> {
        let mut options = asked.get("options").and_then(Value::as_object).cloned().unwrap_or_default();
        for value in options.values_mut().filter(|value| !value.is_string()) {
            *value = value.to_string().into();
        }
        let kind = match asked.text("type") {
            "" => return Err(Refusal::bad("backend type must be specified as a string")),
            "kv-v2" => {
                options.insert("version".to_owned(), json!("2"));
                "kv"
            }
            kind => kind,
        };
        let version = options.get("version").and_then(Value::as_str).unwrap_or_default();
        let engine = match (table, kind, version) {
            ("", "kv", "2") => Engine::Versioned(Versioned::default()),
            ("", "kv", "" | "1") => Engine::Plain(Plain::default()),
            ("", "kv", _) => return Err(Refusal::bad("nil backend of type \"kv\" returned from factory")),
            ("", "pki", _) => Engine::Pki(Pki::default()),
            ("auth/", "kubernetes", _) => Engine::Kubernetes(Kubernetes::default()),
            ("auth/", "jwt", _) => Engine::Jwt(Jwt::default()),
            _ => return Err(Refusal::bad(format!("plugin not found in the catalog: {kind}"))),
        };
        let protected = ["auth/", "sys/", "cubbyhole/", "identity/"];
        if table.is_empty() && protected.iter().any(|prefix| at.starts_with(prefix)) {
            return Err(Refusal::bad(format!("cannot mount {at:?}")));
        }
        let same_table = self.0.keys().filter(|other| other.starts_with(table));
        if let Some(taken) = same_table.into_iter().find(|other| at.starts_with(*other) || other.starts_with(at)) {
            let taken = taken.trim_start_matches(table);
            return Err(Refusal::bad(format!("path is already in use at {taken}")));
        }
        let mut mount = Mount::new(moment, at, kind, asked.text("description"), options.into(), engine);
        let config = Asked {
            data: asked.get("config").and_then(Value::as_object).cloned().unwrap_or_default(),
            ..asked.clone()
        };
        mount.max_ttl = config.seconds("max_lease_ttl")?.unwrap_or_default();
        self.0.insert(at.to_owned(), mount);
        Ok(Said::Nothing)
    }

    /// `sys/internal/ui/mounts`: those that this token has a right in, for clients to find out the kind of.
    pub(super) fn visible(&self, acl: &Acl) -> Value {
        let shown = |table| self.list(table, |at| acl.sees_mount(at), Mount::show_in_force);
        json!({ "auth": shown("auth/"), "secret": shown("") })
    }

    /// `sys/internal/ui/mounts/<path>`: the mount of this path. That there is none is not told.
    pub(super) fn preflight(&self, acl: &Acl, path: &str) -> Result<Value, Refusal> {
        let path = format!("{}/", path.trim_matches('/'));
        let visible = self.of(&path).filter(|(at, _)| acl.sees_mount(at));
        let Some((at, mount)) = visible else {
            return Err(Refusal::new(
                403,
                format!(
                    "preflight capability check returned 403, please ensure client's policies grant access to path {path:?}"
                ),
            ));
        };
        let mut shown = mount.show_in_force(&at);
        shown.insert("path".to_owned(), at.trim_start_matches("auth/").into());
        Ok(shown.into())
    }

    fn list(
        &self,
        table: &str,
        is_listed: impl Fn(&str) -> bool,
        show: fn(&Mount, &str) -> Map<String, Value>,
    ) -> Map<String, Value> {
        let is_auth = !table.is_empty();
        let mounts = self.0.iter().filter(|(at, _)| at.starts_with("auth/") == is_auth && is_listed(at));
        mounts.map(|(at, mount)| (at.trim_start_matches(table).to_owned(), show(mount, at).into())).collect()
    }
}

impl Mount {
    fn new(moment: &Moment, at: &str, kind: &str, description: &str, options: Value, engine: Engine) -> Self {
        let table = if at.starts_with("auth/") { "auth_" } else { "" };
        let accessor: String = moment.accessor().chars().take(8).collect();
        Self {
            kind: kind.to_owned(),
            description: description.to_owned(),
            accessor: format!("{table}{kind}_{accessor}"),
            uuid: moment.uuid(),
            options,
            max_ttl: 0,
            engine,
        }
    }

    pub(super) fn kind(&self) -> &str {
        &self.kind
    }

    pub(super) fn accessor(&self) -> &str {
        &self.accessor
    }

    /// What is told without a token. `None`: nothing of it is.
    pub(super) fn public(&self, asked: &Asked) -> Option<Result<Said, Refusal>> {
        let Engine::Pki(pki) = &self.engine else { return None };
        pki.public(asked)
    }

    /// The root that is to be made, if this is a request for one.
    pub(super) fn wanted(&self, now: Timestamp, asked: &Asked) -> Option<Result<Wanted, Refusal>> {
        let Engine::Pki(pki) = &self.engine else { return None };
        pki.wanted(now, self.max_ttl(), asked)
    }

    /// As it is configured.
    fn show(&self, at: &str) -> Map<String, Value> {
        self.describe(at, 0, self.max_ttl)
    }

    /// With what applies where nothing is configured.
    fn show_in_force(&self, at: &str) -> Map<String, Value> {
        self.describe(at, TTL_MAX, self.max_ttl())
    }

    /// How long anything that it gives may be good for, in seconds.
    pub(super) fn max_ttl(&self) -> i64 {
        if self.max_ttl == 0 { TTL_MAX } else { self.max_ttl }
    }

    fn describe(&self, at: &str, ttl: i64, max_ttl: i64) -> Map<String, Value> {
        let mut config = json!({ "default_lease_ttl": ttl, "force_no_cache": false, "max_lease_ttl": max_ttl });
        if at.starts_with("auth/") {
            config["token_type"] = json!("default-service");
        }
        match self.kind.as_str() {
            "identity" => config["passthrough_request_headers"] = json!(["Authorization"]),
            "system" => config["passthrough_request_headers"] = json!(["Accept"]),
            _ => {}
        }
        let version = match self.kind.as_str() {
            "kv" | "jwt" => "v0.25.0+builtin",
            "kubernetes" => "v0.23.1+builtin",
            _ => "v1.21.1+builtin.vault",
        };
        let fields = [
            ("accessor", json!(self.accessor)),
            ("config", config),
            ("description", json!(self.description)),
            ("external_entropy_access", json!(false)),
            ("local", json!(self.kind == "cubbyhole")),
            ("options", self.options.clone()),
            ("plugin_version", json!("")),
            ("running_plugin_version", json!(version)),
            ("running_sha256", json!("")),
            ("seal_wrap", json!(self.kind == "system")),
            ("type", json!(self.kind)),
            ("uuid", json!(self.uuid)),
        ];
        let mut shown: Map<_, _> = fields.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
        if !matches!(self.engine, Engine::Builtin) {
            shown.insert("deprecation_status".to_owned(), json!("supported"));
        }
        shown
    }
}

//! All that a Vault knows, and what it does with a request: check the token, ask the mount.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::acl::Acl;
use super::asked::{self, Asked, Operation};
use super::kubernetes::Claimed;
use super::kv::Actor;
use super::moment::Moment;
use super::mounts::{Engine, Mounts};
use super::pki::{self, Made, Wanted as WantedRoot};
use super::policies::Policies;
use super::reply::{Refusal, Reply, Said};
use super::review::{Review, Reviewed};
use super::roles::Granted;
use super::seal::Seal;
use super::tokens::{Tokens, Wanted};
use crate::wire::Request;

/// A Vault.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) seal: Seal,
    pub(super) tokens: Tokens,
    pub(super) policies: Policies,
    pub(super) mounts: Mounts,
    /// Who logs in, by the mount's accessor and the name there.
    entities: BTreeMap<(String, String), String>,
}

/// What a request leads to.
pub(super) enum Step {
    Reply(Reply),
    /// First an API server has to be asked.
    Review(Box<Pending>),
    /// First a key has to be made, which may take seconds.
    Make(Box<Making>),
}

/// A root that waits for its key.
pub(super) struct Making {
    wanted: WantedRoot,
    moment: Moment,
    at: String,
}

impl Making {
    /// Makes the key.
    pub(super) fn key(self: Box<Self>) -> (Box<Self>, Made) {
        let made = self.wanted.key();
        (self, made)
    }
}

/// How far a login came.
enum Login {
    Granted(Granted),
    Claimed(Review, Claimed),
}

/// A login that waits for a review.
pub(super) struct Pending {
    pub(super) review: Review,
    claimed: Claimed,
    moment: Moment,
    at: String,
}

impl State {
    pub(super) fn new(moment: &Moment, cluster_id: &str, root_token: &str, unseal_key: &str) -> Self {
        Self {
            seal: Seal::new(cluster_id, unseal_key),
            tokens: Tokens::with_root(moment, root_token),
            policies: Policies::new(),
            mounts: Mounts::new(moment),
            entities: BTreeMap::new(),
        }
    }

    /// Acts on a request whose path is below `/v1/`.
    pub(super) fn handle(&mut self, moment: &Moment, request: &Request, path: &str) -> Step {
        let reply = match self.about_the_seal(moment, request, path) {
            Some(reply) => reply.unwrap_or_else(Reply::from),
            None => match asked::read(request, path).and_then(|asked| self.route(moment, asked)) {
                Ok(step) => return step,
                Err(refusal) => refusal.into(),
            },
        };
        Step::Reply(reply)
    }

    /// Whose token it is, and what it may do.
    pub(super) fn caller(&self, moment: &Moment, token: &str) -> Result<(Acl, Actor), Refusal> {
        if token.is_empty() {
            return Err(Refusal::new(403, "permission denied"));
        }
        let unknown = || Refusal::listed(403, &["permission denied", "invalid token"]);
        let token = self.tokens.find(moment.now, token).ok_or_else(unknown)?;
        Ok((self.policies.acl(&token.policies), token.actor()))
    }

    fn route(&mut self, moment: &Moment, mut asked: Asked) -> Result<Step, Refusal> {
        if self.seal.sealed {
            return Err(Refusal::sealed());
        }
        if asked.path.ends_with('/') && matches!(asked.operation, Operation::Update | Operation::Patch) {
            return Err(Refusal::bad("cannot write to a path ending in '/'"));
        }
        let mount = self.mounts.of(&asked.path);
        if let Some((at, mount)) = &mount
            && let Some(login) = mount.engine.login(moment.now, &asked.below(at))
        {
            let at = at.clone();
            return login.map(|login| self.login(moment, at, login));
        }
        if let Some(path) = asked.path.strip_prefix("sys/internal/ui/mounts") {
            return self.preflight(moment, &asked, path).map(|data| reply(moment, "", &asked, Said::Data(data)));
        }
        if let Some(said) = mount.as_ref().and_then(|(at, mount)| mount.public(&asked.below(at))) {
            return said.map(|said| reply(moment, "", &asked, said));
        }
        let (acl, actor) = self.caller(moment, &asked.token)?;
        if let Some((at, mount)) = &mount
            && asked.is_write()
            && mount.engine.exists(&asked.below(at).path) == Some(false)
        {
            // Which right a write needs depends on what is there.
            asked.operation = Operation::Create;
        }
        let needs_sudo = ["sys/auth/", "sys/leases/revoke-prefix/"].iter().any(|path| asked.path.starts_with(path));
        if !acl.allows(&asked) || (needs_sudo && !acl.has_sudo(&asked.path)) {
            return Err(Refusal::denied());
        }
        let (at, mount) = mount.ok_or_else(|| Refusal::no_route(&asked.path))?;
        let kind = mount.kind().to_owned();
        if let Some(wanted) = mount.wanted(moment.now, &asked.below(&at)) {
            return wanted.map(|wanted| Step::Make(Box::new(Making { wanted, moment: moment.clone(), at })));
        }
        let said = self.ask(moment, &acl, &actor, &at, &asked.below(&at))?;
        Ok(reply(moment, &kind, &asked, said))
    }

    /// Asks whoever is mounted there.
    fn ask(&mut self, moment: &Moment, acl: &Acl, actor: &Actor, at: &str, asked: &Asked) -> Result<Said, Refusal> {
        match at {
            "sys/" => return self.about_itself(moment, acl, asked),
            "auth/token/" => return self.tokens.handle(moment, asked, &self.policies),
            _ => {}
        }
        let mount = self.mounts.at(at);
        let max_ttl = mount.as_ref().map(|mount| mount.max_ttl()).unwrap_or_default();
        match mount.map(|mount| &mut mount.engine) {
            Some(Engine::Pki(pki)) => pki.handle(moment, max_ttl, asked),
            Some(Engine::Versioned(kv)) => kv.handle(moment.now, actor, asked),
            Some(Engine::Plain(kv)) => kv.handle(asked),
            Some(Engine::Kubernetes(auth)) => auth.handle(asked),
            Some(Engine::Jwt(auth)) => auth.handle(asked),
            Some(Engine::Builtin) | None => Err(Refusal::unsupported_path()),
        }
    }

    /// What there is where, for whom.
    fn preflight(&self, moment: &Moment, asked: &Asked, path: &str) -> Result<Value, Refusal> {
        let caller = || self.caller(moment, &asked.token).map(|(acl, _)| acl);
        match path.trim_matches('/') {
            "" if asked.token.is_empty() => Ok(self.mounts.visible(&Acl::default())),
            "" => Ok(self.mounts.visible(&caller()?)),
            path => self.mounts.preflight(&caller()?, path),
        }
    }

    fn login(&mut self, moment: &Moment, at: String, login: Login) -> Step {
        match login {
            Login::Granted(granted) => Step::Reply(self.grant(moment, &at, granted)),
            Login::Claimed(review, claimed) => {
                Step::Review(Box::new(Pending { review, claimed, moment: moment.clone(), at }))
            }
        }
    }

    /// What a login leads to after its review.
    pub(super) fn reviewed(&mut self, pending: Pending, reviewed: Option<&Reviewed>) -> Reply {
        let Pending { claimed, moment, at, .. } = pending;
        if self.seal.sealed {
            return Refusal::sealed().into();
        }
        claimed.confirmed(reviewed).map_or_else(Reply::from, |granted| self.grant(&moment, &at, granted))
    }

    /// What the wish for a root leads to once there is a key.
    pub(super) fn made(&mut self, making: Making, key: Made) -> Reply {
        let Making { wanted, moment, at } = making;
        if self.seal.sealed {
            return Refusal::sealed().into();
        }
        let Some(Engine::Pki(pki)) = self.mounts.at(&at).map(|mount| &mut mount.engine) else {
            return Refusal::no_route(&at).into();
        };
        let said = pki.made(&moment, wanted, key);
        said.map_or_else(Reply::from, |said| Reply::to(&moment, pki::KIND, Operation::Update, said))
    }

    fn grant(&mut self, moment: &Moment, at: &str, granted: Granted) -> Reply {
        let Granted { alias, display_name, metadata, token } = granted;
        let accessor = self.mounts.of(at).map(|(_, mount)| mount.accessor().to_owned()).unwrap_or_default();
        let entity_id = self.entities.entry((accessor, alias)).or_insert_with(|| moment.uuid()).clone();
        let mount_name = at.trim_start_matches("auth/").trim_end_matches('/').replace('/', "-");
        let wanted = Wanted {
            policies: token.policies(),
            path: format!("{at}login"),
            metadata: Some(metadata),
            display_name: format!("{mount_name}-{display_name}"),
            parent: None,
            ttl: token.ttl(),
            entity_id,
        };
        let auth = self.tokens.make(moment, wanted);
        Reply::envelope(moment, 200, "", Value::Null, &[], Some(auth))
    }
}

/// The answer to this request when a mount of this kind said that.
fn reply(moment: &Moment, kind: &str, asked: &Asked, said: Said) -> Step {
    Step::Reply(Reply::to(moment, kind, asked.operation, said))
}

impl Engine {
    /// Whether a write would be an update; `None` where it always is.
    fn exists(&self, path: &str) -> Option<bool> {
        match self {
            Self::Builtin => None,
            Self::Versioned(kv) => kv.exists(path),
            Self::Plain(kv) => Some(kv.exists(path)),
            Self::Pki(_) => None,
            Self::Kubernetes(auth) => auth.exists(path),
            Self::Jwt(auth) => auth.exists(path),
        }
    }

    /// The outcome of a request for a login; `None` if it is none.
    fn login(&self, now: Timestamp, asked: &Asked) -> Option<Result<Login, Refusal>> {
        let granted = match self {
            Self::Kubernetes(_) | Self::Jwt(_) if asked.path != "login" => return None,
            Self::Kubernetes(_) | Self::Jwt(_) if !asked.is_write() => Err(Refusal::new(405, "unsupported operation")),
            Self::Kubernetes(auth) => auth.login(now, asked).map(|(review, claimed)| Login::Claimed(review, claimed)),
            Self::Jwt(auth) => auth.login(now, asked).map(Login::Granted),
            Self::Builtin | Self::Versioned(_) | Self::Plain(_) | Self::Pki(_) => return None,
        };
        Some(granted)
    }
}

//! Login by service-account token, at a `kubernetes` or a `jwt` mount: both take the same request.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Deserialize;
use vaultrs::api::auth::kubernetes::requests::LoginWithKubernetesRequest;
use zeroize::Zeroizing;

use super::transport::Reply;
use super::{Refused, Settings, answer};
use gate_core::reason::{ByItself, Held, Reason, foreign_text};

/// Larger files are not service-account tokens.
const JWT_MAX: u64 = 64 << 10;

/// A year, in seconds: no lease is used for longer.
const LEASE_MAX: u64 = 365 * 24 * 3600;

/// A refused token that leaves no lease behind is replaced at most once in so long.
const REPLACE_SOON: Duration = Duration::from_secs(1);

/// The same of one that Vault may go on keeping.
const REPLACE_PAUSE: Duration = Duration::from_secs(30);

/// A Vault token. Cannot be printed; wiped on drop.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

impl Token {
    /// Takes a token as a user gives it.
    ///
    /// # Errors
    /// If it cannot stand in a header, as one with a line break.
    pub fn new(text: Zeroizing<String>) -> Result<Self, &'static str> {
        let sound = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        sound.then_some(Self(text)).ok_or("it is empty or has characters that no Vault token has")
    }

    /// The token itself, for the header.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A token that a login gave, and until when it is used.
#[derive(Debug)]
pub(super) struct Session {
    token: Token,
    lease: Duration,
    began: Instant,
    has_worked: bool,
}

impl Session {
    /// Vault has taken its token.
    pub(super) fn worked(&mut self) {
        self.has_worked = true;
    }

    pub(super) fn has_worked(&self) -> bool {
        self.has_worked
    }

    /// The token, unless a third or less of its lease is left: then a new login is due.
    pub(super) fn token(&self) -> Option<Token> {
        // A lease of zero is a token without end.
        let fresh = self.lease.is_zero() || self.began.elapsed() < self.lease.mul_f64(2.0 / 3.0);
        fresh.then(|| self.token_now())
    }

    pub(super) fn token_now(&self) -> Token {
        self.token.clone()
    }

    pub(super) fn lease(&self) -> Duration {
        self.lease
    }
}

/// When a token that Vault refuses is replaced. Each login is a lease in Vault.
#[derive(Debug, Default)]
pub(super) struct Replacing {
    /// When that was last done, and whether the old token is known to have ended.
    last: Option<(Instant, bool)>,
}

impl Replacing {
    /// At once the first time, and one that had worked; else after a pause, short where no lease is left behind.
    pub(super) fn is_due(&self, has_worked: bool) -> bool {
        self.last
            .is_none_or(|(at, ended)| at.elapsed() >= if has_worked || ended { REPLACE_SOON } else { REPLACE_PAUSE })
    }

    pub(super) fn replaced(&mut self, ended: bool) {
        self.last = Some((Instant::now(), ended));
    }
}

/// What a login sends.
pub(super) struct Credentials<'a> {
    settings: &'a Settings,
    jwt: Zeroizing<String>,
}

impl<'a> Credentials<'a> {
    /// Reads the service-account token anew: the kubelet replaces it before it expires.
    pub(super) fn read(settings: &'a Settings) -> Result<Self, Held> {
        let denied = |file: &Path, what: &str| {
            Held::new(
                Reason::VaultLoginDenied,
                format!("cannot read the service-account token {} ({what})", file.display()),
                "mount one with audience vault, or set --vault-jwt-file",
                ByItself::Unsaid,
            )
        };
        let file = settings.jwt_files.iter().find(|file| file.exists()).or(settings.jwt_files.first());
        let file = file.ok_or_else(|| denied(Path::new("-"), "none configured"))?;
        let size = std::fs::metadata(file).map_err(|e| denied(file, &e.to_string()))?.len();
        if size > JWT_MAX {
            return Err(denied(file, "it is too large to be one"));
        }
        let text = Zeroizing::new(std::fs::read_to_string(file).map_err(|e| denied(file, &e.to_string()))?);
        if text.trim().is_empty() {
            return Err(denied(file, "it is empty"));
        }
        Ok(Self { settings, jwt: Zeroizing::new(text.trim().to_owned()) })
    }

    /// The token, for a look at its claims.
    pub(super) fn jwt(&self) -> &str {
        &self.jwt
    }

    pub(super) fn request(&self) -> Result<LoginWithKubernetesRequest, Held> {
        LoginWithKubernetesRequest::builder()
            .mount(self.settings.auth_mount.as_str())
            .role(self.settings.role.as_str())
            .jwt(self.jwt.as_str())
            .build()
            .map_err(|error| unlike_a_login(foreign_text(&error.to_string())))
    }
}

#[derive(Deserialize)]
struct Answer {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    client_token: String,
    lease_duration: u64,
}

/// The session that a login's answer grants.
pub(super) fn session(reply: &Reply, settings: &Settings) -> Result<Session, Refused> {
    if reply.status != 200 {
        return Err(denied(reply, settings).into());
    }
    let odd = || unlike_a_login("Vault's answer to the login has no token that can be used");
    let answer: Answer = serde_json::from_slice(&reply.body).map_err(|_| odd())?;
    let token = Token::new(Zeroizing::new(answer.auth.client_token)).map_err(|_| odd())?;
    Ok(Session {
        token,
        lease: Duration::from_secs(answer.auth.lease_duration.min(LEASE_MAX)),
        began: Instant::now(),
        has_worked: false,
    })
}

/// The names of the policies that a login's answer tells of.
pub(super) fn policies(reply: &Reply) -> Vec<String> {
    #[derive(Deserialize)]
    struct Answer {
        auth: Auth,
    }
    #[derive(Deserialize)]
    struct Auth {
        policies: Vec<String>,
    }
    let answer = serde_json::from_slice::<Answer>(&reply.body);
    answer.map(|answer| answer.auth.policies.iter().map(|name| foreign_text(name)).collect()).unwrap_or_default()
}

/// Vault tells little about a refused login; this tells the rest.
fn denied(reply: &Reply, settings: &Settings) -> Held {
    let Settings { auth_mount, role, .. } = settings;
    let said = answer::errors(reply).map(|errors| errors.join("; ")).unwrap_or_default();
    let next = next_step(reply.status, &said, auth_mount, role);
    let known = known(reply.status, &said);
    let said = if said.is_empty() { format!("status {}", reply.status) } else { foreign_text(&said) };
    let what = format!("Vault denies the login at auth/{auth_mount} as {role} ({said}){known}");
    Held::new(Reason::VaultLoginDenied, what, next, ByItself::Unsaid)
}

/// What Vault says where it was given no token of a service account.
const NO_JWT: &str = "compact JWS format";

/// What is left without a text: TokenReview failed, or there is no such mount.
const DENIED: (u16, &str) = (403, "permission denied");

/// What is known beyond Vault's text.
fn known(status: u16, said: &str) -> &'static str {
    if said.contains(NO_JWT) {
        ": it was given no service-account token"
    } else if (status, said) == DENIED {
        ": a token of this cluster is only good at a mount that is configured for this cluster"
    } else {
        ""
    }
}

/// What to do about each of Vault's texts.
fn next_step(status: u16, said: &str, auth_mount: &str, role: &str) -> String {
    let says = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
    if says(&["invalid role name", "could not be found"]) {
        format!("create role {role} at auth/{auth_mount}, or set --vault-role")
    } else if says(&["no handler for route", "missing client token"]) {
        no_mount(auth_mount)
    } else if says(&["no known key successfully validated the token signature"]) {
        format!(
            "auth/{auth_mount} has other public keys than this cluster signs its tokens with, as after it was installed anew: write its key there, or run deploy/vault/setup.sh"
        )
    } else if says(&["invalid issuer (iss) claim"]) {
        format!(
            "set bound_issuer of auth/{auth_mount}/config to what `kubectl get --raw /.well-known/openid-configuration` calls issuer"
        )
    } else if says(&["(nbf) claim", "(exp) claim", "(iat) claim"]) {
        "mount a projected token, which the kubelet renews, and compare the clocks of Vault and of this cluster"
            .to_owned()
    } else if says(&[NO_JWT]) {
        "mount one with audience vault, or set --vault-jwt-file".to_owned()
    } else if says(&["namespace not found"]) {
        "set --vault-namespace (VAULT_NAMESPACE) to the one that has this auth mount".to_owned()
    } else if (status, said) == DENIED {
        format!(
            "check that auth/{auth_mount} is (each cluster needs its own, see --vault-auth-mount), and that its token reviewer still works"
        )
    } else {
        format!("compare role {role} at auth/{auth_mount} with this pod's service account, namespace and audience")
    }
}

/// What no user has brought about.
fn unlike_a_login(what: impl Into<String>) -> Held {
    Held::without_next(Reason::VaultLoginDenied, what, ByItself::Unsaid)
}

fn no_mount(auth_mount: &str) -> String {
    format!("enable an auth method at auth/{auth_mount}, or set --vault-auth-mount")
}

#[cfg(test)]
mod tests;

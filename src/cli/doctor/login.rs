//! Links 4 to 6: the auth mount, the token to log in with, the login, and what it allows.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::asked::{Asked, minute};
use super::check::{Check, Eyes, Sight};
use super::line::{Line, Link};
use super::rights::user_of;
use super::vault::{self, Told, paths};
use crate::plan::{Role, Stored};
use crate::reason::{Reason, foreign_text};
use crate::vault::{AuthMount, Claims};

/// The audience that the manifests mount a token with, and the README binds the roles to.
const AUDIENCE: &str = "vault";

/// Why there is no token of the gate's own.
const NOT_YET: &str = "not there before the gate's account is: with VAULT_TOKEN set, the record is compared already";

/// Why there is no login to look at.
const OWN_TOKEN: &str =
    "not needed: VAULT_TOKEN is set and used in place of a login, so nothing is said of the gate's own";

/// A login like the gate's, and all that takes its token.
pub(super) struct Login;

#[async_trait(?Send)]
impl Check for Login {
    async fn look(&self, eyes: &Eyes<'_>, seen: &mut Sight) {
        let addresses = std::mem::take(&mut seen.told.addresses);
        seen.told = Box::pin(vault::ask(eyes.vault, addresses, eyes.asked)).await;
    }

    fn lines(&self, seen: &Sight, asked: &Asked) -> Vec<Line> {
        lines(&seen.told, asked)
    }
}

pub(super) fn lines(told: &Told, asked: &Asked) -> Vec<Line> {
    let mut lines = vec![auth_mount(told, asked), token(told, asked), login(told, asked), rights(told, asked)];
    lines.extend(given_up(told));
    lines
}

fn auth_mount(told: &Told, asked: &Asked) -> Line {
    let mount = &asked.auth_mount;
    let link = Link::new("vault-auth-mount", format!("auth/{mount}"));
    match told.auth_mount.or_line(&link) {
        Err(line) => line,
        Ok(None) => link.note(OWN_TOKEN),
        Ok(Some(AuthMount::AsksForRole)) => link.ok("takes logins with a role"),
        Ok(Some(AuthMount::Other(said))) => link.warning(
            format!("answers a login without a role unlike a kubernetes or jwt method that is configured: {said}"),
            "see `vault auth list`, and configure the mount of this cluster",
        ),
        Ok(Some(AuthMount::Missing)) => link
            .failed(
                "no auth method is mounted there",
                format!("enable one (`vault auth enable -path={mount} kubernetes`, or jwt), or set --vault-auth-mount"),
            )
            .reason(Reason::VaultLoginDenied),
    }
}

fn token(told: &Told, asked: &Asked) -> Line {
    let link = Link::new("vault-jwt", "the service-account token for Vault");
    let claims = match told.claims.or_line(&link) {
        Ok(Some(claims)) => claims,
        Ok(None) => return link.note(OWN_TOKEN),
        Err(_) if asked.pre => return link.note(NOT_YET),
        Err(line) => return line,
    };
    let subject = if claims.subject.is_empty() { "nobody".to_owned() } else { foreign_text(&claims.subject) };
    let wanted = user_of(&asked.namespace, &asked.account);
    if asked.has_ended(claims) {
        let seen = format!("of {subject}, expired at {}", claims.expires.map(minute).unwrap_or_default());
        let next = "mount a projected token, which the kubelet renews, or make one: `kubectl create token`";
        return link.failed(seen, next).reason(Reason::VaultLoginDenied);
    }
    if claims.subject != wanted {
        let seen = format!("of {subject}, and not of {wanted}");
        return link.warning(
            seen,
            "bind Vault's role to the account that the gate's pods have, or name it with --service-account",
        );
    }
    if !claims.audiences.iter().any(|audience| audience == AUDIENCE) {
        let audiences = foreign_text(&claims.audiences.join(", "));
        let seen = format!("of {subject}, for audience {audiences} and not {AUDIENCE}");
        return link.warning(
            seen,
            "mount a projected token with audience vault, as deploy/kustomize/base/deployment.yaml does",
        );
    }
    link.ok(format!("of {subject}, {}, issued by {}", until(claims), foreign_text(&claims.issuer)))
}

fn until(claims: &Claims) -> String {
    match claims.expires {
        Some(end) => format!("audience {AUDIENCE}, until {}", minute(end)),
        None => format!("audience {AUDIENCE}, without end"),
    }
}

fn login(told: &Told, asked: &Asked) -> Line {
    let link = Link::new("vault-login", format!("auth/{} as {}", asked.auth_mount, asked.vault_role));
    match told.login.or_line(&link) {
        Err(line) => line,
        Ok(Some((address, Some(granted)))) => link.ok(format!(
            "granted at {address} for {} s, with policies {}",
            granted.lease,
            granted.policies.join(", ")
        )),
        Ok(_) => match told.token_end.seen() {
            Some(end) => link.note(format!("{OWN_TOKEN}; it ends at {}", minute(*end))),
            None => link.note(OWN_TOKEN),
        },
    }
}

fn rights(told: &Told, asked: &Asked) -> Line {
    let whose = if asked.own_token { "VAULT_TOKEN".to_owned() } else { asked.vault_role.clone() };
    let link = Link::new("vault-rights", format!("rights of {whose} on {}", asked.names.record));
    let rights = match told.rights.or_line(&link) {
        Ok(Some(rights)) => rights,
        Ok(None) => return link.note("Vault does not tell"),
        Err(line) => return line,
    };
    let data = &paths(asked)[0];
    let lacking = lacking(rights, data, asked.role);
    if !lacking.is_empty() {
        let seen = format!("lacks {} on {data}", lacking.join(" and "));
        let next = format!("write the policy of deploy/vault for role {}, and attach it", asked.role.as_str());
        return link.failed(seen, next).reason(Reason::VaultPermissionDenied);
    }
    let excess = excess(rights, data, asked.role);
    match (excess.is_empty(), asked.own_token) {
        (true, _) if asked.role == Role::Bootstrap && is_absent(told) => link.ok(
            "what role bootstrap needs for a path that was never written, and no more; where metadata stands there, it would need `update`",
        ),
        (true, _) => link.ok(format!("what role {} needs, and no more", asked.role.as_str())),
        (false, true) => {
            link.note(format!("more than the gate needs: {}: the asker's, not the gate's", excess.join("; ")))
        }
        (false, false) => link.warning(
            format!(
                "more than role {} needs: {}: even a bug could then replace the root",
                asked.role.as_str(),
                excess.join("; ")
            ),
            "write the policy of deploy/vault for this role, and no other, each in a file of its own",
        ),
    }
}

fn is_absent(told: &Told) -> bool {
    matches!(told.record.seen(), Some(record) if matches!(record.stored, Stored::Absent))
}

fn lacking(rights: &BTreeMap<String, Vec<String>>, data: &str, role: Role) -> Vec<&'static str> {
    let has =
        |capability: &str| rights.get(data).is_some_and(|has| has.iter().any(|one| one == capability || one == "root"));
    needs(role).iter().copied().filter(|capability| !has(capability)).collect()
}

fn needs(role: Role) -> &'static [&'static str] {
    match role {
        Role::Bootstrap => &["read", "create"],
        Role::Sync => &["read"],
    }
}

/// What changes or takes away a record beyond the first write of it.
fn excess(rights: &BTreeMap<String, Vec<String>>, data: &str, role: Role) -> Vec<String> {
    let harmless = |path: &str, capability: &str| match capability {
        "deny" | "read" | "list" | "subscribe" => true,
        other => path == data && needs(role).contains(&other),
    };
    let of_path = |(path, has): (&String, &Vec<String>)| {
        let too_much: Vec<_> = has.iter().filter(|one| !harmless(path, one)).map(|one| foreign_text(one)).collect();
        (!too_much.is_empty()).then(|| format!("{} on {path}", too_much.join(", ")))
    };
    rights.iter().filter_map(of_path).collect()
}

/// Only where it went wrong: the token lives on until its lease ends.
fn given_up(told: &Told) -> Option<Line> {
    let link = Link::new("vault-logout", "the token of this login");
    let line = told.given_up.or_line(&link).err()?;
    let seen = format!("was not given up, and ends by itself: {}", line.seen);
    matches!(told.login.seen(), Some((_, Some(_))))
        .then(|| link.warning(seen, "let the role's policies have `default`, which allows auth/token/revoke-self"))
}

#[cfg(test)]
mod tests;

//! What is asked of Vault itself, at `sys/`, with a token that may.

use serde_json::{Map, json};

use super::acl::Acl;
use super::asked::{Asked, Operation};
use super::moment::Moment;
use super::reply::{Refusal, Said};
use super::state::State;

impl State {
    pub(super) fn about_itself(&mut self, moment: &Moment, acl: &Acl, asked: &Asked) -> Result<Said, Refusal> {
        let path = asked.path.trim_end_matches('/');
        let (part, rest) = path.split_once('/').unwrap_or((path, ""));
        match (part, rest) {
            ("mounts", rest) => self.mounts.handle(moment, asked, "", rest),
            ("auth", rest) => {
                let said = self.mounts.handle(moment, asked, "auth/", rest)?;
                if asked.operation == Operation::Delete {
                    self.tokens.revoke_prefix(&format!("auth/{rest}/"));
                }
                Ok(said)
            }
            ("capabilities-self", "") if asked.is_write() => capabilities(acl, asked),
            ("capabilities-self", "") => Err(Refusal::unsupported_operation()),
            ("policies", rest) => match rest.split_once('/').unwrap_or((rest, "")) {
                ("acl", name) => self.policies.handle(asked, name),
                _ => Err(Refusal::unsupported_path()),
            },
            ("leases", rest) => match rest.strip_prefix("revoke-prefix/") {
                Some(prefix) if asked.is_write() => {
                    self.tokens.revoke_prefix(prefix);
                    Ok(Said::Nothing)
                }
                Some(_) => Err(Refusal::unsupported_operation()),
                None => Err(Refusal::unsupported_path()),
            },
            _ => Err(Refusal::unsupported_path()),
        }
    }
}

/// What the token may do.
fn capabilities(acl: &Acl, asked: &Asked) -> Result<Said, Refusal> {
    let paths = asked.strings("paths")?.filter(|paths| !paths.is_empty());
    let paths = match paths {
        Some(paths) => paths,
        None => asked.strings("path")?.unwrap_or_default(),
    };
    let mut told: Map<_, _> = paths.iter().map(|path| (path.clone(), json!(acl.names(path)))).collect();
    match paths.as_slice() {
        [] => return Err(Refusal::bad("paths must be supplied")),
        [path] => drop(told.insert("capabilities".to_owned(), json!(acl.names(path)))),
        _ => {}
    }
    Ok(Said::Injected(told.into()))
}

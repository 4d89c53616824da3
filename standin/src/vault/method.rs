//! What both auth methods have alike: one configuration, and roles whose names are kept in lower case.

use std::collections::BTreeMap;

use serde_json::Value;

use super::asked::{Asked, Operation};
use super::reply::{Refusal, Said};

/// A mount of a method. How it lets somebody in is its own.
#[derive(Clone, Debug, Default)]
pub(super) struct Method<C, R> {
    pub(super) config: Option<C>,
    pub(super) roles: BTreeMap<String, R>,
}

/// A configuration, which is written whole.
pub(super) trait Configured: Sized {
    fn read(asked: &Asked) -> Result<Self, Refusal>;
    fn show(&self) -> Value;
}

/// A role, of which a write changes what it sets.
pub(super) trait Granting: Clone + Default {
    fn change(&mut self, asked: &Asked) -> Result<(), Refusal>;
    fn show(&self) -> Value;

    /// What is said of a role that is taken nevertheless. Its name is as it was given.
    fn warning(&self, _given_name: &str) -> Option<String> {
        None
    }
}

impl<C: Configured, R: Granting> Method<C, R> {
    /// Whether a write would be an update; `None` where it always is.
    pub(super) fn exists(&self, path: &str) -> Option<bool> {
        path.strip_prefix("role/").map(|role| self.roles.contains_key(&role.to_lowercase()))
    }

    pub(super) fn handle(&mut self, asked: &Asked) -> Result<Said, Refusal> {
        match (asked.path.as_str(), asked.operation) {
            ("config", Operation::Read) => Ok(self.config.as_ref().map_or(Said::Nothing, |it| Said::Data(it.show()))),
            ("config", Operation::Update) => {
                self.config = Some(C::read(asked)?);
                Ok(Said::Nothing)
            }
            ("role/", Operation::List) => Ok(Said::keys(self.roles.keys().cloned().collect())),
            ("config" | "role/", _) => Err(Refusal::unsupported_operation()),
            (path, operation) => match path.strip_prefix("role/") {
                Some(name) => self.role(asked, operation, name),
                None => Err(Refusal::unsupported_path()),
            },
        }
    }

    fn role(&mut self, asked: &Asked, operation: Operation, given_name: &str) -> Result<Said, Refusal> {
        let name = given_name.to_lowercase();
        match operation {
            Operation::Read => Ok(self.roles.get(&name).map_or(Said::Nothing, |role| Said::Data(role.show()))),
            Operation::Create | Operation::Update => {
                let mut role = self.roles.get(&name).cloned().unwrap_or_default();
                role.change(asked)?;
                let warning = role.warning(given_name);
                self.roles.insert(name, role);
                Ok(warning.map_or(Said::Nothing, |warning| Said::Warned(vec![warning])))
            }
            Operation::Delete => {
                self.roles.remove(&name);
                Ok(Said::Nothing)
            }
            Operation::List | Operation::Patch => Err(Refusal::unsupported_operation()),
        }
    }
}

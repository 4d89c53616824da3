//! KV version 1: one value a path, and no check-and-set.

use std::collections::BTreeMap;

use serde_json::Value;

use super::asked::{Asked, Operation};
use super::reply::{Refusal, Said};
use super::{fields, kv, tokens};

/// A mount of KV version 1.
#[derive(Clone, Debug, Default)]
pub(super) struct Plain(BTreeMap<String, Value>);

impl Plain {
    /// Whether a write would be an update.
    pub(super) fn exists(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    pub(super) fn handle(&mut self, asked: &Asked) -> Result<Said, Refusal> {
        match asked.operation {
            Operation::Read => Ok(self.0.get(&asked.path).map_or(Said::Nothing, |data| {
                let lease = data.get("ttl").or_else(|| data.get("lease")).and_then(fields::seconds);
                Said::Leased(data.clone(), lease.unwrap_or(tokens::TTL_MAX))
            })),
            Operation::List => Ok(Said::keys(kv::below(self.0.keys(), &asked.path))),
            Operation::Create | Operation::Update if asked.data.is_empty() => Err(Refusal::bad("missing data fields")),
            Operation::Create | Operation::Update => {
                self.0.insert(asked.path.clone(), Value::Object(asked.data.clone()));
                Ok(Said::Nothing)
            }
            Operation::Delete => {
                self.0.remove(&asked.path);
                Ok(Said::Nothing)
            }
            Operation::Patch => Err(Refusal::unsupported_operation()),
        }
    }
}

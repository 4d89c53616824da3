//! Requests that vaultrs has no endpoint for, and the one way in which a request with a token is made.

use std::time::Duration;

use async_trait::async_trait;
use rustify::Endpoint;
use rustify::enums::{RequestMethod, RequestType, ResponseType};
use rustify::errors::ClientError;
use serde_json::Value;
use zeroize::Zeroizing;

use super::transport::{NoAnswer, Reply};
use super::{Refused, Session, Settings, Vault};

/// A request of plain JSON. Cannot be printed; its body is wiped on drop.
#[derive(Clone)]
pub(super) struct Plain {
    method: RequestMethod,
    path: String,
    body: Option<Zeroizing<Vec<u8>>>,
}

impl Plain {
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self { method: RequestMethod::GET, path: path.into(), body: None }
    }

    pub(super) fn post(path: impl Into<String>, body: Value) -> Self {
        Self::post_text(path, Zeroizing::new(body.to_string().into_bytes()))
    }

    /// With JSON of which no other copy was made.
    pub(super) fn post_text(path: impl Into<String>, json: Zeroizing<Vec<u8>>) -> Self {
        Self { method: RequestMethod::POST, path: path.into(), body: Some(json) }
    }

    pub(super) fn list(path: impl Into<String>) -> Self {
        Self { method: RequestMethod::LIST, path: path.into(), body: None }
    }

    pub(super) fn delete(path: impl Into<String>) -> Self {
        Self { method: RequestMethod::DELETE, path: path.into(), body: None }
    }

    /// With a JSON merge patch.
    pub(super) fn patch(path: impl Into<String>, body: Value) -> Self {
        Self { method: RequestMethod::PATCH, ..Self::post(path, body) }
    }
}

#[async_trait]
impl Endpoint for Plain {
    type Response = ();
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        self.path.clone()
    }

    fn method(&self) -> RequestMethod {
        self.method.clone()
    }

    fn body(&self) -> Result<Option<Vec<u8>>, ClientError> {
        Ok(self.body.as_ref().map(|body| body.to_vec()))
    }
}

/// On which connection a request goes, and how long its answer is waited for.
#[derive(Clone, Copy)]
pub(super) enum Way {
    /// One of its own.
    Own,
    /// The same, for what takes Vault longer than others are waited for.
    Within(Duration),
    /// That of the question how the node is, which ends with the answer.
    Last,
}

impl Vault {
    /// Asks with a token. One that Vault no longer takes is replaced, once. `sort` tells answers from what is none.
    pub(super) async fn with_token<E: Endpoint>(
        &mut self,
        at: usize,
        way: Way,
        make: impl Fn(&Settings) -> Result<E, NoAnswer> + Send + Sync,
        sort: impl Fn(&Self, Result<Reply, NoAnswer>) -> Result<Reply, Refused> + Send + Sync,
    ) -> Result<Reply, Refused> {
        let kept = self.session.is_some();
        let reply = self.with_token_once(at, way, &make, &sort).await?;
        let has_worked = self.session.as_ref().is_some_and(Session::has_worked);
        if kept && reply.status == 403 && self.replace_refused(at, &reply, has_worked).await {
            return self.with_token_once(at, way, &make, &sort).await;
        }
        Ok(reply)
    }

    async fn with_token_once<E: Endpoint>(
        &mut self,
        at: usize,
        way: Way,
        make: &(impl Fn(&Settings) -> Result<E, NoAnswer> + Send + Sync),
        sort: &(impl Fn(&Self, Result<Reply, NoAnswer>) -> Result<Reply, Refused> + Send + Sync),
    ) -> Result<Reply, Refused> {
        let token = self.session(at).await?;
        let (middleware, transport) = (self.middleware(Some(&token)), &self.transports[at]);
        let reply = match (make(&self.settings), way) {
            (Err(error), _) => Err(error),
            (Ok(request), Way::Own) => transport.call(request, &middleware).await,
            (Ok(request), Way::Within(patience)) => transport.call_within(patience, request, &middleware).await,
            (Ok(request), Way::Last) => transport.call_last(request, &middleware).await,
        };
        let reply = sort(self, reply)?;
        if let Some(session) = self.session.as_mut().filter(|_| reply.status != 403) {
            session.worked();
        }
        Ok(reply)
    }
}

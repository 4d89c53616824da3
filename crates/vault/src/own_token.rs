//! A token that a person gave (`VAULT_TOKEN`): nobody renews it, so its end is told in time.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Deserialize;

use super::transport::Reply;
use super::{Plain, Vault};

/// Its end may move when a person renews it.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct OwnToken {
    looked: Option<Instant>,
    ends: Option<Timestamp>,
}

/// What asks for a token's end.
pub(super) fn question() -> Plain {
    Plain::get("auth/token/lookup-self")
}

/// The end that the answer tells. `None`: it has none, or the token may not know.
pub(super) fn end(reply: &Reply) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Lookup {
        data: Life,
    }
    #[derive(Deserialize)]
    struct Life {
        expire_time: Option<Timestamp>,
    }
    let told = serde_json::from_slice::<Lookup>(&reply.body).ok().filter(|_| reply.status == 200);
    told.and_then(|told| told.data.expire_time)
}

impl Vault {
    /// When `VAULT_TOKEN` ends, as far as Vault tells; a login's token is renewed, and not asked for.
    pub(super) async fn token_end(&mut self, at: usize) -> Option<Timestamp> {
        let token = self.settings.token.clone()?;
        if self.own_token.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            let told = self.transports[at].call(question(), &self.middleware(Some(&token))).await;
            // Without an answer, what was told last is still the best that is known.
            let ends = told.map_or(self.own_token.ends, |reply| end(&reply));
            self.own_token = OwnToken { looked: Some(Instant::now()), ends };
        }
        self.own_token.ends
    }
}

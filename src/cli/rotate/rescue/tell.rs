//! A rescue as text and as JSON. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;

use super::Looked;
use crate::ca::Sha256;
use crate::ca::record::{Rotation, SigningRecord};
use crate::life::audience::SKEW;
use crate::life::rescue::Rescue;
use crate::signer::FIRST_ROOT;

/// What will be done, before anything is.
pub(super) fn plan(looked: &Looked, ttl: Duration) -> String {
    let (ttl, skew) = (humantime::format_duration(ttl), SKEW.as_mins());
    let mut text = format!(
        "Clusters that run on roots of their own are brought under {FIRST_ROOT}:\n\n  \
         1. {FIRST_ROOT} is made in Vault, whose PKI engine keeps its key, and the record trusts it and each cluster's own root\n  \
         2. bring   each cluster gets a signer under its own root, beside all roots, and its istiod is restarted once\n  \
         3. wait    {ttl} and {skew} min: from then on all clusters talk to each other\n  \
         4. switch  all signers are certified by {FIRST_ROOT}\n  \
         5. wait    {ttl} and {skew} min\n  \
         6. drop    the roots of their own are no longer trusted\n\n\
         This command does 1 and 2, `istio-ca-gate rotate step` the rest, each step when it is due. Within a cluster no handshake\n\
         fails. There is no way back by `rotate abort`: until the switch, each cluster still signs under its own root.\n\n"
    );
    for side in &looked.sides {
        let own = side.own.as_ref().map_or_else(|| "-".to_owned(), |own| own.sha256.openssl());
        let _ = writeln!(text, "  {}: {} ({own})", side.name, does(looked.todo[&side.name]));
    }
    text
}

const fn does(todo: Rescue) -> &'static str {
    match todo {
        Rescue::Bring => "gets a signer under its own root, and its istiod is restarted",
        Rescue::Restart => "has its signer, and its istiod is restarted",
        Rescue::Done => "works with all roots",
    }
}

/// What comes next, after something was done.
pub(super) fn done() -> String {
    "Run this again until every cluster works with all roots. Then `istio-ca-gate rotate step`, now and again, carries it to \
     its end: `istio-ca-gate rotate status` says what is waited for."
        .to_owned()
}

/// What comes next, where nothing is left to be done.
pub(super) fn nothing() -> String {
    "Nothing to do: all clusters work with all roots. `istio-ca-gate rotate step` goes on from here.".to_owned()
}

/// For programs.
pub(super) fn json(record: &SigningRecord, todo: &BTreeMap<String, Rescue>) -> String {
    let clusters: BTreeMap<_, _> = todo
        .iter()
        .map(|(name, todo)| {
            let did = match todo {
                Rescue::Bring => "brought",
                Rescue::Restart => "restarted",
                Rescue::Done => "done",
            };
            (name, did)
        })
        .collect();
    let value = json!({
        "state": record.state().to_string(),
        "roots": record.roots().iter().map(Sha256::openssl).collect::<Vec<_>>(),
        "rotation": record.under_way().map(Rotation::data),
        "clusters": clusters,
    });
    format!("{value:#}")
}

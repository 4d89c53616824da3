//! Asks Vault, address by address, and then one of them all the rest.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use url::Url;

use super::asked::Asked;
use super::look::Look;
use crate::plan::Stored;
use crate::reason::{Held, innermost};
use crate::vault::{AuthMount, Claims, Granted, Health, Inquiry, Keeping, Record, Refused, Silent, Vault};

/// The gate gives a connection as long: an address that is slower is none to it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How an address is reached, as far as the cluster tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Way {
    /// Without the mesh.
    #[default]
    Direct,
    /// A name in the cluster that is this ServiceEntry's and no Service's.
    MeshOnly(String),
    /// A name in the cluster, of which it cannot be told whose it is.
    Unknown,
}

/// How far the way to an address led.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Not tried: it exists through the mesh only.
    NotTried,
    /// The name has no address, as seen from here.
    Unresolved(String),
    /// No connection.
    Refused(String),
    /// A connection.
    Connected(SocketAddr),
}

/// An address of Vault.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) url: Url,
    /// Somebody says that it is gone for good.
    pub(super) gone: bool,
    pub(super) way: Way,
    pub(super) reach: Reach,
    /// `None`: not asked.
    pub(super) health: Option<Result<Health, Silent>>,
}

impl Address {
    /// Whether the gate can work with it.
    pub(super) fn is_usable(&self) -> bool {
        matches!(&self.health, Some(Ok(health)) if health.node.counts())
    }

    /// As it was configured.
    pub(super) fn name(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }
}

/// How the engine keeps versions, and the record's own; `None`: not told.
pub(super) type Keepings = (Option<Keeping>, Option<Keeping>);

/// All that Vault tells.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) addresses: Vec<Address>,
    pub(super) claims: Look<Claims>,
    pub(super) auth_mount: Look<AuthMount>,
    /// Where, and what it gave; nothing with `VAULT_TOKEN`.
    pub(super) login: Look<(String, Option<Granted>)>,
    /// When `VAULT_TOKEN` ends; nothing with a login.
    pub(super) token_end: Look<Timestamp>,
    pub(super) rights: Look<BTreeMap<String, Vec<String>>>,
    pub(super) mount: Look<Keepings>,
    pub(super) record: Look<Record>,
    /// Why the token of the login lives on.
    pub(super) given_up: Look<()>,
}

impl Default for Told {
    fn default() -> Self {
        Self::nothing("no address of Vault is usable")
    }
}

impl Told {
    /// The record, where it could be read.
    pub(super) fn stored(&self) -> Option<&Stored> {
        self.record.seen().map(|record| &record.stored)
    }

    pub(super) fn nothing(why: &'static str) -> Self {
        Self {
            addresses: Vec::new(),
            claims: Look::Skipped(why),
            auth_mount: Look::Skipped(why),
            login: Look::Skipped(why),
            token_end: Look::Skipped(why),
            rights: Look::Skipped(why),
            mount: Look::Skipped(why),
            record: Look::Skipped(why),
            given_up: Look::Skipped(why),
        }
    }
}

/// How each address is reached and how it is. `ways` are those of the addresses, in their order.
pub(super) async fn addresses(vault: &Vault, ways: Vec<Way>) -> Vec<Address> {
    let urls = vault.settings().addresses.iter().zip(ways).enumerate();
    futures::future::join_all(urls.map(|(at, (url, way))| look_at(vault, at, url.clone(), way))).await
}

/// Asks one of them all the rest.
pub(super) async fn ask(vault: &Vault, addresses: Vec<Address>, asked: &Asked) -> Told {
    let claims = if asked.own_token { Look::Absent } else { vault.claims().into() };
    let Some(at) = addresses.iter().position(Address::is_usable) else {
        return Told { addresses, claims, ..Told::nothing("no address of Vault is usable") };
    };
    let auth_mount: Look<AuthMount> =
        if asked.own_token { Look::Absent } else { vault.auth_mount(at).await.map_err(held).into() };
    let refused = match (&claims, &auth_mount) {
        (Look::Failed(_), _) => Some("vault-jwt failed"),
        (Look::Seen(claims), _) if asked.has_ended(claims) => Some("vault-jwt failed"),
        (_, Look::Seen(AuthMount::Missing) | Look::Failed(_)) => Some("vault-auth-mount failed"),
        _ => None,
    };
    if let Some(why) = refused {
        return Told { addresses, claims, auth_mount, ..Told::nothing(why) };
    }
    match vault.inquire(at).await {
        Err(refused) => {
            let login = Look::Failed(refused.held);
            Told { addresses, claims, auth_mount, login, ..Told::nothing("vault-login failed") }
        }
        Ok(inquiry) => Told { addresses, claims, auth_mount, ..inside(inquiry, asked).await },
    }
}

/// What can be asked with a token, which is given up at the end.
async fn inside(inquiry: Inquiry<'_>, asked: &Asked) -> Told {
    let login = Look::Seen((inquiry.address().to_owned(), inquiry.granted.clone()));
    let token_end = match (&inquiry.granted, inquiry.token_end().await) {
        (None, Ok(Some(end))) => Look::Seen(end),
        _ => Look::Absent,
    };
    let paths = paths(asked);
    let may = "no right to update sys/capabilities-self".to_owned();
    let rights = match inquiry.capabilities(&paths).await {
        Ok(Some(rights)) => Look::Seen(rights),
        Ok(None) => Look::Forbidden(may),
        Err(refused) => Look::Failed(refused.held),
    };
    let mount = match inquiry.is_version_2().await {
        Ok(()) => keepings(&inquiry).await.map_err(held).into(),
        Err(refused) => Look::Failed(refused.held),
    };
    let record = inquiry.record(Timestamp::now()).await.map_err(held).into();
    let given_up = inquiry.give_up().await.map_err(held).into();
    Told { login, token_end, rights, mount, record, given_up, ..Told::nothing("") }
}

async fn keepings(inquiry: &Inquiry<'_>) -> Result<Keepings, Refused> {
    Ok((inquiry.engine_keeping().await?, inquiry.record_keeping().await?))
}

fn held(refused: Refused) -> Held {
    refused.held
}

/// Where the record is, and where it can be taken away: `delete` and `destroy` are paths of their own.
pub(super) fn paths(asked: &Asked) -> [String; 4] {
    ["data", "metadata", "delete", "destroy"].map(|kind| format!("{}/{kind}/{}", asked.mount, asked.path))
}

async fn look_at(vault: &Vault, at: usize, url: Url, way: Way) -> Address {
    let gone = vault.settings().gone.contains(&url);
    if let Way::MeshOnly(_) = way {
        return Address { url, gone, way, reach: Reach::NotTried, health: None };
    }
    let reach = reach(&url, vault.settings().timeout).await;
    let health = match reach {
        Reach::Connected(_) => Some(vault.health(at).await),
        _ => None,
    };
    Address { url, gone, way, reach, health }
}

async fn reach(url: &Url, patience: Duration) -> Reach {
    let port = url.port_or_known_default().unwrap_or_default();
    // A literal IPv6 address has its brackets in the URL alone.
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let resolved: Vec<SocketAddr> = match timeout(patience, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => return Reach::Unresolved(innermost(&error)),
        Err(_) => return Reach::Unresolved("looking it up took too long".to_owned()),
    };
    let mut last = Reach::Unresolved("it has no address".to_owned());
    for address in resolved {
        last = match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(_)) => return Reach::Connected(address),
            Ok(Err(error)) => Reach::Refused(format!("{address}: {}", innermost(&error))),
            Err(_) => Reach::Refused(format!("{address}: connecting took longer than 1 s")),
        };
    }
    last
}

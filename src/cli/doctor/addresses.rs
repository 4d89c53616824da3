//! Links 1 to 3: each address of Vault, its TLS, and how it is.

use async_trait::async_trait;
use k8s_openapi::jiff::SignedDuration;

use super::api;
use super::asked::{Asked, CERTIFICATE_ENDS_SOON, day};
use super::check::{Check, Eyes, Sight};
use super::cluster;
use super::line::{Line, Link};
use super::neighbours;
use super::vault::{self, Address, Reach, Way};
use crate::ca;
use crate::plan::Role;
use crate::reason::{CA_AS_SERVER, Reason, foreign_text};
use crate::skew::Ahead;
use crate::vault::{Health, LAG_MAX, Node, Silent};

/// Each configured address.
pub(super) struct Addresses;

#[async_trait(?Send)]
impl Check for Addresses {
    /// Which of them the mesh alone leads to, the cluster knows.
    async fn look(&self, eyes: &Eyes<'_>, seen: &mut Sight) {
        seen.cluster.version = api::version(eyes.asker).await;
        let reachable = seen.cluster.answers().then_some(eyes.asker);
        if let Some(asker) = reachable {
            seen.cluster.service_entries = neighbours::service_entries(asker, eyes.asked).await;
        }
        let ways = cluster::ways(reachable, &seen.cluster, &eyes.vault.settings().addresses).await;
        seen.told.addresses = vault::addresses(eyes.vault, ways).await;
        seen.cluster.ahead = eyes.asker.clock.ahead();
    }

    fn lines(&self, seen: &Sight, asked: &Asked) -> Vec<Line> {
        let mut lines = lines(&seen.told.addresses, asked);
        lines.push(clock(&seen.told.addresses, seen.cluster.ahead));
        lines
    }
}

/// The lines of all addresses. What fails of one is a warning where another one works.
pub(super) fn lines(addresses: &[Address], asked: &Asked) -> Vec<Line> {
    let mut lines = Vec::new();
    for address in addresses {
        let soften = addresses.iter().any(Address::is_usable) && !address.is_usable();
        let of_address = [reached(address), encrypted(address, asked), state(address)];
        lines.extend(of_address.map(|line| if soften { line.at_most_a_warning() } else { line }));
    }
    lines.extend(one_vault(addresses, asked.role));
    lines
}

/// Whether this clock is that of the others, as far as they tell.
pub(super) fn clock(addresses: &[Address], api: Option<SignedDuration>) -> Line {
    let link = Link::new("clock", "this machine's clock");
    let vault = addresses.iter().find_map(|address| address.health.as_ref()?.as_ref().ok()?.ahead);
    let whose = match (vault, api) {
        (None, None) => return link.skipped("neither Vault nor the API server tells the time"),
        (Some(_), Some(_)) => "Vault's and the API server's",
        (Some(_), None) => "Vault's",
        (None, Some(_)) => "the API server's",
    };
    match (Ahead { vault, api }).judge() {
        Ok(()) => link.ok(format!("within 5 min of {whose}")),
        Err(held) => link.held(&held),
    }
}

fn reached(address: &Address) -> Line {
    let link = Link::new("vault-address", address.name());
    let line = match (&address.reach, &address.way) {
        (Reach::Connected(ip), Way::Unknown) => link.ok(format!("connects to {ip}")),
        (Reach::Connected(ip), _) => link.ok(format!("connects to {ip}, without the mesh")),
        (Reach::NotTried, Way::MeshOnly(entry)) => link.failed(
            format!(
                "exists through the mesh only (ServiceEntry {entry}, and no Service): the mesh needs gateways, those need cacerts, and that needs Vault"
            ),
            "configure an address first that is reached without the mesh; this one may stand behind it",
        ),
        (Reach::NotTried, _) => link.skipped("it was not tried"),
        (Reach::Unresolved(what), Way::Direct) => {
            link.failed(format!("does not resolve here: {what}"), "check the name and this machine's DNS")
        }
        (Reach::Unresolved(what), _) => link.failed(
            format!("does not resolve here, a name of the cluster's DNS: {what}"),
            "run doctor in the gate's pod; if it does not resolve there either, it exists through the mesh only: configure a direct address first",
        ),
        (Reach::Refused(what), _) => {
            link.failed(format!("no connection to {what}"), "check that Vault runs, its port, and firewalls and network policies between")
        }
    };
    if line.next.is_some() { line.reason(Reason::VaultUnreachable) } else { line }
}

fn encrypted(address: &Address, asked: &Asked) -> Line {
    let link = Link::new("vault-tls", address.name());
    if address.url.scheme() == "http" {
        return link.warning(
            "not encrypted: tokens and the CA's key cross the network in the clear",
            "give Vault a certificate and an https:// address",
        );
    }
    match &address.health {
        None => link.skipped("vault-address failed"),
        Some(Err(Silent { connecting: true, what })) => {
            link.failed(what.clone(), tls_next(what, address)).reason(Reason::VaultUnreachable)
        }
        Some(Err(Silent { connecting: false, .. })) => link.ok("trusted, and the name fits"),
        Some(Ok(health)) => match health.certificate.as_deref().and_then(ca::not_after) {
            Some(end) if asked.ends_within(end, CERTIFICATE_ENDS_SOON) => link.warning(
                format!("trusted, and ends in {} days, on {}", asked.days_until(end), day(end)),
                "renew Vault's certificate: the gate never talks to a Vault that it cannot verify",
            ),
            Some(end) => link.ok(format!("trusted, the name fits, until {}", day(end))),
            None => link.ok("trusted, and the name fits"),
        },
    }
}

fn tls_next(what: &str, address: &Address) -> String {
    let host = address.url.host_str().unwrap_or_default();
    // BadSignature: a CA of the same name with another key.
    if what.contains(CA_AS_SERVER) {
        format!(
            "make one that is no CA: `openssl req -x509 -newkey rsa:2048 -nodes -keyout vault.key -out vault.crt -days 825 -subj /CN={host} -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:{host}`, and give it by --vault-ca-cert"
        )
    } else if what.contains("unknown CA") || what.contains("BadSignature") {
        "give the CA of Vault's certificate by --vault-ca-cert (VAULT_CACERT)".to_owned()
    } else if what.contains("another name") {
        format!("configure a name that is in Vault's certificate, or have one issued for {host}")
    } else if what.contains("expired") || what.contains("not valid yet") {
        "renew Vault's certificate, or mend the clock of this machine".to_owned()
    } else {
        "check that it is Vault that listens there, with TLS 1.2 or 1.3".to_owned()
    }
}

fn state(address: &Address) -> Line {
    let link = Link::new("vault-state", address.name());
    match &address.health {
        None => link.skipped("vault-address failed"),
        Some(Err(Silent { connecting: true, .. })) => link.skipped("vault-tls failed"),
        Some(Err(Silent { what, .. })) => {
            let next = "check that it is Vault that listens there, and its log";
            link.failed(format!("does not answer as Vault does: {what}"), next).reason(Reason::VaultUnreachable)
        }
        Some(Ok(health)) => state_of(&link, health),
    }
}

fn state_of(link: &Link, health: &Health) -> Line {
    let node = node(health);
    let unreachable =
        |seen: &str, next: &str| link.failed(format!("{seen}, {node}"), next).reason(Reason::VaultUnreachable);
    match health.node {
        Node::Active => link.ok(format!("active, {node}")),
        Node::Forwards => link.ok(format!("standby, which passes requests on to the active node, {node}")),
        Node::Reads { heard: Some(heard) } if health.node.counts() => link.ok(format!(
            "answers reads by itself, and was in touch with the active node {} s ago, {node}",
            heard.as_secs()
        )),
        Node::Reads { .. } => unreachable(
            &format!(
                "answers reads by itself, and does not tell that it was in touch with the active node within {} s, so what it says does not count",
                LAG_MAX.as_secs()
            ),
            "configure the active node's address, or those of all nodes; see \"Which address of Vault\" in docs/operate.md",
        ),
        Node::CutOff => unreachable("a standby that has lost the active node", "look at the log of Vault's nodes"),
        Node::Recovery => {
            unreachable("a disaster-recovery secondary, which answers no reads", "configure the primary's address")
        }
        Node::Sealed if health.status == 501 => link
            .failed(
                "not initialised",
                "run `vault operator init`, or configure the address of the Vault that has your data",
            )
            .reason(Reason::VaultSealed),
        Node::Sealed => {
            link.failed(format!("sealed, {node}"), "unseal it: `vault operator unseal`").reason(Reason::VaultSealed)
        }
        Node::Other => unreachable(&format!("sys/health has status {}", health.status), "look at Vault's log"),
    }
}

fn node(health: &Health) -> String {
    let mut node = format!("version {}", health.version);
    for (word, value) in [("cluster", &health.cluster_name), ("cluster_id", &health.cluster_id)] {
        if let Some(value) = value {
            node += &format!(", {word} {}", shown(value));
        }
    }
    node
}

/// Which Vault it is, to be compared by people: other texts lose what looks like a number of a request.
fn shown(id: &str) -> String {
    let is_plain = id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if is_plain { id.to_owned() } else { foreign_text(id) }
}

/// Two Vaults are two roots sooner or later.
fn one_vault(addresses: &[Address], role: Role) -> Option<Line> {
    if addresses.len() < 2 {
        return None;
    }
    let link = Link::new("vault-one", format!("the {} addresses", addresses.len()));
    let healthy: Vec<_> =
        addresses.iter().filter_map(|address| Some((address, address.health.as_ref()?.as_ref().ok()?))).collect();
    let told: Vec<_> = healthy.iter().filter_map(|(at, health)| Some((at, health.cluster_id.as_ref()?))).collect();
    let Some((first, id)) = told.first() else {
        return Some(link.skipped("no address tells which Vault it is"));
    };
    if let Some((second, other)) = told.iter().find(|(_, other)| other != id) {
        let (first, second, id, other) = (first.name(), second.name(), shown(id), shown(other));
        let seen = format!("two different Vaults: {first} has cluster_id {id}, {second} has {other}");
        return Some(link.failed(seen, "configure the addresses of one").reason(Reason::VaultAmbiguous));
    }
    if let Some((silent, _)) = healthy.iter().find(|(_, health)| health.cluster_id.is_none()) {
        let seen =
            format!("{} does not tell which Vault it is, and may be another one with a root of its own", silent.name());
        return Some(link.warning(seen, "unseal it, or configure it no longer").reason(Reason::VaultSealed));
    }
    let silent = |address: &&Address| !address.gone && !matches!(address.health, Some(Ok(_)));
    if let Some(silent) = addresses.iter().find(silent).filter(|_| role == Role::Bootstrap) {
        let seen =
            format!("{} is silent, and may be another one with a root of its own: no root is made", silent.name());
        let next = format!(
            "bring it back, configure it no longer, or, if it is gone for good, say so with --vault-gone {}",
            silent.name()
        );
        return Some(link.warning(seen, next).reason(Reason::VaultAmbiguous));
    }
    Some(link.ok(format!("one Vault, cluster_id {}; {} of {} answer", shown(id), told.len(), addresses.len())))
}

#[cfg(test)]
mod tests;

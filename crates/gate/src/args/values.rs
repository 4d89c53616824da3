//! What the values of flags may be.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::ca::signer::common_name;
pub use crate::durations::{duration, interval, life};
use crate::plan::{OnRootChange, Role};
use crate::snapshot::VaultUnavailable;

/// A choice among few values, each with its name and what the help says of it.
fn choice<T: Copy + Send + Sync + 'static, const N: usize>(
    values: [(T, &'static str, &'static str); N],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(values.map(|(_, name, help)| PossibleValue::new(name).help(help))).try_map(move |given| {
        let chosen = values.iter().find(|(_, name, _)| *name == given);
        chosen.map(|(value, ..)| *value).ok_or("it is none of the possible values")
    })
}

/// `bootstrap` or `sync`.
pub fn role() -> impl TypedValueParser<Value = Role> {
    choice([
        (Role::Bootstrap, Role::Bootstrap.as_str(), "Makes the root where Vault has never had one"),
        (Role::Sync, Role::Sync.as_str(), "Only ever mirrors Vault's root"),
    ])
}

/// `halt` or `replace`.
pub fn on_root_change() -> impl TypedValueParser<Value = OnRootChange> {
    choice([
        (OnRootChange::Halt, "halt", "Keep gated pods out until a person has decided"),
        (OnRootChange::Replace, "replace", "Follow Vault"),
    ])
}

/// `allow-verified` or `deny`.
pub fn vault_unavailable() -> impl TypedValueParser<Value = VaultUnavailable> {
    choice([
        (
            VaultUnavailable::AllowVerified,
            "allow-verified",
            "A `cacerts` with the root last verified still opens the gate, with a warning",
        ),
        (VaultUnavailable::Deny, "deny", "Keep gated pods out"),
    ])
}

/// A name or address that can stand in a certificate.
pub fn certificate_name(text: &str) -> Result<String, String> {
    match rcgen::CertificateParams::new(vec![text.to_owned()]) {
        Ok(_) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err("it cannot stand in a certificate".to_owned()),
    }
}

/// A name of an object or a namespace.
///
/// # Errors
/// That it is none.
pub fn dns_label(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let sound = !text.is_empty() && text.len() <= 253 && text.chars().all(allowed);
    sound.then(|| text.to_owned()).ok_or_else(|| "it is not a Kubernetes name".to_owned())
}

/// It stands in every message, and in the common name of a root made here, which ends at 64.
///
/// # Errors
/// That it is none.
pub fn cluster_name(text: &str) -> Result<String, String> {
    named(text, 64 - "Istio Root CA ".len())
}

/// The same of a cluster with a signer of its own, by whose name that is called.
///
/// # Errors
/// That it is none.
pub fn signing_cluster_name(text: &str) -> Result<String, String> {
    named(text, 64 - common_name("").len())
}

fn named(text: &str, most: usize) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let sound = !text.is_empty() && text.len() <= most && text.chars().all(allowed);
    sound.then(|| text.to_owned()).ok_or_else(|| format!("1 to {most} letters, digits, dashes, dots, underscores"))
}

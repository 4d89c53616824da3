//! What people are shown of an adoption: never a key.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::ca::check::Sound;
use crate::cli::paint::{Tone, paint};
use crate::plan::{Names, Owner, Pin, Published};

/// A rotation of the root over several clusters takes weeks.
const NEAR_ITS_END: SignedDuration = SignedDuration::from_hours(90 * 24);

/// What is about to be done.
pub(super) struct Proposal<'a> {
    pub(super) cluster: &'a str,
    /// The API server's address.
    pub(super) server: &'a str,
    pub(super) names: &'a Names,
    pub(super) published: &'a Published,
    pub(super) pin: Option<&'a Pin>,
    pub(super) sound: &'a Sound,
    /// Vault's address, at which nothing was found and the root would be written.
    pub(super) address: &'a str,
}

impl Proposal<'_> {
    /// A few lines: what, from where, to where, and what to think about first.
    pub(super) fn text(&self, now: Timestamp) -> String {
        let mut text =
            String::from("The CA of this cluster becomes the root of all clusters that share this Vault:\n\n");
        for (name, value) in self.facts(now) {
            text.push_str(&format!("  {name:<11} {value}\n"));
        }
        for warning in self.warnings(now) {
            text.push_str(&self::warning(&warning));
        }
        text
    }

    fn facts(&self, now: Timestamp) -> Vec<(&'static str, String)> {
        let (sound, glance) = (self.sound, &self.sound.glance);
        let mut facts = vec![
            ("cluster", format!("{} ({})", self.cluster, self.server)),
            ("Secret", format!("{}, {}", self.names.cacerts, owner(self.published))),
            ("subject", glance.subject.clone()),
            ("SHA-256", glance.sha256.openssl()),
            ("expires", format!("{}, in {} days", date(glance.not_after), days(now, glance.not_after))),
        ];
        if glance.roots.len() > 1 {
            facts.push(("roots", format!("{}, of which the first is shown", glance.roots.len())));
            facts.push(("signs under", sound.root.openssl()));
        }
        facts.extend([
            ("signing CA", signing_ca(sound).to_owned()),
            ("pin", if self.pin.is_some() { "this cluster has verified this root before" } else { "none" }.to_owned()),
            ("Vault", self.address.to_owned()),
            ("record", format!("{}, never written", self.names.record)),
        ]);
        facts
    }

    fn warnings(&self, now: Timestamp) -> Vec<String> {
        let mut warnings = Vec::new();
        let end = self.sound.usable_until.at;
        if end.duration_since(now) < NEAR_ITS_END {
            warnings.push(format!(
                "a certificate of this CA ends on {}, in {} days: all clusters are held back from then on. Consider a new root instead.",
                date(end),
                days(now, end)
            ));
        }
        if self.address.starts_with("http://") {
            warnings
                .push(format!("{} is not HTTPS: the private key would cross the network in the clear.", self.address));
        }
        warnings
    }
}

/// What to think about first.
pub(super) fn warning(text: &str) -> String {
    format!("\n{} {text}\n", paint(Tone::Doubtful, "Warning:"))
}

/// It was written, and read back.
pub(super) fn adopted(names: &Names, address: &str, version: u64, sound: &Sound) -> String {
    format!(
        "Adopted: {} in Vault at {address} holds the root of Secret {}: version {version}, sha256 {}. The gates of all clusters follow by themselves.",
        names.record, names.cacerts, sound.root
    )
}

/// It was there.
pub(super) fn nothing(names: &Names, address: &str, version: u64, sound: &Sound) -> String {
    format!(
        "Nothing to do: {} in Vault at {address} already holds the roots of Secret {}: version {version}, sha256 {}.",
        names.record, names.cacerts, sound.root
    )
}

fn owner(published: &Published) -> String {
    match published {
        Published::Present(copy) => match &copy.owner {
            Owner::Ours => "managed by istio-ca-gate".to_owned(),
            Owner::ExternalSecrets(None) => "managed by External Secrets".to_owned(),
            Owner::ExternalSecrets(Some(name)) => format!("managed by External Secrets ({name})"),
            Owner::Other => "not managed by istio-ca-gate".to_owned(),
        },
        Published::Absent => "absent".to_owned(),
    }
}

fn signing_ca(sound: &Sound) -> &'static str {
    if sound.signs_with_the_root() {
        "the root itself, so its key is written to Vault"
    } else {
        "an intermediate beneath the root; its key is written to Vault, the root's is not"
    }
}

pub(super) fn date(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

fn days(from: Timestamp, to: Timestamp) -> i64 {
    to.duration_since(from).as_hours() / 24
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::fixtures::{NOW, YEARS, at, now};
    use crate::samples::{BOTH, R1, R1_OTHER_CA, external_secrets, names, pin, published, traces};

    fn text(owner: Owner, sound: &std::sync::Arc<Sound>, address: &str, now: Timestamp) -> String {
        let (names, published, pin) = (names(), published(owner, sound), pin(sound.root));
        Proposal {
            cluster: "homelab",
            server: "https://kubernetes.example:6443/",
            names: &names,
            published: &published,
            pin: Some(&pin),
            sound,
            address,
        }
        .text(now)
    }

    #[test]
    fn a_proposal_names_both_sides_and_the_root_and_never_a_key() {
        let text = text(Owner::Other, &R1, "https://vault.example:8200", now());
        for part in [
            "homelab (https://kubernetes.example:6443/)",
            "istio-system/cacerts, not managed by istio-ca-gate",
            &R1.glance.subject,
            &R1.root.openssl(),
            "the root itself",
            "https://vault.example:8200",
            "secret/istio/ca, never written",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(!text.contains("Warning"), "{text}");
        for trace in traces() {
            assert!(!text.contains(&trace), "{trace} in {text}");
        }
    }

    #[test]
    fn an_intermediate_and_several_roots_are_told() {
        let address = "https://vault.example:8200";
        let intermediate = text(external_secrets(), &R1_OTHER_CA, address, now());
        assert!(intermediate.contains("an intermediate beneath the root"), "{intermediate}");
        assert!(intermediate.contains("managed by External Secrets"), "{intermediate}");
        let both = text(Owner::Ours, &BOTH, address, now());
        assert!(both.contains("2, of which the first is shown") && both.contains(&R1.root.openssl()), "{both}");
    }

    #[test]
    fn a_near_end_and_a_vault_without_tls_are_warned_of() {
        let early = text(Owner::Other, &R1, "https://v.example", at(NOW + YEARS - 91 * 24 * 3600));
        assert!(!early.contains("Warning"), "{early}");
        let late = text(Owner::Other, &R1, "https://v.example", at(NOW + YEARS - 89 * 24 * 3600));
        assert!(late.contains("Warning:") && late.contains("in 89 days"), "{late}");
        let plain = text(Owner::Other, &R1, "http://v.example", now());
        assert!(plain.contains("http://v.example is not HTTPS"), "{plain}");
    }
}

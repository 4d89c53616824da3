//! Why a gated pod is kept out: the reason codes, and the sentence that goes with one.

use std::error::Error;
use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A reason code: fixed names that appear in denials, logs, events, metrics and the docs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason code, in the order of the contract.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The code as users see it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

reasons! {
    /// The work is under way, and this call's time ran out before its end.
    Converging,
    /// Vault has no root yet, and this cluster may not make one.
    RootMissing,
    /// Vault had a root once, and has it no longer.
    RootDeleted,
    /// What Vault holds is not a CA that istiod and its peers can use.
    RootInvalid,
    /// A certificate of Vault's CA is past its end.
    RootExpired,
    /// The root is not the one that this cluster trusts.
    RootChanged,
    /// `cacerts` is there although Vault has never had a root.
    CacertsUnknown,
    /// External Secrets manages `cacerts`, and it does not hold Vault's root yet.
    CacertsManagedElsewhere,
    /// `cacerts` is somebody else's and not usable.
    CacertsInvalid,
    /// No configured address of Vault answers as Vault should.
    VaultUnreachable,
    /// Vault is sealed or not initialised.
    VaultSealed,
    /// Vault refuses the login of this service account.
    VaultLoginDenied,
    /// Vault refuses a request of this token.
    VaultPermissionDenied,
    /// The secrets engine at the configured mount is not KV version 2.
    VaultMountInvalid,
    /// Vault asks for fewer requests.
    VaultRateLimited,
    /// The configured addresses are more than one Vault.
    VaultAmbiguous,
    /// This cluster's mesh serves a root that Vault does not have.
    MeshOnOtherRoot,
    /// This clock is off from Vault's or the API server's.
    ClockWrong,
    /// The Kubernetes API server does not answer, or not usefully.
    KubernetesUnreachable,
    /// The Kubernetes API server refuses what this service has to do.
    KubernetesForbidden,
    /// A dry run, and nothing is known yet: dry runs start nothing.
    DryRun,
}

impl Reason {
    /// Whether this means that Vault could not be asked, as opposed to an answer of Vault's; or that its answer cannot
    /// be judged. By a clock of this node that is wrong, no earlier verification is recent.
    ///
    /// Only these may be bridged by `--vault-unavailable allow-verified`.
    pub const fn is_outage(self) -> bool {
        matches!(
            self,
            Self::VaultUnreachable
                | Self::VaultSealed
                | Self::VaultRateLimited
                | Self::VaultLoginDenied
                | Self::VaultPermissionDenied
                | Self::ClockWrong
        )
    }

    /// Whether this is about the Kubernetes API and says nothing of the CA.
    pub const fn is_kubernetes(self) -> bool {
        matches!(self, Self::KubernetesUnreachable | Self::KubernetesForbidden)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What keeps the gate closed: a code, and one sentence with the cause and the next step.
///
/// The sentence is constant for a cause. Changing text defeats the de-duplication of events, and the
/// ReplicaSet's condition keeps the first text that it saw (kubernetes#127081).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The code.
    pub reason: Reason,
    /// The cause and what to do next, without code and cluster.
    pub sentence: String,
}

impl Held {
    /// A reason with its sentence.
    pub fn new(reason: Reason, sentence: impl Into<String>) -> Self {
        Self { reason, sentence: sentence.into() }
    }

    /// The text of a denial. It stands alone in the ReplicaSet's event, so it repeats the code.
    pub fn message(&self, cluster: &str) -> String {
        format!("{}: cluster {cluster}: {}", self.reason, self.sentence)
    }

    /// The same with something to be said beside it, before what happens by itself.
    #[must_use]
    pub fn noting(&self, note: &str) -> Self {
        let promise = PROMISES.into_iter().find(|promise| self.sentence.ends_with(promise)).unwrap_or_default();
        let kept = self.sentence.strip_suffix(promise).unwrap_or(&self.sentence);
        Self::new(self.reason, format!("{kept}; {note}{promise}"))
    }

    /// The same for a command that ends with it, and so keeps no promise of a running gate's.
    #[must_use]
    pub fn without_promise(&self) -> Self {
        let kept = PROMISES.iter().find_map(|promise| self.sentence.strip_suffix(promise));
        Self::new(self.reason, kept.unwrap_or(&self.sentence))
    }
}

/// Ends of sentences that say what a running gate does next.
const PROMISES: [&str; 5] = [
    "; it is tried again by itself",
    ": it is tried again by itself",
    "; it is read again by itself",
    "; it is tried again when Vault allows",
    "; this pod follows by itself",
];

/// Longest foreign text that is repeated to users.
const FOREIGN_TEXT_MAX: usize = 240;

/// Makes a text of another system's fit to be repeated: one line, bounded, and never a key.
pub fn foreign_text(text: &str) -> String {
    // A PEM block, its base64, a JWT and Vault's tokens start with these.
    let starts = ["-----BEGIN", "LS0tLS", "eyJ", "hvs.", "hvb.", "hvr."];
    let is_packed = |char: char| char.is_ascii_alphanumeric() || "+/-_.".contains(char);
    if starts.iter().any(|start| text.contains(start)) || text.split(|char| !is_packed(char)).any(may_be_secret) {
        return "(withheld: it may hold a secret)".to_owned();
    }
    let text = constant(text);
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(FOREIGN_TEXT_MAX).collect();
    line.truncate(line.trim_end().len());
    line
}

/// Whether a word is like a token of Vault's old kind (`s.`, `b.`, `r.`), like base64 of a key, or like one in
/// hexadecimal, which is longer than a fingerprint.
fn may_be_secret(word: &str) -> bool {
    let is_old_token = |word: &str| {
        let of_kind = ["s.", "b.", "r."].iter().find_map(|kind| word.strip_prefix(kind));
        let id = of_kind.and_then(|rest| rest.split('.').next()).unwrap_or_default();
        id.len() >= 20 && id.chars().all(|char| char.is_ascii_alphanumeric())
    };
    let is_key = |run: &str| {
        let upper = run.chars().filter(char::is_ascii_uppercase).count();
        let is_hex = run.chars().all(|char| char.is_ascii_hexdigit());
        // Of base64, two fifths are capitals; of paths and names that are put together, few.
        run.len() > 64 && is_hex || run.len() >= 40 && !is_hex && upper >= run.len() / 5
    };
    is_old_token(word) || word.split('.').any(is_key)
}

/// The same without what is another one each time: numbers of requests and moments. A sentence has to be constant for its
/// cause.
fn constant(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':' | '.');
    let mut constant = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| is_part(c) != is_part(first)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        constant.push_str(if is_passing(word) { "…" } else { word });
        rest = after;
    }
    constant
}

/// A UUID, a long number in hex, or an RFC 3339 moment.
fn is_passing(word: &str) -> bool {
    let word = word.trim_matches([':', '.', '-', '_']);
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    let is_hex = word.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    let is_moment = word.len() >= 16
        && word
            .bytes()
            .zip("dddd-dd-ddTdd:dd".bytes())
            .all(|(b, p)| if p == b'd' { b.is_ascii_digit() } else { b == p });
    // A fingerprint is not: of SHA-1 and SHA-256.
    is_moment || (is_hex && digits >= 4 && word.len() >= 12 && ![40, 64].contains(&word.len()))
}

/// What a transport error says at the bottom of its chain, which says most. Constant for a cause:
/// rustls' own text about a certificate's time has the time of day in it.
pub fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut bottom = error;
    loop {
        if let Some(certificate) = certificate_error(bottom) {
            return certificate;
        }
        // An I/O error does not name the error inside of it as its source.
        let inner = bottom.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        match inner.map(|inner| inner as &(dyn Error + 'static)).or_else(|| bottom.source()) {
            Some(next) => bottom = next,
            None => return foreign_text(&bottom.to_string()),
        }
    }
}

/// webpki's name for a CA in the place of a server's certificate.
pub const CA_AS_SERVER: &str = "CaUsedAsEndEntity";

fn certificate_error(error: &(dyn Error + 'static)) -> Option<String> {
    use rustls::{CertificateError as E, Error as Tls};
    let Tls::InvalidCertificate(what) = error.downcast_ref::<Tls>()? else { return None };
    let is_ca = |other: &E| format!("{other:?}").contains(CA_AS_SERVER);
    Some(match what {
        E::Expired | E::ExpiredContext { .. } => "its certificate has expired".to_owned(),
        E::NotValidYet | E::NotValidYetContext { .. } => "its certificate is not valid yet".to_owned(),
        E::NotValidForName | E::NotValidForNameContext { .. } => "its certificate is for another name".to_owned(),
        E::UnknownIssuer => "its certificate is from an unknown CA: UnknownIssuer".to_owned(),
        ca if is_ca(ca) => format!(
            "its certificate is itself a CA's (CA:TRUE), as a plain `openssl req -x509` makes it: {CA_AS_SERVER}"
        ),
        other => foreign_text(&format!("its certificate is invalid: {other:?}")),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn codes_are_their_names() {
        assert_eq!(Reason::ALL.len(), 21);
        assert_eq!(Reason::RootMissing.to_string(), "RootMissing");
    }

    /// The files in which each code arises. What the pure ones say is tested there; the others are shell.
    const ARISES: [(Reason, &[&str]); 21] = [
        (Reason::Converging, &["webhook.rs", "converge/attempt.rs"]),
        (Reason::RootMissing, &["plan.rs"]),
        (Reason::RootDeleted, &["plan.rs"]),
        (Reason::RootInvalid, &["plan.rs"]),
        (Reason::RootExpired, &["plan.rs"]),
        (Reason::RootChanged, &["plan.rs", "k8s/pin.rs"]),
        (Reason::CacertsUnknown, &["plan.rs"]),
        (Reason::CacertsManagedElsewhere, &["plan.rs"]),
        (Reason::CacertsInvalid, &["plan.rs"]),
        (Reason::VaultUnreachable, &["vault/answer.rs"]),
        (Reason::VaultSealed, &["vault/health.rs"]),
        (Reason::VaultLoginDenied, &["vault/login.rs"]),
        (Reason::VaultPermissionDenied, &["vault/answer.rs"]),
        (Reason::VaultMountInvalid, &["vault/answer.rs"]),
        (Reason::VaultRateLimited, &["vault/answer.rs"]),
        (Reason::VaultAmbiguous, &["vault/health.rs"]),
        (Reason::MeshOnOtherRoot, &["plan.rs"]),
        (Reason::ClockWrong, &["skew.rs"]),
        (Reason::KubernetesUnreachable, &["k8s.rs", "webhook.rs"]),
        (Reason::KubernetesForbidden, &["k8s.rs"]),
        (Reason::DryRun, &["gate.rs"]),
    ];

    #[test]
    fn every_code_arises_where_it_is_said_to() {
        assert_eq!(ARISES.map(|(reason, _)| reason), Reason::ALL);
        let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        for (reason, files) in ARISES {
            for file in files {
                let text = std::fs::read_to_string(source.join(file)).unwrap();
                let (code, _tests) = text.split_once("#[cfg(test)]").unwrap_or((&text, ""));
                // Made, and not only looked at.
                let made = |line: &str| line.contains(&format!("Reason::{reason}")) && !line.contains("==");
                assert!(code.lines().any(made), "{reason} does not arise in {file}");
            }
        }
    }

    #[test]
    fn only_what_keeps_vault_from_being_asked_is_an_outage() {
        let outages: Vec<_> = Reason::ALL.iter().filter(|r| r.is_outage()).map(|r| r.as_str()).collect();
        assert_eq!(
            outages,
            [
                "VaultUnreachable",
                "VaultSealed",
                "VaultLoginDenied",
                "VaultPermissionDenied",
                "VaultRateLimited",
                "ClockWrong"
            ]
        );
    }

    #[test]
    fn a_message_names_code_and_cluster() {
        let held = Held::new(Reason::RootMissing, "Vault has no root yet");
        assert_eq!(held.message("nas"), "RootMissing: cluster nas: Vault has no root yet");
    }

    #[test]
    fn a_command_that_ends_promises_nothing() {
        let told = |sentence: &str| Held::new(Reason::VaultUnreachable, sentence).without_promise().sentence;
        assert_eq!(told("down; it is tried again by itself"), "down");
        assert_eq!(told("down; mend it"), "down; mend it");
        let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        for (file, sentence) in [
            ("vault/answer.rs", "; it is tried again by itself"),
            ("vault/answer.rs", "; it is tried again when Vault allows"),
            ("k8s.rs", "; it is tried again by itself"),
            ("converge/attempt.rs", ": it is tried again by itself"),
            ("converge/attempt.rs", "; it is read again by itself"),
            ("plan.rs", "; this pod follows by itself"),
        ] {
            let text = std::fs::read_to_string(source.join(file)).unwrap();
            assert!(text.contains(&format!("{sentence}\"")), "{file} promises in other words");
            assert!(PROMISES.contains(&sentence), "{sentence}");
        }
    }

    #[test]
    fn foreign_text_is_one_bounded_line_without_keys() {
        assert_eq!(foreign_text("a\nb\u{1b}[31mc\n"), "a b [31mc");
        assert_eq!(foreign_text(&"x".repeat(1000)).len(), FOREIGN_TEXT_MAX);
        assert!(foreign_text("data: LS0tLS1CRUdJTiBQ").starts_with("(withheld"));
        assert!(foreign_text("-----BEGIN PRIVATE KEY-----").starts_with("(withheld"));
        let fingerprint = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for secret in [
            "token=hvb.AAAAAQKp, denied".to_owned(),
            "hvr.AAAAAQ".to_owned(),
            "token s.gjqcYCmNQzQHtRTYzWXPAO4X is unknown".to_owned(),
            "b.gjqcYCmNQzQHtRTYzWXPAO4X.ns1".to_owned(),
            "r.gjqcYCmNQzQHtRTYzWXPAO4X".to_owned(),
            fingerprint.repeat(2),
            format!("parsing \"{}\"", "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg"),
        ] {
            assert!(foreign_text(&secret).starts_with("(withheld"), "{secret}");
        }
        for plain in [
            "https://kubernetes.default.svc/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/istio",
            "ValidatingAdmissionPolicyBindingConfigurations/status is forbidden: system:serviceaccount:istio-system:gate",
            "it reads. Once more",
            fingerprint,
            &fingerprint.to_uppercase(),
        ] {
            assert_eq!(foreign_text(plain), plain);
        }
    }

    #[test]
    fn base64_of_any_key_is_withheld_line_by_line() {
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        for line in key.lines().filter(|line| line.len() >= 40) {
            assert!(foreign_text(&format!("near {line}: no")).starts_with("(withheld"), "{line}");
        }
    }

    #[test]
    fn foreign_text_is_the_same_for_each_request() {
        for (one, constant) in [
            ("502 (request id: 0c2a91d4-6393-11e8-b7cc-42010a800002)", "502 (request id: …)"),
            ("Ray ID: 8c1f2b3a4d5e6f70", "Ray ID: …"),
            ("trace=1-67891233-abcdef012345678912345678, retry", "trace=…, retry"),
            ("expired at 2026-11-28T03:22:16.123Z", "expired at …"),
            ("not before 2026-11-28T03:22:16+01:00!", "not before …+01:00!"),
        ] {
            assert_eq!(foreign_text(one), constant, "{one}");
        }
        for stays in [
            "pods \"istiod-7d4b9c5f66-\" is forbidden",
            "dial tcp 10.0.0.1:8200: connection refused",
            "[2001:db8::1]:8200: no route",
            "2 errors in secret/data/istio/ca of nas-2026-11",
            "deadbeef-cafe",
        ] {
            assert_eq!(foreign_text(stays), stays);
        }
    }
}

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
    /// Vault refuses to certify this cluster's signer, or to make the root that it would be under.
    SigningRefused,
    /// A change of the root waits for something.
    RotationHeld,
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

    /// Whether `--vault-unavailable allow-verified` may bridge it: an outage, or a signer that nobody certifies, which
    /// says nothing about the root.
    pub const fn is_bridgeable(self) -> bool {
        self.is_outage() || matches!(self, Self::SigningRefused)
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

/// What a running gate does about it by itself, as far as that is said. Who else repeats the rest leaves it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByItself {
    /// Nothing is said of it.
    Unsaid,
    /// All of it is done again.
    TriedAgain,
    /// Vault is asked again.
    ReadAgain,
    /// Not before the time that Vault asks for.
    TriedWhenVaultAllows,
    /// The pod that is kept out comes in.
    PodFollows,
}

impl ByItself {
    /// The words for it.
    pub const fn promise(self) -> Option<&'static str> {
        match self {
            Self::Unsaid => None,
            Self::TriedAgain => Some("it is tried again by itself"),
            Self::ReadAgain => Some("it is read again by itself"),
            Self::TriedWhenVaultAllows => Some("it is tried again when Vault allows"),
            Self::PodFollows => Some("this pod follows by itself"),
        }
    }
}

/// What keeps the gate closed: a code, and the parts of one sentence.
///
/// They are constant for a cause. Changing text defeats the de-duplication of events, and the
/// ReplicaSet's condition keeps the first text that it saw (kubernetes#127081).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The code.
    pub reason: Reason,
    /// What is not as it has to be.
    pub what: String,
    /// Why that is so, where it is a text of its own.
    pub why: Option<String>,
    /// What to do about it, where a person can do something.
    pub next: Option<String>,
    /// What need not be done.
    pub by_itself: ByItself,
}

impl Held {
    /// A reason with all that is to be said of it.
    pub fn new(reason: Reason, what: impl Into<String>, next: impl Into<String>, by_itself: ByItself) -> Self {
        Self { next: Some(next.into()), ..Self::without_next(reason, what, by_itself) }
    }

    /// The same where nobody can do anything about it, or nobody knows what.
    pub fn without_next(reason: Reason, what: impl Into<String>, by_itself: ByItself) -> Self {
        Self { reason, what: what.into(), why: None, next: None, by_itself }
    }

    /// The same with a text of its own about why that is so.
    #[must_use]
    pub fn because(self, why: impl Into<String>) -> Self {
        Self { why: Some(why.into()), ..self }
    }

    /// What is wrong, and why.
    pub fn cause(&self) -> String {
        sentence(&self.what, [self.why.as_deref()])
    }

    /// All of it, without code and cluster.
    pub fn sentence(&self) -> String {
        sentence(&self.what, [self.why.as_deref(), self.next.as_deref(), self.by_itself.promise()])
    }

    /// The text of a denial. It stands alone in the ReplicaSet's event, so it repeats the code.
    pub fn message(&self, cluster: &str) -> String {
        format!("{}: cluster {cluster}: {}", self.reason, self.sentence())
    }

    /// The same with something to be said beside it, before what happens by itself.
    #[must_use]
    pub fn noting(&self, note: &str) -> Self {
        let mut noted = self.clone();
        let last = noted.next.as_mut().or(noted.why.as_mut()).unwrap_or(&mut noted.what);
        *last = format!("{last}; {note}");
        noted
    }

    /// The same for a command that ends with it, and so keeps no promise of a running gate's.
    #[must_use]
    pub fn without_promise(&self) -> Self {
        Self { by_itself: ByItself::Unsaid, ..self.clone() }
    }
}

/// The one place that knows how the parts make a sentence.
pub fn sentence<const N: usize>(what: &str, rest: [Option<&str>; N]) -> String {
    let rest: Vec<_> = rest.into_iter().flatten().collect();
    if rest.is_empty() { what.to_owned() } else { format!("{what}: {}", rest.join("; ")) }
}

/// Longest foreign text that is repeated to users.
const FOREIGN_TEXT_MAX: usize = 240;

/// A sentence of a gate's is longer where it names two roots, and says what to do at its end.
const SENTENCE_MAX: usize = 1500;

/// Makes a text of another system's fit to be repeated: one line, bounded, and never a key.
pub fn foreign_text(text: &str) -> String {
    bounded(text, FOREIGN_TEXT_MAX)
}

/// The same of a sentence that a gate has made, another one or one of before: it is not to lose its end.
pub fn gates_sentence(text: &str) -> String {
    bounded(text, SENTENCE_MAX)
}

fn bounded(text: &str, most: usize) -> String {
    // A PEM block, its base64, a JWT and Vault's tokens start with these.
    let starts = ["-----BEGIN", "LS0tLS", "eyJ", "hvs.", "hvb.", "hvr."];
    let is_packed = |char: char| char.is_ascii_alphanumeric() || "+/-_.".contains(char);
    if starts.iter().any(|start| text.contains(start)) || text.split(|char| !is_packed(char)).any(may_be_secret) {
        return "(withheld: it may hold a secret)".to_owned();
    }
    let text = constant(text);
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect();
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
        assert_eq!(Reason::ALL.len(), 23);
        assert_eq!(Reason::RootMissing.to_string(), "RootMissing");
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
        let held = Held::without_next(Reason::RootMissing, "Vault has no root yet", ByItself::Unsaid);
        assert_eq!(held.message("nas"), "RootMissing: cluster nas: Vault has no root yet");
    }

    #[test]
    fn a_sentence_has_the_parts_that_there_are_in_one_order() {
        let short = Held::without_next(Reason::RootInvalid, "it is bad", ByItself::TriedAgain);
        let long = Held::new(Reason::RootInvalid, "it is bad", "mend it", ByItself::TriedAgain);
        let longest = long.clone().because("a: b");
        for (held, sentence) in [
            (&short, "it is bad: it is tried again by itself"),
            (&long, "it is bad: mend it; it is tried again by itself"),
            (&longest, "it is bad: a: b; mend it; it is tried again by itself"),
            (&longest.noting("look"), "it is bad: a: b; mend it; look; it is tried again by itself"),
        ] {
            assert_eq!(held.sentence(), sentence);
        }
        assert_eq!(longest.cause(), "it is bad: a: b");
    }

    #[test]
    fn what_is_noted_comes_behind_all_but_the_promise() {
        let noted = |held: &Held| held.noting("look").without_promise().sentence();
        let short = Held::without_next(Reason::RootInvalid, "it is bad", ByItself::ReadAgain);
        assert_eq!(noted(&short), "it is bad; look");
        assert_eq!(noted(&short.because("it is old")), "it is bad: it is old; look");
    }

    #[test]
    fn a_command_that_ends_promises_nothing() {
        for by_itself in [
            ByItself::Unsaid,
            ByItself::TriedAgain,
            ByItself::ReadAgain,
            ByItself::TriedWhenVaultAllows,
            ByItself::PodFollows,
        ] {
            let held = Held::new(Reason::VaultUnreachable, "it is down", "mend it", by_itself);
            assert_eq!(held.without_promise().sentence(), "it is down: mend it");
            assert_eq!(held.sentence() == "it is down: mend it", by_itself == ByItself::Unsaid);
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

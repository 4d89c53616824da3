//! What is wrong with a bundle, or unusual about one that is sound; and what to do about it.

use std::fmt;

use jiff::Timestamp;

use super::bundle::{CRL, MAX_BUNDLE, MAX_CERTIFICATE, MAX_CERTIFICATES, MAX_KEY};

/// Where a certificate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    /// The file's name.
    pub file: &'static str,
    /// Counts from one.
    pub position: usize,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificate {} of {}", self.position, self.file)
    }
}

/// The end of what can be used, as the check itself finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Until {
    /// The last moment at which the check passes.
    pub at: Timestamp,
    /// The certificate that ends then.
    pub by: At,
}

/// Why a bundle is not sound. The text is constant for a cause, and has nothing of a key in it.
/// Files are given by their names; the signing CA is `ca-cert.pem`'s first certificate, or
/// `cert-chain.pem`'s where Vault's record has no other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// A file is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A file has no bytes.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// A value of Vault's record is not a JSON string.
    #[error("{0} is not a string")]
    NotText(&'static str),
    /// The record of signers names no issuer that could be one.
    #[error("issuer is not the name of an issuer of Vault's PKI engine")]
    IssuerName,
    /// A record of signers trusts what is no root.
    #[error("{0} is not self-signed, and so no root that signers could be under")]
    NoRoot(At),
    /// One key in two roots, of which one ends too soon.
    #[error("{0} and {1} have one key, and one of them ends soon: from then on Envoy fails where it comes first")]
    OneKey(At, At),
    /// The cross of a record of signers is none.
    #[error("{0} is not one root of root-cert.pem, certified by another one of it")]
    NoCross(At),
    /// Vault's record has the first, but not the second, of the signing CA's two files.
    #[error("{0} is there without {1}")]
    Unpaired(&'static str, &'static str),
    /// A key of the Secret that keeps istiod from using the four files as they are meant.
    #[error("{0} is there too, so that istiod would not use the four files as its plugged-in CA")]
    Foreign(&'static str),
    /// The four files are too large.
    #[error("the four files together have more than {MAX_BUNDLE} bytes")]
    TooLarge,
    /// The key's file is too large.
    #[error("the private key's file has more than {MAX_KEY} bytes")]
    KeyTooLarge,
    /// A certificate's PEM block is too large.
    #[error("{0} has more than {MAX_CERTIFICATE} bytes")]
    CertificateTooLarge(At),
    /// A file has no certificate.
    #[error("{0} has no certificate")]
    NoCertificate(&'static str),
    /// A file has too many certificates.
    #[error("{0} has more than {MAX_CERTIFICATES} certificates")]
    TooManyCertificates(&'static str),
    /// A file has another block or a broken block in it.
    #[error("{0} has a PEM block in it that is no CERTIFICATE block, or is broken")]
    NotOnlyCertificates(&'static str),
    /// A file is not PEM, in a way that is known.
    #[error("{0} {1}")]
    Garbled(&'static str, Garble),
    /// Not base64, or not the parts of a certificate.
    #[error("{0} is malformed")]
    Malformed(At),
    /// Of a version without extensions.
    #[error("{0} is X.509 version {1}, which cannot say that it is a CA")]
    Version(At, u32),
    /// With a negative serial number.
    #[error("{0} has a negative serial number, which Go refuses")]
    NegativeSerial(At),
    /// BER where DER is due.
    #[error("{0} is not strict DER (lengths, numbers, times or strings in a form that not every peer reads)")]
    NotDer(At),
    /// A part that one consumer or the other cannot read.
    #[error("{0} has {1} that not every peer can read")]
    Unreadable(At, &'static str),
    /// Past its end.
    #[error("{0} expired at {1}")]
    Expired(At, Timestamp),
    /// Before its beginning.
    #[error("{0} is not valid before {1}")]
    NotYetValid(At, Timestamp),
    /// Without basicConstraints, or with CA:FALSE.
    #[error("{0} is not a CA certificate (CA:TRUE)")]
    NotCa(At),
    /// With a keyUsage that lacks keyCertSign.
    #[error("{0} has a key usage without keyCertSign")]
    NoKeyCertSign(At),
    /// With an extended key usage that is not for both sides of mutual TLS.
    #[error("{0} has an extended key usage without both serverAuth and clientAuth")]
    ExtendedKeyUsage(At),
    /// With a critical extension, given by its OID, that not every peer understands.
    #[error("{0} has the critical extension {1}, which not every peer understands")]
    CriticalExtension(At, String),
    /// With name constraints of a kind that one consumer or the other cannot judge.
    #[error("{0} has name constraints on {1}, for which istiod or ambient workloads refuse it")]
    ConstraintKind(At, &'static str),
    /// With name constraints that a name beneath does not meet.
    #[error("the name constraints of {0} do not allow {1}")]
    NotPermitted(At, String),
    /// With policyConstraints that workloads' certificates, which have no policy, do not meet.
    #[error("{0} requires a certificate policy (requireExplicitPolicy), and workloads have none")]
    ExplicitPolicy(At),
    /// With a key that is weak or that not every peer supports.
    #[error("the key of {0} is not RSA of 2048 to 8192 bits, P-256 or P-384")]
    UnsupportedKey(At),
    /// Signed in a way that is weak or that not every peer supports.
    #[error("{0} is not signed by RSA (PKCS#1) or ECDSA with SHA-256, SHA-384 or SHA-512")]
    UnsupportedSignature(At),
    /// Workloads would not present their signing CA.
    #[error("cert-chain.pem lacks the certificate of the signing CA")]
    ChainLacksCa,
    /// On the way to a root, more CAs are beneath a certificate than it allows.
    #[error("the path length of {0} does not allow the CA certificates beneath it")]
    PathLength(At),
    /// No way from the signing CA to a root.
    #[error("the signing CA does not chain through cert-chain.pem to a root of root-cert.pem")]
    NoPath,
    /// A certificate that names another key of its issuer than that issuer does.
    #[error(
        "the authority key identifier of {0} is not what {1}, which signed it, says of itself: istiod takes it, and every Envoy refuses it"
    )]
    KeyIdentifiers(At, At),
    /// Two that may each be taken for an issuer, of which one is not.
    #[error(
        "{0} and {1} have one name, and no key identifiers tell them apart: Envoy takes whichever comes first, and fails with the wrong one"
    )]
    Ambiguous(At, At),
    /// A self-signed certificate that ends the search for a root too early.
    #[error("{0} is self-signed and no root of root-cert.pem, and Envoy looks no further")]
    DeadEnd(At),
    /// A root whose own signature is not its own.
    #[error("{0} names itself as its issuer, but its signature is not by its own key")]
    Damaged(At),
    /// A consumer refused what was signed on trial.
    #[error("a workload's certificate signed on trial is refused: {0}")]
    Trial(&'static str),
    /// The key is encrypted.
    #[error("the private key is encrypted")]
    KeyEncrypted,
    /// The key's first PEM block is not a key that can be read.
    #[error("the private key's first PEM block is not a PKCS#8, PKCS#1 or SEC1 key that can be read")]
    KeyMalformed,
    /// Another certificate's key.
    #[error("the private key is not that of the signing CA")]
    KeyMismatch,
    /// The revocation lists cannot be read.
    #[error("{CRL} has something in it that is no revocation list (X509 CRL, version 2), so that istiod exits")]
    CrlMalformed,
    /// A CA without a list.
    #[error("{CRL} has no list that {0} signed, so that istiod exits or proxies refuse everybody")]
    CrlMissing(At),
    /// The way ends at a trust anchor whose issuer is unknown, so that no list is known to be right.
    #[error("{CRL} is there, and {0} is trusted without being a root: with lists, Envoy refuses everybody then")]
    CrlOfPart(At),
    /// A list that has not begun.
    #[error("{CRL} has a list that is not valid before {0}, so that proxies refuse everybody")]
    CrlNotYetValid(Timestamp),
    /// A CA on the list of its issuer.
    #[error("{CRL} revokes {0}")]
    CrlRevokes(At),
}

/// How a file is not PEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Garble {
    /// Backslash and n where a line should end.
    #[error("has the two characters \\n in place of line ends")]
    LiteralNewlines,
    /// Base64 of PEM.
    #[error("is base64 of PEM: encoded once too often")]
    Base64,
    /// As PowerShell writes it.
    #[error("is UTF-16")]
    Utf16,
    /// As some editors write it.
    #[error("begins with a byte order mark, which hides its first line")]
    ByteOrderMark,
    /// Binary.
    #[error("is DER, not PEM")]
    Der,
    /// The line ends are gone.
    #[error("has a whole PEM block on one line")]
    OneLine,
    /// Files without an end of line, one behind the other.
    #[error("has END of one block and BEGIN of the next on one line")]
    Joined,
    /// As `jq` gives a list.
    #[error("is a JSON list of PEM blocks")]
    JsonList,
    /// Longer than OpenSSL's family reads.
    #[error("has lines of more than 250 characters, which not every peer reads to their end")]
    LongLines,
    /// istiod puts another file right behind it.
    #[error("does not end with an end of line, and istiod puts ca.crt right behind it")]
    NoLastLine,
    /// As pasted from YAML.
    #[error("has blanks before the lines BEGIN and END")]
    Indented,
    /// Another encoding.
    #[error("is not UTF-8")]
    NotUtf8,
    /// Something else altogether.
    #[error("is text without a PEM block")]
    Text,
}

impl Garble {
    /// The command that makes it right; `FILE` is to be replaced.
    const fn command(self) -> &'static str {
        match self {
            Self::LiteralNewlines => r"`sed 's/\\n/\n/g' FILE`",
            Self::Base64 => "`base64 -d FILE`",
            Self::Utf16 => "`iconv -f UTF-16 -t UTF-8 FILE`",
            Self::ByteOrderMark => r"`sed '1s/^\xEF\xBB\xBF//' FILE`",
            Self::Der => "`openssl x509 -inform DER -in FILE`, for a key `openssl pkey -inform DER -in FILE`",
            Self::OneLine => {
                r"`sed -E 's/-+BEGIN [A-Z ]+-+/&\n/g; s/-+END [A-Z ]+-+/\n&\n/g' FILE | sed -E '/^-/!s/ +/\n/g' | sed '/^ *$/d'`"
            }
            Self::Joined => r"`sed 's/-----END [A-Z ]*-----/&\n/g' FILE`",
            Self::JsonList => "`jq -r '.[]' FILE`",
            Self::LongLines => "`fold -w 64 FILE`",
            Self::NoLastLine => "`sed -e '$a\\' FILE`",
            Self::Indented => r"`sed 's/^[ \t]*//' FILE`",
            Self::NotUtf8 => "`iconv -f LATIN1 -t UTF-8 FILE`",
            Self::Text => "look at what was put there: `head -c 100 FILE`",
        }
    }
}

impl Flaw {
    /// Whether time alone made it so.
    pub fn is_expired(&self) -> bool {
        matches!(self, Self::Expired(..))
    }

    /// What makes it right: a command where there is one.
    pub fn remedy(&self) -> String {
        match self {
            Self::Garbled(file, garble) => {
                garble.command().replace("FILE", if file.contains(' ') { "KEY" } else { file })
            }
            _ => self.advice().to_owned(),
        }
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::Missing(_) | Self::Empty(_) | Self::NotText(_) | Self::Unpaired(..) | Self::Garbled(..) => {
                "give the four files as strings: root-cert.pem, cert-chain.pem, and ca-cert.pem with ca-key.pem"
            }
            Self::IssuerName => "give the issuer's own name: `vault list -detailed PKI-MOUNT/issuers`",
            Self::NoRoot(_) => "trust the root above it",
            Self::OneKey(..) => "take the one that ends first out of root-cert.pem",
            Self::NoCross(_) => "give chain.pem that one certificate alone, or take it out",
            Self::Foreign("istio-generated") => "take the key istio-generated out of the Secret",
            Self::Foreign(_) => {
                "take Vault's root into the CA that writes tls.crt, or replace the Secret by one of type Opaque"
            }
            Self::TooLarge | Self::TooManyCertificates(_) => "leave only the certificates that are needed",
            Self::KeyTooLarge | Self::KeyMalformed => "give one key in PEM, first in its file: `openssl pkey -in KEY`",
            Self::NoCertificate(_) | Self::NotOnlyCertificates(_) => {
                "leave only whole CERTIFICATE blocks: `openssl crl2pkcs7 -nocrl -certfile FILE | openssl pkcs7 -print_certs`"
            }
            Self::KeyEncrypted => "decrypt it: `openssl pkey -in KEY`",
            Self::KeyMismatch => {
                "give the key of that certificate: compare `openssl x509 -pubkey -noout` and `openssl pkey -pubout`"
            }
            Self::CrlMalformed => "give lists in PEM, or take ca-crl.pem out of the Secret",
            Self::CrlNotYetValid(_) => "wait, or set the clock of whoever made it",
            Self::CrlMissing(_) | Self::CrlRevokes(_) | Self::CrlOfPart(_) => {
                "put a list of each CA of the chain into ca-crl.pem, signed by the CA of now, or take ca-crl.pem out of the Secret"
            }
            Self::ChainLacksCa | Self::PathLength(_) | Self::NoPath | Self::KeyIdentifiers(..) => self.advice_on_path(),
            Self::Ambiguous(..) | Self::DeadEnd(_) => self.advice_on_path(),
            _ => self.advice_on_certificate(),
        }
    }

    /// How the certificates fit together.
    fn advice_on_path(&self) -> &'static str {
        match self {
            Self::ChainLacksCa => "put ca-cert.pem's certificate first into cert-chain.pem",
            Self::PathLength(_) => "make that certificate anew without pathlen, or sign by the CA above",
            Self::KeyIdentifiers(..) => {
                "sign the first one anew, with the identifier copied from its issuer: authorityKeyIdentifier=keyid"
            }
            Self::Ambiguous(..) => "take the one that did not sign out, or make them anew with subjectKeyIdentifier",
            Self::DeadEnd(_) => {
                "compare it with root-cert.pem; behind a cross-signed twin, take it out of the chain or put it last"
            }
            _ => "put all between the signing CA and its root into cert-chain.pem, and the root into root-cert.pem",
        }
    }

    /// What is wrong with one certificate.
    fn advice_on_certificate(&self) -> &'static str {
        match self {
            Self::CertificateTooLarge(_) => "make it anew, with fewer names",
            Self::Malformed(_) => "look at it: `openssl x509 -noout -text`",
            Self::Version(..) => "make it anew with `openssl req -x509`, or with `-extfile` for `openssl x509 -req`",
            Self::NegativeSerial(_) => "make it anew, with a positive serial: `openssl x509 -req -set_serial 0x01…`",
            Self::NotDer(_) | Self::Unreadable(..) => "make it anew with openssl, Vault or cert-manager",
            Self::Expired(..) => "renew it",
            Self::NotYetValid(..) => "wait, or set the clock of whoever made it, and make it anew",
            Self::NotCa(_) => "make it anew with basicConstraints=critical,CA:TRUE",
            Self::NoKeyCertSign(_) => "make it anew with keyUsage=critical,keyCertSign,cRLSign",
            Self::ExtendedKeyUsage(_) => "make it anew without extendedKeyUsage",
            Self::CriticalExtension(..) | Self::ExplicitPolicy(_) => "make it anew without that extension",
            Self::ConstraintKind(..) | Self::NotPermitted(..) => {
                "make it anew without nameConstraints, or with DNS names that hold istiod's"
            }
            Self::UnsupportedKey(_) => "make a key of RSA 4096 or P-256",
            Self::UnsupportedSignature(_) => "sign it anew with -sha256",
            Self::Damaged(_) => "put the certificate there that its CA made: its bytes were changed",
            _ => "make the CA anew with openssl, Vault or cert-manager",
        }
    }
}

impl Note {
    /// Whether somebody should do something about it in time.
    pub fn is_warning(&self) -> bool {
        matches!(self, Self::Expired(..) | Self::Unusable(..) | Self::CrlOutdated(_))
    }
}

/// What is accepted because every consumer of the mesh accepts it, and worth a look. The text is constant for a cause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Note {
    /// Text around the blocks.
    #[error("{0} has text around its PEM blocks")]
    Text(&'static str),
    /// No chain, where none is needed.
    #[error("cert-chain.pem is empty, which does because the root itself signs")]
    NoChain,
    /// More trust anchors than anybody looks through.
    #[error("root-cert.pem has {0} certificates")]
    ManyRoots(usize),
    /// A trust anchor that another CA signed.
    #[error("{0} is trusted without being a root: whoever trusts its root alone is another trust bundle")]
    NotSelfSigned(At),
    /// One that is not needed, and has ended.
    #[error("{0} expired at {1}; nothing needs it")]
    Expired(At, Timestamp),
    /// One that is not needed, and has not begun.
    #[error("{0} is not valid before {1}; nothing needs it yet")]
    NotYetValid(At, Timestamp),
    /// One that is not needed, and could not be used.
    #[error("nothing needs {0}, and nobody could use it: {1}")]
    Unusable(At, Box<Flaw>),
    /// Policies that must be heeded, and are met by whatever has none.
    #[error("{0} has critical certificate policies")]
    Policies(At),
    /// As cert-manager writes it.
    #[error("the Secret has tls.crt, tls.key and ca.crt (kubernetes.io/tls), which istiod prefers to the four files")]
    Tls,
    /// A file of no lists.
    #[error("{CRL} is empty, and ignored")]
    CrlEmpty,
    /// A list past its end.
    #[error("{CRL} has a list that should have been renewed by {0}: proxies that heed it may refuse everybody")]
    CrlOutdated(Timestamp),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flaw_names_file_and_position() {
        let flaw = Flaw::NotCa(At { file: "cert-chain.pem", position: 2 });
        assert_eq!(flaw.to_string(), "certificate 2 of cert-chain.pem is not a CA certificate (CA:TRUE)");
    }

    #[test]
    fn whatever_is_told_is_fit_for_users() {
        let at = At { file: "cert-chain.pem", position: 10 };
        let flaws = [
            Flaw::CriticalExtension(at, "1.3.6.1.4.1.99999.1".to_owned()),
            Flaw::ConstraintKind(at, "directory names (dirName)"),
            Flaw::NotPermitted(at, format!("a name in {at}")),
            Flaw::KeyIdentifiers(at, at),
            Flaw::Ambiguous(at, at),
            Flaw::NotDer(at),
            Flaw::CrlMissing(at),
        ];
        for flaw in flaws.into_iter().chain(GARBLES.map(|how| Flaw::Garbled("root-cert.pem", how))) {
            let told = format!(
                "RootInvalid: cluster homelab: version 12 of secret/istio/ca in Vault cannot be used: {flaw}; {}, and write it as a new version",
                flaw.remedy()
            );
            crate::samples::assert_fit_for_users(&told);
        }
    }

    const GARBLES: [Garble; 13] = [
        Garble::LiteralNewlines,
        Garble::Base64,
        Garble::Utf16,
        Garble::ByteOrderMark,
        Garble::Der,
        Garble::OneLine,
        Garble::Joined,
        Garble::JsonList,
        Garble::LongLines,
        Garble::NoLastLine,
        Garble::Indented,
        Garble::NotUtf8,
        Garble::Text,
    ];

    #[test]
    fn the_command_names_the_file() {
        let flaw = Flaw::Garbled("root-cert.pem", Garble::Base64);
        assert_eq!(flaw.to_string(), "root-cert.pem is base64 of PEM: encoded once too often");
        assert_eq!(flaw.remedy(), "`base64 -d root-cert.pem`");
    }
}

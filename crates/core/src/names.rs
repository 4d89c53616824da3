//! What a name in Kubernetes looks like, and what annotations of this service's are called. A name that another system
//! tells is checked before it is put into a path or shown to anybody.

/// Annotation with the root's SHA-256, lower-case hex.
pub const ROOT_SHA256: &str = "istio-ca-gate.io/root-sha256";
/// Annotation with Vault's version of the record.
pub const VAULT_VERSION: &str = "istio-ca-gate.io/vault-version";

/// Annotation with the state of a record of the signing kind that `cacerts` was published for, lower-case hex.
pub const RECORD_STATE: &str = "istio-ca-gate.io/record-state";

/// A DNS subdomain's longest.
const SUBDOMAIN_MAX: usize = 253;

/// A DNS label's longest.
const LABEL_MAX: usize = 63;

/// Whether this may name a namespace: an RFC 1123 label.
pub fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    text.len() <= LABEL_MAX
        && !text.is_empty()
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Whether this may name an object of most kinds: an RFC 1123 subdomain, whose labels may be longer than a label.
pub fn is_subdomain(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let part =
        |part: &str| !part.is_empty() && part.bytes().all(inner) && !part.starts_with('-') && !part.ends_with('-');
    text.len() <= SUBDOMAIN_MAX && text.split('.').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_climbs_quotes_or_breaks_a_line_is_a_name() {
        for sound in ["istiod", "istiod-1-22.7", "a", "0"] {
            assert!(is_subdomain(sound), "{sound}");
        }
        assert!(is_label("flux-system") && !is_label("flux.system") && !is_label(&"a".repeat(64)));
        for wrong in ["", ".", "..", "a..b", "a/b", "-a", "a-", "A", "a b", "a\nb", "a%2f", "a?b", "ä", ".a"] {
            assert!(!is_subdomain(wrong) && !is_label(wrong), "{wrong}");
        }
        assert!(!is_subdomain(&"a".repeat(254)));
    }
}

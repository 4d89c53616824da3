//! Name constraints, judged by the names that istiod will sign and by those that CAs beneath carry themselves.

use super::certificate::Certificate;
use super::der::{self, Element, Reader, SEQUENCE};
use super::flaw::Flaw;
use super::shape::{self, id};

/// What istiod calls itself: its chart's names in its own namespace, as Istio knows it by default.
pub(super) const ISTIOD: [&str; 3] =
    ["istiod.istio-system.svc", "istiod-remote.istio-system.svc", "istio-pilot.istio-system.svc"];

const EMAIL: u8 = 0x81;
const DNS: u8 = 0x82;
const DIRECTORY: u8 = 0xa4;
const URI: u8 = 0x86;
const ADDRESS: u8 = 0x87;

/// emailAddress, in a subject.
const EMAIL_ADDRESS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1];

/// Subtrees of a certificate's name constraints.
struct Constraints<'a> {
    permitted: Vec<Element<'a>>,
    excluded: Vec<Element<'a>>,
}

impl<'a> Constraints<'a> {
    /// `None`: they cannot be read.
    fn read(value: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(der::only(value, SEQUENCE).filter(|_| der::is_strict(value))?);
        let subtrees = |list: Option<&'a [u8]>| {
            let mut reader = Reader::new(list.unwrap_or_default());
            let mut bases = Vec::new();
            while !reader.is_empty() {
                // Neither minimum nor maximum: webpki refuses both.
                let mut subtree = reader.inside(SEQUENCE)?;
                let base = subtree.any().filter(|base| subtree.is_empty() && is_base(base))?;
                bases.push(base);
            }
            Some(bases)
        };
        let permitted = subtrees(reader.optional(0xa0)?)?;
        let excluded = subtrees(reader.optional(0xa1)?)?;
        let is_some = !permitted.is_empty() || !excluded.is_empty();
        (reader.is_empty() && is_some).then_some(Self { permitted, excluded })
    }

    fn of(certificate: &'a Certificate<'_>) -> Option<(Self, bool)> {
        let extension = certificate.extension(id::NAME_CONSTRAINTS)?;
        Some((Self::read(extension.value)?, extension.critical))
    }

    fn all(&self) -> impl Iterator<Item = &Element<'a>> {
        self.permitted.iter().chain(&self.excluded)
    }

    fn allows_dns(&self, name: &str) -> bool {
        let of_kind = |list: &[Element<'a>]| -> Vec<&'a [u8]> {
            list.iter().filter(|base| base.tag == DNS).map(|base| base.value).collect()
        };
        let (permitted, excluded) = (of_kind(&self.permitted), of_kind(&self.excluded));
        let is_under = |base: &&[u8]| is_dns_under(name.as_bytes(), base);
        (permitted.is_empty() || permitted.iter().any(is_under)) && !excluded.iter().any(is_under)
    }
}

/// Whether everybody can read these name constraints.
pub(super) fn is_readable(value: &[u8]) -> bool {
    Constraints::read(value).is_some()
}

/// A name of a constraint, with what Go wants of it.
fn is_base(base: &Element<'_>) -> bool {
    let domain = |value: &[u8]| std::str::from_utf8(value).is_ok_and(is_domain);
    match base.tag {
        DNS | URI => domain(base.value),
        EMAIL => {
            let at = base.value.iter().position(|byte| *byte == b'@');
            let is_local = |local: &[u8]| {
                !local.is_empty() && local.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'.')
            };
            at.map_or_else(|| domain(base.value), |at| is_local(&base.value[..at]) && domain(&base.value[at + 1..]))
        }
        ADDRESS => {
            let (_, mask) = base.value.split_at(base.value.len() / 2);
            let bits = mask.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
            matches!(base.value.len(), 8 | 32) && bits.clone().is_sorted_by(|one, next| one >= next)
        }
        _ => shape::is_general_name(*base),
    }
}

/// Labels of plain characters, perhaps behind a dot; or nothing, which is all domains.
fn is_domain(name: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let labels = name.strip_prefix('.').unwrap_or(name);
    name.is_empty() || labels.split('.').all(is_label)
}

/// `.base` is all beneath `base`, and `base` is that and itself.
fn is_dns_under(name: &[u8], base: &[u8]) -> bool {
    let Some(at) = name.len().checked_sub(base.len()) else { return false };
    let ends = name[at..].eq_ignore_ascii_case(base);
    ends && (base.is_empty() || at == 0 && base[0] != b'.' || at > 0 && (base[0] == b'.' || name[at - 1] == b'.'))
}

/// Whether the name constraints of a path's certificates allow what is beneath them. The path begins with the signing CA.
pub(super) fn check(path: &[&Certificate<'_>]) -> Result<(), Flaw> {
    for (index, certificate) in path.iter().enumerate() {
        let Some((constraints, critical)) = Constraints::of(certificate) else { continue };
        let beneath = &path[..index];
        check_kinds(certificate, &constraints, critical)?;
        if let Some(name) = ISTIOD.into_iter().find(|name| !constraints.allows_dns(name)) {
            return Err(Flaw::NotPermitted(certificate.at, name.to_owned()));
        }
        if let Some(ca) = beneath.iter().find(|ca| !allows_names_of(&constraints, ca)) {
            return Err(Flaw::NotPermitted(certificate.at, format!("a name in {}", ca.at)));
        }
    }
    Ok(())
}

/// URIs, which all workloads have, and directory names are refused by webpki whatever they say; of the others, Go
/// knows a few, and may ignore the rest only where they are not critical.
fn check_kinds(certificate: &Certificate<'_>, constraints: &Constraints<'_>, critical: bool) -> Result<(), Flaw> {
    for base in constraints.all() {
        let kind = match base.tag {
            DIRECTORY => "directory names (dirName)",
            URI => "URIs",
            0xa0 if critical => "names of other kinds (otherName)",
            0x88 if critical => "registered IDs (RID)",
            DNS | EMAIL | ADDRESS | 0xa0 | 0x88 => continue,
            _ => "names of unusual kinds",
        };
        return Err(Flaw::ConstraintKind(certificate.at, kind));
    }
    Ok(())
}

/// A CA's own names: DNS names are judged; any other kind is refused where there are constraints at all, since consumers
/// differ on how to read them.
fn allows_names_of(constraints: &Constraints<'_>, ca: &Certificate<'_>) -> bool {
    let has_email = || constraints.all().any(|base| base.tag == EMAIL) && ca.subject_has(EMAIL_ADDRESS);
    let names = ca.extension(id::ALTERNATIVE_NAME).and_then(|extension| der::only(extension.value, SEQUENCE));
    let mut reader = Reader::new(names.unwrap_or_default());
    while let Some(name) = reader.any() {
        let dns =
            std::str::from_utf8(name.value).ok().filter(|dns| name.tag == DNS && !dns.is_empty() && is_domain(dns));
        if !dns.is_some_and(|dns| !dns.starts_with('.') && constraints.allows_dns(dns)) {
            return false;
        }
    }
    !has_email()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_beneath_its_domain() {
        for (name, base, expected) in [
            ("istiod.istio-system.svc", "svc", true),
            ("istiod.istio-system.svc", ".svc", true),
            ("istiod.istio-system.svc", "SVC", true),
            ("istiod.istio-system.svc", "istiod.istio-system.svc", true),
            ("istiod.istio-system.svc", "", true),
            ("istiod.istio-system.svc", ".istiod.istio-system.svc", false),
            ("istiod.istio-system.svc", "vc", false),
            ("istiod.istio-system.svc", "system.svc", false),
            ("svc", "istiod.svc", false),
        ] {
            assert_eq!(is_dns_under(name.as_bytes(), base.as_bytes()), expected, "{name} under {base}");
        }
    }

    #[test]
    fn only_constraints_that_everybody_reads_are_readable() {
        let subtree = |tag, value: &[u8]| der::element(SEQUENCE, &[&der::element(tag, &[value])]);
        let constraints = |subtree: &[u8]| der::element(SEQUENCE, &[&der::element(0xa0, &[subtree])]);
        for (tag, value) in [
            (DNS, b".example".as_slice()),
            (DNS, b""),
            (EMAIL, b"a@example"),
            (EMAIL, b"example"),
            (ADDRESS, &[10, 0, 0, 0, 255, 128, 0, 0]),
        ] {
            assert!(is_readable(&constraints(&subtree(tag, value))), "{tag:x} {value:?}");
        }
        for (tag, value) in [
            (DNS, b"example.".as_slice()),
            (DNS, b"a..b"),
            (DNS, b"\xc3\xa4"),
            (EMAIL, b"@example"),
            (ADDRESS, &[10, 0, 0, 0, 255, 0, 255, 0]),
            (ADDRESS, &[10, 0, 0, 0]),
            (0x8f, b""),
        ] {
            assert!(!is_readable(&constraints(&subtree(tag, value))), "{tag:x} {value:?}");
        }
        let with_minimum = der::element(SEQUENCE, &[&der::element(DNS, &[b"a"]), &der::element(0x80, &[&[0]])]);
        assert!(!is_readable(&constraints(&with_minimum)));
        assert!(!is_readable(&constraints(b"")) && !is_readable(&der::element(SEQUENCE, &[])));
    }
}

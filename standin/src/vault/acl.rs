//! What a token's policies grant. The rules of precedence are those of Vault's documentation, "Policies", *Policy
//! syntax*: deny by default, an exact path first, else the most specific of those with a glob or `+`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::BitOr;

use serde_json::{Map, Value};

use super::asked::{Asked, Operation};
use super::limits::Limits;

/// A set of rights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Capabilities(u16);

impl Capabilities {
    const DENY: Self = Self(1);
    pub(super) const CREATE: Self = Self(1 << 1);
    pub(super) const READ: Self = Self(1 << 2);
    pub(super) const UPDATE: Self = Self(1 << 3);
    pub(super) const DELETE: Self = Self(1 << 4);
    pub(super) const LIST: Self = Self(1 << 5);
    pub(super) const SUDO: Self = Self(1 << 6);
    pub(super) const PATCH: Self = Self(1 << 7);

    /// In the order in which Vault lists them.
    const NAMES: [(&'static str, Self); 10] = [
        ("create", Self::CREATE),
        ("delete", Self::DELETE),
        ("deny", Self::DENY),
        ("list", Self::LIST),
        ("patch", Self::PATCH),
        ("read", Self::READ),
        ("recover", Self(1 << 8)),
        ("subscribe", Self(1 << 9)),
        ("sudo", Self::SUDO),
        ("update", Self::UPDATE),
    ];

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(other, _)| *other == name).map(|(_, capability)| *capability)
    }

    fn contains(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) fn denies(self) -> bool {
        self.0 == 0 || self.contains(Self::DENY)
    }

    fn names(self) -> Vec<&'static str> {
        if self.denies() {
            return vec!["deny"];
        }
        Self::NAMES.iter().filter(|(_, capability)| self.contains(*capability)).map(|(name, _)| *name).collect()
    }

    /// Of two rules for one path both hold, but a denial outweighs all.
    fn and(self, other: Self) -> Self {
        if self.contains(Self::DENY) || other.contains(Self::DENY) { Self::DENY } else { self | other }
    }
}

impl BitOr for Capabilities {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl From<Operation> for Capabilities {
    fn from(operation: Operation) -> Self {
        match operation {
            Operation::Read => Self::READ,
            Operation::List => Self::LIST,
            Operation::Create => Self::CREATE,
            Operation::Update => Self::UPDATE,
            Operation::Patch => Self::PATCH,
            Operation::Delete => Self::DELETE,
        }
    }
}

/// One stanza of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) path: String,
    pub(super) capabilities: Capabilities,
    pub(super) limits: Limits,
}

/// What all rules for one path add up to.
#[derive(Clone, Debug, Default)]
struct Granted {
    capabilities: Capabilities,
    limits: Limits,
}

/// All rules of a token's policies.
#[derive(Clone, Debug, Default)]
pub(super) struct Acl {
    is_root: bool,
    rules: BTreeMap<String, Granted>,
}

impl Acl {
    pub(super) fn root() -> Self {
        Self { is_root: true, rules: BTreeMap::new() }
    }

    pub(super) fn new<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> Self {
        let mut merged: BTreeMap<String, Granted> = BTreeMap::new();
        for rule in rules {
            let granted = merged.entry(rule.path.clone()).or_default();
            granted.capabilities = granted.capabilities.and(rule.capabilities);
            granted.limits.add(&rule.limits);
        }
        Self { is_root: false, rules: merged }
    }

    /// Whether the token may do this, with what it says in it.
    pub(super) fn allows(&self, asked: &Asked) -> bool {
        self.may(asked.operation, &asked.path, &asked.data)
    }

    fn may(&self, operation: Operation, path: &str, data: &Map<String, Value>) -> bool {
        self.is_root || {
            let Some(granted) = self.granted(path, operation == Operation::List) else { return false };
            let may = !granted.capabilities.denies() && granted.capabilities.contains(operation.into());
            may && (matches!(operation, Operation::List | Operation::Delete) || granted.limits.allow(data))
        }
    }

    /// Whether it has the right that paths with power over Vault itself need besides.
    pub(super) fn has_sudo(&self, path: &str) -> bool {
        self.is_root || self.capabilities(path, false).contains(Capabilities::SUDO)
    }

    /// The rights on a path by name, as `sys/capabilities-self` tells them.
    pub(super) fn names(&self, path: &str) -> Vec<&'static str> {
        if self.is_root { vec!["root"] } else { self.capabilities(path, true).names() }
    }

    /// Whether there is any right on or below a mount.
    pub(super) fn sees_mount(&self, mount: &str) -> bool {
        let is_below = |rule: &str| {
            let fixed = rule.trim_end_matches('*');
            if rule.contains('+') { overlaps(fixed, mount) } else { fixed.starts_with(mount) }
        };
        self.is_root
            || !self.capabilities(mount, true).denies()
            || self.rules.iter().any(|(rule, granted)| is_below(rule) && !granted.capabilities.denies())
    }

    /// A list is granted by the rule for its path without the slash, too.
    fn granted(&self, path: &str, is_list: bool) -> Option<&Granted> {
        let bare = path.strip_suffix('/').filter(|_| is_list);
        let exact = |path: &str| self.rules.get(path).filter(|_| !has_wildcard(path));
        let found = exact(path).or_else(|| exact(bare?));
        found.or_else(|| self.by_pattern(bare?)).or_else(|| self.by_pattern(path))
    }

    fn capabilities(&self, path: &str, is_list: bool) -> Capabilities {
        self.granted(path, is_list).map(|granted| granted.capabilities).unwrap_or_default()
    }

    fn by_pattern(&self, path: &str) -> Option<&Granted> {
        let patterns = self.rules.iter().filter(|(rule, _)| has_wildcard(rule) && matches(rule, path));
        patterns.max_by_key(|(rule, _)| precision(rule)).map(|(_, granted)| granted)
    }
}

fn has_wildcard(rule: &str) -> bool {
    rule.ends_with('*') || rule.split('/').any(|segment| segment == "+")
}

/// The later the first wildcard, the better; then no glob, then few `+`, then length.
fn precision(rule: &str) -> (usize, bool, Reverse<usize>, usize) {
    let fixed = rule.trim_end_matches('*');
    let wild = rule.split('/').filter(|segment| *segment == "+").count();
    let first = if wild == 0 { fixed.len() } else { rule.find('+').unwrap_or_default() };
    (first, !rule.ends_with('*'), Reverse(wild), fixed.len())
}

fn matches(rule: &str, path: &str) -> bool {
    let (rule, is_prefix) = rule.strip_suffix('*').map_or((rule, false), |rule| (rule, true));
    let (rules, paths): (Vec<_>, Vec<_>) = (rule.split('/').collect(), path.split('/').collect());
    if paths.len() < rules.len() || (!is_prefix && paths.len() != rules.len()) {
        return false;
    }
    let last = rules.len() - 1;
    rules.iter().zip(&paths).enumerate().all(|(at, (rule, segment))| {
        *rule == "+" || rule == segment || (is_prefix && at == last && segment.starts_with(rule))
    })
}

/// Whether a rule with `+` may match something below a mount.
fn overlaps(rule: &str, mount: &str) -> bool {
    let segments = mount.trim_end_matches('/').split('/');
    let mut rule = rule.split('/');
    segments.into_iter().all(|segment| rule.next().is_some_and(|rule| rule == "+" || rule == segment))
        && rule.next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(rules: &[(&str, &[&str])]) -> Acl {
        let rule = |(path, names): &(&str, &[&str])| {
            let capabilities = names.iter().filter_map(|name| Capabilities::named(name));
            Rule {
                path: (*path).to_owned(),
                capabilities: capabilities.fold(Capabilities::default(), BitOr::bitor),
                limits: Limits::default(),
            }
        };
        Acl::new(&rules.iter().map(rule).collect::<Vec<_>>())
    }

    fn may(acl: &Acl, operation: Operation, path: &str) -> bool {
        acl.may(operation, path, &Map::new())
    }

    #[test]
    fn nothing_is_granted_by_default() {
        let acl = acl(&[("secret/data/a", &["read"])]);
        assert!(may(&acl, Operation::Read, "secret/data/a"));
        assert!(!may(&acl, Operation::Update, "secret/data/a"));
        for path in ["secret/data/b", "secret/data/a/b", "secret/data", ""] {
            assert!(!may(&acl, Operation::Read, path), "{path}");
        }
        assert_eq!((acl.names("secret/data/a"), acl.names("x")), (vec!["read"], vec!["deny"]));
    }

    #[test]
    fn the_most_specific_rule_decides_alone() {
        let acl = acl(&[
            ("secret/*", &["read", "list"]),
            ("secret/data/*", &["update"]),
            ("secret/data/istio/ca", &["create"]),
            ("secret/+/istio/*", &["delete"]),
            ("kv/+/istio/*", &["delete"]),
            ("secret/data/+/plus", &["patch"]),
        ]);
        for (path, names) in [
            ("secret/other", vec!["list", "read"]),
            ("secret/data/x", vec!["update"]),
            ("secret/data/istio/ca", vec!["create"]),
            ("secret/meta/istio/ca", vec!["list", "read"]),
            ("kv/meta/istio/ca", vec!["delete"]),
            ("secret/data/a/plus", vec!["patch"]),
            ("secret/data/istio/other", vec!["update"]),
        ] {
            assert_eq!(acl.names(path), names, "{path}");
        }
    }

    #[test]
    fn a_plus_stands_for_one_whole_segment() {
        let acl = acl(&[("a/+/c", &["read"]), ("x/+", &["read"])]);
        assert!(may(&acl, Operation::Read, "a/b/c") && may(&acl, Operation::Read, "x/y"));
        for path in ["a/c", "a/b/d", "a/b/c/d", "x", "x/y/z"] {
            assert!(!may(&acl, Operation::Read, path), "{path}");
        }
    }

    #[test]
    fn rules_of_one_path_add_up_and_deny_outweighs_them() {
        let two = acl(&[("a", &["create", "update"]), ("a", &["read"])]);
        assert_eq!(two.names("a"), ["create", "read", "update"]);
        let denied = acl(&[("a", &["read"]), ("a", &["deny"]), ("a", &["update"])]);
        assert_eq!(denied.names("a"), ["deny"]);
        assert!(!may(&denied, Operation::Read, "a"));
    }

    #[test]
    fn a_list_is_granted_with_or_without_the_slash() {
        for rule in ["secret/metadata", "secret/metadata/", "secret/metadata/*", "secret/meta*"] {
            assert!(may(&acl(&[(rule, &["list"])]), Operation::List, "secret/metadata/"), "{rule}");
        }
    }

    #[test]
    fn a_mount_is_seen_by_whoever_has_a_right_below_it() {
        for rule in ["secret/data/a", "secret/*", "sec*", "secret", "+", "+/data/a", "secret/+/a"] {
            assert!(acl(&[(rule, &["read"])]).sees_mount("secret/"), "{rule}");
            assert!(!acl(&[(rule, &["deny"])]).sees_mount("secret/"), "{rule}");
        }
        for rule in ["secre", "other/data", "other/+"] {
            assert!(!acl(&[(rule, &["read"])]).sees_mount("secret/"), "{rule}");
        }
    }

    #[test]
    fn root_may_do_all() {
        let root = Acl::root();
        assert!(may(&root, Operation::Delete, "sys/x") && root.has_sudo("sys/seal") && root.sees_mount("x/"));
        assert_eq!(root.names("x"), ["root"]);
    }
}

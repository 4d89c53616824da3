//! Selectors of gated pods, by kubectl's own reading: a line with the selector, and one for each label of a pod.

use std::collections::BTreeMap;

use istio_ca_gate::gate::Gated;
use istio_ca_gate::selector;

use crate::judged::by_go;

pub(crate) const WORDS: &[&str] = &[
    "app",
    "istio",
    "istiod",
    "pilot",
    " in ",
    " notin ",
    "(",
    ")",
    ",",
    "=",
    "==",
    "!=",
    "!",
    " ",
    "a",
    "b",
    "(a,b)",
    "()",
    "(a,)",
    "(,)",
    ",,",
    "in",
    "notin",
    "exists",
    "/",
    "example.com/",
    "-",
    "_",
    ".",
    "A",
    "1",
    ">",
    "<",
    ">1",
    "\t",
    "app=istiod",
];

pub(crate) fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (text, labels) = text.split_once('\n').unwrap_or((text, ""));
    let pair = |line: &str| line.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    let labels: BTreeMap<String, String> = labels.lines().filter_map(pair).collect();
    let told = by_go(|go| go.selects(text, &labels));
    match selector::parse(text) {
        Ok(selector) if told.refused.is_empty() => {
            assert!(!told.all, "{text:?} matches every pod");
            let matches = Gated(vec![selector.clone()]).matches(&labels);
            assert_eq!(matches, told.matches, "{text:?} {selector:?} {labels:?}");
        }
        // It is more lenient with names that no label can have: they match nothing, here as there.
        Ok(_) => {}
        Err(why) => {
            // What compares numbers is left out on purpose, and so is what matches all. kubectl's lexer ends a word at a NUL,
            // which no flag can have.
            let is_known = !told.refused.is_empty() || told.all || text.contains(['<', '>', '\0']);
            assert!(is_known, "kubectl takes {text:?}, and the gate says: {why}");
        }
    }
}

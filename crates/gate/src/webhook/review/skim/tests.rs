#![allow(clippy::unwrap_used)]
use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::*;

/// Something of each kind that is read, with what is not read in between.
#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
struct Read<'a> {
    #[serde(borrow)]
    text: Cow<'a, str>,
    maybe: Option<bool>,
    number: Option<f64>,
    labels: BTreeMap<String, String>,
    inner: Option<Box<Read<'a>>>,
    list: Vec<Read<'a>>,
}

/// What `serde_json` makes of it. It takes lists for structs, and passes over strings that are no UTF-8.
fn by_serde_json(text: &[u8]) -> Option<Read<'_>> {
    std::str::from_utf8(text).ok()?;
    serde_json::from_slice(text).ok()
}

fn has_list_for_struct(text: &[u8]) -> bool {
    fn of(value: &Value) -> bool {
        let inner = &value["inner"];
        value.is_array() || of_inner(inner) || value["list"].as_array().is_some_and(|list| list.iter().any(of))
    }
    fn of_inner(inner: &Value) -> bool {
        !inner.is_null() && of(inner)
    }
    serde_json::from_slice(text).is_ok_and(|value| of(&value))
}

/// A value of anything, with strings of all lengths around those that are passed over at a time.
fn value(random: &mut fastrand::Rng, depth: usize) -> Value {
    match random.u8(..if depth == 0 { 5 } else { 8 }) {
        0 => Value::Null,
        1 => json!(random.bool()),
        2 => json!(random.i32(..)),
        3 => json!(random.f64() * 1e20),
        4 => json!(string(random)),
        5 => (0..random.usize(..4)).map(|_| value(random, depth - 1)).collect(),
        _ => object(random, depth - 1),
    }
}

fn string(random: &mut fastrand::Rng) -> String {
    const PARTS: [&str; 8] = ["\\", "\"", "\n", "é", "\u{1f600}", "\u{7f}", "{", "]"];
    let mut text: String = (0..random.usize(..40)).map(|_| random.alphanumeric()).collect();
    if random.u8(..3) == 0 {
        text.push_str(PARTS[random.usize(..PARTS.len())]);
        text.extend((0..random.usize(..20)).map(|_| random.alphanumeric()));
    }
    text
}

fn object(random: &mut fastrand::Rng, depth: usize) -> Value {
    let mut members = serde_json::Map::new();
    for _ in 0..random.usize(..6) {
        let (name, value) = match random.u8(..9) {
            0 => ("text", json!(string(random))),
            1 => ("maybe", json!(random.bool())),
            2 => ("number", json!(random.f64())),
            3 => ("labels", json!({ string(random): string(random) })),
            4 if depth > 0 => ("inner", object(random, depth - 1)),
            5 if depth > 0 => ("list", (0..random.usize(..3)).map(|_| object(random, depth - 1)).collect()),
            6 => ("maybe", Value::Null),
            _ => ("unread", value(random, depth)),
        };
        members.insert(name.to_owned(), value);
    }
    Value::Object(members)
}

/// Some bytes of it changed, taken out or doubled.
fn mutate(text: &mut Vec<u8>, random: &mut fastrand::Rng) {
    const SPLICES: [&[u8]; 14] =
        [b"\"", b"{", b"[", b"}", b"]", b",", b":", b"null", b"\\u00", b"\xff", b"1e9", b"-", b"0", b"\x1f"];
    for _ in 0..random.usize(..3) {
        let from = random.usize(..=text.len());
        let to = (from + random.usize(..20)).min(text.len());
        match random.u8(..5) {
            0 => text.truncate(from),
            1 => drop(text.drain(from..to)),
            2 => drop(text.splice(from..from, SPLICES[random.usize(..SPLICES.len())].iter().copied())),
            3 => text.extend_from_within(from..to),
            _ => text[from..to].iter_mut().for_each(|byte| *byte ^= 1 << random.u8(..8)),
        }
    }
}

#[test]
fn it_reads_what_serde_json_reads_and_refuses_what_that_refuses() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    eprintln!("to repeat this: SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let object = object(&mut random, 4);
        let mut text = if random.bool() { object.to_string() } else { format!("{object:#}") }.into_bytes();
        mutate(&mut text, &mut random);
        let told = String::from_utf8_lossy(&text);
        let skipped = std::str::from_utf8(&text).is_ok() && serde_json::from_slice::<IgnoredAny>(&text).is_ok();
        assert_eq!(from_slice::<IgnoredAny>(&text).is_ok(), skipped, "{told}");
        if has_list_for_struct(&text) {
            assert!(from_slice::<Read<'_>>(&text).is_err(), "{told}");
            continue;
        }
        assert_eq!(from_slice(&text).ok(), by_serde_json(&text), "{told}");
        *(if skipped { &mut read } else { &mut refused }) += 1;
    }
    assert!(read > 2000 && refused > 2000, "{read} read, {refused} refused");
}

#[test]
fn each_length_of_a_string_ends_where_it_ends() {
    for length in 0..70 {
        for (last, is_sound) in
            [("", true), ("\\n", true), ("é", true), ("\\x", false), ("\n", false), ("\\u12g4", false)]
        {
            for rest in ["", " ", "          \t                  "] {
                let text = format!("{{\"a\":[\"{}{last}\",1]}}{rest}", "x".repeat(length));
                assert_eq!(from_slice::<IgnoredAny>(text.as_bytes()).is_ok(), is_sound, "{text:?}");
                assert_eq!(serde_json::from_str::<IgnoredAny>(&text).is_ok(), is_sound, "{text:?}");
            }
        }
    }
}

#[test]
fn numbers_and_words_are_those_of_json() {
    for (text, is_sound) in [
        ("0", true),
        ("-0", true),
        ("10", true),
        ("-1.5e+10", true),
        ("1E9", true),
        ("1e999", true),
        ("01", false),
        ("-", false),
        ("+1", false),
        ("1.", false),
        (".5", false),
        ("1e", false),
        ("1e+", false),
        ("0x1", false),
        ("--1", false),
        ("NaN", false),
        ("true", true),
        ("tru", false),
        ("truex", false),
        ("null", true),
        ("nul", false),
        ("false", true),
        ("False", false),
        ("'a'", false),
        ("", false),
    ] {
        for text in [text.to_owned(), format!("[{text}]"), format!(" {{ \"a\" : {text} }} ")] {
            let is_sound = is_sound || text == "[]";
            assert_eq!(from_slice::<IgnoredAny>(text.as_bytes()).is_ok(), is_sound, "{text}");
            assert_eq!(serde_json::from_str::<IgnoredAny>(&text).is_ok(), is_sound, "{text}");
        }
    }
}

#[test]
fn what_is_nested_is_closed_by_its_own_bracket_at_any_depth_up_to_that_of_go() {
    for depth in [1, 63, 64, 65, 128, 129, 1000, DEPTH_MAX, DEPTH_MAX + 1] {
        // Now an object, now a list.
        let opened: String = (0..depth).map(|level| if level % 3 == 0 { "{\"a\":" } else { "[" }).collect();
        let closed: String = (0..depth).rev().map(|level| if level % 3 == 0 { '}' } else { ']' }).collect();
        let sound = format!("{opened}1{closed}");
        assert_eq!(from_slice::<IgnoredAny>(sound.as_bytes()).is_ok(), depth <= DEPTH_MAX, "{depth}");
        let other = closed.replacen([']', '}'], "", 1);
        assert!(from_slice::<IgnoredAny>(format!("{opened}1{other}").as_bytes()).is_err());
        let swapped: String = closed.chars().map(|byte| if byte == '}' { ']' } else { '}' }).collect();
        assert!(from_slice::<IgnoredAny>(format!("{opened}1{swapped}").as_bytes()).is_err());
    }
}

#[test]
fn what_is_no_utf8_is_refused_also_where_nobody_reads_it() {
    for length in 0..40 {
        let text = [b"{\"unread\":\"".as_slice(), "x".repeat(length).as_bytes(), b"\xff\"}"].concat();
        let error = from_slice::<IgnoredAny>(&text).unwrap_err().to_string();
        assert!(error.starts_with("invalid unicode code point"), "{error}");
    }
}

#[test]
fn an_error_has_its_place_in_the_whole_text() {
    let error = |text: &str| from_slice::<Read<'_>>(text.as_bytes()).unwrap_err().to_string();
    assert_eq!(
        error("{\n  \"unread\": [1, 2],\n  \"text\": 7\n}"),
        "invalid type: integer `7`, expected a string at line 3 column 11"
    );
    assert_eq!(error("{\"maybe\": \"x\"}"), "invalid type: string \"x\", expected a boolean at line 1 column 13");
    assert_eq!(error("{\n\"unread\": [1 2]}"), "expected `,` or `]` at line 2 column 14");
}

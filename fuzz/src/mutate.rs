//! Changes of an input: of its bytes, and, from its first brace on, of the values of its JSON.

use fastrand::Rng;
use serde_json::{Map, Value, json};

/// Most changes at a time.
const CHANGES: usize = 4;

/// What is longer is not worth its time.
const SIZE_MAX: usize = 64 << 10;

/// Randomness by a seed.
pub fn seeded(seed: u64) -> Rng {
    Rng::with_seed(seed)
}

/// The input with some changes. `words` is what inputs of its kind are made of.
pub fn mutate(rng: &mut Rng, input: &[u8], words: &[&str]) -> Vec<u8> {
    let mut made = input.to_vec();
    for _ in 0..rng.usize(1..=CHANGES) {
        made = match if rng.bool() { of_json(rng, &made, words) } else { None } {
            Some(made) => made,
            None => of_bytes(rng, made, words),
        };
        made.truncate(SIZE_MAX);
    }
    made
}

fn of_bytes(rng: &mut Rng, mut made: Vec<u8>, words: &[&str]) -> Vec<u8> {
    let at = rng.usize(0..=made.len());
    let most = *pick(rng, &[1, 4, 16, 64]);
    let end = (at + rng.usize(0..=most)).min(made.len());
    match rng.u8(0..7) {
        0 if at < made.len() => made[at] ^= 1 << rng.u8(0..8),
        1 if at < made.len() => made[at] = *pick(rng, b"\0\n\r\t \"\\{}[]:,-=+/0129azAZ\x7f\x80\xc3\xff"),
        2 => drop(made.drain(at..end)),
        3 => {
            let part = made[at..end].to_vec();
            let to = rng.usize(0..=made.len());
            made.splice(to..to, part);
        }
        4 => drop(made.splice(at..end, word(rng, words).bytes())),
        5 => drop(made.splice(at..at, word(rng, words).bytes())),
        // A line is what many are made of.
        _ => {
            let mut lines: Vec<Vec<u8>> = made.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            let (from, to) = (rng.usize(0..lines.len()), rng.usize(0..lines.len()));
            if rng.bool() {
                lines.swap(from, to)
            } else {
                lines.insert(to, lines[from].clone())
            }
            made = lines.join(&b'\n');
        }
    }
    made
}

fn of_json(rng: &mut Rng, made: &[u8], words: &[&str]) -> Option<Vec<u8>> {
    let begin = made.iter().position(|byte| *byte == b'{')?;
    let mut value: Value = serde_json::from_slice(&made[begin..]).ok()?;
    let count = nodes(&value);
    let other = nth(&mut value, &mut rng.usize(0..count))?.clone();
    let mut at = rng.usize(0..count);
    change(rng, nth(&mut value, &mut at)?, other, words);
    Some([&made[..begin], value.to_string().as_bytes()].concat())
}

fn nodes(value: &Value) -> usize {
    1 + match value {
        Value::Array(values) => values.iter().map(nodes).sum(),
        Value::Object(map) => map.values().map(nodes).sum(),
        _ => 0,
    }
}

/// The n-th of them, the whole being the first.
fn nth<'a>(value: &'a mut Value, n: &mut usize) -> Option<&'a mut Value> {
    if *n == 0 {
        return Some(value);
    }
    *n -= 1;
    match value {
        Value::Array(values) => values.iter_mut().find_map(|value| nth(value, n)),
        Value::Object(map) => map.values_mut().find_map(|value| nth(value, n)),
        _ => None,
    }
}

fn change(rng: &mut Rng, value: &mut Value, other: Value, words: &[&str]) {
    match value {
        Value::Object(map) if rng.u8(0..4) > 0 => return change_map(rng, map, other, words),
        Value::Array(list) if rng.bool() => {
            let at = rng.usize(0..=list.len());
            if rng.bool() || at == list.len() {
                list.insert(at, other)
            } else {
                drop(list.remove(at))
            }
            return;
        }
        Value::String(text) if rng.u8(0..4) > 0 => {
            let bytes = of_bytes(rng, std::mem::take(text).into_bytes(), words);
            *text = String::from_utf8_lossy(&bytes).into_owned();
            return;
        }
        _ => {}
    }
    *value = if rng.bool() { other } else { scalar(rng, words) };
}

fn change_map(rng: &mut Rng, map: &mut Map<String, Value>, other: Value, words: &[&str]) {
    let key = if map.is_empty() { None } else { map.keys().nth(rng.usize(0..map.len())).cloned() };
    match (rng.u8(0..4), key) {
        (0, Some(key)) => drop(map.remove(&key)),
        (1, Some(key)) => {
            if let Some(value) = map.remove(&key) {
                map.insert(word(rng, words), value);
            }
        }
        (2, Some(key)) => drop(map.insert(key, scalar(rng, words))),
        _ => drop(map.insert(word(rng, words), other)),
    }
}

fn scalar(rng: &mut Rng, words: &[&str]) -> Value {
    match rng.u8(0..8) {
        0 => Value::Null,
        1 => json!(rng.bool()),
        2 => json!(*pick(rng, &[0_i64, 1, -1, 2, 255, 1 << 31, 1 << 53, i64::MAX, i64::MIN])),
        3 => json!(*pick(rng, &[u64::MAX, 1 << 63, 999_999_999_999])),
        4 => json!(*pick(rng, &[0.5, 1e300, -0.0, 1e-7])),
        5 => json!({}),
        6 => json!([]),
        _ => json!(word(rng, words)),
    }
}

fn word(rng: &mut Rng, words: &[&str]) -> String {
    match rng.u8(0..8) {
        0 => "x".repeat(*pick(rng, &[0, 1, 2, 63, 64, 253, 254, 1000])),
        1 => (*pick(rng, &["\u{fffd}", "\u{1b}[31m", "ä", "\u{202e}", "\r\n", " ", "\0", "𝕏"])).to_owned(),
        _ if words.is_empty() => String::new(),
        _ => (*pick(rng, words)).to_owned(),
    }
}

fn pick<'a, T>(rng: &mut Rng, of: &'a [T]) -> &'a T {
    &of[rng.usize(0..of.len())]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_seed_makes_the_same_input_each_time_and_another_seed_another_one() {
        let made = |seed| mutate(&mut seeded(seed), b"head\n{\"a\":[1,{\"b\":\"c\"}]}", &["word"]);
        assert!((0..200).all(|seed| made(seed) == made(seed)));
        let different: std::collections::BTreeSet<_> = (0..200).map(made).collect();
        assert!(different.len() > 150, "{}", different.len());
    }

    #[test]
    fn json_stays_json_where_its_values_are_changed() {
        for seed in 0..500 {
            let made = of_json(&mut seeded(seed), b"head {\"a\":[1,{\"b\":\"c\"}],\"d\":null}", &["word"]).unwrap();
            let text = String::from_utf8(made).unwrap();
            assert!(serde_json::from_str::<Value>(text.strip_prefix("head ").unwrap()).is_ok(), "{text}");
        }
    }

    #[test]
    fn nothing_grows_without_end() {
        let mut made = vec![b'x'; SIZE_MAX];
        for seed in 0..50 {
            made = mutate(&mut seeded(seed), &made, &["word"]);
            assert!(made.len() <= SIZE_MAX);
        }
    }
}

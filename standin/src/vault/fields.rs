//! The field types of Vault's API, which takes most of them in several shapes (its sdk's `framework.FieldType`).

use serde_json::Value;

/// `TypeInt`.
pub(super) fn int(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Bool(flag) => Some((*flag).into()),
        _ => None,
    }
}

/// `TypeBool`.
pub(super) fn flag(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::Number(number) => Some(number.as_i64() != Some(0)),
        Value::String(text) => match text.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" | "" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// `TypeDurationSecond`: a number of seconds, or a text such as `1h30m`.
pub(super) fn seconds(value: &Value) -> Option<i64> {
    let text = match value {
        Value::String(text) => text.trim(),
        value => return int(value),
    };
    if text.is_empty() {
        return Some(0);
    }
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |text| (-1, text));
    let duration = humantime::parse_duration(text).ok()?;
    Some(sign * i64::try_from(duration.as_secs()).ok()?)
}

/// `TypeCommaStringSlice`.
pub(super) fn strings(value: &Value) -> Option<Vec<String>> {
    let one = |value: &Value| match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    };
    match value {
        Value::String(text) if text.is_empty() => Some(Vec::new()),
        Value::String(text) => Some(text.split(',').map(|part| part.trim().to_owned()).collect()),
        Value::Array(items) => items.iter().map(one).collect(),
        _ => None,
    }
}

/// `TypeCommaIntSlice`.
pub(super) fn ints(value: &Value) -> Option<Vec<i64>> {
    match value {
        Value::Number(_) => Some(vec![int(value)?]),
        value => strings(value)?.iter().map(|text| text.parse().ok()).collect(),
    }
}

/// A duration as Go prints it.
pub(super) fn go_duration(seconds: i64) -> String {
    let sign = if seconds < 0 { "-" } else { "" };
    let seconds = seconds.unsigned_abs();
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{rest}s"),
        (0, _) => format!("{sign}{minutes}m{rest}s"),
        _ => format!("{sign}{hours}h{minutes}m{rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_is_taken_in_each_of_vaults_shapes() {
        assert_eq!([json!(3), json!("3"), json!("x")].map(|value| int(&value)), [Some(3), Some(3), None]);
        assert_eq!(
            [json!(true), json!("false"), json!("x")].map(|value| flag(&value)),
            [Some(true), Some(false), None]
        );
        let durations = [json!(60), json!("60"), json!("1h30m"), json!("-1s"), json!(""), json!("soon")];
        let expected = [Some(60), Some(60), Some(5400), Some(-1), Some(0), None];
        assert_eq!(durations.map(|value| seconds(&value)), expected);
        let lists = [json!("a, b"), json!(["a", "b"]), json!(""), json!({})];
        let two = Some(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(lists.map(|value| strings(&value)), [two.clone(), two, Some(Vec::new()), None]);
        let numbers = [json!("1,2"), json!([1, "2"]), json!(1), json!("x")];
        assert_eq!(numbers.map(|value| ints(&value)), [Some(vec![1, 2]), Some(vec![1, 2]), Some(vec![1]), None]);
    }

    #[test]
    fn a_duration_is_printed_as_go_does() {
        let printed = [0, 59, 60, 5400, -1].map(go_duration);
        assert_eq!(printed, ["0s", "59s", "1m0s", "1h30m0s", "-1s"]);
    }
}

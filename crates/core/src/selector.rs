//! Label selectors in the notation of `kubectl -l`, which kube can evaluate but not parse.

use kube_core::{Expression, Selector};

/// Parses a selector such as `app in (a,b),istio!=x,!y`.
///
/// # Errors
/// Says which part is not a requirement. An empty selector is refused: it would gate every pod.
pub fn parse(text: &str) -> Result<Selector, String> {
    let selector: Selector =
        requirements(text).into_iter().map(requirement).collect::<Result<Vec<_>, _>>()?.into_iter().collect();
    if selector.selects_all() {
        return Err("an empty selector would gate every pod".to_owned());
    }
    Ok(selector)
}

/// Splits at the commas outside of parentheses.
fn requirements(text: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    text.split(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|part| !part.is_empty())
    .collect()
}

fn requirement(part: &str) -> Result<Expression, String> {
    let wrong = || format!("{part:?} is not a label requirement such as app=istiod or app in (a,b)");
    if let Some(key) = part.strip_prefix('!') {
        return Ok(Expression::DoesNotExist(key_of(key).ok_or_else(wrong)?));
    }
    if let Some((head, values)) = part.split_once('(') {
        let values: Vec<&str> = values.strip_suffix(')').ok_or_else(wrong)?.split(',').map(str::trim).collect();
        if !values.iter().copied().all(is_value) {
            return Err(wrong());
        }
        let values = values.into_iter().map(str::to_owned).collect();
        let (key, operator) = head.trim().split_once(char::is_whitespace).ok_or_else(wrong)?;
        let key = key_of(key).ok_or_else(wrong)?;
        return match operator.trim() {
            "in" => Ok(Expression::In(key, values)),
            "notin" => Ok(Expression::NotIn(key, values)),
            _ => Err(wrong()),
        };
    }
    for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
        if let Some((key, value)) = part.split_once(operator) {
            let key = key_of(key).ok_or_else(wrong)?;
            let value = Some(value.trim()).filter(|value| is_value(value)).ok_or_else(wrong)?.to_owned();
            return Ok(if equal { Expression::Equal(key, value) } else { Expression::NotEqual(key, value) });
        }
    }
    Ok(Expression::Exists(key_of(part).ok_or_else(wrong)?))
}

/// The characters of label keys, with their optional prefix.
fn key_of(text: &str) -> Option<String> {
    let key = text.trim();
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    (!key.is_empty() && key.chars().all(allowed)).then(|| key.to_owned())
}

fn is_value(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use kube_core::SelectorExt;
    use std::collections::BTreeMap;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn every_notation_of_kubectl_means_what_it_means_there() {
        for (text, matching, other) in [
            ("app=istiod", &[("app", "istiod")][..], &[("app", "x")][..]),
            ("app == istiod", &[("app", "istiod")], &[]),
            ("app!=istiod", &[], &[("app", "istiod")]),
            ("app in (istiod, gw)", &[("app", "gw")], &[("app", "x")]),
            ("app notin (a,b)", &[("app", "c")], &[("app", "a")]),
            ("app", &[("app", "")], &[]),
            ("!app", &[], &[("app", "")]),
            ("app in (a,b),istio", &[("app", "a"), ("istio", "pilot")], &[("app", "a")]),
            ("gateway.networking.k8s.io/class=x", &[("gateway.networking.k8s.io/class", "x")], &[]),
        ] {
            let selector = parse(text).unwrap();
            assert!(selector.matches(&labels(matching)), "{text} {matching:?}");
            assert!(!selector.matches(&labels(other)), "{text} {other:?}");
        }
    }

    #[test]
    fn what_is_not_a_selector_is_refused() {
        for text in
            ["", " , ", "app in a,b", "app in (a", "app near (a)", "=x", "a b", "app=a b", "in (a)", "app in (a b)"]
        {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}

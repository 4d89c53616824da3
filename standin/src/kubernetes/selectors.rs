//! Label and field selectors of lists and watches.

use serde_json::Value;

use super::resources::Resource;

/// Which objects a list is of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    labels: Vec<(String, Rule)>,
    /// A JSON path, and whether its value has to be this or must not be.
    fields: Vec<(String, bool, String)>,
}

#[derive(Clone, Debug)]
enum Rule {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
}

impl Selector {
    /// Reads the two query parameters.
    ///
    /// # Errors
    /// The text of the refusal.
    pub(crate) fn parse(resource: &Resource, labels: &str, fields: &str) -> Result<Self, String> {
        let labels = requirements(labels).into_iter().map(|text| requirement(&text)).collect::<Result<_, _>>()?;
        let fields = fields.split(',').filter(|field| !field.is_empty());
        Ok(Self { labels, fields: fields.map(|text| field(resource, text)).collect::<Result<_, _>>()? })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let label = |key: &str| object["metadata"]["labels"][key].as_str();
        let fits = |(key, rule): &(String, Rule)| match rule {
            Rule::In(values) => label(key).is_some_and(|value| values.iter().any(|v| v == value)),
            Rule::NotIn(values) => label(key).is_none_or(|value| values.iter().all(|v| v != value)),
            Rule::Exists => label(key).is_some(),
            Rule::DoesNotExist => label(key).is_none(),
        };
        let field = |path: &str| path.split('.').fold(object, |value, part| &value[part]).as_str().unwrap_or_default();
        let field = |path: &str| if path == SOURCE { source(object) } else { field(path) };
        self.labels.iter().all(fits) && self.fields.iter().all(|(path, is, value)| (field(path) == value) == *is)
    }
}

/// At the commas that are not within parentheses.
fn requirements(text: &str) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

fn requirement(text: &str) -> Result<(String, Rule), String> {
    let one = |value: &str| vec![value.trim().to_owned()];
    let several = |values: &str| {
        let values = values.trim().trim_start_matches('(').trim_end_matches(')');
        values.split(',').map(|value| value.trim().to_owned()).collect()
    };
    let (key, rule) = if let Some((key, value)) = text.split_once("!=") {
        (key, Rule::NotIn(one(value)))
    } else if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        (key, Rule::In(one(value)))
    } else if let Some((key, values)) = text.split_once(" notin ") {
        (key, Rule::NotIn(several(values)))
    } else if let Some((key, values)) = text.split_once(" in ") {
        (key, Rule::In(several(values)))
    } else if let Some(key) = text.strip_prefix('!') {
        (key, Rule::DoesNotExist)
    } else {
        (text, Rule::Exists)
    };
    let key = key.trim();
    if key.is_empty() || key.contains(char::is_whitespace) {
        let found = key.split_whitespace().nth(1).unwrap_or_default();
        return Err(format!("unable to parse requirement: found '{found}', expected: in, notin, =, ==, !=, gt, lt"));
    }
    Ok((key.to_owned(), rule))
}

/// Of an event: not a field of its own.
const SOURCE: &str = "source";

/// Who made an event, by either of the names for it: `ToSelectableFields` in `pkg/registry/core/event`.
fn source(event: &Value) -> &str {
    let component = event["source"]["component"].as_str().filter(|component| !component.is_empty());
    component.or(event["reportingComponent"].as_str()).unwrap_or_default()
}

/// The fields beside the name and namespace by which the real API server can select.
fn selectable(resource: &Resource) -> &'static [&'static str] {
    match resource.plural {
        "events" => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            SOURCE,
            "type",
        ],
        "secrets" => &["type"],
        "pods" => {
            &["spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "status.phase"]
        }
        "namespaces" => &["status.phase"],
        _ => &[],
    }
}

fn field(resource: &Resource, text: &str) -> Result<(String, bool, String), String> {
    let (path, is, value) = if let Some((path, value)) = text.split_once("!=") {
        (path, false, value)
    } else if let Some((path, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        (path, true, value)
    } else {
        return Err(format!("invalid selector: '{text}'; can't understand '{text}'"));
    };
    if !["metadata.name", "metadata.namespace"].contains(&path) && !selectable(resource).contains(&path) {
        if selectable(resource).is_empty() {
            let known = "only \"metadata.name\", \"metadata.namespace\"";
            return Err(format!("{path:?} is not a known field selector: {known}"));
        }
        return Err(format!("field label not supported: {path}"));
    }
    Ok((path.to_owned(), is, value.to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::super::resources::named;
    use super::*;

    #[test]
    fn labels_are_selected_by_value_set_and_presence() {
        let object = json!({"metadata": {"name": "x", "labels": {"app": "istiod", "tier": "a"}}});
        let matches = |labels: &str| Selector::parse(named("pods").unwrap(), labels, "").unwrap().matches(&object);
        for right in ["app=istiod", "app==istiod,tier", "app in (istiod, other),!gone", "tier notin (b)", "x!=y", ""] {
            assert!(matches(right), "{right}");
        }
        for wrong in ["app=other", "app in (a,b)", "!tier", "gone", "app!=istiod", "app notin (istiod)"] {
            assert!(!matches(wrong), "{wrong}");
        }
    }

    #[test]
    fn fields_are_selected_where_the_kind_has_them() {
        let event = json!({"metadata": {"name": "x"}, "involvedObject": {"kind": "Pod", "name": "p"}});
        let parse = |plural: &str, fields: &str| Selector::parse(named(plural).unwrap(), "", fields);
        assert!(parse("events", "involvedObject.name=p,involvedObject.kind!=Job").unwrap().matches(&event));
        assert!(!parse("events", "metadata.name=y").unwrap().matches(&event));
        assert_eq!(parse("secrets", "data=x").unwrap_err(), "field label not supported: data");
    }
}

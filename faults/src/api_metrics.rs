//! What the API server itself counts of its webhooks.

use std::collections::BTreeMap;

/// The gate's webhooks have names that end so.
const OURS: &str = ".istio-ca-gate.io";

/// Its counts of the gate's webhooks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookCounts {
    /// Calls that failed, and were let through all the same.
    pub failed_open: u64,
    /// Refusals, by what was wrong and the status.
    pub refusals: BTreeMap<(String, u16), u64>,
}

impl WebhookCounts {
    /// Reads its `/metrics`.
    pub fn of(metrics: &str) -> Self {
        let mut counts = Self::default();
        for line in metrics.lines().filter(|line| !line.starts_with('#') && line.contains(OURS)) {
            let Some((name, rest)) = line.split_once('{') else { continue };
            let Some((labels, value)) = rest.rsplit_once("} ") else { continue };
            let value = value.trim().parse::<f64>().unwrap_or_default() as u64;
            match name {
                "apiserver_admission_webhook_fail_open_count" => counts.failed_open += value,
                "apiserver_admission_webhook_rejection_count" => {
                    let code = label(labels, "rejection_code").and_then(|code| code.parse().ok()).unwrap_or_default();
                    let kind = label(labels, "error_type").unwrap_or_default().to_owned();
                    *counts.refusals.entry((kind, code)).or_default() += value;
                }
                _ => {}
            }
        }
        counts
    }

    /// What is wrong with them: a call that failed and was let through, or a denial of another status than 403 and 429.
    pub fn flaw(&self) -> Option<String> {
        let odd = |((kind, code), _): &(&(String, u16), &u64)| kind == "no_error" && ![403, 429].contains(code);
        if self.failed_open > 0 {
            return Some(format!("{} calls failed open", self.failed_open));
        }
        self.refusals.iter().find(odd).map(|((_, code), times)| format!("{times} denials with status {code}"))
    }
}

fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    labels.split(&format!("{name}=\"")).nth(1)?.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
# HELP apiserver_admission_webhook_rejection_count [ALPHA] …
apiserver_admission_webhook_rejection_count{error_type="no_error",name="app.istio-ca-gate.io",operation="CREATE",rejection_code="403",type="validating"} 3
apiserver_admission_webhook_rejection_count{error_type="calling_webhook_error",name="app.istio-ca-gate.io",operation="CREATE",rejection_code="0",type="validating"} 2
apiserver_admission_webhook_fail_open_count{name="other.example",type="validating"} 4
"#;

    #[test]
    fn refusals_are_counted_and_are_no_flaw() {
        let counts = WebhookCounts::of(GOOD);
        assert_eq!(counts.failed_open, 0);
        assert_eq!(counts.refusals[&("no_error".to_owned(), 403)], 3);
        assert_eq!(counts.refusals[&("calling_webhook_error".to_owned(), 0)], 2);
        assert_eq!(counts.flaw(), None);
    }

    #[test]
    fn a_call_that_failed_open_and_an_odd_status_are_flaws() {
        let open = GOOD.replace("other.example", "app.istio-ca-gate.io");
        assert_eq!(WebhookCounts::of(&open).flaw().as_deref(), Some("4 calls failed open"));
        let odd = GOOD.replace("\"403\"", "\"500\"");
        assert_eq!(WebhookCounts::of(&odd).flaw().as_deref(), Some("3 denials with status 500"));
    }
}

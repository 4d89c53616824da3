//! Jobs, as far as to make their pods: `k8s.io/kubernetes/pkg/controller/job`. No pod ever ends here, so what the real
//! controller keeps account of its ends by, a finalizer, is left out.

use serde_json::{Value, json};

use super::client::{Client, Result, path};
use super::events::Recorder;
use super::objects::{number, resource};
use super::pods;
use crate::kubernetes::seconds;

/// Makes the pods that a Job lacks.
pub(super) async fn reconcile(client: &Client, recorder: &Recorder, namespace: &str, name: &str) -> Result<()> {
    let at = path(resource("jobs"), namespace, name);
    let Some(job) = client.get(&at).await? else { return Ok(()) };
    if job["spec"]["suspend"] == true || !job["metadata"]["deletionTimestamp"].is_null() {
        return Ok(());
    }
    let active = pods::active(client, &job).await?.len();
    let made = pods::create(client, recorder, &job, lacking(&job, active)).await;
    let mut updated = job.clone();
    let now = seconds(crate::kubernetes::now().as_second());
    updated["status"] = status(&job, if made.is_ok() { active + lacking(&job, active) } else { active }, &now);
    if updated != job {
        client.replace(&format!("{at}/status"), &updated).await?;
    }
    made
}

/// How many pods are to be made beside the active ones.
fn lacking(job: &Value, active: usize) -> usize {
    let parallelism = number(&job["spec"]["parallelism"], 1);
    let wanted = parallelism.min(number(&job["spec"]["completions"], parallelism));
    usize::try_from(wanted).unwrap_or_default().saturating_sub(active)
}

fn status(job: &Value, active: usize, now: &str) -> Value {
    let mut status = json!({"ready": 0, "terminating": 0, "uncountedTerminatedPods": {}});
    status["startTime"] = job["status"]["startTime"].as_str().unwrap_or(now).into();
    if active > 0 {
        status["active"] = active.into();
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_lacks_pods_up_to_its_parallelism_and_completions() {
        let lacking = |spec: Value, active| lacking(&json!({"spec": spec}), active);
        assert_eq!((lacking(json!({}), 0), lacking(json!({}), 1)), (1, 0));
        assert_eq!(lacking(json!({"parallelism": 3, "completions": 2}), 0), 2);
        assert_eq!(lacking(json!({"parallelism": 3}), 1), 2);
        assert_eq!(lacking(json!({"parallelism": 0}), 0), 0);
    }

    #[test]
    fn a_status_keeps_its_start() {
        let started = json!({"status": {"startTime": "then"}});
        assert_eq!(status(&started, 1, "now")["startTime"], "then");
        let wanted = json!({"ready": 0, "terminating": 0, "uncountedTerminatedPods": {}, "startTime": "now"});
        assert_eq!(status(&json!({}), 0, "now"), wanted);
    }
}

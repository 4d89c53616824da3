//! Admission webhooks: what they are asked, when, and what becomes of their answers.

mod failures;
mod matching;
mod patches;
mod reviews;
mod verdicts;

use testbed::KubernetesApi;

use super::Case;

pub const CASES: &[&[Case<KubernetesApi>]] =
    &[reviews::CASES, verdicts::CASES, failures::CASES, patches::CASES, matching::CASES];

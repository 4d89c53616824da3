//! What is promised under faults, and who watches whether it is kept.
//!
//! A [`history`] is what the servers themselves recorded of a run. [`judge`] compares it with the promises, at any later
//! time again; [`scan`] searches outputs for keys. [`vault_audit`] and [`kubernetes_audit`] read the audit logs of the real
//! servers, [`api_metrics`] what the API server says of its webhooks. [`rows`] is the table of all faults, and [`report`]
//! what `docs/reliability.md` says of them. Nothing here knows the product: who judges must not share its mistakes.

pub mod api_metrics;
pub mod evidence;
pub mod files;
pub mod history;
pub mod judge;
pub mod kubernetes_audit;
pub mod report;
pub mod rows;

pub mod scan;
pub mod vault_audit;

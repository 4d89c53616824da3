//! How many requests Vault was sent, and how they ended.

use prometheus::{IntCounterVec, Opts, Registry};

/// Requests to Vault. Clones count together.
#[derive(Clone)]
pub struct VaultRequests(IntCounterVec);

impl VaultRequests {
    /// None yet.
    ///
    /// # Errors
    /// The registry has one of this name.
    pub fn registered(registry: &Registry) -> prometheus::Result<Self> {
        let opts = Opts::new(
            "istio_ca_gate_vault_requests_total",
            "Requests to Vault by what was asked and the HTTP status of the answer; 0 for none.",
        );
        let counted = IntCounterVec::new(opts, &["operation", "code"])?;
        registry.register(Box::new(counted.clone()))?;
        Ok(Self(counted))
    }

    /// A request has ended. `status`: of the answer, if there was one.
    pub fn ended(&self, operation: &'static str, status: Option<u16>) {
        self.0.with_label_values(&[operation, &status.unwrap_or(0).to_string()]).inc();
    }
}

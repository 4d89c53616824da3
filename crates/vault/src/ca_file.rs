//! The CAs that Vault's certificate may be from, in a file that may be replaced.

use super::Vault;
use super::transport::Transport;

impl Vault {
    /// Takes up a CA file that was replaced on disk. A broken one changes nothing.
    pub fn reload_ca(&mut self) {
        let failed = self.load_ca().err();
        // It is tried at each attempt, and told once a change.
        if let Some(error) = failed.as_ref().filter(|_| failed != self.ca_failed) {
            tracing::warn!(%error, "still using the previous Vault CA");
        }
        self.ca_failed = failed;
    }

    pub(super) fn load_ca(&mut self) -> Result<(), String> {
        let ca = match &self.settings.ca_file {
            Some(file) => Some(std::fs::read(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?),
            None => None,
        };
        if !self.transports.is_empty() && ca == self.ca {
            return Ok(());
        }
        let transport = |address| Transport::new(address, ca.as_deref(), self.settings.timeout);
        let transports = self.settings.addresses.iter().map(transport).collect::<Result<_, _>>().map_err(|e| {
            let file = self.settings.ca_file.as_deref().unwrap_or("the system's roots".as_ref());
            format!("cannot use {} for TLS to Vault: {e}", file.display())
        })?;
        self.transports = transports;
        self.silent = vec![false; self.transports.len()];
        self.count();
        self.ca = ca;
        Ok(())
    }
}

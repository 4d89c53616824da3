//! What the witness saw last, for the page and whoever asks.

use std::sync::{Arc, Mutex, PoisonError};

use crate::life::course::Outlook;

/// The last look; nothing before the first, or where the record is not of the signing kind. Clones have the same.
#[derive(Clone, Debug, Default)]
pub struct LastLook(Arc<Mutex<Option<Arc<Outlook>>>>);

impl LastLook {
    pub(super) fn saw(&self, outlook: Option<Outlook>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = outlook.map(Arc::new);
    }

    /// What was seen.
    pub(crate) fn last(&self) -> Option<Arc<Outlook>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

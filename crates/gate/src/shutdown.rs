//! The signals that end this process.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// What asks the service to end: the first time in order, the second time at once.
pub struct Signals(Source);

enum Source {
    Process { term: Signal, interrupt: Signal },
    Owner(mpsc::Receiver<()>),
}

impl Signals {
    /// SIGTERM and SIGINT. From here on they do not end the process by themselves.
    ///
    /// # Errors
    /// The operating system's.
    pub fn listen() -> std::io::Result<Self> {
        let (term, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self(Source::Process { term, interrupt }))
    }

    /// Those of an owner in the same process, whose end is one, too.
    pub fn of(owner: mpsc::Receiver<()>) -> Self {
        Self(Source::Owner(owner))
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        match &mut self.0 {
            Source::Process { term, interrupt } => tokio::select! {
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
            },
            Source::Owner(owner) => drop(owner.recv().await),
        }
    }
}

//! A way to Vault on which a process is killed at each of its writes: once before Vault has it, and once after, with the
//! answer lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use rustix::process::{Pid, Signal, kill_process};
use standin::scripted::{Answer, Request, StandIn};
use testbed::Vault;

use crate::onward::Onward;

/// Stands before Vault, without TLS.
pub struct Killer {
    server: StandIn,
    way: Arc<Way>,
}

struct Way {
    onward: Onward,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Whose requests these are, while anybody is to be killed.
    victim: Option<Pid>,
    /// How often each write was cut short so far.
    kills: BTreeMap<String, usize>,
}

impl Killer {
    pub async fn start(vault: &Vault) -> Result<Self> {
        let way = Arc::new(Way { onward: Onward::to(vault)?, state: Mutex::default() });
        let shared = Arc::clone(&way);
        let server = StandIn::start(move |request| {
            let way = Arc::clone(&shared);
            async move { way.answer(request).await }
        });
        Ok(Self { server: server.await?, way })
    }

    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Whom to kill from now on; nobody.
    pub fn aim_at(&self, victim: Option<u32>) {
        self.way.state().victim = victim.and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
    }

    /// How often somebody was killed at each write, from the last such call on: each is deadly again.
    pub fn forgive(&self) -> BTreeMap<String, usize> {
        std::mem::take(&mut self.way.state().kills)
    }
}

impl Way {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is to be killed at this request, and whether Vault gets it before.
    fn victim(&self, request: &Request) -> Option<(Pid, bool)> {
        let line = request.line();
        let is_write = request.method != "GET" && request.method != "LIST" && !line.contains("/auth/");
        let mut state = self.state();
        let victim = state.victim.filter(|_| is_write)?;
        let kills = state.kills.entry(line).or_default();
        let arrives = match *kills {
            0 => false,
            1 => true,
            _ => return None,
        };
        *kills += 1;
        // One life is taken once.
        state.victim = None;
        Some((victim, arrives))
    }

    async fn answer(&self, request: Request) -> Answer {
        let Some((victim, arrives)) = self.victim(&request) else { return self.onward.forward(&request).await.1 };
        if arrives {
            self.onward.forward(&request).await;
        }
        let _ = kill_process(victim, Signal::KILL);
        Answer::hang_up()
    }
}

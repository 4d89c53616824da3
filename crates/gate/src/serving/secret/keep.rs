//! Keeps the serving certificate: follows the Secret, takes the steps that are due, and has a leaf in use that callers
//! trust. Whatever becomes of the Secret, the last good leaf stays.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use tokio::sync::{Notify, watch};

use super::{ServingSecret, Stored, Usable};
use crate::backoff::{Backoff, SOON};
use crate::k8s::follow::{Seen, follow};
use crate::k8s::{Write, stale_read};
use crate::order::{Order, Told, Worth};
use crate::reason::Held;
use crate::serving::ca::CaCertificate;
use crate::serving::rotation::{Authorities, LeafStep, Lives, Step, plan, plan_leaf};
use crate::serving::trust::Trust;
use crate::serving::{Serving, ServingCa};

/// At most one write a second, whoever else writes; and the first pause after what failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Longest pause after a write that failed, while there is a leaf in use: it may be refused for good.
const WRITE_PAUSE: Duration = Duration::from_secs(30);

/// How often it is read while it cannot be watched.
const READ_PAUSE: Duration = Duration::from_secs(10);

/// And while it is: whatever a watch told too late or not at all heals by itself.
const READ_PAUSE_WATCHED: Duration = Duration::from_secs(60);

/// What is wrong with a Secret whose signing CA is from the future.
const EARLY: &str = "its CA is not valid yet, so that a clock is or was wrong: another one is announced beside it; set this node's clock if it is behind";

/// What the tasks of the serving certificate tell each other.
pub struct Exchange {
    /// The Secret as it was seen last. `None`: not yet.
    stored: watch::Sender<Option<Stored>>,
    /// What was told of it.
    order: Mutex<Order>,
    /// Has its watch begin anew.
    anew: Notify,
    /// What `caBundle` has to be. `None`: not known yet.
    pub bundle: watch::Sender<Option<Arc<str>>>,
    /// What it is.
    pub trust: watch::Sender<Trust>,
}

impl Default for Exchange {
    fn default() -> Self {
        Self {
            stored: watch::Sender::new(None),
            order: Mutex::default(),
            anew: Notify::new(),
            bundle: watch::Sender::new(None),
            trust: watch::Sender::new(Trust::default()),
        }
    }
}

impl Exchange {
    /// Takes what the watch tells.
    fn tell(&self, told: Told, stored: Stored) {
        let mut order = self.order();
        order.tell(told);
        self.stored.send_replace(Some(stored));
    }

    /// Reads the Secret, and tells what is there. `None`: something else was told meanwhile, which may be newer.
    ///
    /// # Errors
    /// The reason why it cannot be told what is there.
    pub async fn read(&self, secret: &ServingSecret) -> Result<Option<Stored>, Held> {
        let generation = self.order().generation();
        let (version, read) = secret.read().await?;
        let mut order = self.order();
        let worth = order.read(generation, &version);
        if matches!(worth, Worth::Newer | Worth::Stale) {
            self.anew.notify_one();
        }
        match worth {
            Worth::Overtaken => return Ok(None),
            Worth::Stale => return Err(stale_read(&secret.full_name)),
            Worth::Same | Worth::Newer => {}
        }
        self.stored.send_if_modified(|stored| {
            let is_news = stored.as_ref().is_none_or(|stored| !stored.is_same(&read));
            if is_news {
                *stored = Some(read.clone());
            }
            is_news
        });
        Ok(Some(read))
    }

    fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the certificate is to be.
pub struct Wanted {
    /// Names in the leaf.
    pub names: Vec<String>,
    /// How long CAs and leaves live.
    pub lives: Lives,
}

/// Keeps the certificate for ever. `first` is called once there is one.
pub async fn keep(
    secret: ServingSecret,
    wanted: Wanted,
    serving: Arc<Serving>,
    exchange: Arc<Exchange>,
    first: impl FnOnce(),
) {
    let watching = watch::Sender::new(false);
    let is_watched = |is| {
        watching.send_if_modified(|was| std::mem::replace(was, is) != is);
    };
    let following = follow(secret.api.clone(), &secret.name, &exchange.anew, |seen| match seen {
        Seen::Present(object) => {
            is_watched(true);
            exchange.tell(Told::present(object.resource_version().unwrap_or_default()), super::stored(&object));
        }
        Seen::Absent(by) => {
            is_watched(true);
            exchange.tell(Told::absent(by), Stored::Absent);
        }
        Seen::Alive => is_watched(true),
        Seen::Failed(_) => is_watched(false),
    });
    let keeper = Keeper::new(secret.clone(), wanted, serving, Arc::clone(&exchange), watching.subscribe());
    tokio::select! {
        () = following => {}
        () = keeper.run(first) => {}
    }
}

struct Keeper {
    secret: ServingSecret,
    wanted: Wanted,
    serving: Arc<Serving>,
    exchange: Arc<Exchange>,
    watching: watch::Receiver<bool>,
    /// The CA of the leaf in use.
    mine: Option<Arc<ServingCa>>,
    write_again: Instant,
    writes: Backoff,
    read_again: Instant,
    reads: Backoff,
    /// What is wrong, as it was logged.
    said: String,
    /// Why it cannot be read, as it was logged.
    unread: String,
    /// Why it cannot be written, as it was logged.
    unwritten: String,
}

impl Keeper {
    fn new(
        secret: ServingSecret,
        wanted: Wanted,
        serving: Arc<Serving>,
        exchange: Arc<Exchange>,
        watching: watch::Receiver<bool>,
    ) -> Self {
        Self {
            secret,
            wanted,
            serving,
            exchange,
            said: String::new(),
            unread: String::new(),
            unwritten: String::new(),
            mine: None,
            write_again: Instant::now(),
            writes: Backoff::new(PAUSE, WRITE_PAUSE),
            read_again: Instant::now(),
            reads: Backoff::new(PAUSE, SOON),
            watching,
        }
    }

    async fn run(mut self, first: impl FnOnce()) {
        let (mut stored, mut trust) = (self.exchange.stored.subscribe(), self.exchange.trust.subscribe());
        let mut first = Some(first);
        loop {
            if self.read_again <= Instant::now() {
                self.read().await;
            }
            let seen = stored.borrow_and_update().clone();
            trust.mark_unchanged();
            if let Some(seen) = seen {
                self.turn(&seen).await;
            }
            if let Some(first) = first.take_if(|_| self.mine.is_some()) {
                first();
            }
            let until_read = self.read_again.saturating_duration_since(Instant::now());
            tokio::select! {
                _ = stored.changed() => {}
                _ = trust.changed() => {}
                _ = self.watching.changed() => self.watch_changed(),
                () = tokio::time::sleep(self.wanted.lives.look_again().min(until_read)) => {}
            }
        }
    }

    async fn read(&mut self) {
        let read = self.exchange.read(&self.secret).await;
        if read.is_ok() {
            self.reads.reset();
        }
        let (pause, unread) = match read {
            Ok(None) => (PAUSE, String::new()),
            Ok(Some(_)) if *self.watching.borrow() => (READ_PAUSE_WATCHED, String::new()),
            // It may be mended at any moment, and nobody can be answered until then.
            Ok(Some(_)) => (if self.mine.is_none() { SOON } else { READ_PAUSE }, String::new()),
            Err(held) => {
                let sentence = held.sentence();
                if sentence != self.unread {
                    tracing::error!(reason = %held.reason, "{sentence}");
                }
                (self.reads.pause(), sentence)
            }
        };
        (self.read_again, self.unread) = (Instant::now() + pause, unread);
    }

    /// Without a watch, the next read is not to be as late as with one.
    fn watch_changed(&mut self) {
        if !*self.watching.borrow_and_update() {
            self.read_again = self.read_again.min(Instant::now() + READ_PAUSE);
        }
    }

    /// Does what is due, by what was seen of the Secret.
    async fn turn(&mut self, seen: &Stored) {
        let now = Timestamp::now();
        let wrong = match seen {
            Stored::Usable(usable) => {
                self.leaf(&usable.authorities.signing, now);
                self.publish(usable, now);
                self.step(usable, now).await
            }
            Stored::Absent => {
                self.renew(now);
                self.said.clear();
                return self.create(now).await;
            }
            Stored::Broken(what) => {
                self.renew(now);
                format!("{what}: mend it, or delete it to have a new one made")
            }
        };
        self.say(wrong);
    }

    /// Logs what is wrong with the Secret, once.
    fn say(&mut self, wrong: String) {
        if wrong == self.said {
            return;
        }
        let name = &self.secret.full_name;
        match wrong.as_str() {
            "" => tracing::info!("Secret {name} can be used again"),
            wrong => tracing::error!("Secret {name} cannot be used for this service's own certificate: {wrong}"),
        }
        self.said = wrong;
    }

    /// Whether callers trust a CA for long enough.
    fn has_settled(&self, id: &crate::ca::Sha256) -> bool {
        self.exchange.trust.borrow().has_settled(id, self.wanted.lives.settle(), Instant::now())
    }

    fn leaf(&mut self, signing: &Arc<ServingCa>, now: Timestamp) {
        let mine = self.mine.as_ref().map(|mine| mine.certificate());
        let fresh = self.serving.is_fresh(now);
        match plan_leaf(signing.certificate(), mine, fresh, |id| self.has_settled(id), now) {
            LeafStep::Keep => {}
            LeafStep::Renew => self.renew(now),
            LeafStep::Switch => self.issue(&Arc::clone(signing), now),
        }
    }

    /// Renews the leaf by the CA that it is by, where that is due.
    fn renew(&mut self, now: Timestamp) {
        if let Some(mine) = self.mine.clone()
            && !self.serving.is_fresh(now)
            && mine.certificate().is_valid(now)
        {
            self.issue(&mine, now);
        }
    }

    fn issue(&mut self, ca: &Arc<ServingCa>, now: Timestamp) {
        match self.serving.renew(ca, &self.wanted.names, now, self.wanted.lives.leaf) {
            Ok(()) => {
                let not_after = self.serving.not_after().map(|at| at.to_string());
                tracing::info!(ca = %ca.certificate().id, not_after, "issued a serving certificate");
                self.mine = Some(Arc::clone(ca));
            }
            Err(error) => tracing::error!(error, "cannot issue a serving certificate; the last one stays in use"),
        }
    }

    /// Has the Secret's CAs injected, unless this replica's leaf is by another one that callers still need.
    fn publish(&self, usable: &Usable, now: Timestamp) {
        let trusted = usable.authorities.trusted();
        let is_missing = |mine: &CaCertificate| mine.is_valid(now) && !trusted.has(&mine.id);
        if !self.mine.as_ref().is_some_and(|mine| is_missing(mine.certificate())) {
            self.exchange.bundle.send_if_modified(|bundle| {
                let changed = bundle.as_deref() != Some(usable.bundle.as_str());
                if changed {
                    *bundle = Some(usable.bundle.as_str().into());
                }
                changed
            });
        }
    }

    /// Takes the step that is due. Returns what is wrong with the Secret, if anything.
    async fn step(&mut self, usable: &Usable, now: Timestamp) -> String {
        let (mine, lives) = (self.mine.clone(), self.wanted.lives);
        let mine = mine.as_ref().map(|mine| mine.certificate());
        let trusted = usable.authorities.trusted();
        let wrong = if now < trusted.signing.not_before { EARLY.to_owned() } else { String::new() };
        let step = plan(&trusted, mine, |id| self.has_settled(id), now, &lives);
        if step == Step::Keep || self.write_again > Instant::now() {
            return wrong;
        }
        let made = match step {
            Step::Announce | Step::Replace => self.make(now),
            _ => None,
        };
        let after = usable.authorities.after(&step, mine, made, now);
        let written = self.secret.write(usable, &after).await;
        if matches!(written, Ok(Write::Done)) {
            tracing::info!(step = ?step, secret = self.secret.full_name, "changed the serving CAs");
        }
        self.wrote(written);
        wrong
    }

    /// Makes the Secret anew: nothing that is in use is lost with it.
    async fn create(&mut self, now: Timestamp) {
        if self.write_again > Instant::now() {
            return;
        }
        let Some(made) = self.make(now) else { return };
        let authorities = match self.mine.clone().filter(|mine| mine.certificate().is_valid(now)) {
            Some(mine) => Authorities::restored(mine, made),
            None => Authorities::new(made),
        };
        let written = self.secret.create(&authorities).await;
        if matches!(written, Ok(Write::Done)) {
            tracing::info!(secret = self.secret.full_name, "made a serving CA");
        }
        self.wrote(written);
    }

    fn make(&self, now: Timestamp) -> Option<Arc<ServingCa>> {
        let made = ServingCa::make(now, self.wanted.lives.ca);
        made.inspect_err(|error| tracing::error!(error, "cannot make a serving CA")).ok().map(Arc::new)
    }

    /// Whatever became of it, what is there now is read at once.
    fn wrote(&mut self, written: Result<Write, Held>) {
        let pause = match written {
            Ok(_) => {
                self.writes.reset();
                self.unwritten.clear();
                PAUSE
            }
            Err(held) => {
                let sentence = held.sentence();
                if sentence != self.unwritten {
                    tracing::error!(reason = %held.reason, "{sentence}");
                }
                self.unwritten = sentence;
                // Without a leaf nobody can be answered.
                if self.mine.is_none() { self.writes.pause().min(SOON) } else { self.writes.pause() }
            }
        };
        (self.write_again, self.read_again) = (Instant::now() + pause, Instant::now());
    }
}

#[cfg(test)]
mod tests;

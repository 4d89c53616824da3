//! From what Vault has to the one write that is due, and back. A killed conductor leaves nothing half done: one write is
//! a whole step, and what was made before it in the PKI engine is found there again.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::ca::record::{Rotation, SigningRecord};
use crate::ca::{Sha256, file};
use crate::clock::Boot;
use crate::life::audience::{Audience, FRESH};
use crate::life::change::{self, Data, Material, Unchangeable};
use crate::life::rule::{self, Cause, Next, Standing, Step};
use crate::reason::{ByItself, Held, Reason};
use crate::signer::Signer;
use crate::vault::{Life, Refused, Vault, Written};

/// What is decided is written within this, or decided anew: attestations grow old.
const DECISION_MAX: Duration = Duration::from_secs(60);

/// So often somebody else may come first.
const TRIES: usize = 5;

/// Whoever takes the steps.
pub(super) struct Conductor {
    vault: Vault,
}

/// Everything that a step is decided on.
pub(super) struct Surroundings {
    pub(super) life: Life,
    pub(super) next: Next,
    /// The certificate of the goal.
    goal: Option<String>,
    looked: Boot,
}

/// How a call for a step ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Took(Step),
    Rest,
    Paused,
    Waits { until: Timestamp, then: Step },
    Held(Vec<Cause>),
}

/// What keeps from something, in a command that ends with it.
pub(super) fn refused(refused: Refused) -> Held {
    refused.held.without_promise()
}

/// Why a change is none.
pub(super) fn unchangeable(why: Unchangeable) -> Held {
    let next = "look at it with `istio-ca-gate rotate status`";
    Held::new(Reason::RotationHeld, why.to_string(), next, ByItself::Unsaid)
}

impl Surroundings {
    pub(super) fn rotation(&self) -> Option<&Rotation> {
        self.life.record.under_way()
    }

    /// The root that it leads to.
    pub(super) fn goal_root(&self) -> Option<Sha256> {
        let goal = self.goal.as_ref()?;
        file::first(goal.as_bytes()).ok().map(|glance| glance.sha256)
    }
}

impl Conductor {
    pub(super) fn new(vault: Vault) -> Self {
        Self { vault }
    }

    pub(super) fn vault(&mut self) -> &mut Vault {
        &mut self.vault
    }

    /// The record and the attestations.
    pub(super) async fn read(&mut self) -> Result<Life, Held> {
        self.vault.read_life(Timestamp::now()).await.map_err(refused)
    }

    /// The same, the PKI engine's part, and what is due.
    pub(super) async fn look(&mut self) -> Result<Surroundings, Held> {
        let looked = Boot::now();
        let life = self.read().await?;
        if let Some(Err(_)) = life.record.rotation {
            return Err(unchangeable(Unchangeable::Unreadable));
        }
        let Some(rotation) = life.record.under_way() else {
            return Ok(Surroundings { life, next: Next::Rest, goal: None, looked });
        };
        let goal_name = rotation.goal.to_string();
        let goal = Some(self.vault.issuer(&goal_name).await.map_err(refused)?);
        let issuer = life.record.issuer.as_ref().map(ToString::to_string);
        let retired = match &issuer {
            Some(issuer) => self.vault.is_retired(issuer).await.map_err(refused)?,
            None => false,
        };
        let may_cross = issuer.is_some() && !retired;
        let next = next(&life, goal.as_deref(), may_cross, retired);
        Ok(Surroundings { life, next, goal, looked })
    }

    /// Takes the step that is due, if there is one.
    pub(super) async fn step(&mut self) -> Result<Outcome, Held> {
        for _ in 0..TRIES {
            let seen = self.look().await?;
            let step = match seen.next.clone() {
                Next::Rest => return Ok(Outcome::Rest),
                Next::Paused => return Ok(Outcome::Paused),
                Next::Wait { until, then } => return Ok(Outcome::Waits { until, then }),
                Next::Held { causes, .. } => return Ok(Outcome::Held(causes)),
                Next::Take(step) => step,
            };
            if let Some(outcome) = self.take(&seen, step).await? {
                return Ok(outcome);
            }
        }
        Err(self.contended())
    }

    /// `None`: somebody else came first, or too much time passed. Look again.
    async fn take(&mut self, seen: &Surroundings, step: Step) -> Result<Option<Outcome>, Held> {
        let (step, data) = match self.made(seen, &step).await? {
            Made::Data(data) => (step, Some(data)),
            Made::EngineAlone => (step, None),
            // Without a cross there may be a wait.
            Made::NoCross => match next(&seen.life, seen.goal.as_deref(), false, false) {
                Next::Take(step) => match self.made(seen, &step).await? {
                    Made::Data(data) => (step, Some(data)),
                    Made::EngineAlone | Made::NoCross => return Ok(None),
                },
                Next::Wait { until, then } => return Ok(Some(Outcome::Waits { until, then })),
                Next::Held { causes, .. } => return Ok(Some(Outcome::Held(causes))),
                Next::Rest | Next::Paused => return Ok(None),
            },
        };
        self.prepare(seen, &step).await?;
        let Some(data) = data else { return Ok(Some(Outcome::Took(step))) };
        if Boot::now().since(seen.looked) > DECISION_MAX {
            return Ok(None);
        }
        match self.vault.write_life(&seen.life, data).await.map_err(refused)? {
            Written::Applied(_) => Ok(Some(Outcome::Took(step))),
            Written::Lost => Ok(None),
        }
    }

    /// What the step makes of the record. It is written only if it passes the check that every gate makes.
    async fn made(&mut self, seen: &Surroundings, step: &Step) -> Result<Made, Held> {
        let Surroundings { life, goal: Some(goal), .. } = seen else { return Ok(Made::EngineAlone) };
        let Some(rotation) = seen.rotation() else { return Ok(Made::EngineAlone) };
        let is_crossed = *step == Step::Switch { crossed: true };
        let mut cross = None;
        if let Some(issuer) = life.record.issuer.as_ref().filter(|_| is_crossed) {
            match self.vault.cross(issuer.as_str(), goal).await {
                Ok(made) => cross = Some(made),
                Err(refused) if refused.held.reason == Reason::SigningRefused => return Ok(Made::NoCross),
                Err(error) => return Err(refused(error)),
            }
        }
        let sightings = Audience::of(rotation, &life.heard, life.record.state(), life.now).sightings(life.now);
        let material = Material { goal, cross: cross.as_deref(), sightings: &sightings };
        let Some(data) = change::after(&life.data, &life.record, step, &material).map_err(unchangeable)? else {
            return Ok(Made::EngineAlone);
        };
        match SigningRecord::parse(&data, life.now) {
            Ok(_) => Ok(Made::Data(data)),
            Err(_) if is_crossed => Ok(Made::NoCross),
            Err(flaw) => {
                let what = format!("what {} would make of the record does not pass the check ({flaw})", step.as_str());
                Err(Held::new(
                    Reason::RotationHeld,
                    what,
                    "abort it with `istio-ca-gate rotate abort`",
                    ByItself::Unsaid,
                ))
            }
        }
    }

    /// The PKI engine's part, before the record's: whoever reads the record may have a signer certified.
    async fn prepare(&mut self, seen: &Surroundings, step: &Step) -> Result<(), Held> {
        let Some(rotation) = seen.rotation() else { return Ok(()) };
        match step {
            Step::Switch { .. } | Step::Return | Step::GiveBack => {
                self.vault.retire(rotation.goal.as_str(), false).await.map_err(refused)?;
            }
            Step::Drop => {
                for from in rotation.from.iter().filter(|from| **from != rotation.goal) {
                    self.vault.retire(from.as_str(), true).await.map_err(refused)?;
                }
            }
            Step::Trust | Step::Note | Step::Done => {}
        }
        Ok(())
    }

    /// Writes what a person has decided, on what there is now.
    pub(super) async fn change(&mut self, change: impl Fn(&Data) -> Result<Data, Unchangeable>) -> Result<(), Held> {
        for _ in 0..TRIES {
            let life = self.read().await?;
            let data = change(&life.data).map_err(unchangeable)?;
            if let Written::Applied(_) = self.vault.write_life(&life, data).await.map_err(refused)? {
                return Ok(());
            }
        }
        Err(self.contended())
    }

    /// Writes over what was shown, or not at all.
    pub(super) async fn write(&mut self, over: &Life, data: Data) -> Result<(), Held> {
        match self.vault.write_life(over, data).await.map_err(refused)? {
            Written::Applied(_) => Ok(()),
            Written::Lost => Err(self.contended()),
        }
    }

    /// Holds for a cluster that is not known, or that is alive: it would be back within a minute.
    pub(super) async fn may_forget(&mut self, cluster: &str) -> Result<(), Held> {
        let life = self.read().await?;
        let is_named = life.record.under_way().is_some_and(|rotation| rotation.clusters.contains(cluster));
        let (what, next) = match life.heard.get(cluster) {
            None if !is_named => (format!("nobody knows cluster {cluster}"), "see `istio-ca-gate rotate status`"),
            Some(Ok(attestation)) if life.now.duration_since(attestation.at) <= FRESH => (
                format!("cluster {cluster} attests, so that it would be waited for again in a moment"),
                "take its gate away first, and its right to attest",
            ),
            _ => return Ok(()),
        };
        Err(Held::new(Reason::RotationHeld, what, next, ByItself::Unsaid))
    }

    /// The record first: with the attestation gone, and the name in the record, it would be waited for in vain.
    pub(super) async fn forget(&mut self, cluster: &str) -> Result<(), Held> {
        let life = self.read().await?;
        if life.record.under_way().is_some_and(|rotation| rotation.clusters.contains(cluster)) {
            self.change(|data| change::forgotten(data, cluster)).await?;
        }
        self.vault.forget(cluster).await.map_err(refused)
    }

    fn contended(&self) -> Held {
        let what = format!("{} in Vault changed meanwhile", self.vault.settings().record());
        Held::new(Reason::RotationHeld, what, "look at it with `istio-ca-gate rotate status`", ByItself::Unsaid)
    }
}

/// What becomes of a step.
enum Made {
    /// The record's data.
    Data(Data),
    /// It is done by the PKI engine alone.
    EngineAlone,
    /// The cross that it needs cannot be had.
    NoCross,
}

fn next(life: &Life, goal: Option<&str>, may_cross: bool, issuer_retired: bool) -> Next {
    let goal = goal.and_then(|pem| file::first(pem.as_bytes()).ok()).map(|glance| glance.sha256);
    let standing = Standing { may_cross, issuer_retired, ..Standing::of(&life.record, goal) };
    rule::next(&standing, &life.heard, life.now)
}

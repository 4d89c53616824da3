//! A cluster as the convergence sees it, that takes what is written and holds nothing else.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use istio_ca_gate::ca::bundle::Beside;
use istio_ca_gate::ca::check::Sound;
use istio_ca_gate::ca::record::RecordState;
use istio_ca_gate::cluster::{Bystanders, Cluster, Happened, Maker, Passed, Write};
use istio_ca_gate::plan::{Contradiction, Copy, Mesh, Owner, Pin, Published, ReadPin};
use istio_ca_gate::reason::Held as Refused;
use istio_ca_gate::snapshot::Watched;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

pub struct Held {
    state: Mutex<State>,
    _watched: watch::Sender<Watched>,
}

#[derive(Default)]
struct State {
    cacerts: Option<Arc<Copy<Sound>>>,
    pin: ReadPin,
    version: u64,
}

impl Held {
    pub fn new() -> (Self, watch::Receiver<Watched>) {
        let (sender, watched) = watch::channel(Watched::default());
        (Self { state: Mutex::default(), _watched: sender }, watched)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cluster for Held {
    async fn look(&self) -> Result<Option<Published>, Refused> {
        self.read().await.map(Some)
    }

    async fn read(&self) -> Result<Published, Refused> {
        Ok(self.lock().cacerts.clone().map_or(Published::Absent, Published::Present))
    }

    async fn is_still(&self, _: &str) -> Result<bool, Refused> {
        Ok(true)
    }

    async fn publish(
        &self,
        _: &Published,
        sound: &Sound,
        _: u64,
        state: Option<RecordState>,
    ) -> Result<Write, Refused> {
        let mut held = self.lock();
        held.version += 1;
        held.cacerts = Some(Arc::new(Copy {
            owner: Owner::Ours,
            verdict: Ok(Arc::new(sound.clone())),
            glance: None,
            resource_version: held.version.to_string(),
            annotated_root: Some(Ok(sound.root)),
            annotated_state: state,
            unsound: None,
            beside: Beside::default(),
            was_ours: false,
            immutable: false,
        }));
        Ok(Write::Done)
    }

    async fn read_pin(&self) -> Result<ReadPin, Refused> {
        Ok(self.lock().pin.clone())
    }

    async fn write_pin(&self, _: &ReadPin, pin: &Pin) -> Result<Write, Refused> {
        let mut held = self.lock();
        held.version += 1;
        held.pin = ReadPin { pin: Some(pin.clone()), resource_version: Some(held.version.to_string()) };
        Ok(Write::Done)
    }

    async fn contradict(&self, _: &ReadPin, _: Contradiction) -> Result<Write, Refused> {
        Ok(Write::Changed)
    }

    async fn mesh(&self) -> Result<Mesh, Refused> {
        Ok(Mesh::Absent)
    }

    fn ahead(&self) -> Option<SignedDuration> {
        None
    }
}

impl Bystanders for Held {
    async fn touch_blocked(&self, _: Timestamp) -> Result<Passed, Refused> {
        Ok(Passed { any: false, whole: true })
    }

    async fn force_sync(&self, _: Option<&str>, _: Timestamp) -> Maker {
        Maker::Nobody
    }

    fn ask_flux(&self, _: Timestamp) {}

    async fn asked_flux(&self, _: Timestamp) {}

    fn tell(&self, _: Happened) {}
}

//! What the witness tells to Prometheus.

use k8s_openapi::jiff::Timestamp;
use prometheus::{Gauge, GaugeVec, Opts, Registry};

use crate::life::attestation::Attestation;
use crate::life::course::Outlook;

/// Gauges of the last look. Clones count together.
#[derive(Clone)]
pub struct Witnessed {
    istiods: GaugeVec,
    namespaces_behind: Gauge,
    settled: Gauge,
    attested: Gauge,
    rotation: GaugeVec,
    step: GaugeVec,
    ttl: GaugeVec,
}

impl Witnessed {
    /// Unknown as yet.
    ///
    /// # Errors
    /// If a name is taken.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let opts = |name: &str, help: &str| Opts::new(format!("istio_ca_gate_{name}"), help);
        let gauge = |name, help| {
            let gauge = Gauge::with_opts(opts(name, help))?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let vector = |name, help, labels: &[&str]| {
            let vector = GaugeVec::new(opts(name, help), labels)?;
            registry.register(Box::new(vector.clone()))?;
            Ok::<_, prometheus::Error>(vector)
        };
        Ok(Self {
            istiods: vector("istiods", "Pods of istiod, by whether they present the published signer.", &["state"])?,
            namespaces_behind: gauge(
                "namespaces_behind",
                "Namespaces whose istio-ca-root-cert has other roots than the record.",
            )?,
            settled: gauge("settled", "1 if all of the mesh works with what is published, as the last look had it.")?,
            attested: gauge("attested_timestamp_seconds", "When this replica last attested to it in Vault.")?,
            rotation: vector(
                "rotation_info",
                "1 while a root is replaced, with the goal and the step that comes next.",
                &["goal", "step"],
            )?,
            step: vector(
                "rotation_step_timestamp_seconds",
                "When the record of a change of the root was last written, as Unix time.",
                &["goal"],
            )?,
            ttl: vector(
                "rotation_ttl_seconds",
                "The longest life of a workload's certificate, by which a change of the root waits.",
                &["goal"],
            )?,
        })
    }

    /// Of a look.
    pub(super) fn saw(&self, outlook: &Outlook, written_at: Option<Timestamp>) {
        let Outlook { attestation: Attestation { istiods, namespaces, settled, .. }, course } = outlook;
        self.istiods.with_label_values(&["settled"]).set(istiods.settled as f64);
        self.istiods.with_label_values(&["behind"]).set(istiods.behind.len() as f64);
        self.namespaces_behind.set(namespaces.behind.len() as f64);
        self.settled.set(if settled.is_some() { 1.0 } else { 0.0 });
        [&self.rotation, &self.step, &self.ttl].into_iter().for_each(GaugeVec::reset);
        if let Some(course) = course {
            let goal = course.rotation.goal.as_str();
            self.rotation.with_label_values(&[goal, course.step()]).set(1.0);
            self.ttl.with_label_values(&[goal]).set(course.rotation.ttl.as_secs_f64());
            if let Some(at) = written_at {
                self.step.with_label_values(&[goal]).set(at.as_second() as f64);
            }
        }
    }

    /// It was written.
    pub(super) fn attested(&self, now: Timestamp) {
        self.attested.set(now.as_second() as f64);
    }
}

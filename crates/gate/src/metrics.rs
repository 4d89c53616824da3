//! `GET /metrics`: what is counted, and how all of it is told to Prometheus. What happens is counted in the room where it
//! does; what is read off stands here.

use https::Stats;
use k8s_openapi::jiff::Timestamp;
use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry, TextEncoder,
};

use crate::ca::bundle::Glance;
use crate::clock::Clocks;
use crate::converge::Convergences;
use crate::endpoints::Admissions;
use crate::peers::Heard;
use crate::plan::Role;
use crate::self_test::LastTest;
use crate::snapshot::{Policy, Snapshot};
use crate::telemetry;
use crate::vault::VaultRequests;
use crate::witness::Witnessed;

/// The content type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Everything that is counted as it happens. Clones count together.
#[derive(Clone)]
pub struct Metrics {
    /// Admission calls.
    pub admissions: Admissions,
    /// Attempts of the convergence.
    pub convergences: Convergences,
    /// Requests to Vault.
    pub vault: VaultRequests,
    /// The last self-test.
    pub self_test: LastTest,
    registry: Registry,
    labels: Labels,
}

/// What tells one gate's metrics from another's, where one Prometheus has them all.
#[derive(Clone, Debug)]
pub struct Labels {
    /// The name of the cluster.
    pub cluster: String,
    /// The gate's role.
    pub role: Role,
    /// The program's version. Only `build_info` tells it.
    pub version: &'static str,
}

impl Labels {
    fn registry(&self) -> prometheus::Result<Registry> {
        let labels = [("cluster", self.cluster.as_str()), ("role", self.role.as_str())];
        Registry::new_custom(None, Some(labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()))
    }
}

impl Metrics {
    /// Counters at zero.
    ///
    /// # Errors
    /// In words, if two metrics have one name, which a test finds out.
    pub fn new(labels: Labels) -> Result<Self, String> {
        Self::assemble(labels).map_err(|error| error.to_string())
    }

    fn assemble(labels: Labels) -> prometheus::Result<Self> {
        let registry = labels.registry()?;
        let build = GaugeVec::new(opts("build_info", "1, with the version of this program."), &["version"])?;
        build.with_label_values(&[labels.version]).set(1.0);
        registered(&registry, build)?;
        // It reads /proc, and is in the library on Linux alone.
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(Self {
            admissions: Admissions::new(&registry)?,
            convergences: Convergences::new(&registry)?,
            vault: VaultRequests::registered(&registry)?,
            self_test: LastTest::default(),
            registry,
            labels,
        })
    }

    /// Of a witness, where there is one.
    ///
    /// # Errors
    /// In words, if there is one already.
    pub fn witnessed(&self) -> Result<Witnessed, String> {
        Witnessed::new(&self.registry).map_err(|error| error.to_string())
    }

    /// What all of them carry.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// All of it as text, with what was read off.
    ///
    /// # Errors
    /// In words, if the encoder cannot.
    pub fn text(&self, standing: &Standing, stats: &Stats) -> Result<Vec<u8>, String> {
        self.encode(standing, stats).map_err(|error| error.to_string())
    }

    fn encode(&self, Standing(standing): &Standing, stats: &Stats) -> prometheus::Result<Vec<u8>> {
        let mut text = Vec::new();
        self.self_test.tell(standing)?;
        for families in [self.registry.gather(), standing.gather(), servers(stats, &self.labels)?.gather()] {
            TextEncoder::new().encode(&families, &mut text)?;
        }
        Ok(text)
    }
}

/// What is read off at each scrape instead of being counted.
pub struct Moment<'a> {
    /// Whose it is.
    pub labels: &'a Labels,
    /// How the gate stands.
    pub known: Snapshot<'a>,
    /// The user's settings.
    pub policy: &'a Policy,
    /// The time.
    pub now: Clocks,
    /// The end of the serving certificate, where there is one.
    pub certificate_ends: Option<Timestamp>,
    /// What other clusters' gates tell.
    pub(crate) peers: &'a [Heard],
}

/// What was read off.
pub struct Standing(Registry);

impl Moment<'_> {
    /// Reads it off, and no more: meanwhile nothing can be learnt.
    ///
    /// # Errors
    /// In words, if two metrics have one name, which a test finds out.
    pub fn standing(&self) -> Result<Standing, String> {
        self.read().map(Standing).map_err(|error| error.to_string())
    }

    fn read(&self) -> prometheus::Result<Registry> {
        let Self { labels, known, policy, now, certificate_ends, peers } = *self;
        let registry = labels.registry()?;
        let open = gauge(&registry, "open", "1 if gated pods are let in.")?;
        open.set(f64::from(u8::from(known.is_open(policy, now))));
        let info = registered(
            &registry,
            GaugeVec::new(
                opts("root_info", "1, with the SHA-256 of a root as openssl prints it."),
                &["source", "sha256"],
            )?,
        )?;
        let end = registered(
            &registry,
            GaugeVec::new(opts("root_not_after_timestamp_seconds", "When a root expires, as Unix time."), &["source"])?,
        )?;
        for (source, glance) in roots(known) {
            info.with_label_values(&[source, &glance.sha256.openssl()]).set(1.0);
            end.with_label_values(&[source]).set(glance.not_after.as_second() as f64);
        }
        ends(known, &registry)?;
        signer(known, &registry)?;
        agreements(known, peers, &registry)?;
        let verified = known.convergence.last_verified.as_ref().map(|last| last.at.wall);
        let help = "When cacerts was last found to hold Vault's root, as Unix time.";
        moment(&registry, "last_verified_timestamp_seconds", help, verified)?;
        let help = "When this service's own certificate expires, as Unix time.";
        moment(&registry, "serving_certificate_not_after_timestamp_seconds", help, certificate_ends)?;
        Ok(registry)
    }
}

/// What closes the gate by itself.
fn ends(known: Snapshot<'_>, registry: &Registry) -> prometheus::Result<()> {
    let name = "usable_until_timestamp_seconds";
    let help = "Until when a CA passes the check, or Vault keeps it, as Unix time.";
    let until = registered(registry, GaugeVec::new(opts(name, help), &["source"])?)?;
    let stored = known.convergence.root.as_ref().map(|root| ("vault", root.end()));
    let published = known.watched.end().map(|end| ("cacerts", end));
    for (source, (at, _)) in stored.into_iter().chain(published) {
        until.with_label_values(&[source]).set(at.as_second() as f64);
    }
    let token_end = known.convergence.root.as_ref().and_then(|root| root.token_end);
    let help = "When VAULT_TOKEN ends, which nobody renews, as Unix time.";
    moment(registry, "vault_token_not_after_timestamp_seconds", help, token_end)
}

/// The life of this cluster's signer, where it has one of its own.
fn signer(known: Snapshot<'_>, registry: &Registry) -> prometheus::Result<()> {
    let Some((signer, _)) = known.watched.signer() else { return Ok(()) };
    for (name, help, at) in [
        (
            "signer_not_before_timestamp_seconds",
            "When the certificate of this cluster's signer began, as Unix time.",
            signer.valid_from,
        ),
        (
            "signer_not_after_timestamp_seconds",
            "When the certificate of this cluster's signer ends, as Unix time.",
            signer.valid_until,
        ),
    ] {
        gauge(registry, name, help)?.set(at.as_second() as f64);
    }
    Ok(())
}

/// Which of the other clusters have this one's roots, as far as both are known.
fn agreements(known: Snapshot<'_>, peers: &[Heard], registry: &Registry) -> prometheus::Result<()> {
    let help = "1 if that gate's cluster has the roots of this one, 0 if it has others.";
    let same = registered(registry, GaugeVec::new(opts("peer_match", help), &["peer"])?)?;
    let Some((own, _)) = known.watched.glance() else { return Ok(()) };
    for peer in peers {
        if let Some(roots) = peer.roots() {
            same.with_label_values(&[peer.url.as_str()]).set(f64::from(u8::from(*roots == own.roots)));
        }
    }
    Ok(())
}

/// What the servers have counted.
fn servers(stats: &Stats, labels: &Labels) -> prometheus::Result<Registry> {
    let registry = labels.registry()?;
    let open = gauge(&registry, "server_connections", "Open connections.")?;
    open.set(stats.connections_open.get() as f64);
    let in_flight = gauge(&registry, "server_requests_in_flight", "Requests between their head and their answer.")?;
    in_flight.set(stats.requests_in_flight.get() as f64);
    for (name, help, counted) in [
        (
            "server_connections_closed_for_room_total",
            "Connections that were closed because a new one needed their place.",
            &stats.connections_closed_for_room,
        ),
        (
            "server_connections_timed_out_total",
            "Connections that a deadline has ended, but those of a handshake.",
            &stats.connections_timed_out,
        ),
        ("server_handshakes_failed_total", "TLS handshakes that failed or took too long.", &stats.handshakes_failed),
        ("server_requests_shed_total", "Requests answered with 429: too many were under way.", &stats.requests_shed),
        ("server_panics_total", "Panics that were caught and answered with 500. Please report them.", &stats.panics),
    ] {
        registered(&registry, IntCounter::with_opts(opts(name, help))?)?.inc_by(counted.get());
    }
    let lines = opts("log_lines_dropped_total", "Lines of the log that were dropped, since nobody read them.");
    registered(&registry, IntCounter::with_opts(lines)?)?.inc_by(telemetry::lines_dropped());
    Ok(registry)
}

/// The roots that are known: the first certificate of each `root-cert.pem`.
fn roots(known: Snapshot<'_>) -> impl Iterator<Item = (&'static str, &Glance)> {
    let stored = known.convergence.root.as_ref().map(|root| ("vault", &root.glance));
    let published = known.watched.glance().map(|(glance, _)| ("cacerts", glance));
    stored.into_iter().chain(published)
}

pub(crate) fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("istio_ca_gate_{name}"), help)
}

pub(crate) fn registered<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

pub(crate) fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntCounterVec> {
    registered(registry, IntCounterVec::new(opts(name, help), labels)?)
}

/// As Unix time, where it is known.
fn moment(registry: &Registry, name: &str, help: &str, at: Option<Timestamp>) -> prometheus::Result<()> {
    if let Some(at) = at {
        gauge(registry, name, help)?.set(at.as_second() as f64);
    }
    Ok(())
}

pub(crate) fn gauge(registry: &Registry, name: &str, help: &str) -> prometheus::Result<Gauge> {
    registered(registry, Gauge::with_opts(opts(name, help))?)
}

pub(crate) fn histogram(registry: &Registry, name: &str, help: &str, seconds: &[f64]) -> prometheus::Result<Histogram> {
    let opts = HistogramOpts { common_opts: opts(name, help), buckets: seconds.to_vec() };
    registered(registry, Histogram::with_opts(opts)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;
    use crate::peers::samples::{heard, told};
    use crate::plan::Owner;
    use crate::samples::{BOTH, Known, POLICY, R1, SOON, published};
    use crate::snapshot::KnownRoot;

    /// What a scrape has of these.
    fn lines(known: &Known, peers: &[Heard], name: &str) -> Vec<String> {
        let metrics = Metrics::new(Labels { cluster: "nas".to_owned(), role: Role::Sync, version: "1.2.3" }).unwrap();
        let (labels, known, now) = (metrics.labels(), known.snapshot(), known.now);
        let moment = Moment { labels, known, policy: &POLICY, now, certificate_ends: None, peers };
        let text = metrics.text(&moment.standing().unwrap(), &Stats::default()).unwrap();
        let text = String::from_utf8(text).unwrap();
        text.lines().filter_map(|line| line.strip_prefix(name)).map(str::to_owned).collect()
    }

    fn peer(url: &str, roots: &BTreeSet<crate::ca::Sha256>) -> Heard {
        let mut told = told("homelab", 1);
        told.cacerts.as_mut().unwrap().roots = roots.clone();
        Heard { url: url.to_owned(), ..heard(told) }
    }

    #[test]
    fn a_peer_counts_as_the_same_by_all_of_its_roots_and_not_at_all_while_it_is_not_known() {
        let silent = Heard { url: "https://silent".to_owned(), reached: None, told: Some(Err("no answer".to_owned())) };
        let peers = [peer("https://same", R1.roots()), peer("https://more", BOTH.roots()), silent];
        let of = |known: &Known| lines(known, &peers, "istio_ca_gate_peer_match{");
        // Their labels come in any order.
        let parts = |line: &str| line.split([',', '}']).map(str::to_owned).collect::<BTreeSet<_>>();
        let wanted = [("more", 0), ("same", 1)];
        let wanted = wanted.map(|(peer, is)| format!("peer=\"https://{peer}\",cluster=\"nas\",role=\"sync\"}} {is}"));
        let told = of(&Known::open(&R1));
        assert_eq!(told.iter().map(|line| parts(line)).collect::<Vec<_>>(), wanted.map(|line| parts(&line)));
        assert!(of(&Known::nothing()).is_empty());
    }

    #[test]
    fn what_ends_first_is_what_is_told() {
        let open =
            Known::open(&SOON).but(|known| known.watched.published = Some(published(Owner::Ours, &SOON).facts()));
        let line = &lines(&open, &[], "istio_ca_gate_usable_until_timestamp_seconds{")[0];
        assert!(line.contains("source=\"cacerts\""), "{line}");
        assert!(line.ends_with(&format!(" {}", SOON.usable_until.at.as_second())), "{line}");
        assert!(SOON.usable_until.at < SOON.glance.not_after);
    }

    #[test]
    fn the_end_of_a_token_that_nobody_renews_is_told_where_there_is_one() {
        let name = "istio_ca_gate_vault_token_not_after_timestamp_seconds{";
        let ends = |token_end| {
            let root = KnownRoot {
                glance: SOON.glance.clone(),
                root: SOON.root,
                version: 1,
                usable_until: SOON.usable_until,
                deleted_at: None,
                token_end,
                checked_at: SOON.valid_from,
                address: "https://vault.example".to_owned(),
            };
            lines(&Known::open(&SOON).but(|known| known.convergence.root = Some(root)), &[], name)
        };
        assert_eq!(ends(None), Vec::<String>::new());
        let end = SOON.usable_until.at;
        assert!(ends(Some(end))[0].ends_with(&format!(" {}", end.as_second())));
    }
}

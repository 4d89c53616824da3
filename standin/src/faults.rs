//! Switches for what can go wrong with a server and the network before it, each by name.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Method, header};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::wire::Request;

/// How long an answer takes with `slow`: longer than the gate waits for any.
const SLOW: Duration = Duration::from_secs(5);

/// When a late request is acted on: after its client has given up the connection, and may have asked again.
const LATE: Duration = Duration::from_secs(2);

/// What a proxy says whose server does not answer.
const BAD_GATEWAY: u16 = 502;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nobody listens: connections are refused, open ones end.
    Refused,
    /// The request is read and never answered, nor acted on.
    Silent,
    /// The request is never acted on, and the connection ends.
    RequestLost,
    /// The request is acted on, and the connection ends without an answer.
    AnswerLost,
    /// The connection ends without an answer, and the request is acted on after this: a write that arrives late.
    Late(Duration),
    /// The request is acted on at once, and answered after this.
    Slow(Duration),
    /// The answer's body comes one byte at a time.
    ByteByByte,
    /// Half of the answer's body comes, then the connection ends.
    Cut,
    /// The answer's body comes over and over, without an end.
    Endless,
    /// A proxy answers in the server's place, with this status and its own page. The request is not acted on.
    Html(u16),
    /// The request is answered with this status in the server's own words, and not acted on. Of 410, an API server's
    /// watch tells in an event, as the real one does.
    Status(u16),
    /// The request is answered as by a Vault that is sealed.
    Sealed,
}

impl Fault {
    /// Every name that [`from_str`](FromStr::from_str) takes; `slow` also as `slow=200ms`, `late` as `late=5s`, `html` as
    /// `html=200`.
    pub const NAMES: [&'static str; 19] = [
        "refused",
        "silent",
        "request-lost",
        "answer-lost",
        "late",
        "slow",
        "byte-by-byte",
        "cut",
        "endless",
        "html",
        "401",
        "403",
        "409",
        "410",
        "429",
        "500",
        "502",
        "503",
        "sealed",
    ];
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let (kind, value) = name.split_once('=').unwrap_or((name, ""));
        Ok(match kind {
            "slow" => Self::Slow(duration(value, SLOW)?),
            "late" => Self::Late(duration(value, LATE)?),
            "html" if value.is_empty() => Self::Html(BAD_GATEWAY),
            "html" => Self::Html(value.parse().map_err(|_| format!("{value} is no status"))?),
            "endless" => Self::Endless,
            "refused" => Self::Refused,
            "silent" => Self::Silent,
            "request-lost" => Self::RequestLost,
            "answer-lost" => Self::AnswerLost,
            "byte-by-byte" => Self::ByteByByte,
            "cut" => Self::Cut,
            "sealed" => Self::Sealed,
            status if Self::NAMES.contains(&status) => Self::Status(status.parse().map_err(|_| "no status")?),
            _ => return Err(format!("no fault is named {name}: there are {}", Self::NAMES.join(", "))),
        })
    }
}

fn duration(text: &str, unless: Duration) -> Result<Duration, String> {
    if text.is_empty() { Ok(unless) } else { humantime::parse_duration(text).map_err(|error| error.to_string()) }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("refused"),
            Self::Silent => f.write_str("silent"),
            Self::RequestLost => f.write_str("request-lost"),
            Self::AnswerLost => f.write_str("answer-lost"),
            Self::Slow(by) => write!(f, "slow={}", humantime::format_duration(*by)),
            Self::Late(by) => write!(f, "late={}", humantime::format_duration(*by)),
            Self::Endless => f.write_str("endless"),
            Self::Html(status) => write!(f, "html={status}"),
            Self::ByteByByte => f.write_str("byte-by-byte"),
            Self::Cut => f.write_str("cut"),
            Self::Status(status) => write!(f, "{status}"),
            Self::Sealed => f.write_str("sealed"),
        }
    }
}

/// Which requests a fault hits.
#[derive(Clone, Debug, Default)]
pub struct Aim {
    method: Option<Method>,
    path: String,
    times: Option<usize>,
    spared: Option<String>,
}

impl Aim {
    /// At every request.
    pub fn all() -> Self {
        Self::default()
    }

    /// At requests of this method only.
    #[must_use]
    pub fn method(self, method: Method) -> Self {
        Self { method: Some(method), ..self }
    }

    /// At requests only whose path and query contain this.
    #[must_use]
    pub fn path(self, part: &str) -> Self {
        Self { path: part.to_owned(), ..self }
    }

    /// At so many of them only, the next ones.
    #[must_use]
    pub fn times(self, times: usize) -> Self {
        Self { times: Some(times), ..self }
    }

    /// At requests only without this bearer token: at those of everybody but an administrator.
    #[must_use]
    pub fn sparing(self, token: &str) -> Self {
        Self { spared: Some(format!("Bearer {token}")), ..self }
    }

    fn is_at(&self, request: &Request) -> bool {
        let by = request.header(header::AUTHORIZATION);
        let is_spared = self.spared.as_deref().is_some_and(|spared| by == Some(spared));
        !is_spared
            && self.method.as_ref().is_none_or(|method| *method == request.method)
            && request.uri.path_and_query().is_some_and(|target| target.as_str().contains(&self.path))
    }
}

/// A fault that was switched on.
#[derive(Debug)]
pub struct Switch {
    fault: Fault,
    aim: Aim,
    hits: AtomicUsize,
}

impl Switch {
    /// What it does.
    pub fn fault(&self) -> Fault {
        self.fault
    }

    /// How often it has hit. `refused` counts as one hit once nobody listens.
    pub fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    fn hit(&self) -> bool {
        let more = |hits| (self.aim.times.is_none_or(|times| hits < times)).then_some(hits + 1);
        self.hits.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }
}

/// The faults of one server.
#[derive(Debug, Default)]
pub struct Faults {
    switches: Mutex<Vec<Arc<Switch>>>,
    refused: watch::Sender<bool>,
    port: Option<u16>,
    /// Listens from the moment on at which `refused` ends, not from when the server comes to it.
    reopened: Mutex<Option<std::net::TcpListener>>,
}

impl Faults {
    /// Those of the server at this port of the loopback address.
    pub(crate) fn of_port(port: u16) -> Self {
        Self { port: Some(port), ..Self::default() }
    }

    /// Switches a fault on. Of several that a request is in the way of, the first that was switched on hits.
    pub fn inject(&self, fault: Fault, aim: Aim) -> Arc<Switch> {
        let switch = Arc::new(Switch { fault, aim, hits: AtomicUsize::new(0) });
        self.switches().push(Arc::clone(&switch));
        self.update_refused();
        switch
    }

    /// Switches one off.
    pub fn end(&self, switch: &Arc<Switch>) {
        self.switches().retain(|other| !Arc::ptr_eq(other, switch));
        self.update_refused();
    }

    /// Switches all off.
    pub fn heal(&self) {
        self.switches().clear();
        self.update_refused();
    }

    /// What is switched on.
    pub fn active(&self) -> Vec<Arc<Switch>> {
        self.switches().clone()
    }

    /// What hits this request.
    pub(crate) fn of(&self, request: &Request) -> Option<Fault> {
        let switches = self.switches();
        // Also what came before the server knew that it refuses.
        if switches.iter().any(|switch| switch.fault == Fault::Refused) {
            return Some(Fault::Refused);
        }
        let mut aimed = switches.iter().filter(|switch| switch.aim.is_at(request));
        aimed.find(|switch| switch.hit()).map(|switch| switch.fault)
    }

    /// Whether connections are refused, now and from now on.
    pub(crate) fn refused(&self) -> watch::Receiver<bool> {
        self.refused.subscribe()
    }

    /// Nobody listens any more.
    pub(crate) fn refusing(&self) {
        for switch in self.switches().iter().filter(|switch| switch.fault == Fault::Refused && switch.hits() == 0) {
            switch.hit();
        }
    }

    /// What listens since `refused` ended, unless another program had the port at that moment.
    pub(crate) fn reopened(&self) -> Option<TcpListener> {
        let listener = self.listening().take()?;
        listener.set_nonblocking(true).ok()?;
        TcpListener::from_std(listener).ok()
    }

    fn update_refused(&self) {
        let refused = self.switches().iter().any(|switch| switch.fault == Fault::Refused);
        self.refused.send_if_modified(|was| {
            let changed = std::mem::replace(was, refused) != refused;
            if changed {
                let listen = |port| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok();
                *self.listening() = self.port.filter(|_| !refused).and_then(listen);
            }
            changed
        });
    }

    fn listening(&self) -> MutexGuard<'_, Option<std::net::TcpListener>> {
        self.reopened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn switches(&self) -> MutexGuard<'_, Vec<Arc<Switch>>> {
        self.switches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;

    use super::*;

    fn request(method: Method, target: &str) -> Request {
        Request { method, uri: target.parse().unwrap(), headers: http::HeaderMap::new(), body: Bytes::new() }
    }

    #[test]
    fn every_name_is_a_fault_and_every_fault_tells_its_name() {
        for name in Fault::NAMES {
            let fault: Fault = name.parse().unwrap();
            assert!(fault.to_string().starts_with(name), "{fault}");
            assert_eq!(fault.to_string().parse(), Ok(fault));
        }
        assert_eq!("slow=200ms".parse(), Ok(Fault::Slow(Duration::from_millis(200))));
        assert_eq!("late=1s".parse(), Ok(Fault::Late(Duration::from_secs(1))));
        assert_eq!("html=200".parse(), Ok(Fault::Html(200)));
        for wrong in ["", "404", "slowly", "slow=x", "late=x", "html=x"] {
            assert!(wrong.parse::<Fault>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_fault_hits_what_it_aims_at_so_often_and_is_counted() {
        let faults = Faults::default();
        let aim = Aim::all().method(Method::POST).path("secret/data").times(2);
        let switch = faults.inject(Fault::AnswerLost, aim);
        let write = request(Method::POST, "/v1/secret/data/istio/ca");
        assert_eq!(faults.of(&request(Method::GET, "/v1/secret/data/istio/ca")), None);
        assert_eq!(faults.of(&request(Method::POST, "/v1/sys/seal")), None);
        assert_eq!(faults.of(&write), Some(Fault::AnswerLost));
        assert_eq!(faults.of(&write), Some(Fault::AnswerLost));
        assert_eq!((faults.of(&write), switch.hits()), (None, 2));
    }

    #[test]
    fn who_is_spared_is_not_hit() {
        let faults = Faults::default();
        let switch = faults.inject(Fault::Cut, Aim::all().sparing("admin"));
        let mut asked = request(Method::GET, "/");
        asked.headers.insert(header::AUTHORIZATION, "Bearer admin".parse().unwrap());
        assert_eq!((faults.of(&asked), switch.hits()), (None, 0));
        asked.headers.insert(header::AUTHORIZATION, "Bearer other".parse().unwrap());
        assert_eq!((faults.of(&asked), switch.hits()), (Some(Fault::Cut), 1));
    }

    #[test]
    fn healed_faults_hit_nothing() {
        let faults = Faults::default();
        let any = request(Method::GET, "/");
        let (first, _second) = (faults.inject(Fault::Cut, Aim::all()), faults.inject(Fault::Silent, Aim::all()));
        assert_eq!(faults.of(&any), Some(Fault::Cut));
        faults.end(&first);
        assert_eq!(faults.of(&any), Some(Fault::Silent));
        faults.heal();
        assert_eq!(faults.of(&any), None);
    }
}

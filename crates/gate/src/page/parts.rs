//! Its small parts: fingerprints, moments, and tones. The library escapes every text.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use crate::report::stamp;

/// How something is meant. The words beside it say the same: a class is a colour and nothing more.
pub(super) const GOOD: &str = "good";
pub(super) const BAD: &str = "bad";
pub(super) const WAIT: &str = "wait";

/// As the alerts have it.
const SOON: SignedDuration = SignedDuration::from_secs(90 * 86_400);
const VERY_SOON: SignedDuration = SignedDuration::from_secs(30 * 86_400);

pub(super) fn row(name: &str, value: &Markup) -> Markup {
    html! { tr { th scope="row" { (name) } td { (value) } } }
}

/// The first, and then the others.
pub(super) fn fingerprints(first: &str, all: &[String]) -> Markup {
    let more: Vec<_> = all.iter().filter(|other| *other != first).collect();
    html! {
        (fingerprint(first))
        @for other in more { br; "and " (fingerprint(other)) }
    }
}

/// Broken at the same places everywhere, so that two of them can be compared by eye.
pub(super) fn fingerprint(text: &str) -> Markup {
    let pairs: Vec<_> = text.split(':').collect();
    let lines: Vec<_> = pairs.chunks(4).map(|pairs| pairs.join(":")).collect();
    let last = lines.len().saturating_sub(1);
    html! { code.fingerprint { @for (index, line) in lines.iter().enumerate() { span { (line) @if index < last { ":" } } wbr; } } }
}

pub(super) fn time(at: Timestamp) -> Markup {
    // Broken at the space alone.
    html! {
        time datetime=(stamp(at)) { span { (at.strftime("%Y-%m-%d")) } " " span { (at.strftime("%H:%M:%S UTC")) } }
    }
}

/// A moment, and how far away it is.
pub(super) fn moment(at: Timestamp, now: Timestamp) -> Markup {
    html! { (time(at)) " (" (distance(at.duration_since(now))) ")" }
}

/// The end of something that is needed, and how much time is left.
pub(super) fn end(at: Timestamp, now: Timestamp) -> Markup {
    let left = at.duration_since(now);
    let tone = match left {
        left if left < VERY_SOON => BAD,
        left if left < SOON => WAIT,
        _ => GOOD,
    };
    html! { (time(at)) ", " strong class=(tone) { (distance(left)) } }
}

/// The same of a text that may be none.
pub(super) fn end_at(at: &str, now: Timestamp) -> Markup {
    at.parse().map_or_else(|_| html! { (at) }, |at| end(at, now))
}

/// The same where it is no end.
pub(super) fn moment_at(at: &str, now: Timestamp) -> Markup {
    at.parse().map_or_else(|_| html! { (at) }, |at| moment(at, now))
}

pub(super) fn distance(from_now: SignedDuration) -> String {
    let length = length(from_now.abs());
    if from_now.is_positive() { format!("in {length}") } else { format!("{length} ago") }
}

pub(super) fn length(time: SignedDuration) -> String {
    let seconds = time.as_secs();
    let (count, unit) = match seconds {
        0..120 => (seconds, "s"),
        120..7200 => (seconds / 60, "min"),
        7200..172_800 => (seconds / 3600, "h"),
        _ => (seconds / 86400, "days"),
    };
    format!("{count} {unit}")
}

#![allow(clippy::unwrap_used)]

use k8s_openapi::jiff::SignedDuration;
use kube::Client;
use serde_json::{Value, json};

use super::*;
use crate::k8s::samples::{answered_by, refusal};
use crate::reason::{ByItself, Reason};

const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// The Secret, as it is not to be.
fn broken() -> Value {
    json!({ "metadata": { "name": "tls", "resourceVersion": "7" } })
}

fn secret(client: Client) -> ServingSecret {
    ServingSecret::new(client, "istio-system", "tls")
}

/// One that has done nothing yet.
fn keeper(client: Client, is_watched: bool) -> Keeper {
    Keeper {
        secret: secret(client),
        wanted: Wanted { names: vec!["gate.test".to_owned()], lives: Lives { ca: HOUR * 24, leaf: HOUR } },
        serving: Arc::default(),
        exchange: Arc::default(),
        watching: watch::Sender::new(is_watched).subscribe(),
        mine: None,
        write_again: Instant::now(),
        writes: Backoff::new(PAUSE, WRITE_PAUSE),
        read_again: Instant::now(),
        reads: Backoff::new(PAUSE, SOON),
        said: String::new(),
        unread: String::new(),
        unwritten: String::new(),
    }
}

#[tokio::test]
async fn it_is_read_again_and_again_also_while_it_is_watched() {
    for (status, is_watched, least, most) in [
        (200, false, SOON, SOON),
        (200, true, READ_PAUSE_WATCHED, READ_PAUSE_WATCHED),
        (500, false, PAUSE / 2, PAUSE),
        // As after a write whose outcome the watch may not tell for long.
        (500, true, PAUSE / 2, PAUSE),
        // A right may be given at any moment.
        (403, false, PAUSE / 2, PAUSE),
        (403, true, PAUSE / 2, PAUSE),
    ] {
        let client = answered_by(move |_| if status == 200 { (200, broken()) } else { refusal(status, "No") });
        let (mut keeper, began) = (keeper(client, is_watched), Instant::now());
        keeper.read().await;
        let again = keeper.read_again;
        assert!(again >= began + least && again <= Instant::now() + most, "{status} {is_watched}");
        // However often there is something to do meanwhile.
        keeper.turn(&Stored::Broken("it is broken".to_owned())).await;
        assert_eq!(keeper.read_again, again, "{status} {is_watched}");
    }
}

#[tokio::test]
async fn the_reason_why_it_cannot_be_read_is_logged_once_until_it_can() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let lines = tracing_subscriber::fmt().with_writer(Arc::new(log.reopen().unwrap())).finish();
    let _logging = tracing::subscriber::set_default(lines);
    let is_refused = watch::Sender::new(true);
    let refused = is_refused.subscribe();
    let client = answered_by(move |_| if *refused.borrow() { refusal(403, "Forbidden") } else { (200, broken()) });
    let mut keeper = keeper(client, false);
    for (refused, logged) in [(true, 1), (true, 1), (false, 1), (true, 2), (true, 2)] {
        is_refused.send_replace(refused);
        keeper.read().await;
        let log = std::fs::read_to_string(log.path()).unwrap();
        assert_eq!(log.matches("refuses to read Secret istio-system/tls").count(), logged, "{log}");
    }
}

#[tokio::test]
async fn a_watch_that_ends_leaves_no_read_as_late_as_a_watch_may() {
    let mut keeper = keeper(answered_by(|_| (200, broken())), true);
    keeper.read().await;
    keeper.watching = watch::Sender::new(false).subscribe();
    keeper.watch_changed();
    assert!(keeper.read_again <= Instant::now() + READ_PAUSE);
}

#[tokio::test]
async fn what_the_watch_tells_during_a_read_stays() {
    let exchange = Arc::<Exchange>::default();
    let told = Arc::clone(&exchange);
    // Deleted, and told of, before the answer comes.
    let late = answered_by(move |_| {
        told.tell(Told::absent("6".to_owned()), Stored::Absent);
        (200, broken())
    });
    assert!(exchange.read(&secret(late)).await.unwrap().is_none());
    assert!(matches!(*exchange.stored.borrow(), Some(Stored::Absent)));
    let (mut stored, secret) = (exchange.stored.subscribe(), secret(answered_by(|_| (200, broken()))));
    for is_news in [true, false] {
        let read = exchange.read(&secret).await.unwrap();
        assert!(matches!(read, Some(Stored::Broken(_))));
        assert_eq!(stored.has_changed().unwrap(), is_news);
        assert!(matches!(*stored.borrow_and_update(), Some(Stored::Broken(_))));
    }
}

#[tokio::test]
async fn a_read_that_is_older_than_what_the_watch_told_before_it_does_not_count() {
    let exchange = Exchange::default();
    // Version 7 is gone by 8.
    exchange.tell(Told::absent("8".to_owned()), Stored::Absent);
    let read = exchange.read(&secret(answered_by(|_| (200, broken())))).await;
    assert!(read.is_err_and(|held| held.sentence().contains("older version")));
    assert!(matches!(*exchange.stored.borrow(), Some(Stored::Absent)));
}

#[tokio::test]
async fn a_refused_write_is_tried_again_soon_only_while_nobody_can_be_answered() {
    let refused = || Err(Held::without_next(Reason::KubernetesForbidden, "no", ByItself::Unsaid));
    let now = Timestamp::now();
    for (mine, most) in [(None, SOON), (Some(Arc::new(ServingCa::make(now, HOUR).unwrap())), WRITE_PAUSE)] {
        let mut keeper = Keeper { mine, ..keeper(answered_by(|_| (200, broken())), true) };
        for _ in 0..8 {
            keeper.wrote(refused());
        }
        let pause = keeper.write_again.saturating_duration_since(Instant::now());
        assert!(pause <= most && pause > most / 2 - Duration::from_millis(500), "{pause:?}");
        keeper.wrote(Ok(Write::Done));
        assert!(keeper.write_again <= Instant::now() + PAUSE);
    }
}

#[tokio::test]
async fn without_a_leaf_that_anybody_takes_the_secrets_cas_are_injected_as_they_are() {
    let now = Timestamp::now();
    let made = |at| Arc::new(ServingCa::make(at, HOUR * 24).unwrap());
    let authorities = Authorities::new(made(now));
    let bundle = authorities.bundle();
    let usable = Usable { authorities, bundle: bundle.clone(), resource_version: String::new() };
    for (mine, expected) in [
        (None, true),
        (Some(made(now + HOUR * 99)), true),
        (Some(made(now - HOUR * 99)), true),
        // It joins them first.
        (Some(made(now)), false),
    ] {
        let keeper = Keeper { mine, ..keeper(answered_by(|_| (200, broken())), true) };
        keeper.publish(&usable, now);
        let published = keeper.exchange.bundle.borrow().clone();
        assert_eq!(published.as_deref(), expected.then_some(bundle.as_str()));
    }
}

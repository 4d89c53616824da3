//! Ports of 127.0.0.1 that stay reserved while their server is stopped.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

use anyhow::{Context, Result};

use crate::binaries::cache_folder;

/// Below the range from which Linux picks the local ports of outgoing connections: those could take a port whose
/// server is just being restarted.
const RANGE: Range<u16> = 20_000..22_000;

/// How often a start is tried when another program takes the port first.
const STARTS: usize = 3;

/// A TCP port of 127.0.0.1 that no other testbed takes as long as this value lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// Locked: reserves the port among all test processes of this user.
    _reservation: File,
}

impl Port {
    /// Reserves a port on which nothing listens.
    pub fn reserve() -> Result<Self> {
        let folder = cache_folder()?.join("ports");
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let first = RandomState::new().hash_one(()) as usize % RANGE.len();
        for number in RANGE.cycle().skip(first).take(RANGE.len()) {
            let path = folder.join(number.to_string());
            let reservation = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .with_context(|| format!("open {}", path.display()))?;
            if reservation.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _reservation: reservation });
            }
        }
        anyhow::bail!("no free port in {RANGE:?}")
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// Runs `start` again when it failed because another program took a port between its choice and its use.
pub(crate) async fn retry_if_taken<T, Fut: Future<Output = Result<T>>>(start: impl Fn() -> Fut) -> Result<T> {
    for _ in 1..STARTS {
        match start().await {
            Err(error) if format!("{error:#}").contains("address already in use") => {
                eprintln!("testbed: starts again, a port was taken: {error:#}");
            }
            result => return result,
        }
    }
    start().await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use anyhow::anyhow;

    use super::*;

    async fn starts(error: &str) -> usize {
        let starts = Cell::new(0);
        let start = || async {
            starts.set(starts.get() + 1);
            Err::<(), _>(anyhow!("bind: {error}").context("start"))
        };
        assert!(retry_if_taken(start).await.is_err());
        starts.get()
    }

    #[tokio::test]
    async fn only_a_taken_port_is_tried_again() {
        assert_eq!(starts("address already in use").await, STARTS);
        assert_eq!(starts("permission denied").await, 1);
    }
}

//! Ports of this machine that stay reserved while their server is stopped.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;

use anyhow::{Context, Result};

use crate::binaries::cache_folder;

/// Below the range from which Linux picks the local ports of outgoing connections: those could take a port whose
/// server is just being restarted.
const RANGE: Range<u16> = 20_000..22_000;

/// How often a start is tried when another program takes the port first.
const STARTS: usize = 3;

/// A TCP port of this machine that no other testbed takes as long as this value lives.
#[derive(Debug)]
pub struct Port {
    address: Ipv4Addr,
    number: u16,
    /// Locked: reserves the port among all test processes of this user.
    _reservation: File,
}

impl Port {
    /// Reserves a port of 127.0.0.1 on which nothing listens.
    pub fn reserve() -> Result<Self> {
        let first = RandomState::new().hash_one(()) as usize % RANGE.len();
        let numbers = RANGE.cycle().skip(first).take(RANGE.len());
        Self::first_free(numbers.map(|number| (number.to_string(), (Ipv4Addr::LOCALHOST, number))))
    }

    /// Reserves this port on an address of its own, as each pod has one: all of 127.0.0.0/8 is this machine.
    pub fn of_a_pod(number: u16) -> Result<Self> {
        let random = RandomState::new();
        let addresses = (0..RANGE.len()).map(|index| {
            let [one, two, three, ..] = random.hash_one(index).to_be_bytes();
            // Neither 127.0.x.x, where other things are, nor the last of a network.
            let address = Ipv4Addr::new(127, one.clamp(1, 254), two, three.clamp(1, 254));
            (format!("{address}-{number}"), (address, number))
        });
        Self::first_free(addresses)
    }

    fn first_free(candidates: impl Iterator<Item = (String, (Ipv4Addr, u16))>) -> Result<Self> {
        let folder = cache_folder()?.join("ports");
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        for (name, (address, number)) in candidates {
            let path = folder.join(name);
            let reservation = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .with_context(|| format!("open {}", path.display()))?;
            if reservation.try_lock().is_ok() && TcpListener::bind((address, number)).is_ok() {
                return Ok(Self { address, number, _reservation: reservation });
            }
        }
        anyhow::bail!("no free port")
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Where a server on it listens.
    pub fn address(&self) -> SocketAddr {
        (self.address, self.number).into()
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

    #[test]
    fn pods_have_the_same_port_on_addresses_of_their_own() -> Result<()> {
        let ports = [Port::of_a_pod(15012)?, Port::of_a_pod(15012)?];
        let [one, other] = ports.each_ref().map(Port::address);
        assert!(one.ip().is_loopback() && one.port() == 15012);
        assert!(one.ip() != other.ip() && other.port() == 15012);
        Ok(())
    }

    #[tokio::test]
    async fn only_a_taken_port_is_tried_again() {
        assert_eq!(starts("address already in use").await, STARTS);
        assert_eq!(starts("permission denied").await, 1);
    }
}

//! Listening for both families.

use std::io::{Error, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Connections that wait to be accepted; the kernel's own limit may be lower.
const BACKLOG: i32 = 1024;

/// The kernel's buffers of a connection, one for each way; it takes twice as much for them. They count against the
/// memory limit of a container, and would grow to megabytes for a caller that sends what nobody reads.
const SOCKET_BUFFER: usize = 32 << 10;

/// Listens. `[::]` stands for every address of both families, whatever the system's default for it is; where the kernel has no
/// IPv6, for every address of IPv4. Another address is taken as it is.
pub(super) fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    listen_by(bind, address)
}

fn listen_by<T>(bind: impl Fn(SocketAddr) -> std::io::Result<T>, address: SocketAddr) -> std::io::Result<T> {
    match bind(address) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && is_without_ipv6(&error) => {
            bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
        }
        bound => bound,
    }
}

/// Linux tells it by "address family not supported"; where IPv6 is only switched off, there is no such address.
fn is_without_ipv6(error: &Error) -> bool {
    error.kind() == ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart finds the last one's connections in their last wait.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // What is accepted has the same.
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::net::TcpStream;

    use super::*;

    fn any(address: &str) -> SocketAddr {
        format!("{address}:0").parse().unwrap()
    }

    #[tokio::test]
    async fn the_unspecified_address_of_ipv6_answers_both_families() {
        let listener = listen(any("[::]")).unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let (_, caller) = listener.accept().await.unwrap();
        assert_eq!(caller.ip().to_canonical(), Ipv4Addr::LOCALHOST);
        // Where the kernel has it.
        if listener.local_addr().unwrap().is_ipv6() {
            TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.unwrap();
            assert_eq!(listener.accept().await.unwrap().1.ip(), Ipv6Addr::LOCALHOST);
        }
    }

    #[tokio::test]
    async fn another_address_is_taken_as_it_is() {
        for address in ["127.0.0.1", "0.0.0.0"] {
            let bound = listen(any(address)).unwrap().local_addr().unwrap();
            assert_eq!(bound.ip().to_string(), address);
        }
    }

    #[test]
    fn only_a_kernel_without_ipv6_makes_it_ipv4() {
        let refused = |code: i32| {
            move |address: SocketAddr| match address {
                SocketAddr::V6(_) => Err(Error::from_raw_os_error(code)),
                SocketAddr::V4(address) => Ok(SocketAddr::V4(address)),
            }
        };
        let unspecified = "[::]:8443".parse().unwrap();
        for (errno, is_ipv4) in [
            (rustix::io::Errno::AFNOSUPPORT, true),
            (rustix::io::Errno::ADDRNOTAVAIL, true),
            (rustix::io::Errno::ADDRINUSE, false),
            (rustix::io::Errno::ACCESS, false),
        ] {
            let listening = listen_by(refused(errno.raw_os_error()), unspecified).ok();
            assert_eq!(listening, is_ipv4.then(|| "0.0.0.0:8443".parse().unwrap()), "{errno}");
            assert!(listen_by(refused(errno.raw_os_error()), "[fd00::1]:8443".parse().unwrap()).is_err());
        }
    }
}

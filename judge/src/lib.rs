//! Holds the strict check against what the consumers of a mesh do with the same files: istiod's own loading and
//! signing, Go peers, ztunnel's webpki, Envoy's family of verifiers, openssl.
//!
//! ```text
//! shapes → mutations → files ─┬→ the product's check
//!                             └→ istiod → its leaves → the peers
//! ```
//! The rule: what the product accepts, no consumer refuses. The rest is a table of named departures.

mod der;
mod mutate;
mod shapes;

pub mod boring;
pub mod cases;
pub mod consumers;
pub mod make;
pub mod table;

//! What tools, people and attackers do to a sound CA.

mod certificate;
mod der;
mod files;

use fastrand::Rng;

pub(crate) use der::edit;
pub(crate) use files::{Files, mutate as files};

use crate::make::Keys;
use crate::shapes::{Spec, pick};

/// Changes certificates before they are made. What was done.
pub(crate) fn certificates(rng: &mut Rng, keys: &Keys, spec: &mut Spec) -> String {
    let shown: Vec<usize> = spec.roots.iter().chain(&spec.chain).chain(&spec.ca).copied().collect();
    let target = *pick(rng, &shown);
    let place = if spec.ca.contains(&target) {
        "signing CA"
    } else if spec.roots.contains(&target) {
        "root"
    } else {
        "other"
    };
    let what = match rng.u8(0..10) {
        0..4 => certificate::extension(rng, keys, spec, target),
        4..7 => certificate::field(rng, keys, spec, target),
        _ => {
            spec.certs[target].edits.push(rng.u64(..));
            "der".to_owned()
        }
    };
    format!("{what} of {place}")
}

//! What a record of the signing kind trusts: its roots, and the one that is certified by another.

use std::time::Duration;

use jiff::Timestamp;

use super::super::bundle::{Glance, ROOT_CERT};
use super::super::certificate::Certificate;
use super::super::flaw::{At, Flaw, Until};
use super::super::pem::{Der, certificates};
use super::{CHAIN, Cross};

/// How long a rotation may take where the record does not say it: leaves of a day, and as much again for its waits.
const ROTATION: Duration = Duration::from_secs(2 * 24 * 3600);

#[derive(Clone, Debug)]
pub(super) struct Anchors {
    pub(super) glance: Glance,
    pub(super) usable_until: Until,
    pub(super) cross: Option<Cross>,
}

impl Anchors {
    /// `ttl`: of workloads' certificates, where a rotation is under way.
    pub(super) fn check(roots: &[u8], chain: &[u8], ttl: Option<Duration>, now: Timestamp) -> Result<Self, Flaw> {
        let roots = read(ROOT_CERT, roots)?;
        let roots = roots.iter().map(|(at, der)| Certificate::parse(*at, der)).collect::<Result<Vec<_>, _>>()?;
        let crosses = if chain.is_empty() { Vec::new() } else { read(CHAIN, chain)? };
        if let Some((second, _)) = crosses.get(1) {
            return Err(Flaw::NoCross(*second));
        }
        let cross = crosses.first().map(|(at, der)| Certificate::parse(*at, der)).transpose()?;

        roots.iter().try_for_each(|root| check_root(root, cross.is_some()))?;
        let lasts = ttl.map_or(ROTATION, |ttl| ttl.saturating_mul(2));
        check_pairs(&roots, now.saturating_add(lasts).unwrap_or(Timestamp::MAX))?;
        let last = roots.iter().max_by_key(|root| root.valid_until()).ok_or(Flaw::NoCertificate(ROOT_CERT))?;
        last.check_time(now).or_else(|flaw| {
            let is_valid = roots.iter().any(|root| root.check_time(now).is_ok());
            if is_valid { Ok(()) } else { Err(flaw) }
        })?;
        Ok(Self {
            cross: cross.map(|cross| check_cross(&cross, &roots)).transpose()?,
            usable_until: Until { at: last.valid_until(), by: last.at },
            glance: Glance::of(&roots[0].x509, roots.iter().map(|root| root.sha256).collect()),
        })
    }
}

fn read(file: &'static str, pem: &[u8]) -> Result<Vec<(At, Der)>, Flaw> {
    let ders = certificates(file, pem, usize::MAX)?.ders;
    Ok((1..).map(|position| At { file, position }).zip(ders).collect())
}

/// A root has to be one, with room for what is to be beneath it.
fn check_root(root: &Certificate<'_>, has_cross: bool) -> Result<(), Flaw> {
    if root.is_damaged() {
        return Err(Flaw::Damaged(root.at));
    }
    if !root.is_self_issued() {
        return Err(Flaw::NoRoot(root.at));
    }
    root.check_ca(true)?;
    let beneath = if has_cross { 2 } else { 1 };
    if root.path_length().is_some_and(|most| most < beneath) { Err(Flaw::PathLength(root.at)) } else { Ok(()) }
}

/// Peers that go step by step have to be able to tell roots apart, whatever their order, which nobody controls.
fn check_pairs(roots: &[Certificate<'_>], lasts: Timestamp) -> Result<(), Flaw> {
    for (index, one) in roots.iter().enumerate() {
        for other in roots[index + 1..].iter().filter(|other| other.sha256 != one.sha256) {
            if one.has_key_of(other) {
                if one.valid_until().min(other.valid_until()) < lasts {
                    return Err(Flaw::OneKey(one.at, other.at));
                }
            } else if one.has_name_of(other) && one.same_identifier(other) != Some(false) {
                return Err(Flaw::Ambiguous(one.at, other.at));
            }
        }
    }
    Ok(())
}

fn check_cross(cross: &Certificate<'_>, roots: &[Certificate<'_>]) -> Result<Cross, Flaw> {
    let of = roots.iter().find(|root| cross.is_same_ca(root) && cross.same_identifier(root) == Some(true));
    let by = roots.iter().find(|root| root.issued(cross));
    let (Some(of), Some(by), false) = (of, by, cross.is_self_issued()) else {
        return Err(Flaw::NoCross(cross.at));
    };
    cross.check_ca(false)?;
    if cross.path_length() == Some(0) {
        return Err(Flaw::PathLength(cross.at));
    }
    Ok(Cross { of: of.sha256, by: by.sha256 })
}

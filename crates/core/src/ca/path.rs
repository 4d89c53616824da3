//! The ways from a workload's certificate to the roots, as Envoy and OpenSSL take them: step by step, never back, by
//! names and key identifiers, trusted certificates first. Go and webpki look for any way, so that they take these, too.

use super::certificate::{Certificate, Wanted};
use super::flaw::Flaw;
use super::names;

/// How many ways there may be: they part only where a CA is in the bundle more than once.
const MAX_PATHS: usize = 32;

/// From the signing CA on, up to one that is trusted and has no issuer that is.
pub(super) type Path<'a> = Vec<&'a Certificate<'a>>;

/// A bundle's certificates.
pub(super) struct Files<'a> {
    pub(super) roots: &'a [Certificate<'a>],
    pub(super) chain: &'a [Certificate<'a>],
    pub(super) ca: &'a Certificate<'a>,
}

impl<'a> Files<'a> {
    /// All ways that a peer may take, each of which everybody accepts, but for the time.
    ///
    /// # Errors
    /// Why there is one that somebody refuses.
    pub(super) fn paths(&self) -> Result<Vec<Path<'a>>, Flaw> {
        let is_in = |file: &[Certificate<'_>]| file.iter().any(|one| one.sha256 == self.ca.sha256);
        if !is_in(self.roots) && !is_in(self.chain) {
            return Err(Flaw::ChainLacksCa);
        }
        let mut found = Vec::new();
        self.walk(&mut Vec::new(), &mut found)?;
        found.iter().try_for_each(|path| check(path, self.roots))?;
        self.ca.check_ca(self.is_trusted(self.ca))?;
        self.check_start()?;
        Ok(found)
    }

    /// Goes on behind `path`, to all that a peer may take next.
    fn walk(&self, path: &mut Path<'a>, found: &mut Vec<Path<'a>>) -> Result<(), Flaw> {
        let last = path.last().copied();
        if last.is_some_and(|last| last.is_self_issued() && self.is_trusted(last)) {
            return keep(path, found);
        }
        let wanted = last.map_or_else(|| Wanted::by(self.ca), Wanted::of);
        let mut trusted: Vec<&Certificate<'_>> = Vec::new();
        for root in self.roots.iter().filter(|root| root.fits(&wanted)) {
            if !trusted.iter().any(|other| other.sha256 == root.sha256) {
                trusted.push(root);
            }
        }
        if trusted.is_empty() && last.is_some_and(|last| self.is_trusted(last)) {
            return keep(path, found);
        }
        let (candidates, is_choice) = match self.chain.iter().find(|one| one.fits(&wanted)) {
            _ if !trusted.is_empty() => (trusted, true),
            Some(first) => (vec![first], false),
            None => return Err(self.no_issuer(last)),
        };
        for candidate in &candidates {
            self.check_issuer(last, candidate, &candidates)?;
            if !is_choice && candidate.is_self_issued() {
                return Err(Flaw::DeadEnd(candidate.at));
            }
            if path.iter().any(|one| one.sha256 == candidate.sha256) {
                return Err(Flaw::NoPath);
            }
            path.push(candidate);
            self.walk(path, found)?;
            path.pop();
        }
        Ok(())
    }

    fn is_trusted(&self, one: &Certificate<'_>) -> bool {
        self.roots.iter().any(|root| root.sha256 == one.sha256)
    }

    /// Whether what fits by name and key identifiers is what signed.
    fn check_issuer(
        &self,
        last: Option<&Certificate<'_>>,
        candidate: &Certificate<'_>,
        all: &[&Certificate<'_>],
    ) -> Result<(), Flaw> {
        let signed = |one: &Certificate<'_>| last.map_or(one.is_same_ca(self.ca), |last| one.issued(last));
        if signed(candidate) {
            return Ok(());
        }
        let right = all.iter().copied().chain(self.chain).find(|one| signed(one));
        match right {
            Some(right) => Err(Flaw::Ambiguous(candidate.at, right.at)),
            None => Err(last.and_then(Certificate::weak_signature).unwrap_or(Flaw::NoPath)),
        }
    }

    fn no_issuer(&self, last: Option<&Certificate<'_>>) -> Flaw {
        let Some(last) = last else { return Flaw::ChainLacksCa };
        // There, but said to be another.
        let unknown = self.roots.iter().chain(self.chain).find(|one| one.signed(last));
        unknown.map_or(Flaw::NoPath, |issuer| Flaw::KeyIdentifiers(last.at, issuer.at))
    }

    /// istiod's own start: from the signing CA it looks for any way, through no CA twice.
    fn check_start(&self) -> Result<(), Flaw> {
        let mut met = vec![self.ca];
        let mut next = 0;
        while let Some(last) = met.get(next).copied() {
            if self.is_trusted(last) {
                return Ok(());
            }
            next += 1;
            for issuer in self.roots.iter().chain(self.chain) {
                if !met.iter().any(|one| one.is_same_ca(issuer)) && issuer.issued(last) {
                    met.push(issuer);
                }
            }
        }
        Err(Flaw::NoPath)
    }
}

fn keep<'a>(path: &Path<'a>, found: &mut Vec<Path<'a>>) -> Result<(), Flaw> {
    if found.len() == MAX_PATHS {
        return Err(Flaw::Ambiguous(found[0].last().map_or(path[0].at, |one| one.at), path[path.len() - 1].at));
    }
    found.push(path.clone());
    Ok(())
}

/// What everybody asks of a path, but for the time.
fn check(path: &Path<'_>, roots: &[Certificate<'_>]) -> Result<(), Flaw> {
    for (beneath, one) in path.iter().enumerate() {
        let is_trusted = roots.iter().any(|root| root.sha256 == one.sha256);
        one.check_ca(is_trusted)?;
        // As Go counts: self-issued ones, too, and also for a root.
        if one.path_length().is_some_and(|most| beneath > most as usize) {
            return Err(Flaw::PathLength(one.at));
        }
    }
    names::check(path)
}

/// The trusted certificate that a path leads to.
pub(super) fn end<'a>(path: &Path<'a>) -> Option<&'a Certificate<'a>> {
    path.last().copied()
}

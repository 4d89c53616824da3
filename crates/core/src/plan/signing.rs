//! The rows of the convergence table for a record of the signing kind: each cluster has a signer of its own, certified
//! by the issuer that the record names.

use std::sync::Arc;

use super::{Copy, OnRootChange, Owner, Published, Situation, Step};
use crate::ca::Sha256;
use crate::ca::bundle::{Beside, Bundle, TLS_CRT};
use crate::ca::check::{Flaw, Sound, check};
use crate::ca::record::{IssuerName, SigningRecord};
use crate::ca::signer::{Asked, SignerFlaw, SignerKey, SignerTerms, certified, common_name, issuing_root, renewal_due};
use crate::reason::{ByItself, Held, Reason};

impl Situation<'_> {
    pub(super) fn with_record(&self, version: u64, record: &Arc<SigningRecord>, published: &Published) -> Step {
        if let Some(pin) = self.pin.filter(|_| self.halts())
            && self.stored.departure(pin).is_some()
        {
            return Step::Hold(self.changed_in_vault(pin.root, record.glance().sha256));
        }
        let Published::Present(copy) = published else {
            return self.certify(version, record, None, None);
        };
        let same_roots = |sound: &Sound| sound.roots() == record.roots();
        match (&copy.owner, &copy.verdict) {
            (Owner::ExternalSecrets(_), Ok(sound)) if same_roots(sound) => open(version, sound),
            (Owner::ExternalSecrets(name), _) => {
                Step::ForceSync { external_secret: name.clone(), held: self.managed_elsewhere() }
            }
            (Owner::Ours, _) => self.with_ours(version, record, copy),
            (Owner::Other, Err(flaw)) => Step::Hold(self.invalid(flaw)),
            (Owner::Other, Ok(sound)) if same_roots(sound) => open(version, sound),
            (Owner::Other, Ok(sound)) if self.halts() => {
                Step::Hold(self.changed_in_cluster(sound, record.glance().sha256))
            }
            (Owner::Other, Ok(_)) => self.certify(version, record, Some(copy), None),
        }
    }

    fn with_ours(&self, version: u64, record: &Arc<SigningRecord>, copy: &Copy) -> Step {
        let sound = copy.verdict.as_ref().ok();
        let Some(sound) = sound.filter(|sound| is_published(record, sound, copy)) else {
            return self.certify(version, record, Some(copy), None);
        };
        // Without an issuer or a PKI engine there is nobody to renew it, and it is no worse for that.
        let is_due = self.signer.is_some_and(|terms| self.now >= renewal_due(&sound.signing_ca, &terms.cluster));
        if is_due && record.issuer.is_some() && !copy.immutable {
            return self.certify(version, record, Some(copy), Some(sound));
        }
        open(version, sound)
    }

    /// Have a signer certified. `renews`: what stays in use meanwhile.
    fn certify(
        &self,
        version: u64,
        record: &Arc<SigningRecord>,
        over: Option<&Copy>,
        renews: Option<&Arc<Sound>>,
    ) -> Step {
        match over {
            Some(Copy { verdict: Err(flaw @ Flaw::Foreign(_)), .. }) => return Step::Hold(self.invalid(flaw)),
            Some(Copy { beside: Beside { tls: true, .. }, .. }) => {
                return Step::Hold(self.invalid(&Flaw::Foreign(TLS_CRT)));
            }
            Some(copy) if copy.immutable => return Step::Hold(self.immutable()),
            _ => {}
        }
        let (Some(issuer), Some(terms)) = (record.issuer.clone(), self.signer) else {
            return self.without_signing(version, record, over);
        };
        let ours = over.filter(|copy| copy.owner == Owner::Ours);
        let name = common_name(&terms.cluster);
        let key = ours.and_then(files).and_then(|files| SignerKey::kept(files, &name)).map(Arc::new);
        Step::Certify { version, record: Arc::clone(record), issuer, key, renews: renews.map(Arc::clone) }
    }

    /// Nobody certifies: the signer that there is gets the record's roots, if it can be used with them.
    fn without_signing(&self, version: u64, record: &Arc<SigningRecord>, over: Option<&Copy>) -> Step {
        // Who cannot attest is not waited for.
        let may = record.issuer.is_none() && self.signer.is_some();
        let ours = over.filter(|copy| copy.owner == Owner::Ours && may);
        let Some(files) = ours.and_then(files) else {
            return Step::Hold(self.nobody_signs(record));
        };
        let bundle = Bundle { root_cert: record.root_cert.clone(), beside: Beside::default(), ..files.clone() };
        match check(bundle, self.now) {
            Ok(sound) => self.publish_signer(version, record, sound),
            Err(flaw) => Step::Hold(self.nobody_signs(record).because(flaw.to_string())),
        }
    }

    fn publish_signer(&self, version: u64, record: &SigningRecord, sound: Sound) -> Step {
        match self.published.check_over(&sound) {
            Ok(()) => Step::Publish { version, sound: Arc::new(sound), state: Some(record.state()) },
            Err(flaw) => Step::Hold(self.invalid(&flaw)),
        }
    }

    /// Whether signers may be certified by this issuer, whose certificate Vault has told: the record trusts it, and so
    /// does this cluster, or the cross that goes with them.
    ///
    /// # Errors
    /// The hold.
    pub fn issuing(&self, record: &SigningRecord, issuer: &str) -> Result<Sha256, Held> {
        let root = issuing_root(record, issuer).map_err(|flaw| self.unfit(record, &flaw))?;
        let Some(pin) = self.pin.filter(|_| self.halts()) else { return Ok(root) };
        let is_trusted = pin.roots.contains(&root) || record.cross().is_some_and(|cross| pin.roots.contains(&cross.by));
        if is_trusted { Ok(root) } else { Err(self.signs_too_early(pin.root, root)) }
    }

    /// What to do with what Vault has certified.
    pub fn certified(
        &self,
        version: u64,
        record: &SigningRecord,
        issuer: Sha256,
        answer: &str,
        key: &SignerKey,
        terms: &SignerTerms,
    ) -> Step {
        let name = common_name(&terms.cluster);
        let asked = Asked { key, common_name: &name, life: terms.life, at: self.now };
        match certified(record, issuer, answer, &asked) {
            Ok(sound) => self.publish_signer(version, record, sound),
            Err(flaw) => Step::Hold(self.unfit(record, &flaw)),
        }
    }

    fn halts(&self) -> bool {
        self.on_root_change == OnRootChange::Halt
    }

    fn unfit(&self, record: &SigningRecord, flaw: &SignerFlaw) -> Held {
        let issuer = record.issuer.as_ref().map_or("", IssuerName::as_str);
        Held::new(
            Reason::SigningRefused,
            format!("what issuer {issuer} of Vault's PKI engine gives for this cluster's signer is not to be used"),
            flaw.remedy(),
            ByItself::TriedAgain,
        )
        .because(flaw.to_string())
    }

    fn nobody_signs(&self, record: &SigningRecord) -> Held {
        let name = &self.names.record;
        if record.issuer.is_none() && self.signer.is_some() {
            return Held::new(
                Reason::SigningRefused,
                format!("Vault's record {name} names no issuer yet, and this cluster has no signer"),
                "go on with `istio-ca-gate rotate rescue`, which makes one",
                ByItself::ReadAgain,
            );
        }
        Held::new(
            Reason::SigningRefused,
            format!("Vault's record {name} is of the signing kind, and this gate knows of no PKI engine"),
            "set --vault-pki-mount (GATE_VAULT_PKI_MOUNT)",
            ByItself::Unsaid,
        )
    }
}

fn open(version: u64, published: &Arc<Sound>) -> Step {
    Step::Open { version, stored: Arc::clone(published.facts()), published: Arc::clone(published), other_bytes: false }
}

fn files(copy: &Copy) -> Option<&Bundle> {
    copy.verdict.as_ref().ok().map(|sound| &*sound.bundle).or(copy.unsound.as_deref())
}

/// Whether it is what the record wants, byte for byte: a running istiod takes nothing else live. With an issuer, its
/// signer has to be certified for this very state, so that whoever shows it has these roots.
fn is_published(record: &SigningRecord, sound: &Sound, copy: &Copy) -> bool {
    let files = &sound.bundle;
    let has_roots = !files.beside.tls && files.root_cert == record.root_cert;
    if record.issuer.is_none() {
        return has_roots;
    }
    has_roots
        && !sound.signs_with_the_root()
        && files.cert_chain == [files.ca_cert.as_slice(), &record.chain].concat()
        && copy.annotated_state == Some(record.state())
}

#[cfg(test)]
mod tests;

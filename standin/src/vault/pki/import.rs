//! Bringing an issuer and its key along.

use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::{Map, Value, json};
use x509_parser::pem::Pem;

use super::super::asked::Asked;
use super::super::moment::Moment;
use super::super::reply::{Refusal, Said};
use super::issuer::{Issuer, Key};
use super::{NO_AIA, Pki, request, x509};

/// Shorter texts are taken for a path.
const SHORTEST: usize = 75;

/// Ids of what was there, and of what came. Without any, null.
#[derive(Default)]
struct Ids {
    existing: Vec<String>,
    imported: Vec<String>,
}

impl Ids {
    fn show(ids: &[String]) -> Value {
        if ids.is_empty() { Value::Null } else { json!(ids) }
    }
}

impl Pki {
    /// Takes certificates and keys. What is there already stays as it is.
    pub(super) fn import(&mut self, moment: &Moment, asked: &Asked) -> Result<Said, Refusal> {
        let bundle = asked.text("pem_bundle");
        match bundle.len() {
            0 => return Err(Refusal::bad("'pem_bundle' and 'certificate' parameters were empty")),
            1..SHORTEST => {
                return Err(Refusal::bad(
                    "provided data for import was too short; perhaps a path was passed to the API rather than the contents of a PEM file",
                ));
            }
            _ => {}
        }
        let blocks: Vec<_> = Pem::iter_from_buffer(bundle.as_bytes()).filter_map(Result::ok).collect();
        if blocks.is_empty() {
            return Err(Refusal::bad("provided PEM block contained no data"));
        }
        let mut keys = Ids::default();
        for (nth, block) in blocks.iter().enumerate().filter(|(_, block)| block.label.ends_with("PRIVATE KEY")) {
            self.import_key(moment.nth_uuid(nth), block, &mut keys)?;
        }
        let (mut issuers, mut mapping) = (Ids::default(), Map::new());
        for (nth, block) in blocks.iter().enumerate().filter(|(_, block)| block.label == "CERTIFICATE") {
            let (id, key) = self.import_certificate(moment.nth_uuid(nth), block, &mut issuers)?;
            mapping.insert(id, json!(key));
        }
        let data = json!({
            "existing_issuers": Ids::show(&issuers.existing), "existing_keys": Ids::show(&keys.existing),
            "imported_issuers": Ids::show(&issuers.imported), "imported_keys": Ids::show(&keys.imported),
            "mapping": mapping,
        });
        Ok(Said::Told(data, vec![NO_AIA.to_owned()]))
    }

    fn import_key(&mut self, id: String, block: &Pem, ids: &mut Ids) -> Result<(), Refusal> {
        let der = rustls::pki_types::PrivateKeyDer::try_from(block.contents.as_slice()).map_err(request::unfit)?;
        let pair = KeyPair::try_from(&der).map_err(request::unfit)?;
        match self.keys.iter().find(|key| key.pair.der_bytes() == pair.der_bytes()) {
            Some(known) => ids.existing.push(known.id.clone()),
            None => {
                ids.imported.push(id.clone());
                self.keys.push(Key::new(id, pair));
            }
        }
        Ok(())
    }

    /// The id of the issuer, and that of its key.
    fn import_certificate(&mut self, id: String, block: &Pem, ids: &mut Ids) -> Result<(String, String), Refusal> {
        if let Some(known) = self.issuers.values_mut().find(|issuer| issuer.der == block.contents) {
            // Its key may come later.
            let its = |key: &&Key| key.pair.der_bytes() == known.facts.public_key;
            known.key_id = self.keys.iter().find(its).map(|key| key.id.clone());
            ids.existing.push(known.id.clone());
            return Ok((known.id.clone(), known.key_id.clone().unwrap_or_default()));
        }
        let facts = x509::facts_of(&block.contents).map_err(request::unfit)?;
        let key = self.keys.iter().find(|key| key.pair.der_bytes() == facts.public_key).cloned();
        let pem = x509::pem(&block.contents);
        let issuer = Issuer::new(id.clone(), String::new(), &pem, key.as_ref()).map_err(request::unfit)?;
        ids.imported.push(id.clone());
        self.add(issuer);
        Ok((id, key.map(|key| key.id).unwrap_or_default()))
    }
}

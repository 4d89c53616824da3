//! What there is to be judged, in the shapes that people have it in. No error repeats what was read: it may be a key.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::ca::bundle::{
    Bundle, CA_CERT, CA_CRT, CA_KEY, CERT_CHAIN, CRL, GENERATED, KEY, ROOT_CERT, TLS_CRT, TLS_KEY,
};
use crate::ca::check::Flaw;
use crate::ca::record::SigningRecord;
use crate::cli::source;

/// What istiod reads of its Secret, and what Vault's record has.
const NAMES: [&str; 10] = [ROOT_CERT, CERT_CHAIN, CA_CERT, CA_KEY, KEY, CRL, TLS_CRT, TLS_KEY, CA_CRT, GENERATED];

/// Base64 of the largest bundle, with room for what surrounds it in an object.
const MAX_OBJECT: usize = 1 << 20;

/// Why it is not known whether a CA is sound.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub(super) cause: String,
    pub(super) remedy: String,
}

impl Unreadable {
    fn new(cause: impl Into<String>, remedy: &str) -> Self {
        Self { cause: cause.into(), remedy: remedy.to_owned() }
    }

    fn shape() -> Self {
        Self::new(
            "it is neither a Secret nor a record of Vault",
            "give a folder of the four files, `kubectl get secret -o yaml`, or `vault kv get -format=json`",
        )
    }
}

/// What a place has.
pub(super) enum Given {
    /// A CA's files.
    Files(Bundle),
    /// A record of the signing kind, which has no CA.
    Signing(Map<String, Value>),
}

/// Reads one place: its name, and what is in it.
pub(super) async fn read(path: &Path) -> (String, Result<Result<Given, Flaw>, Unreadable>) {
    if path == Path::new("-") {
        let read = source::stdin_of(MAX_OBJECT).await;
        let object =
            read.map_err(|why| Unreadable::new(why.sentence, "give a file or a pipe")).and_then(|it| object(&it));
        return ("standard input".to_owned(), object);
    }
    let place = path.display().to_string();
    if path.is_dir() {
        return (place, folder(path).await);
    }
    let read = source::file_of(path, MAX_OBJECT).await;
    let read = read.map_err(|why| Unreadable::new(why.sentence, "check the path and your rights"));
    (place, read.and_then(|it| object(&it)))
}

/// The files of a folder by their names, as a Secret is mounted, or as Vault's record was made of.
async fn folder(path: &Path) -> Result<Result<Given, Flaw>, Unreadable> {
    let mut files: Vec<(&str, Zeroizing<Vec<u8>>)> = Vec::new();
    for name in NAMES {
        let file = path.join(name);
        if file.exists() {
            let read = source::file_of(&file, MAX_OBJECT).await;
            files.push((name, read.map_err(|why| Unreadable::new(why.sentence, "check your rights"))?));
        }
    }
    if files.is_empty() {
        let remedy = "give the folder with root-cert.pem, cert-chain.pem, ca-cert.pem and ca-key.pem";
        return Err(Unreadable::new("none of the four files is there", remedy));
    }
    Ok(bundle(files.iter().map(|(name, bytes)| (*name, bytes.as_slice()))).map(Given::Files))
}

/// A Secret's JSON or YAML, or a record's JSON.
fn object(text: &[u8]) -> Result<Result<Given, Flaw>, Unreadable> {
    if text.len() > MAX_OBJECT {
        return Err(Unreadable::new(format!("it has more than {MAX_OBJECT} bytes"), "give one Secret or record"));
    }
    let text = std::str::from_utf8(text).map_err(|_| Unreadable::shape())?;
    let value: Value = serde_json::from_str(text)
        .or_else(|_| serde_saphyr::from_str(text).map_err(|_| Unreadable::shape()))
        .map_err(|_: Unreadable| Unreadable::shape())?;
    match value.get("kind").and_then(Value::as_str) {
        Some("Secret") => secret(&value),
        Some(_) => Err(Unreadable::shape()),
        None => record(&value),
    }
}

fn secret(value: &Value) -> Result<Result<Given, Flaw>, Unreadable> {
    let mut files: Vec<(&str, Zeroizing<Vec<u8>>)> = Vec::new();
    for (name, text) in value.get("data").and_then(Value::as_object).into_iter().flatten() {
        let decoded = text.as_str().and_then(|text| STANDARD.decode(text).ok());
        let bytes = decoded.ok_or_else(|| {
            Unreadable::new(format!("data.{name:.40} is not base64"), "put plain text into stringData instead")
        })?;
        files.push((name, Zeroizing::new(bytes)));
    }
    for (name, text) in value.get("stringData").and_then(Value::as_object).into_iter().flatten() {
        files.retain(|(there, _)| there != name);
        files.push((name, Zeroizing::new(text.as_str().unwrap_or_default().as_bytes().to_vec())));
    }
    Ok(Bundle::from_secret(files.iter().map(|(name, bytes)| (*name, bytes.as_slice()))).map(Given::Files))
}

/// As Vault answers, as its command line prints it, or the data alone.
fn record(value: &Value) -> Result<Result<Given, Flaw>, Unreadable> {
    let data = ["/data/data", "/data", ""].into_iter().filter_map(|at| value.pointer(at)?.as_object());
    let is_ours = |data: &&Map<String, Value>| NAMES.iter().any(|name| data.contains_key(*name));
    let data = data.into_iter().find(is_ours).ok_or_else(Unreadable::shape)?;
    if SigningRecord::is_signing(data) {
        return Ok(Ok(Given::Signing(data.clone())));
    }
    Ok(Bundle::from_record(data).map(Given::Files))
}

/// A folder with key.pem and without ca-key.pem is a record's, whose signing CA is cert-chain.pem.
fn bundle<'a>(files: impl Iterator<Item = (&'a str, &'a [u8])> + Clone) -> Result<Bundle, Flaw> {
    let has = |name: &str| files.clone().any(|(there, _)| there == name);
    if has(KEY) && !has(CA_KEY) && !has(TLS_CRT) {
        let text = |bytes: &[u8]| Value::String(String::from_utf8_lossy(bytes).into_owned());
        return Bundle::from_record(&files.map(|(name, bytes)| (name.to_owned(), text(bytes))).collect());
    }
    Bundle::from_secret(files)
}

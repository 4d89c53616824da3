//! A request as Vault reads it.

use http::Method;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::fields;
use super::reply::Refusal;
use crate::wire::Request;

/// What a request wants done. A write is an update until it is known that nothing is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Read,
    List,
    Create,
    Update,
    Patch,
    Delete,
}

/// A request as Vault reads it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) operation: Operation,
    /// That below `/v1/`. One that lists ends in a slash.
    pub(super) path: String,
    /// The body, or the query.
    pub(super) data: Map<String, Value>,
    /// Empty: none.
    pub(super) token: String,
}

impl Asked {
    /// The path below a mount, for whoever is mounted there.
    pub(super) fn below(&self, mount: &str) -> Self {
        let path = self.path.strip_prefix(mount).unwrap_or_default().to_owned();
        Self { path, ..self.clone() }
    }

    pub(super) fn is_write(&self) -> bool {
        matches!(self.operation, Operation::Create | Operation::Update)
    }

    pub(super) fn get(&self, field: &str) -> Option<&Value> {
        self.data.get(field).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, field: &str) -> &str {
        self.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn int(&self, field: &str) -> Result<Option<i64>, Refusal> {
        self.field(field, fields::int, |text| {
            format!("cannot parse '' as int: strconv.ParseInt: parsing {text:?}: invalid syntax")
        })
    }

    pub(super) fn flag(&self, field: &str) -> Result<Option<bool>, Refusal> {
        self.field(field, fields::flag, |text| {
            format!("cannot parse '' as bool: strconv.ParseBool: parsing {text:?}: invalid syntax")
        })
    }

    pub(super) fn seconds(&self, field: &str) -> Result<Option<i64>, Refusal> {
        self.field(field, fields::seconds, |text| format!("time: invalid duration {text:?}"))
    }

    pub(super) fn strings(&self, field: &str) -> Result<Option<Vec<String>>, Refusal> {
        self.field(field, fields::strings, |text| format!("cannot parse as list: {text:?}: invalid syntax"))
    }

    fn field<T>(
        &self,
        field: &str,
        parse: fn(&Value) -> Option<T>,
        error: fn(&str) -> String,
    ) -> Result<Option<T>, Refusal> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let problem = || format!("error converting input for field {field:?}: {}", error(&text));
        parse(value).map(Some).ok_or_else(|| Refusal::bad(problem()))
    }
}

/// Reads a request whose path is below `/v1/`.
pub(super) fn read(request: &Request, path: &str) -> Result<Asked, Refusal> {
    let mut path = percent_decode_str(path).decode_utf8_lossy().into_owned();
    let mut data = query(request.uri.query().unwrap_or_default());
    let operation = match request.method.as_str() {
        "GET" if is_listing(&mut data)? => Operation::List,
        "GET" => Operation::Read,
        "LIST" => Operation::List,
        "DELETE" => Operation::Delete,
        "POST" | "PUT" => Operation::Update,
        "PATCH" => Operation::Patch,
        _ => return Err(Refusal::silent(405)),
    };
    if operation == Operation::List && !path.ends_with('/') {
        path.push('/');
    }
    if operation == Operation::Patch {
        merge_patch_only(request)?;
    }
    if matches!(operation, Operation::Update | Operation::Patch) {
        data = body(&request.method, &request.body)?;
    }
    Ok(Asked { operation, path, data, token: token(request) })
}

fn is_listing(data: &mut Map<String, Value>) -> Result<bool, Refusal> {
    match data.remove("list").as_ref().map(fields::flag) {
        None => Ok(false),
        Some(Some(listing)) => Ok(listing),
        Some(None) => Err(Refusal::silent(400)),
    }
}

fn query(text: &str) -> Map<String, Value> {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.map(|(name, value)| (decode(name), Value::String(decode(value)))).collect()
}

fn body(method: &Method, text: &[u8]) -> Result<Map<String, Value>, Refusal> {
    if text.is_empty() {
        return Ok(Map::new());
    }
    let unfit = |problem: &str| match *method {
        Method::PATCH => Refusal::bad("error parsing JSON"),
        _ => Refusal::bad(format!("error parsing JSON: failed to parse JSON input: {problem}")),
    };
    match serde_json::from_slice(text) {
        Ok(Value::Object(data)) => Ok(data),
        Ok(_) => Err(unfit("json: cannot unmarshal into Go value of type map[string]interface {}")),
        Err(error) if error.is_eof() => Err(Refusal::new(500, "malformed JSON, unclosed containers")),
        Err(error) => Err(unfit(&error.to_string())),
    }
}

/// A patch is a JSON merge patch, and has to say so.
fn merge_patch_only(request: &Request) -> Result<(), Refusal> {
    const MERGE_PATCH: &str = "application/merge-patch+json";
    let kind = request.header(CONTENT_TYPE).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    match kind {
        MERGE_PATCH => Ok(()),
        "" => Err(Refusal::new(400, "mime: no media type")),
        _ => Err(Refusal::new(415, format!("PATCH requires Content-Type of {MERGE_PATCH}, provided {kind}"))),
    }
}

fn token(request: &Request) -> String {
    let bearer = || request.header(AUTHORIZATION)?.strip_prefix("Bearer ");
    let token = request.header("x-vault-token").filter(|token| !token.is_empty()).or_else(bearer);
    token.unwrap_or_default().trim().to_owned()
}

//! Answers that may be of any size: of a list one item at a time is held, whatever others have put into them.

use http::Request;
use http_body_util::{BodyExt, Limited};
use kube::Client;
use kube::client::Body;
use kube::core::Status;
use memchr::memchr2;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

/// Largest refusal that is read.
const REFUSAL_MAX: usize = 64 << 10;

/// Largest object that is looked at. The API server's own end at 3 MiB.
const OBJECT_MAX: usize = 4 << 20;

/// Largest answer but for its items.
const REST_MAX: usize = 64 << 10;

/// Longest key of a list that is told apart from others.
const KEY_MAX: usize = 16;

/// Marks a request whose answer may be of any size.
#[derive(Clone)]
pub(super) struct Streamed;

/// The answer to a request, unless it is a refusal.
async fn open(client: &Client, request: Request<Vec<u8>>) -> kube::Result<Body> {
    let mut request = request.map(Body::from);
    request.extensions_mut().insert(Streamed);
    let answer = client.send(request).await?;
    let (status, body) = (answer.status(), answer.into_body());
    if status.is_success() {
        return Ok(body);
    }
    let told = Limited::new(body, REFUSAL_MAX).collect().await.map_err(kube::Error::Service)?.to_bytes();
    let told = serde_json::from_slice(&told).unwrap_or_else(|_| Status::failure("", "").with_code(status.as_u16()));
    Err(kube::Error::Api(Box::new(told)))
}

/// An object, of which a few fields are looked at.
pub(super) async fn object<T: DeserializeOwned>(client: &Client, request: Request<Vec<u8>>) -> kube::Result<T> {
    let body = Limited::new(open(client, request).await?, OBJECT_MAX);
    let read = body.collect().await.map_err(kube::Error::Service)?.to_bytes();
    serde_json::from_slice(&read).map_err(kube::Error::SerdeError)
}

/// A page of a list: has `on` look at each of its items, and tells where the next page begins.
pub(super) async fn items<T: DeserializeOwned>(
    client: &Client,
    request: Request<Vec<u8>>,
    mut on: impl FnMut(T),
) -> kube::Result<Option<String>> {
    let mut body = open(client, request).await?;
    let mut split = Split::default();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        split.push(&data, |item| serde_json::from_slice(item).map(&mut on)).map_err(kube::Error::SerdeError)?;
    }
    let List { metadata, .. } = serde_json::from_slice(&split.rest).map_err(kube::Error::SerdeError)?;
    Ok(metadata.unwrap_or_default().next.filter(|token| !token.is_empty()))
}

/// What is left of a list without its items.
#[derive(Deserialize)]
struct List {
    metadata: Option<Metadata>,
    #[serde(rename = "items")]
    _items: IgnoredAny,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(rename = "continue")]
    next: Option<String>,
}

/// Takes the objects out of the array `items` of a JSON object that comes piece by piece. What it makes of something else
/// is not JSON either, and is found out by whoever parses it.
#[derive(Default)]
struct Split {
    depth: usize,
    in_string: bool,
    is_escaped: bool,
    /// The last string of the outermost object: before an array, its key.
    key: Vec<u8>,
    in_items: bool,
    item: Vec<u8>,
    rest: Vec<u8>,
}

impl Split {
    fn push(
        &mut self,
        mut bytes: &[u8],
        mut on: impl FnMut(&[u8]) -> serde_json::Result<()>,
    ) -> serde_json::Result<()> {
        while !bytes.is_empty() {
            let was_in_item = self.in_item();
            let piece = if self.in_string { self.string(&mut bytes) } else { self.structure(&mut bytes) };
            let begins = !was_in_item && self.in_item();
            let (before, of_item) = piece.split_at(if begins { piece.len() - 1 } else { 0 });
            self.keep(before, false);
            self.keep(of_item, was_in_item || begins);
            if was_in_item && !self.in_item() {
                // One that is larger than any object is none to look at.
                if self.item.len() < OBJECT_MAX {
                    on(&self.item)?;
                }
                self.item.clear();
                self.rest.push(b'0');
            }
        }
        if self.rest.len() > REST_MAX {
            return Err(serde::de::Error::custom("it is larger than a list"));
        }
        Ok(())
    }

    fn in_item(&self) -> bool {
        self.in_items && self.depth > 2
    }

    /// What comes next of a string, up to its end.
    fn string<'a>(&mut self, bytes: &mut &'a [u8]) -> &'a [u8] {
        let escaped = std::mem::take(&mut self.is_escaped);
        let (size, is_end) = match memchr2(b'"', b'\\', bytes) {
            _ if escaped => (1, false),
            None => (bytes.len(), false),
            Some(at) => (at + 1, bytes[at] == b'"'),
        };
        let piece = take(bytes, size);
        self.is_escaped = !escaped && !is_end && piece.ends_with(b"\\");
        self.in_string = !is_end;
        if self.depth == 1 && self.key.len() + size <= KEY_MAX {
            self.key.extend_from_slice(piece);
        }
        piece
    }

    /// What comes next outside of strings, up to something that opens or closes.
    fn structure<'a>(&mut self, bytes: &mut &'a [u8]) -> &'a [u8] {
        let at = bytes.iter().position(|byte| matches!(byte, b'"' | b'{' | b'}' | b'[' | b']'));
        let piece = take(bytes, at.map_or(bytes.len(), |at| at + 1));
        match piece.last() {
            Some(b'"') => {
                self.in_string = true;
                if self.depth == 1 {
                    self.key.clear();
                }
            }
            Some(b'[') => {
                self.in_items |= self.depth == 1 && self.key == b"items\"";
                self.depth += 1;
            }
            Some(b'{') => self.depth += 1,
            Some(b'}' | b']') => {
                self.depth = self.depth.saturating_sub(1);
                self.in_items &= self.depth > 1;
            }
            _ => {}
        }
        piece
    }

    fn keep(&mut self, piece: &[u8], in_item: bool) {
        let kept = if in_item { &mut self.item } else { &mut self.rest };
        if kept.len() + piece.len() <= OBJECT_MAX {
            kept.extend_from_slice(piece);
        } else {
            kept.resize(OBJECT_MAX, b' ');
        }
    }
}

fn take<'a>(bytes: &mut &'a [u8], size: usize) -> &'a [u8] {
    let (piece, after) = bytes.split_at(size);
    *bytes = after;
    piece
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    /// The items of a list that comes in pieces of so many bytes, and what is left of it.
    fn split(list: &str, size: usize) -> (Vec<Value>, String) {
        let (mut split, mut items) = (Split::default(), Vec::new());
        for piece in list.as_bytes().chunks(size) {
            split.push(piece, |item| serde_json::from_slice(item).map(|item| items.push(item))).unwrap();
        }
        (items, String::from_utf8(split.rest).unwrap())
    }

    #[test]
    fn however_it_is_cut_each_item_is_taken_out_whole() {
        let odd = json!({ "a": ["\\", "\"}]{[", { "items": [{ "b": "\u{1f512}]" }] }], "": {} });
        let items = [odd, json!({}), json!({ "metadata": { "name": "x" } })];
        let list = json!({
            "apiVersion": "items", "aaa": [{ "no": "item" }], "items": items,
            "metadata": { "continue": "c", "items": [{}] }, "more": [{}],
        });
        for size in 1..60 {
            let (taken, rest) = split(&list.to_string(), size);
            assert_eq!(taken, items, "{size}");
            let rest: Value = serde_json::from_str(&rest).unwrap();
            assert_eq!((&rest["items"], &rest["metadata"]), (&json!([0, 0, 0]), &list["metadata"]));
        }
        assert_eq!(split(r#"{"items": [] , "metadata": null}"#, 3).0, Vec::<Value>::new());
        assert_eq!(split(r#"{"items": null}"#, 1).1, r#"{"items": null}"#);
    }

    #[test]
    fn an_item_that_is_larger_than_an_object_is_left_out() {
        let large = format!(r#"{{"items":[{{"a":"{}"}},{{"b":1}}]}}"#, "x".repeat(OBJECT_MAX));
        let (items, rest) = split(&large, 1 << 16);
        assert_eq!((items, rest.as_str()), (vec![json!({ "b": 1 })], r#"{"items":[0,0]}"#));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for wrong in
            ["", "{", "[]", r#"{"items":[{}"#, r#"{"items":[]} x"#, r#"{"metadata":{}}"#, "]]]}}}", r#"{"items":[1}"#]
        {
            let rest = split(wrong, 2).1;
            assert!(serde_json::from_str::<List>(&rest).is_err(), "{wrong}");
        }
    }
}

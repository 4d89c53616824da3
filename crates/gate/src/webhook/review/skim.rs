//! JSON of which little is read. What is read goes through serde as ever; all else is passed over sixteen bytes at a time,
//! and checked all the same.

mod inside;
mod open;

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, Error as _, Unexpected, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::Error;
use serde_json::value::RawValue;
use wide::u8x16;

use inside::Inside;
use open::Open;

type Result<T> = std::result::Result<T, Error>;

/// Most values inside of each other that are passed over, as many as Go's decoder takes.
const DEPTH_MAX: usize = 10_000;

/// How a value asks for its text.
const RAW: &str = "raw";

/// Reads a whole text.
///
/// # Errors
/// Of what is no JSON, in the words of `serde_json`; of what is not expected, with its place.
pub(super) fn from_slice<'de, T: Deserialize<'de>>(text: &'de [u8]) -> Result<T> {
    let mut json = Json { text, at: 0, is_broken: false };
    let read = T::deserialize(&mut json).and_then(|value| match json.peek() {
        None => Ok(value),
        Some(_) => json.broken(),
    });
    read.map_err(|error| json.explained(&error))
}

/// The text of a value.
#[derive(Clone, Copy)]
pub(super) struct Raw<'a>(pub(super) &'a [u8]);

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Text<'a>(PhantomData<&'a ()>);

        impl<'de: 'a, 'a> Visitor<'de> for Text<'a> {
            type Value = Raw<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_borrowed_bytes<E>(self, text: &'de [u8]) -> std::result::Result<Raw<'a>, E> {
                Ok(Raw(text))
            }
        }

        deserializer.deserialize_newtype_struct(RAW, Text(PhantomData))
    }
}

/// A text, and how far it is read.
struct Json<'de> {
    text: &'de [u8],
    at: usize,
    /// It is no JSON.
    is_broken: bool,
}

impl<'de> Json<'de> {
    #[cold]
    fn broken<T>(&mut self) -> Result<T> {
        self.is_broken = true;
        Err(Error::custom("invalid JSON"))
    }

    /// An error with its place.
    #[cold]
    fn explained(&self, error: &Error) -> Error {
        if self.is_broken
            && let Err(error) = serde_json::from_slice::<&RawValue>(self.text)
        {
            return error;
        }
        let before = &self.text[..self.at];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count();
        Error::custom(format_args!("{error} at line {line} column {column}"))
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.get(self.at)?;
            if !matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// The same, which is read.
    fn token(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn expect(&mut self, wanted: u8) -> Result<()> {
        if self.token() == Some(wanted) { Ok(()) } else { self.broken() }
    }

    /// Passes over a value, and returns its text.
    fn pass(&mut self) -> Result<&'de [u8]> {
        let _ = self.peek();
        let began = self.at;
        let mut open = Open::default();
        loop {
            match self.token() {
                Some(b'"') => {
                    self.string()?;
                }
                Some(b'{') if self.peek() == Some(b'}') => self.at += 1,
                Some(b'[') if self.peek() == Some(b']') => self.at += 1,
                Some(b'{') if open.push(true) => {
                    self.key()?;
                    continue;
                }
                Some(b'[') if open.push(false) => continue,
                Some(b't') => self.word(b"rue")?,
                Some(b'f') => self.word(b"alse")?,
                Some(b'n') => self.word(b"ull")?,
                Some(byte @ (b'-' | b'0'..=b'9')) => self.number(byte)?,
                _ => return self.broken(),
            }
            loop {
                let Some(is_object) = open.last() else { return Ok(&self.text[began..self.at]) };
                match (self.token(), is_object) {
                    (Some(b'}'), true) | (Some(b']'), false) => open.pop(),
                    (Some(b','), true) => break self.key()?,
                    (Some(b','), false) => break,
                    _ => return self.broken(),
                }
            }
        }
    }

    /// Passes over a key and its colon.
    fn key(&mut self) -> Result<()> {
        self.expect(b'"')?;
        self.string()?;
        self.expect(b':')
    }

    /// Passes over the rest of a string, and tells whether it has escapes.
    #[inline]
    fn string(&mut self) -> Result<bool> {
        let (text, began) = (self.text, self.at);
        let (mut at, mut is_escaped, mut beyond_ascii) = (began, false, 0);
        loop {
            if let Some(chunk) = text.get(at..).and_then(<[u8]>::first_chunk) {
                let chunk = u8x16::new(*chunk);
                let control = chunk.min(u8x16::splat(0x1f)).simd_eq(chunk);
                let stop = control | chunk.simd_eq(u8x16::splat(b'"')) | chunk.simd_eq(u8x16::splat(b'\\'));
                beyond_ascii |= chunk.to_bitmask();
                let stop = stop.to_bitmask();
                if stop == 0 {
                    at += 16;
                    continue;
                }
                at += stop.trailing_zeros() as usize;
            }
            let Some(byte) = text.get(at) else { return self.broken() };
            at += 1;
            match byte {
                b'"' => break,
                b'\\' => {
                    is_escaped = true;
                    self.at = at;
                    self.escape()?;
                    at = self.at;
                }
                0x20.. => beyond_ascii |= u32::from(byte & 0x80),
                _ => return self.broken(),
            }
        }
        self.at = at;
        // Of strings that nobody reads, those of ASCII are not looked at again.
        if beyond_ascii != 0 && std::str::from_utf8(&text[began..at - 1]).is_err() {
            return self.broken();
        }
        Ok(is_escaped)
    }

    fn escape(&mut self) -> Result<()> {
        let escape = self.text.get(self.at).copied();
        self.at += 1;
        match escape {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(()),
            Some(b'u') => match self.text.get(self.at..self.at + 4) {
                Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => {
                    self.at += 4;
                    Ok(())
                }
                _ => self.broken(),
            },
            _ => self.broken(),
        }
    }

    fn word(&mut self, rest: &[u8]) -> Result<()> {
        if self.text[self.at..].starts_with(rest) {
            self.at += rest.len();
            Ok(())
        } else {
            self.broken()
        }
    }

    /// Passes over the rest of a number.
    fn number(&mut self, first: u8) -> Result<()> {
        let first = if first == b'-' { self.byte() } else { Some(first) };
        match first {
            Some(b'0') => {}
            Some(b'1'..=b'9') => while self.digit() {},
            _ => return self.broken(),
        }
        if self.next_is(b".") {
            self.at += 1;
            self.digits()?;
        }
        if self.next_is(b"eE") {
            self.at += 1;
            self.at += usize::from(self.next_is(b"+-"));
            self.digits()?;
        }
        Ok(())
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = self.text.get(self.at).copied();
        self.at += usize::from(byte.is_some());
        byte
    }

    fn next_is(&self, any: &[u8]) -> bool {
        self.text.get(self.at).is_some_and(|byte| any.contains(byte))
    }

    fn digit(&mut self) -> bool {
        let is_digit = self.text.get(self.at).is_some_and(u8::is_ascii_digit);
        self.at += usize::from(is_digit);
        is_digit
    }

    fn digits(&mut self) -> Result<()> {
        if !self.digit() {
            return self.broken();
        }
        while self.digit() {}
        Ok(())
    }

    fn visit_string<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value> {
        let began = self.at;
        self.at += 1;
        if !self.string()?
            && let Ok(text) = std::str::from_utf8(&self.text[began + 1..self.at - 1])
        {
            return visitor.visit_borrowed_str(text);
        }
        match serde_json::from_slice(&self.text[began..self.at]) {
            Ok(text) => visitor.visit_string(text),
            Err(error) => Err(Error::custom(without_place(&error))),
        }
    }

    fn visit_number<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value> {
        let number = self.pass()?;
        serde_json::Deserializer::from_slice(number)
            .deserialize_any(visitor)
            .map_err(|error| Error::custom(without_place(&error)))
    }

    /// Reads an object or a list; what is not read to its end has more than the visitor takes.
    fn inside<T>(
        &mut self,
        [start, end]: [u8; 2],
        read: impl FnOnce(&mut Inside<'_, 'de>) -> Result<T>,
        more: &str,
    ) -> Result<T> {
        self.expect(start)?;
        let mut inside = Inside::new(self, end);
        let value = read(&mut inside)?;
        if inside.is_over() { Ok(value) } else { Err(Error::custom(more)) }
    }
}

/// What `serde_json` says of a part, whose place in the whole it does not know.
fn without_place(error: &Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or_else(|| text.clone(), |(what, _)| what.to_owned())
}

impl<'de> Deserializer<'de> for &mut Json<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.peek() {
            Some(b'"') => self.visit_string(visitor),
            Some(b'{') => self.inside(*b"{}", |members| visitor.visit_map(members), "an object has more than is read"),
            Some(b'[') => self.inside(*b"[]", |items| visitor.visit_seq(items), "a list has more than is read"),
            Some(b'-' | b'0'..=b'9') => self.visit_number(visitor),
            _ => match self.pass()? {
                b"null" => visitor.visit_unit(),
                word => visitor.visit_bool(word == b"true"),
            },
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        if self.peek() != Some(b'n') {
            return visitor.visit_some(self);
        }
        self.pass()?;
        visitor.visit_none()
    }

    /// serde's own structs would take a list, too.
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.peek() {
            Some(b'[') => Err(Error::invalid_type(Unexpected::Seq, &visitor)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_map(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value> {
        if name == RAW { visitor.visit_borrowed_bytes(self.pass()?) } else { visitor.visit_newtype_struct(self) }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.pass()?;
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct enum identifier
    }
}

#[cfg(test)]
mod tests;

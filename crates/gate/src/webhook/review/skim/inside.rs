//! Objects and lists, for serde.

use serde::de::{DeserializeSeed, MapAccess, SeqAccess};
use serde_json::Error;

use super::{Json, Result};

/// What an object or a list has, one after the other.
pub(super) struct Inside<'a, 'de> {
    json: &'a mut Json<'de>,
    end: u8,
    is_first: bool,
    is_over: bool,
}

impl<'a, 'de> Inside<'a, 'de> {
    /// After its first sign.
    pub(super) fn new(json: &'a mut Json<'de>, end: u8) -> Self {
        Self { json, end, is_first: true, is_over: false }
    }

    /// Whether it was read to its end.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether there is one more, at which the text is now.
    fn has_next(&mut self) -> Result<bool> {
        let is_first = std::mem::take(&mut self.is_first);
        match self.json.peek() {
            Some(end) if end == self.end => {
                self.json.at += 1;
                self.is_over = true;
                return Ok(false);
            }
            Some(b',') if !is_first => self.json.at += 1,
            _ if is_first => {}
            _ => return self.json.broken(),
        }
        Ok(true)
    }
}

impl<'de> MapAccess<'de> for Inside<'_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        if !self.has_next()? {
            return Ok(None);
        }
        if self.json.peek() != Some(b'"') {
            return self.json.broken();
        }
        seed.deserialize(&mut *self.json).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        self.json.expect(b':')?;
        seed.deserialize(&mut *self.json)
    }
}

impl<'de> SeqAccess<'de> for Inside<'_, 'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        if !self.has_next()? {
            return Ok(None);
        }
        seed.deserialize(&mut *self.json).map(Some)
    }
}

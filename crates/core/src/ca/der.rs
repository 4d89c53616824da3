//! DER, read strictly and written as little as is needed. Where BER has a choice, consumers differ: what has one
//! encoding for each value is read by all of them alike.

/// The tags that are asked for by name.
pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const NULL: u8 = 0x05;
pub(super) const OID: u8 = 0x06;
pub(super) const UTF8_STRING: u8 = 0x0c;
pub(super) const NUMERIC_STRING: u8 = 0x12;
pub(super) const PRINTABLE_STRING: u8 = 0x13;
pub(super) const T61_STRING: u8 = 0x14;
pub(super) const IA5_STRING: u8 = 0x16;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERALIZED_TIME: u8 = 0x18;
pub(super) const BMP_STRING: u8 = 0x1e;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

const ENUMERATED: u8 = 0x0a;
const VISIBLE_STRING: u8 = 0x1a;
const CONSTRUCTED: u8 = 0x20;
const CLASS: u8 = 0xc0;
const CONTEXT: u8 = 0x80;

/// No certificate nests deeper.
const MAX_DEPTH: usize = 24;

/// One element.
#[derive(Clone, Copy)]
pub(super) struct Element<'a> {
    pub(super) tag: u8,
    pub(super) value: &'a [u8],
}

/// Elements, one after the other. `None` where there is none, or one that is not DER.
#[derive(Clone)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next element, whatever it is.
    pub(super) fn any(&mut self) -> Option<Element<'a>> {
        let (&[tag, first], mut rest) = self.0.split_first_chunk::<2>()?;
        // Tags above 30 are in no certificate.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let length = if first < 0x80 {
            usize::from(first)
        } else {
            let (octets, behind) = rest.split_at_checked(usize::from(first & 0x7f))?;
            rest = behind;
            let is_minimal = octets.first().is_some_and(|octet| *octet != 0) && octets.len() <= 3;
            let length = octets.iter().take(3).fold(0, |length, octet| length << 8 | usize::from(*octet));
            (is_minimal && length >= 0x80).then_some(length)?
        };
        let (value, behind) = rest.split_at_checked(length)?;
        self.0 = behind;
        Some(Element { tag, value })
    }

    /// The value of the next element, which has to have this tag.
    pub(super) fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.any().filter(|element| element.tag == tag).map(|element| element.value)
    }

    /// The elements inside of the next one.
    pub(super) fn inside(&mut self, tag: u8) -> Option<Self> {
        self.take(tag).map(Self)
    }

    /// Whether the next element is there and has this tag; if so, its value. `None`: it is there and is not DER.
    pub(super) fn optional(&mut self, tag: u8) -> Option<Option<&'a [u8]>> {
        if self.peek() == Some(tag) { self.take(tag).map(Some) } else { Some(None) }
    }
}

/// The one element that these bytes are.
pub(super) fn only(bytes: &[u8], tag: u8) -> Option<&[u8]> {
    let mut reader = Reader::new(bytes);
    reader.take(tag).filter(|_| reader.is_empty())
}

/// Whether these bytes are elements in DER all through, as far as tags tell what is inside.
pub(super) fn is_strict(bytes: &[u8]) -> bool {
    is_strict_at(bytes, MAX_DEPTH)
}

fn is_strict_at(bytes: &[u8], depth: usize) -> bool {
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        let Some(Element { tag, value, .. }) = reader.any() else { return false };
        let is_fine = match (tag & CLASS, tag) {
            (0, SEQUENCE | SET) => depth > 0 && is_strict_at(value, depth - 1),
            (0, _) => is_primitive(tag, value),
            (CONTEXT, _) if tag & CONSTRUCTED != 0 => depth > 0 && is_strict_at(value, depth - 1),
            (CONTEXT, _) => true,
            _ => false,
        };
        if !is_fine {
            return false;
        }
    }
    true
}

fn is_primitive(tag: u8, value: &[u8]) -> bool {
    match tag {
        BOOLEAN => matches!(value, [0 | 0xff]),
        INTEGER | ENUMERATED => is_integer(value),
        BIT_STRING => is_bit_string(value),
        OCTET_STRING => true,
        NULL => value.is_empty(),
        OID => is_oid(value),
        UTC_TIME => value.len() == 13 && is_time(value),
        GENERALIZED_TIME => value.len() == 15 && is_time(value),
        VISIBLE_STRING => value.iter().all(|byte| (0x20..0x7f).contains(byte)),
        _ => text(tag, value).is_some(),
    }
}

pub(super) fn is_integer(value: &[u8]) -> bool {
    match value {
        [] => false,
        [0, second, ..] => second & 0x80 != 0,
        [0xff, second, ..] => second & 0x80 == 0,
        _ => true,
    }
}

fn is_bit_string(value: &[u8]) -> bool {
    match value {
        [] => false,
        [unused] => *unused == 0,
        [unused, .., last] => *unused < 8 && last & ((1 << unused) - 1) == 0,
    }
}

/// Each arc below 2^31, which is where Go stops.
pub(super) fn is_oid(value: &[u8]) -> bool {
    let ends = value.last().is_some_and(|last| last & 0x80 == 0);
    ends && value.split_inclusive(|byte| byte & 0x80 == 0).all(|arc| {
        let number = arc.iter().take(5).fold(0u64, |number, byte| number << 7 | u64::from(byte & 0x7f));
        arc[0] != 0x80 && arc.len() <= 5 && number < 1 << 31
    })
}

/// `[YY]YYMMDDHHMMSSZ`, and nothing else: no fractions, no offsets, seconds always.
fn is_time(value: &[u8]) -> bool {
    let Some((b'Z', digits)) = value.split_last() else { return false };
    if !digits.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let number = |digits: &[u8]| digits.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
    let (year, rest) = digits.split_at(digits.len() - 10);
    // Of two digits, only 2000 is a leap year that a rule of centuries would make none.
    let year = number(year);
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let [month, day, hour, minute, second] = [0, 2, 4, 6, 8].map(|at| number(&rest[at..at + 2]));
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    (1..=days).contains(&day) && hour < 24 && minute < 60 && second < 60
}

/// What a string of a name says, if Go can read it.
pub(super) fn text(tag: u8, value: &[u8]) -> Option<String> {
    let ascii =
        |is_fine: fn(&u8) -> bool| value.iter().all(is_fine).then(|| String::from_utf8_lossy(value).into_owned());
    match tag {
        PRINTABLE_STRING => ascii(|byte| byte.is_ascii_alphanumeric() || b" '()+,-./:=?*&".contains(byte)),
        NUMERIC_STRING => ascii(|byte| byte.is_ascii_digit() || *byte == b' '),
        IA5_STRING => ascii(u8::is_ascii),
        UTF8_STRING => std::str::from_utf8(value).ok().map(str::to_owned),
        // As Latin-1, as BoringSSL and Go have it.
        T61_STRING => Some(value.iter().copied().map(char::from).collect()),
        BMP_STRING if value.len().is_multiple_of(2) => value
            .chunks_exact(2)
            .map(|unit| u16::from_be_bytes([unit[0], unit[1]]))
            .map(|unit| char::from_u32(unit.into()).filter(|_| !matches!(unit, 0xfdd0..=0xfdef | 0xfffe | 0xffff)))
            .collect(),
        _ => None,
    }
}

/// An element with these parts.
pub(super) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let value = parts.concat();
    let length = value.len().to_be_bytes();
    let octets = &length[length.iter().position(|octet| *octet != 0).unwrap_or(length.len() - 1)..];
    let mut whole = vec![tag];
    if value.len() >= 0x80 {
        whole.push(0x80 | octets.len() as u8);
    }
    whole.extend_from_slice(octets);
    whole.extend_from_slice(&value);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_one_encoding_is_read() {
        let strict: [&[u8]; 14] = [
            b"\x01\x01\xff",
            b"\x02\x01\x00",
            b"\x02\x02\x00\x80",
            b"\x03\x02\x01\x06",
            b"\x04\x00",
            b"\x05\x00",
            b"\x06\x03\x55\x1d\x0f",
            b"\x0c\x02\xc3\xa4",
            b"\x13\x04a *&",
            b"\x14\x01\xfc",
            b"\x1e\x02\x00\xe4",
            b"\x17\x0d240229235959Z",
            b"\x18\x0f20500101000000Z",
            b"\x30\x07\xa0\x02\x05\x00\x81\x01\xff",
        ];
        for bytes in strict {
            assert!(is_strict(bytes), "{bytes:02x?}");
        }
        assert!(is_strict(&element(SEQUENCE, &[&element(OCTET_STRING, &[&[7; 300]])])));
    }

    #[test]
    fn what_has_more_than_one_is_not() {
        let lax: [&[u8]; 31] = [
            b"\x01\x01\x01",
            b"\x01\x02\x00\xff",
            b"\x02\x00",
            b"\x02\x02\x00\x01",
            b"\x02\x02\xff\xff",
            b"\x03\x00",
            b"\x03\x02\x01\x07",
            b"\x03\x02\x08\x00",
            b"\x05\x01\x00",
            b"\x06\x00",
            b"\x06\x02\x80\x01",
            b"\x06\x02\x2a\x86",
            b"\x06\x06\x2a\x88\x80\x80\x80\x00",
            b"\x0c\x01\xff",
            b"\x13\x01_",
            b"\x13\x01@",
            b"\x12\x01a",
            b"\x16\x01\xe4",
            b"\x1c\x04\x00\x00\x00a",
            b"\x1e\x01a",
            b"\x1e\x02\xd8\x00",
            b"\x17\x0b2402292359Z",
            b"\x17\x0d230229235959Z",
            b"\x17\x11240229235959+0000",
            b"\x18\x1120500101000000.5Z",
            b"\x04\x81\x01\x00",
            b"\x04\x82\x00\x80",
            b"\x24\x02\x04\x00",
            b"\x30\x80\x05\x00\x00\x00",
            b"\x10\x00",
            b"\x1f\x20\x00",
        ];
        for bytes in lax {
            assert!(!is_strict(bytes), "{bytes:02x?}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth| (0..depth).fold(Vec::new(), |inner, _| element(SEQUENCE, &[&inner]));
        assert!(is_strict(&nested(MAX_DEPTH)));
        assert!(!is_strict(&nested(MAX_DEPTH + 2)));
    }
}

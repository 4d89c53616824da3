//! What a request brings along besides itself: when it comes, and randomness that it may use up.

use k8s_openapi::jiff::Timestamp;

/// Random bytes that one request may need.
pub(super) const RANDOM_BYTES: usize = 256;

/// The time of a request, and its randomness.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    pub(super) now: Timestamp,
    /// [`RANDOM_BYTES`] in hex.
    random: String,
}

impl Moment {
    pub(super) fn new(now: Timestamp, random: String) -> Self {
        Self { now, random }
    }

    pub(super) fn request_id(&self) -> String {
        uuid(self.hex(0, 16))
    }

    /// For what this request makes.
    pub(super) fn uuid(&self) -> String {
        uuid(self.hex(16, 16))
    }

    pub(super) fn token(&self) -> String {
        format!("hvs.{}", self.hex(32, 16))
    }

    /// That of a token; its first digits are that of a mount.
    pub(super) fn accessor(&self) -> &str {
        self.hex(48, 12)
    }

    /// The same of several things that one request makes: the first, the second, and so on.
    pub(super) fn nth_uuid(&self, nth: usize) -> String {
        uuid(self.hex(64 + 16 * nth, 16))
    }

    /// The serial number of a certificate: 20 bytes, and positive.
    pub(super) fn serial(&self) -> Vec<u8> {
        let bytes = (44..64).map(|at| u8::from_str_radix(self.hex(at, 1), 16).unwrap_or_default());
        let mut bytes: Vec<u8> = bytes.collect();
        bytes[0] = bytes[0] & 0x7f | 0x40;
        bytes
    }

    fn hex(&self, from: usize, bytes: usize) -> &str {
        self.random.get(2 * from..2 * (from + bytes)).unwrap_or_default()
    }
}

fn uuid(hex: &str) -> String {
    let part = |from, to| hex.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

/// RFC 3339 in UTC with as many digits as there are, as Go prints it.
pub(super) fn timestamp(time: Timestamp) -> String {
    time.to_string()
}

/// Some moment, for tests.
#[cfg(test)]
pub(super) fn some(second: i64) -> Moment {
    let now = Timestamp::from_second(1_800_000_000 + second).unwrap_or_default();
    Moment::new(now, format!("{second:0>8x}").repeat(2 * RANDOM_BYTES / 8))
}

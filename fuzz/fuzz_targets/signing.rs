//! Target `signing`, for cargo-fuzz.
#![no_main]

fuzz::libfuzzer!("signing");

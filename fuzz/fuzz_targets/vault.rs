//! Target `vault`, for cargo-fuzz.
#![no_main]

fuzz::libfuzzer!("vault");

//! Target `flags`, for cargo-fuzz.
#![no_main]

fuzz::libfuzzer!("flags");

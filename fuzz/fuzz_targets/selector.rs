//! Target `selector`, for cargo-fuzz.
#![no_main]

fuzz::libfuzzer!("selector");

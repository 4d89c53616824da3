//! Target `objects`, for cargo-fuzz.
#![no_main]

fuzz::libfuzzer!("objects");

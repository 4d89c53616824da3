//! Target `http`, for cargo-fuzz.
#![no_main]

fuzz::libfuzzer!("http");

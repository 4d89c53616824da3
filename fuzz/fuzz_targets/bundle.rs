//! Target `bundle`, for cargo-fuzz.
#![no_main]

fuzz::libfuzzer!("bundle");

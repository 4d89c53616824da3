//! Target `review`, for cargo-fuzz.
#![no_main]

fuzz::libfuzzer!("review");

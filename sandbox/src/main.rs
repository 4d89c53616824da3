//! The tour: see the library.

fn main() {}

//! head.

fn main() {}

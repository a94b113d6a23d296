//! cellwall
fn main() {}

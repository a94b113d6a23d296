//! cellwalld
fn main() {}

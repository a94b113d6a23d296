//! cellwall-suexec
fn main() {}

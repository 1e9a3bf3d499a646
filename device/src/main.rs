//! facelatchd
fn main() {}

//! facelatch
fn main() {}

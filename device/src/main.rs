//! `facelatchd`: the door's program.

fn main() {}

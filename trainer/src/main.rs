//! `facelatch`: the workstation's program.

fn main() {}

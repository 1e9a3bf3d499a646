//! What training minimises.

pub mod distill;

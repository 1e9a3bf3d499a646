//! What training minimises.

pub mod distill;
pub mod triplet;
pub mod margin;

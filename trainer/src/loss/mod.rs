//! What training minimises.

pub mod distill;
pub mod triplet;
pub mod detection;
pub mod fiducials;
pub mod margin;

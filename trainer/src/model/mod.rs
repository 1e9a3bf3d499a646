//! Nets, as libtorch modules.

pub mod layers;
pub mod compact;

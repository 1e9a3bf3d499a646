//! Frame in, observation out.

pub mod contract;

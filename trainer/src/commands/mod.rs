//! One file a subcommand: its arguments with their help, and a `run`.

#[cfg(feature = "train")]
pub mod export;
pub mod models;
#[cfg(feature = "train")]
pub mod teach;
#[cfg(feature = "train")]
pub mod train;
pub mod align;
pub mod evaluate;
pub mod cluster;
pub mod curate;
pub mod keys;
pub mod bundle;
mod remote;
pub mod devices;
pub mod pair;
pub mod push;
mod rollout;
pub mod status;
pub mod people;
pub mod enrol;
pub mod log;
pub mod metrics;
pub mod image;
pub mod flash;
pub mod calibrate;
#[cfg(feature = "train")]
pub mod quantize;
#[cfg(feature = "train")]
pub mod parity;

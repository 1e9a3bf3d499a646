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
pub mod keys;
pub mod bundle;
pub mod metrics;
pub mod calibrate;
#[cfg(feature = "train")]
pub mod quantize;
#[cfg(feature = "train")]
pub mod parity;

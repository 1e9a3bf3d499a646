//! The workstation: data, training, export, evaluation, and the operator's command line `facelatch`.

pub mod cli;
pub mod commands;
pub mod import;
pub mod contact_sheet;
pub mod evaluate;
pub mod bundle;
pub mod remote;
pub mod image;
pub mod progress;
pub mod dataset;
pub mod curate;
#[cfg(feature = "train")]
pub mod model;
#[cfg(feature = "train")]
pub mod loss;
#[cfg(feature = "train")]
pub mod train;
#[cfg(feature = "train")]
pub mod recipe;
#[cfg(feature = "train")]
pub mod quantize;
#[cfg(feature = "train")]
pub mod export;
#[cfg(feature = "train")]
pub mod parity;

//! New models on a door: receive, verify, stage, activate, try, confirm — or go back by itself.
//!
//! ```text
//! Idle ─ header ─▶ Receiving ─ last chunk ─▶ Staged ─ activate ─▶ Trial ─ confirm ─▶ Idle, floor raised
//!                      ▲  └─ resumed after any interruption            └─ roll back ─▶ Idle, former models
//! ```
//!
//! [`Service`] drives all this on a thread of its own: it takes a bundle's bytes ([`intake`]), makes models and templates ready beside the door
//! that decides ([`prepare`]), hands the eyes over between two frames ([`live`]), and judges the trial by what the door measures ([`trial`]).
//!
//! Every arrow is one atomic replacement of the [`record::Record`]. The slot in use is never written. Templates for the new model lie in the
//! gallery before the activation and mean nothing until then, so that the gallery changes in the very same step.

pub mod record;
pub mod slots;
pub mod mem_slots;
mod updater;
pub mod intake;
pub mod chip;
pub mod carry;
pub mod keep;
pub mod models;
pub mod prepare;
pub mod trial;
pub mod live;
mod service;

pub use mem_slots::{MemSlots, Power, PoweredJournal};
pub use record::{Outcome, Phase, Record, Source, Trying};
pub use service::Service;
pub use slots::{FileSlots, Slot, SlotStore};
pub use updater::{Boot, Progress, UpdateError, Updater};

use std::path::PathBuf;

use crate::config::DoorConfig;

/// Where a door's model slots lie.
#[must_use]
pub fn slots_dir(door: &DoorConfig) -> PathBuf {
    door.state_dir.join("slots")
}

#[cfg(test)]
pub(crate) mod power_tests;
#[cfg(test)]
mod attack_tests;

//! New models on a door: receive, verify, stage, activate, try, confirm — or go back by itself.
//!
//! ```text
//! Idle ─ header ─▶ Receiving ─ last chunk ─▶ Staged ─ activate ─▶ Trial ─ confirm ─▶ Idle, floor raised
//!                      ▲  └─ resumed after any interruption            └─ roll back ─▶ Idle, former models
//! ```
//!
//! Every arrow is one atomic replacement of the [`record::Record`]. The slot in use is never written. Templates for the new model lie in the
//! gallery before the activation and mean nothing until then, so that the gallery changes in the very same step.

pub mod record;
pub mod slots;
pub mod mem_slots;
mod updater;
pub mod chip;
pub mod carry;

pub use mem_slots::{MemSlots, Power, PoweredJournal};
pub use record::{Outcome, Phase, Record, Source, Trying};
pub use slots::{FileSlots, Slot, SlotStore};
pub use updater::{Boot, Progress, UpdateError, Updater};

#[cfg(test)]
mod power_tests;

//! Who may enter when, at which threshold: what the session holds a match against, and the door's local time.

mod calendar;
mod threshold;
mod timekeeper;

pub use calendar::{AccessConfig, Calendar, TimeUnknown};
pub use threshold::{ThresholdInForce, ThresholdSource};
pub use timekeeper::{Reading, Timekeeper};

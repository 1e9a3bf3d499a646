//! Contacts that the door reads: is it open, does someone ask to leave, is the service button held.

use facelatch_shared::time::Millis;

pub use edges::Waker;

pub mod debounce;
mod edges;
pub mod gpio;
pub mod fake;
pub mod keypad;

/// All inputs at one instant, debounced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InputState {
    /// The door contact: open or shut; `None` where none is wired.
    pub door_open: Option<bool>,
    /// Request to exit is pressed.
    pub exit_requested: bool,
    /// The installer's service button is pressed.
    pub service: bool,
    /// The case of the door's own electronics is open.
    pub tamper: bool,
}

/// A source of input states.
pub trait Inputs: Send {
    /// The present state; never blocks.
    ///
    /// # Errors
    /// A text for the log when a line cannot be read; the caller goes on with the last state.
    fn read(&mut self) -> Result<InputState, String>;

    /// When reading again is worth it though nothing more happens: a level that has to hold, an edge not yet told.
    fn due(&self) -> Option<Millis> {
        None
    }

    /// `waker` is called whenever something happened, from another thread. Inputs that cannot tell are read every [`POLL_MS`].
    fn wake_with(&mut self, _waker: Waker) {}
}

/// How often inputs are read at the least.
pub const POLL_MS: u64 = 50;

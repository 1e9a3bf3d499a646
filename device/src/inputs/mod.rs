//! Contacts that the door reads: is it open, does someone ask to leave, is the service button held.

pub mod debounce;
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
}

/// A source of input states.
pub trait Inputs: Send {
    /// The present state; never blocks.
    ///
    /// # Errors
    /// A text for the log when a line cannot be read; the caller goes on with the last state.
    fn read(&mut self) -> Result<InputState, String>;
}

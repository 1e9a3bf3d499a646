//! One act of the demonstration: frames, what an administrator asks meanwhile, what the contacts do, and what must come of it.

use facelatch_shared::event::{EventKind, Refusal};
use facelatch_shared::protocol::Request;

use crate::camera::replay::Shot;
use crate::inputs::InputState;
use crate::inputs::keypad::Key;

/// One act.
#[derive(Debug)]
pub struct Act {
    /// What a bystander would call it.
    pub title: String,
    /// The frames.
    pub shots: Vec<Shot>,
    /// Asked before the act's second frame.
    pub requests: Vec<Request>,
    /// Contacts by frame number within the act.
    pub contacts: Vec<(u64, InputState)>,
    /// Keys typed by frame number within the act.
    pub keys: Vec<(u64, Vec<Key>)>,
    /// What must come of it, all of it.
    pub expect: Vec<Expect>,
}

/// Something that must, or must not, have happened by an act's end.
#[derive(Clone, Debug)]
pub enum Expect {
    /// The door opened for this person, and has been secured again.
    Opens(String),
    /// The door stayed shut.
    StaysShut,
    /// Refused for this reason, at least once.
    Refused(Refusal),
    /// The panel showed this screen.
    Shows(&'static str),
    /// This person was enrolled.
    Enrols(String),
    /// Such an event was logged.
    Logs(fn(&EventKind) -> bool, &'static str),
    /// At least so many frames could not be read.
    BadFrames(u32),
}

impl Act {
    /// An act of these frames.
    #[must_use]
    pub fn new(title: impl Into<String>, shots: Vec<Shot>) -> Self {
        Self { title: title.into(), shots, requests: vec![], contacts: vec![], keys: vec![], expect: vec![] }
    }

    /// Something that must come of it.
    #[must_use]
    pub fn expect(mut self, expect: Expect) -> Self {
        self.expect.push(expect);
        self
    }

    /// Something that an administrator asks.
    #[must_use]
    pub fn ask(mut self, request: Request) -> Self {
        self.requests.push(request);
        self
    }

    /// The door contact reads open from frame `from` to frame `to` of the act.
    #[must_use]
    pub fn door_open(mut self, from: u64, to: u64) -> Self {
        let contact = |open| InputState { door_open: Some(open), ..InputState::default() };
        self.contacts.push((from, contact(true)));
        self.contacts.push((to, contact(false)));
        self
    }

    /// The service button is held from frame `from` to frame `to`.
    #[must_use]
    pub fn service_held(mut self, from: u64, to: u64) -> Self {
        let held = InputState { door_open: Some(false), service: true, ..InputState::default() };
        self.contacts.push((from, held));
        self.contacts.push((to, InputState { service: false, ..held }));
        self
    }

    /// The case is open from frame `from` to frame `to`.
    #[must_use]
    pub fn case_open(mut self, from: u64, to: u64) -> Self {
        let open = InputState { door_open: Some(false), tamper: true, ..InputState::default() };
        self.contacts.push((from, open));
        self.contacts.push((to, InputState { tamper: false, ..open }));
        self
    }

    /// `keys` are typed at frame `at`: digits, `*`, `#`.
    #[must_use]
    pub fn types(mut self, at: u64, keys: &str) -> Self {
        let key = |c: char| match c {
            '#' => Key::Enter,
            '*' => Key::Clear,
            digit => Key::Digit(digit.to_digit(10).unwrap_or(0) as u8),
        };
        self.keys.push((at, keys.chars().map(key).collect()));
        self
    }

    /// The exit button is pressed at frame `at`.
    #[must_use]
    pub fn exit_pressed(mut self, at: u64) -> Self {
        let pressed = InputState { exit_requested: true, door_open: Some(false), ..InputState::default() };
        self.contacts.push((at, pressed));
        self.contacts.push((at + 3, InputState { exit_requested: false, ..pressed }));
        self
    }
}

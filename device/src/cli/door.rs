//! The door that a command talks to: the running one, or its files.

use facelatch_shared::event::Event;
use facelatch_shared::person::SubjectId;
use facelatch_shared::protocol::{Handler as _, PAGE, PersonRow, Request, Response};

use super::Failure;
use crate::config::Config;
use crate::control::{Client, ControlError, Offline};

/// A door that answers.
pub(super) enum Door {
    /// Through its socket.
    Running(Client),
    /// From its files.
    Stopped(Box<Offline>),
}

impl Door {
    /// The running door of this configuration; where none runs, its files.
    pub(super) fn open(config: &Config) -> Result<Self, Failure> {
        match Client::connect(&config.door.state_dir) {
            Ok(client) => Ok(Self::Running(client)),
            Err(ControlError::NotRunning { .. }) => {
                let offline = Offline::open(&config.door)?;
                if offline.recovery().is_damage() {
                    let kept = offline.recovery().records;
                    eprintln!(
                        "warning: the gallery was damaged; {kept} intact records are kept and the damaged file is set aside"
                    );
                }
                Ok(Self::Stopped(Box::new(offline)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The running door and nothing else.
    pub(super) fn running(config: &Config) -> Result<Self, Failure> {
        Ok(Self::Running(Client::connect(&config.door.state_dir)?))
    }

    /// Asks; a refusal is a failure.
    pub(super) fn ask(&mut self, request: Request) -> Result<Response, Failure> {
        let response = match self {
            Self::Running(client) => client.ask(&request)?,
            Self::Stopped(offline) => offline.handle(request),
        };
        match response {
            Response::Refused(refused) => Err(refused.into()),
            answer => Ok(answer),
        }
    }

    /// Asks for something to be done.
    pub(super) fn order(&mut self, request: Request) -> Result<(), Failure> {
        match self.ask(request)? {
            Response::Done => Ok(()),
            _ => Err(unexpected()),
        }
    }

    /// Everyone, page by page.
    pub(super) fn people(&mut self) -> Result<Vec<PersonRow>, Failure> {
        let mut all = Vec::new();
        let mut from = SubjectId(0);
        loop {
            let Response::People(page) = self.ask(Request::ListPeople { from })? else {
                return Err(unexpected());
            };
            let ended = page.len() < PAGE;
            // A page that leads nowhere ends it, whatever its length.
            let next = page.last().and_then(|row| row.id.0.checked_add(1));
            all.extend(page);
            match next {
                Some(next) if !ended && next > from.0 => from = SubjectId(next),
                _ => return Ok(all),
            }
        }
    }

    /// One person, or nobody.
    pub(super) fn person(&mut self, id: SubjectId) -> Result<Option<PersonRow>, Failure> {
        let Response::People(page) = self.ask(Request::ListPeople { from: id })? else {
            return Err(unexpected());
        };
        Ok(page.into_iter().next().filter(|row| row.id == id))
    }

    /// All events from a number on, page by page, each page given to `each`, until that says `false`.
    pub(super) fn events(
        &mut self,
        mut from: u64,
        mut each: impl FnMut(Vec<Event>) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        loop {
            let Response::Events(page) = self.ask(Request::ListEvents { from })? else {
                return Err(unexpected());
            };
            let ended = page.len() < PAGE;
            let next = page.last().and_then(|event| event.seq.checked_add(1));
            if !each(page)? {
                return Ok(());
            }
            match next {
                Some(next) if !ended && next > from => from = next,
                _ => return Ok(()),
            }
        }
    }

    /// The newest events, oldest of them first.
    pub(super) fn last_events(&mut self, count: u16) -> Result<Vec<Event>, Failure> {
        match self.ask(Request::LastEvents { count })? {
            Response::Events(events) => Ok(events),
            _ => Err(unexpected()),
        }
    }
}

/// An answer that does not belong to the question.
pub(super) fn unexpected() -> Failure {
    Failure::failed("the door answered something else than was asked")
        .hint("restart facelatchd after an update")
}

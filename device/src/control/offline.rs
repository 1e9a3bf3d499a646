//! Stands in for a door that is not running: the same answers, from the same files.

use std::os::unix::fs::MetadataExt;

use facelatch_shared::gallery::Recovery;
use facelatch_shared::protocol::{Handler, Request, Response};

use super::{State, StateError, answer};
use crate::clock::SystemClock;
use crate::config::DoorConfig;

/// The files of a stopped door, held until this is dropped: the daemon cannot start meanwhile.
#[derive(Debug)]
pub struct Offline {
    state: State,
    clock: SystemClock,
}

impl Offline {
    /// Opens the files.
    ///
    /// # Errors
    /// [`StateError`]; [`StateError::OtherUser`] when what is written now could not be read by the door's own user later.
    pub fn open(door: &DoorConfig) -> Result<Self, StateError> {
        let folder = &door.state_dir;
        // Where the system does not say who we are, its own checks must do.
        if let (Ok(theirs), Ok(own)) = (std::fs::metadata(folder), std::fs::metadata("/proc/self"))
            && theirs.uid() != own.uid()
        {
            return Err(StateError::OtherUser { path: folder.display().to_string(), owner: theirs.uid() });
        }
        let clock = SystemClock::new();
        Ok(Self { state: State::open(door, &clock)?, clock })
    }

    /// Damage that was found in the gallery and survived.
    #[must_use]
    pub const fn recovery(&self) -> &Recovery {
        &self.state.recovery
    }
}

impl Handler for Offline {
    fn handle(&mut self, request: Request) -> Response {
        answer(&mut self.state.people, &mut self.state.log, &self.clock, request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch_shared::person::SubjectId;
    use facelatch_shared::protocol::RefusedKind;

    #[test]
    fn a_stopped_door_lists_and_does_not_enrol() {
        let folder = tempfile::tempdir().unwrap();
        let door = DoorConfig { state_dir: folder.path().to_owned(), ..DoorConfig::default() };
        let mut offline = Offline::open(&door).unwrap();
        let list = Request::ListPeople { from: SubjectId(0) };
        assert_eq!(offline.handle(list), Response::People(vec![]));
        let Response::Refused(refused) = offline.handle(Request::EnrolProgress) else { panic!() };
        assert_eq!(refused.kind, RefusedKind::Busy);
        assert!(refused.message.contains("start facelatchd"));
    }
}

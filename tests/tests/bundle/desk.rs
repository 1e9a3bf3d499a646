//! A workstation at the other end of a TLS connection.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use facelatch_shared::link::Identity;
use facelatch_shared::person::{Name, SubjectId};
use facelatch_shared::protocol::{Enrolment, Request, Response};
use facelatch_shared::remote::LinkRequest;
use facelatch_tests::bundles::{id_of, split_manifest};
use facelatch_trainer::remote::known::KnownDoor;
use facelatch_trainer::remote::rollout::{DoorState, Fleet, Line, Parcel, roll_out};
use facelatch_trainer::remote::{RemoteDoor, photo};

/// Brings bundles over TLS, as `facelatch push --all` does.
pub(crate) struct Workstation {
    pub(crate) identity: Identity,
    pub(crate) door: KnownDoor,
}

impl Workstation {
    fn connect(&self) -> RemoteDoor {
        RemoteDoor::connect(&self.identity, &self.door).unwrap()
    }

    pub(crate) fn enrol(&self, name: &str, photos: &[PathBuf]) -> SubjectId {
        let mut link = self.connect();
        let begin = LinkRequest::BeginPhotos { name: Name::new(name).unwrap(), consent: None };
        assert_eq!(link.ask(&Request::Link(begin)).unwrap(), Response::Done);
        for path in photos {
            assert_eq!(link.send_photo(&photo::prepare(path).unwrap()).unwrap().0, None, "{path:?}");
        }
        match link.ask(&Request::Link(LinkRequest::EndPhotos)).unwrap() {
            Response::Enrolment(Enrolment::Done { id }) => id,
            other => panic!("{other:?}"),
        }
    }

    /// From the first byte to the end of the trial.
    pub(crate) fn push(self: &Arc<Self>, file: &[u8]) -> JoinHandle<DoorState> {
        let (mut fleet, file) = (Pusher(Arc::clone(self)), file.to_owned());
        std::thread::spawn(move || {
            let read_at = |offset: u64, into: &mut [u8]| {
                into.copy_from_slice(&file[offset as usize..offset as usize + into.len()]);
                Ok(())
            };
            let (id, size) = (id_of(&file), file.len() as u64);
            let counter = split_manifest(&file).counter;
            roll_out(&mut fleet, 1, &Parcel { id, counter, size, read_at: &read_at, leave_behind: 0 })
                .remove(0)
        })
    }
}

struct Pusher(Arc<Workstation>);

struct Asked(RemoteDoor);

impl Fleet for Pusher {
    fn connect(&mut self, _: usize) -> Result<Box<dyn Line>, String> {
        Ok(Box::new(Asked(self.0.connect())))
    }

    fn changed(&mut self, _: usize, state: &DoorState) {
        println!("push: {} {}", state.word(), state.detail());
    }

    fn pause(&mut self) {
        std::thread::sleep(Duration::from_millis(100));
    }
}

impl Line for Asked {
    fn ask(&mut self, request: Request) -> Result<Response, String> {
        self.0.answer(&request).map_err(|error| error.to_string())
    }
}

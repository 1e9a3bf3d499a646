use std::cell::RefCell;
use std::rc::Rc;

use facelatch_shared::bundle::{MAGIC, PREFIX_BYTES};
use facelatch_shared::embedding::ModelBinding;
use facelatch_shared::event::TrialOutcome;
use facelatch_shared::protocol::RefusedKind;
use facelatch_shared::protocol::update::{ModelsFrom, ModelsInUse, TrialStatus};

use super::*;

/// What a simulated door makes of bundles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nature {
    /// Confirms after a few looks.
    Good,
    /// Its trial fails.
    RollsBack,
    /// The bundle does not fit.
    Unfit,
    /// Somebody would be left behind.
    LeavesBehind,
    /// Nobody listens there.
    Absent,
    /// This workstation is a reader there.
    Refuses,
}

/// A door that speaks the protocol, with a clock of its own: each question is a moment.
struct SimDoor {
    nature: Nature,
    received: u64,
    size: u64,
    stage: &'static str,
    moments: u32,
    bundle: Option<BundleId>,
    coming: Option<BundleId>,
    floor: u64,
    last: Option<TrialOutcome>,
    /// Pieces that came, and connections that end after so many questions.
    pieces: u32,
    hangs_up_after: Option<u32>,
}

impl SimDoor {
    fn new(nature: Nature) -> Self {
        Self {
            nature,
            received: 0,
            size: 0,
            stage: "idle",
            moments: 0,
            bundle: None,
            coming: None,
            floor: 0,
            last: None,
            pieces: 0,
            hangs_up_after: None,
        }
    }

    fn answer(&mut self, request: Request) -> Response {
        let Request::Update(request) = request else { panic!("{request:?}") };
        if self.nature == Nature::Refuses && request != UpdateRequest::Status {
            return Response::refused(RefusedKind::Role, "paired as reader");
        }
        self.moments += 1;
        match request {
            UpdateRequest::Status => self.live(),
            UpdateRequest::Begin { size, id } => {
                if self.coming != Some(id) {
                    (self.coming, self.received) = (Some(id), 0);
                }
                self.size = size;
                if self.stage == "idle" {
                    self.stage = "receiving";
                }
            }
            UpdateRequest::Chunk { offset, bytes } => {
                assert_eq!(offset, self.received, "pieces in their order, each once");
                self.received += bytes.len() as u64;
                self.pieces += 1;
            }
            UpdateRequest::Finish => (self.stage, self.moments) = ("preparing", 0),
            UpdateRequest::Activate { leave_behind } => {
                assert!(self.stage == "ready" && (self.nature != Nature::LeavesBehind || leave_behind > 0));
                (self.stage, self.moments) = ("waiting", 0);
            }
            other => panic!("{other:?}"),
        }
        Response::Update(Box::new(self.status()))
    }

    /// Time passes.
    fn live(&mut self) {
        if self.moments < 2 {
            return;
        }
        let next = match (self.stage, self.nature) {
            ("preparing", Nature::Unfit) => "unfit",
            ("preparing", _) => "ready",
            ("waiting", _) => "trial",
            ("trial", Nature::RollsBack) => {
                self.last = Some(TrialOutcome::TooSlow);
                self.bundle = None;
                "idle"
            }
            ("trial", _) => {
                (self.bundle, self.floor, self.last) = (self.coming, COUNTER, Some(TrialOutcome::Confirmed));
                "idle"
            }
            (other, _) => other,
        };
        if next != self.stage {
            (self.stage, self.moments) = (next, 0);
        }
    }

    fn status(&self) -> UpdateStatus {
        let id = self.coming.unwrap_or(BundleId([0; 32]));
        let trial = TrialStatus {
            id,
            seconds_left: 1,
            starts: 1,
            max_starts: 3,
            probes: 0,
            p95_us: None,
            max_p95_us: 1,
            known: 0,
            only_former: 0,
            only_new: 0,
        };
        let left_behind = u32::from(self.nature == Nature::LeavesBehind);
        UpdateStatus {
            models: ModelsInUse {
                from: ModelsFrom::SlotA,
                bundle: if self.stage == "trial" { self.coming } else { self.bundle },
                name: heapless::String::new(),
                embedder: heapless::String::new(),
                binding: ModelBinding([1; 16]),
            },
            stage: match self.stage {
                "receiving" => UpdateStage::Receiving { id, offset: self.received, size: self.size },
                "preparing" => UpdateStage::Preparing { id, done: 0, of: 1 },
                "unfit" => UpdateStage::Unfit { id, why: "too slow a board".try_into().unwrap() },
                "ready" => UpdateStage::Ready { id, carried: 1, understood: 0, left_behind },
                "waiting" => UpdateStage::Waiting { id },
                "trial" => UpdateStage::Trial(trial),
                _ => UpdateStage::Idle,
            },
            counter_floor: self.floor,
            root_version: Some(1),
            last: self.last,
            can_go_back: true,
            system: None,
        }
    }
}

type Shared = Rc<RefCell<SimDoor>>;

struct SimLine {
    door: Shared,
    asked: u32,
}

impl Line for SimLine {
    fn ask(&mut self, request: Request) -> Result<Response, String> {
        self.asked += 1;
        let mut door = self.door.borrow_mut();
        if door.hangs_up_after.is_some_and(|after| self.asked > after) {
            return Err("the connection ended".into());
        }
        Ok(door.answer(request))
    }
}

struct SimFleet {
    doors: Vec<Shared>,
    seen: Vec<(usize, &'static str)>,
    /// The pusher is interrupted after so many pauses.
    patience: u32,
}

impl SimFleet {
    fn new(natures: &[Nature]) -> Self {
        let doors = natures.iter().map(|&nature| Rc::new(RefCell::new(SimDoor::new(nature)))).collect();
        Self { doors, seen: Vec::new(), patience: 10_000 }
    }

    fn run(&mut self) -> Vec<&'static str> {
        let file = file();
        let read_at = |offset: u64, into: &mut [u8]| {
            into.copy_from_slice(&file[offset as usize..offset as usize + into.len()]);
            Ok(())
        };
        let id = BundleId::of(&file[PREFIX_BYTES..PREFIX_BYTES + 100]);
        let size = file.len() as u64;
        let parcel = Parcel { id, counter: COUNTER, size, read_at: &read_at, leave_behind: 0 };
        let count = self.doors.len();
        roll_out(self, count, &parcel).iter().map(DoorState::word).collect()
    }
}

impl Fleet for SimFleet {
    fn connect(&mut self, door: usize) -> Result<Box<dyn Line>, String> {
        match self.doors[door].borrow().nature {
            Nature::Absent => Err("no route to host".into()),
            _ => Ok(Box::new(SimLine { door: Rc::clone(&self.doors[door]), asked: 0 })),
        }
    }

    fn changed(&mut self, door: usize, state: &DoorState) {
        self.seen.push((door, state.word()));
    }

    fn pause(&mut self) {
        self.patience -= 1;
        if self.patience == 0 {
            // Without a panic's many words.
            std::panic::resume_unwind(Box::new("interrupted"));
        }
    }
}

const COUNTER: u64 = 7;

/// Looks enough like a bundle to be sent: these doors do not verify it.
fn file() -> Vec<u8> {
    let header = vec![1; 100];
    [&MAGIC[..], &100_u32.to_le_bytes(), &header, &vec![2; 100_000]].concat()
}

#[test]
fn the_canary_goes_first_and_the_others_follow_once_it_confirmed() {
    use Nature::{Absent, Good, LeavesBehind, Refuses, RollsBack, Unfit};
    let mut fleet = SimFleet::new(&[Good, Good, RollsBack, Unfit, LeavesBehind, Absent, Refuses]);
    let states = fleet.run();
    assert_eq!(states, ["confirmed", "confirmed", "FAILED", "FAILED", "FAILED", "NO ANSWER", "FAILED"]);
    let of = |door: usize| -> Vec<&str> {
        let mut words: Vec<_> = fleet.seen.iter().filter(|(of, _)| *of == door).map(|(_, w)| *w).collect();
        words.dedup();
        words
    };
    assert_eq!(of(0), ["receiving", "preparing", "waiting", "on trial", "confirmed"]);
    let confirmed = fleet.seen.iter().position(|seen| *seen == (0, "confirmed")).unwrap();
    let next = fleet.seen.iter().position(|(door, _)| *door > 0).unwrap();
    assert!(confirmed < next, "nobody else is touched before");
}

#[test]
fn a_canary_that_does_not_confirm_keeps_every_other_door_as_it_is() {
    for nature in [Nature::RollsBack, Nature::Unfit, Nature::Absent, Nature::LeavesBehind] {
        let mut fleet = SimFleet::new(&[nature, Nature::Good, Nature::Good]);
        let states = fleet.run();
        assert_eq!(states[1..], ["not begun", "not begun"], "{nature:?}");
        assert!(fleet.doors[1..].iter().all(|door| door.borrow().moments == 0));
    }
    assert!(SimFleet::new(&[]).run().is_empty());
}

#[test]
fn interrupted_anywhere_and_run_again_every_door_gets_it_once() {
    let mut whole = SimFleet::new(&[Nature::Good; 4]);
    whole.run();
    let pauses = 10_000 - whole.patience;
    let pieces = whole.doors[0].borrow().pieces;
    for patience in 1..=pauses {
        let mut fleet = SimFleet::new(&[Nature::Good; 4]);
        fleet.patience = patience;
        let interrupted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| fleet.run())).is_err();
        assert!(interrupted || patience == pauses, "{patience} of {pauses}");
        fleet.patience = 10_000;
        assert_eq!(fleet.run(), ["confirmed"; 4], "interrupted at {patience}");
        for door in &fleet.doors {
            assert_eq!(door.borrow().pieces, pieces, "nothing is sent twice");
        }
        // Once more: nothing is left to do.
        let before = fleet.doors[3].borrow().pieces;
        assert_eq!(fleet.run(), ["confirmed"; 4]);
        assert_eq!(fleet.doors[3].borrow().pieces, before);
    }
}

#[test]
fn connections_that_end_are_made_again_and_the_push_goes_on() {
    let mut fleet = SimFleet::new(&[Nature::Good, Nature::Good]);
    for door in &fleet.doors {
        door.borrow_mut().hangs_up_after = Some(4);
    }
    assert_eq!(fleet.run(), ["confirmed"; 2]);
    // One that hangs up at every question is given up.
    fleet = SimFleet::new(&[Nature::Good]);
    fleet.doors[0].borrow_mut().hangs_up_after = Some(0);
    assert_eq!(fleet.run(), ["NO ANSWER"]);
}

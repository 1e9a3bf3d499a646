use super::*;
use crate::bundle::MAGIC;
use crate::bundle::Signature;
use alloc::vec::Vec;

fn id(n: u8) -> BundleId {
    BundleId([n; 32])
}

fn status(stage: UpdateStage) -> UpdateStatus {
    UpdateStatus {
        models: ModelsInUse {
            from: ModelsFrom::SlotB,
            bundle: None,
            name: "ab".try_into().unwrap(),
            embedder: "c".try_into().unwrap(),
            binding: ModelBinding([9; 16]),
        },
        stage,
        counter_floor: 4,
        root_version: Some(2),
        last: Some(TrialOutcome::TooSlow),
        can_go_back: true,
        system: None,
    }
}

/// Version 1, byte for byte. Lines are added here, never changed: a change is a new version.
#[test]
fn bytes_of_version_1_are_frozen() {
    let root = SignedRoot { document: vec![5, 6], signatures: Vec::<Signature>::new() };
    let begin = [&[19, 2, 0xAC, 2][..], &[3; 32]].concat();
    let frozen: [(UpdateRequest, &[u8]); 10] = [
        (UpdateRequest::Status, &[19, 0]),
        (UpdateRequest::Trust(root), &[19, 1, 2, 5, 6, 0]),
        (UpdateRequest::Begin { size: 300, id: id(3) }, &begin),
        (UpdateRequest::Chunk { offset: 1, bytes: vec![8, 9] }, &[19, 3, 1, 2, 8, 9]),
        (UpdateRequest::Finish, &[19, 4]),
        (UpdateRequest::LeftBehind { from: SubjectId(7) }, &[19, 5, 7]),
        (UpdateRequest::Activate { leave_behind: 2 }, &[19, 6, 2]),
        (UpdateRequest::Confirm, &[19, 7]),
        (UpdateRequest::RollBack, &[19, 8]),
        (UpdateRequest::Discard, &[19, 9]),
    ];
    for (request, bytes) in frozen {
        let request = Request::Update(request);
        assert_eq!(postcard::to_allocvec(&request).unwrap(), bytes, "{request:?}");
        assert_eq!(postcard::from_bytes::<Request>(bytes).unwrap(), request);
    }
    let head = [&[12, 2, 0, 2, b'a', b'b', 1, b'c'][..], &[9; 16]].concat();
    let tail = [4, 1, 2, 1, 2, 1, 0];
    let of = |stage: &[u8]| [&head[..], stage, &tail].concat();
    let named = |number: u8, rest: &[u8]| of(&[&[number][..], &[3; 32], rest].concat());
    let trial = TrialStatus {
        id: id(3),
        seconds_left: 60,
        starts: 1,
        max_starts: 3,
        probes: 5,
        p95_us: Some(10),
        max_p95_us: 11,
        known: 4,
        only_former: 2,
        only_new: 1,
    };
    let why = heapless::String::try_from("no").unwrap();
    for (stage, bytes) in [
        (UpdateStage::Idle, of(&[0])),
        (UpdateStage::Receiving { id: id(3), offset: 1, size: 2 }, named(1, &[1, 2])),
        (UpdateStage::Staged { id: id(3) }, named(2, &[])),
        (UpdateStage::Preparing { id: id(3), done: 1, of: 2 }, named(3, &[1, 2])),
        (UpdateStage::Unfit { id: id(3), why }, named(4, &[2, b'n', b'o'])),
        (UpdateStage::Ready { id: id(3), carried: 1, understood: 2, left_behind: 3 }, named(5, &[1, 2, 3])),
        (UpdateStage::Waiting { id: id(3) }, named(6, &[])),
        (UpdateStage::Trial(trial), named(7, &[60, 1, 3, 5, 1, 10, 11, 4, 2, 1])),
        (UpdateStage::Installing { id: id(3) }, named(8, &[])),
    ] {
        let response = Response::Update(status(stage).into());
        assert_eq!(postcard::to_allocvec(&response).unwrap(), bytes, "{response:?}");
        assert_eq!(postcard::from_bytes::<Response>(&bytes).unwrap(), response);
    }
}

#[test]
fn the_largest_piece_fits_a_message() {
    let request = Request::Update(UpdateRequest::Chunk { offset: u64::MAX, bytes: vec![0; MAX_PIECE] });
    assert_eq!(super::super::decode::<Request>(&super::super::encode(&request).unwrap()), Ok(request));
}

/// A door that only collects bytes.
#[derive(Default)]
struct Collector {
    size: u64,
    id: Option<BundleId>,
    got: Vec<u8>,
    asked: usize,
    /// At this request it forgets what it got behind 40 000 bytes, as a door does that was started anew.
    restarts_at: Option<usize>,
    /// It says yes and takes nothing.
    deaf: bool,
    /// It is busy with what it got for so many questions, once it got everything.
    busy: usize,
    /// It is on trial with something else.
    trying: bool,
}

impl Collector {
    fn ask(&mut self, request: Request) -> Result<Response, &'static str> {
        self.asked += 1;
        if self.restarts_at == Some(self.asked) {
            self.got.truncate(40_000);
        }
        let Request::Update(request) = request else { return Err("another request") };
        match request {
            UpdateRequest::Begin { size, id } => (self.size, self.id) = (size, Some(id)),
            UpdateRequest::Chunk { offset, .. } if offset != self.got.len() as u64 => {
                return Ok(Response::refused(RefusedKind::OutOfOrder, "another piece"));
            }
            UpdateRequest::Chunk { ref bytes, .. } if !self.deaf => {
                assert!(bytes.len() <= MAX_PIECE);
                self.got.extend(bytes);
            }
            _ => {}
        }
        let id = self.id.unwrap();
        let whole = self.got.len() as u64 == self.size;
        let late = Response::refused(RefusedKind::Busy, "the door did not answer in time");
        if whole && self.busy > 0 {
            self.busy -= 1;
            return Ok(late);
        }
        if self.trying && request == UpdateRequest::Finish {
            return Ok(late);
        }
        let idle = self.trying && request == UpdateRequest::Status && whole;
        Ok(Response::Update(
            status(match request {
                UpdateRequest::Finish => UpdateStage::Preparing { id, done: 0, of: 1 },
                _ if idle => UpdateStage::Idle,
                UpdateRequest::Status if whole => UpdateStage::Staged { id },
                _ => UpdateStage::Receiving { id, offset: self.got.len() as u64, size: self.size },
            })
            .into(),
        ))
    }

    fn push(&mut self, file: &[u8]) -> Result<UpdateStatus, PushError<&'static str>> {
        let read = |at: u64, into: &mut [u8]| {
            let at = at as usize;
            into.copy_from_slice(file.get(at..at + into.len()).ok_or("read behind the end")?);
            Ok(())
        };
        push(file.len() as u64, read, |request| self.ask(request), |_| {})
    }
}

fn file() -> Vec<u8> {
    let body: Vec<u8> = (0..100_000_u32).map(|i| ((i * 7) >> 3) as u8).collect();
    [&MAGIC[..], &50_u32.to_le_bytes(), &body].concat()
}

#[test]
fn a_push_sends_every_byte_once_and_goes_on_where_the_door_is() {
    let mut door = Collector::default();
    let done = door.push(&file()).unwrap();
    assert!(matches!(done.stage, UpdateStage::Preparing { .. }));
    assert_eq!(door.got, file());
    assert_eq!(door.id, Some(BundleId::of(&file()[12..62])));
    assert_eq!(door.asked, 1 + 4 + 1);

    let mut half = Collector { got: file()[..70_000].to_vec(), ..Collector::default() };
    half.push(&file()).unwrap();
    assert_eq!((half.got == file(), half.asked), (true, 1 + 1 + 1));

    let mut restarted = Collector { restarts_at: Some(4), ..Collector::default() };
    restarted.push(&file()).unwrap();
    assert_eq!(restarted.got, file());
}

#[test]
fn a_push_that_leads_nowhere_ends() {
    let mut deaf = Collector { deaf: true, ..Collector::default() };
    assert!(matches!(deaf.push(&file()), Err(PushError::Unexpected)));
    assert!(deaf.asked < 5);
    let mut door = Collector::default();
    assert!(matches!(door.push(b"PK\x03\x04 a zip file"), Err(PushError::Bundle(BundleError::NotABundle))));
    let short = &file()[..30];
    assert!(matches!(door.push(short), Err(PushError::Bundle(BundleError::Truncated { missing: 32 }))));
    assert!(matches!(door.push(&file()[..5]), Err(PushError::Bundle(BundleError::Truncated { missing: 7 }))));
    assert_eq!(door.asked, 0);
}

#[test]
fn a_door_that_verifies_for_long_is_waited_for() {
    let mut door = Collector { busy: 7, ..Collector::default() };
    assert!(matches!(door.push(&file()).unwrap().stage, UpdateStage::Preparing { .. }));
    assert_eq!((door.got == file(), door.asked), (true, 1 + 4 + 7 + 1));
    let mut stuck = Collector { busy: usize::MAX, ..Collector::default() };
    assert!(
        matches!(stuck.push(&file()), Err(PushError::Refused(refused)) if refused.kind == RefusedKind::Busy)
    );
    // Busy with something else is no reason to wait.
    let mut trying = Collector { trying: true, ..Collector::default() };
    assert!(
        matches!(trying.push(&file()), Err(PushError::Refused(refused)) if refused.kind == RefusedKind::Busy)
    );
    assert_eq!(trying.asked, 1 + 4 + 1 + 1);
}

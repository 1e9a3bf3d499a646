use super::*;
use crate::embedding::ModelBinding;
use crate::event::{EventKind, Refusal};
use crate::score::{Similarity, Threshold};
use crate::time::Millis;
use alloc::vec;
use proptest::prelude::*;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn row(id: u32) -> PersonRow {
    PersonRow {
        id: SubjectId(id),
        name: name("Ada"),
        state: PersonState::Suspended,
        enrolled_at: UnixMs(1),
        templates: 5,
    }
}

/// Version 1, byte for byte. Lines are added here, never changed: a change is a new version.
#[test]
fn requests_of_version_1_are_frozen() {
    let change = RightsChange {
        role: Some(Role::Administrator),
        valid_until: Some(Some(Day(1))),
        schedule: Some(None),
        ..RightsChange::default()
    };
    let frozen: [(Request, &[u8]); 22] = [
        (Request::Hello { version: 1 }, &[0, 1]),
        (Request::Status, &[1]),
        (Request::ListPeople { from: SubjectId(300) }, &[2, 0xAC, 2]),
        (Request::Enrol { name: name("Ada") }, &[3, 3, b'A', b'd', b'a']),
        (Request::EnrolProgress, &[4]),
        (Request::CancelEnrol, &[5]),
        (Request::Rename { id: SubjectId(3), name: name("Bo") }, &[6, 3, 2, b'B', b'o']),
        (Request::SetState { id: SubjectId(3), state: PersonState::Suspended }, &[7, 3, 1]),
        (Request::Erase { id: SubjectId(3) }, &[8, 3]),
        (Request::ListEvents { from: 1 }, &[9, 1]),
        (Request::VerifyEvents, &[10]),
        (Request::LastEvents { count: 50 }, &[11, 50]),
        (Request::Rules, &[12]),
        (Request::ListRights { from: SubjectId(1) }, &[13, 1]),
        (Request::SetRights { id: SubjectId(3), change }, &[14, 3, 1, 1, 0, 1, 1, 2, 1, 0, 0]),
        (Request::Unbar, &[15]),
        (Request::AcceptClock, &[16]),
        (Request::CheckEvents, &[17]),
        (Request::Link(LinkRequest::ListPeers), &[18, 2]),
        (Request::EnrolAgreed { name: name("Ada") }, &[20, 3, b'A', b'd', b'a']),
        (Request::ErasureReceipt { id: SubjectId(3) }, &[21, 3]),
        (Request::Transfer(TransferRequest::NextPerson { from: SubjectId(3) }), &[22, 2, 3]),
    ];
    for (request, bytes) in frozen {
        assert_eq!(postcard::to_allocvec(&request).unwrap(), bytes, "{request:?}");
        assert_eq!(postcard::from_bytes::<Request>(bytes).unwrap(), request);
    }
}

#[test]
fn responses_of_version_1_are_frozen() {
    let status = Status {
        version: heapless::String::try_from("0.1").unwrap(),
        uptime_s: 60,
        door: name("Door"),
        people: 2,
        frames: 300,
        dropped: 1,
        camera_ok: true,
        released: false,
    };
    let event = Event { seq: 5, at: UnixMs(-1), uptime: Millis(300), kind: EventKind::Released };
    let rules = Rules {
        threshold: Threshold(0.5),
        source: ThresholdFrom::Model,
        templates: 7,
        local: Some(LocalTime { day: Day(1), minute: 2 }),
        barred: true,
        liveness: Liveness::Challenge,
    };
    let rights = RightsRow {
        id: SubjectId(3),
        role: Role::Member,
        valid_from: None,
        valid_until: Some(Day(1)),
        schedule: None,
        has_pin: true,
        consent: None,
    };
    let checked = Response::Checked { events: 9, broken_at: vec![], damaged_bytes: 0, missing_end: Some(10) };
    let frozen: [(Response, &[u8]); 16] = [
        (Response::Hello { version: 1 }, &[0, 1]),
        (Response::Done, &[1]),
        (
            Response::Status(status),
            &[2, 3, b'0', b'.', b'1', 60, 4, b'D', b'o', b'o', b'r', 2, 0xAC, 2, 1, 1, 0],
        ),
        (Response::People(vec![row(3)]), &[3, 1, 3, 3, b'A', b'd', b'a', 1, 2, 5]),
        (Response::Enrolment(Enrolment::None), &[4, 0]),
        (Response::Enrolment(Enrolment::Running { taken: 2, wanted: 5 }), &[4, 1, 2, 5]),
        (Response::Enrolment(Enrolment::Done { id: SubjectId(7) }), &[4, 2, 7]),
        (
            Response::Enrolment(Enrolment::Failed(EnrolFailure::AlreadyEnrolled { subject: SubjectId(3) })),
            &[4, 3, 2, 3],
        ),
        (Response::Events(vec![event]), &[5, 1, 5, 1, 0xAC, 2, 4]),
        (Response::Verified { events: 9, broken_at: vec![4], damaged_bytes: 0 }, &[6, 9, 1, 4, 0]),
        (Response::refused(RefusedKind::UnknownPerson, "no"), &[7, 0, 2, b'n', b'o']),
        (Response::refused(RefusedKind::Malformed, ""), &[7, 5, 0]),
        (Response::Rules(rules), &[8, 0, 0, 0, 0x3F, 1, 7, 1, 2, 2, 1, 1]),
        (Response::Rights(vec![rights]), &[9, 1, 3, 0, 0, 1, 2, 0, 1, 0]),
        (checked, &[10, 9, 0, 0, 1, 10]),
        (Response::Link(LinkResponse::PhotoPart { received: 5 }), &[11, 3, 5]),
    ];
    for (response, bytes) in frozen {
        assert_eq!(postcard::to_allocvec(&response).unwrap(), bytes, "{response:?}");
        assert_eq!(postcard::from_bytes::<Response>(bytes).unwrap(), response);
    }
}

#[test]
fn frames_of_version_1_are_frozen() {
    let hello = encode(&Request::Hello { version: 1 }).unwrap();
    assert_eq!(hello, [1, 2, 1, 0], "a zero, then one byte that is none, then the end");
    let rename = encode(&Request::Rename { id: SubjectId(3), name: name("Bo") }).unwrap();
    assert_eq!(rename, [6, 6, 3, 2, b'B', b'o', 0]);
}

#[test]
fn the_fullest_pages_fit() {
    let mut fullest = row(u32::MAX);
    fullest.name = name(&"n".repeat(48));
    fullest.enrolled_at = UnixMs(i64::MIN);
    let people = encode(&Response::People(vec![fullest; PAGE])).unwrap();
    let started = EventKind::Started {
        version: heapless::String::try_from("v".repeat(24).as_str()).unwrap(),
        model: ModelBinding([0xFF; 16]),
        people: u32::MAX,
    };
    let refused = EventKind::Refused {
        reason: Refusal::Suspended,
        subject: Some(SubjectId(u32::MAX)),
        similarity: Some(Similarity(1.0)),
        threshold: Threshold(1.0),
    };
    for kind in [started, refused] {
        let event = Event { seq: u64::MAX, at: UnixMs(i64::MIN), uptime: Millis(u64::MAX), kind };
        let events = encode(&Response::Events(vec![event; PAGE])).unwrap();
        assert!(events.len() <= MAX_MESSAGE, "{} bytes of events", events.len());
    }
    assert!(people.len() <= MAX_MESSAGE, "{} bytes of people", people.len());
}

#[test]
fn what_is_too_long_is_refused_by_both_ends() {
    let too_many = Response::Verified { events: 0, broken_at: vec![u64::MAX; 7_000], damaged_bytes: 0 };
    assert!(matches!(encode(&too_many), Err(FrameError::TooLong { bytes }) if bytes > 70_000));
    let frame = vec![1; MAX_FRAME + 1];
    assert_eq!(decode::<Request>(&frame), Err(FrameError::TooLong { bytes: MAX_FRAME + 1 }));
}

#[test]
fn garbage_is_a_typed_error() {
    for (frame, error) in [
        (&[][..], FrameError::NotAFrame),
        (&[0], FrameError::NotAFrame),
        (&[9, 1, 0], FrameError::NotAFrame),
        (&[1, 0, 1, 0], FrameError::NotAFrame),
        (&[2, 99, 0], FrameError::NotAMessage),
        // `Status` and a byte behind it.
        (&[3, 1, 1, 0], FrameError::NotAMessage),
        // A name of one control character.
        (&[4, 3, 1, 7, 0], FrameError::NotAMessage),
    ] {
        assert_eq!(decode::<Request>(frame), Err(error), "{frame:?}");
    }
    assert_eq!(decode::<Request>(b"GET / HTTP/1.1\r\n\r\n"), Err(FrameError::NotAFrame));
}

#[test]
fn a_refusal_is_cut_between_characters() {
    let Response::Refused(refused) = Response::refused(RefusedKind::Busy, &"é".repeat(200)) else {
        panic!()
    };
    assert_eq!(refused.message.as_str(), "é".repeat(128));
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = decode::<Request>(&bytes);
        let _ = decode::<Response>(&bytes);
        let mut framed = postcard::to_allocvec_cobs(&bytes).unwrap();
        let _ = decode::<Response>(&framed);
        framed.pop();
        let _ = decode::<Request>(&framed);
    }

    #[test]
    fn what_is_encoded_comes_back(broken_at in prop::collection::vec(any::<u64>(), 0..300), events in any::<u64>(), damaged_bytes in any::<u64>()) {
        let response = Response::Verified { events, broken_at, damaged_bytes };
        let frame = encode(&response).unwrap();
        prop_assert_eq!(frame.iter().filter(|&&b| b == 0).count(), 1);
        prop_assert_eq!(decode::<Response>(&frame).unwrap(), response);
    }

    #[test]
    fn stuffing_is_undone_for_runs_of_any_length(zeros in prop::collection::vec(0..600_usize, 0..4)) {
        let mut raw = Vec::new();
        for run in zeros {
            raw.extend(core::iter::repeat_n(7_u8, run));
            raw.push(0);
        }
        // A byte string in postcard is a length and the bytes.
        let frame = encode(&raw).unwrap();
        prop_assert_eq!(decode::<Vec<u8>>(&frame).unwrap(), raw);
    }
}

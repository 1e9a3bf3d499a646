//! The head turn at the door, played with synthetic heads and prints.

use facelatch_shared::align::Fiducials68;
use facelatch_shared::event::Refusal;
use facelatch_shared::liveness::Turn;
use facelatch_shared::liveness::synthetic::{Kind, Sequence};

use super::tests::{Door, matched, policy};
use super::*;

fn asking() -> Door {
    let liveness = LivenessPolicy { ask: true, mirrored: false, timeout_s: 8, seed: [7; 16] };
    Door::with(Policy { liveness, ..policy() })
}

fn frame(door: &mut Door, who: u32, similarity: f32, fiducials: Option<Fiducials68>) {
    door.now = door.now.plus(100);
    let mut seen = matched(who, similarity, PersonState::Active);
    // The face in the picture is the same, whoever it looks like.
    seen.track = TrackId(1);
    seen.fiducials = fiducials;
    door.give(Input::Seen(Sighting::Probe(seen)));
}

/// Recognised, and asked for a turn.
fn challenged() -> (Door, Turn) {
    let mut door = asking();
    for _ in 0..3 {
        frame(&mut door, 1, 0.7, None);
    }
    assert!(!door.released);
    let Screen::TurnHead(asked) = door.session.screen(door.now) else { panic!("{}", door.slug()) };
    (door, asked)
}

fn degrees(asked: Turn, magnitude: f32) -> f32 {
    if asked == Turn::Left { magnitude } else { -magnitude }
}

fn play(door: &mut Door, kind: Kind) {
    for fiducials in Sequence::new(kind, 0.012, 11) {
        if !matches!(door.session.phase, Phase::Challenging(_)) {
            break;
        }
        frame(door, 1, 0.6, Some(fiducials));
    }
}

fn refused(door: &Door) -> Option<Refusal> {
    door.log.iter().find_map(|kind| match kind {
        EventKind::Refused { reason, .. } => Some(*reason),
        _ => None,
    })
}

#[test]
fn a_head_that_turns_as_asked_opens() {
    let (mut door, asked) = challenged();
    play(&mut door, Kind::Head { turn_deg: degrees(asked, 20.0) });
    assert!(door.released);
    assert_eq!(door.slug(), "welcome");
    assert!(matches!(
        door.log[..],
        [EventKind::ChallengePassed { .. }, EventKind::Granted { .. }, EventKind::Released]
    ));
}

#[test]
fn the_other_way_no_turn_at_all_and_prints_do_not_open() {
    let (mut door, asked) = challenged();
    play(&mut door, Kind::Head { turn_deg: degrees(asked, -20.0) });
    assert_eq!((door.released, refused(&door)), (false, Some(Refusal::NotTurned)));

    let (mut door, _) = challenged();
    play(&mut door, Kind::Head { turn_deg: 0.0 });
    door.wait(8_000);
    assert_eq!((door.released, refused(&door)), (false, Some(Refusal::NotTurned)));
    assert_eq!(door.slug(), "not-turned");

    let (mut door, asked) = challenged();
    play(&mut door, Kind::Print { turn_deg: degrees(asked, 35.0), tip_deg: 0.0 });
    assert_eq!((door.released, refused(&door)), (false, Some(Refusal::NotLive)));
    assert_eq!(door.slug(), "not-live");

    let (mut door, asked) = challenged();
    play(&mut door, Kind::Bent { radius: 1.7, turn_deg: degrees(asked, 25.0) });
    door.wait(8_000);
    assert!(!door.released);
}

#[test]
fn a_face_of_ones_own_behind_a_photograph_does_not_open() {
    // The photograph was recognised; the head that turns is another's.
    let (mut door, asked) = challenged();
    for fiducials in Sequence::new(Kind::Head { turn_deg: degrees(asked, 20.0) }, 0.01, 3) {
        frame(&mut door, 1, 0.3, Some(fiducials));
    }
    door.wait(8_000);
    assert!(!door.released, "it is not recognised");
    let (mut door, asked) = challenged();
    for fiducials in Sequence::new(Kind::Head { turn_deg: degrees(asked, 20.0) }, 0.01, 3).take(1) {
        frame(&mut door, 2, 0.7, Some(fiducials));
    }
    assert_eq!((door.released, refused(&door)), (false, Some(Refusal::NotLive)), "it is somebody else");
    // And another face in the picture begins anew.
    let (mut door, _) = challenged();
    door.see(5, 0.7, 1);
    assert_eq!(door.slug(), "looking");
}

#[test]
fn without_fiducials_nothing_passes_and_the_pin_comes_after() {
    let (mut door, _) = challenged();
    for _ in 0..60 {
        frame(&mut door, 1, 0.8, None);
    }
    door.wait(8_000);
    assert!(!door.released);

    let liveness = LivenessPolicy { ask: true, mirrored: false, timeout_s: 8, seed: [7; 16] };
    let mut door = Door::with(Policy { liveness, second_factor: SecondFactor::Pin, ..policy() });
    let rights = Rights { pin: Some("4711".try_into().unwrap()), ..Rights::default() };
    let mut seen = matched(1, 0.7, PersonState::Active);
    seen.who.as_mut().unwrap().rights = rights;
    for _ in 0..3 {
        door.give(Input::Seen(Sighting::Probe(seen.clone())));
    }
    let Screen::TurnHead(asked) = door.session.screen(door.now) else { panic!("{}", door.slug()) };
    play(&mut door, Kind::Head { turn_deg: degrees(asked, 20.0) });
    assert_eq!((door.released, door.slug()), (false, "enter-pin"));
}

#[test]
fn both_ways_are_asked_for() {
    let mut ways = std::vec![];
    let mut door = asking();
    for _ in 0..40 {
        for _ in 0..3 {
            frame(&mut door, 1, 0.7, None);
        }
        let Screen::TurnHead(asked) = door.session.screen(door.now) else { panic!("{}", door.slug()) };
        ways.push(asked);
        door.give(Input::PeopleChanged);
    }
    let left = ways.iter().filter(|way| **way == Turn::Left).count();
    assert!((8..=32).contains(&left), "{left} of 40 to the left");
}

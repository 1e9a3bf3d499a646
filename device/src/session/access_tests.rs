//! Who may enter when, and what is asked for beside the face.

use facelatch_shared::event::Refusal;
use facelatch_shared::schedule::Day;

use super::tests::{Door, matched, name, policy};
use super::*;
use crate::access::AccessConfig;

/// Frames of person 1, who is known, with these rights.
fn come(door: &mut Door, rights: &Rights) {
    come_as(door, 1, rights);
}

fn come_as(door: &mut Door, who: u32, rights: &Rights) {
    for _ in 0..3 {
        door.now = door.now.plus(100);
        let mut seen = matched(who, 0.7, PersonState::Active);
        seen.who = Some(Known { name: name("Ada"), state: PersonState::Active, rights: rights.clone() });
        door.give(Input::Seen(Sighting::Probe(seen)));
    }
}

fn type_in(door: &mut Door, digits: &str) {
    for c in digits.chars() {
        door.give(Input::Key(match c {
            '#' => Key::Enter,
            '*' => Key::Clear,
            digit => Key::Digit(digit as u8 - b'0'),
        }));
    }
}

fn refusals(door: &Door) -> std::vec::Vec<Refusal> {
    let reason = |kind: &EventKind| match kind {
        EventKind::Refused { reason, .. } => Some(*reason),
        _ => None,
    };
    door.log.iter().filter_map(reason).collect()
}

fn office(while_unknown: &str) -> Policy {
    let access: AccessConfig = toml::from_str(&format!(
        "schedule = \"office\"\nwhile_time_unknown = \"{while_unknown}\"\n[schedules]\noffice = [\"mon-fri 08:00-18:00\"]"
    ))
    .unwrap();
    Policy { calendar: access.calendar().unwrap(), ..policy() }
}

fn tuesday(hour: u16) -> Input {
    Input::Wall(Some(LocalTime { day: Day::parse("2026-11-24").unwrap(), minute: hour * 60 + 5 }))
}

#[test]
fn hours_hold_at_the_door() {
    let mut door = Door::with(office("deny"));
    door.give(tuesday(9));
    assert_eq!(
        door.session.screen(door.now),
        Screen::Idle { door: name("Lab"), clock: "09:05".try_into().unwrap() }
    );
    come(&mut door, &Rights::default());
    assert!(door.released);
    door.wait(5_000);
    door.give(tuesday(18));
    come(&mut door, &Rights::default());
    assert!(!door.released);
    assert_eq!(door.slug(), "out-of-hours");
    door.wait(3_000);
    come(&mut door, &Rights { schedule: Some("always".try_into().unwrap()), ..Rights::default() });
    assert!(door.released, "a schedule of one's own");
}

#[test]
fn days_of_validity_hold_at_the_door() {
    let until = |text| Rights { valid_until: Some(Day::parse(text).unwrap()), ..Rights::default() };
    let mut door = Door::with(policy());
    door.give(tuesday(9));
    come(&mut door, &until("2026-11-23"));
    assert_eq!((door.released, door.slug()), (false, "expired"));
    door.wait(3_000);
    come(&mut door, &until("2026-11-24"));
    assert!(door.released);
}

#[test]
fn an_unknown_time_is_the_configurations_to_judge() {
    let mut door = Door::with(office("deny"));
    come(&mut door, &Rights::default());
    assert_eq!((door.released, door.slug()), (false, "time-unknown"));
    let mut door = Door::with(office("allow"));
    come(&mut door, &Rights::default());
    assert!(door.released);
    door.wait(5_000);
    // The clock is lost at work: from then on it does not count.
    let mut door = Door::with(office("deny"));
    door.give(tuesday(9));
    door.give(Input::Wall(None));
    come(&mut door, &Rights::default());
    assert!(!door.released);
    assert_eq!(refusals(&door), [Refusal::TimeUnknown]);
}

fn with_pin() -> (Door, Rights) {
    let door = Door::with(Policy { second_factor: SecondFactor::Pin, ..policy() });
    (door, Rights { pin: Some("4711".try_into().unwrap()), ..Rights::default() })
}

#[test]
fn face_and_pin_together_open() {
    let (mut door, rights) = with_pin();
    type_in(&mut door, "4711#");
    come(&mut door, &rights);
    assert!(!door.released, "keys before the face count for nothing");
    assert_eq!(door.session.screen(door.now), Screen::EnterPin { typed: 0 });
    type_in(&mut door, "12*47");
    assert_eq!(door.session.screen(door.now), Screen::EnterPin { typed: 2 });
    type_in(&mut door, "11");
    assert!(!door.released, "not before it is entered");
    type_in(&mut door, "#");
    assert!(door.released);
    assert!(matches!(door.log[0], EventKind::Granted { .. }));
}

#[test]
fn a_wrong_pin_a_late_one_and_none_at_all() {
    let (mut door, rights) = with_pin();
    come(&mut door, &rights);
    type_in(&mut door, "4712#");
    assert_eq!((door.released, door.slug()), (false, "wrong-pin"));
    type_in(&mut door, "4711#");
    assert!(!door.released, "each attempt begins with the face");
    door.wait(3_000);
    come(&mut door, &rights);
    type_in(&mut door, "471");
    door.wait(20_000);
    assert_eq!(door.slug(), "pin-timed-out");
    type_in(&mut door, "1#");
    assert!(!door.released);
    door.wait(3_000);
    come(&mut door, &Rights::default());
    assert_eq!(door.slug(), "no-pin");
    assert_eq!(refusals(&door), [Refusal::WrongPin, Refusal::PinTimedOut, Refusal::NoPin]);
    // Called off by the person: no failure.
    door.wait(3_000);
    come(&mut door, &rights);
    type_in(&mut door, "*");
    assert_eq!(door.slug(), "idle");
    assert_eq!(refusals(&door).len(), 3);
}

#[test]
fn a_change_by_the_administrator_ends_what_is_under_way() {
    let (mut door, rights) = with_pin();
    come(&mut door, &rights);
    door.give(Input::PeopleChanged);
    type_in(&mut door, "4711#");
    assert!(!door.released);
    assert_eq!(door.slug(), "idle");
}

#[test]
fn nobody_comes_in_twice_on_one_entry() {
    let mut door = Door::with(Policy { anti_passback_s: 600, ..policy() });
    let member = Rights::default();
    come(&mut door, &member);
    door.contact(true);
    door.wait(1_000);
    door.contact(false);
    assert!(!door.released);
    come(&mut door, &member);
    assert_eq!((door.released, door.slug()), (false, "passed-back"));
    door.wait(3_000);
    come_as(&mut door, 2, &member);
    assert!(door.released, "others enter");
    door.wait(600_000);
    come(&mut door, &member);
    assert!(door.released, "and so does the first, later");
}

#[test]
fn whoever_did_not_go_in_may_try_again() {
    let mut door = Door::with(Policy { anti_passback_s: 600, ..policy() });
    door.contact(false);
    come(&mut door, &Rights::default());
    door.wait(5_000);
    assert!(!door.released);
    come(&mut door, &Rights::default());
    assert!(door.released);
}

#[test]
fn fifty_failures_bar_the_door_until_an_administrator_acts() {
    let mut door = Door::with(policy());
    let mut waited = 0;
    for _ in 0..49 {
        door.see(7, 0.2, 5);
        assert_eq!(door.count(|kind| matches!(kind, EventKind::Barred { .. })), 0);
        door.wait(61_000);
        waited += 1;
    }
    assert_eq!(waited, 49, "time forgives the pause, not the count");
    door.see(7, 0.2, 5);
    assert_eq!(door.slug(), "barred");
    assert!(door.log.contains(&EventKind::Barred { failures: 50 }));
    door.wait(3_600_000);
    come(&mut door, &Rights::default());
    assert!(!door.released, "not even someone known");
    // The way out is free.
    door.give(Input::Contacts(InputState { exit_requested: true, ..InputState::default() }));
    assert!(door.released);
    door.wait(5_000);
    door.give(Input::LiftBar(Authority::CommandLine));
    assert_eq!(door.log.last(), Some(&EventKind::BarLifted { by: Authority::CommandLine }));
    come(&mut door, &Rights::default());
    assert!(door.released);
}

#[test]
fn success_ends_the_count_and_known_people_do_not_add_to_it() {
    let mut door =
        Door::with(Policy { times: SessionConfig { bar_after: 6, ..SessionConfig::default() }, ..policy() });
    for round in 0..4 {
        for _ in 0..4 {
            door.see(7, 0.2, 5);
            door.wait(61_000);
        }
        for _ in 0..4 {
            door.give(Input::Seen(Sighting::Probe(matched(9, 0.9, PersonState::Suspended))));
            door.wait(61_000);
        }
        come(&mut door, &Rights::default());
        assert!(door.released, "round {round}");
        door.wait(5_000);
    }
    assert!(!door.session.is_barred());
}

#[test]
fn a_restart_does_not_begin_the_count_anew() {
    let mut session = Session::new(policy(), History { suspicious: 49, barred: false });
    for _ in 0..5 {
        let _ = session.step(Millis(5), Input::Seen(Sighting::Probe(matched(7, 0.1, PersonState::Active))));
    }
    assert!(session.is_barred());
    assert!(Session::new(policy(), History { suspicious: 3, barred: true }).is_barred());
}

//! Enrolment from beginning to end: who may begin it, how the person is guided, and what is stored.

use facelatch_shared::access::Role;
use facelatch_shared::event::Refusal;
use facelatch_shared::gallery::Candidate;
use facelatch_shared::pose::View;
use facelatch_shared::quality::Head;
use facelatch_shared::score::Similarity;

use super::tests::{Door, matched, mixed, name, order, policy};
use super::*;
use crate::display::Instruction;

const FRAME_MS: u64 = 100;

fn guided() -> Policy {
    Policy { enrol: EnrolConfig { admin_pin: Some("4711".into()), ..EnrolConfig::default() }, ..policy() }
}

/// A frame of a person whom nobody knows, with the head at these degrees; `None`: the pose cannot be told.
fn face(pose: Option<(f32, f32)>, template: Template, nearest: Option<(u32, f32)>) -> Input {
    let head = pose.map(|(yaw_deg, pitch_deg)| Head { yaw_deg, pitch_deg, roll_deg: 0.0, hidden: 0.0 });
    let best = nearest
        .map(|(who, similarity)| Candidate { subject: SubjectId(who), similarity: Similarity(similarity) });
    Input::Seen(Sighting::Probe(Matched {
        template,
        report: Some(MatchReport { best, runner_up: None, templates: 1 }),
        who: None,
        quality: Quality { head, sharpness: 20.0, eye_distance_px: 40.0, ..Quality::default() },
        // Points that are no face: without a head nothing tells the pose.
        landmarks: Landmarks5::default(),
        ..matched(1, 0.0, PersonState::Active)
    }))
}

impl Door {
    fn pose(&mut self, yaw: f32, pitch: f32, frames: usize) {
        for _ in 0..frames {
            self.now = self.now.plus(FRAME_MS);
            // Views of one person are alike and never the same.
            let template = mixed(1, 2, (yaw.abs() + pitch.abs()) / 100.0);
            self.give(face(Some((yaw, pitch)), template, None));
        }
    }

    fn all_poses(&mut self) {
        for (yaw, pitch) in [(0.0, -3.0), (18.0, -3.0), (-18.0, 0.0), (0.0, 9.0), (0.0, -15.0)] {
            self.pose(yaw, pitch, 12);
        }
    }

    fn service(&mut self, pressed: bool) {
        self.give(Input::Contacts(InputState { service: pressed, ..InputState::default() }));
    }

    fn keys(&mut self, digits: &[u8], last: Key) {
        digits.iter().for_each(|digit| self.give(Input::Key(Key::Digit(*digit))));
        self.give(Input::Key(last));
    }

    fn started_by(&self) -> Option<Authority> {
        self.log.iter().rev().find_map(|kind| match kind {
            EventKind::EnrolStarted { by } => Some(*by),
            _ => None,
        })
    }
}

fn administrator(role: Role) -> Input {
    let mut seen = matched(3, 0.9, PersonState::Active);
    seen.who = Some(Known {
        name: name("Bo"),
        state: PersonState::Active,
        rights: Rights { role, ..Rights::default() },
    });
    Input::Seen(Sighting::Probe(seen))
}

#[test]
fn the_panel_guides_from_side_to_side_and_the_best_of_each_is_kept() {
    let mut door = Door::with(guided());
    door.give(order("Ada"));
    let mut slugs = vec![door.slug()];
    for (yaw, pitch) in [(0.0, -3.0), (18.0, -3.0), (-18.0, 0.0), (0.0, 9.0), (0.0, -15.0)] {
        // Looking elsewhere than asked is no view.
        door.pose(40.0, 0.0, usize::from(slugs.len() == 1) * 3);
        door.pose(yaw, pitch, 12);
        slugs.push(door.slug());
    }
    assert_eq!(slugs, ["enrol", "enrol-left", "enrol-right", "enrol-up", "enrol-down", "enrol"]);
    assert_eq!(door.stored, [5]);
    door.give(Input::EnrolStored(Some(SubjectId(4))));
    assert_eq!((door.slug(), door.session.enrolment()), ("enrolled", Enrolment::Done { id: SubjectId(4) }));
    assert!(!door.released);
}

#[test]
fn a_mirrored_camera_turns_left_and_right_round() {
    let mut policy = guided();
    policy.liveness.mirrored = true;
    let mut door = Door::with(policy);
    door.give(order("Ada"));
    door.pose(0.0, 0.0, 12);
    door.pose(18.0, 0.0, 12);
    assert_eq!(door.slug(), "enrol-left");
    door.pose(-18.0, 0.0, 12);
    assert_eq!(door.slug(), "enrol-right");
}

#[test]
fn who_cannot_turn_is_enrolled_from_the_front_and_it_says_so() {
    let mut door = Door::with(guided());
    door.give(order("Ada"));
    door.pose(0.0, 0.0, 30);
    let guided = door.session.enrolment();
    assert_eq!(guided, Enrolment::Guided { taken: 1, wanted: 5, view: View::Left });
    door.pose(0.0, 0.0, 200);
    assert_eq!(door.stored, [3]);
    door.give(Input::EnrolStored(Some(SubjectId(4))));
    assert_eq!(door.slug(), "enrolled-front-only");
    let noting = Enrolment::DoneNoting { id: SubjectId(4), front_only: true, lookalike: None };
    assert_eq!(door.session.enrolment(), noting);
}

#[test]
fn one_side_that_is_not_shown_is_left_out() {
    let mut door = Door::with(guided());
    door.give(order("Ada"));
    door.pose(0.0, 0.0, 12);
    door.pose(0.0, 0.0, 90);
    assert_eq!(door.slug(), "enrol-right");
    for (yaw, pitch) in [(-18.0, 0.0), (0.0, 12.0), (0.0, -12.0)] {
        door.pose(yaw, pitch, 12);
    }
    door.give(Input::EnrolStored(Some(SubjectId(4))));
    assert_eq!((door.stored.clone(), door.slug()), (vec![5], "enrolled"));
}

#[test]
fn where_no_pose_can_be_told_the_front_does_at_once() {
    let mut door = Door::with(guided());
    door.give(order("Ada"));
    for _ in 0..25 {
        door.now = door.now.plus(FRAME_MS);
        door.give(face(None, mixed(1, 2, 0.0), None));
    }
    assert_eq!(door.stored, [3]);
    door.give(Input::EnrolStored(Some(SubjectId(4))));
    assert_eq!(door.slug(), "enrolled-front-only");
}

#[test]
fn a_lookalike_is_warned_of_and_somebody_known_is_refused() {
    let near = |similarity| {
        let mut door = Door::with(guided());
        door.give(order("Ada"));
        for frame in 0..60 {
            if !door.session.is_enrolling() {
                return door;
            }
            door.now = door.now.plus(FRAME_MS);
            let yaw = if frame < 15 { 0.0 } else { 18.0 };
            door.give(face(Some((yaw, 0.0)), mixed(1, 2, 0.0), Some((9, similarity))));
        }
        door.pose(-18.0, 0.0, 12);
        door.pose(0.0, 12.0, 12);
        door.pose(0.0, -12.0, 12);
        door.give(Input::EnrolStored(Some(SubjectId(4))));
        door
    };
    // The threshold is 0.4, the rank gap 0.05.
    assert_eq!(near(0.34).slug(), "enrolled");
    let door = near(0.36);
    assert_eq!(door.slug(), "enrolled-lookalike");
    assert_eq!(
        door.count(|kind| *kind == EventKind::Lookalike { subject: SubjectId(4), other: SubjectId(9) }),
        1
    );
    let door = near(0.8);
    let known = EnrolFailure::AlreadyEnrolled { subject: SubjectId(9) };
    assert_eq!((door.slug(), door.session.enrolment()), ("enrol-already-enrolled", Enrolment::Failed(known)));
    assert!(door.stored.is_empty());
}

#[test]
fn somebody_elses_side_is_not_taken() {
    let mut door = Door::with(guided());
    door.give(order("Ada"));
    door.pose(0.0, 0.0, 12);
    for _ in 0..20 {
        door.now = door.now.plus(FRAME_MS);
        door.give(face(Some((18.0, 0.0)), super::tests::template(77), None));
    }
    assert_eq!(door.session.enrolment(), Enrolment::Failed(EnrolFailure::NotOnePerson));
}

#[test]
fn consent_is_asked_first_recorded_with_the_person_and_can_be_refused() {
    let mut policy = guided();
    policy.enrol.consent = Some("2026-1".into());
    let mut door = Door::with(policy.clone());
    door.give(order("Ada"));
    assert_eq!((door.slug(), door.session.enrolment()), ("consent", Enrolment::AskingConsent));
    door.all_poses();
    assert!(door.stored.is_empty(), "nothing is taken before");
    assert!(!door.session.wants_preview());
    door.give(Input::Key(Key::Enter));
    assert_eq!((door.slug(), door.session.wants_preview()), ("enrol", true));
    door.all_poses();
    let label = Label::try_from("2026-1").unwrap();
    assert_eq!(door.consents, [Some((label.clone(), Authority::CommandLine))]);
    door.give(Input::EnrolStored(Some(SubjectId(4))));
    let consented = EventKind::Consented { subject: SubjectId(4), text: label, by: Authority::CommandLine };
    assert_eq!(door.count(|kind| *kind == consented), 1);
    // Declined, and not answered.
    for answer in [Input::Key(Key::Clear), Input::Tick] {
        let mut door = Door::with(policy.clone());
        door.give(order("Ada"));
        door.now = door.now.plus(if matches!(answer, Input::Tick) { 61_000 } else { 10 });
        door.give(answer);
        assert_eq!(door.session.enrolment(), Enrolment::Failed(EnrolFailure::NoConsent));
        assert_eq!((door.slug(), door.stored.len()), ("enrol-no-consent", 0));
    }
    // Agreed on paper.
    let mut door = Door::with(policy);
    door.give(Input::StartEnrol(EnrolOrder { name: None, by: Authority::CommandLine, agreed: true }));
    assert_eq!(door.slug(), "enrol");
    door.all_poses();
    assert_eq!(door.consents.len(), 1);
}

#[test]
fn the_service_button_held_begins_and_ends_an_enrolment() {
    let mut door = Door::with(guided());
    door.service(true);
    assert_eq!(door.session.next_deadline(), Some(door.now.plus(2_000)));
    door.wait(1_900);
    assert_eq!(door.slug(), "idle");
    door.wait(100);
    assert_eq!((door.slug(), door.started_by()), ("enrol", Some(Authority::ServiceButton)));
    door.service(false);
    assert_eq!(door.slug(), "enrol", "letting go of it does nothing more");
    door.pose(0.0, 0.0, 12);
    door.service(true);
    door.wait(2_000);
    assert_eq!(door.session.enrolment(), Enrolment::Failed(EnrolFailure::Cancelled));
    assert!(door.stored.is_empty());
    door.service(false);
    // Not where it is switched off.
    let mut policy = guided();
    policy.enrol.service_button = false;
    let mut door = Door::with(policy);
    door.service(true);
    door.wait(2_500);
    assert_eq!((door.slug(), door.started_by()), ("idle", None));
}

#[test]
fn the_service_button_held_on_opens_the_door_for_pairing_and_enrols_nobody() {
    let mut door = Door::with(guided());
    door.service(true);
    door.wait(2_000);
    assert_eq!(door.slug(), "enrol");
    door.wait(5_900);
    assert_eq!((door.slug(), door.pairings), ("enrol", 0));
    door.wait(100);
    assert_eq!((door.slug(), door.pairings), ("idle", 1));
    assert_eq!(door.session.enrolment(), Enrolment::Failed(EnrolFailure::Cancelled));
    // A button that is stuck opens it once; letting go of it is no short press.
    door.wait(20_000);
    door.service(false);
    assert_eq!((door.slug(), door.pairings, door.stored.len()), ("idle", 1, 0));
    // Also where it enrols nobody, and not where it is switched off.
    for (pair_by_button, pairings) in [(true, 1), (false, 0)] {
        let mut policy = guided();
        policy.enrol.service_button = false;
        policy.pair_by_button = pair_by_button;
        let mut door = Door::with(policy);
        door.service(true);
        door.wait(2_000);
        door.wait(6_000);
        assert_eq!((door.slug(), door.pairings), ("idle", pairings));
    }
}

#[test]
fn the_administrator_pin_begins_an_enrolment_and_a_wrong_one_counts() {
    let mut door = Door::with(guided());
    door.keys(&[4, 7, 1, 1], Key::Enter);
    assert_eq!(door.slug(), "idle", "digits and # mean nothing by themselves");
    door.give(Input::Key(Key::Clear));
    assert_eq!(door.slug(), "call-administrator");
    door.keys(&[4, 7, 1], Key::Clear);
    door.keys(&[4, 7, 1, 1], Key::Enter);
    assert_eq!((door.slug(), door.started_by()), ("enrol", Some(Authority::AdminPin)));
    door.give(Input::Key(Key::Clear));
    assert_eq!(door.session.enrolment(), Enrolment::Failed(EnrolFailure::Cancelled));
    let mut door = Door::with(guided());
    for _ in 0..5 {
        door.give(Input::Key(Key::Clear));
        door.keys(&[1, 2, 3, 4], Key::Enter);
        door.wait(3_000);
    }
    assert_eq!(door.count(|kind| matches!(kind, EventKind::Refused { reason: Refusal::WrongPin, .. })), 5);
    assert_eq!((door.slug(), door.started_by()), ("locked-out", None));
    // Nobody comes.
    let mut door = Door::with(guided());
    door.give(Input::Key(Key::Clear));
    door.wait(20_000);
    assert_eq!(door.slug(), "idle");
}

#[test]
fn an_administrators_face_begins_an_enrolment_and_no_other_does() {
    let see = |door: &mut Door, role| {
        for _ in 0..5 {
            door.now = door.now.plus(FRAME_MS);
            door.give(administrator(role));
        }
    };
    let mut door = Door::with(guided());
    door.service(true);
    door.wait(300);
    door.service(false);
    assert_eq!(door.slug(), "call-administrator");
    see(&mut door, Role::Administrator);
    assert_eq!(door.started_by(), Some(Authority::Administrator(SubjectId(3))));
    assert!(!door.released, "the door stays shut");
    // The administrator, still there, is not taken for the new person.
    see(&mut door, Role::Administrator);
    assert!(matches!(
        door.session.screen(door.now),
        Screen::Enrol { instruction: Some(Instruction::NextPerson), .. }
    ));
    see(&mut door, Role::Administrator);
    door.all_poses();
    assert_eq!(door.stored, [5]);

    let mut door = Door::with(guided());
    door.give(Input::Key(Key::Clear));
    see(&mut door, Role::Member);
    assert_eq!((door.slug(), door.started_by(), door.released), ("not-administrator", None, false));
    // Without being called, an administrator goes in like everyone.
    let mut door = Door::with(guided());
    see(&mut door, Role::Administrator);
    assert!(door.released && door.started_by().is_none());
}

#[test]
fn an_administrators_photograph_does_not_pass_where_a_head_turn_is_asked_for() {
    let mut policy = guided();
    policy.liveness.ask = true;
    policy.liveness.timeout_s = 8;
    let mut door = Door::with(policy);
    door.give(Input::Key(Key::Clear));
    for _ in 0..4 {
        door.now = door.now.plus(FRAME_MS);
        door.give(administrator(Role::Administrator));
    }
    assert!(matches!(door.session.screen(door.now), Screen::TurnHead(_)));
    door.wait(8_000);
    assert_eq!(door.started_by(), None);
}

#[test]
fn a_barred_door_calls_nobody_and_a_broken_lock_ends_an_enrolment() {
    let mut door = Door::with(guided());
    door.give(order("Ada"));
    door.give(Input::LockFault);
    assert_eq!(door.session.enrolment(), Enrolment::Failed(EnrolFailure::Cancelled));
    let mut door = Door::with(guided());
    door.session = Session::new(guided(), History { suspicious: 50, barred: true });
    door.give(Input::Key(Key::Clear));
    assert_eq!(door.slug(), "barred");
}

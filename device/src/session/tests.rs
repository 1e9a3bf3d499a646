use super::*;
use crate::config::Poses;
use crate::display::Instruction;
use facelatch_shared::align::CANONICAL_112;
use facelatch_shared::embedding::{DIM, Embedding};
use facelatch_shared::gallery::Candidate;
use facelatch_shared::score::Similarity;
use proptest::prelude::*;

const FRAME_MS: u64 = 100;

/// A door with a clock, and everything it was told to do.
pub(super) struct Door {
    pub(super) session: Session,
    pub(super) now: Millis,
    pub(super) log: std::vec::Vec<EventKind>,
    pub(super) released: bool,
    pub(super) stored: std::vec::Vec<usize>,
    pub(super) consents: std::vec::Vec<Option<(Label, Authority)>>,
    pub(super) pairings: u32,
}

pub(super) fn policy() -> Policy {
    Policy {
        rule: DecisionRule { threshold: Threshold(0.4), min_rank_gap: 0.05, votes: 3, window: 5 },
        times: SessionConfig::default(),
        enrol: EnrolConfig { poses: Poses::Front, ..EnrolConfig::default() },
        calendar: Calendar::default(),
        second_factor: SecondFactor::None,
        pin_timeout_s: 20,
        anti_passback_s: 0,
        liveness: LivenessPolicy::default(),
        pair_by_button: true,
        door: name("Lab"),
    }
}

impl Door {
    fn new() -> Self {
        Self::with(policy())
    }

    pub(super) fn with(policy: Policy) -> Self {
        let session = Session::new(policy, History::default());
        Self {
            session,
            now: Millis(1000),
            log: vec![],
            released: false,
            stored: vec![],
            consents: vec![],
            pairings: 0,
        }
    }

    pub(super) fn give(&mut self, input: Input) {
        for action in self.session.step(self.now, input) {
            match action {
                Action::Release => self.released = true,
                Action::Secure => self.released = false,
                Action::Log(kind) => self.log.push(kind),
                Action::Enrol { templates, consent, .. } => {
                    self.stored.push(templates.len());
                    self.consents.push(consent);
                }
                Action::OpenPairing => self.pairings += 1,
                Action::CheckPin { pin, hash } => {
                    // As quick as the real check is slow: a test's hash is the digits.
                    let right = pin == Pin::parse(&hash).unwrap();
                    self.give(Input::PinChecked { right });
                }
            }
        }
        assert_eq!(self.released, self.session.is_released());
    }

    pub(super) fn wait(&mut self, ms: u64) {
        self.now = self.now.plus(ms);
        self.give(Input::Tick);
    }

    /// `frames` frames of person `who` seen at `similarity`.
    pub(super) fn see(&mut self, who: u32, similarity: f32, frames: usize) {
        for _ in 0..frames {
            self.now = self.now.plus(FRAME_MS);
            self.give(Input::Seen(Sighting::Probe(matched(who, similarity, PersonState::Active))));
        }
    }

    pub(super) fn unusable(&mut self, reason: Unusable, frames: usize) {
        for _ in 0..frames {
            self.now = self.now.plus(FRAME_MS);
            self.give(Input::Seen(Sighting::Unusable(reason)));
        }
    }

    pub(super) fn contact(&mut self, open: bool) {
        self.give(Input::Contacts(InputState { door_open: Some(open), ..InputState::default() }));
    }

    pub(super) fn slug(&self) -> &'static str {
        self.session.screen(self.now).slug()
    }

    pub(super) fn count(&self, of: impl Fn(&EventKind) -> bool) -> usize {
        self.log.iter().filter(|kind| of(kind)).count()
    }
}

pub(super) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(super) fn template(seed: u32) -> Template {
    // A small generator: neighbouring seeds give unrelated vectors.
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state % 2001) as f32 - 1000.0
    };
    let raw: std::vec::Vec<f32> = (0..DIM).map(|_| next()).collect();
    Template::quantize(&Embedding::from_raw(&raw).unwrap())
}

pub(super) fn matched(who: u32, similarity: f32, state: PersonState) -> Matched {
    let best = Candidate { subject: SubjectId(who), similarity: Similarity(similarity) };
    Matched {
        track: TrackId(who),
        template: template(who),
        report: Some(MatchReport { best: Some(best), runner_up: None, templates: 1 }),
        who: Some(Known { name: name("Ada"), state, rights: Rights::default() }),
        fiducials: None,
        landmarks: CANONICAL_112,
        quality: Quality::default(),
    }
}

/// A vector between those of two seeds, `share` of the way from `a` to `b`.
pub(super) fn mixed(a: u32, b: u32, share: f32) -> Template {
    let (a, b) = (template(a), template(b));
    let of = |t: &Template, i: usize| f32::from(t.codes()[i]) * t.scale();
    let raw: std::vec::Vec<f32> = (0..DIM).map(|i| of(&a, i) * (1.0 - share) + of(&b, i) * share).collect();
    Template::quantize(&Embedding::from_raw(&raw).unwrap())
}

/// Orders from the command line.
pub(super) fn order(text: &str) -> Input {
    Input::StartEnrol(EnrolOrder { name: Some(name(text)), by: Authority::CommandLine, agreed: false })
}

fn nobody_known(view: u32) -> Input {
    Input::Seen(Sighting::Probe(Matched {
        track: TrackId(1),
        template: template(view),
        report: Some(MatchReport::default()),
        who: None,
        fiducials: None,
        landmarks: CANONICAL_112,
        quality: Quality::default(),
    }))
}

#[test]
fn a_known_person_is_let_in_and_the_door_secures_itself() {
    let mut door = Door::new();
    door.see(1, 0.7, 2);
    assert!(!door.released);
    assert_eq!(door.slug(), "looking");
    door.see(1, 0.7, 1);
    assert!(door.released);
    assert!(matches!(door.session.screen(door.now), Screen::Welcome { seconds_left: 5, .. }));
    door.wait(4_900);
    assert!(door.released);
    assert!(matches!(door.session.screen(door.now), Screen::Welcome { seconds_left: 1, .. }));
    door.wait(100);
    assert!(!door.released);
    assert_eq!(door.slug(), "idle");
    assert!(matches!(door.log[..], [EventKind::Granted { .. }, EventKind::Released, EventKind::Secured]));
}

#[test]
fn the_door_secures_as_soon_as_it_has_closed_behind_someone() {
    let mut door = Door::new();
    door.see(1, 0.7, 3);
    door.contact(true);
    door.wait(1_000);
    assert!(door.released);
    door.contact(false);
    assert!(!door.released);
}

#[test]
fn a_stranger_is_refused_and_backs_off() {
    let mut door = Door::new();
    let mut lockouts = vec![];
    for attempt in 1..=8 {
        door.see(7, 0.2, 5);
        if attempt < 5 {
            assert_eq!(door.slug(), "not-recognised");
            door.wait(3_000);
        } else {
            let Screen::LockedOut { seconds_left, .. } = door.session.screen(door.now) else { panic!() };
            lockouts.push(seconds_left);
            // Not even someone known is tried meanwhile.
            door.see(1, 0.9, 5);
            assert!(!door.released);
            door.wait(u64::from(seconds_left) * 1000 - 500);
        }
        assert_eq!(door.slug(), "idle");
    }
    assert_eq!(lockouts, [5, 10, 20, 30]);
    assert_eq!(door.count(|kind| matches!(kind, EventKind::Refused { .. })), 8);
    assert!(!door.released);
    door.see(1, 0.9, 3);
    assert!(door.released, "and then a known person is let in");
}

#[test]
fn failures_are_forgiven_with_time() {
    let mut door = Door::new();
    for _ in 0..4 {
        door.see(7, 0.2, 5);
        door.wait(3_000);
    }
    door.wait(60_000);
    door.see(7, 0.2, 5);
    assert_eq!(door.slug(), "not-recognised");
}

#[test]
fn a_suspended_person_is_told_so() {
    let mut door = Door::new();
    for _ in 0..3 {
        door.now = door.now.plus(FRAME_MS);
        door.give(Input::Seen(Sighting::Probe(matched(1, 0.9, PersonState::Suspended))));
    }
    assert!(!door.released);
    assert_eq!(door.slug(), "suspended");
}

#[test]
fn another_models_gallery_opens_nothing() {
    let mut door = Door::new();
    let mut other = matched(1, 0.9, PersonState::Active);
    other.report = None;
    door.give(Input::Seen(Sighting::Probe(other)));
    assert!(!door.released);
    assert_eq!(door.slug(), "service-models");
}

#[test]
fn going_out_always_works() {
    let press = Input::Contacts(InputState { exit_requested: true, ..InputState::default() });
    let mut door = Door::new();
    door.give(Input::Camera { ok: false });
    assert_eq!(door.slug(), "service-camera");
    door.give(press);
    assert!(door.released);
    assert_eq!(door.slug(), "exit-granted");
    door.wait(5_000);
    assert!(!door.released);
    assert_eq!(door.slug(), "service-camera");
    door.give(Input::Camera { ok: true });
    assert_eq!(door.slug(), "idle");
}

#[test]
fn a_forced_and_a_held_door_raise_alarms() {
    let mut door = Door::new();
    door.contact(true);
    assert_eq!(door.slug(), "door-forced");
    door.see(1, 0.9, 5);
    assert!(!door.released, "nobody is let in while the alarm stands");
    door.contact(false);
    door.wait(600);
    assert_eq!(door.slug(), "idle");
    door.see(1, 0.9, 3);
    door.contact(true);
    door.wait(34_999);
    assert_ne!(door.slug(), "door-held");
    door.wait(1);
    assert_eq!(door.slug(), "door-held");
    door.wait(60_000);
    door.contact(false);
    assert_eq!(door.count(|kind| *kind == EventKind::DoorHeld), 1);
    assert_eq!(door.count(|kind| *kind == EventKind::DoorForced), 1);
}

#[test]
fn an_open_case_is_an_alarm_and_lets_nobody_in_but_everybody_out() {
    let mut door = Door::new();
    let case = |tamper| Input::Contacts(InputState { tamper, ..InputState::default() });
    door.give(case(true));
    assert_eq!((door.slug(), door.count(|kind| *kind == EventKind::Tampered)), ("tampered", 1));
    door.see(1, 0.9, 9);
    assert!(!door.released);
    door.give(Input::Contacts(InputState { tamper: true, exit_requested: true, ..InputState::default() }));
    assert!(door.released, "the way out is free");
    door.wait(5_000);
    door.give(case(false));
    assert_eq!((door.slug(), door.count(|kind| *kind == EventKind::TamperCleared)), ("idle", 1));
    door.see(1, 0.9, 9);
    assert!(door.released);
}

#[test]
fn instructions_come_when_they_last_and_go() {
    let mut door = Door::new();
    door.unusable(Unusable::TooSmall, 1);
    assert_eq!(door.slug(), "idle");
    door.unusable(Unusable::TooSmall, 3);
    assert_eq!(door.session.screen(door.now), Screen::Instruct(Instruction::ComeCloser));
    door.unusable(Unusable::TooDark, 3);
    assert_eq!(door.session.screen(door.now), Screen::Instruct(Instruction::TooDark));
    door.wait(700);
    assert_eq!(door.slug(), "idle");
    assert!(door.log.is_empty(), "instructions are no events");
}

#[test]
fn enrolment_takes_spaced_views_of_one_person() {
    let mut door = Door::new();
    door.give(order("Ada"));
    for frame in 0..40 {
        door.now = door.now.plus(FRAME_MS);
        door.give(nobody_known(1));
        if frame == 8 {
            assert_eq!(door.session.enrolment(), Enrolment::Running { taken: 3, wanted: 5 });
        }
    }
    assert_eq!(door.stored, [5]);
    assert_eq!(door.slug(), "enrol");
    door.give(Input::EnrolStored(Some(SubjectId(4))));
    assert_eq!(door.slug(), "enrolled");
    assert_eq!(door.session.enrolment(), Enrolment::Done { id: SubjectId(4) });
    let started = EventKind::EnrolStarted { by: Authority::CommandLine };
    assert_eq!(door.log, [started, EventKind::Enrolled { subject: SubjectId(4), templates: 5 }]);
    door.wait(3_000);
    assert_eq!(door.slug(), "idle");
}

#[test]
fn enrolment_is_given_up_with_a_reason() {
    // Two people taking turns.
    let mut door = Door::new();
    door.give(order("Ada"));
    for frame in 0..60 {
        door.now = door.now.plus(450);
        door.give(nobody_known(if frame == 0 { 1 } else { 2 + frame % 2 }));
    }
    assert_eq!(door.session.enrolment(), Enrolment::Failed(EnrolFailure::NotOnePerson));
    // Someone who is enrolled.
    let mut door = Door::new();
    door.give(order("Ada again"));
    for _ in 0..4 {
        door.see(1, 0.8, 5);
    }
    assert_eq!(
        door.session.enrolment(),
        Enrolment::Failed(EnrolFailure::AlreadyEnrolled { subject: SubjectId(1) })
    );
    assert!(!door.released, "enrolling never opens the door");
    // Nobody comes.
    let mut door = Door::new();
    door.give(order("Bo"));
    door.wait(60_000);
    assert_eq!(door.session.enrolment(), Enrolment::Failed(EnrolFailure::TimedOut));
    // The disk is full.
    let mut door = Door::new();
    door.give(order("Cem"));
    for _ in 0..40 {
        door.now = door.now.plus(FRAME_MS);
        door.give(nobody_known(1));
    }
    door.give(Input::EnrolStored(None));
    assert_eq!(door.slug(), "enrol-storage");
    assert!(door.stored == [5]);
}

#[test]
fn a_lock_that_does_not_answer_is_out_of_service() {
    let mut door = Door::new();
    door.see(1, 0.9, 3);
    door.released = false;
    door.give(Input::LockFault);
    assert_eq!(door.slug(), "service-lock");
    door.see(1, 0.9, 9);
    assert!(!door.released);
    assert_eq!(door.count(|kind| *kind == EventKind::LockFault), 1);
}

fn any_input() -> impl Strategy<Value = Input> {
    prop_oneof![
        4 => (1..4_u32, prop_oneof![-1.0..0.3999_f32, Just(f32::NAN)])
            .prop_map(|(who, s)| Input::Seen(Sighting::Probe(matched(who, s, PersonState::Active)))),
        2 => Just(Input::Seen(Sighting::Probe(matched(9, 0.95, PersonState::Suspended)))),
        2 => Just(Input::Seen(Sighting::Unusable(Unusable::NoFace))),
        1 => any::<bool>().prop_map(|ok| Input::Camera { ok }),
        1 => any::<bool>().prop_map(|open| Input::Contacts(InputState { door_open: Some(open), ..InputState::default() })),
        1 => Just(order("X")),
        1 => Just(Input::CancelEnrol),
        1 => any::<bool>().prop_map(|ok| Input::EnrolStored(ok.then_some(SubjectId(2)))),
        1 => Just(Input::LockFault),
        1 => Just(Input::Tick),
    ]
}

proptest! {
    #[test]
    fn nothing_but_a_match_or_a_request_to_exit_ever_releases(inputs in prop::collection::vec((any_input(), 0..8_000_u64), 1..200)) {
        let mut door = Door::new();
        for (input, ms) in inputs {
            door.now = door.now.plus(ms);
            door.give(input);
            prop_assert!(!door.released);
            let _ = door.session.screen(door.now);
        }
    }
}

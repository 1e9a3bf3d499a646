//! One door: the session with everything that it moves. Lives on the session thread and owns lock, panel, contacts, people and log.

use std::collections::VecDeque;
use std::sync::Arc;

use facelatch_shared::access::{Consent, Rights};
use facelatch_shared::decision::DecisionRule;
use facelatch_shared::embedding::ModelBinding;
use facelatch_shared::event::EventKind;
use facelatch_shared::gallery::{Change, MatchReport};
use facelatch_shared::observation::{Observation, StageTimings};
use facelatch_shared::person::Name;
use facelatch_shared::protocol::Response;
use facelatch_shared::quality::{Quality, Unusable};
use facelatch_shared::remote::{LinkRequest, LinkRole};
use facelatch_shared::schedule::LocalTime;
use facelatch_shared::time::Millis;

mod models;
mod panel;
mod requests;
mod workstations;

pub use workstations::{Desk, Views};

use crate::access::{ThresholdInForce, ThresholdSource, Timekeeper};
use crate::clock::Clock;
use crate::display::{Display, Screen};
use crate::event_log::EventLog;
use crate::inputs::keypad::Keypad;
use crate::inputs::{InputState, Inputs, Waker};
use crate::lock::Lock;
use crate::metrics::{Counters, Gauges, resident_bytes};
use crate::people::People;
use crate::pipeline::look_up;
use crate::session::{Action, Actions, Input, Session, called_after};
use crate::update::keep::ChipsKept;
use crate::update::live::Extras;
use crate::update::trial::Meter;

/// What a door is made of.
pub struct Parts {
    /// The state machine.
    pub session: Session,
    /// Who is known.
    pub people: People,
    /// What happened.
    pub log: EventLog,
    /// The strike or maglock.
    pub lock: Box<dyn Lock>,
    /// Contacts and buttons.
    pub inputs: Box<dyn Inputs>,
    /// Where PINs are typed.
    pub keypad: Box<dyn Keypad>,
    /// The panel.
    pub display: Box<dyn Display>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The wall clock's keeper.
    pub keeper: Timekeeper,
    /// Where the threshold comes from.
    pub threshold: ThresholdSource,
    /// What probes are bound to.
    pub binding: ModelBinding,
    /// Older models whose templates stay valid for these probes.
    pub compatible: Vec<ModelBinding>,
    /// Whether chips are kept of people who are enrolled, so that they need not come again for other models.
    pub keep_chips: bool,
    /// The door's name.
    pub name: Name,
}

/// A door at work. Dropping it secures the lock.
pub struct Door {
    parts: Parts,
    started: Millis,
    shown: Option<Screen>,
    contacts: InputState,
    bad_frames: BadFrames,
    counters: Counters,
    display_ok: bool,
    inputs_ok: bool,
    keypad_ok: bool,
    desk: Option<Desk>,
    in_force: ThresholdInForce,
    local: Option<LocalTime>,
    chips: ChipsKept,
    meter: Option<Meter>,
    /// The models cannot go on: whoever runs the door begins anew.
    anew: bool,
}

/// What one frame led to, for whoever watches: the demo's story, the debug log.
#[derive(Debug)]
pub struct FrameReport {
    /// The frame's number.
    pub seq: u64,
    /// When it was taken.
    pub at: Millis,
    /// Faces found in it.
    pub faces: usize,
    /// The attended face, or why there was none.
    pub quality: Result<Quality, Unusable>,
    /// The gallery's answer.
    pub report: Option<MatchReport>,
    /// Time spent by stage.
    pub timings: StageTimings,
    /// What was logged since the last report.
    pub events: Vec<EventKind>,
    /// What the panel shows now.
    pub screen: Screen,
}

#[derive(Debug, Default)]
struct BadFrames {
    count: u32,
    last_report: Option<Millis>,
}

impl Door {
    /// Secures the lock, shows the idle screen and logs the start.
    #[must_use]
    pub fn start(parts: Parts) -> Self {
        let mut door = Self {
            started: parts.clock.now(),
            in_force: parts.threshold.at(parts.people.templates_of(parts.binding)),
            parts,
            shown: None,
            contacts: InputState::default(),
            bad_frames: BadFrames::default(),
            counters: Counters::default(),
            display_ok: true,
            inputs_ok: true,
            keypad_ok: true,
            desk: None,
            local: None,
            chips: ChipsKept::default(),
            meter: None,
            anew: false,
        };
        let compatible = std::mem::take(&mut door.parts.compatible);
        door.parts.people.set_compatible(door.parts.binding, &compatible);
        door.follow_gallery();
        door.log(EventKind::Started {
            version: version(),
            model: door.parts.binding,
            people: u32::try_from(door.parts.people.len()).unwrap_or(u32::MAX),
        });
        if let Err(error) = door.parts.lock.secure() {
            tracing::error!(%error, "the lock could not be secured");
            door.step(Input::LockFault);
        }
        door.tick();
        door
    }

    /// One frame, from the match to the log.
    pub fn attend(&mut self, observation: Observation) -> FrameReport {
        self.attend_with(observation, Extras::default())
    }

    /// The same, with what else the looking thread knows of the frame.
    pub fn attend_with(&mut self, mut observation: Observation, extras: Extras) -> FrameReport {
        self.counters.frames += 1;
        let found = look_up(&mut observation, &self.parts.people, self.parts.binding);
        let report = found.report;
        self.counters.add_times(&observation.timings);
        self.measure(&observation, report, extras.former);
        self.read_world();
        self.chips.offer(extras.chip);
        let before = self.parts.session.views_taken();
        self.step(Input::Seen(found.sighting));
        self.chips.settle(before, self.parts.session.views_taken());
        self.show();
        FrameReport {
            seq: observation.frame_seq,
            at: observation.at,
            faces: observation.faces.len(),
            quality: observation.attended.map(|probe| probe.quality),
            report,
            timings: observation.timings,
            events: self.parts.log.take_recent(),
            screen: self.screen(),
        }
    }

    /// Time has passed: contacts, timers, panel.
    pub fn tick(&mut self) {
        self.read_world();
        self.step(Input::Tick);
        self.show();
    }

    /// A frame could not be read. Logged as a count, at most every ten seconds.
    pub fn bad_frame(&mut self) {
        let now = self.parts.clock.now();
        self.bad_frames.count += 1;
        self.counters.bad_frames += 1;
        if self.bad_frames.last_report.is_none_or(|last| now.since(last) >= BAD_FRAMES_EVERY_MS) {
            let count = std::mem::take(&mut self.bad_frames.count);
            self.bad_frames.last_report = Some(now);
            self.log(EventKind::BadFrames { count });
        }
        self.tick();
    }

    /// The camera gives frames, or no longer does.
    pub fn camera(&mut self, ok: bool) {
        self.step(Input::Camera { ok });
        self.show();
    }

    /// How many frames were dropped because vision was busy, since the start.
    pub const fn set_dropped(&mut self, dropped: u64) {
        self.counters.dropped = dropped;
    }

    /// What was counted since the start.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What holds at the moment.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        Gauges {
            uptime_s: self.parts.clock.now().since(self.started) / 1000,
            people: self.parts.people.len() as u64,
            camera_ok: self.camera_ok(),
            released: self.parts.session.is_released(),
            resident_bytes: resident_bytes(),
        }
    }

    /// The clock that it runs on.
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        &*self.parts.clock
    }

    /// Whether the camera gives frames.
    #[must_use]
    pub fn camera_ok(&self) -> bool {
        self.parts.session.camera_ok()
    }

    /// When [`tick`](Self::tick) is due at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        [self.parts.session.next_deadline(), self.parts.inputs.due()].into_iter().flatten().min()
    }

    /// `waker` is called when a contact changed, so that [`tick`](Self::tick) comes at once.
    pub fn wake_with(&mut self, waker: Waker) {
        self.parts.inputs.wake_with(waker);
    }

    /// Secures the lock and logs the end.
    pub fn stop(mut self) {
        self.secure_lock();
        self.log(EventKind::Stopped);
    }

    /// Writes into the log what happened beside the session.
    pub fn record(&mut self, kind: EventKind) {
        self.log(kind);
    }

    /// Who is enrolled.
    #[must_use]
    pub const fn people(&self) -> &People {
        &self.parts.people
    }

    /// Who is enrolled, to be changed for other models. Names, states and rights are changed by
    /// [`Handler::handle`](facelatch_shared::protocol::Handler::handle).
    pub(crate) const fn people_mut(&mut self) -> &mut People {
        &mut self.parts.people
    }

    /// What probes are bound to.
    #[must_use]
    pub const fn binding(&self) -> ModelBinding {
        self.parts.binding
    }

    /// What decides.
    #[must_use]
    pub const fn rule(&self) -> DecisionRule {
        self.parts.session.rule()
    }

    /// Whether nobody stands there and nothing is under way, as far as the panel tells.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        // A pairing code on the panel is nobody before the camera.
        let screen = self.parts.session.screen(self.parts.clock.now());
        let quiet = matches!(screen, Screen::Idle { .. } | Screen::Barred | Screen::Service(_));
        quiet && !self.parts.session.is_released() && !self.parts.session.is_enrolling()
    }

    /// Whether views are being taken: whoever looks sends chips along.
    #[must_use]
    pub const fn wants_chips(&self) -> bool {
        self.parts.keep_chips && self.parts.session.is_enrolling()
    }

    fn step(&mut self, input: Input) {
        let mut pending = VecDeque::from([input]);
        while let Some(input) = pending.pop_front() {
            let actions = self.parts.session.step(self.parts.clock.now(), input);
            self.act(actions, &mut pending);
        }
    }

    /// Does what the session says; what comes of it goes back to the session.
    fn act(&mut self, actions: Actions, answers: &mut VecDeque<Input>) {
        for action in actions {
            match action {
                Action::Release => {
                    if let Err(error) = self.parts.lock.release() {
                        tracing::error!(%error, "the lock could not be released");
                        self.secure_lock();
                        answers.push_back(Input::LockFault);
                    }
                }
                Action::Secure => {
                    if !self.secure_lock() {
                        answers.push_back(Input::LockFault);
                    }
                }
                Action::Log(kind) => self.log(kind),
                Action::Enrol { name, templates, consent } => {
                    let now = self.parts.clock.unix();
                    let chips = if self.parts.keep_chips { self.chips.take() } else { Vec::new() };
                    let name = name.unwrap_or_else(|| called_after(self.parts.people.next_id()));
                    let consent = consent.map(|(text, by)| Consent { text, at: now, by });
                    let change = Change::Enrol {
                        name,
                        templates: templates.to_vec(),
                        binding: self.parts.binding,
                        rights: Rights { consent, ..Rights::default() },
                    };
                    let stored = self.parts.people.enrol_keeping(change, &chips, now);
                    if let Err(error) = &stored {
                        tracing::error!(%error, "the enrolment could not be stored");
                    }
                    answers.push_back(Input::EnrolStored(stored.ok()));
                    self.follow_gallery();
                }
                Action::OpenPairing => {
                    let request = LinkRequest::OpenPairing { role: LinkRole::Administrator };
                    if let Response::Refused(why) = self.link_request(request) {
                        tracing::error!(?why, "the service button could not open the door for pairing");
                    }
                }
                Action::CheckPin { pin, hash } => {
                    answers.push_back(Input::PinChecked { right: pin.matches(&hash) });
                }
            }
        }
    }

    fn secure_lock(&mut self) -> bool {
        match self.parts.lock.secure() {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "the lock could not be secured");
                false
            }
        }
    }

    fn log(&mut self, kind: EventKind) {
        self.counters.add_event(&kind);
        let stored = self.parts.log.record(self.parts.clock.unix(), self.parts.clock.now(), kind);
        self.counters.events_lost += u64::from(!stored);
    }

    /// Clock, contacts and keys.
    fn read_world(&mut self) {
        let reading = self.parts.keeper.read(self.parts.clock.unix());
        if let Some(event) = reading.event {
            self.log(event);
        }
        if reading.local != self.local {
            self.local = reading.local;
            self.step(Input::Wall(reading.local));
        }
        self.read_contacts();
        match self.parts.keypad.pressed() {
            Ok(keys) => {
                self.keypad_ok = true;
                keys.into_iter().for_each(|key| self.step(Input::Key(key)));
            }
            Err(error) if self.keypad_ok => {
                self.keypad_ok = false;
                tracing::error!(%error, "the keypad cannot be read");
            }
            Err(_) => {}
        }
    }

    /// Takes the threshold that the gallery's present size asks for.
    fn follow_gallery(&mut self) {
        let was = self.in_force;
        self.in_force = self.parts.threshold.at(self.parts.people.templates_of(self.parts.binding));
        self.parts.session.set_threshold(self.in_force.threshold);
        if let Some(chosen) = self.in_force.chosen
            && !chosen.in_table
            && was.chosen.is_none_or(|chosen| chosen.in_table)
        {
            tracing::warn!(
                templates = chosen.comparisons,
                rate = chosen.rate(),
                "the embedder's threshold table does not reach as far as decision.false_accepts asks with so many templates; its strictest point holds"
            );
        }
    }

    fn read_contacts(&mut self) {
        match self.parts.inputs.read() {
            Ok(contacts) => {
                self.inputs_ok = true;
                if contacts != self.contacts {
                    self.contacts = contacts;
                    self.step(Input::Contacts(contacts));
                }
            }
            Err(error) if self.inputs_ok => {
                self.inputs_ok = false;
                tracing::error!(%error, "the contacts cannot be read; their last state stands");
            }
            Err(_) => {}
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // Also on a panic: whatever happened, nobody comes in from outside.
        self.secure_lock();
    }
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("frames", &self.counters.frames).finish_non_exhaustive()
    }
}

fn version() -> heapless::String<24> {
    heapless::String::try_from(env!("CARGO_PKG_VERSION")).unwrap_or_default()
}

const BAD_FRAMES_EVERY_MS: u64 = 10_000;

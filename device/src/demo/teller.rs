//! Watches the door play the acts, tells the story, and holds it against what was expected.

use std::fmt::Write as _;
use std::io::Write;

use facelatch_shared::access::Authority;
use facelatch_shared::event::{EnrolFailure, EventKind};
use facelatch_shared::observation::StageTimings;
use facelatch_shared::person::SubjectId;
use facelatch_shared::protocol::{Request, Response};
use facelatch_shared::quality::Unusable;

use super::act::{Act, Expect};
use crate::camera::replay::Shot;
use crate::door::FrameReport;
use crate::inputs::fake::{FakeInputs, FakeKeypad};
use crate::inputs::keypad::Key;
use crate::runner::Watcher;
use crate::session::called_after;

/// The watcher of a scripted run.
pub struct Teller<W: Write> {
    acts: Vec<Told>,
    now: usize,
    inputs: FakeInputs,
    keypad: FakeKeypad,
    names: Vec<(SubjectId, String)>,
    /// Whose enrolment was asked for last.
    enrolling: String,
    timings: Vec<StageTimings>,
    /// Acts that another teller told before.
    before: usize,
    out: W,
}

struct Told {
    title: String,
    first_seq: u64,
    last_seq: u64,
    requests: Vec<Request>,
    contacts: Vec<(u64, crate::inputs::InputState)>,
    keys: Vec<(u64, Vec<Key>)>,
    expect: Vec<Expect>,
    seen: Seen,
    /// What went otherwise than expected; filled when the act is over.
    misses: Option<Vec<String>>,
}

#[derive(Default)]
struct Seen {
    events: Vec<EventKind>,
    screens: Vec<&'static str>,
    best: Option<(SubjectId, f32)>,
    unusable: Option<Unusable>,
    bad_frames: u32,
    last_bad: String,
    refusals: Vec<String>,
}

impl<W: Write> Teller<W> {
    /// Will tell of `acts`, whose shots play one after another, and moves `inputs` and types on `keypad` as they say.
    pub fn new(acts: &[Act], inputs: FakeInputs, keypad: FakeKeypad, out: W) -> Self {
        let mut seq = 0;
        let told = acts.iter().map(|act| {
            let first_seq = seq + 1;
            seq += act.shots.iter().map(Shot::playing).sum::<u64>();
            Told {
                title: act.title.clone(),
                first_seq,
                last_seq: seq,
                requests: act.requests.clone(),
                contacts: act.contacts.clone(),
                keys: act.keys.clone(),
                expect: act.expect.clone(),
                seen: Seen::default(),
                misses: None,
            }
        });
        let acts = told.collect();
        Self {
            acts,
            now: 0,
            inputs,
            keypad,
            names: vec![],
            enrolling: String::new(),
            timings: vec![],
            before: 0,
            out,
        }
    }

    /// Goes on after `before` acts in which `names` were enrolled.
    #[must_use]
    pub fn going_on(mut self, before: usize, names: Vec<(SubjectId, String)>) -> Self {
        (self.before, self.names) = (before, names);
        self
    }

    /// Who was enrolled so far.
    pub fn names(&self) -> Vec<(SubjectId, String)> {
        self.names.clone()
    }

    /// The keypad that the acts type on.
    pub fn keypad(&self) -> FakeKeypad {
        self.keypad.clone()
    }

    /// The contacts that the acts move.
    pub fn inputs(&self) -> FakeInputs {
        self.inputs.clone()
    }

    /// Ends the last act; how many acts went otherwise than expected.
    pub fn finish(&mut self) -> usize {
        self.end_act();
        // Acts that never came are misses too.
        while self.now < self.acts.len() {
            self.end_act();
        }
        self.acts.iter().filter(|act| act.misses.as_ref().is_none_or(|misses| !misses.is_empty())).count()
    }

    /// How many acts there are.
    pub fn acts(&self) -> usize {
        self.acts.len()
    }

    /// Median microseconds of each stage over the frames in which it ran, in the pipeline's order, with its name and the number of frames.
    pub fn medians(&self) -> Vec<(&'static str, u32, usize)> {
        type Stage = (&'static str, fn(&StageTimings) -> u32);
        let stages: [Stage; 6] = [
            ("decode", |t| t.decode_us),
            ("detect", |t| t.detect_us),
            ("track, quality", |t| t.quality_us),
            ("align", |t| t.align_us),
            ("embed", |t| t.embed_us),
            ("match", |t| t.match_us),
        ];
        // A stage that ran on an embedded frame may well have taken less than a microsecond.
        let whole = |t: &&StageTimings| t.embed_us > 0;
        let all = |name: &str| matches!(name, "decode" | "detect");
        stages
            .iter()
            .map(|(name, of)| {
                let mut times: Vec<u32> =
                    self.timings.iter().filter(|t| all(name) || whole(t)).map(of).collect();
                times.sort_unstable();
                (*name, times.get(times.len() / 2).copied().unwrap_or(0), times.len())
            })
            .collect()
    }

    fn act_of(&mut self, seq: u64) -> &mut Told {
        while self.now + 1 < self.acts.len() && seq > self.acts[self.now].last_seq {
            self.end_act();
        }
        &mut self.acts[self.now]
    }

    fn end_act(&mut self) {
        let Some(act) = self.acts.get_mut(self.now) else { return };
        let misses: Vec<String> =
            act.expect.iter().filter_map(|expect| miss(expect, &act.seen, &self.names)).collect();
        let verdict = if misses.is_empty() { "as expected" } else { "NOT AS EXPECTED" };
        let mut text = format!("{:>3}  {}\n", self.before + self.now + 1, act.title);
        for line in narrate(&act.seen, &self.names) {
            let _ = writeln!(text, "     {line}");
        }
        for miss in &misses {
            let _ = writeln!(text, "     ✗ {miss}");
        }
        let _ = writeln!(text, "     panel: {}", act.seen.screens.join(" → "));
        let _ = writeln!(text, "     {verdict}\n");
        // A closed pipe is no reason to stop the door.
        let _ = self.out.write_all(text.as_bytes());
        act.misses = Some(misses);
        self.now += 1;
    }
}

impl<W: Write> Watcher for Teller<W> {
    fn frame(&mut self, report: &FrameReport) -> Vec<Request> {
        self.timings.push(report.timings);
        for event in &report.events {
            match event {
                EventKind::EnrolStarted { by } if *by != Authority::CommandLine => self.enrolling.clear(),
                EventKind::Enrolled { subject, .. } if self.enrolling.is_empty() => {
                    self.names.push((*subject, called_after(*subject).to_string()));
                }
                EventKind::Enrolled { subject, .. } => self.names.push((*subject, self.enrolling.clone())),
                _ => {}
            }
        }
        let (inputs, keypad) = (self.inputs.clone(), self.keypad.clone());
        let act = self.act_of(report.seq);
        for (_, state) in act.contacts.iter().filter(|(at, _)| act.first_seq + at == report.seq) {
            inputs.set(*state);
        }
        for (_, keys) in act.keys.iter().filter(|(at, _)| act.first_seq + at == report.seq) {
            keypad.press(keys);
        }
        let slug = report.screen.slug();
        if act.seen.screens.last() != Some(&slug) {
            act.seen.screens.push(slug);
        }
        act.seen.events.extend(report.events.iter().cloned());
        match report.report.and_then(|r| r.best) {
            Some(best) if act.seen.best.is_none_or(|(_, s)| best.similarity.0 > s) => {
                act.seen.best = Some((best.subject, best.similarity.0));
            }
            _ => {}
        }
        if let Err(reason) = report.quality
            && reason != Unusable::NoFace
        {
            act.seen.unusable = Some(reason);
        }
        let requests = if report.seq == act.first_seq { std::mem::take(&mut act.requests) } else { vec![] };
        for request in &requests {
            if let Request::Enrol { name } | Request::EnrolAgreed { name } = request {
                self.enrolling = name.to_string();
            }
        }
        requests
    }

    fn answered(&mut self, response: &Response) {
        if let (Some(act), Response::Refused(refused)) = (self.acts.get_mut(self.now), response) {
            act.seen.refusals.push(refused.message.as_str().to_owned());
        }
    }

    fn bad_frame(&mut self, seq: u64, what: &str) {
        let act = self.act_of(seq);
        act.seen.bad_frames += 1;
        act.seen.last_bad = what.to_owned();
    }
}

/// What went otherwise than `expect` says, in words.
fn miss(expect: &Expect, seen: &Seen, names: &[(SubjectId, String)]) -> Option<String> {
    let logged = |of: &dyn Fn(&EventKind) -> bool| seen.events.iter().any(of);
    let named = |id: &SubjectId, name: &str| names.iter().any(|(i, n)| i == id && n == name);
    let met = match expect {
        Expect::Opens(name) => {
            let granted: Vec<_> = seen
                .events
                .iter()
                .filter_map(|e| match e {
                    EventKind::Granted { subject, .. } => Some(subject),
                    _ => None,
                })
                .collect();
            !granted.is_empty()
                && granted.iter().all(|id| named(id, name))
                && logged(&|e| *e == EventKind::Released)
                && logged(&|e| *e == EventKind::Secured)
        }
        Expect::StaysShut => !logged(&|e| *e == EventKind::Released),
        Expect::Refused(reason) => {
            logged(&|e| matches!(e, EventKind::Refused { reason: r, .. } if r == reason))
        }
        Expect::Shows(slug) => seen.screens.contains(slug),
        Expect::Enrols(name) => {
            logged(&|e| matches!(e, EventKind::Enrolled { subject, .. } if named(subject, name)))
        }
        Expect::Logs(of, _) => logged(&|e| of(e)),
        Expect::BadFrames(least) => seen.bad_frames >= *least,
    };
    (!met).then(|| match expect {
        Expect::Opens(name) => format!("the door should have opened for {name}, and for nobody else"),
        Expect::StaysShut => "the door should have stayed shut".into(),
        Expect::Refused(reason) => format!("nobody was refused as {reason:?}"),
        Expect::Shows(slug) => format!("the panel never showed {slug}"),
        Expect::Enrols(name) => format!("{name} should have been enrolled"),
        Expect::Logs(_, what) => format!("the log lacks: {what}"),
        Expect::BadFrames(least) => {
            format!("{} frames could not be read, at least {least} should have", seen.bad_frames)
        }
    })
}

fn enrol_failure(reason: EnrolFailure, name: &dyn Fn(&SubjectId) -> String) -> String {
    match reason {
        EnrolFailure::TimedOut => "too few good views in time".into(),
        EnrolFailure::NotOnePerson => "not one person".into(),
        EnrolFailure::AlreadyEnrolled { subject } => format!("this face is enrolled as {}", name(&subject)),
        EnrolFailure::Cancelled => "called off".into(),
        EnrolFailure::NoConsent => "the person does not agree".into(),
        other => format!("{other:?}"),
    }
}

/// What happened, a line each.
fn narrate(seen: &Seen, names: &[(SubjectId, String)]) -> Vec<String> {
    let name = |id: &SubjectId| {
        names
            .iter()
            .find(|(i, _)| i == id)
            .map_or_else(|| id.to_string(), |(_, name)| format!("{name} ({id})"))
    };
    let mut lines = Vec::new();
    for event in &seen.events {
        lines.push(match event {
            EventKind::Granted { subject, similarity, threshold } => {
                format!("recognised {}: similarity {similarity}, threshold {threshold}", name(subject))
            }
            EventKind::Refused { reason, subject, similarity, threshold } => {
                let closest = match (subject, similarity) {
                    (Some(id), Some(s)) => {
                        format!(": closest {}, similarity {s}, threshold {threshold}", name(id))
                    }
                    _ => String::new(),
                };
                format!("refused, {}{closest}", super::words::refusal(*reason))
            }
            EventKind::Released => "door released".into(),
            EventKind::Secured => "door secured".into(),
            EventKind::Enrolled { subject, templates } => {
                format!("enrolled {} with {templates} templates, at the door", name(subject))
            }
            EventKind::EnrolFailed { reason } => {
                format!("enrolment given up: {}", enrol_failure(*reason, &name))
            }
            EventKind::EnrolStarted { by } => match by {
                Authority::CommandLine | Authority::Workstation(_) => continue,
                Authority::ServiceButton => "enrolment begun by the service button".into(),
                Authority::AdminPin => "enrolment begun by the administrator PIN".into(),
                Authority::Administrator(id) => format!("enrolment begun by {}", name(id)),
            },
            EventKind::Consented { subject, text, .. } => {
                format!("{} agreed to the text \"{text}\"", name(subject))
            }
            EventKind::Lookalike { subject, other } => {
                format!("WARNING: {} looks much like {}", name(subject), name(other))
            }
            EventKind::LockedOut { seconds } => format!("locked out for {seconds} s"),
            EventKind::DoorOpened => "door opened".into(),
            EventKind::DoorClosed => "door closed".into(),
            EventKind::DoorForced => "ALARM: the door was opened while secured".into(),
            EventKind::DoorHeld => "ALARM: the door has stood open too long".into(),
            EventKind::Tampered => "ALARM: the case was opened".into(),
            EventKind::TamperCleared => "the case is shut again".into(),
            EventKind::ExitRequested => "exit button pressed".into(),
            EventKind::Suspended { subject } => format!("{} suspended by the administrator", name(subject)),
            EventKind::Reinstated { subject } => format!("{} reinstated by the administrator", name(subject)),
            EventKind::ErasureReceipt(_) => "the door signs that nothing is left".into(),
            EventKind::Erased { subject } => format!("{} erased by the administrator", name(subject)),
            EventKind::RightsChanged { subject } => {
                format!("the administrator changed what {} may do", name(subject))
            }
            EventKind::ChallengePassed { subject } => format!("{} turned the head as asked", name(subject)),
            EventKind::Barred { failures } => {
                format!("barred after {failures} failures, until an administrator acts")
            }
            EventKind::BarLifted { .. } => "an administrator lifted the bar".into(),
            EventKind::CameraLost => "the camera is gone".into(),
            EventKind::CameraBack => "the camera is back".into(),
            EventKind::BadFrames { .. } | EventKind::Started { .. } => continue,
            other => format!("{other:?}"),
        });
    }
    if seen.bad_frames > 0 {
        lines.push(format!("{} frames could not be read; the last: {}", seen.bad_frames, seen.last_bad));
    }
    if let Some(reason) = seen.unusable {
        lines.push(format!("some frames not used: {}", super::words::unusable(reason)));
    }
    lines.extend(seen.refusals.iter().map(|refusal| format!("the administrator was told: {refusal}")));
    lines
}

//! One bundle for many doors: a canary first, and the others once it has confirmed.
//!
//! Nothing is remembered here. Each door says itself how far it is, so that whoever is interrupted runs the same again: doors that have
//! confirmed are passed over, those on trial are waited for, and a push goes on where it was.

use std::collections::BTreeMap;
use std::io;

use facelatch_shared::bundle::BundleId;
use facelatch_shared::protocol::update::{PushError, UpdateRequest, UpdateStage, UpdateStatus, push};
use facelatch_shared::protocol::{Request, Response};

/// The doors, by number from 0, and whoever watches.
pub trait Fleet {
    /// A connection to a door.
    ///
    /// # Errors
    /// Why there is none, for people.
    fn connect(&mut self, door: usize) -> Result<Box<dyn Line>, String>;

    /// A door has come further.
    fn changed(&mut self, door: usize, state: &DoorState);

    /// Lets some time pass before the doors are asked again.
    fn pause(&mut self);
}

/// A connection to one door.
pub trait Line {
    /// Asks; a refusal is an answer.
    ///
    /// # Errors
    /// The connection failed: why, for people.
    fn ask(&mut self, request: Request) -> Result<Response, String>;
}

/// What is sent.
pub struct Parcel<'a> {
    /// Its name.
    pub id: BundleId,
    /// Its rollback counter.
    pub counter: u64,
    /// Bytes of its file.
    pub size: u64,
    /// Fills a buffer from an offset of the file.
    pub read_at: &'a dyn Fn(u64, &mut [u8]) -> io::Result<()>,
    /// So many people a door may leave behind, to be enrolled again.
    pub leave_behind: u32,
}

/// How far one door is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DoorState {
    /// It was not asked for anything.
    NotBegun,
    /// The bundle is coming: percent of it, in steps of ten.
    Receiving(u8),
    /// It makes the bundle ready.
    Preparing,
    /// It waits until nobody stands there.
    Waiting,
    /// It tries the models.
    Trial,
    /// The models stay.
    Confirmed,
    /// It refused the bundle, or went back: why.
    Failed(String),
    /// It does not answer: why.
    Unreachable(String),
}

impl DoorState {
    /// In a word, for tables and programs.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::NotBegun => "not begun",
            Self::Receiving(_) => "receiving",
            Self::Preparing => "preparing",
            Self::Waiting => "waiting",
            Self::Trial => "on trial",
            Self::Confirmed => "confirmed",
            Self::Failed(_) => "FAILED",
            Self::Unreachable(_) => "NO ANSWER",
        }
    }

    /// What there is to say beside it.
    #[must_use]
    pub fn detail(&self) -> String {
        match self {
            Self::Receiving(percent) => format!("{percent} %"),
            Self::Failed(why) | Self::Unreachable(why) => why.clone(),
            _ => String::new(),
        }
    }

    const fn is_under_way(&self) -> bool {
        matches!(self, Self::Preparing | Self::Waiting | Self::Trial)
    }
}

/// Brings `parcel` to `doors` doors: number 0 is the canary. Returns how far each has come in the end.
pub fn roll_out(fleet: &mut dyn Fleet, doors: usize, parcel: &Parcel<'_>) -> Vec<DoorState> {
    let mut rollout =
        Rollout { fleet, parcel, states: vec![DoorState::NotBegun; doors], lines: BTreeMap::new() };
    if doors > 0 {
        rollout.begin(0);
        rollout.watch();
    }
    if rollout.states.first() == Some(&DoorState::Confirmed) {
        (1..doors).for_each(|door| rollout.begin(door));
        rollout.watch();
    }
    rollout.states
}

struct Rollout<'a> {
    fleet: &'a mut dyn Fleet,
    parcel: &'a Parcel<'a>,
    states: Vec<DoorState>,
    lines: BTreeMap<usize, Box<dyn Line>>,
}

impl Rollout<'_> {
    /// Brings a door as far as its trial's beginning, or to where it need not be waited for.
    fn begin(&mut self, door: usize) {
        let mut tries = 0;
        let state = loop {
            let before = self.states[door].clone();
            match self.try_to_begin(door) {
                Ok(state) => break state,
                // The push goes on where it was.
                Err(why) => {
                    self.lines.remove(&door);
                    tries = if self.states[door] == before { tries + 1 } else { 0 };
                    if tries >= TRIES {
                        break DoorState::Unreachable(why);
                    }
                    self.fleet.pause();
                }
            }
        };
        self.set(door, state);
    }

    /// # Errors
    /// The connection failed.
    fn try_to_begin(&mut self, door: usize) -> Result<DoorState, String> {
        let status = match self.ask(door, UpdateRequest::Status)? {
            Ok(status) => status,
            Err(refusal) => return Ok(DoorState::Failed(refusal)),
        };
        if let Some(state) = self.arrived(&status) {
            return Ok(state);
        }
        if let UpdateStage::Trial(trial) = &status.stage {
            let what = format!("another bundle, {}, is on trial: wait for its end", trial.id);
            return Ok(DoorState::Failed(what));
        }
        let mut status = match self.push(door)? {
            Ok(status) => status,
            Err(refusal) => return Ok(DoorState::Failed(refusal)),
        };
        while matches!(status.stage, UpdateStage::Preparing { .. }) {
            self.set(door, DoorState::Preparing);
            self.fleet.pause();
            status = match self.ask(door, UpdateRequest::Status)? {
                Ok(status) => status,
                Err(refusal) => return Ok(DoorState::Failed(refusal)),
            };
        }
        match &status.stage {
            UpdateStage::Unfit { why, .. } => Ok(DoorState::Failed(format!("does not fit: {why}"))),
            UpdateStage::Ready { left_behind, .. } if *left_behind > self.parcel.leave_behind => {
                Ok(DoorState::Failed(would_leave(*left_behind)))
            }
            UpdateStage::Ready { .. } => {
                let leave_behind = self.parcel.leave_behind;
                Ok(match self.ask(door, UpdateRequest::Activate { leave_behind })? {
                    Ok(status) => self.arrived(&status).unwrap_or(DoorState::Waiting),
                    Err(refusal) => DoorState::Failed(refusal),
                })
            }
            _ => Ok(self.arrived(&status).unwrap_or(DoorState::Waiting)),
        }
    }

    fn push(&mut self, door: usize) -> Result<Result<UpdateStatus, String>, String> {
        let mut line = match self.lines.remove(&door) {
            Some(line) => line,
            None => self.fleet.connect(door)?,
        };
        let parcel = self.parcel;
        let read = |offset: u64, into: &mut [u8]| (parcel.read_at)(offset, into).map_err(|e| e.to_string());
        let tell = |done: u64| {
            // Below 100, whatever the numbers.
            let percent = (done.saturating_mul(10) / parcel.size.max(1)).min(10) as u8 * 10;
            self.set(door, DoorState::Receiving(percent));
        };
        let pushed = push(parcel.size, read, |request| line.ask(request), tell);
        self.lines.insert(door, line);
        match pushed {
            Ok(status) => Ok(Ok(status)),
            Err(PushError::Carrier(why)) => Err(why),
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    /// Asks every door that is under way until none is.
    fn watch(&mut self) {
        let mut missed = vec![0; self.states.len()];
        loop {
            let under_way: Vec<usize> =
                (0..self.states.len()).filter(|&door| self.states[door].is_under_way()).collect();
            if under_way.is_empty() {
                return;
            }
            for door in under_way {
                match self.ask(door, UpdateRequest::Status) {
                    Ok(Ok(status)) => {
                        missed[door] = 0;
                        let state = self.arrived(&status).unwrap_or_else(|| judge(&status));
                        self.set(door, state);
                    }
                    Ok(Err(refusal)) => self.set(door, DoorState::Failed(refusal)),
                    // A door that starts anew in the middle of a trial is away for a while.
                    Err(why) => {
                        self.lines.remove(&door);
                        missed[door] += 1;
                        if missed[door] >= MISSED {
                            let why = format!("{why}; run the same command again to see what became of it");
                            self.set(door, DoorState::Unreachable(why));
                        }
                    }
                }
            }
            self.fleet.pause();
        }
    }

    /// What a door says that has this very bundle; `None` when it has another, or none.
    fn arrived(&self, status: &UpdateStatus) -> Option<DoorState> {
        let id = self.parcel.id;
        match &status.stage {
            UpdateStage::Trial(trial) if trial.id == id => Some(DoorState::Trial),
            UpdateStage::Waiting { id: waiting } if *waiting == id => Some(DoorState::Waiting),
            UpdateStage::Trial(_) => None,
            _ => {
                let confirmed =
                    status.models.bundle == Some(id) && status.counter_floor >= self.parcel.counter;
                confirmed.then_some(DoorState::Confirmed)
            }
        }
    }

    fn ask(&mut self, door: usize, request: UpdateRequest) -> Result<Result<UpdateStatus, String>, String> {
        let line = match self.lines.entry(door) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => entry.insert(self.fleet.connect(door)?),
        };
        match line.ask(Request::Update(request))? {
            Response::Update(status) => Ok(Ok(*status)),
            Response::Refused(refused) => Ok(Err(refused.message.to_string())),
            _ => Ok(Err("the door answered something else than was asked: it needs the same release".into())),
        }
    }

    fn set(&mut self, door: usize, state: DoorState) {
        if self.states[door] != state {
            self.fleet.changed(door, &state);
            self.states[door] = state;
        }
    }
}

/// What became of a door that was to try the bundle and does not.
fn judge(status: &UpdateStatus) -> DoorState {
    let last = status.last.map_or("before its trial", |outcome| outcome.word());
    DoorState::Failed(match &status.stage {
        UpdateStage::Unfit { why, .. } => format!("does not fit: {why}"),
        UpdateStage::Ready { left_behind, .. } => would_leave(*left_behind),
        _ => format!("went back to its former models: {last}"),
    })
}

fn would_leave(count: u32) -> String {
    format!("{count} people would have to be enrolled again: --leave-behind says how many may")
}

/// So often a connection is tried that is to take the bundle.
const TRIES: u32 = 3;
/// So many questions in a row may stay without an answer while a door is waited for.
const MISSED: u32 = 60;

#[cfg(test)]
#[path = "rollout_tests.rs"]
mod tests;

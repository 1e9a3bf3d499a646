//! Between the update and the threads that decide: the update works on its own thread, and reaches the session and the eyes through bounded queues.
//! The door decides with the models that it has until others are handed to it, ready to look.

use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};

use facelatch_shared::align::CHIP_BYTES;
use facelatch_shared::embedding::{Embedding, ModelBinding};
use facelatch_shared::event::EventKind;
use facelatch_shared::observation::Observation;
use facelatch_shared::protocol::{RefusedKind, Response};
use facelatch_shared::vision::Eyes;

use super::trial::Meter;
use crate::access::ThresholdSource;
use crate::control::ControlMessage;
use crate::door::Door;

/// Something to be done on the session's thread, between two frames.
pub type Job = Box<dyn FnOnce(&mut Door) + Send>;

/// What changes at the door with its models.
#[derive(Debug)]
pub struct Adoption {
    /// What probes are bound to from now on.
    pub binding: ModelBinding,
    /// Older models whose templates stay valid.
    pub compatible: Vec<ModelBinding>,
    /// Where the threshold comes from.
    pub threshold: ThresholdSource,
    /// What the log says of it.
    pub event: EventKind,
    /// Measures from now on, during a trial.
    pub meter: Option<Meter>,
}

/// What the thread that looks is told, between two frames.
#[derive(Debug)]
pub enum EyesOrder {
    /// Look with these; keep the former ones beside them.
    Take(Box<Eyes>, Box<Adoption>),
    /// These are the former ones, after a restart within a trial.
    Former(Box<Eyes>),
    /// Look with the former ones again.
    Back(Box<Adoption>),
    /// The former ones are not needed any more.
    Forget,
}

/// The runner's end.
#[derive(Debug)]
pub struct Seat {
    /// Questions about models go here.
    pub requests: SyncSender<ControlMessage>,
    /// For the session.
    pub jobs: Jobs,
    /// For the thread that looks.
    pub orders: Receiver<EyesOrder>,
}

/// Jobs for the session.
#[derive(Debug)]
pub struct Jobs(Receiver<Job>);

impl Jobs {
    /// Does what has come.
    pub fn run(&self, door: &mut Door) {
        while let Ok(job) = self.0.try_recv() {
            job(door);
        }
    }
}

impl Seat {
    /// Passes a question on to the update, which answers it; refuses it when the update is behind.
    pub fn forward(requests: &SyncSender<ControlMessage>, message: ControlMessage) {
        let refuse = |message: ControlMessage, why: &str| {
            message.answer(Response::refused(RefusedKind::Busy, why));
        };
        match requests.try_send(message) {
            Ok(()) => {}
            Err(TrySendError::Full(message)) => {
                refuse(message, "the update is at work: ask again in a moment")
            }
            Err(TrySendError::Disconnected(message)) => {
                refuse(message, "the update has ended: look at facelatchd's log, and restart it");
            }
        }
    }
}

/// The update's way to the session.
#[derive(Clone, Debug)]
pub struct SessionHandle(SyncSender<Job>);

impl SessionHandle {
    /// Has `work` done on the session's thread and waits for what comes of it; `None` when the session has ended.
    pub fn call<R: Send + 'static>(&self, work: impl FnOnce(&mut Door) -> R + Send + 'static) -> Option<R> {
        let (give, take) = sync_channel(1);
        let job: Job = Box::new(move |door| {
            // Whoever asked waits.
            let _ = give.try_send(work(door));
        });
        self.0.send(job).ok()?;
        take.recv().ok()
    }
}

/// Both ends of the queues.
pub(super) fn queues() -> (SessionHandle, SyncSender<EyesOrder>, Receiver<ControlMessage>, Seat) {
    let (to_session, jobs) = sync_channel(JOBS);
    let (to_eyes, orders) = sync_channel(ORDERS);
    let (requests, asked) = sync_channel(REQUESTS);
    (SessionHandle(to_session), to_eyes, asked, Seat { requests, jobs: Jobs(jobs), orders })
}

/// What came with an observation beside it.
#[derive(Debug, Default)]
pub struct Extras {
    /// The attended face's chip, while somebody is being enrolled.
    pub chip: Option<Box<[u8; CHIP_BYTES]>>,
    /// What the former models make of the same chip, during a trial.
    pub former: Option<Box<Embedding>>,
}

/// The eyes that look, and during a trial the former ones beside them.
#[derive(Debug)]
pub struct Sight {
    /// These look.
    pub eyes: Eyes,
    former: Option<Box<Eyes>>,
    /// Faces since the former ones looked.
    since: u32,
}

impl Sight {
    /// One pair.
    #[must_use]
    pub const fn new(eyes: Eyes) -> Self {
        Self { eyes, former: None, since: 0 }
    }

    /// Takes the orders that have come; what the door must know of it.
    pub fn obey(&mut self, orders: &Receiver<EyesOrder>) -> Vec<Adoption> {
        let mut adoptions = Vec::new();
        loop {
            match orders.try_recv() {
                Ok(EyesOrder::Take(eyes, adoption)) => {
                    self.former = Some(Box::new(std::mem::replace(&mut self.eyes, *eyes)));
                    adoptions.push(*adoption);
                }
                Ok(EyesOrder::Former(eyes)) => self.former = Some(eyes),
                Ok(EyesOrder::Back(adoption)) => {
                    // Without former ones nobody orders this.
                    if let Some(former) = self.former.take() {
                        self.eyes = *former;
                        adoptions.push(*adoption);
                    }
                }
                Ok(EyesOrder::Forget) => self.former = None,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return adoptions,
            }
        }
    }

    /// What goes with an observation that was just made; `keep_chip` while somebody is being enrolled.
    pub fn extras(&mut self, observation: &Observation, keep_chip: bool) -> Extras {
        if observation.attended.is_err() {
            return Extras::default();
        }
        let chip = keep_chip.then(|| Box::new(*self.eyes.last_chip()));
        self.since += 1;
        let former = match &mut self.former {
            // Chips that are cut otherwise are not the former ones' to judge.
            Some(former) if self.since >= EVERY && former.alignment() == self.eyes.alignment() => {
                self.since = 0;
                former.embed_chip(self.eyes.last_chip()).ok().map(Box::new)
            }
            _ => None,
        };
        Extras { chip, former }
    }
}

/// During a trial the former models look at every fourth face, so that the door is not slowed by half.
const EVERY: u32 = 4;
const JOBS: usize = 4;
const ORDERS: usize = 4;
const REQUESTS: usize = 4;

//! Three threads and what flows between them: capture (newest frame only), vision (frame to observation), session (the door).
//!
//! No state is shared but two flags: to stop, and that the panel shows the camera's picture. Queues are bounded: one frame between capture and vision, two observations between vision and session. The
//! session thread is the caller's; when it ends, for whatever reason, the lock is secured and the others end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use facelatch_shared::embedding::{ModelBinding, Template};
use facelatch_shared::observation::Observation;
use facelatch_shared::protocol::{Handler, Request, Response};
use facelatch_shared::quality::Unusable;
use facelatch_shared::vision::Eyes;
use thiserror::Error;

use crate::camera::backoff::Backoff;
use crate::camera::orientation::Orientation;
use crate::camera::pace::Pace;
use crate::camera::scene::Picture;
use crate::camera::{Camera, CameraError, RawFrame};
use crate::clock::Clock;
use crate::control::{ControlMessage, ToSession};
use crate::decode::Decoder;
use crate::display::Preview;
use crate::door::{Door, FrameReport};
use crate::inputs::POLL_MS;
use crate::mailbox::{Closer, Consumer, Producer, TakeError, mailbox};
use crate::pipeline::see_and_show;
use crate::update::chip;
use crate::update::live::{Adoption, Extras, EyesOrder, Jobs, Seat, Sight};

/// Opens the camera, again and again if need be.
pub type OpenCamera<'a> = Box<dyn FnMut() -> Result<Box<dyn Camera>, CameraError> + Send + 'a>;

/// Where frames come from and when to stop.
pub struct Source<'a> {
    /// Opens the camera.
    pub open_camera: OpenCamera<'a>,
    /// Time, for the pauses between attempts.
    pub clock: Arc<dyn Clock>,
    /// How the camera hangs.
    pub orientation: Orientation,
    /// What else the session's thread looks after.
    pub upkeep: Box<dyn Upkeep + 'a>,
    /// Of a replayed camera: told when a frame is dealt with.
    pub pace: Option<Arc<Pace>>,
    /// Pictures that somebody wants looked at with the door's own eyes, between two frames.
    pub looks: Option<Receiver<Look>>,
    /// The door's models can be updated: the runner's end of the queues.
    pub update: Option<Seat>,
    /// Set by a signal or a test: end in order.
    pub stop: Arc<AtomicBool>,
}

/// A picture that no camera took, and where to say what it shows.
#[derive(Debug)]
pub struct Look {
    /// The picture.
    pub picture: Picture,
    /// There is room for one answer.
    pub reply: SyncSender<Result<Looked, String>>,
}

/// What a picture shows: its one good face, or why there is none.
pub type Looked = Result<SeenFace, Unusable>;

/// The one good face of a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenFace {
    /// Its template.
    pub template: Template,
    /// What the template is bound to.
    pub binding: ModelBinding,
    /// Its chip as it may be kept, see [`crate::update::chip`].
    pub chip: Option<Vec<u8>>,
}

/// What the session's thread looks after beside the door, at least twenty times a second.
pub trait Upkeep {
    /// Called between two pieces of news; `healthy` says that frames, or the news that there are none, come as they should. `Some` ends the run.
    fn turn(&mut self, door: &Door, healthy: bool) -> Option<Ended>;
}

/// Looks after nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoUpkeep;

impl Upkeep for NoUpkeep {
    fn turn(&mut self, _door: &Door, _healthy: bool) -> Option<Ended> {
        None
    }
}

/// Whoever watches the door at work, on the session thread.
pub trait Watcher {
    /// A frame was dealt with. The requests it returns are answered before the next frame, as if an administrator had sent them.
    fn frame(&mut self, report: &FrameReport) -> Vec<Request>;

    /// The answer to one of those requests.
    fn answered(&mut self, _response: &Response) {}

    /// A frame could not be read, and why.
    fn bad_frame(&mut self, _seq: u64, _what: &str) {}
}

/// Watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoWatcher;

impl Watcher for NoWatcher {
    fn frame(&mut self, _report: &FrameReport) -> Vec<Request> {
        Vec::new()
    }
}

/// How a run ended in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// The recording is over.
    RecordingOver,
    /// The configuration changed: start again.
    Reload,
    /// The models changed in a way that needs a new start.
    Anew,
}

/// Runs `door` until it is told to stop or the recording is over.
///
/// # Errors
/// [`RunError`] when a thread died; the lock is secured then as well.
pub fn run(
    mut door: Door,
    eyes: Eyes,
    source: Source<'_>,
    control: &Receiver<ToSession>,
    watcher: &mut dyn Watcher,
) -> Result<Ended, RunError> {
    let (to_session, from_others) = sync_channel(OBSERVATIONS);
    let (producer, consumer) = mailbox::<RawFrame>();
    let Source { open_camera, orientation, clock, mut upkeep, pace, looks, update, stop } = source;
    let (orders, updates) = match update {
        Some(Seat { requests, jobs, orders }) => (Some(orders), Some((requests, jobs))),
        None => (None, None),
    };
    let wants_chips = AtomicBool::new(false);
    let live = AtomicBool::new(false);
    let wanted = &live;
    let to_wake = to_session.clone();
    // Where the queue is full the session is about to look anyway.
    door.wake_with(Box::new(move || drop(to_wake.try_send(News::Contact))));
    std::thread::scope(|scope| {
        // Whatever ends the session, a panic included, ends the other threads.
        let _ending = Ending { stop: &stop, closer: consumer.closer(), pace: pace.clone() };
        let (capture_out, stopping, capture_clock) = (to_session.clone(), &*stop, &*clock);
        let capture_pace = pace.as_deref();
        scope.spawn(move || {
            supervised("capture", &capture_out, || {
                capture(open_camera, producer, &capture_out, capture_pace, capture_clock, stopping);
            });
        });
        let wants_chips = &wants_chips;
        scope.spawn(move || {
            supervised("vision", &to_session, || {
                let looking = Looking {
                    sight: Sight::new(eyes),
                    decoder: Decoder::turning(orientation),
                    orders,
                    looks,
                    wants_chips,
                };
                vision(looking, consumer, &to_session, wanted, stopping);
            });
        });
        let updates = updates.as_ref().map(|(requests, jobs)| Updates { requests, jobs });
        let queues = Queues { news: &from_others, control, updates, wants_chips, live: wanted };
        let ended = session(&mut door, &queues, watcher, &mut *upkeep, pace.as_deref(), &*clock, &stop);
        if ended.is_ok() {
            door.stop();
        }
        // Unblocks a sender that waits for room.
        drop(from_others);
        ended
    })
}

fn look(eyes: &mut Eyes, picture: &Picture) -> Result<Looked, String> {
    let binding = eyes.binding();
    let seen = eyes.look(&picture.view()).map_err(|error| error.to_string())?;
    Ok(seen.map(|probe| SeenFace {
        template: Template::quantize(&probe.embedding),
        binding,
        chip: chip::encode(eyes.last_chip()),
    }))
}

/// What reaches the session.
enum News {
    Seen {
        observation: Box<Observation>,
        extras: Extras,
        preview: Option<Preview>,
        dropped: u64,
    },
    /// The observations that follow are other models'.
    Models(Box<Adoption>),
    BadFrame {
        seq: u64,
        what: String,
    },
    /// A contact changed.
    Contact,
    Camera {
        ok: bool,
    },
    RecordingOver,
    Died {
        thread: &'static str,
        what: String,
    },
}

fn capture(
    mut open: OpenCamera<'_>,
    mut out: Producer<RawFrame>,
    news: &SyncSender<News>,
    pace: Option<&Pace>,
    clock: &dyn Clock,
    stop: &AtomicBool,
) {
    let mut frame = RawFrame::default();
    let mut backoff = Backoff::new();
    let mut was_ok = true;
    while !stop.load(Ordering::SeqCst) {
        let ended = match open() {
            Ok(mut camera) => {
                tracing::info!(camera = camera.describe(), "the camera is open");
                // A camera that stalled may give what it held before, again at every opening. Nobody is let in on such a frame, and the camera
                // is not back before it gives others.
                let mut stale = if was_ok { 0 } else { STALE_FRAMES };
                stream(&mut *camera, &mut frame, &mut out, |seq| {
                    if stop.load(Ordering::SeqCst) {
                        return Next::Stop;
                    }
                    if stale > 0 {
                        stale -= 1;
                        if let Some(pace) = pace {
                            pace.done(seq);
                        }
                        return Next::Skip;
                    }
                    backoff.succeeded();
                    if !std::mem::replace(&mut was_ok, true) {
                        let _ = news.send(News::Camera { ok: true });
                    }
                    Next::Publish
                })
            }
            Err(error) => Some(error),
        };
        match ended {
            None => return,
            Some(CameraError::Ended) => {
                let _ = news.send(News::RecordingOver);
                return;
            }
            Some(error) => {
                if std::mem::replace(&mut was_ok, false) {
                    tracing::error!(%error, "no frames");
                    let _ = news.send(News::Camera { ok: false });
                }
                let wait_ms = backoff.failed(clock.now());
                sleep_unless(stop, clock, wait_ms);
            }
        }
    }
}

/// Publishes frames until the camera fails (`Some`) or nobody wants more (`None`).
fn stream(
    camera: &mut dyn Camera,
    frame: &mut RawFrame,
    out: &mut Producer<RawFrame>,
    mut next: impl FnMut(u64) -> Next,
) -> Option<CameraError> {
    loop {
        if let Err(error) = camera.next_frame(frame) {
            return Some(error);
        }
        match next(frame.seq) {
            Next::Skip => {}
            Next::Publish if out.publish(frame).is_ok() => {}
            Next::Publish | Next::Stop => return None,
        }
    }
}

/// What becomes of a frame.
enum Next {
    Publish,
    Skip,
    Stop,
}

/// What the looking thread works with.
struct Looking<'a> {
    sight: Sight,
    decoder: Decoder,
    orders: Option<Receiver<EyesOrder>>,
    looks: Option<Receiver<Look>>,
    wants_chips: &'a AtomicBool,
}

fn vision(
    mut looking: Looking<'_>,
    mut frames: Consumer<RawFrame>,
    news: &SyncSender<News>,
    live: &AtomicBool,
    stop: &AtomicBool,
) {
    let mut frame = RawFrame::default();
    while !stop.load(Ordering::SeqCst) {
        // One at most between two frames: those at the door come first.
        if let Some(Ok(Look { picture, reply })) = looking.looks.as_ref().map(Receiver::try_recv) {
            let _ = reply.try_send(look(&mut looking.sight.eyes, &picture));
        }
        let taken = frames.take(&mut frame, FRAME_WAIT);
        // Whatever was seen before lies in the queue before this.
        let adoptions = looking.orders.as_ref().map(|orders| looking.sight.obey(orders)).unwrap_or_default();
        if adoptions.into_iter().any(|adoption| news.send(News::Models(adoption.into())).is_err()) {
            return;
        }
        match taken {
            Ok(()) => {}
            Err(TakeError::Closed) => return,
            Err(_) => continue,
        }
        let wanted = live.load(Ordering::Relaxed);
        let seen = match see_and_show(&frame, &mut looking.decoder, &mut looking.sight.eyes, wanted) {
            Ok((observation, preview)) => {
                let extras = looking.sight.extras(&observation, looking.wants_chips.load(Ordering::Relaxed));
                let observation = Box::new(observation);
                News::Seen { observation, extras, preview, dropped: frames.dropped() }
            }
            Err(error) => News::BadFrame { seq: frame.seq, what: error.to_string() },
        };
        if news.send(seen).is_err() {
            return;
        }
    }
}

struct Queues<'a> {
    news: &'a Receiver<News>,
    control: &'a Receiver<ToSession>,
    updates: Option<Updates<'a>>,
    wants_chips: &'a AtomicBool,
    live: &'a AtomicBool,
}

/// The update's way to and from the session.
struct Updates<'a> {
    requests: &'a SyncSender<ControlMessage>,
    jobs: &'a Jobs,
}

impl Queues<'_> {
    /// What others ask of the door, and the update's jobs.
    fn serve(&self, door: &mut Door) {
        while let Ok(message) = self.control.try_recv() {
            match (message, &self.updates) {
                (ToSession::Ask(message), Some(updates)) if matches!(message.request, Request::Update(_)) => {
                    Seat::forward(updates.requests, message);
                }
                // A client that went away gets no answer.
                (ToSession::Ask(ControlMessage { request, reply }), _) => {
                    drop(reply.try_send(door.handle(request)));
                }
                (ToSession::Visit(work), _) => work(door),
            }
        }
        if let Some(updates) = &self.updates {
            updates.jobs.run(door);
        }
        self.wants_chips.store(door.wants_chips(), Ordering::Relaxed);
    }
}

fn session(
    door: &mut Door,
    queues: &Queues<'_>,
    watcher: &mut dyn Watcher,
    upkeep: &mut dyn Upkeep,
    pace: Option<&Pace>,
    clock: &dyn Clock,
    stop: &AtomicBool,
) -> Result<Ended, RunError> {
    let mut heard = clock.now();
    while !stop.load(Ordering::SeqCst) {
        let healthy = clock.now().since(heard) < SILENCE_MS || !door.camera_ok();
        if let Some(ended) = upkeep.turn(door, healthy) {
            return Ok(ended);
        }
        queues.serve(door);
        if door.wants_anew() {
            return Ok(Ended::Anew);
        }
        queues.live.store(door.wants_preview(), Ordering::Relaxed);
        let next = queues.news.recv_timeout(until_next(door, clock));
        // A bouncing contact is no sign of a camera that works.
        if next.as_ref().is_ok_and(|news| !matches!(news, News::Contact)) {
            heard = clock.now();
        }
        match next {
            Ok(News::Models(adoption)) => door.adopt(*adoption),
            Ok(News::Seen { observation, extras, preview, dropped }) => {
                door.set_dropped(dropped);
                let seq = observation.frame_seq;
                let report = door.attend_with(*observation, extras);
                if let Some(preview) = preview {
                    door.show_live(preview);
                }
                for request in watcher.frame(&report) {
                    watcher.answered(&door.handle(request));
                }
                if let Some(pace) = pace {
                    pace.done(seq);
                }
            }
            Ok(News::BadFrame { seq, what }) => {
                tracing::debug!(seq, what, "a frame could not be read");
                door.bad_frame();
                watcher.bad_frame(seq, &what);
                if let Some(pace) = pace {
                    pace.done(seq);
                }
            }
            Ok(News::Contact) => door.tick(),
            Ok(News::Camera { ok }) => door.camera(ok),
            Ok(News::RecordingOver) => return Ok(Ended::RecordingOver),
            Ok(News::Died { thread, what }) => return Err(RunError::Died { thread, what }),
            Err(RecvTimeoutError::Timeout) => door.tick(),
            // The other threads see the flag too, and may be the first to end.
            Err(RecvTimeoutError::Disconnected) if stop.load(Ordering::SeqCst) => return Ok(Ended::Stopped),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(RunError::Died { thread: "vision", what: "it ended on its own".into() });
            }
        }
    }
    Ok(Ended::Stopped)
}

/// How long the session may wait for news: until its next timer, and never so long that a contact would be missed.
fn until_next(door: &Door, clock: &dyn Clock) -> Duration {
    let due_ms = door.next_deadline().map_or(POLL_MS, |at| at.since(clock.now()));
    Duration::from_millis(due_ms.clamp(1, POLL_MS))
}

/// Runs a thread's work; a panic is news like any other, so that the session ends in order instead of waiting for ever.
fn supervised(thread: &'static str, news: &SyncSender<News>, work: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
        let what = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a panic without words".into());
        let _ = news.send(News::Died { thread, what });
    }
}

fn sleep_unless(stop: &AtomicBool, clock: &dyn Clock, ms: u64) {
    let mut left = ms;
    while left > 0 && !stop.load(Ordering::SeqCst) {
        let now = left.min(100);
        clock.wait_ms(now);
        left -= now;
    }
}

/// Ends the other threads when the session does.
struct Ending<'a> {
    stop: &'a AtomicBool,
    closer: Closer,
    pace: Option<Arc<Pace>>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.closer.close();
        if let Some(pace) = &self.pace {
            pace.close();
        }
    }
}

/// Why a run ended out of order.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// A thread ended that should not have.
    #[error("the {thread} thread died: {what}; the door is secured")]
    Died {
        /// Which.
        thread: &'static str,
        /// What it said.
        what: String,
    },
}

const OBSERVATIONS: usize = 2;
/// As many as a driver's queue holds.
const STALE_FRAMES: u32 = 4;
const FRAME_WAIT: Duration = Duration::from_millis(200);
/// A camera that gives frames and a vision thread that says nothing for so long: it hangs.
const SILENCE_MS: u64 = 60_000;

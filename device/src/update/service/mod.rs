//! The update at work: answers what is asked about models, and drives what was begun, from the first piece of a bundle to the end of its trial.
//!
//! On a thread of its own, because a medium may take its time; the door decides meanwhile. Whatever takes longer than an answer may is done
//! after the answer, and told by [`UpdateRequest::Status`].

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use facelatch_shared::bundle::{BundleId, Content, Root, SectionKind, SignedRoot};
use facelatch_shared::embedding::ModelBinding;
use facelatch_shared::event::EventKind;
use facelatch_shared::person::SubjectId;
use facelatch_shared::protocol::update::{
    ModelRow, ModelsFrom, ModelsInUse, TrialStatus, UpdateRequest, UpdateStage, UpdateStatus,
};
use facelatch_shared::protocol::{PAGE, PersonRow, RefusedKind, Request, Response};
use facelatch_shared::time::Millis;
use facelatch_shared::vision::Eyes;
use facelatch_shared::vision::contract::ManifestEntry;
use facelatch_shared::vision::lineage::Allows;

use crate::access::ThresholdSource;
use crate::clock::Clock;
use crate::config::Config;
use crate::control::ControlMessage;
use crate::update::intake::Intake;
use crate::update::live::{Adoption, EyesOrder, Seat, SessionHandle, queues};
use crate::update::models::{Loaded, ModelsError, Tried, load_source};
use crate::update::prepare::{self, Prepared, Staged, Work};
use crate::update::record::{Outcome, Phase, Source};
use crate::update::trial::{Former, Meter};
use crate::update::updater::{UpdateError, Updater};
use refusal::Refusal;

/// The update's thread; see [`Service::start`].
#[derive(Debug)]
pub struct Service {
    thread: JoinHandle<Updater>,
}

impl Service {
    /// Begins to answer. `loaded` is what the door looks with; its eyes are given back, for the runner, with the runner's end of the queues.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub fn start(
        config: &Config,
        mut updater: Updater,
        clock: Arc<dyn Clock>,
        loaded: Loaded,
    ) -> io::Result<(Self, Seat, Eyes)> {
        let (session, to_eyes, asked, seat) = queues();
        let Loaded { eyes, in_use, compatible, threshold, trial } = loaded;
        let stage = match trial {
            Some(tried) => Stage::Trial(resume(config, &mut updater, &to_eyes, tried, clock.now())),
            None => Stage::Rest,
        };
        let worker = Worker {
            config: config.clone(),
            updater,
            clock,
            session,
            eyes: to_eyes,
            now: InUse { models: in_use, rows: rows_of(&eyes), threshold, compatible },
            stage,
            intake: None,
            catching_up: CatchUp::Due,
        };
        let thread = std::thread::Builder::new().name("update".into()).spawn(move || worker.serve(&asked))?;
        Ok((Self { thread }, seat, eyes))
    }

    /// Waits for the end, which comes when the runner's end of the queues is gone. `None` when the thread died.
    #[must_use]
    pub fn finish(self) -> Option<Updater> {
        self.thread.join().ok()
    }
}

mod refusal;
mod shown;
mod steps;
mod system;

struct Worker {
    config: Config,
    updater: Updater,
    clock: Arc<dyn Clock>,
    session: SessionHandle,
    eyes: SyncSender<EyesOrder>,
    now: InUse,
    stage: Stage,
    intake: Option<Intake>,
    catching_up: CatchUp,
}

/// Models as the door uses them.
#[derive(Clone, Debug)]
struct InUse {
    models: ModelsInUse,
    /// The nets, with their licences.
    rows: Vec<ModelRow>,
    threshold: ThresholdSource,
    compatible: Vec<ModelBinding>,
}

enum Stage {
    Rest,
    Preparing {
        id: BundleId,
        work: Work<Prepared>,
    },
    Unfit {
        id: BundleId,
        why: String,
    },
    Ready {
        id: BundleId,
        prepared: Box<Prepared>,
    },
    Waiting {
        id: BundleId,
        prepared: Box<Prepared>,
        leave_behind: u32,
    },
    Trial(Box<Running>),
    /// A system is here; with `go` it is installed as soon as nobody stands there.
    System {
        id: BundleId,
        go: bool,
    },
    /// Init writes it into the other slot of the card.
    Installing {
        id: BundleId,
    },
    /// Back to the former models, at the next turn; with them where they are kept beside the present ones.
    Returning(Outcome, Option<Box<InUse>>),
}

struct Running {
    tried: Tried,
    until: Millis,
    /// What the door goes back to, with whether its eyes are kept beside the new ones.
    back: Option<Box<InUse>>,
}

/// Templates that are missing and could be made.
enum CatchUp {
    Due,
    Running(Work<()>),
    Done,
}

impl Worker {
    fn serve(mut self, asked: &Receiver<ControlMessage>) -> Updater {
        self.measure();
        self.greet_system();
        let (mut turned, mut heard) = (Instant::now(), Instant::now());
        loop {
            match asked.recv_timeout(TURN) {
                Ok(ControlMessage { request, reply }) => {
                    let response = match request {
                        Request::Update(request) => self.answer(request),
                        _ => Response::refused(RefusedKind::Malformed, "this is no question about models"),
                    };
                    // A client that went away gets no answer.
                    let _ = reply.try_send(response);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.updater,
            }
            if turned.elapsed() >= TURN {
                self.turn();
                turned = Instant::now();
            }
            if heard.elapsed() >= HEAR {
                self.tell_system();
                heard = Instant::now();
            }
        }
    }

    /// After a start within a trial: the door measures again.
    fn measure(&self) {
        let Stage::Trial(running) = &self.stage else { return };
        let back = running.back.as_ref().map(|back| (back.models.binding, back.threshold.clone()));
        self.session.call(move |door| {
            let former = back.map(|(binding, threshold)| Former {
                binding,
                threshold: threshold.at(door.people().templates_of(binding)).threshold,
                min_rank_gap: door.rule().min_rank_gap,
            });
            door.begin_meter(Meter::new(former));
        });
    }

    fn answer(&mut self, request: UpdateRequest) -> Response {
        let done = match request {
            UpdateRequest::Status => Ok(()),
            UpdateRequest::Trust(root) => self.trust(root),
            UpdateRequest::Begin { size, id } => self.begin(size, id),
            UpdateRequest::Chunk { offset, bytes } => self.chunk(offset, &bytes),
            UpdateRequest::Finish => self.finish(),
            UpdateRequest::LeftBehind { from } => return self.left_behind(from),
            UpdateRequest::Models => return Response::Models(self.now.rows.clone()),
            UpdateRequest::Activate { leave_behind } => self.activate_soon(leave_behind),
            UpdateRequest::Confirm => self.confirm_now(),
            UpdateRequest::RollBack => self.return_soon(),
            UpdateRequest::Discard => self.discard(),
            _ => Err(Refusal::new(RefusedKind::Malformed, "this door does not know the request: update it")),
        };
        match done {
            Ok(()) => Response::Update(Box::new(self.status())),
            Err(refusal) => {
                if let Some(reason) = refusal.logged {
                    let reason = heapless::String::try_from(reason).unwrap_or_default();
                    self.log(EventKind::BundleRefused { reason });
                }
                Response::refused(refusal.kind, &refusal.message)
            }
        }
    }

    fn trust(&mut self, root: SignedRoot) -> Result<(), Refusal> {
        let before = self.root_version();
        self.updater.set_root(root)?;
        match self.root_version() {
            Some(version) if before != Some(version) => self.log(EventKind::RootTrusted { version }),
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, size: u64, id: BundleId) -> Result<(), Refusal> {
        match &self.stage {
            Stage::Preparing { id: known, .. }
            | Stage::Ready { id: known, .. }
            | Stage::Waiting { id: known, .. }
            | Stage::System { id: known, .. }
            | Stage::Installing { id: known }
                if *known == id =>
            {
                return Ok(());
            }
            Stage::Preparing { .. }
            | Stage::Waiting { .. }
            | Stage::Returning(..)
            | Stage::System { go: true, .. }
            | Stage::Installing { .. } => return Err(Refusal::busy()),
            _ => {}
        }
        let (intake, _) = Intake::begin(&mut self.updater, id, size, self.clock.unix())?;
        if !matches!(self.stage, Stage::Trial(_)) {
            self.stage = Stage::Rest;
        }
        self.intake = Some(intake);
        Ok(())
    }

    fn chunk(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Refusal> {
        let Some(intake) = &mut self.intake else {
            return Err(Refusal::new(
                RefusedKind::OutOfOrder,
                "no bundle is being received: begin one first",
            ));
        };
        let before = matches!(self.updater.record().phase, Phase::Staged(..));
        intake.take(&mut self.updater, offset, bytes, self.clock.unix())?;
        if !before && let Phase::Staged(slot, id) = self.updater.record().phase {
            let manifest = self.updater.manifest_of(Source::Slot(slot))?;
            let counter = manifest.map_or(0, |manifest| manifest.counter);
            self.log(EventKind::BundleStaged { bundle: short(id), counter });
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Refusal> {
        let Phase::Staged(slot, id) = self.updater.record().phase else {
            let what = match &self.intake {
                Some(intake) => format!("the bundle is not whole: it goes on at byte {}", intake.offset()),
                None => UpdateError::NothingStaged.to_string(),
            };
            return Err(Refusal::new(RefusedKind::OutOfOrder, &what));
        };
        match &self.stage {
            Stage::Preparing { .. }
            | Stage::Ready { .. }
            | Stage::Waiting { .. }
            | Stage::System { .. }
            | Stage::Installing { .. } => return Ok(()),
            Stage::Returning(..) | Stage::Trial(_) => return Err(Refusal::busy()),
            Stage::Rest | Stage::Unfit { .. } => {}
        }
        let manifest = self.updater.manifest_of(Source::Slot(slot))?;
        if manifest.is_some_and(|manifest| manifest.content() == Content::System) {
            // Whoever installs it reads all of it again.
            (self.stage, self.intake) = (Stage::System { id, go: false }, None);
            return Ok(());
        }
        let (manifest, folder) = self.updater.staged(self.clock.unix())?;
        let self_test = self.updater.staged_section(SectionKind::SelfTest)?;
        let folder = folder.ok_or(UpdateError::NothingStaged)?;
        let keep = [Some(self.now.models.binding), self.former_binding()].into_iter().flatten().collect();
        let staged = Staged { id, manifest, folder, self_test, keep };
        let (config, session, clock) = (self.config.clone(), self.session.clone(), Arc::clone(&self.clock));
        let work = Work::start(move |steps| prepare::bundle(&config, staged, &session, &*clock, steps));
        self.stage = Stage::Preparing { id, work: work.map_err(UpdateError::from)? };
        self.intake = None;
        Ok(())
    }

    fn left_behind(&self, from: SubjectId) -> Response {
        let (Stage::Ready { prepared, .. } | Stage::Waiting { prepared, .. }) = &self.stage else {
            return Response::refused(RefusedKind::Invalid, "no bundle is ready: push one first");
        };
        let ids: Vec<_> =
            prepared.plan.left_behind.iter().copied().filter(|&id| id >= from).take(PAGE).collect();
        let rows = self.session.call(move |door| {
            let found = ids.into_iter().filter_map(|id| door.people().get(id));
            let row = |person: facelatch_shared::gallery::Person| PersonRow {
                id: person.id,
                name: person.name,
                state: person.state,
                enrolled_at: person.enrolled_at,
                templates: u8::try_from(person.templates).unwrap_or(u8::MAX),
            };
            found.map(row).collect()
        });
        Response::People(rows.unwrap_or_default())
    }

    fn activate_soon(&mut self, leave_behind: u32) -> Result<(), Refusal> {
        match std::mem::replace(&mut self.stage, Stage::Rest) {
            Stage::Ready { id, prepared } if count(&prepared.plan.left_behind) > leave_behind => {
                let left = count(&prepared.plan.left_behind);
                self.stage = Stage::Ready { id, prepared };
                Err(Refusal::new(RefusedKind::Invalid, &would_leave(left)))
            }
            Stage::Ready { id, prepared } => {
                self.stage = Stage::Waiting { id, prepared, leave_behind };
                Ok(())
            }
            Stage::System { id, .. } => {
                self.stage = Stage::System { id, go: true };
                Ok(())
            }
            waiting @ (Stage::Waiting { .. } | Stage::Installing { .. }) => {
                self.stage = waiting;
                Ok(())
            }
            Stage::Unfit { id, why } => {
                let refusal = Refusal::new(RefusedKind::Unverified, &why);
                self.stage = Stage::Unfit { id, why };
                Err(refusal)
            }
            other => {
                self.stage = other;
                Err(Refusal::new(RefusedKind::Invalid, "no bundle is ready: push one first"))
            }
        }
    }

    fn confirm_now(&mut self) -> Result<(), Refusal> {
        if !matches!(self.stage, Stage::Trial(_)) {
            return Err(UpdateError::NoTrial.into());
        }
        Ok(self.confirm()?)
    }

    fn return_soon(&mut self) -> Result<(), Refusal> {
        let back = match &mut self.stage {
            Stage::Trial(running) => running.back.take(),
            Stage::Returning(..) => return Ok(()),
            Stage::Preparing { .. } | Stage::Waiting { .. } | Stage::Installing { .. } => {
                return Err(Refusal::busy());
            }
            _ if self.updater.record().previous.is_none() => return Err(UpdateError::NothingBefore.into()),
            _ => None,
        };
        self.stage = Stage::Returning(Outcome::Commanded, back);
        Ok(())
    }

    fn discard(&mut self) -> Result<(), Refusal> {
        match &self.stage {
            Stage::Preparing { .. } | Stage::Returning(..) | Stage::Trial(_) | Stage::Installing { .. } => {
                return Err(Refusal::busy());
            }
            _ => {}
        }
        self.updater.discard()?;
        (self.intake, self.stage) = (None, Stage::Rest);
        Ok(())
    }

    fn root_version(&self) -> Option<u32> {
        let root = self.updater.record().root.as_ref()?.root().ok();
        root.map(|Root { version, .. }| version)
    }

    /// What the templates of the models are bound to that the door can go back to.
    fn former_binding(&mut self) -> Option<ModelBinding> {
        match self.updater.record().previous.as_ref()?.source {
            Source::Factory => configured_binding(&self.config),
            slot => Some(self.updater.manifest_of(slot).ok()??.binding),
        }
    }

    fn log(&self, kind: EventKind) {
        self.session.call(|door| door.record(kind));
    }
}

/// Goes on with a trial after a start of the program: the former models are loaded beside those that are tried.
fn resume(
    config: &Config,
    updater: &mut Updater,
    eyes: &SyncSender<EyesOrder>,
    tried: Tried,
    now: Millis,
) -> Box<Running> {
    let until = now.plus(u64::from(tried.trial.seconds) * 1000);
    let previous = updater.record().previous.clone();
    let loaded = match &previous {
        Some(former) => load_source(config, updater, former.source),
        None => Err(UpdateError::NothingBefore.into()),
    };
    let back = match (loaded, previous) {
        (Ok(Loaded { eyes: former, mut in_use, threshold, .. }), Some(previous)) => {
            in_use.bundle = previous.id;
            let rows = rows_of(&former);
            let compatible = previous.compatible;
            let _ = eyes.send(EyesOrder::Former(former.into()));
            Some(Box::new(InUse { models: in_use, rows, threshold, compatible }))
        }
        (Err(error), _) => {
            tracing::warn!(%error, "the former models do not load: the trial goes on without comparing");
            None
        }
        (Ok(_), None) => None,
    };
    Box::new(Running { tried, until, back })
}

/// What the configured models' templates are bound to; `None` when that cannot be read.
fn configured_binding(config: &Config) -> Option<ModelBinding> {
    use facelatch_shared::vision::contract::ModelKind;
    use facelatch_shared::vision::{Manifest, embed::binding_with};
    let models = &config.models;
    let list = Manifest::load(&models.dir).ok()?;
    let embedder = list.find(&models.dir, &models.embedder, ModelKind::Embedder).ok()?;
    let fiducials =
        models.fiducials.as_ref().and_then(|name| list.find(&models.dir, name, ModelKind::Fiducials).ok());
    Some(binding_with(embedder, fiducials))
}

/// What each net is, and what it learnt from.
fn rows_of(eyes: &Eyes) -> Vec<ModelRow> {
    let row = |entry: &ManifestEntry| ModelRow {
        name: cut(&entry.name),
        licence: cut(&entry.licence),
        research_only: entry.lineage.as_ref().map(|lineage| lineage.allows == Allows::Research),
    };
    eyes.models().iter().map(row).collect()
}

/// As much of a text as fits.
fn cut<const N: usize>(text: &str) -> heapless::String<N> {
    let mut short = heapless::String::new();
    text.chars().take_while(|&c| short.push(c).is_ok()).for_each(drop);
    short
}

fn adoption(new: &InUse, event: EventKind, meter: Option<Meter>) -> Adoption {
    Adoption {
        binding: new.models.binding,
        compatible: new.compatible.clone(),
        threshold: new.threshold.clone(),
        event,
        meter,
    }
}

fn short(id: BundleId) -> [u8; 8] {
    let mut first = [0; 8];
    first.copy_from_slice(&id.0[..8]);
    first
}

fn count(ids: &[SubjectId]) -> u32 {
    u32::try_from(ids.len()).unwrap_or(u32::MAX)
}

fn would_leave(count: u32) -> String {
    format!("{count} people would have to be enrolled again, more than was said: look who, then say so")
}

/// How often what is under way is looked at.
const TURN: Duration = Duration::from_millis(200);
/// How often the record of the card's system is read.
const HEAR: Duration = Duration::from_secs(5);

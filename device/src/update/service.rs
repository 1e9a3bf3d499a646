//! The update at work: answers what is asked about models, and drives what was begun, from the first piece of a bundle to the end of its trial.
//!
//! On a thread of its own, because a medium may take its time; the door decides meanwhile. Whatever takes longer than an answer may is done
//! after the answer, and told by [`UpdateRequest::Status`].

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use facelatch_shared::bundle::{BundleError, BundleId, Root, SectionKind, SignedRoot};
use facelatch_shared::embedding::ModelBinding;
use facelatch_shared::event::EventKind;
use facelatch_shared::person::SubjectId;
use facelatch_shared::protocol::update::{
    ModelsFrom, ModelsInUse, TrialStatus, UpdateRequest, UpdateStage, UpdateStatus,
};
use facelatch_shared::protocol::{PAGE, PersonRow, RefusedKind, Request, Response};
use facelatch_shared::time::Millis;
use facelatch_shared::vision::Eyes;

use super::intake::Intake;
use super::live::{Adoption, EyesOrder, Seat, SessionHandle, queues};
use super::models::{Loaded, ModelsError, Tried, load_source};
use super::prepare::{self, Prepared, Staged, Work};
use super::record::{Outcome, Phase, Source};
use super::trial::{Former, Meter};
use super::updater::{UpdateError, Updater};
use crate::access::ThresholdSource;
use crate::clock::Clock;
use crate::config::Config;
use crate::control::ControlMessage;
use crate::people::PeopleError;

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
            now: InUse { models: in_use, threshold, compatible },
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
        let mut turned = Instant::now();
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
                if *known == id =>
            {
                return Ok(());
            }
            Stage::Preparing { .. } | Stage::Waiting { .. } | Stage::Returning(..) => {
                return Err(Refusal::busy());
            }
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
        let Phase::Staged(_, id) = self.updater.record().phase else {
            let what = match &self.intake {
                Some(intake) => format!("the bundle is not whole: it goes on at byte {}", intake.offset()),
                None => UpdateError::NothingStaged.to_string(),
            };
            return Err(Refusal::new(RefusedKind::OutOfOrder, &what));
        };
        match &self.stage {
            Stage::Preparing { .. } | Stage::Ready { .. } | Stage::Waiting { .. } => return Ok(()),
            Stage::Returning(..) | Stage::Trial(_) => return Err(Refusal::busy()),
            Stage::Rest | Stage::Unfit { .. } => {}
        }
        let now = self.clock.unix();
        let (manifest, folder) = self.updater.staged(now)?;
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
            waiting @ Stage::Waiting { .. } => {
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
            Stage::Preparing { .. } | Stage::Waiting { .. } => return Err(Refusal::busy()),
            _ if self.updater.record().previous.is_none() => return Err(UpdateError::NothingBefore.into()),
            _ => None,
        };
        self.stage = Stage::Returning(Outcome::Commanded, back);
        Ok(())
    }

    fn discard(&mut self) -> Result<(), Refusal> {
        match &self.stage {
            Stage::Preparing { .. } | Stage::Returning(..) | Stage::Trial(_) => return Err(Refusal::busy()),
            _ => {}
        }
        self.updater.discard()?;
        (self.intake, self.stage) = (None, Stage::Rest);
        Ok(())
    }

    /// What is due.
    fn turn(&mut self) {
        match std::mem::replace(&mut self.stage, Stage::Rest) {
            Stage::Preparing { id, work } if work.is_over() => self.prepared(id, work.finish()),
            Stage::Waiting { id, prepared, leave_behind } => {
                if self.session.call(|door| door.is_quiet()) == Some(true) {
                    self.activate(id, prepared, leave_behind);
                } else {
                    self.stage = Stage::Waiting { id, prepared, leave_behind };
                }
            }
            Stage::Trial(running) => {
                self.stage = Stage::Trial(running);
                self.judge();
            }
            Stage::Returning(why, back) => self.roll_back(why, back),
            other => self.stage = other,
        }
        self.catch_up();
    }

    fn prepared(&mut self, id: BundleId, outcome: Result<Prepared, ModelsError>) {
        self.stage = match outcome {
            Ok(prepared) => {
                let left_behind = prepared.plan.left_behind.len();
                tracing::info!(%id, left_behind, "a bundle is ready");
                Stage::Ready { id, prepared: prepared.into() }
            }
            Err(ModelsError::Ended) => Stage::Rest,
            Err(error) => {
                tracing::warn!(%id, %error, "a bundle does not fit; the present models stay");
                let reason = heapless::String::try_from(error.outcome().word()).unwrap_or_default();
                self.log(EventKind::BundleRefused { reason });
                Stage::Unfit { id, why: error.to_string() }
            }
        };
    }

    /// The step that changes everything at once: one record, which says which models and hence which templates count.
    fn activate(&mut self, id: BundleId, mut prepared: Box<Prepared>, leave_behind: u32) {
        // Somebody may have been enrolled since.
        let carried =
            prepare::carry(&mut prepared.eyes, &self.session, &*self.clock, &prepare::Steps::default());
        let compatible: Vec<_> = prepared.manifest.compatible.iter().map(|older| older.binding).collect();
        let (binding, understood) = (prepared.manifest.binding, compatible.clone());
        let looked =
            self.session.call(move |door| (door.people().outcome(binding, &understood), door.rule()));
        let rule = match (carried, looked) {
            (Ok(()), Some((plan, rule))) => {
                prepared.plan = plan;
                rule
            }
            (Err(error), _) => {
                tracing::error!(%error, "the bundle is not activated");
                self.stage = Stage::Unfit { id, why: error.to_string() };
                return;
            }
            (Ok(()), None) => return,
        };
        if count(&prepared.plan.left_behind) > leave_behind {
            let left_behind = prepared.plan.left_behind.len();
            tracing::warn!(
                left_behind,
                "the bundle is not activated: somebody was enrolled since, who would be left behind"
            );
            self.stage = Stage::Ready { id, prepared };
            return;
        }
        let trying = match self.updater.activate(self.clock.unix()) {
            Ok(trying) => trying,
            Err(error) => {
                tracing::error!(%error, "the bundle is not activated");
                self.stage = Stage::Unfit { id, why: error.to_string() };
                return;
            }
        };
        let Prepared { eyes, manifest, threshold, proof, .. } = *prepared;
        let from = match self.updater.record().active() {
            Source::Slot(super::Slot::B) => ModelsFrom::SlotB,
            _ => ModelsFrom::SlotA,
        };
        let models = ModelsInUse {
            from,
            bundle: Some(id),
            name: manifest.name.clone(),
            embedder: manifest.embedder.clone(),
            binding,
        };
        let new = InUse { models, threshold, compatible };
        let former = Former {
            binding: self.now.models.binding,
            threshold: rule.threshold,
            min_rank_gap: rule.min_rank_gap,
        };
        let event = EventKind::ModelsActivated { bundle: short(id), model: binding };
        let adoption = adoption(&new, event, Some(Meter::new(Some(former))));
        let _ = self.eyes.send(EyesOrder::Take(eyes.into(), adoption.into()));
        let back = Some(Box::new(std::mem::replace(&mut self.now, new)));
        let tried = Tried { trying, trial: manifest.trial, embed_p95_us: proof.embed_p95_us };
        let until = self.clock.now().plus(u64::from(tried.trial.seconds) * 1000);
        self.stage = Stage::Trial(Box::new(Running { tried, until, back }));
    }

    /// Whether the trial is over, and how.
    fn judge(&mut self) {
        let Stage::Trial(running) = &self.stage else { return };
        let Some(Some(meter)) = self.session.call(|door| door.meter().cloned()) else { return };
        let Running { tried, until, .. } = &**running;
        let over = self.clock.now() >= *until;
        let outcome = match meter.verdict(&tried.trial) {
            None if over => meter.last_verdict(&tried.trial, tried.embed_p95_us),
            None => return,
            Some(outcome) => outcome,
        };
        match outcome {
            Outcome::Confirmed => {
                if let Err(error) = self.confirm() {
                    tracing::error!(%error, "the trial went well and cannot be confirmed; it goes on");
                }
            }
            why => {
                tracing::warn!(why = why.word(), "the trial failed; the former models come back");
                if let Stage::Trial(running) = std::mem::replace(&mut self.stage, Stage::Rest) {
                    self.roll_back(why, running.back);
                }
            }
        }
    }

    fn confirm(&mut self) -> Result<(), UpdateError> {
        self.updater.confirm()?;
        let Stage::Trial(running) = std::mem::replace(&mut self.stage, Stage::Rest) else { return Ok(()) };
        let _ = self.eyes.send(EyesOrder::Forget);
        let Tried { trying, .. } = running.tried;
        self.log(EventKind::ModelsConfirmed { bundle: short(trying.id), counter: trying.counter });
        let keep: Vec<_> =
            [Some(self.now.models.binding), self.former_binding()].into_iter().flatten().collect();
        let kept = self.session.call(move |door| {
            door.end_meter();
            door.people_mut().keep_bindings(&keep)
        });
        if let Some(Err(error)) = kept {
            tracing::warn!(%error, "templates of older models could not be forgotten yet");
        }
        Ok(())
    }

    fn roll_back(&mut self, why: Outcome, back: Option<Box<InUse>>) {
        let to = match self.updater.roll_back(why) {
            Ok(to) => to,
            Err(error) => {
                tracing::error!(%error, "the former models cannot be taken back");
                return;
            }
        };
        self.catching_up = CatchUp::Due;
        let event = |model| EventKind::ModelsRolledBack { model, why };
        if let Some(back) = back {
            let order = EyesOrder::Back(adoption(&back, event(back.models.binding), None).into());
            let _ = self.eyes.send(order);
            self.now = *back;
            return;
        }
        match load_source(&self.config, &mut self.updater, to) {
            Ok(Loaded { eyes, mut in_use, threshold, .. }) => {
                in_use.bundle = self.updater.record().active_id;
                self.now =
                    InUse { models: in_use, threshold, compatible: self.updater.compatible().to_vec() };
                let adoption = adoption(&self.now, event(self.now.models.binding), None);
                let _ = self.eyes.send(EyesOrder::Take(eyes.into(), adoption.into()));
                let _ = self.eyes.send(EyesOrder::Forget);
            }
            Err(error) => {
                tracing::error!(%error, "the former models do not load; the door starts anew and looks for others");
                self.session.call(|door| door.start_anew());
            }
        }
    }

    /// Makes templates of the models in use for those who have chips and none: enrolled while other models were in use.
    fn catch_up(&mut self) {
        self.catching_up = match std::mem::replace(&mut self.catching_up, CatchUp::Done) {
            CatchUp::Due if matches!(self.stage, Stage::Rest | Stage::Trial(_)) => {
                let binding = self.now.models.binding;
                let lacking = move |door: &mut crate::door::Door| {
                    let lacking = !door.people().chips_to_carry(binding, SubjectId(0), 1).is_empty();
                    (door.binding() == binding).then_some(lacking)
                };
                match self.session.call(lacking) {
                    Some(Some(true)) => self.begin_catching_up(),
                    // The looking thread has not changed over yet.
                    Some(None) => CatchUp::Due,
                    _ => CatchUp::Done,
                }
            }
            CatchUp::Running(work) if work.is_over() => {
                match work.finish() {
                    Ok(()) | Err(ModelsError::Ended) => {}
                    Err(error) => tracing::warn!(%error, "some templates could not be made anew"),
                }
                CatchUp::Done
            }
            other => other,
        };
    }

    fn begin_catching_up(&mut self) -> CatchUp {
        let source = self.updater.record().active();
        let eyes = match load_source(&self.config, &mut self.updater, source) {
            Ok(loaded) => loaded.eyes,
            Err(error) => {
                tracing::warn!(%error, "templates cannot be made anew");
                return CatchUp::Done;
            }
        };
        let (session, clock) = (self.session.clone(), Arc::clone(&self.clock));
        let work = move |steps: &prepare::Steps| {
            let mut eyes = eyes;
            prepare::carry(&mut eyes, &session, &*clock, steps)
        };
        Work::start(work).map_or(CatchUp::Done, CatchUp::Running)
    }

    fn status(&self) -> UpdateStatus {
        let record = self.updater.record();
        UpdateStatus {
            models: self.now.models.clone(),
            stage: self.shown_stage(),
            counter_floor: record.counter_floor,
            root_version: self.root_version(),
            last: record.last,
            can_go_back: record.previous.is_some(),
        }
    }

    fn shown_stage(&self) -> UpdateStage {
        match &self.stage {
            Stage::Preparing { id, work } => {
                let (done, of) = work.steps.get();
                UpdateStage::Preparing { id: *id, done, of }
            }
            Stage::Unfit { id, why } => {
                let mut short = heapless::String::new();
                why.chars().take_while(|&c| short.push(c).is_ok()).for_each(drop);
                UpdateStage::Unfit { id: *id, why: short }
            }
            Stage::Ready { id, prepared } => UpdateStage::Ready {
                id: *id,
                carried: count(&prepared.plan.carried),
                understood: count(&prepared.plan.understood),
                left_behind: count(&prepared.plan.left_behind),
            },
            Stage::Waiting { id, .. } => UpdateStage::Waiting { id: *id },
            Stage::Trial(running) => self.shown_trial(running),
            Stage::Rest | Stage::Returning(..) => self.shown_rest(),
        }
    }

    fn shown_rest(&self) -> UpdateStage {
        match (self.updater.record().phase.clone(), &self.intake) {
            (Phase::Staged(_, id), _) => UpdateStage::Staged { id },
            (_, Some(intake)) => {
                UpdateStage::Receiving { id: intake.id(), offset: intake.offset(), size: intake.size() }
            }
            (Phase::Receiving(_, id), None) => UpdateStage::Receiving { id, offset: 0, size: 0 },
            _ => UpdateStage::Idle,
        }
    }

    fn shown_trial(&self, running: &Running) -> UpdateStage {
        let Running { tried: Tried { trying, trial, .. }, until, .. } = running;
        let meter = self.session.call(|door| door.meter().cloned()).flatten();
        let (known, only_former, only_new) = meter.as_ref().map(Meter::known).unwrap_or_default();
        let left_ms = until.since(self.clock.now());
        UpdateStage::Trial(TrialStatus {
            id: trying.id,
            seconds_left: u32::try_from(left_ms.div_ceil(1000)).unwrap_or(u32::MAX),
            starts: trying.starts,
            max_starts: trying.max_starts,
            probes: meter.as_ref().map_or(0, Meter::probes),
            p95_us: meter.as_ref().and_then(Meter::p95_us),
            max_p95_us: trial.max_p95_us,
            known,
            only_former,
            only_new,
        })
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
            let _ = eyes.send(EyesOrder::Former(former.into()));
            Some(Box::new(InUse { models: in_use, threshold, compatible: previous.compatible }))
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

/// Why something is not done.
struct Refusal {
    kind: RefusedKind,
    message: String,
    /// What the log says of it.
    logged: Option<&'static str>,
}

impl Refusal {
    fn new(kind: RefusedKind, message: &str) -> Self {
        Self { kind, message: message.to_owned(), logged: None }
    }

    fn busy() -> Self {
        Self::new(RefusedKind::Busy, "the update is at work: ask for its status")
    }
}

impl From<UpdateError> for Refusal {
    fn from(error: UpdateError) -> Self {
        let (kind, logged) = match &error {
            UpdateError::Bundle(error) => (RefusedKind::Unverified, Some(BundleError::word(error))),
            UpdateError::NoRoot => (RefusedKind::Unverified, Some("no_root")),
            UpdateError::TooLong { .. } => (RefusedKind::Unverified, Some("too_long")),
            UpdateError::Storage(_) => (RefusedKind::Storage, None),
            UpdateError::OutOfOrder { .. } | UpdateError::OutOfPlace { .. } | UpdateError::NoHeader => {
                (RefusedKind::OutOfOrder, None)
            }
            UpdateError::TrialUnderWay => (RefusedKind::Busy, None),
            _ => (RefusedKind::Invalid, None),
        };
        Self { kind, message: error.to_string(), logged }
    }
}

impl From<PeopleError> for Refusal {
    fn from(error: PeopleError) -> Self {
        Self::new(RefusedKind::Storage, &error.to_string())
    }
}

/// How often what is under way is looked at.
const TURN: Duration = Duration::from_millis(200);

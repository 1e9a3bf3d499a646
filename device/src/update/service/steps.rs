//! What the update does of itself, a turn at a time: activates, judges a trial, confirms, goes back, makes missing templates.

use super::*;

impl Worker {
    /// What is due.
    pub(super) fn turn(&mut self) {
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
            Stage::System { id, go: true } if self.session.call(|door| door.is_quiet()) == Some(true) => {
                self.hand_over(id);
            }
            Stage::Installing { id } => self.installing(id),
            Stage::Returning(why, back) => self.roll_back(why, back),
            other => self.stage = other,
        }
        self.catch_up();
    }

    pub(super) fn prepared(&mut self, id: BundleId, outcome: Result<Prepared, ModelsError>) {
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
    pub(super) fn activate(&mut self, id: BundleId, mut prepared: Box<Prepared>, leave_behind: u32) {
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
            Source::Slot(crate::update::Slot::B) => ModelsFrom::SlotB,
            _ => ModelsFrom::SlotA,
        };
        let models = ModelsInUse {
            from,
            bundle: Some(id),
            name: manifest.name.clone(),
            embedder: manifest.embedder.clone(),
            binding,
        };
        let new = InUse { models, rows: rows_of(&eyes), threshold, compatible };
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
    pub(super) fn judge(&mut self) {
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

    pub(super) fn confirm(&mut self) -> Result<(), UpdateError> {
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

    pub(super) fn roll_back(&mut self, why: Outcome, back: Option<Box<InUse>>) {
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
                let (rows, compatible) = (rows_of(&eyes), self.updater.compatible().to_vec());
                self.now = InUse { models: in_use, rows, threshold, compatible };
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
    pub(super) fn catch_up(&mut self) {
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

    pub(super) fn begin_catching_up(&mut self) -> CatchUp {
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
}

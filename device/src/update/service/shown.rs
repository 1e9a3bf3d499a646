//! How the update stands, for whoever asks.

use facelatch_shared::protocol::update::{SystemLast, SystemStatus};

use super::*;
use crate::system::Image;

impl Worker {
    pub(super) fn status(&self) -> UpdateStatus {
        let record = self.updater.record();
        UpdateStatus {
            models: self.now.models.clone(),
            stage: self.shown_stage(),
            counter_floor: record.counter_floor,
            root_version: self.root_version(),
            last: record.last,
            can_go_back: record.previous.is_some(),
            system: self.updater.image().map(shown_system),
        }
    }

    pub(super) fn shown_stage(&self) -> UpdateStage {
        match &self.stage {
            Stage::Preparing { id, work } => {
                let (done, of) = work.steps.get();
                UpdateStage::Preparing { id: *id, done, of }
            }
            Stage::Unfit { id, why } => UpdateStage::Unfit { id: *id, why: cut(why) },
            Stage::Ready { id, prepared } => UpdateStage::Ready {
                id: *id,
                carried: count(&prepared.plan.carried),
                understood: count(&prepared.plan.understood),
                left_behind: count(&prepared.plan.left_behind),
            },
            Stage::System { id, go: false } => {
                UpdateStage::Ready { id: *id, carried: 0, understood: 0, left_behind: 0 }
            }
            Stage::Waiting { id, .. } | Stage::System { id, go: true } => UpdateStage::Waiting { id: *id },
            Stage::Installing { id } => UpdateStage::Installing { id: *id },
            Stage::Trial(running) => self.shown_trial(running),
            Stage::Rest | Stage::Returning(..) => self.shown_rest(),
        }
    }

    pub(super) fn shown_rest(&self) -> UpdateStage {
        match (self.updater.record().phase.clone(), &self.intake) {
            (Phase::Staged(_, id), _) => UpdateStage::Staged { id },
            (_, Some(intake)) => {
                UpdateStage::Receiving { id: intake.id(), offset: intake.offset(), size: intake.size() }
            }
            (Phase::Receiving(_, id), None) => UpdateStage::Receiving { id, offset: 0, size: 0 },
            _ => UpdateStage::Idle,
        }
    }

    pub(super) fn shown_trial(&self, running: &Running) -> UpdateStage {
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
}

/// The image, as far as others want to know it.
fn shown_system(image: &Image) -> SystemStatus {
    let last = image.record.last.as_ref().map(|last| SystemLast {
        name: heapless::String::try_from(last.name.as_str()).unwrap_or_default(),
        counter: last.counter,
        slot: last.slot,
        state: last.state,
    });
    SystemStatus {
        board: heapless::String::try_from(image.board.as_str()).unwrap_or_default(),
        slot: image.slot,
        counter_floor: image.record.floor,
        last,
    }
}

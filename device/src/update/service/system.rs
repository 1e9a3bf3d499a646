//! Bundles that bring a system: the door hands them over to the image's init, and hears what became of them.

use facelatch_shared::bundle::BundleId;
use facelatch_shared::event::EventKind;

use super::{Stage, Worker, short};
use crate::system::{Image, Refused, Request, State, SystemPaths};
use crate::update::{Phase, Slot};

impl Worker {
    /// After a start: a bundle that was installed is no longer needed in its slot, and the log hears what became of the last one.
    pub(super) fn greet_system(&mut self) {
        let Some(last) = self.updater.image().and_then(|image| image.record.last.clone()) else { return };
        if let Phase::Staged(_, id) | Phase::Receiving(_, id) = self.updater.record().phase
            && last.id() == Some(id)
            && let Err(error) = self.updater.discard()
        {
            tracing::warn!(%error, "the bundle of the installed system still takes its room");
        }
        self.tell_system();
    }

    /// Logs what became of the system that was installed last, once.
    pub(super) fn tell_system(&mut self) {
        let image = Image::look(&SystemPaths::default());
        let Some(last) = image.as_ref().and_then(|image| image.record.last.clone()) else { return };
        self.updater.set_image(image);
        let path = self.config.door.state_dir.join(TOLD);
        let told = format!("{} {}\n", last.bundle, last.state.words());
        if std::fs::read_to_string(&path).is_ok_and(|known| known == told) {
            return;
        }
        let Some(id) = last.id() else { return };
        let (bundle, counter) = (short(id), last.counter);
        self.log(match last.state {
            State::Trying => EventKind::SystemInstalled { bundle, counter },
            State::Confirmed => EventKind::SystemConfirmed { bundle, counter },
            State::FellBack => EventKind::SystemFellBack { bundle, counter },
        });
        if let Err(error) = std::fs::write(&path, told) {
            tracing::warn!(path = %path.display(), %error, "what the log was told of the system is not remembered");
        }
    }

    /// Somebody wants it, and nobody stands there: init may begin. It starts the board anew when it is done.
    pub(super) fn hand_over(&mut self, id: BundleId) {
        let Phase::Staged(slot, _) = self.updater.record().phase else { return };
        let lies_in = match slot {
            Slot::A => 'a',
            Slot::B => 'b',
        };
        let request = Request { lies_in, bundle: hex::encode(id.0) };
        self.stage = match request.store(&self.config.door.state_dir) {
            Ok(()) => {
                tracing::info!(%id, "a new system is handed over; the board starts anew when it is written");
                Stage::Installing { id }
            }
            Err(error) => Stage::Unfit { id, why: format!("it cannot be handed over: {error}") },
        };
    }

    /// Whether init is done with it and the board does not start anew.
    pub(super) fn installing(&mut self, id: BundleId) {
        let paths = SystemPaths::default();
        let written = || {
            let last = Image::look(&paths).and_then(|image| image.record.last);
            last.is_some_and(|last| last.id() == Some(id) && last.state == State::Trying)
        };
        if Request::is_open(&self.config.door.state_dir) || written() {
            self.stage = Stage::Installing { id };
            return;
        }
        let refused = Refused::load(&paths.state);
        let why = match refused.filter(|refused| refused.bundle == hex::encode(id.0)) {
            Some(refused) => refused.why,
            None => "it was not installed; the board's console says why".into(),
        };
        tracing::warn!(%id, why, "the new system is not installed; the present one stays");
        let reason = heapless::String::try_from("not_installed").unwrap_or_default();
        self.log(EventKind::BundleRefused { reason });
        self.stage = Stage::Unfit { id, why };
    }
}

/// What the log was told last: a line with bundle and state.
const TOLD: &str = "system-told";

//! What the door's panel shows, and when it is drawn.

use super::Door;
use crate::display::{DisplayError, Preview, Screen};

impl Door {
    /// Whether the panel shows the camera's picture at the moment.
    #[must_use]
    pub const fn wants_preview(&self) -> bool {
        self.parts.session.wants_preview()
    }

    /// Shows the camera's picture beside the screen, as a mirror would, where it is still wanted.
    pub fn show_live(&mut self, preview: Preview) {
        if !self.wants_preview() || !self.display_ok {
            return;
        }
        let Some(screen) = self.shown.clone() else { return };
        if !matches!(screen, Screen::Enrol { .. }) {
            return;
        }
        let preview = if self.parts.session.sees_mirrored() { preview } else { preview.mirrored() };
        let shown = self.parts.display.show_live(&screen, &preview);
        self.drawn(shown);
    }

    /// What the panel shows.
    #[must_use]
    pub fn screen(&self) -> Screen {
        let screen = self.parts.session.screen(self.parts.clock.now());
        match screen {
            // Also at a door that lets nobody in yet: whoever pairs it may be there to mend that.
            Screen::Idle { .. } | Screen::Barred | Screen::Service(_) | Screen::Tampered => {
                self.pairing_screen().unwrap_or(screen)
            }
            _ => screen,
        }
    }

    pub(super) fn show(&mut self) {
        let screen = self.screen();
        if self.shown.as_ref() == Some(&screen) {
            return;
        }
        let shown = self.parts.display.show(&screen);
        self.drawn(shown);
        if self.shown.as_ref().is_none_or(|before| before.slug() != screen.slug()) {
            tracing::info!(screen = screen.slug(), "panel");
        }
        self.shown = Some(screen);
    }

    fn drawn(&mut self, shown: Result<(), DisplayError>) {
        match shown {
            Ok(()) => self.display_ok = true,
            Err(error) if self.display_ok => {
                self.display_ok = false;
                tracing::error!(%error, "the panel cannot be drawn; the door works on");
            }
            Err(_) => {}
        }
    }
}

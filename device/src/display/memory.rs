//! The panel of tests: remembers what it was told, and refuses what no caller should ask.

use super::{Display, DisplayError, Preview, Screen};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Records every screen shown. Clones share the record, so a test keeps one and gives the other away.
///
/// Stricter than hardware: the same screen twice in a row is an error, for it means that the caller redraws
/// a panel that has not changed.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisplay {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    shown: Vec<Screen>,
    live: usize,
    broken: bool,
}

impl MemoryDisplay {
    /// Nothing shown yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything shown, oldest first.
    #[must_use]
    pub fn shown(&self) -> Vec<Screen> {
        self.lock().shown.clone()
    }

    /// What the panel shows now.
    #[must_use]
    pub fn now(&self) -> Option<Screen> {
        self.lock().shown.last().cloned()
    }

    /// How many of the camera's pictures were shown.
    #[must_use]
    pub fn live_pictures(&self) -> usize {
        self.lock().live
    }

    /// From now on `show` fails (`true`), as a panel with a torn cable does, or works again (`false`).
    pub fn set_broken(&self, broken: bool) {
        self.lock().broken = broken;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Display for MemoryDisplay {
    fn show(&mut self, screen: &Screen) -> Result<(), DisplayError> {
        let fail = |what: String| Err(DisplayError { panel: "memory".to_owned(), what });
        let mut state = self.lock();
        if state.broken {
            return fail("set broken by the test".to_owned());
        }
        if state.shown.last() == Some(screen) {
            return fail(format!("{} was shown twice in a row", screen.slug()));
        }
        state.shown.push(screen.clone());
        Ok(())
    }

    fn show_live(&mut self, screen: &Screen, _preview: &Preview) -> Result<(), DisplayError> {
        let mut state = self.lock();
        let fail = |what: String| Err(DisplayError { panel: "memory".to_owned(), what });
        if state.broken {
            return fail("set broken by the test".to_owned());
        }
        if state.shown.last() != Some(screen) {
            return fail(format!("{} is shown live without having been shown", screen.slug()));
        }
        state.live += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_screen_twice_in_a_row_is_refused() {
        let mut panel = MemoryDisplay::new();
        let record = panel.clone();
        panel.show(&Screen::Looking).unwrap();
        assert!(panel.show(&Screen::Looking).unwrap_err().to_string().contains("looking was shown twice"));
        panel.show(&Screen::NotRecognised).unwrap();
        panel.show(&Screen::Looking).unwrap();
        assert_eq!(record.shown(), [Screen::Looking, Screen::NotRecognised, Screen::Looking]);
        assert_eq!(record.now(), Some(Screen::Looking));
    }

    #[test]
    fn a_broken_panel_fails_until_it_is_mended() {
        let mut panel = MemoryDisplay::new();
        panel.set_broken(true);
        assert!(panel.show(&Screen::Looking).is_err());
        panel.set_broken(false);
        assert!(panel.show(&Screen::Looking).is_ok());
        assert_eq!(panel.shown().len(), 1);
    }
}

//! What the operator sees of a run: a bar on a terminal, else a line now and then.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar where stderr is a terminal, lines elsewhere.
#[derive(Debug)]
pub(super) struct Show(Option<ProgressBar>);

const FINE: f64 = 10_000.0;

impl Show {
    pub(super) fn new() -> Self {
        Self(std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(FINE as u64), ProgressDrawTarget::stderr_with_hz(4));
            // A template that does not parse leaves the plain style.
            if let Ok(style) = ProgressStyle::with_template("{bar:24} {percent:>3} % · {wide_msg}") {
                bar.set_style(style);
            }
            bar
        }))
    }

    /// Where the run is now; costs nothing without a terminal.
    pub(super) fn now(&self, share: f64, text: impl FnOnce() -> String) {
        if let Some(bar) = &self.0 {
            bar.set_position((share.clamp(0.0, 1.0) * FINE) as u64);
            bar.set_message(text());
        }
    }

    /// A line that stays.
    pub(super) fn line(&self, text: &str) {
        match &self.0 {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    /// A line about progress: the bar says it where there is one.
    pub(super) fn progress(&self, text: &str) {
        if self.0.is_none() {
            eprintln!("{text}");
        }
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

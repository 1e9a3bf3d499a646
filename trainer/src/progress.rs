//! Progress of work that takes over a second: a trait in the library, bars on the terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Told how far some work has come. Shared between the threads that do it.
pub trait Progress: Sync {
    /// `steps` steps of `what` begin.
    fn start(&self, what: &str, steps: u64);
    /// One step is done.
    fn step(&self);
    /// The work is over.
    fn finish(&self);
}

/// Says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn start(&self, _what: &str, _steps: u64) {}
    fn step(&self) {}
    fn finish(&self) {}
}

/// A bar on stderr with rate and time left; nothing where stderr is no terminal.
#[derive(Debug)]
pub struct Bar(ProgressBar);

impl Bar {
    /// A bar that appears at the first [`start`](Progress::start).
    #[must_use]
    pub fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8));
        // A template that does not parse leaves the plain style.
        if let Ok(style) = ProgressStyle::with_template("{msg} {bar:32} {pos}/{len} · {per_sec} · {eta} left")
        {
            bar.set_style(style);
        }
        Self(bar)
    }
}

impl Default for Bar {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress for Bar {
    fn start(&self, what: &str, steps: u64) {
        self.0.reset();
        self.0.set_length(steps);
        self.0.set_message(what.to_owned());
        self.0.enable_steady_tick(Duration::from_millis(250));
    }

    fn step(&self) {
        self.0.inc(1);
    }

    fn finish(&self) {
        self.0.finish_and_clear();
    }
}

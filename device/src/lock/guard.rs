//! A second, tiny process that secures the lock when the door's program is no more, however it ended: killed, out of memory, crashed.
//!
//! When a process dies the kernel frees its GPIO lines, and many chips leave a freed line as it was: a relay that was on stays on. So the door
//! starts the guard with a pipe between them. The kernel closes the pipe when the door dies; the guard then drives the line to its secured level
//! and ends. It asks for nothing while the door lives, and SIGTERM does not end it, so that whoever stops both at once leaves it its work.

use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::gpio::{GpioLock, GpioLockSpec};
use super::{Lock as _, LockError};

/// The running guard. Dropping it lets the guard secure the lock and end: drop the lock first, which holds the line.
#[derive(Debug)]
pub struct Guard {
    spec: GpioLockSpec,
    child: Option<Child>,
    checked: Instant,
}

impl Guard {
    /// Starts the guard of the lock that `spec` describes.
    ///
    /// # Errors
    /// [`LockError`] when this program cannot be started a second time.
    pub fn start(spec: &GpioLockSpec) -> Result<Self, LockError> {
        let child = spawn(spec).map_err(|error| LockError {
            line: super::gpio::line_name(&spec.chip, spec.line),
            what: format!("its guard process could not be started: {error}"),
        })?;
        Ok(Self { spec: spec.clone(), child: Some(child), checked: Instant::now() })
    }

    /// Starts another guard if somebody ended this one. Cheap: looks once a second.
    pub fn check(&mut self) {
        if self.checked.elapsed() < Duration::from_secs(1) {
            return;
        }
        self.checked = Instant::now();
        let gone = match &mut self.child {
            Some(child) => !matches!(child.try_wait(), Ok(None)),
            None => true,
        };
        if gone {
            tracing::error!("the lock's guard process ended; starting another");
            self.child = spawn(&self.spec)
                .inspect_err(|error| tracing::error!(%error, "the lock's guard process could not be started"))
                .ok();
        }
    }

    /// Its process, for tests.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        drop(child.stdin.take());
        // It needs the line for a moment. Whoever opens the lock next in this program finds it free, and no zombie stays.
        let start = Instant::now();
        while matches!(child.try_wait(), Ok(None)) && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn spawn(spec: &GpioLockSpec) -> io::Result<Child> {
    let text = serde_json::to_string(spec).map_err(io::Error::other)?;
    Command::new("/proc/self/exe").arg(ARGUMENT).arg(text).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()
}

/// The guard's life: waits until `pipe` ends, then secures the lock. The dying door may hold the line for another moment.
///
/// # Errors
/// [`LockError`] when the line cannot be had within [`PATIENCE`].
pub fn stand(spec: &GpioLockSpec, mut pipe: impl Read) -> Result<(), LockError> {
    // Nothing is ever sent; an error of the pipe means the same as its end.
    let _ = io::copy(&mut pipe, &mut io::sink());
    let start = Instant::now();
    loop {
        match GpioLock::open(spec).and_then(|mut lock| lock.secure()) {
            Ok(()) => return Ok(()),
            Err(error) if start.elapsed() >= PATIENCE => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// How the program is called to be the guard; the lock's table as JSON follows.
pub const ARGUMENT: &str = "guard-lock";
/// How long the guard tries to get the line.
pub const PATIENCE: Duration = Duration::from_secs(10);

//! A strike or maglock on a GPIO line, through a relay or a transistor.
//!
//! | kind | secured | released | without power |
//! |---|---|---|---|
//! | strike, fail-secure | not energized | energized | secured |
//! | maglock, fail-safe | energized | not energized | released |
//! | fail-safe strike | energized | not energized | released |
//!
//! The line is requested at its secured level, so that starting never opens the door, and is secured again when dropped. When
//! the program is killed the kernel frees the line and the chip decides its level; the [guard](super::guard) secures it then. Wire a
//! resistor all the same that holds the relay in the secured state while the board starts. A person inside leaves by the handle or by cutting a maglock's power, never through this line.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use embedded_hal::digital::OutputPin;
use linux_embedded_hal::CdevPin;
use linux_embedded_hal::gpio_cdev::{Chip, LineRequestFlags};
use serde::{Deserialize, Serialize};

use super::{Lock, LockError};

/// What the line drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LockKind {
    /// Fail-secure: energized to release.
    Strike,
    /// Fail-safe: energized to hold.
    Maglock,
    /// A strike that is fail-safe: energized to hold.
    FailSafeStrike,
}

/// Where the lock is wired, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpioLockSpec {
    /// The chip's device, such as `/dev/gpiochip0`.
    pub chip: PathBuf,
    /// The line's offset at that chip, from 0.
    pub line: u32,
    /// The relay is energized by a low level. Required: guessed wrongly, the door stands open.
    pub active_low: bool,
    /// What it drives.
    pub kind: LockKind,
}

/// A lock on a pin; [`GpioLock`] is the one on real hardware.
pub struct PinLock<P: OutputPin<Error: Display>> {
    pin: P,
    name: String,
    kind: LockKind,
    active_low: bool,
}

/// A lock on a line of the kernel's GPIO character device.
pub type GpioLock = PinLock<CdevPin>;

impl GpioLock {
    /// Requests the line at its secured level.
    ///
    /// # Errors
    /// [`LockError`] when the chip is missing, may not be opened, has no such line, or someone else holds the line.
    pub fn open(spec: &GpioLockSpec) -> Result<Self, LockError> {
        let name = line_name(&spec.chip, spec.line);
        let failed = |what: String| LockError { line: name.clone(), what };
        let secured = level(spec.kind, spec.active_low, false);
        // The kernel's own ACTIVE_LOW stays off: polarity is applied once, in `level`.
        let pin = Chip::new(&spec.chip)
            .and_then(|mut chip| chip.get_line(spec.line))
            .and_then(|line| line.request(LineRequestFlags::OUTPUT, u8::from(secured), "facelatch lock"))
            .and_then(CdevPin::new)
            .map_err(|e| failed(explain(&spec.chip, &e.to_string())))?;
        Self::new(pin, name.clone(), spec.kind, spec.active_low)
    }
}

impl<P: OutputPin<Error: Display>> PinLock<P> {
    /// Takes over `pin` and secures the door.
    ///
    /// # Errors
    /// [`LockError`] when the pin does not take it.
    pub fn new(pin: P, name: String, kind: LockKind, active_low: bool) -> Result<Self, LockError> {
        let mut lock = Self { pin, name, kind, active_low };
        lock.drive(false)?;
        Ok(lock)
    }

    fn drive(&mut self, released: bool) -> Result<(), LockError> {
        let outcome = if level(self.kind, self.active_low, released) {
            self.pin.set_high()
        } else {
            self.pin.set_low()
        };
        outcome.map_err(|e| LockError { line: self.name.clone(), what: e.to_string() })
    }
}

impl<P: OutputPin<Error: Display> + Send> Lock for PinLock<P> {
    fn release(&mut self) -> Result<(), LockError> {
        self.drive(true)
    }

    fn secure(&mut self) -> Result<(), LockError> {
        self.drive(false)
    }
}

impl<P: OutputPin<Error: Display>> Drop for PinLock<P> {
    fn drop(&mut self) {
        if let Err(error) = self.drive(false) {
            tracing::error!(%error, "the lock could not be secured on the way out: check the door");
        }
    }
}

/// Electrical level of the line: high or low.
const fn level(kind: LockKind, active_low: bool, released: bool) -> bool {
    let energized = match kind {
        LockKind::Strike => released,
        LockKind::Maglock | LockKind::FailSafeStrike => !released,
    };
    energized != active_low
}

/// How a line is called in logs and errors.
pub(crate) fn line_name(chip: &Path, line: u32) -> String {
    format!("{} line {line}", chip.display())
}

/// What went wrong with a line, and what to do where it is known.
pub(crate) fn explain(chip: &Path, what: &str) -> String {
    let hint = match std::fs::metadata(chip) {
        Err(_) => format!("no such chip; present: {}", present_chips()),
        Ok(_) if what.contains("Permission") || what.contains("EACCES") => {
            "run as a user of the group gpio (usermod -aG gpio USER)".to_owned()
        }
        Ok(_) if what.contains("EBUSY") => {
            "another program or a kernel driver holds the line (gpioinfo names it)".to_owned()
        }
        Ok(_) => return what.to_owned(),
    };
    format!("{what} ({hint})")
}

fn present_chips() -> String {
    let names = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let mut chips: Vec<String> = names
        .map(|entry| entry.path().display().to_string())
        .filter(|path| path.starts_with("/dev/gpiochip"))
        .collect();
    chips.sort();
    if chips.is_empty() { "none".to_owned() } else { chips.join(", ") }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::convert::Infallible;
    use std::rc::Rc;

    use embedded_hal::digital::ErrorType;

    use super::*;

    #[derive(Clone, Default)]
    struct Wire(Rc<RefCell<Vec<bool>>>);

    impl ErrorType for Wire {
        type Error = Infallible;
    }

    impl OutputPin for Wire {
        fn set_low(&mut self) -> Result<(), Infallible> {
            self.0.borrow_mut().push(false);
            Ok(())
        }

        fn set_high(&mut self) -> Result<(), Infallible> {
            self.0.borrow_mut().push(true);
            Ok(())
        }
    }

    #[test]
    fn levels_follow_the_effect_for_each_kind_and_polarity() {
        for (kind, active_low, secured) in [
            (LockKind::Strike, false, false),
            (LockKind::Strike, true, true),
            (LockKind::Maglock, false, true),
            (LockKind::Maglock, true, false),
            (LockKind::FailSafeStrike, false, true),
        ] {
            let wire = Wire::default();
            let mut lock = PinLock::new(wire.clone(), "wire".to_owned(), kind, active_low).unwrap();
            lock.drive(true).unwrap();
            lock.drive(false).unwrap();
            lock.drive(true).unwrap();
            drop(lock);
            let expected = [secured, !secured, secured, !secured, secured];
            assert_eq!(
                *wire.0.borrow(),
                expected,
                "{kind:?}, active low {active_low}: opened, used, dropped"
            );
        }
    }

    #[test]
    fn a_missing_chip_is_named_with_those_present() {
        let spec = GpioLockSpec {
            chip: PathBuf::from("/nonexistent/gpiochip7"),
            line: 4,
            active_low: false,
            kind: LockKind::Strike,
        };
        let error = GpioLock::open(&spec).err().unwrap().to_string();
        assert!(error.starts_with("lock on /nonexistent/gpiochip7 line 4: "), "{error}");
        assert!(error.contains("no such chip; present: "), "{error}");
    }

    #[test]
    fn a_file_that_is_no_chip_is_an_error() {
        let spec = GpioLockSpec {
            chip: PathBuf::from("/dev/null"),
            line: 0,
            active_low: false,
            kind: LockKind::Maglock,
        };
        assert!(GpioLock::open(&spec).is_err());
    }
}

//! Contacts on GPIO lines, debounced.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;

use embedded_hal::digital::InputPin;
use linux_embedded_hal::CdevPin;
use linux_embedded_hal::gpio_cdev::{Chip, LineRequestFlags};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::debounce::Debouncer;
use super::{InputState, Inputs};
use crate::clock::Clock;
use crate::lock::gpio::{explain, line_name};

/// Where one contact is wired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSpec {
    /// The chip's device, such as `/dev/gpiochip0`.
    pub chip: PathBuf,
    /// The line's offset at that chip, from 0.
    pub line: u32,
    /// A low level means open or pressed (a button to ground with a pull-up). Pull resistors are the board's: this interface of
    /// the kernel cannot set them.
    pub active_low: bool,
}

/// Which contacts are wired. Those left out read as absent or not pressed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputsSpec {
    /// Active while the door is open. Wire the contact so that a cut wire reads as open.
    pub door_open: Option<InputSpec>,
    /// Active while the exit button is pressed.
    pub exit_request: Option<InputSpec>,
    /// Active while the installer's service button is pressed.
    pub service: Option<InputSpec>,
    /// How long a level must hold, in milliseconds; 30 where it is not said.
    pub debounce_ms: Option<u64>,
}

/// Contacts on pins; [`GpioInputs`] is the one on real hardware.
pub struct PinInputs<P> {
    clock: Arc<dyn Clock>,
    door_open: Option<Contact<P>>,
    exit_request: Option<Contact<P>>,
    service: Option<Contact<P>>,
}

/// Contacts on lines of the kernel's GPIO character device.
pub type GpioInputs = PinInputs<CdevPin>;

/// A contact could not be set up.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("input {contact} on {line}: {what}; check the wiring and [inputs] in the configuration")]
pub struct InputsError {
    /// Which contact: `door_open`, `exit_request` or `service`.
    pub contact: &'static str,
    /// Chip and line.
    pub line: String,
    /// What the system said.
    pub what: String,
}

impl GpioInputs {
    /// Requests every line that `spec` names and takes its present level as settled.
    ///
    /// # Errors
    /// [`InputsError`] for the first line that cannot be had or read.
    pub fn open(spec: &InputsSpec, clock: Arc<dyn Clock>) -> Result<Self, InputsError> {
        let hold_ms = spec.debounce_ms.unwrap_or(DEBOUNCE_MS);
        let open = |contact: &'static str, spec: &Option<InputSpec>| {
            let Some(spec) = spec else { return Ok(None) };
            let line = line_name(&spec.chip, spec.line);
            // The kernel's own ACTIVE_LOW stays off: polarity is applied once, in `Contact::level`.
            let pin = Chip::new(&spec.chip)
                .and_then(|mut chip| chip.get_line(spec.line))
                .and_then(|l| l.request(LineRequestFlags::INPUT, 0, "facelatch input"))
                .and_then(CdevPin::new)
                .map_err(|e| InputsError {
                    contact,
                    line: line.clone(),
                    what: explain(&spec.chip, &e.to_string()),
                })?;
            Contact::new(pin, contact, line, spec.active_low, hold_ms).map(Some)
        };
        Ok(Self {
            door_open: open("door_open", &spec.door_open)?,
            exit_request: open("exit_request", &spec.exit_request)?,
            service: open("service", &spec.service)?,
            clock,
        })
    }
}

impl<P: InputPin<Error: Display> + Send> Inputs for PinInputs<P> {
    fn read(&mut self) -> Result<InputState, String> {
        let at = self.clock.now();
        let read = |contact: &mut Option<Contact<P>>| -> Result<Option<bool>, String> {
            let Some(contact) = contact else { return Ok(None) };
            let level = contact.level().map_err(|e| e.to_string())?;
            Ok(Some(contact.debounced.update(level, at)))
        };
        // All are read before the first error is given: one cut wire must not freeze the others' debouncing.
        let (door_open, exit, service) =
            (read(&mut self.door_open), read(&mut self.exit_request), read(&mut self.service));
        Ok(InputState {
            door_open: door_open?,
            exit_requested: exit?.unwrap_or(false),
            service: service?.unwrap_or(false),
        })
    }
}

struct Contact<P> {
    pin: P,
    contact: &'static str,
    line: String,
    active_low: bool,
    debounced: Debouncer,
}

impl<P: InputPin<Error: Display>> Contact<P> {
    fn new(
        pin: P,
        contact: &'static str,
        line: String,
        active_low: bool,
        hold_ms: u64,
    ) -> Result<Self, InputsError> {
        let mut new = Self { pin, contact, line, active_low, debounced: Debouncer::new(false, hold_ms) };
        new.debounced = Debouncer::new(new.level()?, hold_ms);
        Ok(new)
    }

    fn level(&mut self) -> Result<bool, InputsError> {
        match self.pin.is_high() {
            Ok(high) => Ok(high != self.active_low),
            Err(e) => {
                Err(InputsError { contact: self.contact, line: self.line.clone(), what: e.to_string() })
            }
        }
    }
}

const DEBOUNCE_MS: u64 = 30;

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::sync::atomic::{AtomicU8, Ordering};

    use embedded_hal::digital::ErrorType;
    use facelatch_shared::time::UnixMs;

    use super::*;
    use crate::clock::SimClock;

    /// 0 low, 1 high, else broken.
    #[derive(Clone, Default)]
    struct Wire(Arc<AtomicU8>);

    impl Wire {
        fn set(&self, level: u8) {
            self.0.store(level, Ordering::SeqCst);
        }
    }

    #[derive(Debug)]
    struct Broken;

    impl fmt::Display for Broken {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("broken")
        }
    }

    impl embedded_hal::digital::Error for Broken {
        fn kind(&self) -> embedded_hal::digital::ErrorKind {
            embedded_hal::digital::ErrorKind::Other
        }
    }

    impl ErrorType for Wire {
        type Error = Broken;
    }

    impl InputPin for Wire {
        fn is_high(&mut self) -> Result<bool, Broken> {
            match self.0.load(Ordering::SeqCst) {
                0 => Ok(false),
                1 => Ok(true),
                _ => Err(Broken),
            }
        }

        fn is_low(&mut self) -> Result<bool, Broken> {
            self.is_high().map(|high| !high)
        }
    }

    #[test]
    fn polarity_debouncing_and_faults() {
        let clock = Arc::new(SimClock::starting_at(UnixMs(0)));
        let (door, exit) = (Wire::default(), Wire::default());
        exit.set(1);
        let contact = |wire: &Wire, name, low| {
            Contact::new(wire.clone(), name, "chip line 1".to_owned(), low, 30).unwrap()
        };
        let mut inputs = PinInputs {
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            door_open: Some(contact(&door, "door_open", false)),
            exit_request: Some(contact(&exit, "exit_request", true)),
            service: None,
        };
        let idle = InputState { door_open: Some(false), exit_requested: false, service: false };
        assert_eq!(inputs.read().unwrap(), idle);
        door.set(1);
        exit.set(0);
        assert_eq!(inputs.read().unwrap(), idle, "not yet settled");
        clock.advance_ms(30);
        let both = InputState { door_open: Some(true), exit_requested: true, service: false };
        assert_eq!(inputs.read().unwrap(), both);
        door.set(9);
        exit.set(1);
        let error = inputs.read().unwrap_err();
        assert!(error.starts_with("input door_open on chip line 1: broken"), "{error}");
        clock.advance_ms(30);
        let _ = inputs.read();
        door.set(1);
        assert_eq!(
            inputs.read().unwrap(),
            InputState { exit_requested: false, ..both },
            "the exit button settled while the door contact was broken"
        );
    }

    #[test]
    fn a_missing_chip_is_named() {
        let clock: Arc<dyn Clock> = Arc::new(SimClock::starting_at(UnixMs(0)));
        let gone = InputSpec { chip: PathBuf::from("/nonexistent/gpiochip3"), line: 2, active_low: true };
        let spec = InputsSpec { exit_request: Some(gone), ..InputsSpec::default() };
        let error = GpioInputs::open(&spec, Arc::clone(&clock)).err().unwrap();
        assert_eq!(error.contact, "exit_request");
        assert!(error.to_string().contains("/nonexistent/gpiochip3 line 2"), "{error}");
        assert_eq!(
            GpioInputs::open(&InputsSpec::default(), clock).unwrap().read().unwrap(),
            InputState::default()
        );
    }
}

//! Contacts on GPIO lines, debounced.
//!
//! Each edge comes with the kernel's time stamp and wakes the session (`inputs/edges.rs`). A line whose chip has no interrupts is read instead.

use std::collections::VecDeque;
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;

use embedded_hal::digital::{ErrorType, InputPin};
use facelatch_shared::time::Millis;
use linux_embedded_hal::CdevPin;
use linux_embedded_hal::CdevPinError;
use linux_embedded_hal::gpio_cdev::{Chip, EventRequestFlags, LineEventHandle, LineRequestFlags};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::debounce::Debouncer;
use super::edges::{Edge, Edges, Watch};
use super::{InputState, Inputs, Waker};
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
    /// Active while the case is open. Wire the contact so that a cut wire reads as open.
    pub tamper: Option<InputSpec>,
    /// How long a level must hold, in milliseconds; 30 where it is not said.
    pub debounce_ms: Option<u64>,
}

/// Contacts on pins; [`GpioInputs`] is the one on real hardware.
pub struct PinInputs<P> {
    clock: Arc<dyn Clock>,
    contacts: Contacts<P>,
    edges: Arc<Edges>,
    /// Edges taken over and not yet told.
    untold: VecDeque<Edge>,
    _watch: Option<Watch>,
}

/// The wired ones, in the order of [`InputsSpec`].
type Contacts<P> = [Option<Contact<P>>; KINDS];

const KINDS: usize = 4;
const NAMES: [&str; KINDS] = ["door_open", "exit_request", "service", "tamper"];

/// Contacts on lines of the kernel's GPIO character device.
pub type GpioInputs = PinInputs<Line>;

/// A line whose edges are reported, or one that has to be read.
pub enum Line {
    /// Reported by the watching thread.
    Watched,
    /// Read.
    Read(CdevPin),
}

impl ErrorType for Line {
    type Error = CdevPinError;
}

impl InputPin for Line {
    fn is_high(&mut self) -> Result<bool, CdevPinError> {
        match self {
            // Its level is known from its edges; nobody asks.
            Self::Watched => Ok(false),
            Self::Read(pin) => pin.is_high(),
        }
    }

    fn is_low(&mut self) -> Result<bool, CdevPinError> {
        self.is_high().map(|high| !high)
    }
}

/// A contact could not be set up.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("input {contact} on {line}: {what}; check the wiring and [inputs] in the configuration")]
pub struct InputsError {
    /// Which contact: `door_open`, `exit_request`, `service` or `tamper`.
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
        let wired = [&spec.door_open, &spec.exit_request, &spec.service, &spec.tamper];
        let mut contacts: Contacts<Line> = std::array::from_fn(|_| None);
        let mut watched = Vec::new();
        for ((contact, name), spec) in contacts.iter_mut().zip(NAMES).zip(wired) {
            let Some(spec) = spec else { continue };
            *contact = Some(open(name, spec, hold_ms, &mut watched)?);
        }
        let edges = Arc::new(Edges::default());
        let failed = |error: std::io::Error| InputsError {
            contact: "all",
            line: "every line".into(),
            what: format!("no thread to watch them: {error}"),
        };
        let watch = match watched.is_empty() {
            true => None,
            false => Some(Watch::start(watched, Arc::clone(&edges), Arc::clone(&clock)).map_err(failed)?),
        };
        Ok(Self { clock, contacts, edges, untold: VecDeque::new(), _watch: watch })
    }
}

/// One line: watched where its chip can, else read.
fn open(
    contact: &'static str,
    spec: &InputSpec,
    hold_ms: u64,
    watched: &mut Vec<LineEventHandle>,
) -> Result<Contact<Line>, InputsError> {
    let line = line_name(&spec.chip, spec.line);
    let failed = |error: &dyn Display| InputsError {
        contact,
        line: line.clone(),
        what: explain(&spec.chip, &error.to_string()),
    };
    let chip_line = Chip::new(&spec.chip)
        .and_then(|mut chip| chip.get_line(spec.line))
        .map_err(|error| failed(&error))?;
    // The kernel's own ACTIVE_LOW stays off: polarity is applied once, in `Contact`.
    let both = EventRequestFlags::BOTH_EDGES;
    let (pin, high, number) = match chip_line.events(LineRequestFlags::INPUT, both, CONSUMER) {
        Ok(events) => {
            let high = events.get_value().map_err(|error| failed(&error))? != 0;
            watched.push(events);
            (Line::Watched, high, Some(watched.len() - 1))
        }
        Err(refused) => {
            let pin = chip_line.request(LineRequestFlags::INPUT, 0, CONSUMER).and_then(CdevPin::new);
            let mut pin = Line::Read(pin.map_err(|error| failed(&error))?);
            tracing::info!(contact, line, %refused, "no interrupts on this line: it is read instead");
            let high = pin.is_high().map_err(|error| failed(&error))?;
            (pin, high, None)
        }
    };
    Ok(Contact::new(pin, contact, line.clone(), spec.active_low, hold_ms, high, number))
}

impl<P: InputPin<Error: Display> + Send> Inputs for PinInputs<P> {
    fn read(&mut self) -> Result<InputState, String> {
        self.untold.extend(self.edges.take());
        let mut told = false;
        // One settled change at a time, so that a short press is told as a press and then as its end.
        while let Some(edge) = self.untold.pop_front() {
            let contact =
                self.contacts.iter_mut().flatten().find(|contact| contact.number == Some(edge.line));
            if contact.is_some_and(|contact| contact.edge(edge)) {
                told = true;
                break;
            }
        }
        let at = self.clock.now();
        let mut fault = None;
        for contact in self.contacts.iter_mut().flatten() {
            // All are read before the first error is given: one cut wire must not freeze the others' debouncing. What was watched goes on from
            // its last edge, and not past edges that are still to be told.
            let level = match contact.number {
                Some(_) if told || !self.untold.is_empty() => continue,
                Some(_) => Ok(contact.level),
                None => contact.read(),
            };
            match level {
                Ok(level) => {
                    contact.debounced.update(level, at);
                }
                Err(error) => fault = fault.or(Some(error.to_string())),
            }
        }
        if let Some(fault) = fault {
            return Err(fault);
        }
        let [door_open, exit, service, tamper] = self
            .contacts
            .each_ref()
            .map(|contact| contact.as_ref().map(|contact| contact.debounced.settled()));
        Ok(InputState {
            door_open,
            exit_requested: exit.unwrap_or(false),
            service: service.unwrap_or(false),
            tamper: tamper.unwrap_or(false),
        })
    }

    fn due(&self) -> Option<Millis> {
        if !self.untold.is_empty() || !self.edges.is_empty() {
            return Some(self.clock.now());
        }
        self.contacts.iter().flatten().filter_map(|contact| contact.debounced.due()).min()
    }

    fn wake_with(&mut self, waker: Waker) {
        self.edges.wake_with(waker);
    }
}

struct Contact<P> {
    pin: P,
    contact: &'static str,
    line: String,
    active_low: bool,
    debounced: Debouncer,
    /// Active or not, after the last edge.
    level: bool,
    /// Its number among the watched ones.
    number: Option<usize>,
}

impl<P: InputPin<Error: Display>> Contact<P> {
    fn new(
        pin: P,
        contact: &'static str,
        line: String,
        active_low: bool,
        hold_ms: u64,
        high: bool,
        number: Option<usize>,
    ) -> Self {
        let level = high != active_low;
        Self { pin, contact, line, active_low, debounced: Debouncer::new(level, hold_ms), level, number }
    }

    /// Takes an edge; whether the settled level changed by it, as it does when the level before it had held.
    fn edge(&mut self, edge: Edge) -> bool {
        let before = self.debounced.settled();
        self.debounced.update(self.level, edge.at);
        self.level = edge.high != self.active_low;
        let changed = self.debounced.settled() != before;
        self.debounced.update(self.level, edge.at);
        changed
    }

    fn read(&mut self) -> Result<bool, InputsError> {
        match self.pin.is_high() {
            Ok(high) => Ok(high != self.active_low),
            Err(e) => {
                Err(InputsError { contact: self.contact, line: self.line.clone(), what: e.to_string() })
            }
        }
    }
}

/// What `gpioinfo` shows.
const CONSUMER: &str = "facelatch input";
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

    fn pins(clock: &Arc<SimClock>, contacts: Contacts<Wire>) -> PinInputs<Wire> {
        let clock = Arc::clone(clock) as Arc<dyn Clock>;
        PinInputs { clock, contacts, edges: Arc::default(), untold: VecDeque::new(), _watch: None }
    }

    /// An exit button and a tamper contact whose edges are reported.
    fn watched() -> (Arc<SimClock>, PinInputs<Wire>) {
        let clock = Arc::new(SimClock::starting_at(UnixMs(0)));
        let contact = |name, number| {
            Some(Contact::new(Wire::default(), name, "chip line 1".to_owned(), true, 30, true, Some(number)))
        };
        let inputs = pins(&clock, [None, contact("exit_request", 0), None, contact("tamper", 1)]);
        (clock, inputs)
    }

    fn edge(inputs: &PinInputs<Wire>, line: usize, high: bool, at: u64) {
        inputs.edges.add(Edge { line, high, at: Millis(at) });
    }

    #[test]
    fn a_press_that_nobody_looked_at_is_told_with_its_end() {
        let (clock, mut inputs) = watched();
        assert_eq!(inputs.read().unwrap(), InputState::default());
        // The session was busy for half a second; the button was down for 45 ms, bouncing.
        for (high, at) in [(false, 100), (true, 102), (false, 103), (true, 148)] {
            edge(&inputs, 0, high, at);
        }
        clock.advance_to(Millis(500));
        assert_eq!(inputs.due(), Some(Millis(500)));
        assert!(inputs.read().unwrap().exit_requested);
        assert!(!inputs.read().unwrap().exit_requested);
        assert_eq!(inputs.due(), None);
    }

    #[test]
    fn bounces_are_no_press_and_a_held_level_settles_on_time() {
        let (clock, mut inputs) = watched();
        for (high, at) in [(false, 100), (true, 120), (false, 140), (true, 160)] {
            edge(&inputs, 0, high, at);
        }
        edge(&inputs, 1, false, 165);
        clock.advance_to(Millis(170));
        assert_eq!(inputs.read().unwrap(), InputState::default());
        assert_eq!(inputs.due(), Some(Millis(195)), "the case is open since 165 and counts 30 ms later");
        clock.advance_to(Millis(195));
        assert_eq!(inputs.read().unwrap(), InputState { tamper: true, ..InputState::default() });
        assert_eq!(inputs.due(), None);
    }

    #[test]
    fn an_edge_wakes_the_session() {
        let (_clock, mut inputs) = watched();
        let woken = Arc::new(AtomicU8::new(0));
        let count = Arc::clone(&woken);
        inputs.wake_with(Box::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
        }));
        edge(&inputs, 0, false, 1);
        edge(&inputs, 0, true, 2);
        assert_eq!(woken.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn polarity_debouncing_and_faults() {
        let clock = Arc::new(SimClock::starting_at(UnixMs(0)));
        let (door, exit) = (Wire::default(), Wire::default());
        exit.set(1);
        let contact = |wire: &Wire, name, low, high| {
            Some(Contact::new(wire.clone(), name, "chip line 1".to_owned(), low, 30, high, None))
        };
        let contacts = [
            contact(&door, "door_open", false, false),
            contact(&exit, "exit_request", true, true),
            None,
            None,
        ];
        let mut inputs = pins(&clock, contacts);
        let idle = InputState { door_open: Some(false), ..InputState::default() };
        assert_eq!(inputs.read().unwrap(), idle);
        door.set(1);
        exit.set(0);
        assert_eq!(inputs.read().unwrap(), idle, "not yet settled");
        clock.advance_ms(30);
        let both = InputState { door_open: Some(true), exit_requested: true, ..InputState::default() };
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

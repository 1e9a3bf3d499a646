//! The panel: what it may show, and where it can be drawn.

use facelatch_shared::access::Label;
use facelatch_shared::liveness::Turn;
use facelatch_shared::person::Name;
use facelatch_shared::pose::View;
use thiserror::Error;

pub mod canvas;
pub mod memory;
pub mod none;
pub mod png;
pub mod framebuffer;
pub mod spi_panel;
pub mod damage;
pub mod preview;
pub mod screens;
mod examples;
mod layout;
mod icons;
mod palette;
mod paint;
mod text;

pub use canvas::Canvas;
pub use framebuffer::FramebufferDisplay;
pub use memory::MemoryDisplay;
pub use none::NoDisplay;
pub use png::PngDisplay;
pub use preview::Preview;
pub use screens::{draw, draw_live};

/// Everything the panel can say. One function draws each, at any panel size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Screen {
    /// Nobody there. `door` is the installer's name for this door, `clock` "09:41" or empty while the time is unknown.
    Idle {
        /// The door's name.
        door: Name,
        /// Hours and minutes.
        clock: heapless::String<8>,
    },
    /// A face is there but cannot be read yet: what the person should do.
    Instruct(Instruction),
    /// A face is being matched.
    Looking,
    /// Open: the name, and how many whole seconds the door stays released.
    Welcome {
        /// Who.
        name: Name,
        /// Seconds left.
        seconds_left: u8,
        /// Seconds it was released for: the whole countdown ring.
        seconds_total: u8,
    },
    /// The door was released from inside.
    ExitGranted,
    /// Not let in.
    NotRecognised,
    /// Known, but not let in now.
    Suspended,
    /// Known, but not let in, and what to do about it.
    NotNow(NotNow),
    /// Recognised; a head turn is asked for.
    TurnHead(Turn),
    /// Recognised; the PIN is asked for.
    EnterPin {
        /// Digits typed.
        typed: u8,
    },
    /// Far too many failures; an administrator must act.
    Barred,
    /// Too many failures; seconds until the next try.
    LockedOut {
        /// Seconds left.
        seconds_left: u8,
        /// Seconds the lockout lasts: the whole countdown ring.
        seconds_total: u8,
    },
    /// The door was opened while secured.
    DoorForced,
    /// The case of the door's own electronics is open.
    Tampered,
    /// The door has stood open too long.
    DoorHeld,
    /// An administrator was called, to begin an enrolment.
    CallAdministrator {
        /// Whether the PIN on the keypad will do too.
        pin: bool,
        /// Digits typed.
        typed: u8,
    },
    /// Enrolment: does the person agree?
    Consent {
        /// The version of the text.
        text: Label,
    },
    /// Enrolment: what to do, and how many of how many views are taken.
    Enrol {
        /// Who is being enrolled.
        name: Name,
        /// The side that is asked for.
        view: View,
        /// What to do next.
        instruction: Option<Instruction>,
        /// Views taken.
        taken: u8,
        /// Views wanted.
        wanted: u8,
    },
    /// The door is open for pairing a workstation.
    Pair {
        /// What the workstation must be told.
        code: heapless::String<16>,
        /// Seconds left.
        seconds_left: u8,
        /// Seconds it was opened for: the whole countdown ring.
        seconds_total: u8,
    },
    /// Enrolment is done.
    Enrolled {
        /// Who.
        name: Name,
        /// What there is to know.
        note: EnrolNote,
    },
    /// Enrolment gave up, and why.
    EnrolFailed(EnrolProblem),
    /// Out of service; the door stays secured and egress works.
    Service(ServiceReason),
    /// The installer's self-test: what failed.
    SelfTest {
        /// Names of the checks that failed.
        failed: Vec<&'static str>,
    },
}

impl Screen {
    /// A short name for files and logs: lower case, digits and hyphens, without any person's name.
    #[must_use]
    pub const fn slug(&self) -> &'static str {
        match self {
            Self::Idle { .. } => "idle",
            Self::Instruct(instruction) => instruction.slug(),
            Self::Looking => "looking",
            Self::Welcome { .. } => "welcome",
            Self::ExitGranted => "exit-granted",
            Self::NotRecognised => "not-recognised",
            Self::Suspended => "suspended",
            Self::NotNow(reason) => reason.slug(),
            Self::TurnHead(Turn::Left) => "turn-left",
            Self::TurnHead(Turn::Right) => "turn-right",
            Self::EnterPin { .. } => "enter-pin",
            Self::Barred => "barred",
            Self::LockedOut { .. } => "locked-out",
            Self::DoorForced => "door-forced",
            Self::Tampered => "tampered",
            Self::DoorHeld => "door-held",
            Self::Pair { .. } => "pair",
            Self::CallAdministrator { .. } => "call-administrator",
            Self::Consent { .. } => "consent",
            Self::Enrol { view: View::Front, .. } => "enrol",
            Self::Enrol { view: View::Left, .. } => "enrol-left",
            Self::Enrol { view: View::Right, .. } => "enrol-right",
            Self::Enrol { view: View::Up, .. } => "enrol-up",
            Self::Enrol { view: View::Down, .. } => "enrol-down",
            Self::Enrolled { note: EnrolNote::None, .. } => "enrolled",
            Self::Enrolled { note: EnrolNote::FrontOnly, .. } => "enrolled-front-only",
            Self::Enrolled { note: EnrolNote::Lookalike, .. } => "enrolled-lookalike",
            Self::EnrolFailed(problem) => match problem {
                EnrolProblem::TimedOut => "enrol-timed-out",
                EnrolProblem::NotOnePerson => "enrol-not-one-person",
                EnrolProblem::AlreadyEnrolled => "enrol-already-enrolled",
                EnrolProblem::Storage => "enrol-storage",
                EnrolProblem::Cancelled => "enrol-cancelled",
                EnrolProblem::NoConsent => "enrol-no-consent",
            },
            Self::SelfTest { .. } => "self-test",
            Self::Service(reason) => match reason {
                ServiceReason::Starting => "service-starting",
                ServiceReason::Camera => "service-camera",
                ServiceReason::Models => "service-models",
                ServiceReason::Storage => "service-storage",
                ServiceReason::Lock => "service-lock",
                ServiceReason::Maintenance => "service-maintenance",
            },
        }
    }
}

/// What the person should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Instruction {
    /// Face too small.
    ComeCloser,
    /// Face too large or cut off.
    StepBack,
    /// Blurred.
    HoldStill,
    /// Too little light.
    TooDark,
    /// Too much light.
    TooBright,
    /// Several faces.
    OneFaceOnly,
    /// Turned away.
    LookAtCamera,
    /// An administrator stands where the new person shall.
    NextPerson,
}

impl Instruction {
    /// A short name for files and logs.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::ComeCloser => "come-closer",
            Self::StepBack => "step-back",
            Self::HoldStill => "hold-still",
            Self::TooDark => "too-dark",
            Self::TooBright => "too-bright",
            Self::OneFaceOnly => "one-face-only",
            Self::LookAtCamera => "look-at-camera",
            Self::NextPerson => "next-person",
        }
    }
}

/// Why someone who is known, or seems to be, is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotNow {
    /// Outside the person's hours.
    OutOfHours,
    /// Before the first day of validity.
    NotYetValid,
    /// After the last day of validity.
    Expired,
    /// The door does not know the time, which matters for the person.
    TimeUnknown,
    /// The PIN was wrong.
    WrongPin,
    /// No PIN was typed in time.
    PinTimedOut,
    /// A PIN is asked for and the person has none.
    NoPin,
    /// The person went in a short while ago.
    PassedBack,
    /// It was no head that turned.
    NotLive,
    /// The head was not turned in time.
    NotTurned,
    /// An administrator was called, and the person is none.
    NotAdministrator,
}

impl NotNow {
    /// A short name for files and logs.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::OutOfHours => "out-of-hours",
            Self::NotYetValid => "not-yet-valid",
            Self::Expired => "expired",
            Self::TimeUnknown => "time-unknown",
            Self::WrongPin => "wrong-pin",
            Self::PinTimedOut => "pin-timed-out",
            Self::NoPin => "no-pin",
            Self::PassedBack => "passed-back",
            Self::NotLive => "not-live",
            Self::NotTurned => "not-turned",
            Self::NotAdministrator => "not-administrator",
        }
    }
}

/// Why an enrolment ended without a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EnrolProblem {
    /// Nobody gave enough good views in time.
    TimedOut,
    /// The views are not of one person.
    NotOnePerson,
    /// The face is enrolled under another name.
    AlreadyEnrolled,
    /// The gallery could not be written.
    Storage,
    /// It was called off.
    Cancelled,
    /// The person did not agree.
    NoConsent,
}

/// What there is to know of a person just enrolled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EnrolNote {
    /// Nothing.
    None,
    /// Only views from the front were to be had.
    FrontOnly,
    /// Somebody who is enrolled looks much alike.
    Lookalike,
}

/// Why the door is out of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServiceReason {
    /// Starting up.
    Starting,
    /// No camera.
    Camera,
    /// Models missing or refused.
    Models,
    /// Gallery or event log cannot be written.
    Storage,
    /// The lock does not answer.
    Lock,
    /// The installer's service mode.
    Maintenance,
}

/// Somewhere a screen can be shown.
pub trait Display: Send {
    /// Shows `screen`; called only when it changes.
    ///
    /// # Errors
    /// [`DisplayError`]: the door works on without its panel and logs it once.
    fn show(&mut self, screen: &Screen) -> Result<(), DisplayError>;

    /// Shows `screen` beside the camera's picture; called for every frame while somebody is enrolled. A panel that cannot keeps to the screen.
    ///
    /// # Errors
    /// As [`show`](Self::show).
    fn show_live(&mut self, _screen: &Screen, _preview: &Preview) -> Result<(), DisplayError> {
        Ok(())
    }
}

/// The panel could not be drawn.
#[derive(Debug, Error)]
#[error("panel {panel}: {what}")]
pub struct DisplayError {
    /// Path or kind of the panel.
    pub panel: String,
    /// What the system said.
    pub what: String,
}

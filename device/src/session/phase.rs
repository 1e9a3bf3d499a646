//! What the session is in the midst of.

use facelatch_shared::person::Name;
use facelatch_shared::time::Millis;

use super::enrol::Enrolling;
use super::factor::Factor;
use super::liveness::Turning;
use super::summon::Summons;
use crate::display::Screen;

#[derive(Debug)]
pub(super) enum Phase {
    /// Looking out for people.
    Watching,
    /// An administrator was called.
    Summoning(Summons),
    /// Someone was recognised and must turn the head.
    Challenging(Turning),
    /// Someone was recognised and must type the PIN.
    AskingPin(Factor),
    /// Someone is being let in.
    Welcoming { name: Name, until: Millis },
    /// Someone is going out.
    Exiting { until: Millis },
    /// Something is told for a while: a refusal, the end of an enrolment.
    Telling { screen: Screen, until: Millis },
    /// Nobody is tried.
    LockedOut { until: Millis },
    /// Views are being taken.
    Enrolling(Enrolling),
}

impl Phase {
    /// When it ends by itself.
    pub(super) const fn deadline(&self) -> Option<Millis> {
        match self {
            Self::Watching => None,
            Self::Welcoming { until, .. }
            | Self::Exiting { until }
            | Self::Telling { until, .. }
            | Self::LockedOut { until } => Some(*until),
            Self::Summoning(summons) => Some(summons.until),
            Self::Challenging(turning) => Some(turning.until),
            Self::AskingPin(factor) => Some(factor.until),
            Self::Enrolling(enrolling) => Some(enrolling.deadline),
        }
    }
}

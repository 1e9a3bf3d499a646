//! One screen of every kind, for the installer's panel check, the pictures in documents and the tests.

use super::{EnrolNote, EnrolProblem, Instruction, NotNow, Screen, ServiceReason};
use facelatch_shared::access::Label;
use facelatch_shared::liveness::Turn;
use facelatch_shared::person::Name;
use facelatch_shared::pose::View;

impl Instruction {
    /// Every instruction.
    pub const ALL: [Self; 8] = [
        Self::ComeCloser,
        Self::StepBack,
        Self::HoldStill,
        Self::TooDark,
        Self::TooBright,
        Self::OneFaceOnly,
        Self::LookAtCamera,
        Self::NextPerson,
    ];
}

impl NotNow {
    /// Every reason.
    pub const ALL: [Self; 11] = [
        Self::OutOfHours,
        Self::NotYetValid,
        Self::Expired,
        Self::TimeUnknown,
        Self::WrongPin,
        Self::PinTimedOut,
        Self::NoPin,
        Self::PassedBack,
        Self::NotLive,
        Self::NotTurned,
        Self::NotAdministrator,
    ];
}

impl EnrolProblem {
    /// Every problem.
    pub const ALL: [Self; 6] = [
        Self::TimedOut,
        Self::NotOnePerson,
        Self::AlreadyEnrolled,
        Self::Storage,
        Self::Cancelled,
        Self::NoConsent,
    ];
}

impl EnrolNote {
    /// Every note.
    pub const ALL: [Self; 3] = [Self::None, Self::FrontOnly, Self::Lookalike];
}

impl ServiceReason {
    /// Every reason.
    pub const ALL: [Self; 6] =
        [Self::Starting, Self::Camera, Self::Models, Self::Storage, Self::Lock, Self::Maintenance];
}

impl Screen {
    /// One screen of every kind, each with its own [`Screen::slug`], with `door` and `person` for names.
    #[must_use]
    pub fn examples(door: &Name, person: &Name) -> Vec<Self> {
        let name = || person.clone();
        let clock = heapless::String::try_from("09:41").unwrap_or_default();
        let code = heapless::String::try_from("7K2M9-QXA04").unwrap_or_default();
        let mut screens = vec![Self::Idle { door: door.clone(), clock }];
        screens.extend(Instruction::ALL.map(Self::Instruct));
        screens.extend([
            Self::Looking,
            Self::Welcome { name: name(), seconds_left: 4, seconds_total: 5 },
            Self::ExitGranted,
            Self::NotRecognised,
            Self::Suspended,
            Self::TurnHead(Turn::Left),
            Self::TurnHead(Turn::Right),
            Self::EnterPin { typed: 2 },
            Self::Barred,
            Self::LockedOut { seconds_left: 18, seconds_total: 30 },
            Self::DoorForced,
            Self::Tampered,
            Self::DoorHeld,
            Self::Pair { code, seconds_left: 90, seconds_total: 120 },
            Self::CallAdministrator { pin: true, typed: 0 },
            Self::Consent { text: Label::try_from("2026-1").unwrap_or_default() },
        ]);
        screens.extend(View::ALL.map(|view| {
            let taken = View::ALL.iter().position(|v| *v == view).unwrap_or(0) as u8;
            Self::Enrol { name: name(), view, instruction: None, taken, wanted: 5 }
        }));
        screens.extend(EnrolNote::ALL.map(|note| Self::Enrolled { name: name(), note }));
        screens.extend(NotNow::ALL.map(Self::NotNow));
        screens.extend(EnrolProblem::ALL.map(Self::EnrolFailed));
        screens.extend(ServiceReason::ALL.map(Self::Service));
        screens
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_example_has_its_own_slug_fit_for_a_file_name() {
        let name = Name::new("Ada").unwrap();
        let examples = Screen::examples(&name, &name);
        let slugs: BTreeSet<&str> = examples.iter().map(Screen::slug).collect();
        assert_eq!(slugs.len(), examples.len());
        // 22 variants; seven of them come in kinds of their own, two ways to turn among them.
        let kinds =
            Instruction::ALL.len() + NotNow::ALL.len() + EnrolProblem::ALL.len() + ServiceReason::ALL.len();
        assert_eq!(slugs.len(), 22 - 7 + kinds + 2 + View::ALL.len() + EnrolNote::ALL.len());
        assert!(slugs.iter().all(|s| s.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')));
    }
}

//! One screen of every kind, for the installer's panel check, the pictures in documents and the tests.

use super::{EnrolProblem, Instruction, NotNow, Screen, ServiceReason};
use facelatch_shared::liveness::Turn;
use facelatch_shared::person::Name;

impl Instruction {
    /// Every instruction.
    pub const ALL: [Self; 7] = [
        Self::ComeCloser,
        Self::StepBack,
        Self::HoldStill,
        Self::TooDark,
        Self::TooBright,
        Self::OneFaceOnly,
        Self::LookAtCamera,
    ];
}

impl NotNow {
    /// Every reason.
    pub const ALL: [Self; 10] = [
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
    ];
}

impl EnrolProblem {
    /// Every problem.
    pub const ALL: [Self; 5] =
        [Self::TimedOut, Self::NotOnePerson, Self::AlreadyEnrolled, Self::Storage, Self::Cancelled];
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
            Self::DoorHeld,
            Self::Enrol { name: name(), instruction: None, taken: 3, wanted: 5 },
            Self::Pair { code, seconds_left: 90, seconds_total: 120 },
            Self::Enrolled { name: name() },
        ]);
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
        // 19 variants; five of them come in kinds of their own, two ways to turn among them.
        let kinds =
            Instruction::ALL.len() + NotNow::ALL.len() + EnrolProblem::ALL.len() + ServiceReason::ALL.len();
        assert_eq!(slugs.len(), 19 - 5 + kinds + 2);
        assert!(slugs.iter().all(|s| s.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')));
    }
}

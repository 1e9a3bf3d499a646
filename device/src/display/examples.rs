//! One screen of every kind, for the installer's panel check, the pictures in documents and the tests.

use super::{EnrolProblem, Instruction, Screen, ServiceReason};
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
        let mut screens = vec![Self::Idle { door: door.clone(), clock }];
        screens.extend(Instruction::ALL.map(Self::Instruct));
        screens.extend([
            Self::Looking,
            Self::Welcome { name: name(), seconds_left: 4, seconds_total: 5 },
            Self::ExitGranted,
            Self::NotRecognised,
            Self::Suspended,
            Self::LockedOut { seconds_left: 18, seconds_total: 30 },
            Self::DoorForced,
            Self::DoorHeld,
            Self::Enrol { name: name(), instruction: None, taken: 3, wanted: 5 },
            Self::Enrolled { name: name() },
        ]);
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
        // 14 variants; three of them come in 7, 5 and 6 kinds.
        assert_eq!(slugs.len(), 14 - 3 + 7 + 5 + 6);
        assert!(slugs.iter().all(|s| s.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')));
    }
}

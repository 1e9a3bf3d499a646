//! How models and their update stand, in words: the same at the door's console and at a workstation, but for the commands that go on from there.

use core::fmt::{Display, Formatter, Result};

use super::update::{ModelsFrom, ModelsInUse, TrialStatus, UpdateStage, UpdateStatus};

/// What is typed where the words are read.
#[derive(Clone, Copy, Debug)]
pub struct Commands {
    /// Sends or takes the bundle again.
    pub again: &'static str,
    /// Activates what is ready.
    pub activate: &'static str,
    /// Has the door trust a root document.
    pub trust: &'static str,
}

impl UpdateStatus {
    /// Some lines, each with its heading: models, system, update, last, trusts.
    #[must_use]
    pub const fn told<'a>(&'a self, commands: &'a Commands) -> impl Display + 'a {
        Told { status: self, commands }
    }
}

struct Told<'a> {
    status: &'a UpdateStatus,
    commands: &'a Commands,
}

impl Display for Told<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let UpdateStatus { models, counter_floor, root_version, last, system, .. } = self.status;
        writeln!(f, "models   {models} ({})", models.binding)?;
        if let Some(system) = system {
            writeln!(f, "system   {system}")?;
        }
        f.write_str("update   ")?;
        self.stage(f)?;
        if let Some(outcome) = last {
            write!(f, "\nlast     trial: {}", outcome.word())?;
        }
        match root_version {
            Some(version) => {
                writeln!(f, "\ntrusts   root document {version}, bundles above counter {counter_floor}")
            }
            None => writeln!(f, "\ntrusts   NOBODY: `{}`", self.commands.trust),
        }
    }
}

impl Told<'_> {
    fn stage(&self, f: &mut Formatter<'_>) -> Result {
        let Commands { again, activate, .. } = self.commands;
        match &self.status.stage {
            UpdateStage::Idle => f.write_str("none under way"),
            UpdateStage::Receiving { id, offset, size: 0 } => {
                write!(f, "{id}: {offset} bytes are here; `{again}` goes on")
            }
            UpdateStage::Receiving { id, offset, size } => {
                write!(f, "{id}: {offset} of {size} bytes are here; `{again}` goes on")
            }
            UpdateStage::Staged { id } => {
                write!(f, "{id}: whole and verified; `{again}` makes it ready")
            }
            UpdateStage::Preparing { id, done, of } => {
                write!(f, "{id}: self-test and templates, {done} of {of} chips")
            }
            UpdateStage::Unfit { id, why } => write!(f, "{id}: DOES NOT FIT: {why}"),
            UpdateStage::Ready { id, carried, understood, left_behind } => write!(
                f,
                "{id}: ready; {carried} carried over, {understood} understood, {left_behind} to be enrolled again: `{activate}`"
            ),
            UpdateStage::Waiting { id } => {
                write!(f, "{id}: is activated as soon as nobody stands at the door")
            }
            UpdateStage::Trial(trial) => write!(f, "{trial}"),
            UpdateStage::Installing { id } => {
                write!(f, "{id}: is written into the other slot; the board starts anew then")
            }
        }
    }
}

impl Display for TrialStatus {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { id, seconds_left, starts, max_starts, probes, .. } = self;
        let faces = if *probes == 1 { "face" } else { "faces" };
        write!(
            f,
            "{id}: on trial for {seconds_left} s more, start {starts} of {max_starts}; {probes} {faces}, p95 "
        )?;
        match self.p95_us {
            Some(us) => write!(f, "{:.1} ms", ms(us))?,
            None => f.write_str("not measured yet")?,
        }
        let Self { known, only_former, only_new, .. } = self;
        write!(
            f,
            " of {:.1} ms; of {known} known to either, {only_former} to the former models alone and {only_new} to these alone",
            ms(self.max_p95_us)
        )
    }
}

impl Display for ModelsInUse {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(&self.embedder)?;
        match self.from {
            ModelsFrom::Configured => f.write_str(" as configured"),
            ModelsFrom::SlotA => write!(f, " in slot A, bundle \"{}\"", self.name),
            ModelsFrom::SlotB => write!(f, " in slot B, bundle \"{}\"", self.name),
        }
    }
}

fn ms(us: u32) -> f64 {
    f64::from(us) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::BundleId;
    use crate::embedding::ModelBinding;
    use crate::event::TrialOutcome;
    use crate::protocol::update::{SystemLast, SystemState, SystemStatus};
    use alloc::string::{String, ToString as _};

    const HERE: Commands =
        Commands { again: "send FILE", activate: "models activate", trust: "models trust FILE" };

    fn status(stage: UpdateStage) -> UpdateStatus {
        UpdateStatus {
            models: ModelsInUse {
                from: ModelsFrom::SlotB,
                bundle: Some(BundleId([7; 32])),
                name: "spring".try_into().unwrap(),
                embedder: "compact".try_into().unwrap(),
                binding: ModelBinding([9; 16]),
            },
            stage,
            counter_floor: 4,
            root_version: Some(2),
            last: Some(TrialOutcome::TooSlow),
            can_go_back: true,
            system: None,
        }
    }

    fn told(status: &UpdateStatus) -> String {
        status.told(&HERE).to_string()
    }

    #[test]
    fn everything_stands_under_its_heading() {
        let id = BundleId([3; 32]);
        let ready = status(UpdateStage::Ready { id, carried: 5, understood: 0, left_behind: 1 });
        assert_eq!(
            told(&ready),
            "\
models   compact in slot B, bundle \"spring\" (09090909090909090909090909090909)
update   0303030303030303: ready; 5 carried over, 0 understood, 1 to be enrolled again: `models activate`
last     trial: too_slow
trusts   root document 2, bundles above counter 4
"
        );
        let trial = TrialStatus {
            id,
            seconds_left: 60,
            starts: 1,
            max_starts: 3,
            probes: 25,
            p95_us: Some(31_400),
            max_p95_us: 500_000,
            known: 6,
            only_former: 1,
            only_new: 0,
        };
        let text = told(&status(UpdateStage::Trial(trial)));
        assert!(
            text.contains("on trial for 60 s more, start 1 of 3; 25 faces, p95 31.4 ms of 500.0 ms"),
            "{text}"
        );
        let mut new = status(UpdateStage::Idle);
        (new.models.from, new.root_version, new.last) = (ModelsFrom::Configured, None, None);
        let text = told(&new);
        assert!(text.contains("compact as configured (") && !text.contains("last"), "{text}");
        assert!(text.ends_with("trusts   NOBODY: `models trust FILE`\n"), "{text}");
    }

    #[test]
    fn a_bundle_that_is_coming_and_a_system_are_told() {
        let id = BundleId([3; 32]);
        let text = told(&status(UpdateStage::Receiving { id, offset: 5, size: 0 }));
        assert!(text.contains(": 5 bytes are here; `send FILE` goes on\n"), "{text}");
        let text = told(&status(UpdateStage::Receiving { id, offset: 5, size: 9 }));
        assert!(text.contains(": 5 of 9 bytes are here; `send FILE` goes on\n"), "{text}");
        let mut image = status(UpdateStage::Idle);
        image.system = Some(SystemStatus {
            board: "generic-arm64".try_into().unwrap(),
            slot: 'a',
            counter_floor: 6,
            last: Some(SystemLast {
                name: "0.2.0".try_into().unwrap(),
                counter: 7,
                slot: 'b',
                state: SystemState::FellBack,
            }),
        });
        let text = told(&image);
        let line = "system   slot a of an image for generic-arm64; 0.2.0 (counter 7) in slot b: did not come up; the former one runs\n";
        assert!(text.contains(line), "{text}");
    }
}

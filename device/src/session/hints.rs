//! What is wrong with the picture, said when it lasts: come closer, hold still, more light.

use facelatch_shared::quality::Unusable;
use facelatch_shared::time::Millis;

use crate::display::Instruction;

/// The last reason why there was no probe, and whether there was one lately.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hints {
    hint: Option<Hint>,
    looking_until: Millis,
}

#[derive(Clone, Copy, Debug)]
struct Hint {
    reason: Unusable,
    since: Millis,
    last: Millis,
}

impl Hints {
    /// A frame without a probe.
    pub(super) fn unusable(&mut self, now: Millis, reason: Unusable) {
        self.hint = match self.hint {
            Some(hint) if hint.reason == reason && now.since(hint.last) < HINT_MS => {
                Some(Hint { last: now, ..hint })
            }
            _ => Some(Hint { reason, since: now, last: now }),
        };
        if reason == Unusable::NoFace {
            self.looking_until = self.looking_until.min(now);
        }
    }

    /// A frame with one.
    pub(super) const fn probe(&mut self, now: Millis) {
        self.hint = None;
        self.looking_until = now.plus(LOOKING_MS);
    }

    /// Nothing is wrong any more.
    pub(super) const fn clear(&mut self) {
        self.hint = None;
    }

    /// Whether a face is being matched.
    pub(super) fn is_looking(&self, now: Millis) -> bool {
        now < self.looking_until
    }

    /// What the person should do. One bad frame is no reason to talk.
    pub(super) fn instruction(&self, now: Millis) -> Option<Instruction> {
        let hint = self.hint.filter(|hint| now.since(hint.last) < HINT_MS)?;
        if hint.last.since(hint.since) < STEADY_MS {
            return None;
        }
        match hint.reason {
            Unusable::TooSmall => Some(Instruction::ComeCloser),
            Unusable::TooClose => Some(Instruction::StepBack),
            Unusable::Blurred => Some(Instruction::HoldStill),
            Unusable::TooDark => Some(Instruction::TooDark),
            Unusable::TooBright => Some(Instruction::TooBright),
            Unusable::SeveralFaces => Some(Instruction::OneFaceOnly),
            Unusable::Turned | Unusable::Covered | Unusable::BadGeometry => Some(Instruction::LookAtCamera),
            _ => None,
        }
    }
}

/// An instruction goes when its reason has not been seen for so long.
const HINT_MS: u64 = 700;
/// And comes when its reason has lasted so long.
const STEADY_MS: u64 = 180;
/// "Looking" stays so long after a probe.
const LOOKING_MS: u64 = 600;

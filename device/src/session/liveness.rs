//! A head turn is asked for, one way or the other, before the door opens: a photograph cannot do it.
//!
//! Only frames that are recognised as the person count, so that nobody turns a head of their own beside somebody's picture.

use facelatch_shared::event::{EventKind, Refusal};
use facelatch_shared::liveness::{Challenge, Progress, Turn};
use facelatch_shared::observation::TrackId;
use facelatch_shared::time::Millis;
use sha2::{Digest as _, Sha256};

use super::watch::Pending;
use super::{Action, Actions, Matched, Phase, Session, push};

/// How liveness is checked.
#[derive(Clone, Debug, Default)]
pub struct LivenessPolicy {
    /// Whether a head turn is asked for.
    pub ask: bool,
    /// Whether the camera's picture is a mirror image.
    pub mirrored: bool,
    /// Time to turn the head.
    pub timeout_s: u8,
    /// Chooses the ways that are asked for; secret, and fresh at each start.
    pub seed: [u8; 16],
}

/// A turn that was asked for.
#[derive(Debug)]
pub(super) struct Turning {
    pending: Pending,
    pub(super) asked: Turn,
    challenge: Challenge,
    track: TrackId,
    pub(super) until: Millis,
}

impl Session {
    pub(super) fn ask_turn(&mut self, now: Millis, pending: Pending, track: TrackId) {
        let liveness = &self.policy.liveness;
        self.challenges = self.challenges.wrapping_add(1);
        let asked = liveness.way(self.challenges);
        let challenge = Challenge::new(asked, liveness.mirrored);
        let until = now.plus(u64::from(liveness.timeout_s) * 1000);
        self.phase = Phase::Challenging(Turning { pending, asked, challenge, track, until });
    }

    pub(super) fn turning(&mut self, now: Millis, matched: &Matched, actions: &mut Actions) {
        let rule = self.policy.rule;
        let Phase::Challenging(turning) = &mut self.phase else { return };
        if matched.track != turning.track {
            // Another face: whoever it is begins anew, with this frame.
            self.watch();
            self.hints.probe(now);
            return self.weigh(now, matched, actions);
        }
        let clear = matched.report.filter(|report| report.rank_gap() >= rule.min_rank_gap);
        let elected = clear.and_then(|r| r.best).filter(|best| rule.threshold.accepts(best.similarity));
        let subject = turning.pending.candidate.subject;
        match (elected, &matched.fiducials) {
            (Some(best), _) if best.subject != subject => {
                let candidate = Some(turning.pending.candidate);
                self.refuse(now, Refusal::NotLive, candidate, actions);
            }
            (Some(_), Some(fiducials)) => {
                let progress = turning.challenge.observe(fiducials);
                let candidate = turning.pending.candidate;
                match progress {
                    Progress::Watching => {}
                    Progress::Turned => {
                        let pending = turning.pending.clone();
                        push(actions, Action::Log(EventKind::ChallengePassed { subject }));
                        self.ask_factor(now, pending, actions);
                    }
                    Progress::WrongWay => self.refuse(now, Refusal::NotTurned, Some(candidate), actions),
                    Progress::NotAHead => self.refuse(now, Refusal::NotLive, Some(candidate), actions),
                }
            }
            _ => {}
        }
    }

    pub(super) fn not_turned(&mut self, now: Millis, actions: &mut Actions) {
        let Phase::Challenging(turning) = &self.phase else { return };
        let candidate = turning.pending.candidate;
        self.refuse(now, Refusal::NotTurned, Some(candidate), actions);
    }
}

impl LivenessPolicy {
    /// The way of challenge number `count`, from 1: a bit of a hash, so that those seen do not tell those to come.
    #[must_use]
    pub fn way(&self, count: u64) -> Turn {
        let digest = Sha256::new().chain_update(self.seed).chain_update(count.to_le_bytes()).finalize();
        if digest[0] & 1 == 0 { Turn::Left } else { Turn::Right }
    }
}

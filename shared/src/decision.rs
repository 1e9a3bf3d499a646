//! When a door may open: the rule over consecutive matches of one tracked face.
//!
//! One frame decides nothing. A person is accepted when N of the last M frames of one track agree on the same person, each above the threshold and
//! clear of the second best by the rank gap; a track is refused once M frames have been seen without that.

use heapless::Deque;

use crate::event::Refusal;
use crate::gallery::{Candidate, MatchReport};
use crate::observation::TrackId;
use crate::person::SubjectId;
use crate::score::{Similarity, Threshold};

/// Most frames that a decision may look back on.
pub const MAX_WINDOW: usize = 16;

/// The rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DecisionRule {
    /// The least similarity that counts.
    pub threshold: Threshold,
    /// Best minus second best must reach this, or the match is ambiguous. In units of similarity.
    pub min_rank_gap: f32,
    /// N: agreeing frames that open, 1 to `window`.
    pub votes: u8,
    /// M: frames looked back on, 1 to [`MAX_WINDOW`].
    pub window: u8,
}

/// What the frames so far amount to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// Too few frames to say.
    Undecided,
    /// This person, at the best similarity among the agreeing frames.
    Match(Candidate),
    /// Nobody: a full window without agreement.
    NoMatch {
        /// Not recognised, ambiguous, or nobody enrolled.
        reason: Refusal,
        /// Who came closest, over the window.
        closest: Option<Candidate>,
    },
}

/// The frames of one track, weighed one after another.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    track: Option<TrackId>,
    seen: Deque<Vote, MAX_WINDOW>,
}

#[derive(Clone, Copy, Debug)]
struct Vote {
    closest: Option<Candidate>,
    /// Who is voted for: above the threshold and clear of everyone else.
    elects: Option<SubjectId>,
    ambiguous: bool,
}

impl Evidence {
    /// Adds one frame's match of `track`; a new track starts anew.
    pub fn weigh(&mut self, rule: &DecisionRule, track: TrackId, report: &MatchReport) -> Verdict {
        if self.track != Some(track) {
            self.clear();
            self.track = Some(track);
        }
        let window = usize::from(rule.window.clamp(1, MAX_WINDOW as u8));
        while self.seen.len() >= window {
            self.seen.pop_front();
        }
        // There is room: the window is at most the capacity.
        let _ = self.seen.push_back(Vote::of(rule, report));
        self.verdict(rule, window)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.track = None;
        self.seen.clear();
    }

    fn verdict(&self, rule: &DecisionRule, window: usize) -> Verdict {
        let needed = usize::from(rule.votes.max(1)).min(window);
        for vote in &self.seen {
            let Some(subject) = vote.elects else { continue };
            let agreeing = || self.seen.iter().filter(|other| other.elects == Some(subject));
            if agreeing().count() >= needed {
                let similarity = best_of(agreeing().filter_map(|vote| vote.closest));
                return Verdict::Match(Candidate { subject, similarity });
            }
        }
        if self.seen.len() < window {
            return Verdict::Undecided;
        }
        let closest = self
            .seen
            .iter()
            .filter_map(|vote| vote.closest)
            .max_by(|a, b| a.similarity.0.total_cmp(&b.similarity.0));
        let reason = match closest {
            None => Refusal::NobodyEnrolled,
            Some(_) if self.seen.iter().any(|vote| vote.ambiguous) => Refusal::Ambiguous,
            Some(_) => Refusal::NotRecognised,
        };
        Verdict::NoMatch { reason, closest }
    }
}

impl Vote {
    fn of(rule: &DecisionRule, report: &MatchReport) -> Self {
        let above = report.best.filter(|best| rule.threshold.accepts(best.similarity));
        let clear = report.rank_gap() >= rule.min_rank_gap;
        Self {
            closest: report.best,
            elects: above.filter(|_| clear).map(|best| best.subject),
            ambiguous: above.is_some() && !clear,
        }
    }
}

fn best_of(candidates: impl Iterator<Item = Candidate>) -> Similarity {
    candidates.map(|c| c.similarity).fold(Similarity(-1.0), |a, b| if b.0 > a.0 { b } else { a })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RULE: DecisionRule =
        DecisionRule { threshold: Threshold(0.4), min_rank_gap: 0.05, votes: 3, window: 5 };

    fn report(best: (u32, f32), other: Option<(u32, f32)>) -> MatchReport {
        let candidate = |(id, s)| Candidate { subject: SubjectId(id), similarity: Similarity(s) };
        MatchReport { best: Some(candidate(best)), runner_up: other.map(candidate), templates: 2 }
    }

    fn run(track: u32, reports: &[MatchReport]) -> Verdict {
        let mut evidence = Evidence::default();
        reports.iter().map(|r| evidence.weigh(&RULE, TrackId(track), r)).last().unwrap()
    }

    #[test]
    fn three_of_five_open() {
        let (yes, no) = (report((1, 0.6), None), report((1, 0.3), None));
        assert_eq!(run(1, &[yes, yes]), Verdict::Undecided);
        let found = Verdict::Match(Candidate { subject: SubjectId(1), similarity: Similarity(0.6) });
        assert_eq!(run(1, &[yes, no, yes, no, yes]), found);
        assert!(matches!(
            run(1, &[yes, no, no, yes, no]),
            Verdict::NoMatch { reason: Refusal::NotRecognised, .. }
        ));
        // The window slides: the first yes has left it.
        assert!(matches!(run(1, &[yes, no, no, yes, no, yes]), Verdict::NoMatch { .. }));
    }

    #[test]
    fn two_people_alike_open_nothing() {
        let close = report((1, 0.6), Some((2, 0.57)));
        assert!(matches!(run(1, &[close; 5]), Verdict::NoMatch { reason: Refusal::Ambiguous, .. }));
        let split = [report((1, 0.6), None), report((2, 0.6), None)];
        assert!(matches!(
            run(1, &[split[0], split[1], split[0], split[1], MatchReport::default()]),
            Verdict::NoMatch { .. }
        ));
    }

    #[test]
    fn another_face_starts_anew() {
        let mut evidence = Evidence::default();
        let yes = report((1, 0.6), None);
        evidence.weigh(&RULE, TrackId(1), &yes);
        evidence.weigh(&RULE, TrackId(1), &yes);
        assert_eq!(evidence.weigh(&RULE, TrackId(2), &yes), Verdict::Undecided);
    }

    #[test]
    fn an_empty_gallery_says_so() {
        let verdict = run(1, &[MatchReport::default(); 5]);
        assert_eq!(verdict, Verdict::NoMatch { reason: Refusal::NobodyEnrolled, closest: None });
    }

    proptest! {
        #[test]
        fn nothing_below_the_threshold_ever_opens(similarities in prop::collection::vec(prop_oneof![Just(f32::NAN), -1.0_f32..0.3999], 1..40)) {
            let mut evidence = Evidence::default();
            for s in similarities {
                let verdict = evidence.weigh(&RULE, TrackId(1), &report((1, s), None));
                prop_assert!(!matches!(verdict, Verdict::Match(_)));
            }
        }
    }
}

//! Which of the frames taken during an enrolment become templates: good ones, from as many sides as there are, unlike each other.

use facelatch_shared::embedding::Template;
use facelatch_shared::gallery::MAX_TEMPLATES;
use facelatch_shared::pose::View;
use facelatch_shared::quality::Quality;
use heapless::Vec;

/// Most frames that one enrolment keeps until it chooses.
pub(super) const MAX_SHOTS: usize = 16;

/// A frame taken.
#[derive(Clone, Debug)]
pub(super) struct Shot {
    pub(super) template: Template,
    pub(super) view: View,
    /// Larger is better.
    good: f32,
}

impl Shot {
    /// Sharpness and size count, each up to where more of it tells no more: an embedder sees 112 pixels across the face.
    pub(super) fn new(template: Template, view: View, quality: &Quality) -> Self {
        let good = quality.sharpness.min(ENOUGH_SHARPNESS) * quality.eye_distance_px.min(ENOUGH_EYES_PX);
        Self { template, view, good: if good.is_finite() { good } else { 0.0 } }
    }
}

/// At most `wanted` templates: the best shot from the front, then again and again the one that is least like those chosen, best shots of
/// each view before second ones.
pub(super) fn choose(shots: &[Shot], wanted: usize) -> Vec<Template, MAX_TEMPLATES> {
    let mut rest: std::vec::Vec<(bool, &Shot)> =
        shots.iter().map(|shot| (is_best(shots, shot), shot)).collect();
    let mut chosen: Vec<Template, MAX_TEMPLATES> = Vec::new();
    while !rest.is_empty() && chosen.len() < wanted && !chosen.is_full() {
        let rank = |(best, shot): &(bool, &Shot)| -> (bool, bool, f32) {
            let likeness = chosen.iter().map(|t| t.similarity(&shot.template).0).fold(-1.0, f32::max);
            (*best, chosen.is_empty() && shot.view == View::Front, -likeness)
        };
        let next = (0..rest.len()).max_by(|&a, &b| {
            let (a, b) = (rank(&rest[a]), rank(&rest[b]));
            a.0.cmp(&b.0).then(a.1.cmp(&b.1)).then(a.2.total_cmp(&b.2))
        });
        let Some(next) = next else { break };
        let (_, shot) = rest.remove(next);
        // The loop ends when it is full.
        let _ = chosen.push(shot.template);
    }
    chosen
}

/// Whether no shot of the same view is better; of equal ones the first.
fn is_best(shots: &[Shot], shot: &Shot) -> bool {
    let best = shots.iter().filter(|other| other.view == shot.view).max_by(|a, b| {
        // The last of equals wins a `max`: the first shall.
        a.good.total_cmp(&b.good).then(std::cmp::Ordering::Greater)
    });
    best.is_some_and(|best| std::ptr::eq(best, shot))
}

/// Ten times what the gate asks.
const ENOUGH_SHARPNESS: f32 = 50.0;
/// Of a chip of 112 pixels, the eyes are 35 apart: more is thrown away.
const ENOUGH_EYES_PX: f32 = 60.0;

#[cfg(test)]
mod tests {
    use super::super::tests::{mixed, template};
    use super::*;

    fn shot(template: Template, view: View, sharpness: f32) -> Shot {
        Shot::new(template, view, &Quality { sharpness, eye_distance_px: 40.0, ..Quality::default() })
    }

    #[test]
    fn the_best_of_each_view_comes_first_and_the_front_before_all() {
        let shots = [
            shot(template(1), View::Left, 9.0),
            shot(template(2), View::Front, 10.0),
            shot(template(3), View::Front, 30.0),
            shot(template(4), View::Left, 20.0),
        ];
        let chosen = choose(&shots, 2);
        assert_eq!(chosen, [template(3), template(4)]);
        assert_eq!(choose(&shots, 8).len(), 4);
        assert!(choose(&[], 5).is_empty());
    }

    #[test]
    fn of_equally_good_ones_the_least_alike_are_kept() {
        // Two are nearly the first one again.
        let first = template(1);
        let shots = [
            shot(first, View::Front, 9.0),
            shot(mixed(1, 2, 0.1), View::Front, 8.0),
            shot(mixed(1, 2, 0.2), View::Front, 8.0),
            shot(template(7), View::Front, 8.0),
        ];
        assert_eq!(choose(&shots, 2), [first, template(7)]);
    }
}

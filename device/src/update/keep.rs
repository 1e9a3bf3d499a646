//! Chips of the person who is being enrolled, from the first view to the last.

use facelatch_shared::align::CHIP_BYTES;
use facelatch_shared::gallery::MAX_CHIPS;

use super::chip;

/// The chips of the views taken so far, and that of the frame that is being dealt with. Bounded by the views of an enrolment.
#[derive(Debug, Default)]
pub struct ChipsKept {
    taken: Vec<Vec<u8>>,
    present: Option<Box<[u8; CHIP_BYTES]>>,
}

impl ChipsKept {
    /// The chip of the frame that is dealt with next, where the looking thread sent one.
    pub fn offer(&mut self, chip: Option<Box<[u8; CHIP_BYTES]>>) {
        self.present = chip;
    }

    /// The frame was dealt with: there were `before` views taken, and now there are `after`.
    pub fn settle(&mut self, before: usize, after: usize) {
        if after < before || after == 0 {
            self.taken.clear();
        }
        let chip = self.present.take();
        if after > before
            && let Some(bytes) = chip.and_then(|chip| chip::encode(&chip))
        {
            self.taken.push(bytes);
        }
    }

    /// The last view was taken, from the frame that is being dealt with: the chips to keep, at most [`MAX_CHIPS`], spread over the enrolment.
    pub fn take(&mut self) -> Vec<Vec<u8>> {
        let last = self.present.take().and_then(|chip| chip::encode(&chip));
        let mut all = std::mem::take(&mut self.taken);
        all.extend(last);
        let count = all.len();
        if count <= MAX_CHIPS {
            return all;
        }
        // First, last, and evenly between.
        let kept = |at: usize| (0..MAX_CHIPS).any(|n| n * (count - 1) / (MAX_CHIPS - 1) == at);
        all.into_iter().enumerate().filter(|(at, _)| kept(*at)).map(|(_, bytes)| bytes).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chip(light: u8) -> Option<Box<[u8; CHIP_BYTES]>> {
        Some(Box::new([light; CHIP_BYTES]))
    }

    fn lights(chips: &[Vec<u8>]) -> Vec<u8> {
        chips.iter().map(|bytes| chip::decode(bytes).unwrap()[0]).collect()
    }

    #[test]
    fn chips_of_views_are_kept_and_those_of_other_frames_are_not() {
        let mut kept = ChipsKept::default();
        for (light, before, after) in [(10, 0, 1), (20, 1, 1), (30, 1, 2), (40, 2, 3), (50, 3, 4)] {
            kept.offer(chip(light));
            kept.settle(before, after);
        }
        // A frame without a chip is no view's.
        kept.offer(None);
        kept.settle(4, 4);
        kept.offer(chip(60));
        assert_eq!(lights(&kept.take()), [10, 40, 60]);
        kept.settle(4, 0);
        assert!(kept.take().is_empty());
    }

    #[test]
    fn an_enrolment_that_ends_leaves_nothing() {
        let mut kept = ChipsKept::default();
        kept.offer(chip(10));
        kept.settle(0, 1);
        kept.settle(1, 0);
        kept.offer(chip(20));
        assert_eq!(lights(&kept.take()), [20]);
    }
}

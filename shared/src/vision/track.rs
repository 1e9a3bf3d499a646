//! Which face of this frame was which in the last one.

use crate::detection::{BoxPx, Faces, MAX_FACES};
use crate::observation::TrackId;
use crate::time::Millis;

/// Follows faces by the overlap of their boxes.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    tracks: heapless::Vec<Track, MAX_FACES>,
    started: u32,
}

#[derive(Clone, Copy, Debug)]
struct Track {
    id: TrackId,
    bbox: BoxPx,
    seen: Millis,
}

impl Tracker {
    /// Gives each of `faces`, seen at `at`, the identity of the track that it overlaps most, best pairs first, or a fresh one.
    /// A track ends after [`MEMORY_MS`] without a face. Identities start at 1 and wrap after 2³² faces.
    pub fn update(&mut self, faces: &Faces, at: Millis) -> heapless::Vec<TrackId, MAX_FACES> {
        self.tracks.retain(|track| at.since(track.seen) <= MEMORY_MS);
        let mut assigned = [None; MAX_FACES];
        let mut taken = [false; MAX_FACES];
        while let Some((face, track)) = self.best_pair(faces, &assigned, &taken) {
            assigned[face] = Some(track);
            taken[track] = true;
        }
        let mut ids = heapless::Vec::new();
        let mut next: heapless::Vec<Track, MAX_FACES> = heapless::Vec::new();
        for (face, track) in faces.iter().zip(assigned) {
            let id = match track {
                Some(index) => self.tracks[index].id,
                None => self.fresh(),
            };
            // Both hold MAX_FACES, as `faces` does.
            let _ = ids.push(id);
            let _ = next.push(Track { id, bbox: face.bbox, seen: at });
        }
        for (track, taken) in self.tracks.iter().zip(taken) {
            if !taken && next.push(*track).is_err() {
                break;
            }
        }
        self.tracks = next;
        ids
    }

    fn fresh(&mut self) -> TrackId {
        self.started = self.started.wrapping_add(1);
        TrackId(self.started)
    }

    /// The unassigned face and free track that overlap most, at least [`MIN_OVERLAP`].
    fn best_pair(
        &self,
        faces: &Faces,
        assigned: &[Option<usize>; MAX_FACES],
        taken: &[bool; MAX_FACES],
    ) -> Option<(usize, usize)> {
        let mut best = None;
        let mut most = MIN_OVERLAP;
        for (f, face) in faces.iter().enumerate().filter(|(f, _)| assigned[*f].is_none()) {
            for (t, track) in self.tracks.iter().enumerate().filter(|(t, _)| !taken[*t]) {
                let overlap = face.bbox.iou(&track.bbox);
                if overlap >= most {
                    (best, most) = (Some((f, t)), overlap);
                }
            }
        }
        best
    }
}

/// Least overlap (intersection over union) of one face's boxes in consecutive frames.
pub const MIN_OVERLAP: f32 = 0.3;

/// How long a face may be out of sight and keep its identity, in milliseconds. Short, so that nobody inherits another's track
/// by stepping into the same place.
pub const MEMORY_MS: u64 = 400;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detection::{Detection, Landmarks5};

    fn faces(xs: &[f32]) -> Faces {
        let face = |&x: &f32| Detection {
            bbox: BoxPx { x, y: 0.0, w: 100.0, h: 100.0 },
            landmarks: Landmarks5::default(),
            score: 0.9,
        };
        xs.iter().map(face).collect()
    }

    #[test]
    fn a_moving_face_keeps_its_identity_and_a_jump_does_not() {
        let mut tracker = Tracker::default();
        let first = tracker.update(&faces(&[0.0]), Millis(0))[0];
        assert_eq!(tracker.update(&faces(&[40.0]), Millis(33))[0], first);
        assert_eq!(tracker.update(&faces(&[80.0]), Millis(66))[0], first);
        assert_ne!(tracker.update(&faces(&[200.0]), Millis(99))[0], first);
    }

    #[test]
    fn order_of_detections_does_not_matter() {
        let mut tracker = Tracker::default();
        let ids = tracker.update(&faces(&[0.0, 150.0]), Millis(0));
        let swapped = tracker.update(&faces(&[145.0, 5.0]), Millis(33));
        assert_eq!([swapped[1], swapped[0]], [ids[0], ids[1]]);
    }

    #[test]
    fn the_best_overlap_wins_when_two_faces_claim_one_track() {
        let mut tracker = Tracker::default();
        let first = tracker.update(&faces(&[0.0]), Millis(0))[0];
        let both = tracker.update(&faces(&[45.0, 5.0]), Millis(33));
        assert_eq!(both[1], first);
        assert!(both[0] > first);
    }

    #[test]
    fn a_short_absence_is_forgiven_and_a_long_one_not() {
        let mut tracker = Tracker::default();
        let first = tracker.update(&faces(&[0.0]), Millis(0))[0];
        assert!(tracker.update(&faces(&[]), Millis(200)).is_empty());
        assert_eq!(tracker.update(&faces(&[0.0]), Millis(MEMORY_MS))[0], first);
        assert!(tracker.update(&faces(&[0.0]), Millis(2 * MEMORY_MS + 1))[0] > first);
    }

    #[test]
    fn crowds_are_bounded_and_identities_not_reused() {
        let mut tracker = Tracker::default();
        let mut last = TrackId(0);
        for frame in 0..50 {
            let at = frame as f32 * 5000.0;
            let crowd: Vec<f32> = (0..MAX_FACES).map(|i| at + i as f32 * 200.0).collect();
            for id in tracker.update(&faces(&crowd), Millis(frame * 10)) {
                assert!(id > last);
                last = id;
            }
        }
    }
}

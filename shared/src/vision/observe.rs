//! One frame to one [`Observation`]: detect, track, align, measure, embed.

use std::path::Path;
use std::time::Instant;

use super::chip::{ChipCutter, FindFiducials};
use super::contract::{Alignment, AlignmentMethod, Manifest, ManifestEntry, ModelKind};
use super::detect::Detector;
use super::embed::{Embedder, binding, binding_with};
use super::error::VisionError;
use super::fiducials::FiducialFinder;
use super::track::Tracker;
use crate::align::{AlignError, CHIP_BYTES, Fiducials68, warp_chip};
use crate::detection::{Detection, Faces, Landmarks5};
use crate::embedding::{Embedding, ModelBinding};
use crate::frame::RgbView;
use crate::observation::{Observation, Probe, StageTimings, TrackId};
use crate::quality::{Gate, Head, Quality, Unusable};
use crate::score::Threshold;
use crate::time::Millis;

/// The pipeline with its models loaded and its buffers allocated.
#[derive(Debug)]
pub struct Eyes {
    detector: Detector,
    fiducials: Option<FiducialFinder>,
    embedder: Embedder,
    gate: Gate,
    tracker: Tracker,
    cutter: ChipCutter,
    chip: Box<[u8; CHIP_BYTES]>,
    models: Vec<ManifestEntry>,
    binding: ModelBinding,
}

impl Eyes {
    /// Loads the models called `detector` and `embedder` from the manifest in `dir`. Frames are shrunk to at most
    /// `detector_input` (width, height) before detection; 320×240 suits a camera of 640×480.
    ///
    /// # Errors
    /// [`VisionError`], naming the file and the remedy.
    pub fn load(
        dir: &Path,
        detector: &str,
        embedder: &str,
        gate: Gate,
        detector_input: (usize, usize),
    ) -> Result<Self, VisionError> {
        let manifest = Manifest::load(dir)?;
        let detector = manifest.find(dir, detector, ModelKind::Detector)?.clone();
        let embedder = manifest.find(dir, embedder, ModelKind::Embedder)?.clone();
        Ok(Self {
            detector: Detector::load(dir, &detector, detector_input)?,
            fiducials: None,
            embedder: Embedder::load(dir, &embedder)?,
            gate,
            tracker: Tracker::default(),
            cutter: ChipCutter::new(embedder.contract.alignment.unwrap_or(Alignment::ARCFACE_112)),
            chip: Box::new([0; CHIP_BYTES]),
            binding: binding(&embedder),
            models: vec![detector, embedder],
        })
    }

    /// Cuts chips by `method` instead of what the embedder's contract says: to measure what alignment is worth. Templates are bound to it.
    #[must_use]
    pub fn with_alignment(mut self, method: AlignmentMethod) -> Self {
        let alignment = Alignment { method, ..self.cutter.alignment() };
        self.cutter = ChipCutter::new(alignment);
        self.models[1].contract.alignment = Some(alignment);
        self.binding = binding_with(&self.models[1], self.models.get(2));
        self
    }

    /// How chips are cut.
    #[must_use]
    pub const fn alignment(&self) -> Alignment {
        self.cutter.alignment()
    }

    /// Looks for the fiducials of each attended face too, with the net called `name`: the gate then knows pose and occlusion.
    ///
    /// # Errors
    /// [`VisionError`], naming the file and the remedy.
    pub fn with_fiducials(mut self, dir: &Path, name: &str) -> Result<Self, VisionError> {
        let entry = Manifest::load(dir)?.find(dir, name, ModelKind::Fiducials)?.clone();
        self.fiducials = Some(FiducialFinder::load(dir, &entry)?);
        self.binding = binding_with(&self.models[1], Some(&entry));
        self.models.push(entry);
        Ok(self)
    }

    /// Looks at frame number `seq`, taken `at`. The door attends to one face ([`attend`]). `decode_us` and `match_us` stay zero: those
    /// stages are the caller's.
    ///
    /// # Errors
    /// [`VisionError`] when a network fails on this frame; the next frame starts afresh. A frame without a usable face is not an
    /// error but an observation that says why.
    pub fn observe(&mut self, frame: &RgbView<'_>, seq: u64, at: Millis) -> Result<Observation, VisionError> {
        let mut timings = StageTimings::default();
        let faces = timed(&mut timings.detect_us, || self.detector.find(frame))?;
        let tracks = timed(&mut timings.quality_us, || self.tracker.update(&faces, at));
        let attended = match attend(&faces, frame.width_px()) {
            Ok(index) => self.probe(frame, &faces[index], tracks[index], &mut timings)?,
            Err(reason) => Err(reason),
        };
        Ok(Observation {
            frame_seq: seq,
            at,
            width_px: frame.width_px() as u16,
            height_px: frame.height_px() as u16,
            faces,
            attended,
            timings,
        })
    }

    /// Looks at one picture that no camera took: the same face, gate and chip as [`observe`](Self::observe), and no track is touched.
    ///
    /// # Errors
    /// [`VisionError`] when a network fails on it.
    pub fn look(&mut self, picture: &RgbView<'_>) -> Result<Result<Probe, Unusable>, VisionError> {
        let faces = self.detector.find(picture)?;
        match attend(&faces, picture.width_px()) {
            Ok(index) => self.probe(picture, &faces[index], TrackId(0), &mut StageTimings::default()),
            Err(reason) => Ok(Err(reason)),
        }
    }

    /// Every face in `frame`, best score first. No tracking, no gate.
    ///
    /// # Errors
    /// [`VisionError::Model`] when the detector fails.
    pub fn find(&mut self, frame: &RgbView<'_>) -> Result<Faces, VisionError> {
        self.detector.find(frame)
    }

    /// Embeds the face at `landmarks`, however poor it is.
    ///
    /// # Errors
    /// [`VisionError::Align`] when the landmarks admit no chip, otherwise as the embedder.
    pub fn embed_at(
        &mut self,
        frame: &RgbView<'_>,
        landmarks: &Landmarks5,
    ) -> Result<Embedding, VisionError> {
        let finder = self.fiducials.as_mut().map(|finder| finder as &mut dyn FindFiducials);
        self.cutter.cut(frame, landmarks, finder, &mut self.chip)?;
        self.embedder.embed(&self.chip)
    }

    /// The fiducials of the face at `landmarks`; `None` without a net for them.
    ///
    /// # Errors
    /// As [`FiducialFinder::find`].
    pub fn fiducials_at(
        &mut self,
        frame: &RgbView<'_>,
        landmarks: &Landmarks5,
    ) -> Result<Option<Fiducials68>, VisionError> {
        let Some(finder) = &mut self.fiducials else { return Ok(None) };
        finder.find(frame, landmarks).map(|found| Some(found.fiducials))
    }

    /// Embeds a chip that was cut before.
    ///
    /// # Errors
    /// As the embedder.
    pub fn embed_chip(&mut self, chip: &[u8; CHIP_BYTES]) -> Result<Embedding, VisionError> {
        self.embedder.embed(chip)
    }

    /// The aligned chip of the last face that was looked at closely, packed RGB `[112, 112, 3]`; black before the first.
    #[must_use]
    pub fn last_chip(&self) -> &[u8; CHIP_BYTES] {
        &self.chip
    }

    /// Whether observations carry fiducials.
    #[must_use]
    pub const fn finds_fiducials(&self) -> bool {
        self.fiducials.is_some()
    }

    /// What templates made by this embedder are bound to.
    #[must_use]
    pub const fn binding(&self) -> ModelBinding {
        self.binding
    }

    /// The embedder's threshold until a calibrated one replaces it, if its manifest entry has one.
    #[must_use]
    pub fn default_threshold(&self) -> Option<Threshold> {
        self.models[1].default_threshold.map(Threshold)
    }

    /// The manifest entries of detector, embedder and, where there is one, fiducials net, in this order.
    #[must_use]
    pub fn models(&self) -> &[ManifestEntry] {
        &self.models
    }

    /// Align, measure, and embed if it is worth it.
    fn probe(
        &mut self,
        frame: &RgbView<'_>,
        detection: &Detection,
        track: TrackId,
        timings: &mut StageTimings,
    ) -> Result<Result<Probe, Unusable>, VisionError> {
        let landmarks = &detection.landmarks;
        match timed(&mut timings.align_us, || warp_chip(frame, landmarks, &mut self.chip)) {
            Ok(()) => {}
            Err(AlignError::Outside) => return Ok(Err(Unusable::TooClose)),
            Err(_) => return Ok(Err(Unusable::BadGeometry)),
        }
        let (mut quality, verdict) = timed(&mut timings.quality_us, || {
            let quality = Quality::measure(&self.chip, landmarks);
            (quality, self.gate.check(&quality, detection, frame.width_px(), frame.height_px()))
        });
        if let Err(reason) = verdict {
            return Ok(Err(reason));
        }
        let mut fiducials = None;
        if let Some(finder) = &mut self.fiducials {
            let found = match timed(&mut timings.quality_us, || finder.find(frame, landmarks)) {
                Ok(found) => found.fiducials,
                Err(VisionError::Align(_)) => return Ok(Err(Unusable::BadGeometry)),
                Err(error) => return Err(error),
            };
            let head = timed(&mut timings.quality_us, || Head::measure(&found));
            let head = head.map_err(|_| Unusable::BadGeometry);
            match head.and_then(|head| self.gate.check_head(&head).map(|()| head)) {
                Ok(head) => quality.head = Some(head),
                Err(reason) => return Ok(Err(reason)),
            }
            fiducials = Some(found);
        }
        // Quality is measured on the similarity's chip whatever the embedder reads, so that the gate means the same for all.
        if self.cutter.alignment() != Alignment::ARCFACE_112 {
            let finder = self.fiducials.as_mut().map(|finder| finder as &mut dyn FindFiducials);
            let cut =
                timed(&mut timings.align_us, || self.cutter.cut(frame, landmarks, finder, &mut self.chip));
            match cut {
                Ok(()) => {}
                Err(VisionError::Align(_)) => return Ok(Err(Unusable::BadGeometry)),
                Err(error) => return Err(error),
            }
        }
        let embedding = timed(&mut timings.embed_us, || self.embedder.embed(&self.chip))?;
        Ok(Ok(Probe { track, detection: *detection, quality, embedding, fiducials }))
    }
}

/// Which of `faces`, in a frame `width_px` wide, the door attends to: the one whose eyes are farthest apart, where a face counts for less
/// the farther it is from the middle, unless another comes near it. Sideways only: people differ in height.
///
/// # Errors
/// [`Unusable::NoFace`] for none, [`Unusable::SeveralFaces`] when a second face counts for more than [`RIVAL_SHARE`] of the first.
pub fn attend(faces: &Faces, width_px: usize) -> Result<usize, Unusable> {
    let half = (width_px as f32 / 2.0).max(1.0);
    let weight = |index: usize| {
        let aside = ((faces[index].bbox.centre().x - half) / half).abs().min(1.0);
        faces[index].landmarks.eye_distance_px() * (1.0 - EDGE_LOSS * aside)
    };
    let first = (0..faces.len()).max_by(|&a, &b| weight(a).total_cmp(&weight(b))).ok_or(Unusable::NoFace)?;
    let rivals = (0..faces.len()).any(|i| i != first && weight(i) > RIVAL_SHARE * weight(first));
    if rivals { Err(Unusable::SeveralFaces) } else { Ok(first) }
}

/// Share of the attended face's weight above which a second face makes the frame ambiguous: in the middle, somebody within about 1.7
/// times the distance of the first.
pub const RIVAL_SHARE: f32 = 0.6;

/// What a face at the picture's left or right edge loses of its weight.
pub const EDGE_LOSS: f32 = 0.3;

/// Runs `work` and adds its time to `microseconds`.
fn timed<T>(microseconds: &mut u32, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    *microseconds =
        microseconds.saturating_add(u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX));
    result
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;
    use crate::detection::{BoxPx, Point};

    /// A face whose chip's corner is at the bright cell: landmarks of the canonical chip, in cells of 32 px.
    fn kps() -> [f32; 10] {
        core::array::from_fn(|i| {
            let p = crate::align::CANONICAL_112.0[i / 2];
            (if i % 2 == 0 { p.x } else { p.y }) / 32.0
        })
    }

    fn eyes(gate: Gate) -> Eyes {
        let dir = tempfile::tempdir().unwrap();
        // A box of 112 px from the cell's corner.
        let side = (112.0_f32 / 32.0).ln();
        let detector = testing::bright_cell_detector(32, [1.75, 1.75, side, side], kps());
        let embedder = testing::colour_embedder(128);
        testing::write_models(
            dir.path(),
            &[
                (testing::detector_entry("cells", &detector), detector),
                (testing::entry("colours", &embedder), embedder),
            ],
        );
        Eyes::load(dir.path(), "cells", "colours", gate, (320, 256)).unwrap()
    }

    /// Grey noise with bright cells of 32 px at `corners`.
    fn scene(corners: &[(usize, usize)]) -> Vec<u8> {
        let mut pixels: Vec<u8> = (0..320 * 256).flat_map(|i| [60 + (i * 7919 % 97) as u8; 3]).collect();
        for (x, y) in corners {
            for row in *y..y + 32 {
                pixels[(row * 320 + x) * 3..(row * 320 + x + 32) * 3].fill(255);
            }
        }
        pixels
    }

    fn look(eyes: &mut Eyes, pixels: &[u8], seq: u64) -> Observation {
        eyes.observe(&RgbView::new(pixels, 320, 256).unwrap(), seq, Millis(seq * 33)).unwrap()
    }

    #[test]
    fn one_face_becomes_a_probe_with_a_lasting_track() {
        let mut eyes = eyes(Gate::default());
        let first = look(&mut eyes, &scene(&[(96, 64)]), 1);
        let probe = first.attended.unwrap();
        assert_eq!((first.frame_seq, first.at, first.width_px, first.height_px), (1, Millis(33), 320, 256));
        assert_eq!(first.faces.len(), 1);
        assert!((probe.quality.eye_distance_px - 35.2).abs() < 0.1);
        assert!(first.timings.detect_us > 0 && first.timings.align_us > 0 && first.timings.embed_us > 0);
        assert_eq!((first.timings.decode_us, first.timings.match_us), (0, 0));
        let second = look(&mut eyes, &scene(&[(96, 64)]), 2).attended.unwrap();
        assert_eq!(second.track, probe.track);
        assert!(second.embedding.similarity(&probe.embedding).0 > 0.99999);
        let view_pixels = scene(&[(96, 64)]);
        let view = RgbView::new(&view_pixels, 320, 256).unwrap();
        let landmarks = eyes.find(&view).unwrap()[0].landmarks;
        let ungated = eyes.embed_at(&view, &landmarks).unwrap();
        assert!(ungated.similarity(&probe.embedding).0 > 0.99999);
    }

    #[test]
    fn frames_without_one_usable_face_say_why() {
        let mut open = eyes(Gate::default());
        assert_eq!(look(&mut open, &scene(&[]), 1).attended.unwrap_err(), Unusable::NoFace);
        let two = look(&mut open, &scene(&[(0, 64), (192, 64)]), 2);
        assert_eq!((two.faces.len(), two.attended.unwrap_err()), (2, Unusable::SeveralFaces));
        assert_eq!(look(&mut open, &scene(&[(288, 64)]), 3).attended.unwrap_err(), Unusable::TooClose);

        let mut strict = eyes(Gate { min_eye_distance_px: 50.0, ..Gate::default() });
        let far = look(&mut strict, &scene(&[(96, 64)]), 1);
        assert_eq!(far.attended.unwrap_err(), Unusable::TooSmall);
        assert_eq!(far.timings.embed_us, 0, "a refused face is not embedded");
    }

    #[test]
    fn a_far_second_face_does_not_disturb_and_one_in_the_middle_counts_for_more() {
        let face = |&(x, eyes): &(f32, f32)| {
            let mut landmarks = Landmarks5([Point::new(x, 50.0); 5]);
            landmarks.0[1].x += eyes;
            let bbox = BoxPx { x: x - eyes, y: 0.0, w: 2.0 * eyes, h: 3.0 * eyes };
            Detection { bbox, landmarks, score: 0.9 }
        };
        let chosen = |faces: &[(f32, f32)]| attend(&faces.iter().map(face).collect(), 640);
        assert_eq!(chosen(&[]), Err(Unusable::NoFace));
        assert_eq!(chosen(&[(320.0, 20.0), (300.0, 40.0), (340.0, 10.0)]), Ok(1));
        assert_eq!(chosen(&[(320.0, 25.0), (300.0, 40.0)]), Err(Unusable::SeveralFaces));
        assert_eq!(chosen(&[(40.0, 40.0), (600.0, 40.0)]), Err(Unusable::SeveralFaces));
        // The same two sizes: at the edge the second is passed over, and whoever stands in the middle is attended to.
        assert_eq!(chosen(&[(630.0, 25.0), (320.0, 40.0)]), Ok(1));
        assert_eq!(chosen(&[(320.0, 30.0), (0.0, 25.0)]), Ok(0));
        assert_eq!(attend(&[(0.0, f32::NAN)].iter().map(face).collect(), 0), Ok(0));
    }

    #[test]
    fn models_and_binding_are_those_of_the_manifest() {
        let eyes = eyes(Gate::OPEN);
        assert_eq!(eyes.models().iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["cells", "colours"]);
        assert_eq!(eyes.binding(), binding(&eyes.models()[1]));
        assert_eq!(eyes.default_threshold(), Some(Threshold(0.5)));
    }

    #[test]
    fn another_alignment_gives_other_chips_and_another_binding() {
        let pixels = scene(&[(96, 64)]);
        let view = RgbView::new(&pixels, 320, 256).unwrap();
        let mut seen = Vec::new();
        for method in AlignmentMethod::ALL {
            let mut eyes = eyes(Gate::default()).with_alignment(method);
            let landmarks = eyes.find(&view).unwrap()[0].landmarks;
            let alone = eyes.embed_at(&view, &landmarks).unwrap();
            let probe = eyes.observe(&view, 1, Millis(0)).unwrap().attended.unwrap();
            assert!(
                probe.embedding.similarity(&alone).0 > 0.99999,
                "door and evaluator cut alike by {method:?}"
            );
            assert_eq!(eyes.alignment().method, method);
            seen.push((eyes.binding(), eyes.last_chip().to_vec()));
        }
        assert_eq!(seen[1].0, eyes(Gate::default()).binding(), "similarity is the default");
        for (i, (binding, chip)) in seen.iter().enumerate() {
            assert!(seen[..i].iter().all(|(b, _)| b != binding));
            assert!(i != 3 || seen[..i].iter().all(|(_, c)| c != chip), "the frontal view is another chip");
        }
    }

    #[test]
    fn a_model_of_the_wrong_kind_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = testing::colour_embedder(128);
        testing::write_models(dir.path(), &[(testing::entry("colours", &bytes), bytes)]);
        let said =
            Eyes::load(dir.path(), "colours", "colours", Gate::OPEN, (320, 240)).unwrap_err().to_string();
        assert!(said.contains("kind embedder") && said.contains("detector"), "{said}");
    }

    /// The imported models, if there are any: `facelatch models import` puts them into target/models.
    fn imported() -> Option<Eyes> {
        let dir = std::env::var_os("FACELATCH_MODELS")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/models"), Into::into);
        if !dir.join(crate::vision::contract::MANIFEST_FILE).exists() {
            eprintln!("SKIPPED: no models in {}; run `facelatch models import`", dir.display());
            return None;
        }
        Some(Eyes::load(&dir, "yunet", "sface", Gate::default(), (320, 240)).unwrap())
    }

    #[test]
    fn imported_models_see_no_face_where_there_is_none() {
        let Some(mut eyes) = imported() else { return };
        for level in [0_u8, 128, 255] {
            let pixels: Vec<u8> = (0..640 * 480 * 3_usize).map(|i| level ^ (i * 7919 % 13) as u8).collect();
            let seen = eyes.observe(&RgbView::new(&pixels, 640, 480).unwrap(), 1, Millis(0)).unwrap();
            assert_eq!(seen.attended.unwrap_err(), Unusable::NoFace);
        }
    }

    #[test]
    fn imported_embedder_depends_on_the_chip_and_on_nothing_else() {
        let Some(mut eyes) = imported() else { return };
        let mut embed = |seed: usize| {
            let pixels: Vec<u8> = (0..CHIP_BYTES).map(|i| ((i + seed) * 7919 % 251) as u8).collect();
            eyes.embed_at(&RgbView::new(&pixels, 112, 112).unwrap(), &crate::align::CANONICAL_112).unwrap()
        };
        let (first, other, again) = (embed(0), embed(1000), embed(0));
        assert_eq!(first.values(), again.values());
        assert!(first.similarity(&other).0 < 0.999);
    }
}

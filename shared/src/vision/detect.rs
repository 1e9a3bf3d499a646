//! Faces by YuNet: Wu, Peng, Yu 2023, "YuNet: a tiny millisecond-level face detector", anchor-free heads on strides 8, 16 and 32.

use std::path::Path;

use super::contract::{InputContract, ManifestEntry};
use super::error::VisionError;
use super::letterbox::{Letterbox, Placement};
use super::runtime::{Network, values};
use crate::detection::{BoxPx, Detection, Faces, Landmarks5, Point, suppress};
use crate::frame::RgbView;

/// Confidence below which a face is not one.
pub const MIN_SCORE: f32 = 0.7;

/// Overlap (intersection over union) above which two boxes are one face.
pub const MAX_OVERLAP: f32 = 0.3;

/// A loaded detector.
#[derive(Debug)]
pub struct Detector {
    network: Network,
    contract: InputContract,
    letterbox: Letterbox,
    heads: [Head; STRIDES.len()],
    min_score: f32,
    candidates: Vec<Detection>,
}

/// One stride's four outputs, by position.
#[derive(Clone, Copy, Debug)]
struct Head {
    stride: usize,
    rows: usize,
    columns: usize,
    class: usize,
    object: usize,
    bbox: usize,
    landmarks: usize,
}

impl Detector {
    /// Loads the detector for frames shrunk to at most `width_px`×`height_px`, rounded up to the contract's multiple.
    ///
    /// # Errors
    /// [`VisionError`] naming the file; [`VisionError::DetectorInput`] for a size out of range, [`VisionError::Shape`] when the
    /// twelve outputs `cls_8` … `kps_32` are not there with one row a cell.
    pub fn load(
        dir: &Path,
        entry: &ManifestEntry,
        (width_px, height_px): (usize, usize),
    ) -> Result<Self, VisionError> {
        if [width_px, height_px].iter().any(|side| !(LEAST_SIDE_PX..=MOST_SIDE_PX).contains(side)) {
            let (least_px, most_px) = (LEAST_SIDE_PX, MOST_SIDE_PX);
            return Err(VisionError::DetectorInput { width_px, height_px, least_px, most_px });
        }
        // Every stride must divide the input, whatever the manifest says.
        let multiple = entry.contract.pad_multiple_px.unwrap_or(1).max(1);
        let round_up = |side: usize| {
            let side = side.next_multiple_of(multiple);
            if side.is_multiple_of(STRIDES[2]) { side } else { side.next_multiple_of(multiple * STRIDES[2]) }
        };
        let (width_px, height_px) = (round_up(width_px), round_up(height_px));
        let network = Network::load(dir, entry, width_px, height_px)?;
        let heads = Head::find_all(&network, width_px, height_px)?;
        let cells = heads.iter().map(|head| head.rows * head.columns).sum();
        Ok(Self {
            network,
            contract: entry.contract,
            letterbox: Letterbox::new(width_px, height_px),
            heads,
            min_score: MIN_SCORE,
            candidates: Vec::with_capacity(cells),
        })
    }

    /// Takes fainter faces too, or only surer ones, than [`MIN_SCORE`]: for measurements.
    #[must_use]
    pub const fn with_min_score(mut self, min_score: f32) -> Self {
        self.min_score = min_score;
        self
    }

    /// Every face in `frame`, in frame pixels, best score first.
    ///
    /// # Errors
    /// [`VisionError::Model`] when the network fails.
    pub fn find(&mut self, frame: &RgbView<'_>) -> Result<Faces, VisionError> {
        let placement = self.letterbox.fill(frame, &self.contract, self.network.input_mut()?);
        let outputs = self.network.run()?;
        self.candidates.clear();
        for head in &self.heads {
            let raw = RawHead {
                class: values(&outputs[head.class]),
                object: values(&outputs[head.object]),
                bbox: values(&outputs[head.bbox]),
                landmarks: values(&outputs[head.landmarks]),
            };
            head.decode(&raw, placement, self.min_score, &mut self.candidates);
        }
        Ok(suppress(&mut self.candidates, MAX_OVERLAP))
    }
}

/// One stride's outputs for `n` cells: class and object `[n]`, box `[n, 4]`, landmarks `[n, 10]`.
struct RawHead<'a> {
    class: &'a [f32],
    object: &'a [f32],
    bbox: &'a [f32],
    landmarks: &'a [f32],
}

impl Head {
    fn find_all(
        network: &Network,
        width_px: usize,
        height_px: usize,
    ) -> Result<[Self; STRIDES.len()], VisionError> {
        let locate = |name: &str, stride: usize, width: usize| {
            let name = format!("{name}_{stride}");
            let expected = (height_px / stride) * (width_px / stride) * width;
            match network.outputs().enumerate().find(|(_, (output, _))| *output == name) {
                None => Err(network.shape_error(format!("there is no output \"{name}\""))),
                Some((index, (_, shape))) if shape.iter().product::<usize>() == expected => Ok(index),
                Some((_, (_, shape))) => Err(network
                    .shape_error(format!("output \"{name}\" is {shape:?} instead of {expected} values"))),
            }
        };
        let mut heads = [None; STRIDES.len()];
        for (head, stride) in heads.iter_mut().zip(STRIDES) {
            *head = Some(Self {
                stride,
                rows: height_px / stride,
                columns: width_px / stride,
                class: locate("cls", stride, 1)?,
                object: locate("obj", stride, 1)?,
                bbox: locate("bbox", stride, 4)?,
                landmarks: locate("kps", stride, 10)?,
            });
        }
        // Every element was just filled in, or the function has returned.
        Ok(heads.map(|head| head.unwrap_or_else(|| unreachable!("filled above"))))
    }

    /// Appends the cells whose score √(class · object) reaches `min_score`. With cell (column, row) and stride s: the
    /// box is centred on ((column + dx)·s, (row + dy)·s) with sides (exp(dw)·s, exp(dh)·s), landmark k lies at
    /// ((column + kx)·s, (row + ky)·s).
    fn decode(&self, raw: &RawHead<'_>, placement: Placement, min_score: f32, into: &mut Vec<Detection>) {
        let scale = self.stride as f32;
        let cells = raw
            .class
            .iter()
            .zip(raw.object)
            .zip(raw.bbox.as_chunks::<4>().0.iter().zip(raw.landmarks.as_chunks::<10>().0));
        for (cell, ((class, object), (bbox, points))) in cells.enumerate() {
            let score = (class.clamp(0.0, 1.0) * object.clamp(0.0, 1.0)).sqrt();
            // A score that is not a number is no face.
            if score.is_nan() || score < min_score {
                continue;
            }
            let (column, row) = ((cell % self.columns) as f32, (cell / self.columns) as f32);
            let (w, h) = (bbox[2].exp() * scale, bbox[3].exp() * scale);
            let (x, y) = ((column + bbox[0]) * scale - w * 0.5, (row + bbox[1]) * scale - h * 0.5);
            let landmarks = Landmarks5(core::array::from_fn(|k| {
                Point::new((column + points[2 * k]) * scale, (row + points[2 * k + 1]) * scale)
            }));
            into.push(placement.detection(&Detection { bbox: BoxPx { x, y, w, h }, landmarks, score }));
        }
    }
}

const STRIDES: [usize; 3] = [8, 16, 32];
const LEAST_SIDE_PX: usize = 64;
const MOST_SIDE_PX: usize = 2048;

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    const BOX: [f32; 4] = [0.5, 0.25, 0.7, 1.1];
    const POINTS: [f32; 10] = [0.0, 0.0, 1.0, 0.0, 0.5, 0.5, 0.25, 1.0, 0.75, 1.0];

    fn detector(dir: &Path, stride: usize, input: (usize, usize)) -> Result<Detector, VisionError> {
        let bytes = testing::bright_cell_detector(stride, BOX, POINTS);
        let entry = testing::detector_entry("cells", &bytes);
        testing::write_models(dir, &[(entry.clone(), bytes)]);
        Detector::load(dir, &entry, input)
    }

    /// Black, with the square `side` × `side` at (x, y) white.
    fn spot(frame: (usize, usize), x: usize, y: usize, side: usize) -> Vec<u8> {
        let mut pixels = vec![0; frame.0 * frame.1 * 3];
        for row in y..y + side {
            pixels[(row * frame.0 + x) * 3..(row * frame.0 + x + side) * 3].fill(255);
        }
        pixels
    }

    fn close(a: f32, b: f32) -> bool {
        (a - b).abs() < 1e-3
    }

    #[test]
    fn a_cell_is_decoded_where_it_lies_on_every_stride() {
        let dir = tempfile::tempdir().unwrap();
        for stride in STRIDES {
            let mut detector = detector(dir.path(), stride, (128, 96)).unwrap();
            let (column, row) = (2, 1);
            let pixels = spot((128, 96), column * stride, row * stride, stride);
            let faces = detector.find(&RgbView::new(&pixels, 128, 96).unwrap()).unwrap();
            assert_eq!(faces.len(), 1);
            let (face, s) = (faces[0], stride as f32);
            assert!(close(face.score, 1.0));
            assert!(close(face.bbox.centre().x, (2.0 + BOX[0]) * s));
            assert!(close(face.bbox.centre().y, (1.0 + BOX[1]) * s));
            assert!(close(face.bbox.w, BOX[2].exp() * s) && close(face.bbox.h, BOX[3].exp() * s));
            for (k, p) in face.landmarks.0.iter().enumerate() {
                assert!(close(p.x, (2.0 + POINTS[2 * k]) * s) && close(p.y, (1.0 + POINTS[2 * k + 1]) * s));
            }
        }
    }

    #[test]
    fn a_larger_frame_gives_the_same_face_in_its_own_pixels() {
        let dir = tempfile::tempdir().unwrap();
        let mut detector = detector(dir.path(), 16, (160, 128)).unwrap();
        // Halved, a spot of 32 px fills one cell of 16.
        let pixels = spot((320, 240), 96, 64, 32);
        let faces = detector.find(&RgbView::new(&pixels, 320, 240).unwrap()).unwrap();
        assert_eq!(faces.len(), 1);
        assert!(close(faces[0].bbox.w, BOX[2].exp() * 32.0));
        // Input pixel u covers frame pixels 2u and 2u + 1, whose centre is 2u + 0.5.
        assert!(close(faces[0].landmarks.0[0].x, 96.5) && close(faces[0].landmarks.0[0].y, 64.5));
    }

    #[test]
    fn dim_cells_are_no_faces() {
        let dir = tempfile::tempdir().unwrap();
        let mut detector = detector(dir.path(), 8, (64, 64)).unwrap();
        for (level, found) in [(170, 0), (185, 1)] {
            let mut pixels = spot((64, 64), 16, 16, 8);
            pixels.iter_mut().for_each(|v| *v = (*v).min(level));
            let faces = detector.find(&RgbView::new(&pixels, 64, 64).unwrap()).unwrap();
            assert_eq!(faces.len(), found, "level {level}");
        }
    }

    #[test]
    fn numbers_that_are_not_finite_are_no_faces() {
        let head = Head { stride: 8, rows: 1, columns: 4, class: 0, object: 0, bbox: 0, landmarks: 0 };
        let mut bbox = [0.0; 16];
        bbox[2] = 1e9;
        let mut points = [0.0; 40];
        points[15] = f32::NAN;
        let raw = RawHead {
            class: &[1.0, 1.0, f32::NAN, 1.0],
            object: &[1.0, 1.0, 1.0, f32::NAN],
            bbox: &bbox,
            landmarks: &points,
        };
        let mut found = Vec::new();
        let pixels = [0; 3];
        let contract = testing::detector_entry("x", b"").contract;
        let placement =
            Letterbox::new(1, 1).fill(&RgbView::new(&pixels, 1, 1).unwrap(), &contract, &mut [0.0; 3]);
        head.decode(&raw, placement, MIN_SCORE, &mut found);
        assert_eq!(found.len(), 2, "cells whose score is not a number are skipped");
        assert!(
            suppress(&mut found, MAX_OVERLAP).is_empty(),
            "an infinite box and a NaN landmark are dropped"
        );
    }

    #[test]
    fn another_network_is_refused_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = testing::colour_embedder(128);
        let entry = testing::detector_entry("colours", &bytes);
        testing::write_models(dir.path(), &[(entry.clone(), bytes)]);
        let said = Detector::load(dir.path(), &entry, (320, 240)).unwrap_err().to_string();
        assert!(said.contains("colours.onnx") && said.contains("no output \"cls_8\""), "{said}");
        let said = Detector::load(dir.path(), &entry, (0, 240)).unwrap_err().to_string();
        assert!(said.contains("0x240"), "{said}");
    }
}

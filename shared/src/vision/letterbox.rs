//! A frame of any size onto the detector's fixed input, and coordinates back.
//!
//! The frame keeps its aspect ratio, sits in the upper left corner, is never enlarged, and is padded with black to the right and
//! below, as OpenCV's FaceDetectorYN pads. Shrinking averages the area that each input pixel covers, so that a distant face does not
//! alias away between samples.

use core::ops::Range;

use super::contract::{ChannelOrder, InputContract};
use crate::detection::{BoxPx, Detection, Landmarks5, Point};
use crate::frame::RgbView;

/// Scales frames into planes of one fixed size. Buffers are kept as long as the frame size stays the same.
#[derive(Debug)]
pub struct Letterbox {
    width_px: usize,
    height_px: usize,
    plan: Option<Plan>,
}

/// What depends on the frame's size.
#[derive(Debug)]
struct Plan {
    frame_px: (usize, usize),
    columns: Axis,
    rows: Axis,
    /// Source pixels a target pixel on both axes, if that is a whole number and sums fit 16 bits.
    whole: Option<usize>,
    /// One line of the frame's width, packed RGB: sums over the rows that an input row covers, for whole ratios.
    sums: Vec<u16>,
    /// The same averaged, for other ratios.
    line: Vec<f32>,
}

/// How one axis is shrunk: each target pixel is a weighted sum over a run of source pixels.
#[derive(Debug)]
struct Axis {
    /// First source pixel, and where its weights begin and end.
    runs: Vec<(usize, usize, usize)>,
    weights: Vec<f32>,
    /// Source pixels a target pixel, at least 1.
    ratio: f32,
}

/// Brings coordinates of the input back to the frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placement {
    ratio_x: f32,
    ratio_y: f32,
}

impl Letterbox {
    /// For an input of `width_px`×`height_px`.
    #[must_use]
    pub const fn new(width_px: usize, height_px: usize) -> Self {
        Self { width_px, height_px, plan: None }
    }

    /// Writes `frame` into `planes`, `[3, height_px, width_px]`, normalised as `contract` says. `planes` must hold what the
    /// previous call left there: padding is written only when the frame's size changes.
    pub fn fill(&mut self, frame: &RgbView<'_>, contract: &InputContract, planes: &mut [f32]) -> Placement {
        let frame_px = (frame.width_px(), frame.height_px());
        let plane_len = self.width_px * self.height_px;
        let same = self.plan.take().filter(|plan| plan.frame_px == frame_px);
        let mut plan = same.unwrap_or_else(|| {
            for (plane, values) in planes.chunks_exact_mut(plane_len).enumerate() {
                values.fill(-contract.mean[plane] * contract.scale[plane]);
            }
            Plan::new(frame_px, (self.width_px, self.height_px))
        });
        for row in 0..plan.rows.runs.len() {
            let at = row * self.width_px..row * self.width_px + plan.columns.runs.len();
            if let Some(side) = plan.whole {
                plan.sum_rows(frame, row, side);
                let share = 1.0 / (side * side) as f32;
                if side == 2 {
                    // The common case, 640 to 320, with a length known to the compiler.
                    let cells = plan.sums.as_chunks::<6>().0.iter();
                    let pixel = |c: &[u16; 6]| [c[0] + c[3], c[1] + c[4], c[2] + c[5]];
                    store(
                        planes,
                        plane_len,
                        at,
                        contract,
                        cells.map(|c| pixel(c).map(|v| f32::from(v) * share)),
                    );
                } else {
                    let cells = plan.sums.chunks_exact(3 * side);
                    store(
                        planes,
                        plane_len,
                        at,
                        contract,
                        cells.map(|c| sum_cell(c).map(|v| v as f32 * share)),
                    );
                }
            } else {
                plan.average_rows(frame, row);
                let runs = plan.columns.runs.iter();
                store(planes, plane_len, at, contract, runs.map(|run| plan.columns.average(&plan.line, run)));
            }
        }
        let placement = Placement { ratio_x: plan.columns.ratio, ratio_y: plan.rows.ratio };
        self.plan = Some(plan);
        placement
    }
}

impl Plan {
    fn new(frame_px: (usize, usize), input_px: (usize, usize)) -> Self {
        let ratio =
            (frame_px.0 as f64 / input_px.0 as f64).max(frame_px.1 as f64 / input_px.1 as f64).max(1.0);
        let shrunk = |from: usize, most: usize| ((from as f64 / ratio).round() as usize).clamp(1, most);
        let (columns, rows) = (shrunk(frame_px.0, input_px.0), shrunk(frame_px.1, input_px.1));
        let side = frame_px.0 / columns;
        let whole = (side <= MAX_WHOLE_RATIO && (columns * side, rows * side) == frame_px).then_some(side);
        let line_len = frame_px.0 * 3;
        Self {
            frame_px,
            columns: Axis::new(frame_px.0, columns),
            rows: Axis::new(frame_px.1, rows),
            whole,
            sums: vec![0; if whole.is_some() { line_len } else { 0 }],
            line: vec![0.0; if whole.is_some() { 0 } else { line_len }],
        }
    }

    /// The `side` rows of the frame that input row `row` covers, added into `sums`.
    fn sum_rows(&mut self, frame: &RgbView<'_>, row: usize, side: usize) {
        let stride = frame.width_px() * 3;
        for source in 0..side {
            let pixels = &frame.data()[(row * side + source) * stride..][..stride];
            let sums = self.sums.iter_mut().zip(pixels);
            if source == 0 {
                sums.for_each(|(sum, &value)| *sum = u16::from(value));
            } else {
                sums.for_each(|(sum, &value)| *sum += u16::from(value));
            }
        }
    }

    /// The rows of the frame that input row `row` covers, averaged into `line`.
    fn average_rows(&mut self, frame: &RgbView<'_>, row: usize) {
        let (first, from, to) = self.rows.runs[row];
        let stride = frame.width_px() * 3;
        for (source, &weight) in self.rows.weights[from..to].iter().enumerate() {
            let pixels = &frame.data()[(first + source) * stride..][..stride];
            let sums = self.line.iter_mut().zip(pixels);
            if source == 0 {
                sums.for_each(|(sum, &value)| *sum = weight * f32::from(value));
            } else {
                sums.for_each(|(sum, &value)| *sum += weight * f32::from(value));
            }
        }
    }
}

impl Axis {
    fn new(from: usize, to: usize) -> Self {
        let ratio = from as f64 / to as f64;
        let (mut runs, mut weights) = (Vec::with_capacity(to), Vec::new());
        for target in 0..to {
            let (left, right) = (target as f64 * ratio, (target + 1) as f64 * ratio);
            let first = (left + 1e-6).floor() as usize;
            let past = ((right - 1e-6).ceil() as usize).clamp(first + 1, from);
            let begin = weights.len();
            for source in first..past {
                let covered = right.min((source + 1) as f64) - left.max(source as f64);
                weights.push((covered / ratio) as f32);
            }
            runs.push((first, begin, weights.len()));
        }
        Self { runs, weights, ratio: ratio as f32 }
    }

    /// The pixels of `run` in the packed RGB `line`, averaged.
    fn average(&self, line: &[f32], &(first, from, to): &(usize, usize, usize)) -> [f32; 3] {
        let mut sum = [0.0; 3];
        for (weight, pixel) in self.weights[from..to].iter().zip(line[first * 3..].as_chunks::<3>().0) {
            for (sum, value) in sum.iter_mut().zip(pixel) {
                *sum += weight * value;
            }
        }
        sum
    }
}

/// Writes one input row: `at` within each plane of `plane_len`, from packed RGB averages.
#[inline]
fn store(
    planes: &mut [f32],
    plane_len: usize,
    at: Range<usize>,
    contract: &InputContract,
    pixels: impl Iterator<Item = [f32; 3]>,
) {
    let (mut mean, mut scale) = (contract.mean, contract.scale);
    let (mut red, rest) = planes.split_at_mut(plane_len);
    let (green, mut blue) = rest.split_at_mut(plane_len);
    if contract.channels == ChannelOrder::Bgr {
        // Planes change places, not the bytes of every pixel.
        std::mem::swap(&mut red, &mut blue);
        mean.reverse();
        scale.reverse();
    }
    let targets = red[at.clone()].iter_mut().zip(&mut green[at.clone()]).zip(&mut blue[at]);
    for (((red, green), blue), rgb) in targets.zip(pixels) {
        *red = (rgb[0] - mean[0]) * scale[0];
        *green = (rgb[1] - mean[1]) * scale[1];
        *blue = (rgb[2] - mean[2]) * scale[2];
    }
}

/// The pixels of `cell`, packed RGB, added up.
fn sum_cell(cell: &[u16]) -> [u32; 3] {
    let mut sum = [0; 3];
    for pixel in cell.as_chunks::<3>().0 {
        for (sum, &value) in sum.iter_mut().zip(pixel) {
            *sum += u32::from(value);
        }
    }
    sum
}

/// Largest whole ratio whose row sums of 8-bit pixels fit 16 bits with room to spare.
const MAX_WHOLE_RATIO: usize = 64;

impl Placement {
    /// Where a point of the input lies in the frame. Pixel centres are at integers in both.
    #[must_use]
    pub fn point(self, p: Point) -> Point {
        Point::new((p.x + 0.5) * self.ratio_x - 0.5, (p.y + 0.5) * self.ratio_y - 0.5)
    }

    /// A face found in the input, in frame pixels.
    #[must_use]
    pub fn detection(self, found: &Detection) -> Detection {
        let corner = self.point(Point::new(found.bbox.x, found.bbox.y));
        let bbox = BoxPx {
            x: corner.x,
            y: corner.y,
            w: found.bbox.w * self.ratio_x,
            h: found.bbox.h * self.ratio_y,
        };
        Detection {
            bbox,
            landmarks: Landmarks5(found.landmarks.0.map(|p| self.point(p))),
            score: found.score,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    fn contract() -> InputContract {
        let mut contract = testing::entry("x", b"").contract;
        (contract.mean, contract.scale) = ([10.0, 20.0, 30.0], [0.5, 1.0, 2.0]);
        contract
    }

    fn plain() -> InputContract {
        testing::detector_entry("x", b"").contract
    }

    #[test]
    fn a_frame_of_the_inputs_size_is_copied_plane_by_plane() {
        let pixels: Vec<u8> = (0..4 * 2 * 3).map(|i| i as u8 * 10).collect();
        let view = RgbView::new(&pixels, 4, 2).unwrap();
        let mut planes = [0.0; 24];
        let placement = Letterbox::new(4, 2).fill(&view, &contract(), &mut planes);
        assert_eq!(placement.point(Point::new(1.25, 0.5)), Point::new(1.25, 0.5));
        for (i, &value) in planes.iter().enumerate() {
            let (plane, at) = (i / 8, i % 8);
            let pixel = f32::from(pixels[at * 3 + plane]);
            assert_eq!(value, (pixel - contract().mean[plane]) * contract().scale[plane]);
        }
        // The other order swaps the outer planes.
        let mut swapped = [0.0; 24];
        let bgr = InputContract { channels: ChannelOrder::Bgr, ..contract() };
        Letterbox::new(4, 2).fill(&view, &bgr, &mut swapped);
        assert_eq!(swapped[0], (f32::from(pixels[2]) - 10.0) * 0.5);
        assert_eq!(swapped[16], (f32::from(pixels[0]) - 30.0) * 2.0);
    }

    #[test]
    fn halving_averages_four_pixels() {
        let pixels: Vec<u8> = [[0, 0, 8], [4, 0, 8], [8, 0, 8], [12, 4, 8]].concat();
        let view = RgbView::new(&pixels, 2, 2).unwrap();
        let mut planes = [0.0; 3];
        let placement = Letterbox::new(1, 1).fill(&view, &plain(), &mut planes);
        assert_eq!(planes, [8.0, 1.0, 6.0]);
        assert_eq!(placement.point(Point::new(0.0, 0.0)), Point::new(0.5, 0.5));
    }

    #[test]
    fn padding_is_black_and_survives_the_next_frame() {
        let pixels = [255_u8; 4 * 2 * 3];
        let view = RgbView::new(&pixels, 4, 2).unwrap();
        let mut planes = [7.0; 48];
        let mut letterbox = Letterbox::new(4, 4);
        for _ in 0..2 {
            letterbox.fill(&view, &contract(), &mut planes);
            for plane in 0..3 {
                let black = -contract().mean[plane] * contract().scale[plane];
                assert!(planes[plane * 16..][..8].iter().all(|&v| v > 50.0));
                assert!(planes[plane * 16 + 8..][..8].iter().all(|&v| v == black));
            }
        }
        // A smaller frame must not leave the larger one's edge behind.
        let small = RgbView::new(&pixels[..12], 2, 2).unwrap();
        letterbox.fill(&small, &contract(), &mut planes);
        assert!(planes[2..4].iter().all(|&v| v == -5.0));
    }

    #[test]
    fn a_spot_comes_back_to_where_it_was() {
        // A bright square anywhere, at ratios that are not whole: the centre of light, brought back, is the square's centre.
        for (frame, input) in [((640, 480), (320, 256)), ((250, 250), (160, 160)), ((333, 517), (320, 256))] {
            for (cx, cy) in [(30, 40), (201, 170)] {
                let mut pixels = vec![0_u8; frame.0 * frame.1 * 3];
                for y in cy - 8..=cy + 8 {
                    pixels[(y * frame.0 + cx - 8) * 3..(y * frame.0 + cx + 9) * 3].fill(200);
                }
                let view = RgbView::new(&pixels, frame.0, frame.1).unwrap();
                let mut planes = vec![0.0; input.0 * input.1 * 3];
                let placement = Letterbox::new(input.0, input.1).fill(&view, &plain(), &mut planes);
                let (mut light, mut x, mut y) = (0.0_f64, 0.0, 0.0);
                for (i, &v) in planes[..input.0 * input.1].iter().enumerate() {
                    light += f64::from(v);
                    x += f64::from(v) * (i % input.0) as f64;
                    y += f64::from(v) * (i / input.0) as f64;
                }
                let seen = placement.point(Point::new((x / light) as f32, (y / light) as f32));
                // Light of a border cell counts at the cell's centre: up to half a cell off, for at most two of 17 columns.
                let true_centre = Point::new(cx as f32, cy as f32);
                assert!(
                    seen.distance_px(true_centre) < 0.1,
                    "{frame:?}->{input:?}: {seen:?} for {true_centre:?}"
                );
            }
        }
    }

    #[test]
    fn whole_and_other_ratios_agree_with_plain_averages() {
        let (width, height) = (24, 12);
        let pixels: Vec<u8> = (0..width * height * 3).map(|i| (i * 7919 % 251) as u8).collect();
        let view = RgbView::new(&pixels, width, height).unwrap();
        for side in [1, 2, 3, 4, 6] {
            let (w, h) = (width / side, height / side);
            let mut planes = vec![0.0; w * h * 3];
            let mut letterbox = Letterbox::new(w, h);
            letterbox.fill(&view, &plain(), &mut planes);
            assert!(letterbox.plan.as_ref().unwrap().whole == Some(side));
            let mut general = vec![0.0; w * h * 3];
            let mut plan = Plan::new((width, height), (w, h));
            (plan.whole, plan.line) = (None, vec![0.0; width * 3]);
            letterbox.plan = Some(plan);
            letterbox.fill(&view, &plain(), &mut general);
            for (i, (&fast, &slow)) in planes.iter().zip(&general).enumerate() {
                let (plane, x, y) = (i / (w * h), i % w, i % (w * h) / w);
                let mut sum = 0.0;
                for dy in 0..side {
                    for dx in 0..side {
                        sum += f32::from(pixels[((y * side + dy) * width + x * side + dx) * 3 + 2 - plane]);
                    }
                }
                let expected = sum / (side * side) as f32;
                assert!((fast - expected).abs() < 1e-3 && (slow - expected).abs() < 1e-3, "{side}: {i}");
            }
        }
    }

    #[test]
    fn weights_sum_to_one_at_every_ratio() {
        for (from, to) in [(640, 320), (250, 160), (517, 256), (7, 7), (8192, 3), (5, 4)] {
            let axis = Axis::new(from, to);
            assert_eq!(axis.runs.len(), to);
            for &(first, begin, end) in &axis.runs {
                assert!(first + (end - begin) <= from);
                assert!((axis.weights[begin..end].iter().sum::<f32>() - 1.0).abs() < 1e-4, "{from}->{to}");
            }
        }
    }
}

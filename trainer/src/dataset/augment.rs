//! What a door does to a face: it is off centre, tilted, too dark, blurred, badly compressed, grey at dusk, half behind a mask.
//!
//! One bilinear warp from the 128 px canvas gives position, tilt, scale, mirror and output size; the rest works on the chip.

use serde::{Deserialize, Serialize};

use super::random::Random;
use super::shards::CANVAS_PX;

/// Strengths and probabilities; all zero means the plain centre chip.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Largest shift on each axis, in pixels of the 112 chip (0–16; beyond 8 the edge is repeated).
    pub shift_px: f32,
    /// Largest tilt, in degrees.
    pub tilt_deg: f32,
    /// Largest relative change of scale.
    pub scale: f32,
    /// Probability of a mirror image.
    pub mirror: f32,
    /// Largest relative change of brightness and of contrast.
    pub light: f32,
    /// Largest |log₂ gamma|.
    pub gamma: f32,
    /// Largest relative change between colour channels.
    pub tint: f32,
    /// Probability of a grey picture.
    pub grey: f32,
    /// Probability of blur (box, 3 px, one to three times).
    pub blur: f32,
    /// Probability of a round trip through a smaller picture with coarse levels (far faces, hard compression).
    pub coarse: f32,
    /// Probability of sensor noise.
    pub noise: f32,
    /// Probability of a covered lower half (mask, scarf).
    pub mask: f32,
    /// Probability of a covered rectangle elsewhere.
    pub cutout: f32,
}

impl Default for Augment {
    fn default() -> Self {
        Self {
            shift_px: 3.0,
            tilt_deg: 5.0,
            scale: 0.05,
            mirror: 0.5,
            light: 0.25,
            gamma: 0.4,
            tint: 0.08,
            grey: 0.08,
            blur: 0.06,
            coarse: 0.08,
            noise: 0.06,
            mask: 0.06,
            cutout: 0.05,
        }
    }
}

impl Augment {
    /// The plain centre chip.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            shift_px: 0.0,
            tilt_deg: 0.0,
            scale: 0.0,
            mirror: 0.0,
            light: 0.0,
            gamma: 0.0,
            tint: 0.0,
            grey: 0.0,
            blur: 0.0,
            coarse: 0.0,
            noise: 0.0,
            mask: 0.0,
            cutout: 0.0,
        }
    }

    /// Cuts a chip from `canvas` (`[128, 128, 3]`) into `chip` (`[side, side, 3]`), both RGB 0–255. The chip shows the 112 px
    /// in the middle of the canvas, whatever `side`. Returns whether it was mirrored.
    pub fn chip(&self, canvas: &[u8], chip: &mut [u8], side: usize, random: &mut Random) -> bool {
        let view = View {
            shift: [random.range(-1.0, 1.0) * self.shift_px, random.range(-1.0, 1.0) * self.shift_px],
            tilt_rad: (random.range(-1.0, 1.0) * self.tilt_deg).to_radians(),
            scale: 1.0 + random.range(-1.0, 1.0) * self.scale,
            mirror: random.chance(self.mirror),
        };
        view.warp(canvas, chip, side);
        self.develop(chip, side, random);
        view.mirror
    }

    /// What is done to a picture once it has its place and size: `[side, side, 3]`, RGB 0–255.
    pub fn develop(&self, chip: &mut [u8], side: usize, random: &mut Random) {
        if random.chance(self.coarse) {
            coarsen(chip, side, random);
        }
        if random.chance(self.blur) {
            for _ in 0..=random.below(3) {
                box_blur(chip, side);
            }
        }
        if self.light > 0.0 || self.gamma > 0.0 || self.tint > 0.0 {
            self.relight(chip, random);
        }
        if random.chance(self.grey) {
            for p in chip.chunks_exact_mut(3) {
                let luma = (u32::from(p[0]) * 77 + u32::from(p[1]) * 150 + u32::from(p[2]) * 29) >> 8;
                p.fill(luma as u8);
            }
        }
        if random.chance(self.noise) {
            let strength = random.range(3.0, 14.0);
            for v in chip.iter_mut() {
                // Sum of four uniform bytes: close to a normal, deviation 148.
                let b = random.bits().to_le_bytes();
                let sum = f32::from(b[0]) + f32::from(b[1]) + f32::from(b[2]) + f32::from(b[3]) - 510.0;
                *v = (f32::from(*v) + sum / 148.0 * strength).clamp(0.0, 255.0) as u8;
            }
        }
        if random.chance(self.mask) {
            mask(chip, side, random);
        }
        if random.chance(self.cutout) {
            cutout(chip, side, random);
        }
    }

    /// Gamma, brightness, contrast and tint in one table for each channel.
    fn relight(&self, chip: &mut [u8], random: &mut Random) {
        let gamma = (random.range(-1.0, 1.0) * self.gamma).exp2();
        let gain = 1.0 + random.range(-1.0, 1.0) * self.light;
        let offset = random.range(-1.0, 1.0) * self.light * 0.5;
        let tables: [[u8; 256]; 3] = std::array::from_fn(|_| {
            let tint = 1.0 + random.range(-1.0, 1.0) * self.tint;
            std::array::from_fn(|v| {
                let x = (v as f32 / 255.0).powf(gamma);
                (((x - 0.5) * gain + 0.5 + offset) * tint * 255.0).clamp(0.0, 255.0) as u8
            })
        });
        for p in chip.chunks_exact_mut(3) {
            for (v, table) in p.iter_mut().zip(&tables) {
                *v = table[usize::from(*v)];
            }
        }
    }
}

struct View {
    shift: [f32; 2],
    tilt_rad: f32,
    scale: f32,
    mirror: bool,
}

impl View {
    /// Bilinear; below 80 px each output pixel is the mean of four samples, else fine detail would alias.
    fn warp(&self, canvas: &[u8], chip: &mut [u8], side: usize) {
        let step = 112.0 / side as f32;
        let (sin, cos) = self.tilt_rad.sin_cos();
        let (sin, cos) = (sin * self.scale, cos * self.scale);
        let sign = if self.mirror { -1.0 } else { 1.0 };
        let offsets: &[f32] = if side < 80 { &[-0.25, 0.25] } else { &[0.0] };
        let weight = 1.0 / (offsets.len() * offsets.len()) as f32;
        for (y, line) in chip.chunks_exact_mut(side * 3).enumerate() {
            for (x, out) in line.chunks_exact_mut(3).enumerate() {
                let mut sum = [0.0_f32; 3];
                for oy in offsets {
                    for ox in offsets {
                        let u = sign * ((x as f32 + 0.5 + ox) * step - 56.0);
                        let v = (y as f32 + 0.5 + oy) * step - 56.0;
                        let sx = cos * u - sin * v + self.shift[0] + 63.5;
                        let sy = sin * u + cos * v + self.shift[1] + 63.5;
                        add_sample(canvas, sx, sy, &mut sum);
                    }
                }
                for (o, s) in out.iter_mut().zip(sum) {
                    *o = (s * weight + 0.5) as u8;
                }
            }
        }
    }
}

/// Adds the bilinear sample at (`x`, `y`), in pixel indices; beyond the edge the border is repeated.
fn add_sample(canvas: &[u8], x: f32, y: f32, sum: &mut [f32; 3]) {
    let last = (CANVAS_PX - 1) as f32;
    let (x, y) = (x.clamp(0.0, last), y.clamp(0.0, last));
    let (x0, y0) = (x as usize, y as usize);
    let (fx, fy) = (x - x0 as f32, y - y0 as f32);
    let (x1, y1) = ((x0 + 1).min(CANVAS_PX - 1), (y0 + 1).min(CANVAS_PX - 1));
    let at = |x: usize, y: usize| &canvas[(y * CANVAS_PX + x) * 3..(y * CANVAS_PX + x) * 3 + 3];
    let (a, b, c, d) = (at(x0, y0), at(x1, y0), at(x0, y1), at(x1, y1));
    for k in 0..3 {
        let top = f32::from(a[k]) * (1.0 - fx) + f32::from(b[k]) * fx;
        let bottom = f32::from(c[k]) * (1.0 - fx) + f32::from(d[k]) * fx;
        sum[k] += top * (1.0 - fy) + bottom * fy;
    }
}

/// Halves to thirds of the resolution in blocks, with levels in steps of 4 to 16: a far face, compressed hard.
fn coarsen(chip: &mut [u8], side: usize, random: &mut Random) {
    let block = 2 + random.below(2);
    let step = 4 + random.below(13) as u32;
    for top in (0..side).step_by(block) {
        for left in (0..side).step_by(block) {
            let (bottom, right) = ((top + block).min(side), (left + block).min(side));
            let n = ((bottom - top) * (right - left)) as u32;
            for k in 0..3 {
                let mut sum = 0;
                for y in top..bottom {
                    sum += (left..right).map(|x| u32::from(chip[(y * side + x) * 3 + k])).sum::<u32>();
                }
                let level = ((sum / n / step) * step + step / 2).min(255) as u8;
                for y in top..bottom {
                    for x in left..right {
                        chip[(y * side + x) * 3 + k] = level;
                    }
                }
            }
        }
    }
    box_blur(chip, side);
}

/// Mean over 3×3, edges repeated.
fn box_blur(chip: &mut [u8], side: usize) {
    for (count, stride, line_stride) in [(side, 3, side * 3), (side, side * 3, 3)] {
        for line in 0..side {
            for k in 0..3 {
                let start = line * line_stride + k;
                let mut before = u32::from(chip[start]);
                let mut here = before;
                for i in 0..count {
                    let after = u32::from(chip[start + (i + 1).min(count - 1) * stride]);
                    chip[start + i * stride] = ((before + here + after + 1) / 3) as u8;
                    (before, here) = (here, after);
                }
            }
        }
    }
}

/// Covers the face below the nose, with an upper edge that sags at the sides.
fn mask(chip: &mut [u8], side: usize, random: &mut Random) {
    let colour: [u8; 3] = std::array::from_fn(|_| random.below(256) as u8);
    let top = random.range(0.55, 0.68) * side as f32;
    let sag = random.range(0.0, 0.12) * side as f32;
    let half = side as f32 / 2.0;
    for y in 0..side {
        let shade = 1.0 - 0.25 * (y as f32 / side as f32 - 0.5).abs();
        for x in 0..side {
            let off = (x as f32 - half) / half;
            if y as f32 > top + sag * off * off {
                for k in 0..3 {
                    chip[(y * side + x) * 3 + k] = (f32::from(colour[k]) * shade) as u8;
                }
            }
        }
    }
}

/// Fills a rectangle of 2–12 % of the chip with one colour.
fn cutout(chip: &mut [u8], side: usize, random: &mut Random) {
    let colour: [u8; 3] = std::array::from_fn(|_| random.below(256) as u8);
    let width = (random.range(0.15, 0.35) * side as f32) as usize;
    let height = (random.range(0.15, 0.35) * side as f32) as usize;
    let (left, top) = (random.below(side - width), random.below(side - height));
    for y in top..top + height {
        for p in chip[(y * side + left) * 3..(y * side + left + width) * 3].chunks_exact_mut(3) {
            p.copy_from_slice(&colour);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::random::Stream;
    use crate::dataset::shards::CANVAS_BYTES;

    fn canvas() -> Vec<u8> {
        (0..CANVAS_BYTES)
            .map(|i| {
                let (x, y, k) = (i / 3 % CANVAS_PX, i / 3 / CANVAS_PX, i % 3);
                (x + y / 2 + k * 20) as u8
            })
            .collect()
    }

    #[test]
    fn without_strengths_the_chip_is_the_middle_of_the_canvas() {
        let (canvas, mut chip) = (canvas(), vec![0; 112 * 112 * 3]);
        Augment::none().chip(&canvas, &mut chip, 112, &mut Random::new(1, Stream::Augment, 0));
        for y in 0..112 {
            let row = &canvas[((y + 8) * CANVAS_PX + 8) * 3..][..112 * 3];
            assert_eq!(&chip[y * 112 * 3..][..112 * 3], row, "row {y}");
        }
    }

    #[test]
    fn a_mirror_reverses_each_row_exactly() {
        let (canvas, mut chip) = (canvas(), vec![0; 112 * 112 * 3]);
        let augment = Augment { mirror: 1.0, ..Augment::none() };
        assert!(augment.chip(&canvas, &mut chip, 112, &mut Random::new(1, Stream::Augment, 0)));
        for x in 0..112 {
            let source = (50 + 8) * CANVAS_PX + 8 + (111 - x);
            assert_eq!(chip[(50 * 112 + x) * 3..][..3], canvas[source * 3..][..3], "column {x}");
        }
    }

    #[test]
    fn a_smaller_chip_shows_the_same_region() {
        let (canvas, mut chip) = (canvas(), vec![0; 64 * 64 * 3]);
        Augment::none().chip(&canvas, &mut chip, 64, &mut Random::new(1, Stream::Augment, 0));
        // Centre of output pixel (0, 0) is canvas position 8 + 0.875 − 0.5 on both axes: value x + y/2.
        let expected = 8.375 * 1.5;
        assert!((f32::from(chip[0]) - expected).abs() < 1.5, "{}", chip[0]);
    }

    #[test]
    fn everything_at_once_is_repeatable_and_changes_the_chip() {
        let (canvas, mut a, mut b) = (canvas(), vec![0; 112 * 112 * 3], vec![0; 112 * 112 * 3]);
        let all = Augment {
            grey: 1.0,
            blur: 1.0,
            coarse: 1.0,
            noise: 1.0,
            mask: 1.0,
            cutout: 1.0,
            ..Augment::default()
        };
        all.chip(&canvas, &mut a, 112, &mut Random::new(1, Stream::Augment, 9));
        all.chip(&canvas, &mut b, 112, &mut Random::new(1, Stream::Augment, 9));
        assert_eq!(a, b);
        all.chip(&canvas, &mut b, 112, &mut Random::new(1, Stream::Augment, 10));
        assert_ne!(a, b);
    }

    #[test]
    fn blur_keeps_a_flat_picture_flat() {
        let mut chip = vec![77; 16 * 16 * 3];
        box_blur(&mut chip, 16);
        assert!(chip.iter().all(|&v| v == 77));
    }
}

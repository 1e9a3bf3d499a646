//! What the place of the camera does to a picture: light from one side or from behind, and motion.

use serde::{Deserialize, Serialize};

use super::random::Random;

/// Probabilities; all zero changes nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Weather {
    /// Light that falls off across the picture, to as little as a fifth.
    pub side_light: f32,
    /// A dark middle before a bright surrounding.
    pub back_light: f32,
    /// Motion along a straight line over up to a twelfth of the picture.
    pub motion: f32,
}

impl Weather {
    /// Changes `[side, side, 3]` in place.
    pub fn act(&self, pixels: &mut [u8], side: usize, random: &mut Random) {
        if random.chance(self.motion) {
            smear(pixels, side, random);
        }
        if random.chance(self.side_light) {
            let angle = random.range(0.0, std::f32::consts::TAU);
            let (low, high) = (random.range(0.2, 0.8), random.range(0.9, 1.3));
            let (dx, dy) = (angle.cos(), angle.sin());
            let half = side as f32 / 2.0;
            shade(pixels, side, |x, y| {
                let t = ((x - half) * dx + (y - half) * dy) / (half * 1.2);
                low + (high - low) * (0.5 + 0.5 * t.clamp(-1.0, 1.0))
            });
        }
        if random.chance(self.back_light) {
            let (dark, bright) = (random.range(0.25, 0.6), random.range(1.3, 2.2));
            let (cx, cy) = (random.range(0.3, 0.7) * side as f32, random.range(0.3, 0.8) * side as f32);
            let reach = random.range(0.25, 0.6) * side as f32;
            shade(pixels, side, |x, y| {
                let far = ((x - cx).hypot(y - cy) / reach).min(2.0);
                let t = (far - 0.6).clamp(0.0, 0.8) / 0.8;
                dark + (bright - dark) * t * t
            });
        }
    }
}

fn shade(pixels: &mut [u8], side: usize, gain: impl Fn(f32, f32) -> f32) {
    for (y, line) in pixels.chunks_exact_mut(side * 3).enumerate() {
        for (x, pixel) in line.chunks_exact_mut(3).enumerate() {
            let gain = gain(x as f32, y as f32);
            for v in pixel {
                *v = (f32::from(*v) * gain).min(255.0) as u8;
            }
        }
    }
}

/// Mean along a line: what a movement during the exposure leaves.
fn smear(pixels: &mut [u8], side: usize, random: &mut Random) {
    let angle = random.range(0.0, std::f32::consts::PI);
    let length = random.range(2.0, (side as f32 / 12.0).max(3.0));
    let taps = length.ceil() as i32 + 1;
    let steps: Vec<(i32, i32)> = (0..taps)
        .map(|t| {
            let at = (t as f32 / (taps - 1) as f32 - 0.5) * length;
            ((angle.cos() * at).round() as i32, (angle.sin() * at).round() as i32)
        })
        .collect();
    let source = pixels.to_vec();
    let last = side as i32 - 1;
    for y in 0..side as i32 {
        for x in 0..side as i32 {
            let mut sum = [0_u32; 3];
            for (dx, dy) in &steps {
                let at = ((y + dy).clamp(0, last) as usize * side + (x + dx).clamp(0, last) as usize) * 3;
                for (s, v) in sum.iter_mut().zip(&source[at..at + 3]) {
                    *s += u32::from(*v);
                }
            }
            let at = (y as usize * side + x as usize) * 3;
            for (v, s) in pixels[at..at + 3].iter_mut().zip(sum) {
                *v = (s / taps as u32) as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Stream;

    #[test]
    fn motion_keeps_a_flat_picture_and_light_keeps_black() {
        let all = Weather { side_light: 1.0, back_light: 1.0, motion: 1.0 };
        let mut black = vec![0; 32 * 32 * 3];
        all.act(&mut black, 32, &mut Random::new(1, Stream::Augment, 1));
        assert!(black.iter().all(|&v| v == 0));
        let mut flat = vec![77; 32 * 32 * 3];
        Weather { motion: 1.0, ..Weather::default() }.act(
            &mut flat,
            32,
            &mut Random::new(1, Stream::Augment, 1),
        );
        assert!(flat.iter().all(|&v| v == 77));
        all.act(&mut flat, 32, &mut Random::new(1, Stream::Augment, 1));
        assert!(flat.iter().min() < flat.iter().max());
    }
}

//! One descriptor from many looks: crops of one picture, frames of one track (Parkhi et al. 2015, section 5).

/// A square cut from a picture, in shares of the picture's side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crop {
    /// Left edge.
    pub x: f32,
    /// Upper edge.
    pub y: f32,
    /// Side.
    pub side: f32,
    /// Mirrored left to right.
    pub mirrored: bool,
}

/// The paper's scales: faces of 256, 384 and 512 pixels, cropped to 224.
pub const SCALES: [f32; 3] = [224.0 / 256.0, 224.0 / 384.0, 224.0 / 512.0];

/// Four corners and the middle, each plain and mirrored, at every scale: 30 crops for the paper's three.
#[must_use]
pub fn ten_crops(scales: &[f32]) -> Vec<Crop> {
    let mut crops = Vec::with_capacity(scales.len() * 10);
    for &side in scales {
        let far = 1.0 - side;
        for (x, y) in [(0.0, 0.0), (far, 0.0), (0.0, far), (far, far), (far / 2.0, far / 2.0)] {
            crops.extend([false, true].map(|mirrored| Crop { x, y, side, mirrored }));
        }
    }
    crops
}

impl Crop {
    /// Cuts itself out of a square picture (`[from, from, 3]`) into `[to, to, 3]`, bilinearly; shrunk pictures are averaged over
    /// 2×2 samples a pixel.
    pub fn cut(&self, picture: &[u8], from: usize, into: &mut [u8], to: usize) {
        let step = self.side * from as f32 / to as f32;
        let offsets: &[f32] = if step > 1.2 { &[-0.25, 0.25] } else { &[0.0] };
        let weight = 1.0 / (offsets.len() * offsets.len()) as f32;
        for (y, line) in into.chunks_exact_mut(to * 3).take(to).enumerate() {
            for (x, out) in line.chunks_exact_mut(3).enumerate() {
                let column = if self.mirrored { to - 1 - x } else { x };
                let mut sum = [0.0_f32; 3];
                for oy in offsets {
                    for ox in offsets {
                        let sx = self.x * from as f32 + (column as f32 + 0.5 + ox) * step - 0.5;
                        let sy = self.y * from as f32 + (y as f32 + 0.5 + oy) * step - 0.5;
                        add_sample(picture, from, sx, sy, &mut sum);
                    }
                }
                for (o, s) in out.iter_mut().zip(sum) {
                    *o = (s * weight + 0.5) as u8;
                }
            }
        }
    }
}

fn add_sample(picture: &[u8], side: usize, x: f32, y: f32, sum: &mut [f32; 3]) {
    let last = (side - 1) as f32;
    let (x, y) = (x.clamp(0.0, last), y.clamp(0.0, last));
    let (x0, y0) = (x as usize, y as usize);
    let (x1, y1) = ((x0 + 1).min(side - 1), (y0 + 1).min(side - 1));
    let (fx, fy) = (x - x0 as f32, y - y0 as f32);
    for (k, sum) in sum.iter_mut().enumerate() {
        let at = |x: usize, y: usize| f32::from(picture[(y * side + x) * 3 + k]);
        let top = at(x0, y0) * (1.0 - fx) + at(x1, y0) * fx;
        let bottom = at(x0, y1) * (1.0 - fx) + at(x1, y1) * fx;
        *sum += top * (1.0 - fy) + bottom * fy;
    }
}

/// Mean of vectors of one length, scaled to length one; `None` when there are none or they cancel out.
#[must_use]
pub fn mean<'a>(vectors: impl IntoIterator<Item = &'a [f32]>) -> Option<Vec<f32>> {
    let mut sum: Vec<f32> = Vec::new();
    for vector in vectors {
        sum.resize(vector.len(), 0.0);
        sum.iter_mut().zip(vector).for_each(|(s, v)| *s += v);
    }
    let length = sum.iter().map(|v| v * v).sum::<f32>().sqrt();
    (length > 1e-12).then(|| sum.iter().map(|v| v / length).collect())
}

/// A look at a face and how sure the landmarks in it were.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// Descriptor.
    pub vector: Vec<f32>,
    /// Larger is surer.
    pub confidence: f32,
}

/// The descriptor of a track: the mean over the `best` surest frames, of equals the earlier.
#[must_use]
pub fn best_frames(looks: &[Look], best: usize) -> Option<Vec<f32>> {
    let mut order: Vec<&Look> = looks.iter().collect();
    order.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    mean(order.into_iter().take(best).map(|look| look.vector.as_slice()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirty_crops_stay_inside_and_mirror_each_other() {
        let crops = ten_crops(&SCALES);
        assert_eq!(crops.len(), 30);
        assert!(
            crops
                .iter()
                .all(|c| c.x >= 0.0 && c.y >= 0.0 && c.x + c.side <= 1.0001 && c.y + c.side <= 1.0001)
        );
        let picture: Vec<u8> = (0..16 * 16 * 3).map(|i| (i * 7 % 251) as u8).collect();
        let (mut plain, mut mirrored) = ([0; 8 * 8 * 3], [0; 8 * 8 * 3]);
        for pair in crops.chunks(2) {
            pair[0].cut(&picture, 16, &mut plain, 8);
            pair[1].cut(&picture, 16, &mut mirrored, 8);
            for x in 0..8 {
                assert_eq!(plain[x * 3..x * 3 + 3], mirrored[(7 - x) * 3..(7 - x) * 3 + 3]);
            }
        }
    }

    #[test]
    fn the_whole_picture_at_its_own_size_is_itself_and_a_corner_is_the_corner() {
        let picture: Vec<u8> = (0..8 * 8 * 3).map(|i| (i * 5 % 256) as u8).collect();
        let mut same = vec![0; picture.len()];
        Crop { x: 0.0, y: 0.0, side: 1.0, mirrored: false }.cut(&picture, 8, &mut same, 8);
        assert_eq!(same, picture);
        let mut corner = [0; 4 * 4 * 3];
        Crop { x: 0.5, y: 0.5, side: 0.5, mirrored: false }.cut(&picture, 8, &mut corner, 4);
        assert_eq!(corner[..3], picture[(4 * 8 + 4) * 3..(4 * 8 + 4) * 3 + 3]);
    }

    #[test]
    fn a_track_is_the_mean_of_its_surest_frames() {
        let look = |x: f32, y: f32, confidence| Look { vector: vec![x, y], confidence };
        let looks = [look(0.0, 1.0, 0.2), look(1.0, 0.0, 0.9), look(3.0, 0.0, 0.8)];
        assert_eq!(best_frames(&looks, 2), Some(vec![1.0, 0.0]));
        let all = best_frames(&looks, 10).unwrap();
        assert!((all[0] - 4.0 / 17.0_f32.sqrt()).abs() < 1e-6);
        assert_eq!(best_frames(&[], 3), None);
        assert_eq!(mean([[1.0_f32, 0.0].as_slice(), &[-1.0, 0.0]]), None);
    }
}

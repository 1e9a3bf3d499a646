//! Pictures of any size and the affine warps by which samples are cut from them.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A decoded picture, packed RGB 0–255.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `[height, width, 3]`.
    pub pixels: Vec<u8>,
}

/// A borrowed picture.
#[derive(Debug, Clone, Copy)]
pub struct PictureRef<'a> {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `[height, width, 3]`.
    pub pixels: &'a [u8],
}

impl Picture {
    /// Decodes a compressed picture.
    ///
    /// # Errors
    /// What the decoder says.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let picture = image::load_from_memory(bytes).map_err(|e| e.to_string())?.into_rgb8();
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        Ok(Self { width, height, pixels: picture.into_raw() })
    }

    /// The same, borrowed.
    #[must_use]
    pub fn view(&self) -> PictureRef<'_> {
        PictureRef { width: self.width, height: self.height, pixels: &self.pixels }
    }
}

impl PictureRef<'_> {
    /// Bilinear sample at (`x`, `y`), pixel centres at integers; beyond the edge the border is repeated.
    #[must_use]
    pub fn sample(&self, x: f32, y: f32) -> [f32; 3] {
        let x = x.clamp(0.0, (self.width - 1) as f32);
        let y = y.clamp(0.0, (self.height - 1) as f32);
        let (x0, y0) = (x as usize, y as usize);
        let (fx, fy) = (x - x0 as f32, y - y0 as f32);
        let (x1, y1) = ((x0 + 1).min(self.width - 1), (y0 + 1).min(self.height - 1));
        let at = |x: usize, y: usize| &self.pixels[(y * self.width + x) * 3..][..3];
        let (a, b, c, d) = (at(x0, y0), at(x1, y0), at(x0, y1), at(x1, y1));
        std::array::from_fn(|k| {
            let top = f32::from(a[k]) * (1.0 - fx) + f32::from(b[k]) * fx;
            let bottom = f32::from(c[k]) * (1.0 - fx) + f32::from(d[k]) * fx;
            top * (1.0 - fy) + bottom * fy
        })
    }

    /// Whether a position lies inside, up to `margin` pixels beyond the border.
    #[must_use]
    pub fn holds(&self, x: f32, y: f32, margin: f32) -> bool {
        x >= -margin
            && y >= -margin
            && x <= (self.width - 1) as f32 + margin
            && y <= (self.height - 1) as f32 + margin
    }
}

/// An affine map of the plane, `[x', y'] = rows · [x, y, 1]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine(pub [[f32; 3]; 2]);

impl Affine {
    /// Rotation by `angle` and scaling by `scale`, taking `from` to `to`; `mirror` flips x first, about `from`.
    #[must_use]
    pub fn turn(from: [f32; 2], to: [f32; 2], scale: f32, angle: f32, mirror: bool) -> Self {
        let (sin, cos) = (angle.sin() * scale, angle.cos() * scale);
        let flip = if mirror { -1.0 } else { 1.0 };
        let m = [[cos * flip, -sin], [sin * flip, cos]];
        Self(std::array::from_fn(|r| [m[r][0], m[r][1], to[r] - m[r][0] * from[0] - m[r][1] * from[1]]))
    }

    /// Where a point goes.
    #[must_use]
    pub fn point(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        self.0.map(|r| r[0] * x + r[1] * y + r[2])
    }

    /// This map, then `next`.
    #[must_use]
    pub fn then(&self, next: &Self) -> Self {
        let ([a, b], n) = (self.0, next.0);
        Self(std::array::from_fn(|r| {
            std::array::from_fn(|c| n[r][0] * a[c] + n[r][1] * b[c] + if c == 2 { n[r][2] } else { 0.0 })
        }))
    }

    /// The map back, or `None` for a degenerate map.
    #[must_use]
    pub fn inverse(&self) -> Option<Self> {
        let [[a, b, c], [d, e, f]] = self.0;
        let det = a * e - b * d;
        if det.abs() < 1e-12 {
            return None;
        }
        let (ia, ib, id, ie) = (e / det, -b / det, -d / det, a / det);
        Some(Self([[ia, ib, -(ia * c + ib * f)], [id, ie, -(id * c + ie * f)]]))
    }

    /// Square root of the factor by which areas grow.
    #[must_use]
    pub fn scale(&self) -> f32 {
        let [[a, b, _], [d, e, _]] = self.0;
        (a * e - b * d).abs().sqrt()
    }
}

/// Cuts `[height, width, 3]` out of `source`; `to_source` maps a target pixel to the source. Shrinking takes the mean of
/// enough samples that nothing between them is skipped.
pub fn cut(source: PictureRef<'_>, to_source: &Affine, target: &mut [u8], width: usize) {
    let offsets = offsets(to_source.scale());
    for (y, line) in target.chunks_exact_mut(width * 3).enumerate() {
        for (x, out) in line.chunks_exact_mut(3).enumerate() {
            let rgb = mean_sample(source, to_source, x as f32, y as f32, &offsets);
            for (o, v) in out.iter_mut().zip(rgb) {
                *o = (v + 0.5) as u8;
            }
        }
    }
}

/// Where within a target pixel samples are taken, on each axis.
#[must_use]
pub fn offsets(scale: f32) -> Vec<f32> {
    let n = (scale.round().max(1.0) as usize).min(6);
    (0..n).map(|i| (i as f32 + 0.5) / n as f32 - 0.5).collect()
}

/// The mean of the samples of one target pixel.
#[must_use]
pub fn mean_sample(source: PictureRef<'_>, to_source: &Affine, x: f32, y: f32, offsets: &[f32]) -> [f32; 3] {
    let mut sum = [0.0_f32; 3];
    for oy in offsets {
        for ox in offsets {
            let [sx, sy] = to_source.point([x + ox, y + oy]);
            for (s, v) in sum.iter_mut().zip(source.sample(sx, sy)) {
                *s += v;
            }
        }
    }
    let weight = 1.0 / (offsets.len() * offsets.len()) as f32;
    sum.map(|s| s * weight)
}

/// All members of a tar file by name.
///
/// # Errors
/// [`ArchiveError`] with the file.
pub fn read_tar(path: &Path) -> Result<HashMap<String, Vec<u8>>, ArchiveError> {
    let fail = |source| ArchiveError { path: path.to_owned(), source };
    let mut archive = tar::Archive::new(File::open(path).map_err(fail)?);
    let mut members = HashMap::new();
    for entry in archive.entries().map_err(fail)? {
        let mut entry = entry.map_err(fail)?;
        let name = entry.path().map_err(fail)?.to_string_lossy().trim_start_matches("./").to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(fail)?;
        members.insert(name, bytes);
    }
    Ok(members)
}

/// A tar file that cannot be read.
#[derive(Debug, Error)]
#[error("cannot read {}: {source}", path.display())]
pub struct ArchiveError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: std::io::Error,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_and_its_inverse_undo_each_other() {
        for mirror in [false, true] {
            let map = Affine::turn([3.0, 4.0], [50.0, 60.0], 1.7, 0.4, mirror);
            let back = map.inverse().unwrap();
            for p in [[0.0, 0.0], [3.0, 4.0], [-20.0, 71.0]] {
                let [x, y] = back.point(map.point(p));
                assert!((x - p[0]).abs() < 1e-3 && (y - p[1]).abs() < 1e-3);
            }
            assert!((map.scale() - 1.7).abs() < 1e-5);
            let [x, y] = map.point([3.0, 4.0]);
            assert!((x - 50.0).abs() < 1e-4 && (y - 60.0).abs() < 1e-4);
        }
        assert!(Affine([[1.0, 2.0, 0.0], [2.0, 4.0, 0.0]]).inverse().is_none());
    }

    #[test]
    fn cutting_at_the_same_size_copies_and_at_half_averages() {
        let pixels: Vec<u8> = (0..8 * 8 * 3).map(|i| (i * 37 % 251) as u8).collect();
        let source = PictureRef { width: 8, height: 8, pixels: &pixels };
        let mut same = vec![0; 8 * 8 * 3];
        cut(source, &Affine::turn([0.0; 2], [0.0; 2], 1.0, 0.0, false), &mut same, 8);
        assert_eq!(same, pixels);
        let mut half = vec![0; 4 * 4 * 3];
        cut(source, &Affine::turn([-0.5; 2], [-0.25 * 2.0; 2], 2.0, 0.0, false), &mut half, 4);
        // Target pixel 0 covers source pixels 0 and 1, whose centre is 0.5.
        let to_source = Affine::turn([0.0; 2], [0.5; 2], 2.0, 0.0, false);
        cut(source, &to_source, &mut half, 4);
        let mean: u32 = [0, 1].iter().flat_map(|y| [0, 1].map(|x| u32::from(pixels[(y * 8 + x) * 3]))).sum();
        assert!((i64::from(half[0]) - i64::from(mean / 4)).abs() <= 1);
    }
}

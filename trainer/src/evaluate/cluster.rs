//! Grouping pictures of people nobody has named: agglomerative clustering of embeddings (FaceNet, section 5.8), and a sheet to look at.
//!
//! Average or complete linkage by nearest-neighbour chains (Murtagh 1983): exact, n² time and one triangle of n² similarities, 50 MB for
//! 5,000 faces.

use std::collections::BTreeMap;

use facelatch_shared::embedding::Embedding;
use image::{Rgb, RgbImage, imageops};

/// How alike two groups are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Linkage {
    /// The mean similarity of all pairs between them
    Average,
    /// The similarity of their least alike pair
    Complete,
}

/// Merges groups while the most alike two are at least `threshold` alike. Groups come largest first, then by their first member; members
/// ascend.
#[must_use]
pub fn cluster(faces: &[Embedding], linkage: Linkage, threshold: f32) -> Vec<Vec<usize>> {
    let n = faces.len();
    let mut alike = Triangle::new(n, |i, j| faces[i].similarity(&faces[j]).0);
    let mut size = vec![1_usize; n];
    let mut group: Vec<usize> = (0..n).collect();
    let mut chain: Vec<usize> = Vec::new();
    loop {
        let Some(&top) = chain.last() else {
            // The chain starts anew at any group not yet known to be apart from all others.
            let Some(start) = (0..n).find(|&i| size[i] > 0) else { break };
            chain.push(start);
            continue;
        };
        let before = chain.len().checked_sub(2).map(|at| chain[at]);
        // Of equally alike groups the one before in the chain, else the chain could circle.
        let mut nearest = before.map(|b| (alike.get(top, b), b));
        for other in (0..n).filter(|&o| o != top && size[o] > 0) {
            let similarity = alike.get(top, other);
            if nearest.is_none_or(|(best, _)| similarity > best) {
                nearest = Some((similarity, other));
            }
        }
        match nearest {
            // Nothing is alike enough to this one, and merging others only lowers similarities to it: it is finished.
            Some((similarity, _)) if similarity < threshold => {
                retire(&mut chain, &mut size);
            }
            None => retire(&mut chain, &mut size),
            Some((_, other)) if Some(other) == before => {
                chain.truncate(chain.len() - 2);
                merge(&mut alike, &mut size, linkage, other, top);
                group.iter_mut().filter(|g| **g == top).for_each(|g| *g = other);
            }
            Some((_, other)) => chain.push(other),
        }
    }
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (face, &of) in group.iter().enumerate() {
        groups.entry(of).or_default().push(face);
    }
    let mut groups: Vec<Vec<usize>> = groups.into_values().collect();
    groups.sort_by(|a, b| b.len().cmp(&a.len()).then(a[0].cmp(&b[0])));
    groups
}

/// How well groups match people known by name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// Of pairs in one group, the share of one person; 1 when no group has two.
    pub precision: f64,
    /// Of pairs of one person, the share in one group; 1 when nobody has two pictures.
    pub recall: f64,
    /// Harmonic mean of both.
    pub f1: f64,
}

/// Compares groups with people, pair by pair, by counting.
#[must_use]
pub fn agreement(groups: &[Vec<usize>], people: &[usize]) -> Agreement {
    let pairs = |n: usize| n * n.saturating_sub(1) / 2;
    let tally = |members: &mut dyn Iterator<Item = usize>| -> usize {
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        members.for_each(|person| *counts.entry(person).or_default() += 1);
        counts.values().map(|&n| pairs(n)).sum()
    };
    let together: usize = groups.iter().map(|group| pairs(group.len())).sum();
    let right: usize = groups.iter().map(|group| tally(&mut group.iter().map(|&face| people[face]))).sum();
    let of_people = tally(&mut groups.iter().flatten().map(|&face| people[face]));
    let share = |part: usize, of: usize| if of == 0 { 1.0 } else { part as f64 / of as f64 };
    let (precision, recall) = (share(right, together), share(right, of_people));
    let f1 = if precision + recall > 0.0 { 2.0 * precision * recall / (precision + recall) } else { 0.0 };
    Agreement { precision, recall, f1 }
}

/// Groups of at least `least` faces as blocks of thumbnails, at most `columns` a row, a coloured bar at the left of each group, largest first; what does not fit
/// into `most_rows` rows is left out. `thumbnails[i]` is face i, [`THUMBNAIL_PX`] square. Returns the picture and how many groups it shows.
#[must_use]
pub fn sheet(
    groups: &[Vec<usize>],
    thumbnails: &[RgbImage],
    columns: u32,
    least: usize,
    most_rows: u32,
) -> (RgbImage, usize) {
    let largest = groups.iter().map(Vec::len).max().unwrap_or(1) as u32;
    let columns = columns.min(largest).max(1);
    let rows = |group: &Vec<usize>| (group.len() as u32).div_ceil(columns);
    let mut shown = Vec::new();
    let mut used = 0;
    for group in groups.iter().filter(|group| group.len() >= least) {
        if used + rows(group) > most_rows {
            break;
        }
        used += rows(group);
        shown.push(group);
    }
    let cell = THUMBNAIL_PX + GAP_PX;
    let width = BAR_PX + columns * cell + GAP_PX;
    let height = used * cell + shown.len() as u32 * BLOCK_GAP_PX + GAP_PX;
    let mut sheet = RgbImage::from_pixel(width, height.max(cell), Rgb([245, 245, 245]));
    let mut y = GAP_PX;
    for (number, group) in shown.iter().enumerate() {
        let tall = rows(group) * cell - GAP_PX;
        let colour = BARS[number % BARS.len()];
        for (bx, by) in (GAP_PX..BAR_PX - GAP_PX).flat_map(|bx| (y..y + tall).map(move |by| (bx, by))) {
            sheet.put_pixel(bx, by, Rgb(colour));
        }
        for (place, &face) in group.iter().enumerate() {
            let (column, row) = (place as u32 % columns, place as u32 / columns);
            let (x, y) = (BAR_PX + column * cell, y + row * cell);
            imageops::replace(&mut sheet, &thumbnails[face], i64::from(x), i64::from(y));
        }
        y += rows(group) * cell + BLOCK_GAP_PX;
    }
    (sheet, shown.len())
}

/// Side of a thumbnail on the sheet.
pub const THUMBNAIL_PX: u32 = 56;
const GAP_PX: u32 = 2;
const BAR_PX: u32 = 10;
const BLOCK_GAP_PX: u32 = 6;
const BARS: [[u8; 3]; 4] = [[42, 111, 176], [200, 90, 30], [60, 140, 60], [140, 70, 150]];

fn retire(chain: &mut Vec<usize>, size: &mut [usize]) {
    if let Some(done) = chain.pop() {
        size[done] = 0;
    }
}

/// Lance and Williams 1967: `into` takes over `gone`.
fn merge(alike: &mut Triangle, size: &mut [usize], linkage: Linkage, into: usize, gone: usize) {
    let (a, b) = (size[into] as f32, size[gone] as f32);
    for other in (0..size.len()).filter(|&o| o != into && o != gone) {
        if size[other] == 0 {
            continue;
        }
        let (x, y) = (alike.get(into, other), alike.get(gone, other));
        let together = match linkage {
            Linkage::Average => (a * x + b * y) / (a + b),
            Linkage::Complete => x.min(y),
        };
        alike.set(into, other, together);
    }
    size[into] += size[gone];
    size[gone] = 0;
}

/// A symmetric matrix without its diagonal.
struct Triangle(Vec<f32>);

impl Triangle {
    fn new(n: usize, value: impl Fn(usize, usize) -> f32) -> Self {
        Self((1..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| value(i, j)).collect())
    }

    const fn at(i: usize, j: usize) -> usize {
        let (high, low) = if i > j { (i, j) } else { (j, i) };
        high * (high - 1) / 2 + low
    }

    fn get(&self, i: usize, j: usize) -> f32 {
        self.0[Self::at(i, j)]
    }

    fn set(&mut self, i: usize, j: usize, value: f32) {
        self.0[Self::at(i, j)] = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn embedding(values: &[f32]) -> Embedding {
        let mut raw = [0.0; 128];
        raw[..values.len()].copy_from_slice(values);
        Embedding::from_raw(&raw).unwrap()
    }

    /// Merges the most alike two groups, looking at all of them each time.
    fn by_definition(faces: &[Embedding], linkage: Linkage, threshold: f32) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = (0..faces.len()).map(|i| vec![i]).collect();
        loop {
            let mut best: Option<(f64, usize, usize)> = None;
            for i in 1..groups.len() {
                for j in 0..i {
                    let all = groups[i].iter().flat_map(|&a| groups[j].iter().map(move |&b| (a, b)));
                    let all: Vec<f64> =
                        all.map(|(a, b)| f64::from(faces[a].similarity(&faces[b]).0)).collect();
                    let alike = match linkage {
                        Linkage::Average => all.iter().sum::<f64>() / all.len() as f64,
                        Linkage::Complete => all.iter().copied().fold(f64::INFINITY, f64::min),
                    };
                    if best.is_none_or(|b| alike > b.0) {
                        best = Some((alike, i, j));
                    }
                }
            }
            match best {
                Some((alike, i, j)) if alike >= f64::from(threshold) => {
                    let gone = groups.remove(i);
                    groups[j].extend(gone);
                    groups[j].sort_unstable();
                }
                _ => break,
            }
        }
        groups.sort_by(|a, b| b.len().cmp(&a.len()).then(a[0].cmp(&b[0])));
        groups
    }

    proptest! {
        #[test]
        fn chains_find_what_the_definition_finds(
            points in prop::collection::vec(prop::collection::vec(-1.0_f32..1.0, 3), 1..14),
            threshold in -0.5_f32..1.0, complete in any::<bool>(),
        ) {
            prop_assume!(points.iter().all(|p| p.iter().map(|v| v * v).sum::<f32>() > 1e-3));
            let faces: Vec<Embedding> = points.iter().map(|p| embedding(p)).collect();
            let linkage = if complete { Linkage::Complete } else { Linkage::Average };
            prop_assert_eq!(cluster(&faces, linkage, threshold), by_definition(&faces, linkage, threshold));
        }
    }

    #[test]
    fn no_face_and_one_face() {
        assert!(cluster(&[], Linkage::Average, 0.5).is_empty());
        assert_eq!(cluster(&[embedding(&[1.0])], Linkage::Average, 0.5), [[0]]);
    }

    #[test]
    fn agreement_counts_pairs() {
        // {0 1 | 2} with 0, 1 of Ann and 2, 3 of Bob, 3 alone.
        let groups = vec![vec![0, 1, 2], vec![3]];
        let agreement = agreement(&groups, &[7, 7, 9, 9]);
        assert!((agreement.precision - 1.0 / 3.0).abs() < 1e-9 && (agreement.recall - 0.5).abs() < 1e-9);
        assert!((agreement.f1 - 0.4).abs() < 1e-9);
        assert_eq!(super::agreement(&[vec![0], vec![1]], &[1, 2]).f1, 1.0);
    }

    #[test]
    fn the_sheet_shows_the_largest_groups_that_fit() {
        let faces: Vec<RgbImage> =
            (0..7).map(|i| RgbImage::from_pixel(THUMBNAIL_PX, THUMBNAIL_PX, Rgb([i * 30, 0, 0]))).collect();
        let groups = vec![vec![0, 1, 2], vec![3, 4], vec![5, 6]];
        let (all, shown) = sheet(&groups, &faces, 2, 2, 10);
        assert_eq!(shown, 3);
        // Face 2 begins the second row of the first group.
        assert_eq!(all.get_pixel(BAR_PX + 1, GAP_PX + THUMBNAIL_PX + GAP_PX + 1).0, [60, 0, 0]);
        assert_eq!(sheet(&groups, &faces, 2, 2, 3).1, 2);
        assert_eq!(sheet(&groups, &faces, 2, 3, 10).1, 1);
        assert_eq!(sheet(&[], &faces, 2, 1, 10).1, 0);
    }
}

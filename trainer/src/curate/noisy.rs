//! Maker of a heap that is noisy on purpose, from pictures whose people are known: what curation is measured on.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use image::codecs::jpeg::JpegEncoder;
use thiserror::Error;

use super::edit::{Edit, no_face};
use super::svm::below;
use crate::dataset::pictures::{Pictures, SourceError};
use crate::progress::Progress;

/// The list of what each picture is, in the heap's folder.
pub const TRUTH: &str = "truth.csv";

/// What the heap is made of. Shares are of all its pictures; what is left are right, different pictures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mix {
    /// People.
    pub people: usize,
    /// Right, different pictures a person: those with fewer than half of it are not taken.
    pub pictures: usize,
    /// Wrong faces: half of one other person, a namesake, and half of anybody.
    pub wrong: f64,
    /// Near-duplicates of right pictures, of each [`Edit`] by turns.
    pub duplicates: f64,
    /// Pictures without a face.
    pub no_faces: f64,
    /// Draws everything.
    pub seed: u64,
}

/// How many pictures of each kind were written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// People.
    pub people: usize,
    /// Right, different pictures.
    pub right: usize,
    /// Wrong faces.
    pub wrong: usize,
    /// Near-duplicates.
    pub duplicates: usize,
    /// Pictures without a face.
    pub no_faces: usize,
}

/// Writes a folder per person with numbered pictures in random order, and [`TRUTH`]: path, person, kind (`right`, `wrong`, `duplicate`,
/// `no-face`), the original's path and the edit of a duplicate, and `right` (1 where the picture shows the person).
///
/// # Errors
/// [`NoisyError`].
pub fn make(pictures: &Pictures, out: &Path, mix: Mix, progress: &dyn Progress) -> Result<Made, NoisyError> {
    if out.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(NoisyError::NotEmpty { path: out.to_owned() });
    }
    let mut state = mix.seed;
    let mut by_name: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for (row, at) in pictures.rows().iter().zip(0..) {
        if let (Some(name), false) = (&row.identity, row.masked) {
            by_name.entry(name).or_default().push(at);
        }
    }
    let mut people: Vec<(&str, Vec<u32>)> = by_name.into_iter().collect();
    shuffle(&mut people, &mut state);
    // Those with most pictures are collected, the others lend the wrong faces.
    people.sort_by_key(|(_, rows)| std::cmp::Reverse(rows.len().min(mix.pictures)));
    let fit = people.iter().take_while(|(_, rows)| rows.len() * 2 >= mix.pictures).count();
    let count = mix.people.min(fit);
    let strangers: Vec<Vec<u32>> = people.split_off(count).into_iter().map(|(_, rows)| rows).collect();
    let good = 1.0 - mix.wrong - mix.duplicates - mix.no_faces;
    if count == 0 || good <= 0.05 || (strangers.is_empty() && mix.wrong > 0.0) {
        return Err(NoisyError::TooFew { fit, all: count + strangers.len() });
    }
    let mut made = Made { people: count, ..Made::default() };
    let mut truth = "path,person,kind,of,edit,right\n".to_owned();
    progress.start("people", count as u64);
    for (name, mut rows) in people {
        shuffle(&mut rows, &mut state);
        rows.truncate(mix.pictures);
        let share = |share: f64| (rows.len() as f64 * share / good).round() as usize;
        let mut plan: Vec<Kind> = rows.iter().map(|&row| Kind::Right(row)).collect();
        let namesake = below(&mut state, strangers.len().max(1));
        for i in 0..share(mix.wrong) {
            let whose = if i % 2 == 0 { namesake } else { below(&mut state, strangers.len()) };
            let stranger = &strangers[whose];
            plan.push(Kind::Wrong(stranger[below(&mut state, stranger.len())]));
        }
        for i in 0..share(mix.duplicates) {
            plan.push(Kind::Duplicate(rows[below(&mut state, rows.len())], Edit::ALL[i % Edit::ALL.len()]));
        }
        plan.extend((0..share(mix.no_faces)).map(|_| Kind::NoFace(rows[below(&mut state, rows.len())])));
        shuffle(&mut plan, &mut state);
        let folder = out.join(name);
        let failed = |path: &Path, reason: String| NoisyError::Picture { path: path.to_owned(), reason };
        std::fs::create_dir_all(&folder).map_err(|e| failed(&folder, e.to_string()))?;
        let extension = |row: u32| {
            let member = &pictures.rows()[row as usize].member;
            member.rsplit_once('.').map_or("jpg", |(_, extension)| extension).to_owned()
        };
        let file = |at: usize, kind: &Kind| match kind {
            Kind::Right(row) | Kind::Wrong(row) => format!("{name}/{at:04}.{}", extension(*row)),
            _ => format!("{name}/{at:04}.jpg"),
        };
        let originals: BTreeMap<u32, String> = plan
            .iter()
            .enumerate()
            .filter_map(|(at, kind)| match kind {
                Kind::Right(row) => Some((*row, file(at, kind))),
                _ => None,
            })
            .collect();
        for (at, kind) in plan.iter().enumerate() {
            let path = file(at, kind);
            let of = |row: u32| pictures.rows()[row as usize].path();
            let read = |row: u32| pictures.bytes(row as usize).map_err(|e| failed(Path::new(&of(row)), e));
            let open = |row: u32| super::decode(&read(row)?).map_err(|e| failed(Path::new(&of(row)), e));
            let (bytes, line) = match *kind {
                Kind::Right(row) => (read(row)?, "right,,,1".to_owned()),
                Kind::Wrong(row) => (read(row)?, "wrong,,,0".to_owned()),
                Kind::Duplicate(row, edit) => {
                    let bytes =
                        edit.make(&open(row)?, &mut state).map_err(|e| failed(Path::new(&path), e))?;
                    (bytes, format!("duplicate,{},{},1", originals[&row], edit.name()))
                }
                Kind::NoFace(row) => {
                    let mut bytes = Vec::new();
                    no_face(&open(row)?, &mut state)
                        .write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, 90))
                        .map_err(|e| failed(Path::new(&path), e.to_string()))?;
                    (bytes, "no-face,,,0".to_owned())
                }
            };
            match kind {
                Kind::Right(_) => made.right += 1,
                Kind::Wrong(_) => made.wrong += 1,
                Kind::Duplicate(..) => made.duplicates += 1,
                Kind::NoFace(_) => made.no_faces += 1,
            }
            let _ = writeln!(truth, "{path},{name},{line}");
            let path = out.join(path);
            std::fs::write(&path, bytes).map_err(|e| failed(&path, e.to_string()))?;
        }
        progress.step();
    }
    progress.finish();
    let path = out.join(TRUTH);
    std::fs::write(&path, truth).map_err(|e| NoisyError::Picture { path, reason: e.to_string() })?;
    Ok(made)
}

enum Kind {
    Right(u32),
    Wrong(u32),
    Duplicate(u32, Edit),
    NoFace(u32),
}

fn shuffle<T>(items: &mut [T], state: &mut u64) {
    for i in (1..items.len()).rev() {
        items.swap(i, below(state, i + 1));
    }
}

/// Why no heap was made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NoisyError {
    /// The folder holds something.
    #[error("{} is not empty: name a new folder", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// There are not people enough.
    #[error(
        "of {all} people {fit} have half the pictures asked for; some must be left to lend wrong faces, and right pictures be over 5 %: ask for fewer"
    )]
    TooFew {
        /// With enough pictures.
        fit: usize,
        /// Of all.
        all: usize,
    },
    /// The pictures.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A picture cannot be read or written.
    #[error("cannot make {}: {reason}", path.display())]
    Picture {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    #[test]
    fn the_heap_has_the_shares_asked_for_and_is_the_same_for_the_same_seed() {
        let dir = tempfile::tempdir().unwrap();
        for (name, count) in [("ann", 12), ("bob", 11), ("cat", 4), ("dan", 4)] {
            std::fs::create_dir_all(dir.path().join("in").join(name)).unwrap();
            for i in 0..count {
                let colour = image::Rgb([name.as_bytes()[0], i * 20, 9]);
                let path = dir.path().join("in").join(name).join(format!("{i}.png"));
                image::RgbImage::from_pixel(32, 32, colour).save(path).unwrap();
            }
        }
        let pictures = Pictures::open(&dir.path().join("in")).unwrap();
        let mix = Mix { people: 2, pictures: 10, wrong: 0.3, duplicates: 0.2, no_faces: 0.1, seed: 4 };
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let made = make(&pictures, &a, mix, &Silent).unwrap();
        // 10 right pictures are 40 %: of 25, 7.5 are wrong, 5 duplicates and 2.5 no faces.
        assert_eq!((made.people, made.right, made.wrong, made.duplicates, made.no_faces), (2, 20, 16, 10, 6));
        assert!(matches!(make(&pictures, &a, mix, &Silent), Err(NoisyError::NotEmpty { .. })));
        make(&pictures, &b, mix, &Silent).unwrap();
        let truth = std::fs::read_to_string(a.join(TRUTH)).unwrap();
        assert_eq!(truth, std::fs::read_to_string(b.join(TRUTH)).unwrap());
        assert_eq!(truth.lines().count(), 1 + 52);
        for line in truth.lines().skip(1) {
            let fields: Vec<&str> = line.split(',').collect();
            let bytes = std::fs::read(a.join(fields[0])).unwrap();
            let colour = image::load_from_memory(&bytes).unwrap().into_rgb8().get_pixel(16, 16).0[0];
            match fields[2] {
                "right" => assert_eq!(colour, fields[1].as_bytes()[0]),
                "wrong" => assert!(colour == b'c' || colour == b'd'),
                "duplicate" => assert!(truth.contains(&format!("{},{},right", fields[3], fields[1]))),
                _ => assert_eq!(fields[5], "0"),
            }
        }
        let all = Mix { people: 9, pictures: 2, ..mix };
        assert!(matches!(
            make(&pictures, &dir.path().join("c"), all, &Silent),
            Err(NoisyError::TooFew { .. })
        ));
    }
}

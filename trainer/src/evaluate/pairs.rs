//! LFW's pairs files.
//!
//! The first line is `N` (development view: N pairs of one person, then N pairs of two) or `F N` (F folds, each N and N).
//! A pair of one person is `name i j`, a pair of two is `name i other j`; picture i of a name is `name/name_000i.jpg` (LFW
//! README; Huang et al. 2007, section IV).

use std::path::{Path, PathBuf};

use thiserror::Error;

/// A picture by person and running number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Picture {
    /// The person's folder.
    pub person: String,
    /// From 1.
    pub number: u32,
}

impl Picture {
    /// Its path below the image folder.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(&self.person).join(format!("{}_{:04}.jpg", self.person, self.number))
    }
}

/// Two pictures to compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// One picture.
    pub first: Picture,
    /// The other.
    pub second: Picture,
    /// Which fold it belongs to, from 0.
    pub fold: usize,
    /// Line in the file, from 1.
    pub line: usize,
}

impl Pair {
    /// Whether both show one person.
    #[must_use]
    pub fn same(&self) -> bool {
        self.first.person == self.second.person
    }
}

/// A whole pairs file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pairs {
    /// In the order of the file.
    pub pairs: Vec<Pair>,
    /// How many folds there are.
    pub folds: usize,
    /// Whether the file itself names the folds. A development file does not: its pairs of each sort are cut into
    /// [`DEVELOPMENT_FOLDS`] runs of equal length.
    pub folds_declared: bool,
}

/// Folds made from a file that names none.
pub const DEVELOPMENT_FOLDS: usize = 10;

impl Pairs {
    /// Reads `path`.
    ///
    /// # Errors
    /// [`PairsError`], naming file and line.
    pub fn read(path: &Path) -> Result<Self, PairsError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| PairsError::Unreadable { path: path.into(), source })?;
        Self::parse(&text).map_err(|(line, reason)| PairsError::Line { path: path.into(), line, reason })
    }

    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut lines =
            text.lines().enumerate().map(|(at, line)| (at + 1, line.split_whitespace().collect::<Vec<_>>()));
        let header = lines.next().map(|(_, fields)| fields).unwrap_or_default();
        let counts: Option<Vec<usize>> =
            header.iter().map(|field| field.parse().ok().filter(|&n| (1..=MAX_PAIRS).contains(&n))).collect();
        let (sets, count, folds_declared) = match counts.as_deref() {
            Some([count]) => (1, *count, false),
            Some([sets, count]) if *sets >= 2 => (*sets, *count, true),
            _ => {
                return Err((
                    1,
                    "the first line holds the number of pairs, or folds and pairs: `500` or `10 300`".into(),
                ));
            }
        };
        let mut pairs = Vec::new();
        for set in 0..sets {
            for same in [true, false] {
                for index in 0..count {
                    let due = if same { "name i j" } else { "name i other j" };
                    let (line, fields) = lines.next().ok_or_else(|| {
                        let seen = text.lines().count();
                        (
                            seen,
                            format!(
                                "the file ends here, though {} lines were announced",
                                1 + 2 * sets * count
                            ),
                        )
                    })?;
                    let (first, second) =
                        pair(&fields, same).map_err(|why| (line, format!("{why}; `{due}` is due here")))?;
                    let fold = if folds_declared { set } else { index * DEVELOPMENT_FOLDS / count };
                    pairs.push(Pair { first, second, fold, line });
                }
            }
        }
        if let Some((line, _)) = lines.find(|(_, fields)| !fields.is_empty()) {
            return Err((line, format!("more lines than the {} announced", 1 + 2 * sets * count)));
        }
        let folds = if folds_declared { sets } else { DEVELOPMENT_FOLDS.min(count) };
        Ok(Self { pairs, folds, folds_declared })
    }
}

fn pair(fields: &[&str], same: bool) -> Result<(Picture, Picture), String> {
    match (fields, same) {
        ([name, i, j], true) if i != j => Ok((picture(name, i)?, picture(name, j)?)),
        ([_, i, _], true) => Err(format!("picture {i} is paired with itself")),
        ([name, i, other, j], false) if name != other => Ok((picture(name, i)?, picture(other, j)?)),
        ([name, ..], false) if fields.len() == 4 => Err(format!("{name} is paired with the same name")),
        _ => Err(format!("{} fields", fields.len())),
    }
}

fn picture(person: &str, number: &str) -> Result<Picture, String> {
    if person.starts_with('.') || person.contains(['/', '\\']) {
        return Err(format!("'{person}' is no name of a folder"));
    }
    let number = number
        .parse()
        .ok()
        .filter(|&n| n > 0)
        .ok_or_else(|| format!("'{number}' is no picture number, from 1"))?;
    Ok(Picture { person: person.into(), number })
}

/// Why a pairs file cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PairsError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A line is wrong.
    #[error("{} line {line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is there and what is due.
        reason: String,
    },
}

/// View 2 has 6,000 pairs, the largest published lists a few million.
const MAX_PAIRS: usize = 10_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_development_file_gets_ten_folds() {
        let same = (1..=20).map(|i| format!("Ann\t{i}\t{}\n", i + 1)).collect::<String>();
        let other = (1..=20).map(|i| format!("Ann\t{i}\tBob\t1\n")).collect::<String>();
        let pairs = Pairs::parse(&format!("20\n{same}{other}")).unwrap();
        assert_eq!((pairs.pairs.len(), pairs.folds, pairs.folds_declared), (40, 10, false));
        for fold in 0..10 {
            let of_fold = |same| pairs.pairs.iter().filter(|p| p.fold == fold && p.same() == same).count();
            assert_eq!((of_fold(true), of_fold(false)), (2, 2));
        }
        assert_eq!(pairs.pairs[0].second.path(), Path::new("Ann/Ann_0002.jpg"));
        assert_eq!(pairs.pairs[39].line, 41);
    }

    #[test]
    fn declared_folds_are_kept() {
        let text = "2 1\nA 1 2\nA 1 B 1\nB 1 2\nB 1 C 3\n";
        let pairs = Pairs::parse(text).unwrap();
        assert!(pairs.folds_declared);
        assert_eq!(
            pairs.pairs.iter().map(|p| (p.fold, p.same())).collect::<Vec<_>>(),
            [(0, true), (0, false), (1, true), (1, false)]
        );
    }

    #[test]
    fn wrong_lines_are_numbered() {
        let cases = [
            ("", 1, "first line"),
            ("x\n", 1, "first line"),
            ("0\n", 1, "first line"),
            ("1\nA 1\n", 2, "2 fields; `name i j`"),
            ("1\nA 1 1\n", 2, "with itself"),
            ("1\nA 1 2\nA 1 B x\n", 3, "'x' is no picture number"),
            ("1\nA 1 2\nA 1 A 2\n", 3, "same name"),
            ("1\nA 1 2\nA 1 3\n", 3, "3 fields; `name i other j`"),
            ("1\nA 1 2\n", 2, "ends here, though 3 lines"),
            ("1\nA 1 2\nA 1 B 1\nC 1 2\n", 4, "more lines"),
            ("1\n../A 1 2\nA 1 B 1\n", 2, "no name of a folder"),
        ];
        for (text, line, part) in cases {
            let (at, why) = Pairs::parse(text).unwrap_err();
            assert!(at == line && why.contains(part), "{text:?}: line {at}: {why}");
        }
    }
}

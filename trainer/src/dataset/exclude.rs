//! People who must not be learnt from, because a benchmark measures with them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use thiserror::Error;

use super::manifest::Row;

/// Names from evaluation lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Excluded {
    /// How a name was spelled, by its letters alone.
    names: BTreeMap<String, String>,
}

impl Excluded {
    /// Reads lists: LFW's pairs files (`name i j`, `name i other j`), its people files (`name count`), or one name a line.
    ///
    /// # Errors
    /// [`ExcludeError`] when a file cannot be read or names nobody.
    pub fn read(paths: &[PathBuf]) -> Result<Self, ExcludeError> {
        let mut names = BTreeMap::new();
        for path in paths {
            let text = std::fs::read_to_string(path)
                .map_err(|source| ExcludeError::Unreadable { path: path.clone(), source })?;
            let before = names.len();
            names.extend(text.lines().flat_map(names_in));
            if names.len() == before && before == 0 {
                return Err(ExcludeError::Nobody { path: path.clone() });
            }
        }
        Ok(Self { names })
    }

    /// How many people the lists name.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether they name nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The names as the lists spell them.
    pub fn spelled(&self) -> impl Iterator<Item = &str> {
        self.names.values().map(String::as_str)
    }

    /// Marks the rows that may be learnt from, and says who is left out: (identities, pictures).
    #[must_use]
    pub fn allow(&self, rows: &[Row]) -> (Vec<bool>, usize, usize) {
        let mut dropped = BTreeSet::new();
        let allowed: Vec<bool> = rows
            .iter()
            .map(|row| match &row.identity {
                Some(name) if self.names.contains_key(&plain(name)) => {
                    dropped.insert(name.as_str());
                    false
                }
                _ => true,
            })
            .collect();
        let pictures = allowed.iter().filter(|&&a| !a).count();
        (allowed, dropped.len(), pictures)
    }
}

/// `Aaron_Eckhart`, `aaron eckhart` and `AARON-ECKHART` are one person.
fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Words between numbers are names: numbers count pictures.
fn names_in(line: &str) -> Vec<(String, String)> {
    let number = |word: &str| word.chars().all(|c| c.is_ascii_digit());
    let words: Vec<&str> = line.split_whitespace().collect();
    words
        .split(|word| number(word))
        .filter(|name| !name.is_empty())
        .map(|name| (plain(&name.concat()), name.join(" ")))
        .filter(|(name, _)| !name.is_empty())
        .collect()
}

/// A list that cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExcludeError {
    /// It cannot be read.
    #[error("cannot read the evaluation list {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It names nobody.
    #[error("the evaluation list {} names nobody: pairs or people files of LFW, or one name a line", path.display())]
    Nobody {
        /// The file.
        path: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_people_and_plain_lists_are_read_and_spelling_does_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| -> PathBuf {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let lists = [
            write("pairs.txt", "10\t300\nAbel_Pacheco\t1\t4\nAbdul_Majeed\t1\tBen_Kingsley\t2\n"),
            write("people.txt", "2\nAaron_Eckhart\t1\n"),
            write("names.txt", "Zoe Saldana\n"),
        ];
        let excluded = Excluded::read(&lists).unwrap();
        assert!(excluded.spelled().any(|name| name == "Zoe Saldana"));
        assert_eq!(excluded.len(), 5);
        let row = |name: &str| Row {
            shard: "s.tar".into(),
            member: "x.png".into(),
            set: String::new(),
            identity: (!name.is_empty()).then(|| name.to_owned()),
            masked: false,
        };
        let rows =
            ["aaron eckhart", "BEN_KINGSLEY", "zoe-saldana", "zoe-saldana", "Ben", ""].map(row).to_vec();
        assert_eq!(excluded.allow(&rows), (vec![false, false, false, false, true, true], 3, 4));
        assert!(matches!(Excluded::read(&[write("none.txt", "10 300\n")]), Err(ExcludeError::Nobody { .. })));
    }
}

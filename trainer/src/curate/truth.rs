//! Labels of single pictures, and how pure each stage's result is by them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::store::{Candidate, Source, Stage, Store, StoreError};
use super::svm::dot;
use super::table::{Table, place};
use crate::evaluate::interval::{Interval, wilson};

/// What a person said of pictures: by their names in the source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// Right, and what it is a duplicate of.
    by_name: HashMap<String, (bool, Option<String>)>,
}

impl Labels {
    /// Reads a CSV with columns `path` and `right` (1 or 0), and optionally `of`: the picture that this one is a near-duplicate of.
    ///
    /// # Errors
    /// [`LabelsError`] naming the line.
    pub fn read(path: &Path) -> Result<Self, LabelsError> {
        let bad = |line, reason: String| LabelsError { path: path.to_owned(), line, reason };
        let table = Table::read(path).map_err(|(line, reason)| bad(line, reason))?;
        let header = &table.header;
        let column = |name: &str| header.iter().position(|column| column == name);
        let need =
            |name: &str| column(name).ok_or_else(|| bad(1, format!("the header has no column '{name}'")));
        let (name, right, of) = (need("path")?, need("right")?, column("of"));
        let mut by_name = HashMap::new();
        for (line, row) in &table.rows {
            let verdict = match row[right].trim() {
                "1" => true,
                "0" => false,
                // Not labelled yet.
                "" => continue,
                other => return Err(bad(*line, format!("'{other}' is neither 1 nor 0"))),
            };
            let of = of.map(|at| row[at].clone()).filter(|of| !of.is_empty());
            by_name.insert(row[name].clone(), (verdict, of));
        }
        if by_name.is_empty() {
            return Err(bad(1, "it labels nothing".into()));
        }
        Ok(Self { by_name })
    }

    /// How many pictures are labelled.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    fn of(&self, name: &str) -> Option<&(bool, Option<String>)> {
        self.by_name.get(name)
    }
}

/// What a picture is called in labels: its name in the source, with the source's number before it where there are several.
#[must_use]
pub fn name_of(candidate: &Candidate, sources: &[Source]) -> String {
    match sources.len() {
        0 | 1 => candidate.place.name().to_owned(),
        _ => format!("{}:{}", candidate.source, candidate.place.name()),
    }
}

/// How pure a set of pictures is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Purity {
    /// People with a picture.
    pub people: usize,
    /// Pictures.
    pub pictures: usize,
    /// Of those the labelled ones.
    pub labelled: usize,
    /// Of the labelled those that show the person.
    pub right: usize,
    /// Of the labelled those whose picture, or a near-duplicate of it, is in the set already.
    pub duplicates: usize,
}

impl Purity {
    /// Share of right ones, with its 95 % interval.
    #[must_use]
    pub fn share(&self) -> (f64, Interval) {
        (self.right as f64 / self.labelled.max(1) as f64, wilson(self.right, self.labelled))
    }

    fn add(&mut self, of_person: &[Option<&(bool, Option<String>)>], names: &[String]) {
        if names.is_empty() {
            return;
        }
        self.people += 1;
        self.pictures += names.len();
        let mut seen = std::collections::HashSet::new();
        for (label, name) in of_person.iter().zip(names) {
            if let Some((right, of)) = label {
                self.labelled += 1;
                self.right += usize::from(*right);
                self.duplicates += usize::from(!seen.insert(of.as_deref().unwrap_or(name)));
            }
        }
    }
}

/// Purity of what every stage from `candidates` on kept, by `labels`. One person at a time.
///
/// # Errors
/// [`StoreError`].
pub fn stages(store: &Store, labels: &Labels) -> Result<Vec<(Stage, Purity)>, StoreError> {
    let sources = store.sources()?;
    let mut all: Vec<(Stage, Purity)> = Vec::new();
    for (at, stage) in Stage::ALL.into_iter().enumerate() {
        if store.state(stage)?.is_some_and(|state| state.done) {
            let mut purity = Purity::default();
            let next = Stage::ALL.get(at + 1).copied();
            for (person, _) in store.people()? {
                let kept = match next {
                    Some(next) => store.alive(person, next)?,
                    None => store.kept(person)?,
                };
                let names: Vec<String> = kept.iter().map(|(_, c)| name_of(c, &sources)).collect();
                purity.add(&names.iter().map(|name| labels.of(name)).collect::<Vec<_>>(), &names);
            }
            all.push((stage, purity));
        }
    }
    Ok(all)
}

/// What a plain filter keeps: of each person's faces those whose embedding is at least `least` like the mean of all of them.
///
/// # Errors
/// [`StoreError`].
pub fn plain_filter(store: &Store, labels: &Labels, least: &[f32]) -> Result<Vec<Purity>, StoreError> {
    let sources = store.sources()?;
    let mut all = vec![Purity::default(); least.len()];
    for (person, _) in store.people()? {
        let faces = store.faces(&store.alive_keys(person, Stage::Verify)?)?;
        let vectors: Vec<Vec<f32>> = faces.iter().map(|(_, face)| face.vector()).collect();
        let Some(mean) = crate::evaluate::pool::mean(vectors.iter().map(Vec::as_slice)) else { continue };
        for (purity, &least) in all.iter_mut().zip(least) {
            let mut names = Vec::new();
            for ((key, _), vector) in faces.iter().zip(&vectors) {
                if dot(vector, &mean) >= least {
                    names.extend(store.candidate(*key)?.map(|c| name_of(&c, &sources)));
                }
            }
            purity.add(&names.iter().map(|name| labels.of(name)).collect::<Vec<_>>(), &names);
        }
    }
    Ok(all)
}

/// Purity by place in the ranking, over all people: the first tenth of each person's pictures, the second, and so on.
///
/// # Errors
/// [`StoreError`].
pub fn by_rank(store: &Store, labels: &Labels) -> Result<[Purity; 10], StoreError> {
    let sources = store.sources()?;
    let mut bands = [Purity::default(); 10];
    for (person, _) in store.people()? {
        let mut scores = store.scores(person)?;
        scores.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        for (place, (key, _)) in scores.iter().enumerate() {
            let Some(candidate) = store.candidate(*key)? else { continue };
            let name = name_of(&candidate, &sources);
            let band = &mut bands[place * 10 / scores.len()];
            band.pictures += 1;
            if let Some((right, _)) = labels.of(&name) {
                band.labelled += 1;
                band.right += usize::from(*right);
            }
        }
    }
    Ok(bands)
}

/// Labels that cannot be used.
#[derive(Debug, Error)]
#[error("{}: {reason}", place(path, *line))]
pub struct LabelsError {
    path: PathBuf,
    line: u64,
    reason: String,
}

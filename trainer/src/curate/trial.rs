//! How well near-duplicates are found: each edit of pictures at hand against all pictures of their person.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::dedupe::VOCABULARY;
use super::describe::shared_out;
use super::edit::Edit;
use super::local::describe;
use super::sources::Reader;
use super::store::{Candidate, Face, Key, Stage, Store, StoreError};
use super::vlad::{Vlad, Vocabulary};
use super::{canvas, decode, grey};
use crate::evaluate::pictures::{Eyes, look};
use crate::progress::Progress;

/// What was measured of one edit.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Which.
    pub edit: Edit,
    /// Edited pictures in which a face was found.
    pub tried: usize,
    /// Cosine with the original: smallest, twentieth part and half of them.
    pub low: [f32; 3],
    /// For each threshold: originals found, and other pictures of the person found.
    pub found: Vec<(usize, usize)>,
}

/// Edits `count` pictures that dedupe kept, each in every way, and compares them with all kept pictures of their person. Another picture
/// that is found counts as wrong, although the heap may hold near-duplicates that dedupe has missed.
///
/// # Errors
/// [`StoreError`].
pub fn run<E: Eyes + Send>(
    store: &Store,
    reader: &Reader,
    eyes: &mut [E],
    (count, thresholds): (usize, &[f32]),
    progress: &dyn Progress,
) -> Result<Vec<Line>, StoreError> {
    store.need(Stage::Dedupe)?;
    let vocabulary = store.blob(VOCABULARY)?.and_then(|bytes| Vocabulary::from_bytes(&bytes));
    let vocabulary = vocabulary.ok_or(StoreError::NotYet { stage: Stage::Dedupe })?;
    let mut jobs: Vec<Job> = Vec::new();
    let mut of_person: BTreeMap<u32, Vec<(Key, Vlad)>> = BTreeMap::new();
    for key in super::rank::sample(store, Stage::Review, count, 2)? {
        let others = match of_person.entry(key.person) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(unknown) => {
                let mut all = Vec::new();
                for key in store.alive_keys(key.person, Stage::Review)? {
                    all.extend(store.vlad(key)?.and_then(|b| Vlad::from_bytes(&b)).map(|vlad| (key, vlad)));
                }
                unknown.insert(all).clone()
            }
        };
        jobs.extend(store.candidate(key)?.map(|candidate| Job { key, candidate, others }));
    }
    progress.start("pictures edited", jobs.len() as u64);
    let seen = shared_out(&jobs, eyes, |eyes, Job { key, candidate, others }| {
        let picture = reader.bytes(candidate).and_then(|bytes| decode(&bytes));
        let mut results = Vec::new();
        if let Ok(picture) = picture {
            let mut state = u64::from(key.index) << 32 | u64::from(key.person);
            for edit in Edit::ALL {
                let vlad = edit.make(&picture, &mut state).ok().and_then(|b| vlad_of(&b, eyes, &vocabulary));
                results.extend(vlad.map(|vlad| {
                    let (mut own, mut rest) = (0.0, Vec::new());
                    for (other, theirs) in others {
                        let alike = vlad.alike(theirs);
                        if other == key { own = alike } else { rest.push(alike) }
                    }
                    (edit, own, rest)
                }));
            }
        }
        progress.step();
        results
    });
    progress.finish();
    let seen: Vec<_> = seen.into_iter().flatten().collect();
    Ok(Edit::ALL
        .into_iter()
        .map(|edit| {
            let of: Vec<_> = seen.iter().filter(|(e, ..)| *e == edit).collect();
            let mut own: Vec<f32> = of.iter().map(|(_, own, _)| *own).collect();
            own.sort_by(f32::total_cmp);
            let at = |share: f32| own.get((own.len() as f32 * share) as usize).copied().unwrap_or(0.0);
            let found = thresholds.iter().map(|&threshold| {
                let right = own.iter().filter(|&&a| a >= threshold).count();
                let wrong = of.iter().flat_map(|(.., rest)| rest).filter(|&&a| a >= threshold).count();
                (right, wrong)
            });
            Line { edit, tried: of.len(), low: [at(0.0), at(0.05), at(0.5)], found: found.collect() }
        })
        .collect())
}

/// A picture to edit, and what its person has kept.
struct Job {
    key: Key,
    candidate: Candidate,
    others: Vec<(Key, Vlad)>,
}

fn vlad_of<E: Eyes>(bytes: &[u8], eyes: &mut E, vocabulary: &Vocabulary) -> Option<Vlad> {
    let picture = decode(bytes).ok()?;
    let seen = look(eyes, &picture).ok()??;
    let points = seen.detection.landmarks.0;
    let face = Face {
        sha256: Vec::new(),
        landmarks: std::array::from_fn(|i| if i % 2 == 0 { points[i / 2].x } else { points[i / 2].y }),
        codes: Vec::new(),
        detection: seen.detection.score,
        size: picture.dimensions(),
    };
    Some(vocabulary.vlad(&describe(&grey(&canvas(&picture, &face).ok()?))))
}

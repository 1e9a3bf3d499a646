//! Stage `describe`: every candidate decoded, its face found, aligned and embedded by the door's own code.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use facelatch_shared::embedding::Template;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::sources::{Reader, SourceError};
use super::store::{Candidate, Drop, Face, Key, Stage, State, Store, StoreError};
use crate::evaluate::pictures::{Eyes, look};
use crate::progress::Progress;

/// Describes all candidates, one thread an eye; pictures without a face and unreadable ones are dropped. Goes on where it stopped.
/// `models` names what looks: it may not change in between.
///
/// # Errors
/// [`DescribeError`]. One bad picture is none.
pub fn run<E: Eyes + Send>(
    store: &Store,
    eyes: &mut [E],
    models: &str,
    again: bool,
    progress: &dyn Progress,
) -> Result<State, DescribeError> {
    store.need(Stage::Candidates)?;
    let mut state = store.begin(Stage::Describe, models, again)?;
    if state.done {
        return Ok(state);
    }
    let reader = Reader::open(&store.sources()?)?;
    let people: Vec<u32> = store.people()?.into_iter().map(|(number, _)| number).collect();
    let total: u64 = people.iter().map(|&p| store.count(p).map(u64::from)).sum::<Result<_, _>>()?;
    progress.start("pictures described", total.saturating_sub(state.seen));
    let mut batch: Vec<(Key, Candidate)> = Vec::new();
    for &person in people.iter().filter(|&&p| u64::from(p) >= state.cursor[0]).collect::<Vec<_>>() {
        // The cursor names the next picture: (person, index).
        let from = if u64::from(person) == state.cursor[0] { state.cursor[1] } else { 0 };
        for (key, candidate) in store.alive(person, Stage::Describe)? {
            if u64::from(key.index) < from {
                continue;
            }
            batch.push((key, candidate));
            if batch.len() == BATCH {
                flush(store, &reader, eyes, &mut batch, &mut state, progress)?;
            }
        }
    }
    flush(store, &reader, eyes, &mut batch, &mut state, progress)?;
    progress.finish();
    state.done = true;
    state.seconds += store.lap();
    store.write(|txn| txn.put_state(Stage::Describe, &state))?;
    Ok(state)
}

fn flush<E: Eyes + Send>(
    store: &Store,
    reader: &Reader,
    eyes: &mut [E],
    batch: &mut Vec<(Key, Candidate)>,
    state: &mut State,
    progress: &dyn Progress,
) -> Result<(), DescribeError> {
    let Some(&(last, _)) = batch.last() else { return Ok(()) };
    let found = shared_out(batch, eyes, |eyes, (_, candidate)| {
        let result = one(reader, eyes, candidate);
        progress.step();
        result
    });
    state.cursor = [u64::from(last.person), u64::from(last.index) + 1, 0];
    state.seen += batch.len() as u64;
    state.seconds += store.lap();
    store.write(|txn| {
        for ((key, _), found) in batch.iter().zip(&found) {
            match found {
                Ok(face) => txn.put_face(*key, face)?,
                Err(why) => txn.drop(Stage::Describe, *key, why)?,
            }
        }
        txn.put_state(Stage::Describe, state)
    })?;
    batch.clear();
    Ok(())
}

fn one<E: Eyes>(reader: &Reader, eyes: &mut E, candidate: &Candidate) -> Result<Face, Drop> {
    let bytes = reader.bytes(candidate).map_err(Drop::Unreadable)?;
    let picture = super::decode(&bytes).map_err(Drop::Unreadable)?;
    let size = picture.dimensions();
    // A face that cannot be aligned or embedded teaches nobody.
    let seen = look(eyes, &picture).ok().flatten().ok_or(Drop::NoFace)?;
    let points = seen.detection.landmarks.0;
    Ok(Face {
        sha256: Sha256::digest(&bytes).to_vec(),
        landmarks: std::array::from_fn(|i| if i % 2 == 0 { points[i / 2].x } else { points[i / 2].y }),
        codes: Template::quantize(&seen.embedding).codes().to_vec(),
        detection: seen.detection.score,
        size,
    })
}

/// `work` for every item, on one thread a worker; results in the items' order.
pub(super) fn shared_out<I: Sync, W: Send, T: Send>(
    items: &[I],
    workers: &mut [W],
    work: impl Fn(&mut W, &I) -> T + Sync,
) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for worker in workers {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { return };
                    let result = work(worker, item);
                    done.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((at, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Pictures whose descriptions one write stores: what a kill costs at most.
const BATCH: usize = if cfg!(test) { 4 } else { 64 };

/// Why candidates could not be described.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DescribeError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A source is gone.
    #[error(transparent)]
    Source(#[from] SourceError),
}

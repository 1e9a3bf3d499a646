//! What a curation has decided so far, in one file that survives being killed at any point.

mod records;
mod tables;
mod txn;
mod error;

pub use error::StoreError;
pub use records::{Candidate, Drop, Face, Key, Person, Place, Source, Stage, State};
pub use txn::Txn;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use redb::{Database, ReadableDatabase as _, ReadableTable as _};
use serde::de::DeserializeOwned;

use tables::{
    BLOBS, BUCKETS, CACHE_BYTES, CANDIDATES, COUNTS, DROPS, FACES, MARKS, PEOPLE, SCORES, SOURCES, STATES,
    VLADS, db, decode, range,
};

/// The store's name in the folder of a curation.
pub const FILE: &str = "curate.redb";

/// The store of one curation.
pub struct Store {
    db: Database,
    dir: PathBuf,
    started: Cell<Instant>,
    /// Writes until an interruption that a test has ordered.
    fuse: Cell<Option<u32>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store in `dir`, making both where they are missing.
    ///
    /// # Errors
    /// [`StoreError`] when another process has it open or the file is damaged.
    pub fn create(dir: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(dir).map_err(|source| StoreError::Folder { path: dir.to_owned(), source })?;
        let path = dir.join(FILE);
        let db = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(&path)
            .map_err(|e| StoreError::Open { path, source: Box::new(e.into()) })?;
        let store =
            Self { db, dir: dir.to_owned(), started: Cell::new(Instant::now()), fuse: Cell::new(None) };
        store.write(|txn| txn.make_tables())?;
        Ok(store)
    }

    /// Opens a store that must be there already.
    ///
    /// # Errors
    /// [`StoreError::Missing`] where there is none.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        if !dir.join(FILE).is_file() {
            return Err(StoreError::Missing { path: dir.to_owned() });
        }
        Self::create(dir)
    }

    /// The folder it lies in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the write after `writes` more fail before it is stored, as if the process had been killed there. For tests.
    pub fn interrupt_after(&self, writes: u32) {
        self.fuse.set(Some(writes));
    }

    /// Writes all of `work` or nothing of it.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is stored then.
    pub fn write<T>(&self, work: impl FnOnce(&Txn) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let txn = Txn(self.db.begin_write().map_err(db)?);
        let value = work(&txn)?;
        match self.fuse.get() {
            Some(0) => return Err(StoreError::Interrupted),
            Some(left) => self.fuse.set(Some(left - 1)),
            None => {}
        }
        txn.0.commit().map_err(db)?;
        Ok(value)
    }

    /// How far `stage` has come; `None` when it never began.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn state(&self, stage: Stage) -> Result<Option<State>, StoreError> {
        let table = self.db.begin_read().map_err(db)?.open_table(STATES).map_err(db)?;
        table.get(stage as u8).map_err(db)?.map(|v| decode(v.value())).transpose()
    }

    /// Begins `stage`, or goes on with it: what the state says lies behind is done. `again` forgets what it and later stages decided.
    ///
    /// # Errors
    /// [`StoreError::Settings`] when it began with other settings, [`StoreError::Later`] when a later stage has worked without it.
    pub fn begin(&self, stage: Stage, settings: &str, again: bool) -> Result<State, StoreError> {
        self.started.set(Instant::now());
        match self.state(stage)? {
            Some(state) if !again && state.settings == settings => return Ok(state),
            Some(state) if !again => {
                return Err(StoreError::Settings { stage, was: state.settings, is: settings.to_owned() });
            }
            _ => {}
        }
        for later in Stage::ALL.into_iter().filter(|later| *later > stage && !again) {
            if self.state(later)?.is_some() {
                return Err(StoreError::Later { stage, later });
            }
        }
        let state = State { settings: settings.to_owned(), ..State::default() };
        self.write(|txn| {
            txn.forget_from(stage)?;
            txn.put_state(stage, &state)
        })?;
        Ok(state)
    }

    /// Refuses to go on where `stage` has not ended.
    ///
    /// # Errors
    /// [`StoreError::NotYet`].
    pub fn need(&self, stage: Stage) -> Result<State, StoreError> {
        self.state(stage)?.filter(|state| state.done).ok_or(StoreError::NotYet { stage })
    }

    /// Seconds since the stage began or was last asked: adds up over runs in [`State::seconds`].
    pub fn lap(&self) -> f64 {
        self.started.replace(Instant::now()).elapsed().as_secs_f64()
    }

    /// Everyone, by number.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn people(&self) -> Result<Vec<(u32, Person)>, StoreError> {
        let table = self.db.begin_read().map_err(db)?.open_table(PEOPLE).map_err(db)?;
        let all = table.iter().map_err(db)?;
        all.map(|row| row.map_err(db).and_then(|(k, v)| Ok((k.value(), decode(v.value())?)))).collect()
    }

    /// The sources, by number.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn sources(&self) -> Result<Vec<Source>, StoreError> {
        let table = self.db.begin_read().map_err(db)?.open_table(SOURCES).map_err(db)?;
        let all = table.iter().map_err(db)?;
        all.map(|row| row.map_err(db).and_then(|(_, v)| decode(v.value()))).collect()
    }

    /// How many candidates a person has.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn count(&self, person: u32) -> Result<u32, StoreError> {
        let table = self.db.begin_read().map_err(db)?.open_table(COUNTS).map_err(db)?;
        Ok(table.get(person).map_err(db)?.map_or(0, |v| v.value()))
    }

    /// A person's candidates that no stage before `stage` dropped, in their order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn alive(&self, person: u32, stage: Stage) -> Result<Vec<(Key, Candidate)>, StoreError> {
        let dropped = self.dropped(person, stage)?;
        let table = self.db.begin_read().map_err(db)?.open_table(CANDIDATES).map_err(db)?;
        let mut all = Vec::new();
        for row in table.range(range(person)).map_err(db)? {
            let (key, value) = row.map_err(db)?;
            if !dropped.contains(&key.value()) {
                all.push((Key::of(key.value()), decode(value.value())?));
            }
        }
        Ok(all)
    }

    /// A person's candidates that no stage dropped.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn kept(&self, person: u32) -> Result<Vec<(Key, Candidate)>, StoreError> {
        let review: BTreeSet<Key> =
            self.drops(person, Stage::Review)?.into_iter().map(|(key, _)| key).collect();
        let mut kept = self.alive(person, Stage::Review)?;
        kept.retain(|(key, _)| !review.contains(key));
        Ok(kept)
    }

    /// The same without where they are: keys only.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn alive_keys(&self, person: u32, stage: Stage) -> Result<Vec<Key>, StoreError> {
        let dropped = self.dropped(person, stage)?;
        let count = self.count(person)?;
        let all = (0..count).map(|index| Key { person, index });
        Ok(all.filter(|key| !dropped.contains(&key.bits())).collect())
    }

    fn dropped(&self, person: u32, before: Stage) -> Result<BTreeSet<u64>, StoreError> {
        let table = self.db.begin_read().map_err(db)?.open_table(DROPS).map_err(db)?;
        let mut dropped = BTreeSet::new();
        for stage in 0..before as u8 {
            let ends = range(person);
            for row in table.range((stage, *ends.start())..=(stage, *ends.end())).map_err(db)? {
                dropped.insert(row.map_err(db)?.0.value().1);
            }
        }
        Ok(dropped)
    }

    /// What `stage` dropped of `person`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn drops(&self, person: u32, stage: Stage) -> Result<Vec<(Key, Drop)>, StoreError> {
        let table = self.db.begin_read().map_err(db)?.open_table(DROPS).map_err(db)?;
        let ends = range(person);
        let rows = table.range((stage as u8, *ends.start())..=(stage as u8, *ends.end())).map_err(db)?;
        rows.map(|row| row.map_err(db).and_then(|(k, v)| Ok((Key::of(k.value().1), decode(v.value())?))))
            .collect()
    }

    /// One candidate.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn candidate(&self, key: Key) -> Result<Option<Candidate>, StoreError> {
        let table = self.db.begin_read().map_err(db)?.open_table(CANDIDATES).map_err(db)?;
        table.get(key.bits()).map_err(db)?.map(|v| decode(v.value())).transpose()
    }

    /// What is known of one picture's face.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn face(&self, key: Key) -> Result<Option<Face>, StoreError> {
        let table = self.db.begin_read().map_err(db)?.open_table(FACES).map_err(db)?;
        table.get(key.bits()).map_err(db)?.map(|v| decode(v.value())).transpose()
    }

    /// The faces of `keys`, in their order; those without are left out.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn faces(&self, keys: &[Key]) -> Result<Vec<(Key, Face)>, StoreError> {
        let table = self.db.begin_read().map_err(db)?.open_table(FACES).map_err(db)?;
        let mut faces = Vec::with_capacity(keys.len());
        for &key in keys {
            if let Some(value) = table.get(key.bits()).map_err(db)? {
                faces.push((key, decode(value.value())?));
            }
        }
        Ok(faces)
    }

    /// A person's ranking scores.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn scores(&self, person: u32) -> Result<Vec<(Key, f32)>, StoreError> {
        let table = self.db.begin_read().map_err(db)?.open_table(SCORES).map_err(db)?;
        let rows = table.range(range(person)).map_err(db)?;
        rows.map(|row| row.map_err(db).map(|(k, v)| (Key::of(k.value()), v.value()))).collect()
    }

    /// A named block of bytes.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn blob(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let table = self.db.begin_read().map_err(db)?.open_table(BLOBS).map_err(db)?;
        Ok(table.get(name).map_err(db)?.map(|v| v.value().to_vec()))
    }

    /// The VLAD codes of one picture.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn vlad(&self, key: Key) -> Result<Option<Vec<u8>>, StoreError> {
        let table = self.db.begin_read().map_err(db)?.open_table(VLADS).map_err(db)?;
        Ok(table.get(key.bits()).map_err(db)?.map(|v| v.value().to_vec()))
    }

    /// Hands the pictures of each bucket, in order, to `see`, at most `most` of each; says how many buckets were larger.
    ///
    /// # Errors
    /// [`StoreError`], also those of `see`.
    pub fn each_bucket(
        &self,
        most: usize,
        mut see: impl FnMut(u8, &[Key]) -> Result<(), StoreError>,
    ) -> Result<u64, StoreError> {
        let table = self.db.begin_read().map_err(db)?.open_table(BUCKETS).map_err(db)?;
        let (mut bucket, mut keys, mut cut) = (None, Vec::new(), 0);
        for row in table.iter().map_err(db)? {
            let (kind, hash, picture) = row.map_err(db)?.0.value();
            if bucket != Some((kind, hash)) {
                if let (Some((kind, _)), true) = (bucket, keys.len() > 1) {
                    see(kind, &keys)?;
                }
                (bucket, keys) = (Some((kind, hash)), Vec::new());
            }
            if keys.len() < most {
                keys.push(Key::of(picture));
            } else if keys.len() == most {
                cut += 1;
            }
        }
        if let (Some((kind, _)), true) = (bucket, keys.len() > 1) {
            see(kind, &keys)?;
        }
        Ok(cut)
    }

    /// What was said about the blocks of `stage`: (person, block, reviewer, what).
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn marks<T: DeserializeOwned>(&self, stage: Stage) -> Result<Vec<(u32, u32, String, T)>, StoreError> {
        let table = self.db.begin_read().map_err(db)?.open_table(MARKS).map_err(db)?;
        let mut all = Vec::new();
        for row in table.range((stage as u8, 0, 0, "")..(stage as u8 + 1, 0, 0, "")).map_err(db)? {
            let (key, value) = row.map_err(db)?;
            let (_, person, block, reviewer) = key.value();
            all.push((person, block, reviewer.to_owned(), decode(value.value())?));
        }
        Ok(all)
    }

    /// Everything but times, as text: equal for equal results. For tests and for comparing two runs.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn dump(&self) -> Result<String, StoreError> {
        use fmt::Write as _;
        let mut text = String::new();
        for stage in Stage::ALL {
            if let Some(state) = self.state(stage)? {
                let _ = writeln!(text, "{stage}: {:?}", State { seconds: 0.0, ..state });
            }
        }
        for (number, person) in self.people()? {
            let _ = writeln!(text, "{number} {person:?} {}", self.count(number)?);
            for (key, candidate) in self.alive(number, Stage::Candidates)? {
                let _ = writeln!(text, " {key:?} {candidate:?} {:?} {:?}", self.face(key)?, self.vlad(key)?);
            }
            for stage in Stage::ALL {
                let _ = writeln!(text, " {stage} {:?}", self.drops(number, stage)?);
            }
            let _ = writeln!(text, " {:?}", self.scores(number)?);
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests;

//! Writes: each takes effect whole or not at all.

use std::fmt;

use redb::{ReadableTable as _, WriteTransaction};
use serde::Serialize;

use super::tables::{
    BLOBS, BUCKETS, CANDIDATES, COUNTS, DROPS, FACES, MARKS, PEOPLE, SCORES, SOURCES, STATES, VLADS, db,
    encode,
};
use super::{Candidate, Drop, Face, Key, Person, Source, Stage, State, StoreError};

/// One write.
pub struct Txn(pub(super) WriteTransaction);

impl fmt::Debug for Txn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Txn")
    }
}

impl Txn {
    pub(super) fn make_tables(&self) -> Result<(), StoreError> {
        self.0.open_table(PEOPLE).map_err(db)?;
        self.0.open_table(SOURCES).map_err(db)?;
        self.0.open_table(COUNTS).map_err(db)?;
        self.0.open_table(CANDIDATES).map_err(db)?;
        self.0.open_table(FACES).map_err(db)?;
        self.0.open_table(DROPS).map_err(db)?;
        self.0.open_table(SCORES).map_err(db)?;
        self.0.open_table(STATES).map_err(db)?;
        self.0.open_table(BLOBS).map_err(db)?;
        self.0.open_table(BUCKETS).map_err(db)?;
        self.0.open_table(VLADS).map_err(db)?;
        self.0.open_table(MARKS).map_err(db)?;
        Ok(())
    }

    /// Clears what `stage` and those after it left.
    pub(super) fn forget_from(&self, stage: Stage) -> Result<(), StoreError> {
        self.0.open_table(STATES).map_err(db)?.retain(|k, _| k < stage as u8).map_err(db)?;
        self.0.open_table(DROPS).map_err(db)?.retain(|k, _| k.0 < stage as u8).map_err(db)?;
        self.0.open_table(MARKS).map_err(db)?.retain(|k, _| k.0 < stage as u8).map_err(db)?;
        let earlier = |name: &str| Stage::ALL.into_iter().any(|s| s < stage && name.starts_with(s.name()));
        self.0.open_table(BLOBS).map_err(db)?.retain(|name, _| earlier(name)).map_err(db)?;
        if stage <= Stage::Dedupe {
            self.0.delete_table(BUCKETS).map_err(db)?;
            self.0.delete_table(VLADS).map_err(db)?;
        }
        if stage <= Stage::Rank {
            self.0.delete_table(SCORES).map_err(db)?;
        }
        if stage <= Stage::Describe {
            self.0.delete_table(FACES).map_err(db)?;
        }
        if stage == Stage::Candidates {
            self.0.delete_table(PEOPLE).map_err(db)?;
            self.0.delete_table(SOURCES).map_err(db)?;
            self.0.delete_table(COUNTS).map_err(db)?;
            self.0.delete_table(CANDIDATES).map_err(db)?;
        }
        self.make_tables()
    }

    /// Stores how far a stage has come.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_state(&self, stage: Stage, state: &State) -> Result<(), StoreError> {
        let value = encode(state)?;
        self.0.open_table(STATES).map_err(db)?.insert(stage as u8, value.as_slice()).map_err(db)?;
        Ok(())
    }

    /// Stores a person.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_person(&self, number: u32, person: &Person) -> Result<(), StoreError> {
        let value = encode(person)?;
        self.0.open_table(PEOPLE).map_err(db)?.insert(number, value.as_slice()).map_err(db)?;
        Ok(())
    }

    /// Stores a source.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_source(&self, number: u16, source: &Source) -> Result<(), StoreError> {
        let value = encode(source)?;
        self.0.open_table(SOURCES).map_err(db)?.insert(number, value.as_slice()).map_err(db)?;
        Ok(())
    }

    /// Adds a candidate at the end of the person's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn add_candidate(&self, person: u32, candidate: &Candidate) -> Result<Key, StoreError> {
        let mut counts = self.0.open_table(COUNTS).map_err(db)?;
        let index = counts.get(person).map_err(db)?.map_or(0, |v| v.value());
        counts.insert(person, index + 1).map_err(db)?;
        let key = Key { person, index };
        let value = encode(candidate)?;
        self.0.open_table(CANDIDATES).map_err(db)?.insert(key.bits(), value.as_slice()).map_err(db)?;
        Ok(key)
    }

    /// Stores a face.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_face(&self, key: Key, face: &Face) -> Result<(), StoreError> {
        let value = encode(face)?;
        self.0.open_table(FACES).map_err(db)?.insert(key.bits(), value.as_slice()).map_err(db)?;
        Ok(())
    }

    /// Drops a picture in `stage`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn drop(&self, stage: Stage, key: Key, why: &Drop) -> Result<(), StoreError> {
        let value = encode(why)?;
        let mut table = self.0.open_table(DROPS).map_err(db)?;
        table.insert((stage as u8, key.bits()), value.as_slice()).map_err(db)?;
        Ok(())
    }

    /// Forgets what `stage` dropped.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn undrop(&self, stage: Stage) -> Result<(), StoreError> {
        self.0.open_table(DROPS).map_err(db)?.retain(|k, _| k.0 != stage as u8).map_err(db)
    }

    /// Stores a ranking score.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_score(&self, key: Key, score: f32) -> Result<(), StoreError> {
        self.0.open_table(SCORES).map_err(db)?.insert(key.bits(), score).map_err(db)?;
        Ok(())
    }

    /// Stores a named block of bytes. The name begins with that of the stage that forgets it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_blob(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.0.open_table(BLOBS).map_err(db)?.insert(name, bytes).map_err(db)?;
        Ok(())
    }

    /// Puts a picture into a bucket.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_bucket(&self, kind: u8, hash: u64, key: Key) -> Result<(), StoreError> {
        self.0.open_table(BUCKETS).map_err(db)?.insert((kind, hash, key.bits()), ()).map_err(db)?;
        Ok(())
    }

    /// Stores a picture's VLAD codes.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_vlad(&self, key: Key, codes: &[u8]) -> Result<(), StoreError> {
        self.0.open_table(VLADS).map_err(db)?.insert(key.bits(), codes).map_err(db)?;
        Ok(())
    }

    /// Stores what a reviewer said of a block; `None` takes it back.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_marks<T: Serialize>(
        &self,
        (stage, person, block, reviewer): (Stage, u32, u32, &str),
        value: Option<&T>,
    ) -> Result<(), StoreError> {
        let mut table = self.0.open_table(MARKS).map_err(db)?;
        let key = (stage as u8, person, block, reviewer);
        match value {
            Some(value) => table.insert(key, encode(value)?.as_slice()).map_err(db)?,
            None => table.remove(key).map_err(db)?,
        };
        Ok(())
    }
}

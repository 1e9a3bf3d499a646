//! The tables of the file and how their keys and values are written.

use redb::TableDefinition;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Key, StoreError};

pub(super) const PEOPLE: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("people");
pub(super) const SOURCES: TableDefinition<'_, u16, &[u8]> = TableDefinition::new("sources");
pub(super) const COUNTS: TableDefinition<'_, u32, u32> = TableDefinition::new("counts");
pub(super) const CANDIDATES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("candidates");
pub(super) const FACES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("faces");
pub(super) const DROPS: TableDefinition<'_, (u8, u64), &[u8]> = TableDefinition::new("drops");
pub(super) const SCORES: TableDefinition<'_, u64, f32> = TableDefinition::new("scores");
pub(super) const STATES: TableDefinition<'_, u8, &[u8]> = TableDefinition::new("states");
pub(super) const BLOBS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("blobs");
/// Buckets of signatures that pictures share: (kind, hash, picture).
pub(super) const BUCKETS: TableDefinition<'_, (u8, u64, u64), ()> = TableDefinition::new("buckets");
pub(super) const VLADS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("vlads");
/// What reviewers said: (stage, person, block, reviewer).
pub(super) const MARKS: TableDefinition<'_, (u8, u32, u32, &str), &[u8]> = TableDefinition::new("marks");

/// The store keeps pages of the file in memory up to this.
pub(super) const CACHE_BYTES: usize = 64 << 20;

pub(super) const fn range(person: u32) -> std::ops::RangeInclusive<u64> {
    Key { person, index: 0 }.bits()..=Key { person, index: u32::MAX }.bits()
}

pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    postcard::to_stdvec(value).map_err(StoreError::Record)
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    postcard::from_bytes(bytes).map_err(StoreError::Record)
}

pub(super) fn db(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Database(Box::new(error.into()))
}

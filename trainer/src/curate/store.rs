//! What a curation has decided so far, in one file that survives being killed at any point.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use facelatch_shared::detection::{Landmarks5, Point};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The store's name in the folder of a curation.
pub const FILE: &str = "curate.redb";

/// One candidate picture: its person and its place in the order in which that person's pictures came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Number of the person.
    pub person: u32,
    /// Place among the person's candidates, from zero.
    pub index: u32,
}

impl Key {
    const fn bits(self) -> u64 {
        (self.person as u64) << 32 | self.index as u64
    }

    const fn of(bits: u64) -> Self {
        Self { person: (bits >> 32) as u32, index: bits as u32 }
    }
}

/// The stages in their order; each sees what those before it kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum Stage {
    /// Who, and which pictures there are.
    Candidates,
    /// Decode, find the face, align, embed.
    Describe,
    /// Enough of a person's first pictures show that person.
    Verify,
    /// A classifier per person.
    Rank,
    /// One of each picture.
    Dedupe,
    /// People look at what is left.
    Review,
}

impl Stage {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Candidates, Self::Describe, Self::Verify, Self::Rank, Self::Dedupe, Self::Review];

    /// As on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Candidates => "candidates",
            Self::Describe => "describe",
            Self::Verify => "verify",
            Self::Rank => "rank",
            Self::Dedupe => "dedupe",
            Self::Review => "review",
        }
    }

    /// What it is for.
    #[must_use]
    pub const fn aim(self) -> &'static str {
        match self {
            Self::Candidates => "candidate pictures",
            Self::Describe => "pictures with a face",
            Self::Verify => "people whose pictures show them",
            Self::Rank => "ranking by a classifier per person",
            Self::Dedupe => "near-duplicate removal",
            Self::Review => "manual filtering",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A person whose pictures are collected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Person {
    /// As the list or the folder writes it.
    pub name: String,
    /// Column and value of the list, popularity and the like.
    pub attributes: Vec<(String, String)>,
    /// Why this person is not collected; `None` for those who are.
    pub left_out: Option<String>,
}

/// Where a picture's bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// A file, named from the source's folder.
    File(String),
    /// Bytes of a tar file, and the member's name.
    Tar(u64, u64, String),
    /// A member of a zip file by number, and its name.
    Zip(u32, String),
}

impl Place {
    /// What the picture is called in its source.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::File(name) | Self::Tar(_, _, name) | Self::Zip(_, name) => name,
        }
    }
}

/// A candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Number of the source.
    pub source: u16,
    /// Where in it.
    pub place: Place,
}

/// A place that pictures come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Folder or archive.
    pub path: PathBuf,
    /// Under which terms its pictures may be used, as the operator says.
    pub licence: Option<String>,
    /// Where it came from, as the operator says.
    pub origin: Option<String>,
}

/// The face of a picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Face {
    /// SHA-256 of the picture's bytes.
    pub sha256: Vec<u8>,
    /// Five landmarks, x and y by turns, in the picture's pixels.
    pub landmarks: [f32; 10],
    /// The embedding as the door keeps it, 128 codes.
    pub codes: Vec<i8>,
    /// What the detector gave the face, 0 to 1.
    pub detection: f32,
    /// Width and height of the picture.
    pub size: (u32, u32),
}

impl Face {
    /// The landmarks as the aligner wants them.
    #[must_use]
    pub fn landmarks5(&self) -> Landmarks5 {
        Landmarks5(std::array::from_fn(|i| Point::new(self.landmarks[2 * i], self.landmarks[2 * i + 1])))
    }

    /// The embedding, of length one.
    #[must_use]
    pub fn vector(&self) -> Vec<f32> {
        let length =
            self.codes.iter().map(|&c| f32::from(c).powi(2)).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
        self.codes.iter().map(|&c| f32::from(c) / length).collect()
    }

    /// Pixels between the eyes.
    #[must_use]
    pub fn eye_distance_px(&self) -> f32 {
        self.landmarks5().eye_distance_px()
    }
}

/// Why a picture was dropped, and by what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Drop {
    /// It cannot be read or decoded.
    Unreadable(String),
    /// The detector finds no face, or none that can be aligned.
    NoFace,
    /// Too few of the person's first pictures were right.
    Person,
    /// Its place in the ranking lies below the last one kept.
    Rank(u32),
    /// The same bytes as another picture.
    Same(Key),
    /// Nearly the same picture as another, with this cosine of VLAD descriptors.
    Near(Key, f32),
    /// The same picture stands under another name too, and the other fits better or neither does.
    Conflict(Key),
    /// A reviewer marked it.
    Wrong,
    /// Its block was refused.
    Block,
}

impl Drop {
    /// A short word for tables.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "unreadable",
            Self::NoFace => "no face",
            Self::Person => "person not kept",
            Self::Rank(_) => "low rank",
            Self::Same(_) => "same file",
            Self::Near(..) => "near-duplicate",
            Self::Conflict(_) => "under two names",
            Self::Wrong => "marked wrong",
            Self::Block => "block refused",
        }
    }
}

/// How far a stage has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The settings it runs with.
    pub settings: String,
    /// What is done lies before this, in the stage's own count.
    pub cursor: [u64; 3],
    /// It has seen everything.
    pub done: bool,
    /// Seconds it took so far.
    pub seconds: f64,
    /// Pictures it has looked at.
    pub seen: u64,
    /// What it has to say: name and value, for the report.
    pub notes: Vec<(String, String)>,
}

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

const PEOPLE: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("people");
const SOURCES: TableDefinition<'_, u16, &[u8]> = TableDefinition::new("sources");
const COUNTS: TableDefinition<'_, u32, u32> = TableDefinition::new("counts");
const CANDIDATES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("candidates");
const FACES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("faces");
const DROPS: TableDefinition<'_, (u8, u64), &[u8]> = TableDefinition::new("drops");
const SCORES: TableDefinition<'_, u64, f32> = TableDefinition::new("scores");
const STATES: TableDefinition<'_, u8, &[u8]> = TableDefinition::new("states");
const BLOBS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("blobs");
/// Buckets of signatures that pictures share: (kind, hash, picture).
const BUCKETS: TableDefinition<'_, (u8, u64, u64), ()> = TableDefinition::new("buckets");
const VLADS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("vlads");
/// What reviewers said: (stage, person, block, reviewer).
const MARKS: TableDefinition<'_, (u8, u32, u32, &str), &[u8]> = TableDefinition::new("marks");

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

/// One write.
pub struct Txn(WriteTransaction);

impl fmt::Debug for Txn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Txn")
    }
}

impl Txn {
    fn make_tables(&self) -> Result<(), StoreError> {
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
    fn forget_from(&self, stage: Stage) -> Result<(), StoreError> {
        self.0.open_table(STATES).map_err(db)?.retain(|k, _| k < stage as u8).map_err(db)?;
        self.0.open_table(DROPS).map_err(db)?.retain(|k, _| k.0 < stage as u8).map_err(db)?;
        self.0.open_table(MARKS).map_err(db)?.retain(|k, _| k.0 < stage as u8).map_err(db)?;
        if stage <= Stage::Dedupe {
            self.0.delete_table(BUCKETS).map_err(db)?;
            self.0.delete_table(VLADS).map_err(db)?;
            self.0.delete_table(BLOBS).map_err(db)?;
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

    /// Stores a named block of bytes.
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

/// The store keeps pages of the file in memory up to this.
const CACHE_BYTES: usize = 64 << 20;

const fn range(person: u32) -> std::ops::RangeInclusive<u64> {
    Key { person, index: 0 }.bits()..=Key { person, index: u32::MAX }.bits()
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    postcard::to_stdvec(value).map_err(StoreError::Record)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    postcard::from_bytes(bytes).map_err(StoreError::Record)
}

fn db(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Database(Box::new(error.into()))
}

/// Why the store could not be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The folder cannot be made.
    #[error("cannot make {}: {source}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no curation in the folder.
    #[error("{} holds no curation: begin one with `facelatch curate candidates`", path.display())]
    Missing {
        /// The folder.
        path: PathBuf,
    },
    /// It cannot be opened.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<redb::Error>,
    },
    /// Reading or writing failed.
    #[error("the store failed: {0}")]
    Database(Box<redb::Error>),
    /// A record is not of this version.
    #[error("a record of the store does not decode: {0}; it was written by another version")]
    Record(postcard::Error),
    /// The stage began with other settings.
    #[error(
        "{stage} began with other settings ({was}), now they are {is}: give the same, or --again to begin anew"
    )]
    Settings {
        /// Which.
        stage: Stage,
        /// Those it began with.
        was: String,
        /// Those given now.
        is: String,
    },
    /// A later stage has decided already on what this one would change.
    #[error(
        "{later} has run already on what {stage} would change: --again forgets that and begins with {stage}"
    )]
    Later {
        /// Which.
        stage: Stage,
        /// The one after it.
        later: Stage,
    },
    /// A stage before has not ended.
    #[error("{stage} has not ended yet: run `facelatch curate {stage}` first")]
    NotYet {
        /// Which.
        stage: Stage,
    },
    /// A test interrupted it.
    #[error("interrupted")]
    Interrupted,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str) -> Candidate {
        Candidate { source: 0, place: Place::File(name.into()) }
    }

    #[test]
    fn what_a_stage_drops_later_stages_do_not_see_and_again_takes_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path()).unwrap();
        store.begin(Stage::Candidates, "a", false).unwrap();
        let keys = store
            .write(|txn| {
                (0..3)
                    .map(|i| txn.add_candidate(7, &candidate(&i.to_string())))
                    .collect::<Result<Vec<_>, _>>()
            })
            .unwrap();
        store.begin(Stage::Rank, "k=1", false).unwrap();
        store.write(|txn| txn.drop(Stage::Rank, keys[1], &Drop::Rank(2))).unwrap();
        assert_eq!(store.alive_keys(7, Stage::Rank).unwrap().len(), 3);
        assert_eq!(store.alive_keys(7, Stage::Dedupe).unwrap(), [keys[0], keys[2]]);
        assert_eq!(store.alive(7, Stage::Dedupe).unwrap()[1].1.place.name(), "2");
        assert!(matches!(store.begin(Stage::Rank, "k=2", false), Err(StoreError::Settings { .. })));
        store.begin(Stage::Rank, "k=2", true).unwrap();
        assert_eq!(store.alive_keys(7, Stage::Dedupe).unwrap().len(), 3);
        assert_eq!(store.count(7).unwrap(), 3, "candidates stay");
    }

    #[test]
    fn an_interrupted_write_leaves_nothing_and_a_second_process_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path()).unwrap();
        store.interrupt_after(1);
        store.write(|txn| txn.add_candidate(1, &candidate("a"))).unwrap();
        let second = store.write(|txn| txn.add_candidate(1, &candidate("b")));
        assert!(matches!(second, Err(StoreError::Interrupted)));
        assert!(matches!(Store::open(dir.path()), Err(StoreError::Open { .. })));
        drop(store);
        assert_eq!(Store::open(dir.path()).unwrap().count(1).unwrap(), 1);
        assert!(matches!(Store::open(&dir.path().join("none")), Err(StoreError::Missing { .. })));
    }
}

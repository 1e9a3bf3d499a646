//! What the store holds: people, sources, candidates, faces, and why a picture was dropped.

use std::fmt;
use std::path::PathBuf;

use facelatch_shared::detection::{Landmarks5, Point};
use serde::{Deserialize, Serialize};

/// One candidate picture: its person and its place in the order in which that person's pictures came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Number of the person.
    pub person: u32,
    /// Place among the person's candidates, from zero.
    pub index: u32,
}

impl Key {
    pub(super) const fn bits(self) -> u64 {
        (self.person as u64) << 32 | self.index as u64
    }

    pub(super) const fn of(bits: u64) -> Self {
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

//! Why a store cannot be used.

use std::path::PathBuf;

use thiserror::Error;

use super::Stage;

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
    #[error(
        "a record of the store does not decode ({0}): another version of facelatch wrote it; go on with that, or begin anew in another --work"
    )]
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

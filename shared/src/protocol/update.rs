//! New models over the protocol: send a bundle, prepare it, try it, confirm it or go back. And [`push`], which does the sending over whatever
//! carries the requests: the control socket on the board, the link from afar.
//!
//! A bundle travels as the bytes of its file, in pieces of at most [`MAX_PIECE`]. The door says at which offset it goes on, so that a push
//! that was interrupted, by either end or by the power, is simply begun again.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{RefusedKind, RefusedRequest, Request, Response};
use crate::bundle::{BundleError, BundleId, CHUNK_BYTES, PREFIX_BYTES, SignedRoot, header_length};
use crate::embedding::ModelBinding;
use crate::event::TrialOutcome;
use crate::person::SubjectId;

/// Most bytes of a bundle in one request.
pub const MAX_PIECE: usize = CHUNK_BYTES;

/// What is asked about the door's models. Answered by [`Response::Update`] unless said otherwise. Append, never move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum UpdateRequest {
    /// How does it stand?
    Status,
    /// Trust this root document: the first one, or the successor of the one that is trusted.
    Trust(SignedRoot),
    /// A bundle comes; where shall it begin?
    Begin {
        /// Length of its file in bytes.
        size: u64,
        /// Its name: the SHA-256 of its header.
        id: BundleId,
    },
    /// A piece of it, at most [`MAX_PIECE`] long.
    Chunk {
        /// Where in the file.
        offset: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Everything was sent: verify the whole, run its self-test, make the templates anew. That goes on after the answer.
    Finish,
    /// Who would have to be enrolled again, from this number on? Answered by [`Response::People`], a page at a time.
    LeftBehind {
        /// The least number wanted.
        from: SubjectId,
    },
    /// Try what is ready, as soon as nobody stands before the door.
    Activate {
        /// So many people may have to be enrolled again; with more the door refuses.
        leave_behind: u32,
    },
    /// The trial went well, whatever time is left of it.
    Confirm,
    /// Back to the former models, out of a trial or after it.
    RollBack,
    /// Forget what was received and is not in use.
    Discard,
    /// Which nets decide, with their licences? Answered by [`Response::Models`].
    Models,
}

/// How models and their update stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateStatus {
    /// What the door decides with.
    pub models: ModelsInUse,
    /// What is under way.
    pub stage: UpdateStage,
    /// The highest rollback counter that was confirmed.
    pub counter_floor: u64,
    /// Number of the trusted root document; `None` while the door trusts nobody.
    pub root_version: Option<u32>,
    /// How the last trial ended.
    pub last: Option<TrialOutcome>,
    /// Whether there are former models to go back to.
    pub can_go_back: bool,
    /// The card's image that the door runs from, if it does.
    pub system: Option<SystemStatus>,
}

/// The system of a card's image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemStatus {
    /// The board that the image was made for.
    pub board: heapless::String<32>,
    /// The root slot that runs, `a` or `b`.
    pub slot: char,
    /// The highest rollback counter of systems that was confirmed.
    pub counter_floor: u64,
    /// What was installed last.
    pub last: Option<SystemLast>,
}

impl core::fmt::Display for SystemStatus {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "slot {} of an image for {}", self.slot, self.board)?;
        if let Some(SystemLast { name, counter, slot, state }) = &self.last {
            write!(f, "; {name} (counter {counter}) in slot {slot}: {}", state.words())?;
        }
        Ok(())
    }
}

/// A system that was installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemLast {
    /// What people call it.
    pub name: heapless::String<48>,
    /// Its rollback counter.
    pub counter: u64,
    /// The slot it was written into.
    pub slot: char,
    /// What became of it.
    pub state: SystemState,
}

/// What became of a system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SystemState {
    /// It was written and has not come up yet.
    Trying,
    /// Its door answered.
    Confirmed,
    /// It did not come up; the former one runs.
    FellBack,
}

impl SystemState {
    /// In a word or two.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Trying => "on trial",
            Self::Confirmed => "confirmed",
            Self::FellBack => "did not come up; the former one runs",
        }
    }
}

/// The models that a door decides with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelsInUse {
    /// Where they lie.
    pub from: ModelsFrom,
    /// Their bundle.
    pub bundle: Option<BundleId>,
    /// What people call the bundle; empty for models that came with none.
    pub name: heapless::String<48>,
    /// The embedder's name.
    pub embedder: heapless::String<64>,
    /// What its templates are bound to.
    pub binding: ModelBinding,
}

/// One net that a door uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRow {
    /// Its name.
    pub name: heapless::String<64>,
    /// The licence of its weights, an SPDX expression.
    pub licence: heapless::String<64>,
    /// Whether some of what it learnt from may be used for research only; `None` where its manifest does not say what it learnt from.
    pub research_only: Option<bool>,
}

impl core::fmt::Display for ModelRow {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let note = match self.research_only {
            Some(true) => ", RESEARCH ONLY",
            Some(false) => "",
            None => ", lineage not stated",
        };
        write!(f, "{} ({}{note})", self.name, self.licence)
    }
}

/// Where models lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelsFrom {
    /// In the folder that the configuration names.
    Configured,
    /// In the first slot.
    SlotA,
    /// In the second slot.
    SlotB,
}

/// What is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum UpdateStage {
    /// Nothing.
    Idle,
    /// A bundle is coming.
    Receiving {
        /// Which.
        id: BundleId,
        /// Where in the file the next piece begins.
        offset: u64,
        /// The file's length in bytes; 0 when the program was started anew since.
        size: u64,
    },
    /// A bundle is here, whole and verified, and nothing was done with it yet.
    Staged {
        /// Which.
        id: BundleId,
    },
    /// Its self-test runs, or templates are made anew.
    Preparing {
        /// Which.
        id: BundleId,
        /// Chips that were embedded.
        done: u32,
        /// Of so many.
        of: u32,
    },
    /// It is signed and whole, and does not fit this board or these people.
    Unfit {
        /// Which.
        id: BundleId,
        /// Why, for a person.
        why: heapless::String<192>,
    },
    /// It may be activated.
    Ready {
        /// Which.
        id: BundleId,
        /// People whose templates were made anew.
        carried: u32,
        /// People whose old templates stay valid.
        understood: u32,
        /// People who must be enrolled again.
        left_behind: u32,
    },
    /// It is to be activated, and somebody stands before the door.
    Waiting {
        /// Which.
        id: BundleId,
    },
    /// It is being tried.
    Trial(TrialStatus),
    /// A system is written into the other slot of the card; the board starts anew afterwards.
    Installing {
        /// Which.
        id: BundleId,
    },
}

/// A trial under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialStatus {
    /// Which bundle.
    pub id: BundleId,
    /// Time left.
    pub seconds_left: u32,
    /// Starts of the program since the activation.
    pub starts: u8,
    /// So many are too many.
    pub max_starts: u8,
    /// Faces that were looked at.
    pub probes: u32,
    /// 95th percentile of detect + align + embed so far, in microseconds.
    pub p95_us: Option<u32>,
    /// What it may be.
    pub max_p95_us: u32,
    /// Faces that the former models recognised too, or that only one of both did.
    pub known: u32,
    /// Of these, recognised by the former models alone.
    pub only_former: u32,
    /// Of these, recognised by the new models alone.
    pub only_new: u32,
}

impl Response {
    /// The status in it.
    #[must_use]
    pub const fn update(&self) -> Option<&UpdateStatus> {
        match self {
            Self::Update(status) => Some(status),
            _ => None,
        }
    }
}

/// Sends the bundle of `size` bytes that `read_at` reads, from wherever the door wants it, and has the door prepare it. `read_at` fills its
/// buffer from an offset; `ask` carries one request; `progress` is told how many bytes the door has.
///
/// Returns the door's last answer: [`UpdateStage::Preparing`] or what came of that already.
///
/// # Errors
/// [`PushError`]. What the door has by then it keeps: pushing again goes on there.
pub fn push<E>(
    size: u64,
    mut read_at: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    mut ask: impl FnMut(Request) -> Result<Response, E>,
    mut progress: impl FnMut(u64),
) -> Result<UpdateStatus, PushError<E>> {
    let mut ask = |request| status_of(ask(Request::Update(request)).map_err(PushError::Carrier)?);
    let mut read = |offset: u64, length: usize| {
        let mut bytes = vec![0; length];
        read_at(offset, &mut bytes).map_err(PushError::Carrier)?;
        Ok::<_, PushError<E>>(bytes)
    };
    let truncated = |least: u64| BundleError::Truncated { missing: least - size };
    if size < PREFIX_BYTES as u64 {
        return Err(truncated(PREFIX_BYTES as u64).into());
    }
    let header = header_length(&read(0, PREFIX_BYTES)?)?;
    let contents_at = (PREFIX_BYTES + header) as u64;
    if size < contents_at {
        return Err(truncated(contents_at).into());
    }
    let id = BundleId::of(&read(PREFIX_BYTES as u64, header)?);
    let mut status = ask(UpdateRequest::Begin { size, id })?;
    // Each piece brings the door on by one byte at least; one that does not, twice in a row, never will.
    let (mut sent_from, mut stuck) = (None, 0);
    while let UpdateStage::Receiving { id: theirs, offset, .. } = status.stage {
        if theirs != id {
            return Err(PushError::Unexpected);
        }
        progress(offset);
        if offset >= size {
            break;
        }
        stuck = if sent_from == Some(offset) { stuck + 1 } else { 0 };
        if stuck > 1 {
            return Err(PushError::Unexpected);
        }
        sent_from = Some(offset);
        // At most MAX_PIECE.
        let length = (size - offset).min(MAX_PIECE as u64) as usize;
        let bytes = read(offset, length)?;
        status = match patiently(&mut ask, UpdateRequest::Chunk { offset, bytes }, id) {
            // Somebody else sends the same bundle, or the door was started anew.
            Err(PushError::Refused(refused)) if refused.kind == RefusedKind::OutOfOrder => {
                ask(UpdateRequest::Begin { size, id })?
            }
            answer => answer?,
        };
    }
    progress(size);
    match status.stage {
        UpdateStage::Receiving { .. } | UpdateStage::Staged { .. } => {
            patiently(&mut ask, UpdateRequest::Finish, id)
        }
        _ => Ok(status),
    }
}

/// Asks, and where the door is too busy to answer, how it stands afterwards: it verifies what is long as long as that takes, and does what was
/// asked meanwhile.
fn patiently<E>(
    ask: &mut impl FnMut(UpdateRequest) -> Result<UpdateStatus, PushError<E>>,
    request: UpdateRequest,
    id: BundleId,
) -> Result<UpdateStatus, PushError<E>> {
    let is_busy = |refused: &RefusedRequest| refused.kind == RefusedKind::Busy;
    let refused = match ask(request) {
        Err(PushError::Refused(refused)) if is_busy(&refused) => refused,
        answer => return answer,
    };
    for _ in 0..PATIENCE {
        match ask(UpdateRequest::Status) {
            Err(PushError::Refused(still)) if is_busy(&still) => {}
            Ok(status) if status.stage.gets_on_with(id) => return Ok(status),
            Ok(_) => break,
            Err(error) => return Err(error),
        }
    }
    Err(PushError::Refused(refused))
}

impl UpdateStage {
    /// Whether bundle `id` is coming, or was made ready.
    fn gets_on_with(&self, id: BundleId) -> bool {
        match self {
            Self::Receiving { id: theirs, .. }
            | Self::Staged { id: theirs }
            | Self::Preparing { id: theirs, .. }
            | Self::Ready { id: theirs, .. }
            | Self::Unfit { id: theirs, .. } => *theirs == id,
            Self::Idle | Self::Waiting { .. } | Self::Trial(_) | Self::Installing { .. } => false,
        }
    }
}

/// So many times a busy door is asked how it stands. It lets each question wait for some seconds.
const PATIENCE: usize = 60;

fn status_of<E>(response: Response) -> Result<UpdateStatus, PushError<E>> {
    match response {
        Response::Update(status) => Ok(*status),
        Response::Refused(refused) => Err(PushError::Refused(refused.into())),
        _ => Err(PushError::Unexpected),
    }
}

/// Why a bundle was not pushed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PushError<E> {
    /// The file could not be read, or the door not be asked.
    #[error("{0}")]
    Carrier(E),
    /// The file is no bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The door refused it.
    #[error("{}", .0.message)]
    Refused(Box<RefusedRequest>),
    /// The door answered something else than was asked, or does not get on.
    #[error("the door answered something else than was asked: both ends need the same release")]
    Unexpected,
}

#[cfg(test)]
#[path = "update_tests.rs"]
mod tests;

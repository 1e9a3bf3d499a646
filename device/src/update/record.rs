//! The record of the update: which models are used, and what is under way. Replaced whole, so that every change of mind is one write.

use facelatch_shared::bundle::{BundleId, Manifest, SignedRoot};
use facelatch_shared::embedding::ModelBinding;
pub use facelatch_shared::event::TrialOutcome as Outcome;
use facelatch_shared::journal::{self, Item};
use serde::{Deserialize, Serialize};

use super::slots::Slot;

/// Where models come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Source {
    /// The folder that `door.toml` names: what the image came with.
    Factory,
    /// A slot.
    Slot(Slot),
}

/// What is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Nothing.
    Idle,
    /// A bundle is being received into this slot.
    Receiving(Slot, BundleId),
    /// A bundle lies in this slot, whole and verified.
    Staged(Slot, BundleId),
    /// A bundle is being tried.
    Trial(Trying),
}

/// A trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trying {
    /// The bundle.
    pub id: BundleId,
    /// Where the door goes back to.
    pub back_to: Source,
    /// Starts of the program since the activation, the first included.
    pub starts: u8,
    /// So many starts are too many.
    pub max_starts: u8,
    /// The bundle's rollback counter: becomes the floor when it is confirmed.
    pub counter: u64,
}

/// Models that were used before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// Where they lie.
    pub source: Source,
    /// Their bundle.
    pub id: Option<BundleId>,
    /// Older bindings whose templates they understand.
    pub compatible: Vec<ModelBinding>,
}

/// The whole record, format 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    format: u16,
    /// What is used when the program starts.
    active: Source,
    /// The active bundle; `None` for the factory's models.
    pub active_id: Option<BundleId>,
    /// Where a confirmed door can still go back to, by command.
    pub previous: Option<Former>,
    /// What is under way.
    pub phase: Phase,
    /// The highest rollback counter that was confirmed.
    pub counter_floor: u64,
    /// The trusted root document; `None` before pairing.
    pub root: Option<SignedRoot>,
    /// How the last trial ended.
    pub last: Option<Outcome>,
    /// Older bindings whose templates the active model understands.
    pub compatible: Vec<ModelBinding>,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            format: FORMAT,
            active: Source::Factory,
            active_id: None,
            previous: None,
            phase: Phase::Idle,
            counter_floor: 0,
            root: None,
            last: None,
            compatible: Vec::new(),
        }
    }
}

impl Record {
    /// The record of `bytes`; the first one of a new door where there are none; `None` for anything else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::default());
        }
        // Frames carry a CRC, and are shorter than a record may be: several in a row.
        let mut body = Vec::new();
        for (at, item) in journal::frames(bytes).enumerate() {
            match item {
                Item::Frame { seq, payload } if seq == at as u64 => body.extend_from_slice(payload),
                _ => return None,
            }
        }
        let length = u32::from_le_bytes(body.get(..4)?.try_into().ok()?) as usize;
        let body = body.get(4..).filter(|body| body.len() == length)?;
        let record: Self = postcard::from_bytes(body).ok()?;
        (record.format == FORMAT).then_some(record)
    }

    /// The bytes that [`decode`](Self::decode) reads.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let body = match postcard::to_stdvec(self) {
            Ok(body) => body,
            Err(_) => unreachable!("a record has known lengths and a growing buffer"),
        };
        // Root documents are bounded: the whole is far below 4 GiB.
        let whole = [&(body.len() as u32).to_le_bytes()[..], &body].concat();
        let mut out = Vec::new();
        for (at, piece) in whole.chunks(journal::MAX_PAYLOAD).enumerate() {
            journal::write_frame(&mut out, at as u64, piece);
        }
        out
    }

    /// What is used.
    #[must_use]
    pub const fn active(&self) -> Source {
        self.active
    }

    /// A slot that is neither used nor needed to go back to.
    #[must_use]
    pub const fn free_slot(&self) -> Slot {
        match (self.active, &self.phase) {
            (Source::Slot(slot), _) => slot.other(),
            (Source::Factory, Phase::Receiving(slot, _) | Phase::Staged(slot, _)) => *slot,
            (Source::Factory, _) => Slot::A,
        }
    }

    /// Begins the trial of what is staged in `slot`.
    pub fn try_out(&mut self, slot: Slot, manifest: &Manifest, id: BundleId) {
        let compatible = manifest.compatible.iter().map(|older| older.binding).collect();
        let former = Former {
            source: std::mem::replace(&mut self.active, Source::Slot(slot)),
            id: self.active_id.replace(id),
            compatible: std::mem::replace(&mut self.compatible, compatible),
        };
        self.phase = Phase::Trial(Trying {
            id,
            back_to: former.source,
            starts: 1,
            max_starts: manifest.trial.max_starts,
            counter: manifest.counter,
        });
        self.previous = Some(former);
    }

    /// The trial went well.
    pub fn confirm(&mut self, trying: &Trying) {
        self.phase = Phase::Idle;
        self.counter_floor = self.counter_floor.max(trying.counter);
        self.last = Some(Outcome::Confirmed);
    }

    /// The factory's models, for want of any other.
    pub fn to_factory(&mut self, why: Outcome) {
        (self.active, self.active_id, self.compatible) = (Source::Factory, None, Vec::new());
        self.phase = Phase::Idle;
        self.last = Some(why);
    }

    /// Back to what was used before; `false` when there is nothing to go back to.
    pub fn go_back(&mut self, why: Outcome) -> bool {
        let Some(Former { source, id, compatible }) = self.previous.take() else { return false };
        (self.active, self.active_id, self.compatible) = (source, id, compatible);
        self.phase = Phase::Idle;
        self.last = Some(why);
        true
    }
}

const FORMAT: u16 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_nothing_else_is_one() {
        let former =
            Former { source: Source::Slot(Slot::A), id: None, compatible: vec![ModelBinding([1; 16])] };
        let mut record = Record { previous: Some(former), counter_floor: 7, ..Record::default() };
        record.root = Some(SignedRoot { document: vec![7; 9000], signatures: vec![] });
        let bytes = record.encode();
        assert_eq!(Record::decode(&bytes), Some(record));
        assert_eq!(Record::decode(&[]), Some(Record::default()));
        for length in 1..bytes.len() {
            assert_eq!(Record::decode(&bytes[..length]), None, "{length} of {} bytes", bytes.len());
        }
        for at in (0..bytes.len()).step_by(97) {
            let mut broken = bytes.clone();
            broken[at] ^= 1;
            assert_eq!(Record::decode(&broken), None, "byte {at}");
        }
    }

    #[test]
    fn bytes_of_format_1_are_frozen() {
        let bytes = Record::default().encode();
        let (body, crc) = bytes.split_at(bytes.len() - 4);
        assert_eq!(body, [0xA7, 0xF1, 13, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(crc.len(), 4);
    }
}

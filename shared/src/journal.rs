//! Append-only journals: framed records with a length, a sequence number and a CRC, read back past any damage.
//!
//! One frame is `A7 F1 | length u16 | sequence u64 | payload | CRC-32C u32`, little endian; the CRC covers everything between the
//! mark and itself. A reader that meets bytes which are no frame looks for the next mark whose frame is whole, so that
//! damage costs the records it touches and none after them.

use alloc::vec::Vec;

use crc::{CRC_32_ISCSI, Crc};

/// Longest payload of one frame in bytes.
pub const MAX_PAYLOAD: usize = 4096;

/// A number that is further ahead of the one that is due than this is none that a writer gave: records that many are never lost at once, and
/// numbers may not run out.
pub const MOST_AHEAD: u64 = 1 << 32;

/// The largest number that a journal's first frame may have: whatever follows in a file of bounded length, numbers do not run out.
pub const LARGEST_FIRST: u64 = 1 << 62;

/// Bytes that a frame adds to its payload.
pub const OVERHEAD: usize = HEAD + TAIL;

/// Appends one frame to `out`.
///
/// # Panics
/// When `payload` is longer than [`MAX_PAYLOAD`]; records are built by this crate and bounded by their types.
pub fn write_frame(out: &mut Vec<u8>, seq: u64, payload: &[u8]) {
    assert!(payload.len() <= MAX_PAYLOAD, "a journal record of {} bytes", payload.len());
    let start = out.len();
    out.extend_from_slice(&MARK);
    out.extend_from_slice(&(payload.len() as u16).to_le_bytes());
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(payload);
    let crc = CRC.checksum(&out[start + MARK.len()..]);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// What a reader meets, in the order of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A whole record.
    Frame {
        /// Its sequence number.
        seq: u64,
        /// Its payload.
        payload: &'a [u8],
    },
    /// Bytes that are no whole record, with more records behind them.
    Damage {
        /// Offset of the first such byte.
        at: usize,
        /// How many.
        bytes: usize,
    },
    /// Bytes at the end that are no whole record: a write that a power cut tore, or damage.
    Tail {
        /// Offset of the first such byte.
        at: usize,
        /// How many.
        bytes: usize,
    },
}

/// Reads `bytes` frame by frame.
#[must_use]
pub const fn frames(bytes: &[u8]) -> Frames<'_> {
    Frames { bytes, at: 0 }
}

/// Iterator of [`frames`].
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Frames<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        if self.at >= self.bytes.len() {
            return None;
        }
        if let Some((seq, payload)) = frame_at(self.bytes, self.at) {
            self.at += payload.len() + OVERHEAD;
            return Some(Item::Frame { seq, payload });
        }
        let from = self.at;
        let next = (from + 1..self.bytes.len()).find(|&at| frame_at(self.bytes, at).is_some());
        self.at = next.unwrap_or(self.bytes.len());
        let bytes = self.at - from;
        Some(if next.is_some() { Item::Damage { at: from, bytes } } else { Item::Tail { at: from, bytes } })
    }
}

fn frame_at(bytes: &[u8], at: usize) -> Option<(u64, &[u8])> {
    let rest = bytes.get(at..)?;
    let body = rest.strip_prefix(&MARK)?;
    let len = usize::from(u16::from_le_bytes(body.get(..2)?.try_into().ok()?));
    if len > MAX_PAYLOAD {
        return None;
    }
    let seq = u64::from_le_bytes(body.get(2..10)?.try_into().ok()?);
    let crc = u32::from_le_bytes(body.get(10 + len..14 + len)?.try_into().ok()?);
    (CRC.checksum(&body[..10 + len]) == crc).then_some((seq, &body[10..10 + len]))
}

const MARK: [u8; 2] = [0xA7, 0xF1];
const HEAD: usize = 2 + 2 + 8;
const TAIL: usize = 4;
const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn journal(payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for (seq, payload) in payloads.iter().enumerate() {
            write_frame(&mut out, seq as u64, payload);
        }
        out
    }

    #[test]
    fn bytes_of_format_1_are_frozen() {
        let mut out = Vec::new();
        write_frame(&mut out, 7, b"door");
        assert_eq!(
            out,
            [0xA7, 0xF1, 4, 0, 7, 0, 0, 0, 0, 0, 0, 0, b'd', b'o', b'o', b'r', 0x77, 0x68, 0xA8, 0x2F]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic_and_covered_exactly(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let covered: usize = frames(&bytes).map(|item| match item {
                Item::Frame { payload, .. } => payload.len() + OVERHEAD,
                Item::Damage { bytes, .. } | Item::Tail { bytes, .. } => bytes,
            }).sum();
            prop_assert_eq!(covered, bytes.len());
        }

        #[test]
        fn one_flipped_bit_costs_one_record(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 3..12), place in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let whole = journal(&payloads);
            let mut broken = whole.clone();
            broken[place.index(whole.len())] ^= 1 << bit;
            let kept: Vec<(u64, Vec<u8>)> = frames(&broken).filter_map(|item| match item {
                Item::Frame { seq, payload } => Some((seq, payload.to_vec())),
                _ => None,
            }).collect();
            prop_assert_eq!(kept.len(), payloads.len() - 1);
            for (seq, payload) in kept {
                prop_assert_eq!(&payloads[seq as usize], &payload);
            }
        }
    }

    #[test]
    fn a_torn_end_is_told_from_damage() {
        let whole = journal(&[b"one".to_vec(), b"two".to_vec()]);
        let items: Vec<_> = frames(&whole[..whole.len() - 1]).collect();
        assert_eq!(items[1], Item::Tail { at: 19, bytes: 18 });
        let mut broken = whole;
        broken[14] ^= 1;
        assert_eq!(frames(&broken).next(), Some(Item::Damage { at: 0, bytes: 19 }));
    }
}

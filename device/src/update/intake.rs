//! A bundle as it comes, byte by byte of its file, on its way to the [`Updater`].

use facelatch_shared::bundle::{
    BundleError, BundleId, CHUNK_BYTES, MAX_HEADER, MAX_SECTION, MAX_SECTIONS, PREFIX_BYTES, header_length,
};
use facelatch_shared::protocol::update::MAX_PIECE;
use facelatch_shared::time::UnixMs;

use super::updater::{Progress, UpdateError, Updater};

/// One bundle being received. Holds at most its header or one chunk.
#[derive(Debug)]
pub struct Intake {
    id: BundleId,
    size: u64,
    /// Where in the file `held` begins.
    at: u64,
    held: Vec<u8>,
    /// The header's length, once it is known.
    header: Option<usize>,
    /// The length of the chunk that is wanted next; `None` before the header was judged and after the last.
    wanted: Option<usize>,
}

impl Intake {
    /// Begins to receive bundle `id` of `size` bytes; goes on where an earlier push of the same bundle ended.
    ///
    /// # Errors
    /// [`UpdateError`]: the bundle is too long, in use already, or a trial is under way.
    pub fn begin(
        updater: &mut Updater,
        id: BundleId,
        size: u64,
        now: UnixMs,
    ) -> Result<(Self, Option<Progress>), UpdateError> {
        if size > LONGEST {
            return Err(UpdateError::TooLong { bytes: size });
        }
        let mut intake = Self { id, size, at: 0, held: Vec::new(), header: None, wanted: None };
        let known = updater.resume(id, now)?;
        if let Some((header, progress)) = &known {
            intake.header = Some(*header);
            intake.check_size(*header, progress)?;
            intake.at = (PREFIX_BYTES + header) as u64 + progress.received;
            intake.wanted = updater.next_length();
        }
        Ok((intake, known.map(|(_, progress)| progress)))
    }

    /// Takes the bytes at `offset` of the file. What is here already is passed over.
    ///
    /// # Errors
    /// [`UpdateError`]; nothing is stored of a piece that is refused.
    pub fn take(
        &mut self,
        updater: &mut Updater,
        offset: u64,
        bytes: &[u8],
        now: UnixMs,
    ) -> Result<(), UpdateError> {
        if bytes.len() > MAX_PIECE {
            return Err(UpdateError::TooLong { bytes: bytes.len() as u64 });
        }
        let end = offset.checked_add(bytes.len() as u64).filter(|&end| end <= self.size);
        let Some(end) = end else { return Err(BundleError::TrailingBytes.into()) };
        if end <= self.offset() {
            return Ok(());
        }
        if offset != self.offset() {
            return Err(UpdateError::OutOfPlace { offset: self.offset() });
        }
        self.held.extend_from_slice(bytes);
        let result = self.pass_on(updater, now);
        if result.is_err() {
            // What was refused is not kept: the next try sends it anew.
            self.held = Vec::new();
        }
        result
    }

    /// Which bundle.
    #[must_use]
    pub const fn id(&self) -> BundleId {
        self.id
    }

    /// The file's length in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Where in the file the next piece must begin.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.at + self.held.len() as u64
    }

    fn pass_on(&mut self, updater: &mut Updater, now: UnixMs) -> Result<(), UpdateError> {
        if self.wanted.is_none() && !self.pass_header(updater, now)? {
            return Ok(());
        }
        while let Some(length) = self.wanted.filter(|&length| self.held.len() >= length) {
            let Some((section, chunk)) = updater.progress().next else { break };
            let progress = updater.chunk(section, chunk, &self.held[..length])?;
            self.held.drain(..length);
            self.at += length as u64;
            self.wanted = updater.next_length();
            if progress.staged {
                break;
            }
        }
        Ok(())
    }

    /// Has the header judged once it is whole; whether it is.
    fn pass_header(&mut self, updater: &mut Updater, now: UnixMs) -> Result<bool, UpdateError> {
        let header = match self.header {
            Some(length) => length,
            None if self.held.len() < PREFIX_BYTES => return Ok(false),
            None => *self.header.insert(header_length(&self.held[..PREFIX_BYTES])?),
        };
        let end = PREFIX_BYTES + header;
        if self.at > 0 || self.held.len() < end {
            return Ok(false);
        }
        let bytes = &self.held[PREFIX_BYTES..end];
        if BundleId::of(bytes) != self.id {
            return Err(BundleError::Malformed { what: "its header is another bundle's" }.into());
        }
        // At most MAX_HEADER.
        let progress = updater.header(header as u32, 0, bytes, now)?;
        if let Err(error) = self.check_size(header, &progress) {
            updater.discard()?;
            return Err(error);
        }
        // What the slot holds already of an earlier push is passed over.
        let here = usize::try_from(progress.received).unwrap_or(usize::MAX);
        self.held.drain(..end.saturating_add(here).min(self.held.len()));
        self.at = end as u64 + progress.received;
        self.wanted = updater.next_length();
        Ok(true)
    }

    fn check_size(&self, header: usize, progress: &Progress) -> Result<(), UpdateError> {
        let whole = (PREFIX_BYTES + header) as u64 + progress.total;
        match self.size {
            size if size < whole => Err(BundleError::Truncated { missing: whole - size }.into()),
            size if size > whole => Err(BundleError::TrailingBytes.into()),
            _ => Ok(()),
        }
    }
}

/// No bundle is longer.
const LONGEST: u64 = (PREFIX_BYTES + MAX_HEADER) as u64 + MAX_SECTIONS as u64 * MAX_SECTION as u64;
const _: () = assert!(MAX_PIECE <= CHUNK_BYTES);

#[cfg(test)]
mod tests {
    use super::super::power_tests::{bundle, root};
    use super::super::{MemSlots, Power};
    use super::*;

    const NOW: UnixMs = UnixMs(1_800_000_000_000);

    fn id_of(file: &[u8]) -> BundleId {
        BundleId::of(facelatch_shared::bundle::split(file).unwrap().header)
    }

    fn door() -> (MemSlots, Updater) {
        let slots = MemSlots::on(&Power::default());
        let mut updater = Updater::open(Box::new(slots.clone()), "any").unwrap().0;
        updater.set_root(root()).unwrap();
        (slots, updater)
    }

    fn send(
        intake: &mut Intake,
        updater: &mut Updater,
        file: &[u8],
        piece: usize,
    ) -> Result<(), UpdateError> {
        while intake.offset() < file.len() as u64 {
            let from = intake.offset() as usize;
            let to = (from + piece).min(file.len());
            intake.take(updater, from as u64, &file[from..to], NOW)?;
        }
        Ok(())
    }

    #[test]
    fn pieces_of_any_length_make_the_same_bundle() {
        let file = bundle(1);
        for piece in [1000, 7777, 32 * 1024] {
            let (_, mut updater) = door();
            let (mut intake, known) =
                Intake::begin(&mut updater, id_of(&file), file.len() as u64, NOW).unwrap();
            assert_eq!((intake.offset(), known), (0, None));
            send(&mut intake, &mut updater, &file, piece).unwrap();
            assert!(updater.progress().staged, "{piece}");
            // Once more is no harm.
            intake.take(&mut updater, 0, &file[..100], NOW).unwrap();
        }
    }

    #[test]
    fn a_push_goes_on_after_a_restart_at_the_first_chunk_that_is_missing() {
        let file = bundle(1);
        let (slots, mut updater) = door();
        let (mut intake, _) = Intake::begin(&mut updater, id_of(&file), file.len() as u64, NOW).unwrap();
        send(&mut intake, &mut updater, &file[..40_000], 9_000).unwrap();
        drop(updater);
        let mut updater = Updater::open(Box::new(slots), "any").unwrap().0;
        let (mut again, known) = Intake::begin(&mut updater, id_of(&file), file.len() as u64, NOW).unwrap();
        assert!(known.is_some() && (32_768..=40_000).contains(&again.offset()), "{}", again.offset());
        send(&mut again, &mut updater, &file, 32 * 1024).unwrap();
        assert!(updater.progress().staged);
        let (whole, known) = Intake::begin(&mut updater, id_of(&file), file.len() as u64, NOW).unwrap();
        assert!(known.unwrap().staged && whole.offset() == file.len() as u64);

        // Tried, rolled back and pushed once more: the header is judged anew, the rest is here.
        updater.activate(NOW).unwrap();
        updater.roll_back(super::super::Outcome::Commanded).unwrap();
        let (mut once_more, known) =
            Intake::begin(&mut updater, id_of(&file), file.len() as u64, NOW).unwrap();
        assert_eq!((once_more.offset(), known), (0, None));
        once_more.take(&mut updater, 0, &file[..20_000], NOW).unwrap();
        assert_eq!(once_more.offset(), file.len() as u64);
        assert!(updater.progress().staged);
    }

    #[test]
    fn lengths_that_do_not_fit_and_bytes_out_of_place_are_refused() {
        let file = bundle(1);
        let (_, mut updater) = door();
        let mut begin = |size: u64| Intake::begin(&mut updater, id_of(&file), size, NOW).map(|(i, _)| i);
        assert!(matches!(begin(1 << 40), Err(UpdateError::TooLong { .. })));
        let (mut short, mut long) =
            (begin(file.len() as u64 - 1).unwrap(), begin(file.len() as u64 + 5).unwrap());
        let mut good = begin(file.len() as u64).unwrap();
        let refused = short.take(&mut updater, 0, &file[..20_000], NOW);
        assert!(
            matches!(refused, Err(UpdateError::Bundle(BundleError::Truncated { missing: 1 }))),
            "{refused:?}"
        );
        let refused = long.take(&mut updater, 0, &file[..20_000], NOW);
        assert!(matches!(refused, Err(UpdateError::Bundle(BundleError::TrailingBytes))), "{refused:?}");
        assert!(matches!(updater.record().phase, super::super::Phase::Idle), "nothing is kept of either");
        let place = good.take(&mut updater, 9, &file[..100], NOW);
        assert!(matches!(place, Err(UpdateError::OutOfPlace { offset: 0 })), "{place:?}");
        let behind = good.take(&mut updater, file.len() as u64 - 1, &[0; 2], NOW);
        assert!(matches!(behind, Err(UpdateError::Bundle(BundleError::TrailingBytes))), "{behind:?}");
        let other = bundle(2);
        let (mut mixed, _) = Intake::begin(&mut updater, id_of(&other), file.len() as u64, NOW).unwrap();
        let refused = mixed.take(&mut updater, 0, &file[..20_000], NOW);
        assert!(matches!(refused, Err(UpdateError::Bundle(BundleError::Malformed { .. }))), "{refused:?}");
        // A damaged chunk is refused, and what is right is taken in its place.
        let mut damaged = file.clone();
        let last = damaged.len() - 10;
        damaged[last] ^= 1;
        let refused = send(&mut good, &mut updater, &damaged, 10_000);
        assert!(matches!(refused, Err(UpdateError::Bundle(BundleError::BadChunk { .. }))), "{refused:?}");
        send(&mut good, &mut updater, &file, 10_000).unwrap();
        assert!(updater.progress().staged);
    }
}

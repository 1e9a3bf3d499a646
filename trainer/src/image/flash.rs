//! Writing an image to a card: written, synced, read back from the medium and compared.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use super::ImageError;
use super::disk::MIB;
use crate::progress::Progress;

/// A card that is written.
pub trait Card: Read + Write + Seek {
    /// Makes sure that everything written is on the medium, and that it is read from there.
    ///
    /// # Errors
    /// The medium's.
    fn settle(&mut self) -> io::Result<()>;
}

impl Card for File {
    fn settle(&mut self) -> io::Result<()> {
        self.sync_all()?;
        // Else the comparison would read the cache. A file system that cannot drop it only makes the comparison weaker.
        let _ = rustix::fs::fadvise(&*self, 0, None, rustix::fs::Advice::DontNeed);
        Ok(())
    }
}

/// Writes `bytes` bytes of `image` to `card`, one step of `progress` a MiB, reads them back and compares.
///
/// The first MiB, which holds the partition table, is emptied first and written last: a card that was pulled out on the way is none that boots
/// half a system, and is simply written again.
///
/// # Errors
/// [`ImageError::Mismatch`]; [`ImageError::Io`] of `name`, with how far it came.
pub fn write(
    image: &mut (impl Read + Seek),
    bytes: u64,
    card: &mut impl Card,
    name: &str,
    progress: &dyn Progress,
) -> Result<(), ImageError> {
    let steps = bytes.div_ceil(MIB);
    let failed = |at: u64| {
        move |error: io::Error| {
            let source = io::Error::new(
                error.kind(),
                format!(
                    "after {} of {steps} MiB: {error}. Put the card in again and repeat the command",
                    at / MIB
                ),
            );
            ImageError::Io { path: name.into(), source }
        }
    };
    progress.start("writing", steps);
    let mut chunk = vec![0; MIB as usize];
    put(card, 0, &chunk).map_err(failed(0))?;
    for step in (1..steps).chain([0]) {
        let at = step * MIB;
        let length = (bytes - at).min(MIB) as usize;
        get(image, at, &mut chunk[..length]).map_err(ImageError::io("the image"))?;
        if step == 0 {
            card.settle().map_err(failed(bytes))?;
        }
        put(card, at, &chunk[..length]).map_err(failed(at))?;
        // So that rate and time left are those of the card, not of memory.
        if step % SYNC_MIB == 0 {
            card.settle().map_err(failed(at))?;
        }
        progress.step();
    }
    card.settle().map_err(failed(bytes))?;
    progress.finish();
    compare(image, bytes, card, failed, progress)
}

fn compare<F: FnOnce(io::Error) -> ImageError>(
    image: &mut (impl Read + Seek),
    bytes: u64,
    card: &mut impl Card,
    failed: impl Fn(u64) -> F,
    progress: &dyn Progress,
) -> Result<(), ImageError> {
    progress.start("comparing", bytes.div_ceil(MIB));
    let (mut wanted, mut found) = (vec![0; MIB as usize], vec![0; MIB as usize]);
    for step in 0..bytes.div_ceil(MIB) {
        let at = step * MIB;
        let length = (bytes - at).min(MIB) as usize;
        get(image, at, &mut wanted[..length]).map_err(ImageError::io("the image"))?;
        get(card, at, &mut found[..length]).map_err(failed(at))?;
        if let Some(differs) = (0..length).find(|i| wanted[*i] != found[*i]) {
            return Err(ImageError::Mismatch { offset: at + differs as u64 });
        }
        progress.step();
    }
    progress.finish();
    Ok(())
}

fn put(to: &mut (impl Write + Seek), at: u64, bytes: &[u8]) -> io::Result<()> {
    to.seek(SeekFrom::Start(at))?;
    to.write_all(bytes)
}

fn get(from: &mut (impl Read + Seek), at: u64, bytes: &mut [u8]) -> io::Result<()> {
    from.seek(SeekFrom::Start(at))?;
    from.read_exact(bytes)
}

/// The card is synced each time so many MiB were written.
const SYNC_MIB: u64 = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use std::io::Cursor;

    /// A card that may be pulled out after so many writes, may keep a wrong bit, and shows what a sync has brought home.
    struct TestCard {
        bytes: Cursor<Vec<u8>>,
        writes_left: usize,
        flips: Option<usize>,
        settled: Vec<u8>,
    }

    impl TestCard {
        fn new(bytes: usize) -> Self {
            Self {
                bytes: Cursor::new(vec![0xee; bytes]),
                writes_left: usize::MAX,
                flips: None,
                settled: Vec::new(),
            }
        }
    }

    impl Read for TestCard {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            self.bytes.read(out)
        }
    }

    impl Seek for TestCard {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.bytes.seek(to)
        }
    }

    impl Write for TestCard {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.writes_left =
                self.writes_left.checked_sub(1).ok_or_else(|| io::Error::other("no medium"))?;
            self.bytes.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Card for TestCard {
        fn settle(&mut self) -> io::Result<()> {
            if let Some(at) = self.flips {
                self.bytes.get_mut()[at] = image()[at] ^ 4;
            }
            self.settled = self.bytes.get_ref().clone();
            Ok(())
        }
    }

    fn image() -> Vec<u8> {
        (0..3 * MIB as usize + 512).map(|i| (i / 7) as u8 ^ (i >> 13) as u8).collect()
    }

    fn flash(card: &mut TestCard) -> Result<(), ImageError> {
        let image = image();
        let bytes = image.len() as u64;
        write(&mut Cursor::new(image), bytes, card, "/dev/sdx", &Silent)
    }

    #[test]
    fn the_card_holds_the_image_and_the_rest_is_left_alone() {
        let mut card = TestCard::new(4 * MIB as usize);
        flash(&mut card).unwrap();
        let length = image().len();
        assert!(card.settled[..length] == image() && card.settled[length..].iter().all(|byte| *byte == 0xee));
    }

    #[test]
    fn a_bit_that_does_not_stick_is_found() {
        let mut card = TestCard::new(4 * MIB as usize);
        card.flips = Some(2 * MIB as usize + 5);
        match flash(&mut card) {
            Err(ImageError::Mismatch { offset }) => assert_eq!(offset, 2 * MIB + 5),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_card_that_is_pulled_out_boots_nothing_and_can_be_written_again() {
        for writes in 0..5 {
            let mut card = TestCard::new(4 * MIB as usize);
            flash(&mut card).unwrap();
            card.writes_left = writes;
            let error = flash(&mut card).unwrap_err();
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            assert!(
                error.to_string().contains("repeat the command") || source.contains("repeat the command"),
                "{error}"
            );
            let table = card.bytes.get_ref()[..MIB as usize].iter().all(|byte| *byte == 0);
            assert!(table || writes == 0, "after {writes} writes a partition table was there");
            card.writes_left = usize::MAX;
            flash(&mut card).unwrap();
        }
    }

    #[test]
    fn a_file_is_a_card() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("card.img");
        let mut file =
            File::options().create(true).truncate(false).read(true).write(true).open(&path).unwrap();
        let image = image();
        write(&mut Cursor::new(&image), image.len() as u64, &mut file, "card.img", &Silent).unwrap();
        assert!(std::fs::read(&path).unwrap() == image);
    }
}

//! A hybrid MBR: the boot ROM of a Raspberry Pi 3 or Zero 2 W reads no other table, and whoever reads the GPT is told that there is one.

use super::disk::Place;

/// The first sector of a card whose GPT has its boot partition at `boot`: that partition as FAT32, and the room before it, from the GPT's header
/// on, as one that is protective (UEFI 2.10, section 5.2). `id` identifies the disk.
pub(super) fn hybrid(boot: Place, id: [u8; 4]) -> [u8; 512] {
    let (start, sectors) = ((boot.start / 512) as u32, (boot.bytes / 512) as u32);
    let mut mbr = [0; 512];
    mbr[440..444].copy_from_slice(&id);
    mbr[446..462].copy_from_slice(&record(FAT32_LBA, start, sectors));
    mbr[462..478].copy_from_slice(&record(PROTECTIVE, 1, start - 1));
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    mbr
}

fn record(kind: u8, start: u32, sectors: u32) -> [u8; 16] {
    let mut record = [0; 16];
    // Cylinders, heads and sectors say that they are beyond what they can express.
    record[1..8].copy_from_slice(&[0xfe, 0xff, 0xff, kind, 0xfe, 0xff, 0xff]);
    record[8..12].copy_from_slice(&start.to_le_bytes());
    record[12..].copy_from_slice(&sectors.to_le_bytes());
    record
}

const FAT32_LBA: u8 = 0x0c;
const PROTECTIVE: u8 = 0xee;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::disk::MIB;

    #[test]
    fn the_boot_partition_comes_first_and_the_protective_one_ends_before_it() {
        let mbr = hybrid(Place { start: MIB, bytes: 90 * MIB }, [1, 2, 3, 4]);
        let number = |at: usize| u32::from_le_bytes(mbr[at..at + 4].try_into().unwrap());
        assert_eq!((mbr[450], number(454), number(458)), (0x0c, 2048, 90 * 2048));
        assert_eq!((mbr[466], number(470), number(474)), (0xee, 1, 2047));
        assert_eq!((&mbr[440..444], &mbr[510..]), (&[1, 2, 3, 4][..], &[0x55, 0xaa][..]));
        assert!(mbr[478..510].iter().chain(&mbr[..440]).all(|byte| *byte == 0), "two records and no code");
    }
}

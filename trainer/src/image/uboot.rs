//! What U-Boot reads: scripts with its legacy image header, and its environment.

use crc::{CRC_32_ISO_HDLC, Crc};

use super::ImageError;

/// A script for `source`: the header of 64 bytes (U-Boot's `include/image.h`, all fields big-endian), the length of the text, a zero that ends
/// the list of lengths, the text.
pub(super) fn script(text: &str, epoch: u64) -> Vec<u8> {
    let length = text.len() as u32;
    let data = [&length.to_be_bytes()[..], &[0; 4], text.as_bytes()].concat();
    let word = u32::to_be_bytes;
    // No load address and no entry point: it is not machine code.
    let fields = [MAGIC, 0, epoch as u32, data.len() as u32, 0, 0, CRC32.checksum(&data)].map(word).concat();
    let mut header = [&fields[..], &[LINUX, ARM64, SCRIPT, UNCOMPRESSED], &NAME[..]].concat();
    // Its own sum is made while that field is zero.
    let sum = CRC32.checksum(&header);
    header[4..8].copy_from_slice(&word(sum));
    [header, data].concat()
}

/// An environment for a U-Boot that keeps it in a file of `bytes`: CRC-32 of the rest, `name=value` with a zero after each, one more zero.
pub(super) fn environment(variables: &[(&str, &str)], bytes: usize) -> Result<Vec<u8>, ImageError> {
    let mut text: Vec<u8> =
        variables.iter().flat_map(|(name, value)| format!("{name}={value}\0").into_bytes()).collect();
    if text.len() + 5 > bytes {
        return Err(ImageError::input(format!("U-Boot's environment has more than {bytes} bytes")));
    }
    text.push(0);
    text.resize(bytes - 4, 0xff);
    Ok([&CRC32.checksum(&text).to_le_bytes()[..], &text].concat())
}

const CRC32: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
const MAGIC: u32 = 0x2705_1956;
const LINUX: u8 = 5;
const ARM64: u8 = 22;
const SCRIPT: u8 = 6;
const UNCOMPRESSED: u8 = 0;
const NAME: &[u8; 32] = b"facelatch\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf 'echo hi\nreset\n' >text; SOURCE_DATE_EPOCH=1767225600 mkimage -A arm64 -T script -C none -n facelatch -d text script` of
    /// Debian's u-boot-tools 2023.01, as hexadecimal digits.
    const BY_MKIMAGE: &str = "270519569b8f1c436955b900000000160000000000000000227b4bba05160600666163656c6174636800000000000000000000000000000000000000000000000000000e000000006563686f2068690a72657365740a";

    /// `printf 'bootdelay=-2\nbootcmd=reset\n' | mkenvimage -s 48 -o environment -` of the same package.
    const BY_MKENVIMAGE: &str =
        "3f2afd37626f6f7464656c61793d2d3200626f6f74636d643d72657365740000ffffffffffffffffffffffffffffffff";

    #[test]
    fn a_script_is_what_mkimage_makes_of_it() {
        assert_eq!(hex::encode(script("echo hi\nreset\n", 1_767_225_600)), BY_MKIMAGE);
    }

    #[test]
    fn an_environment_is_what_mkenvimage_makes_of_it() {
        let made = environment(&[("bootdelay", "-2"), ("bootcmd", "reset")], 48).unwrap();
        assert_eq!(hex::encode(made), BY_MKENVIMAGE);
        assert!(environment(&[("bootdelay", "-2"), ("bootcmd", "reset")], 31).is_err());
    }
}

//! Chips as they are kept: JPEG, so that three of them take about as much as a postage stamp of a photograph.

use facelatch_shared::align::{CHIP_BYTES, CHIP_PX};
use facelatch_shared::gallery::MAX_CHIP_BYTES;
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageFormat, ImageReader, Limits};

/// Encodes a chip, packed RGB `[112, 112, 3]`; less sharply when it would not fit otherwise. `None` when it cannot be encoded at all.
#[must_use]
pub fn encode(chip: &[u8; CHIP_BYTES]) -> Option<Vec<u8>> {
    QUALITIES.iter().find_map(|&quality| {
        let mut bytes = Vec::new();
        let side = CHIP_PX as u32;
        JpegEncoder::new_with_quality(&mut bytes, quality)
            .encode(chip, side, side, ExtendedColorType::Rgb8)
            .ok()?;
        (bytes.len() <= MAX_CHIP_BYTES).then_some(bytes)
    })
}

/// Decodes what [`encode`] made; `None` for anything else.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<Box<[u8; CHIP_BYTES]>> {
    let side = CHIP_PX as u32;
    let mut reader = ImageReader::with_format(std::io::Cursor::new(bytes), ImageFormat::Jpeg);
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(side), Some(side));
    reader.limits(limits);
    let picture = reader.decode().ok()?.into_rgb8();
    picture.into_raw().into_boxed_slice().try_into().ok()
}

/// 95 costs a cosine of about 0.001; noise may need the lower ones to fit.
const QUALITIES: [u8; 4] = [95, 90, 75, 50];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chips_come_back_nearly_as_they_were() {
        let chip: Box<[u8; CHIP_BYTES]> =
            Box::new(std::array::from_fn(|i| (((i / 3) % CHIP_PX) + i / 3 / CHIP_PX) as u8));
        let bytes = encode(&chip).unwrap();
        assert!(bytes.len() < 6000, "{}", bytes.len());
        let back = decode(&bytes).unwrap();
        let apart: u64 = chip.iter().zip(back.iter()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        assert!(apart as f64 / (CHIP_BYTES as f64) < 2.0, "{apart}");
    }

    #[test]
    fn noise_fits_and_other_pictures_are_no_chips() {
        let noise: Box<[u8; CHIP_BYTES]> = Box::new(std::array::from_fn(|i| {
            (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()[0]
        }));
        assert!(encode(&noise).unwrap().len() <= MAX_CHIP_BYTES);
        assert!(decode(b"no picture").is_none());
        let mut other = Vec::new();
        JpegEncoder::new(&mut other).encode(&[0; 48], 4, 4, ExtendedColorType::Rgb8).unwrap();
        assert!(decode(&other).is_none());
    }
}

//! Motion JPEG: structure checked here, pixels decoded by `zune-jpeg`.
//!
//! The structure is walked first because a lenient decoder paints the missing part of a cut frame grey and calls it a picture; a
//! face half grey must not reach the matcher.

use std::panic::{AssertUnwindSafe, catch_unwind};

use facelatch_shared::frame::RgbView;
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use thiserror::Error;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::DecodeError;

/// Decodes `bytes`, which must be a JPEG of exactly `width_px` × `height_px`, over `rgb`. `scratch` holds the frame with its
/// Huffman tables put back, where it came without.
pub(super) fn decode(
    bytes: &[u8],
    width_px: usize,
    height_px: usize,
    scratch: &mut Vec<u8>,
    rgb: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    let layout = walk(bytes)?;
    if (layout.width_px, layout.height_px) != (width_px, height_px) {
        return Err(DecodeError::Size {
            expected_width_px: width_px,
            expected_height_px: height_px,
            actual_width_px: layout.width_px,
            actual_height_px: layout.height_px,
        });
    }
    // zune-jpeg paints what is missing before the end marker without a word, but in strict mode reports bytes that run out. So
    // the marker, which the walk has seen, is kept from it: a scan that stops before its last row of blocks is then an error.
    // It looks up to 63 bits ahead and takes that for the end where a row of blocks has fewer; a row of 32 blocks has at least
    // 64 (2 bits a block).
    let keep_marker = !layout.one_sequential_scan || width_px < 32 * 8;
    let whole = &bytes[..if keep_marker { layout.end } else { layout.end - 2 }];
    let jpeg = if layout.has_tables {
        whole
    } else {
        scratch.clear();
        scratch.extend_from_slice(&whole[..2]);
        scratch.extend_from_slice(&STANDARD_TABLES);
        scratch.extend_from_slice(&whole[2..]);
        scratch
    };
    // Sides are bounded by the caller, and equal the JPEG's.
    rgb.resize(width_px * height_px * 3, 0);
    let options = DecoderOptions::new_fast()
        .set_strict_mode(true)
        .set_max_width(width_px)
        .set_max_height(height_px)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    // The decoder is a third party's and reads whatever comes down the cable: a bug in it costs a frame, not the door.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(jpeg), options);
        decoder.decode_headers().map_err(|e| e.to_string())?;
        match decoder.output_buffer_size() {
            Some(size) if size == rgb.len() => decoder.decode_into(rgb).map_err(|e| e.to_string()),
            size => Err(format!("expected {} bytes of RGB, the decoder gives {size:?}", rgb.len())),
        }
    }));
    match outcome {
        Ok(Ok(())) => Ok(()),
        Ok(Err(what)) => Err(DecodeError::Corrupt { what }),
        Err(_) => Err(DecodeError::Corrupt { what: "the JPEG decoder gave up on it".to_owned() }),
    }
}

/// Writes `rgb` over `out` as a baseline JPEG of `quality` (1–100).
///
/// # Errors
/// [`JpegEncodeError`] when a side exceeds what JPEG can say.
pub fn encode_mjpeg(rgb: &RgbView<'_>, quality: u8, out: &mut Vec<u8>) -> Result<(), JpegEncodeError> {
    let (width_px, height_px) = (rgb.width_px(), rgb.height_px());
    let too_large = || JpegEncodeError { width_px, height_px, what: "a side exceeds 65535 px".to_owned() };
    let width = u32::try_from(width_px).map_err(|_| too_large())?;
    let height = u32::try_from(height_px).map_err(|_| too_large())?;
    out.clear();
    JpegEncoder::new_with_quality(out, quality)
        .encode(rgb.data(), width, height, ExtendedColorType::Rgb8)
        .map_err(|e| JpegEncodeError { width_px, height_px, what: e.to_string() })
}

/// A picture that could not be written as JPEG.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a picture of {width_px}x{height_px} px cannot be written as JPEG: {what}")]
pub struct JpegEncodeError {
    /// Width of the picture.
    pub width_px: usize,
    /// Height of the picture.
    pub height_px: usize,
    /// What the encoder said.
    pub what: String,
}

/// `jpeg` without its Huffman tables, as many UVC cameras send it. It decodes to the same picture only if the tables were the
/// standard ones, which [`encode_mjpeg`] uses.
///
/// # Errors
/// [`DecodeError`] when `jpeg` is no whole JPEG.
pub fn strip_huffman_tables(jpeg: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let end = walk(jpeg)?.end;
    let mut out = jpeg[..2].to_vec();
    let mut at = 2;
    while let Some((marker, body)) = segment(&jpeg[..end], at)? {
        if marker != DHT {
            out.extend_from_slice(&jpeg[at..body.end]);
        }
        at = body.end;
        if marker == SOS {
            break;
        }
    }
    out.extend_from_slice(&jpeg[at..end]);
    Ok(out)
}

/// What the walk over a JPEG's markers found.
#[derive(Debug)]
struct Layout {
    width_px: usize,
    height_px: usize,
    has_tables: bool,
    /// All of it in one scan, not progressive.
    one_sequential_scan: bool,
    /// Index just after the end marker.
    end: usize,
}

/// Walks the markers from start to end; pixels are not looked at.
fn walk(bytes: &[u8]) -> Result<Layout, DecodeError> {
    let truncated = DecodeError::Truncated { actual: bytes.len() };
    match bytes {
        [0xff, SOI, ..] => {}
        [] | [0xff] => return Err(truncated),
        [a, ..] => {
            let b = bytes.get(1).copied().unwrap_or(0);
            return Err(corrupt(format!("expected the start marker ff d8 but found {a:02x} {b:02x}")));
        }
    }
    let mut size = None;
    let mut has_tables = false;
    let mut sequential = false;
    let mut scans = 0_u32;
    let mut at = 2;
    while let Some((marker, body)) = segment(bytes, at)? {
        at = body.end;
        match marker {
            DHT => has_tables = true,
            // Frame headers; C4, C8 and CC in this range mean other things.
            0xc0..=0xcf if !matches!(marker, DHT | 0xc8 | 0xcc) => {
                let Some(&[_, h1, h0, w1, w0]) = bytes[body].first_chunk::<5>() else {
                    return Err(corrupt("its frame header is shorter than 5 bytes".to_owned()));
                };
                sequential = matches!(marker, 0xc0 | 0xc1);
                size = Some((
                    usize::from(u16::from_be_bytes([w1, w0])),
                    usize::from(u16::from_be_bytes([h1, h0])),
                ));
            }
            SOS => {
                scans = scans.saturating_add(1);
                at = end_of_scan(bytes, at).ok_or_else(|| truncated.clone())?;
            }
            EOI => {
                let Some((width_px, height_px)) = size.filter(|_| scans > 0) else {
                    return Err(corrupt("it ends before its first scan".to_owned()));
                };
                return Ok(Layout {
                    width_px,
                    height_px,
                    has_tables,
                    one_sequential_scan: sequential && scans == 1,
                    end: at,
                });
            }
            _ => {}
        }
    }
    Err(truncated)
}

/// The marker at `at` and the range of its payload (empty for markers that have none); `None` where the bytes end first.
fn segment(bytes: &[u8], at: usize) -> Result<Option<(u8, std::ops::Range<usize>)>, DecodeError> {
    let rest = bytes.get(at..).unwrap_or_default();
    match rest.first() {
        None => return Ok(None),
        Some(0xff) => {}
        Some(other) => return Err(corrupt(format!("expected a marker at byte {at} but found {other:02x}"))),
    }
    // Any number of ff may fill up the space before a marker.
    let Some(fill) = rest.iter().position(|b| *b != 0xff) else { return Ok(None) };
    let marker = rest[fill];
    let after = at + fill + 1;
    if matches!(marker, SOI | EOI | 0x01 | 0xd0..=0xd7) {
        return Ok(Some((marker, after..after)));
    }
    let Some(&length) = bytes.get(after..).and_then(|b| b.first_chunk::<2>()) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes(length));
    if length < 2 {
        return Err(corrupt(format!("segment {marker:02x} at byte {at} says it is {length} bytes long")));
    }
    let end = after + length;
    Ok((end <= bytes.len()).then_some((marker, after + 2..end)))
}

/// Index of the marker that ends the entropy-coded bytes from `at` on.
fn end_of_scan(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += bytes.get(at..)?.iter().position(|b| *b == 0xff)?;
        match *bytes.get(at + 1)? {
            // A stuffed ff, a restart, or a fill byte: the scan goes on.
            0x00 | 0xd0..=0xd7 => at += 2,
            0xff => at += 1,
            _ => return Some(at),
        }
    }
}

fn corrupt(what: String) -> DecodeError {
    DecodeError::Corrupt { what }
}

const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const DHT: u8 = 0xc4;

/// The four Huffman tables of ITU-T T.81 Annex K.3 (tables K.3 to K.6) as one DHT segment, marker included.
#[rustfmt::skip]
const STANDARD_TABLES: [u8; 420] = [
    0xff, DHT, 0x01, 0xa2,
    // Luminance DC, K.3.
    0x00,
    0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0,
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,
    // Luminance AC, K.5.
    0x10,
    0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7d,
    0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07,
    0x22, 0x71, 0x14, 0x32, 0x81, 0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0,
    0x24, 0x33, 0x62, 0x72, 0x82, 0x09, 0x0a, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x25, 0x26, 0x27, 0x28,
    0x29, 0x2a, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49,
    0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69,
    0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89,
    0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7,
    0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3, 0xc4, 0xc5,
    0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe1, 0xe2,
    0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8,
    0xf9, 0xfa,
    // Chrominance DC, K.4.
    0x01,
    0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0,
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,
    // Chrominance AC, K.6.
    0x11,
    0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 0x77,
    0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71,
    0x13, 0x22, 0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33, 0x52, 0xf0,
    0x15, 0x62, 0x72, 0xd1, 0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25, 0xf1, 0x17, 0x18, 0x19, 0x1a, 0x26,
    0x27, 0x28, 0x29, 0x2a, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48,
    0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68,
    0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87,
    0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5,
    0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3,
    0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda,
    0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8,
    0xf9, 0xfa,
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const W: usize = 48;
    const H: usize = 40;

    fn picture() -> Vec<u8> {
        let mut rgb = Vec::new();
        for y in 0..H {
            for x in 0..W {
                rgb.extend_from_slice(&[(x * 5) as u8, (y * 6) as u8, ((x * y) / 8) as u8]);
            }
        }
        rgb
    }

    fn encoded() -> Vec<u8> {
        let rgb = picture();
        let mut out = Vec::new();
        encode_mjpeg(&RgbView::new(&rgb, W, H).unwrap(), 92, &mut out).unwrap();
        out
    }

    fn try_decode(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let mut rgb = Vec::new();
        decode(bytes, W, H, &mut Vec::new(), &mut rgb).map(|()| rgb)
    }

    #[test]
    fn a_picture_survives_the_round_trip() {
        let got = try_decode(&encoded()).unwrap();
        let want = picture();
        let total: u32 = got.iter().zip(&want).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
        let mean = f64::from(total) / want.len() as f64;
        assert!(mean < 3.0, "mean error {mean} at quality 92");
    }

    #[test]
    fn missing_tables_are_put_back() {
        let whole = encoded();
        let stripped = strip_huffman_tables(&whole).unwrap();
        assert_eq!(
            stripped.len() + 420 + 3 * 4,
            whole.len(),
            "the encoder writes its four tables as four segments"
        );
        assert!(!walk(&stripped).unwrap().has_tables);
        assert_eq!(try_decode(&stripped).unwrap(), try_decode(&whole).unwrap());
    }

    #[test]
    fn padding_after_the_end_is_ignored() {
        let whole = encoded();
        for pad in [vec![0; 1], vec![0; 4096], vec![0xff; 7], vec![0xff, 0xd8, 0xff]] {
            let padded = [whole.clone(), pad].concat();
            assert_eq!(try_decode(&padded).unwrap(), try_decode(&whole).unwrap());
        }
    }

    #[test]
    fn another_size_is_told_before_decoding() {
        let mut rgb = Vec::new();
        let error = decode(&encoded(), 640, 480, &mut Vec::new(), &mut rgb).unwrap_err();
        assert_eq!(
            error,
            DecodeError::Size {
                expected_width_px: 640,
                expected_height_px: 480,
                actual_width_px: W,
                actual_height_px: H
            }
        );
        assert!(rgb.is_empty(), "nothing is allocated for a picture of the wrong size");
    }

    #[test]
    fn a_cut_at_every_length_is_an_error() {
        for whole in [encoded(), strip_huffman_tables(&encoded()).unwrap()] {
            for length in 0..whole.len() {
                assert!(
                    matches!(try_decode(&whole[..length]), Err(DecodeError::Truncated { actual }) if actual == length),
                    "cut to {length} of {} bytes: {:?}",
                    whole.len(),
                    try_decode(&whole[..length]).map(|_| "a picture")
                );
            }
        }
    }

    #[test]
    fn a_cut_scan_with_its_end_marker_pasted_on_is_corrupt() {
        // What a camera's firmware does when its buffer runs over: the end marker comes, the rows do not.
        let (width_px, height_px) = (256, 64);
        let rgb: Vec<u8> = (0..width_px * height_px * 3).map(|i| (i * 7 % 251) as u8).collect();
        let mut whole = Vec::new();
        encode_mjpeg(&RgbView::new(&rgb, width_px, height_px).unwrap(), 80, &mut whole).unwrap();
        let mut out = Vec::new();
        decode(&whole, width_px, height_px, &mut Vec::new(), &mut out).unwrap();
        let first = whole.windows(2).position(|w| w == [0xff, SOS]).unwrap() + 14;
        // Eight rows of blocks of about equal length; a loss within the last one alone goes unseen.
        let seen = first + (whole.len() - first) * 4 / 5;
        for length in (first..seen).step_by(7).filter(|length| whole[length - 1] != 0xff) {
            let cut = [&whole[..length], &[0xff, EOI]].concat();
            let outcome = decode(&cut, width_px, height_px, &mut Vec::new(), &mut out);
            assert!(
                matches!(outcome, Err(DecodeError::Corrupt { .. })),
                "{length} of {}: {outcome:?}",
                whole.len()
            );
        }
    }

    #[test]
    fn flat_pictures_are_not_taken_for_cut_ones() {
        // The fewest bits a row can have, at and around the width from which the end marker is withheld.
        for width_px in [8, 16, 120, 248, 256, 264, 640] {
            for height_px in [1, 8, 16, 24] {
                let rgb = vec![128; width_px * height_px * 3];
                let mut jpeg = Vec::new();
                encode_mjpeg(&RgbView::new(&rgb, width_px, height_px).unwrap(), 50, &mut jpeg).unwrap();
                let mut out = Vec::new();
                decode(&jpeg, width_px, height_px, &mut Vec::new(), &mut out).unwrap();
                assert!(out.iter().all(|v| v.abs_diff(128) <= 1), "{width_px}x{height_px}");
            }
        }
    }

    #[test]
    fn not_a_jpeg_is_said_plainly() {
        let error = try_decode(&[0x00; 64]).unwrap_err();
        assert_eq!(error.to_string(), "the JPEG is damaged: expected the start marker ff d8 but found 00 00");
    }

    proptest! {
        #[test]
        fn damaged_bytes_never_panic(hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
            let mut bytes = encoded();
            for (index, value) in hits {
                let at = index.index(bytes.len());
                bytes[at] = value;
            }
            // Flipped pixels may still decode; the point is that the size holds and nothing panics.
            if let Ok(rgb) = try_decode(&bytes) {
                prop_assert_eq!(rgb.len(), W * H * 3);
            }
        }
    }
}

//! From a camera's bytes to packed RGB. Everything downstream sees only [`RgbView`].
//!
//! Every frame is checked against what the camera announced before a byte of it is decoded, so that a damaged frame costs one
//! typed error and the next frame is tried. No input makes this panic, and no input makes it allocate more than the announced
//! size asks for.

mod yuv;
mod jpeg;

use facelatch_shared::frame::{FrameError, MAX_SIDE_PX, RgbView};
use thiserror::Error;

use crate::camera::orientation::{Orientation, Rotation};
use crate::camera::{PixelFormat, RawFrame};

pub use jpeg::{JpegEncodeError, encode_mjpeg, strip_huffman_tables};
pub use yuv::{encode_grey, encode_nv12, encode_yuyv};

/// Decodes frames into one buffer that is reused.
#[derive(Debug, Default)]
pub struct Decoder {
    rgb: Vec<u8>,
    // A motion-JPEG frame with its Huffman tables put back.
    jpeg: Vec<u8>,
    orientation: Orientation,
    upright: Vec<u8>,
}

impl Decoder {
    /// A decoder with empty buffers; they grow to the first frame's size and stay.
    #[must_use]
    pub const fn new() -> Self {
        Self::turning(Orientation { rotation: Rotation::None, mirror: false })
    }

    /// A decoder that turns every picture.
    #[must_use]
    pub const fn turning(orientation: Orientation) -> Self {
        Self { rgb: Vec::new(), jpeg: Vec::new(), orientation, upright: Vec::new() }
    }

    /// Decodes `frame` to RGB of the announced size, shape `[height_px, width_px, 3]`, and turns it upright.
    ///
    /// YUYV is read as ITU-R BT.601, limited range (Y 16–235, U and V 16–240), which UVC cameras send and V4L2 assumes by default.
    /// Motion JPEG is full range (JFIF); a frame without Huffman tables gets those of ITU-T T.81 Annex K.3; bytes after the end
    /// marker are padding and are ignored. NV12 is read like YUYV; grey is full range.
    ///
    /// # Errors
    /// [`DecodeError`]: the frame is to be skipped; the decoder stays usable.
    pub fn decode<'a>(&'a mut self, frame: &RawFrame) -> Result<RgbView<'a>, DecodeError> {
        let format = frame.format.ok_or(DecodeError::NoFormat)?;
        if frame.bytes.is_empty() {
            return Err(DecodeError::Empty { format });
        }
        let (width_px, height_px) = (frame.width_px, frame.height_px);
        if width_px == 0 || height_px == 0 || width_px > MAX_SIDE_PX || height_px > MAX_SIDE_PX {
            return Err(DecodeError::Announced { width_px, height_px });
        }
        // No overflow: both sides are at most MAX_SIDE_PX.
        let rgb_len = width_px * height_px * 3;
        match format {
            PixelFormat::Yuyv => {
                if !width_px.is_multiple_of(2) {
                    return Err(DecodeError::OddWidth { width_px });
                }
                check_length(frame, width_px * height_px * 2)?;
                self.rgb.resize(rgb_len, 0);
                yuv::yuyv_to_rgb(&frame.bytes, &mut self.rgb);
            }
            PixelFormat::Nv12 => {
                if !width_px.is_multiple_of(2) || !height_px.is_multiple_of(2) {
                    return Err(DecodeError::OddSize { width_px, height_px });
                }
                check_length(frame, width_px * height_px * 3 / 2)?;
                self.rgb.resize(rgb_len, 0);
                yuv::nv12_to_rgb(&frame.bytes, width_px, height_px, &mut self.rgb);
            }
            PixelFormat::Grey => {
                check_length(frame, width_px * height_px)?;
                self.rgb.clear();
                self.rgb.extend(frame.bytes.iter().flat_map(|&light| [light; 3]));
            }
            PixelFormat::Rgb24 => {
                check_length(frame, rgb_len)?;
                self.rgb.clear();
                self.rgb.extend_from_slice(&frame.bytes);
            }
            PixelFormat::Mjpeg => {
                // Sized only after the headers are seen to agree with what was announced.
                jpeg::decode(&frame.bytes, width_px, height_px, &mut self.jpeg, &mut self.rgb)?;
            }
        }
        if self.orientation.is_identity() {
            return Ok(RgbView::new(&self.rgb, width_px, height_px)?);
        }
        self.orientation.apply(&self.rgb, width_px, height_px, &mut self.upright);
        let (width_px, height_px) = self.orientation.turned(width_px, height_px);
        Ok(RgbView::new(&self.upright, width_px, height_px)?)
    }
}

fn check_length(frame: &RawFrame, expected: usize) -> Result<(), DecodeError> {
    let actual = frame.bytes.len();
    if actual == expected {
        return Ok(());
    }
    Err(DecodeError::Length { width_px: frame.width_px, height_px: frame.height_px, expected, actual })
}

/// Why a frame is not a picture. The frame is skipped; the next one is tried.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The camera has not filled this frame yet.
    #[error("the frame names no pixel format: nothing was captured into it")]
    NoFormat,
    /// No bytes at all.
    #[error(
        "expected a {format:?} picture but the frame has 0 bytes: check the camera's cable and its USB power"
    )]
    Empty {
        /// Format that the camera announced.
        format: PixelFormat,
    },
    /// The announced size is no picture.
    #[error("the camera announced {width_px}x{height_px} px; sides must be 1 to {MAX_SIDE_PX} px")]
    Announced {
        /// Announced width.
        width_px: usize,
        /// Announced height.
        height_px: usize,
    },
    /// 4:2:2 pixels come in pairs.
    #[error("a YUYV picture has an even width but the camera announced {width_px} px: choose another size")]
    OddWidth {
        /// Announced width.
        width_px: usize,
    },
    /// 4:2:0 pixels come in squares of four.
    #[error(
        "an NV12 picture has even sides but the camera announced {width_px}x{height_px} px: choose another size"
    )]
    OddSize {
        /// Announced width.
        width_px: usize,
        /// Announced height.
        height_px: usize,
    },
    /// Uncompressed bytes that do not fill the announced size exactly.
    #[error(
        "a {width_px}x{height_px} frame has {expected} bytes but {actual} came: the frame was cut short on the bus"
    )]
    Length {
        /// Announced width.
        width_px: usize,
        /// Announced height.
        height_px: usize,
        /// Bytes that the size asks for.
        expected: usize,
        /// Bytes that came.
        actual: usize,
    },
    /// The JPEG has another size than the camera announced.
    #[error(
        "expected a JPEG of {expected_width_px}x{expected_height_px} px but it says {actual_width_px}x{actual_height_px} px"
    )]
    Size {
        /// Announced width.
        expected_width_px: usize,
        /// Announced height.
        expected_height_px: usize,
        /// Width in the JPEG's header.
        actual_width_px: usize,
        /// Height in the JPEG's header.
        actual_height_px: usize,
    },
    /// The JPEG ends before its end marker.
    #[error(
        "the JPEG is cut short: {actual} bytes without an end marker; check the cable, or ask for a smaller picture"
    )]
    Truncated {
        /// Bytes that came.
        actual: usize,
    },
    /// The JPEG's bytes contradict themselves.
    #[error("the JPEG is damaged: {what}")]
    Corrupt {
        /// What the decoder said.
        what: String,
    },
    /// The decoded bytes are no picture.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn raw(format: PixelFormat, width_px: usize, height_px: usize, bytes: Vec<u8>) -> RawFrame {
        RawFrame { seq: 1, format: Some(format), width_px, height_px, bytes, ..RawFrame::default() }
    }

    #[test]
    fn errors_name_expected_and_actual() {
        let mut decoder = Decoder::new();
        assert_eq!(decoder.decode(&RawFrame::default()).unwrap_err(), DecodeError::NoFormat);
        for format in
            [PixelFormat::Yuyv, PixelFormat::Mjpeg, PixelFormat::Nv12, PixelFormat::Grey, PixelFormat::Rgb24]
        {
            let empty = raw(format, 8, 8, vec![]);
            assert_eq!(decoder.decode(&empty).unwrap_err(), DecodeError::Empty { format });
            let sizeless = raw(format, 0, 8, vec![1]);
            assert_eq!(
                decoder.decode(&sizeless).unwrap_err(),
                DecodeError::Announced { width_px: 0, height_px: 8 }
            );
            let huge = raw(format, usize::MAX, usize::MAX, vec![1]);
            assert!(matches!(decoder.decode(&huge).unwrap_err(), DecodeError::Announced { .. }));
        }
        let short = decoder.decode(&raw(PixelFormat::Yuyv, 8, 8, vec![0; 127])).unwrap_err();
        assert_eq!(short, DecodeError::Length { width_px: 8, height_px: 8, expected: 128, actual: 127 });
        assert!(short.to_string().contains("128 bytes but 127"), "{short}");
        let long = decoder.decode(&raw(PixelFormat::Rgb24, 8, 8, vec![0; 193])).unwrap_err();
        assert_eq!(long, DecodeError::Length { width_px: 8, height_px: 8, expected: 192, actual: 193 });
        let odd = decoder.decode(&raw(PixelFormat::Yuyv, 7, 8, vec![0; 112])).unwrap_err();
        assert_eq!(odd, DecodeError::OddWidth { width_px: 7 });
        let odd = decoder.decode(&raw(PixelFormat::Nv12, 8, 7, vec![0; 84])).unwrap_err();
        assert_eq!(odd, DecodeError::OddSize { width_px: 8, height_px: 7 });
    }

    #[test]
    fn every_format_gives_the_same_picture_upright() {
        // Four flat fields of 4x4, so that subsampled colour loses nothing.
        let colours = [[200_u8, 40, 60], [30, 160, 90], [50, 70, 220], [128, 128, 128]];
        let rgb: Vec<u8> =
            (0..64).flat_map(|i| colours[usize::from(i % 8 >= 4) + 2 * usize::from(i / 8 >= 4)]).collect();
        let view = RgbView::new(&rgb, 8, 8).unwrap();
        let (mut yuyv, mut nv12, mut grey) = (Vec::new(), Vec::new(), Vec::new());
        encode_yuyv(&view, &mut yuyv);
        encode_nv12(&view, &mut nv12);
        encode_grey(&view, &mut grey);
        let half = Orientation { rotation: Rotation::Half, mirror: true };
        for (format, bytes, colour) in [
            (PixelFormat::Yuyv, yuyv, true),
            (PixelFormat::Nv12, nv12, true),
            (PixelFormat::Grey, grey, false),
        ] {
            let frame = raw(format, 8, 8, bytes);
            let got = Decoder::new().decode(&frame).unwrap().data().to_vec();
            for (got, want) in got.chunks(3).zip(rgb.chunks(3)) {
                let luma =
                    (299 * u32::from(want[0]) + 587 * u32::from(want[1]) + 114 * u32::from(want[2])) / 1000;
                for (channel, value) in got.iter().enumerate() {
                    let expected = if colour { want[channel] } else { luma as u8 };
                    assert!(value.abs_diff(expected) <= 3, "{format:?}: {got:?} for {want:?}");
                }
            }
            let mut turning = Decoder::turning(half);
            let turned = turning.decode(&frame).unwrap();
            // Half a turn and a mirror: the last row comes first.
            assert_eq!(turned.data()[..24], got[7 * 24..], "{format:?}");
        }
    }

    #[test]
    fn a_bad_frame_leaves_the_decoder_usable_and_sizes_may_change() {
        let mut decoder = Decoder::new();
        assert!(decoder.decode(&raw(PixelFormat::Mjpeg, 8, 8, vec![0xff, 0xd8, 0xff])).is_err());
        let big = vec![9; 8 * 8 * 3];
        assert_eq!(decoder.decode(&raw(PixelFormat::Rgb24, 8, 8, big.clone())).unwrap().data(), &big);
        let small = vec![1, 2, 3];
        assert_eq!(decoder.decode(&raw(PixelFormat::Rgb24, 1, 1, small.clone())).unwrap().data(), &small);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..700),
            width_px in 0_usize..40,
            height_px in 0_usize..40,
            format in prop_oneof![
                Just(PixelFormat::Yuyv), Just(PixelFormat::Mjpeg), Just(PixelFormat::Nv12), Just(PixelFormat::Grey),
                Just(PixelFormat::Rgb24),
            ],
        ) {
            let mut decoder = Decoder::new();
            if let Ok(view) = decoder.decode(&raw(format, width_px, height_px, bytes)) {
                prop_assert_eq!((view.width_px(), view.height_px()), (width_px, height_px));
            }
        }
    }
}

//! Views of decoded pictures. Everything downstream of the decoder sees packed RGB.

use thiserror::Error;

/// A borrowed picture: packed 8-bit RGB, row after row, no padding. Shape `[height_px, width_px, 3]`.
#[derive(Clone, Copy)]
pub struct RgbView<'a> {
    data: &'a [u8],
    width_px: usize,
    height_px: usize,
}

impl<'a> RgbView<'a> {
    /// Wraps `data`, which must hold exactly `width_px * height_px * 3` bytes.
    ///
    /// # Errors
    /// [`FrameError::Empty`] for a side of zero, [`FrameError::TooLarge`] for a side over [`MAX_SIDE_PX`],
    /// [`FrameError::Length`] when the byte count does not fit.
    pub const fn new(data: &'a [u8], width_px: usize, height_px: usize) -> Result<Self, FrameError> {
        if width_px == 0 || height_px == 0 {
            return Err(FrameError::Empty);
        }
        if width_px > MAX_SIDE_PX || height_px > MAX_SIDE_PX {
            return Err(FrameError::TooLarge { width_px, height_px });
        }
        let expected = width_px * height_px * 3;
        if data.len() != expected {
            return Err(FrameError::Length { expected, actual: data.len() });
        }
        Ok(Self { data, width_px, height_px })
    }

    /// Width in pixels.
    #[must_use]
    pub const fn width_px(&self) -> usize {
        self.width_px
    }

    /// Height in pixels.
    #[must_use]
    pub const fn height_px(&self) -> usize {
        self.height_px
    }

    /// The bytes, `[height_px, width_px, 3]`.
    #[must_use]
    pub const fn data(&self) -> &'a [u8] {
        self.data
    }

    /// The pixel at column `x`, row `y`; both are clamped to the picture.
    #[must_use]
    pub fn pixel_clamped(&self, x: isize, y: isize) -> [u8; 3] {
        let x = x.clamp(0, self.width_px as isize - 1) as usize;
        let y = y.clamp(0, self.height_px as isize - 1) as usize;
        let at = (y * self.width_px + x) * 3;
        [self.data[at], self.data[at + 1], self.data[at + 2]]
    }
}

impl core::fmt::Debug for RgbView<'_> {
    // Sizes only: pixels of people never reach a log.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "RgbView({}x{})", self.width_px, self.height_px)
    }
}

/// The largest side of a picture that is accepted, in pixels.
pub const MAX_SIDE_PX: usize = 8192;

/// Why bytes are not a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A side is zero.
    #[error("the picture has no pixels")]
    Empty,
    /// A side exceeds [`MAX_SIDE_PX`].
    #[error("a picture of {width_px}x{height_px} is larger than {MAX_SIDE_PX} px a side: scale it down")]
    TooLarge {
        /// Width asked for.
        width_px: usize,
        /// Height asked for.
        height_px: usize,
    },
    /// The byte count does not match the size.
    #[error("the picture needs {expected} bytes but has {actual}")]
    Length {
        /// Bytes that the size asks for.
        expected: usize,
        /// Bytes given.
        actual: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_must_fit() {
        let bytes = [7_u8; 12];
        assert!(RgbView::new(&bytes, 2, 2).is_ok());
        assert_eq!(RgbView::new(&bytes, 3, 2).unwrap_err(), FrameError::Length { expected: 18, actual: 12 });
        assert_eq!(RgbView::new(&bytes, 0, 2).unwrap_err(), FrameError::Empty);
        assert!(matches!(RgbView::new(&bytes, 9000, 1), Err(FrameError::TooLarge { .. })));
    }

    #[test]
    fn pixels_outside_repeat_the_border() {
        let bytes = [1, 2, 3, 4, 5, 6];
        let view = RgbView::new(&bytes, 2, 1).unwrap();
        assert_eq!(view.pixel_clamped(-5, -5), [1, 2, 3]);
        assert_eq!(view.pixel_clamped(9, 9), [4, 5, 6]);
    }
}

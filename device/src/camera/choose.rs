//! Which of a camera's formats and sizes to ask for. Pure, so that it is tested on lists that real cameras gave.

use thiserror::Error;

use super::PixelFormat;

/// One format that a camera offers, with the sizes that it comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Four-character code, as V4L2 names it.
    pub fourcc: [u8; 4],
    /// Sizes; empty where the driver does not say.
    pub sizes: Vec<OfferedSize>,
}

/// Sizes that a format comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfferedSize {
    /// Exactly one size.
    Discrete {
        /// Width in pixels.
        width_px: u32,
        /// Height in pixels.
        height_px: u32,
        /// The most frames in a thousand seconds at this size, where the driver says it.
        max_mfps: Option<u32>,
    },
    /// Any size between the bounds, in steps; a step of zero counts as one.
    Stepwise {
        /// Smallest and largest width, and step, in pixels.
        width_px: (u32, u32, u32),
        /// Smallest and largest height, and step, in pixels.
        height_px: (u32, u32, u32),
    },
}

/// What the configuration asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Only this format, where set; else the one with the nearest size, motion JPEG before YUYV (it needs a tenth of the bus).
    pub format: Option<PixelFormat>,
    /// Width in pixels.
    pub width_px: u32,
    /// Height in pixels.
    pub height_px: u32,
}

impl Default for Wish {
    fn default() -> Self {
        Self { format: None, width_px: 640, height_px: 480 }
    }
}

/// The format and size to ask the driver for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Format.
    pub format: PixelFormat,
    /// Its four-character code at this camera.
    pub fourcc: [u8; 4],
    /// Width in pixels.
    pub width_px: u32,
    /// Height in pixels.
    pub height_px: u32,
}

/// Picks from `offers` what comes nearest to `wish`. Distance is the difference of both sides in pixels, where a side that is too
/// small counts four times (a face loses detail that scaling down would not lose). At equal distance the format decides, then the
/// order of `offers`. A size that is said to give fewer than [`LEAST_MFPS`] is taken only where nothing else is there.
///
/// # Errors
/// [`NoFit`] when the camera has no format that the decoder reads, or not the configured one.
pub fn choose(offers: &[Offer], wish: &Wish) -> Result<Choice, NoFit> {
    let mut best: Option<((bool, u64, u8), Choice)> = None;
    for offer in offers {
        let Some((format, rank)) = known(offer.fourcc) else { continue };
        if wish.format.is_some_and(|wanted| wanted != format) {
            continue;
        }
        let unsaid =
            [OfferedSize::Discrete { width_px: wish.width_px, height_px: wish.height_px, max_mfps: None }];
        let sizes = if offer.sizes.is_empty() { &unsaid[..] } else { &offer.sizes };
        for size in sizes {
            let (width_px, height_px) = nearest(size, wish);
            if width_px == 0 || height_px == 0 || !fits(format, width_px, height_px) {
                continue;
            }
            let slow =
                matches!(size, OfferedSize::Discrete { max_mfps: Some(most), .. } if *most < LEAST_MFPS);
            let apart = distance(width_px, wish.width_px) + distance(height_px, wish.height_px);
            let cost = (slow, apart, rank);
            if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                best = Some((cost, Choice { format, fourcc: offer.fourcc, width_px, height_px }));
            }
        }
    }
    best.map(|(_, choice)| choice).ok_or_else(|| NoFit {
        wanted: wish
            .format
            .map_or_else(|| "MJPG, YUYV, NV12, GREY or RGB3".to_owned(), |format| code(format).to_owned()),
        offered: match offers {
            [] => "nothing".to_owned(),
            some => some.iter().map(|o| o.fourcc.escape_ascii().to_string()).collect::<Vec<_>>().join(", "),
        },
    })
}

/// The camera cannot give frames that the decoder reads.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("needs {wanted} but offers {offered}")]
pub struct NoFit {
    /// Formats that would do.
    pub wanted: String,
    /// Formats that it has.
    pub offered: String,
}

fn known(fourcc: [u8; 4]) -> Option<(PixelFormat, u8)> {
    match &fourcc {
        b"MJPG" | b"JPEG" => Some((PixelFormat::Mjpeg, 0)),
        b"YUYV" => Some((PixelFormat::Yuyv, 1)),
        b"NV12" => Some((PixelFormat::Nv12, 2)),
        b"RGB3" => Some((PixelFormat::Rgb24, 3)),
        b"GREY" => Some((PixelFormat::Grey, 4)),
        _ => None,
    }
}

const fn code(format: PixelFormat) -> &'static str {
    match format {
        PixelFormat::Mjpeg => "MJPG",
        PixelFormat::Yuyv => "YUYV",
        PixelFormat::Nv12 => "NV12",
        PixelFormat::Grey => "GREY",
        PixelFormat::Rgb24 => "RGB3",
    }
}

/// Whether the format can have that size: pixels that share a colour come in pairs or squares.
const fn fits(format: PixelFormat, width_px: u32, height_px: u32) -> bool {
    match format {
        PixelFormat::Yuyv => width_px.is_multiple_of(2),
        PixelFormat::Nv12 => width_px.is_multiple_of(2) && height_px.is_multiple_of(2),
        _ => true,
    }
}

/// Ten frames a second: below that, three agreeing frames of a passing face take too long.
pub const LEAST_MFPS: u32 = 10_000;

fn nearest(size: &OfferedSize, wish: &Wish) -> (u32, u32) {
    match *size {
        OfferedSize::Discrete { width_px, height_px, .. } => (width_px, height_px),
        OfferedSize::Stepwise { width_px, height_px } => {
            (on_step(width_px, wish.width_px), on_step(height_px, wish.height_px))
        }
    }
}

/// The smallest value on the grid that is not below `wanted`, else the largest.
fn on_step((least, most, step): (u32, u32, u32), wanted: u32) -> u32 {
    if wanted <= least || most <= least {
        return least;
    }
    let step = step.max(1);
    let up = (wanted - least).div_ceil(step).min((most - least) / step);
    least + up * step
}

fn distance(got: u32, wanted: u32) -> u64 {
    let apart = u64::from(got.abs_diff(wanted));
    if got < wanted { apart * 4 } else { apart }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(fourcc: &[u8; 4], sizes: &[(u32, u32)]) -> Offer {
        let sizes = sizes
            .iter()
            .map(|&(width_px, height_px)| OfferedSize::Discrete { width_px, height_px, max_mfps: None })
            .collect();
        Offer { fourcc: *fourcc, sizes }
    }

    fn chosen(offers: &[Offer], wish: Wish) -> (PixelFormat, u32, u32) {
        let choice = choose(offers, &wish).unwrap();
        (choice.format, choice.width_px, choice.height_px)
    }

    #[test]
    fn the_same_size_in_both_formats_is_taken_compressed() {
        // As a Logitech C270 lists itself.
        let offers = [
            offer(b"YUYV", &[(640, 480), (160, 120), (320, 240), (1280, 960)]),
            offer(b"MJPG", &[(640, 480), (160, 120), (320, 240), (1280, 960)]),
        ];
        assert_eq!(chosen(&offers, Wish::default()), (PixelFormat::Mjpeg, 640, 480));
        let configured = Wish { format: Some(PixelFormat::Yuyv), width_px: 1280, height_px: 960 };
        assert_eq!(chosen(&offers, configured), (PixelFormat::Yuyv, 1280, 960));
    }

    #[test]
    fn the_nearest_size_wins_over_the_format_and_larger_over_smaller() {
        let offers =
            [offer(b"MJPG", &[(1920, 1080), (1280, 720)]), offer(b"YUYV", &[(320, 240), (640, 480)])];
        assert_eq!(chosen(&offers, Wish::default()), (PixelFormat::Yuyv, 640, 480));
        let only = [offer(b"MJPG", &[(320, 240), (1280, 720)])];
        // 320+240 too small counts 4 × 560; 640+240 too large counts 880.
        assert_eq!(chosen(&only, Wish::default()), (PixelFormat::Mjpeg, 1280, 720));
    }

    #[test]
    fn ranges_are_met_on_their_grid() {
        let range = |width_px, height_px| {
            [Offer { fourcc: *b"YUYV", sizes: vec![OfferedSize::Stepwise { width_px, height_px }] }]
        };
        assert_eq!(chosen(&range((16, 4096, 2), (16, 4096, 2)), Wish::default()).1, 640);
        assert_eq!(
            chosen(&range((32, 4096, 48), (16, 300, 8)), Wish::default()),
            (PixelFormat::Yuyv, 656, 296)
        );
        assert_eq!(
            chosen(&range((800, 4096, 0), (16, 16, 0)), Wish::default()),
            (PixelFormat::Yuyv, 800, 16)
        );
        // A driver that gives its bounds the wrong way round.
        assert_eq!(chosen(&range((640, 0, 1), (480, 0, 1)), Wish::default()), (PixelFormat::Yuyv, 640, 480));
    }

    #[test]
    fn a_slow_size_is_the_last_resort() {
        let size =
            |width_px, height_px, mfps| OfferedSize::Discrete { width_px, height_px, max_mfps: Some(mfps) };
        // As uncompressed modes behind USB 2 list themselves.
        let slow = Offer { fourcc: *b"YUYV", sizes: vec![size(640, 480, 7_500), size(320, 240, 30_000)] };
        assert_eq!(chosen(std::slice::from_ref(&slow), Wish::default()), (PixelFormat::Yuyv, 320, 240));
        let alone = Offer { fourcc: *b"YUYV", sizes: vec![size(640, 480, 7_500)] };
        assert_eq!(chosen(&[alone], Wish::default()), (PixelFormat::Yuyv, 640, 480));
        let nv12 = Offer { fourcc: *b"NV12", sizes: vec![size(640, 480, 10_000)] };
        assert_eq!(chosen(&[slow, nv12], Wish::default()), (PixelFormat::Nv12, 640, 480));
    }

    #[test]
    fn an_infrared_camera_is_a_camera() {
        assert_eq!(chosen(&[offer(b"GREY", &[(640, 360)])], Wish::default()), (PixelFormat::Grey, 640, 360));
    }

    #[test]
    fn an_odd_width_is_no_yuyv() {
        let offers = [offer(b"YUYV", &[(641, 480), (320, 240)])];
        assert_eq!(chosen(&offers, Wish::default()), (PixelFormat::Yuyv, 320, 240));
    }

    #[test]
    fn unsaid_sizes_are_asked_for_as_wished() {
        assert_eq!(chosen(&[offer(b"MJPG", &[])], Wish::default()), (PixelFormat::Mjpeg, 640, 480));
    }

    #[test]
    fn nothing_usable_names_what_is_there() {
        let depth = [offer(b"Z16 ", &[(640, 480)]), offer(b"BA81", &[(640, 480)])];
        let error = choose(&depth, &Wish::default()).unwrap_err();
        assert_eq!(error.to_string(), "needs MJPG, YUYV, NV12, GREY or RGB3 but offers Z16 , BA81");
        let wish = Wish { format: Some(PixelFormat::Yuyv), ..Wish::default() };
        let error = choose(&[offer(b"MJPG", &[(640, 480)])], &wish).unwrap_err();
        assert_eq!(error.to_string(), "needs YUYV but offers MJPG");
        assert!(choose(&[], &Wish::default()).unwrap_err().to_string().contains("nothing"));
    }
}

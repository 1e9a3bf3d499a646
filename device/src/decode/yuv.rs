//! Packed 4:2:2 (YUYV) and planar 4:2:0 (NV12) to RGB and back, ITU-R BT.601 limited range, in integers.
//!
//! Coefficients are those of BT.601-7 section 2.5 with limited-range scaling (255/219 for luma, 255/224 for chroma), times 2¹⁶.

use facelatch_shared::frame::RgbView;

/// Converts pairs of pixels; `yuyv` has 4 bytes for every 6 of `rgb` (the caller has checked both lengths).
pub(super) fn yuyv_to_rgb(yuyv: &[u8], rgb: &mut [u8]) {
    for (quad, pair) in yuyv.chunks_exact(4).zip(rgb.chunks_exact_mut(6)) {
        write_pair([quad[0], quad[2]], [quad[1], quad[3]], pair);
    }
}

/// Converts a plane of Y and one of interleaved U and V, each of which serves four pixels; both sides are even and the caller has
/// checked the lengths.
pub(super) fn nv12_to_rgb(nv12: &[u8], width_px: usize, height_px: usize, rgb: &mut [u8]) {
    let (luma, chroma) = nv12.split_at(width_px * height_px);
    for (y, row) in rgb.chunks_exact_mut(width_px * 3).enumerate() {
        let luma = &luma[y * width_px..][..width_px];
        let chroma = &chroma[y / 2 * width_px..][..width_px];
        for ((y, uv), pair) in luma.chunks_exact(2).zip(chroma.chunks_exact(2)).zip(row.chunks_exact_mut(6)) {
            write_pair([y[0], y[1]], [uv[0], uv[1]], pair);
        }
    }
}

/// Two pixels that share their colour.
fn write_pair(lumas: [u8; 2], [u, v]: [u8; 2], pair: &mut [u8]) {
    let u = i32::from(u) - 128;
    let v = i32::from(v) - 128;
    let red = RED_V * v + HALF;
    let green = GREEN_U * u + GREEN_V * v + HALF;
    let blue = BLUE_U * u + HALF;
    for (pixel, luma) in pair.chunks_exact_mut(3).zip(lumas) {
        let y = LUMA * (i32::from(luma) - 16);
        pixel[0] = to_byte((y + red) >> SHIFT);
        pixel[1] = to_byte((y + green) >> SHIFT);
        pixel[2] = to_byte((y + blue) >> SHIFT);
    }
}

/// Writes `rgb` over `out` as YUYV, as a UVC camera sends it: chroma is the mean of each pair. An odd last column is dropped, so
/// that `out` has `height_px * (width_px / 2) * 4` bytes.
///
/// Where both pixels of a pair are equal, decoding gives each channel back within ±3 (rounding in limited range); a test holds it.
pub fn encode_yuyv(rgb: &RgbView<'_>, out: &mut Vec<u8>) {
    out.clear();
    out.reserve(rgb.width_px() / 2 * 4 * rgb.height_px());
    for row in rgb.data().chunks_exact(rgb.width_px() * 3) {
        for pair in row.chunks_exact(6) {
            let [r0, g0, b0] = [i32::from(pair[0]), i32::from(pair[1]), i32::from(pair[2])];
            let [r1, g1, b1] = [i32::from(pair[3]), i32::from(pair[4]), i32::from(pair[5])];
            // Sums of two pixels, hence one more bit to shift for chroma.
            let [r, g, b] = [r0 + r1, g0 + g1, b0 + b1];
            let u = (-9_714 * r - 19_070 * g + 28_784 * b + 2 * HALF) >> (SHIFT + 1);
            let v = (28_784 * r - 24_103 * g - 4_681 * b + 2 * HALF) >> (SHIFT + 1);
            out.extend_from_slice(&[
                luma_of(r0, g0, b0),
                to_byte(u + 128),
                luma_of(r1, g1, b1),
                to_byte(v + 128),
            ]);
        }
    }
}

/// Writes `rgb` (even sides; an odd last row or column is dropped) over `out` as NV12: chroma is that of [`encode_yuyv`] on every second row.
pub fn encode_nv12(rgb: &RgbView<'_>, out: &mut Vec<u8>) {
    let mut yuyv = Vec::new();
    encode_yuyv(rgb, &mut yuyv);
    let row_bytes = rgb.width_px() / 2 * 4;
    let rows = rgb.height_px() / 2 * 2;
    let yuyv = &yuyv[..row_bytes * rows];
    out.clear();
    out.extend(yuyv.iter().step_by(2));
    for row in yuyv.chunks_exact(row_bytes.max(1)).step_by(2) {
        out.extend(row.iter().skip(1).step_by(2));
    }
}

/// Writes the light of `rgb` over `out`, one byte a pixel, full range (BT.601 weights).
pub fn encode_grey(rgb: &RgbView<'_>, out: &mut Vec<u8>) {
    out.clear();
    out.extend(rgb.data().chunks_exact(3).map(|p| {
        let weighted = 19_595 * u32::from(p[0]) + 38_470 * u32::from(p[1]) + 7_471 * u32::from(p[2]);
        // The weights add up to 2^16: at most 255.
        ((weighted + (1 << 15)) >> 16) as u8
    }));
}

fn luma_of(r: i32, g: i32, b: i32) -> u8 {
    to_byte(((16_829 * r + 33_039 * g + 6_416 * b + HALF) >> SHIFT) + 16)
}

fn to_byte(value: i32) -> u8 {
    // In range after the clamp.
    value.clamp(0, 255) as u8
}

const SHIFT: u32 = 16;
const HALF: i32 = 1 << (SHIFT - 1);
const LUMA: i32 = 76_309;
const RED_V: i32 = 104_597;
const GREEN_U: i32 = -25_675;
const GREEN_V: i32 = -53_279;
const BLUE_U: i32 = 132_201;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_colours() {
        // 75 % bars are awkward to state; black, white and the primaries of BT.601 limited range are in every table.
        for (yuv, rgb) in [
            ([16_u8, 128, 128], [0_u8, 0, 0]),
            ([235, 128, 128], [255, 255, 255]),
            ([81, 90, 240], [255, 0, 0]),
            ([145, 54, 34], [0, 255, 0]),
            ([41, 240, 110], [0, 0, 255]),
        ] {
            let mut out = [0; 6];
            yuyv_to_rgb(&[yuv[0], yuv[1], yuv[0], yuv[2]], &mut out);
            for (got, want) in out[..3].iter().zip(rgb) {
                assert!(got.abs_diff(want) <= 2, "{yuv:?} gave {out:?}, expected {rgb:?}");
            }
            let mut back = Vec::new();
            let pair = [rgb, rgb].concat();
            encode_yuyv(&RgbView::new(&pair, 2, 1).unwrap(), &mut back);
            for (got, want) in [back[0], back[1], back[3]].iter().zip(yuv) {
                assert!(got.abs_diff(want) <= 1, "{rgb:?} gave {back:?}, expected {yuv:?}");
            }
        }
    }

    #[test]
    fn excess_luma_saturates() {
        let mut out = [0; 6];
        yuyv_to_rgb(&[255, 128, 0, 128], &mut out);
        assert_eq!(out, [255, 255, 255, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn round_trip_within_three(colours in proptest::collection::vec(any::<[u8; 3]>(), 1..64)) {
            let rgb: Vec<u8> = colours.iter().flat_map(|c| [*c, *c].concat()).collect();
            let view = RgbView::new(&rgb, colours.len() * 2, 1).unwrap();
            let mut yuyv = Vec::new();
            encode_yuyv(&view, &mut yuyv);
            prop_assert_eq!(yuyv.len(), colours.len() * 4);
            let mut back = vec![0; rgb.len()];
            yuyv_to_rgb(&yuyv, &mut back);
            for (got, want) in back.iter().zip(&rgb) {
                prop_assert!(got.abs_diff(*want) <= 3, "{} for {}", got, want);
            }
        }
    }
}

use proptest::prelude::*;

use super::super::SimilarityTransform;
use super::super::similarity::AlignError;
use super::*;

/// A smooth picture of any place in the plane, so that it can be looked at through any transform.
fn colour(at: Point) -> [f32; 3] {
    let wave = |fx: f32, fy: f32, phase: f32| 128.0 + 90.0 * (at.x * fx + at.y * fy + phase).sin();
    [wave(0.031, 0.017, 0.0), wave(-0.021, 0.029, 1.0), wave(0.013, -0.033, 2.0)]
}

fn photograph(from_plane: &SimilarityTransform, width: usize, height: usize) -> std::vec::Vec<u8> {
    let back = from_plane.inverse();
    (0..width * height)
        .flat_map(|i| {
            colour(back.apply(Point::new((i % width) as f32, (i / width) as f32))).map(|v| v.round() as u8)
        })
        .collect()
}

/// A generic face at chip size in the plane, turned by an affine camera.
fn turned(yaw_deg: f32) -> Fiducials68 {
    let (s, c) = yaw_deg.to_radians().sin_cos();
    Fiducials68::all_visible(core::array::from_fn(|i| {
        let [x, y, z] = shape::positions()[i];
        Point::new(x * c - z * s, y)
    }))
}

fn chip(
    pixels: &[u8],
    (width, height): (usize, usize),
    face: &Fiducials68,
    side: usize,
) -> std::vec::Vec<u8> {
    let mut out = std::vec![7_u8; side * side * 3];
    frontalize(&RgbView::new(pixels, width, height).unwrap(), face, side, &mut out).unwrap();
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn a_similarity_of_picture_and_fiducials_changes_nothing(
        angle in -3.1_f32..3.1, scale in 0.8_f32..1.6, yaw in -45.0_f32..45.0,
    ) {
        let face = turned(yaw);
        let look = |angle: f32, scale: f32| {
            let (a, b) = (scale * angle.cos(), scale * angle.sin());
            // The face's middle, (0, 70), comes to the middle of the frame.
            let t = SimilarityTransform { a, b, tx: 250.0 + b * 70.0, ty: 250.0 - a * 70.0 };
            chip(&photograph(&t, 500, 500), (500, 500), &face.map(|p| t.apply(p)), 112)
        };
        let (upright, moved) = (look(0.0, 1.0), look(angle, scale));
        let differences = || upright.iter().zip(&moved).map(|(a, b)| a.abs_diff(*b));
        let mean = differences().map(f64::from).sum::<f64>() / upright.len() as f64;
        prop_assert!(mean < 1.0, "{mean}");
        prop_assert!(differences().filter(|d| *d > 6).count() < upright.len() / 500);
    }

    #[test]
    fn no_fiducials_make_it_panic(points in prop::collection::vec((-90.0_f32..300.0, -90.0_f32..300.0), 68), mix in 0.0_f32..1.0) {
        let base = turned(20.0);
        let face = Fiducials68::all_visible(core::array::from_fn(|i| {
            let p = base.points[i];
            Point::new(p.x + 100.0 + mix * (points[i].0 - p.x), p.y + mix * (points[i].1 - p.y))
        }));
        let pixels = std::vec![200_u8; 200 * 160 * 3];
        let mut out = std::vec![0_u8; 64 * 64 * 3];
        let _ = frontalize(&RgbView::new(&pixels, 200, 160).unwrap(), &face, 64, &mut out);
    }
}

#[test]
fn the_frontal_face_is_copied_to_its_place() {
    // A generic frontal face, moved so that its chip is the frame's upper left corner: the warp is the identity.
    let face = turned(0.0).map(|p| Point::new(p.x + MIDLINE_PX, p.y));
    let still = SimilarityTransform { a: 1.0, b: 0.0, tx: 0.0, ty: 0.0 };
    let pixels = photograph(&still, 112, 112);
    let out = chip(&pixels, (112, 112), &face, 112);
    let worst = out.iter().zip(&pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(worst <= 3, "off by {worst}");
}

#[test]
fn the_hidden_side_shows_the_other() {
    // Turned to the viewer's left, the viewer's left cheek is hidden. Its side of the frame is red, the other green.
    let face = turned(-55.0).map(|p| Point::new(p.x + 120.0, p.y + 20.0));
    let boundary = face.points[30].x;
    let pixels: std::vec::Vec<u8> = (0..240 * 160)
        .flat_map(|i| if ((i % 240) as f32) < boundary { [220, 0, 0] } else { [0, 220, 0] })
        .collect();
    let out = chip(&pixels, (240, 160), &face, 112);
    let at = |x: usize, y: usize| &out[(y * 112 + x) * 3..][..2];
    for (x, y) in [(22, 60), (25, 80), (90, 60), (87, 80)] {
        assert!(at(x, y)[1] > 180 && at(x, y)[0] < 40, "({x}, {y}) is {:?}", at(x, y));
    }
    let seen = turned(0.0).map(|p| Point::new(p.x + 120.0, p.y + 20.0));
    let out = chip(&pixels, (240, 160), &seen, 112);
    let left = &out[(60 * 112 + 22) * 3..][..2];
    assert!(left[0] > 180, "a frontal face keeps both its sides");
}

#[test]
fn every_pixel_of_the_chip_is_drawn() {
    let pixels = std::vec![255_u8; 400 * 400 * 3];
    for yaw in [-50.0, -20.0, 0.0, 35.0, 60.0] {
        let face = turned(yaw).map(|p| Point::new(p.x + 200.0, p.y + 130.0));
        for side in [112, FRONTAL_PX] {
            let out = chip(&pixels, (400, 400), &face, side);
            assert!(out.iter().all(|v| *v == 255), "at yaw {yaw}");
        }
    }
}

#[test]
fn faults_have_names() {
    let pixels = std::vec![0_u8; 200 * 200 * 3];
    let view = RgbView::new(&pixels, 200, 200).unwrap();
    let mut out = std::vec![0_u8; 112 * 112 * 3];
    let face = turned(0.0).map(|p| Point::new(p.x + 100.0, p.y + 30.0));
    let mut run = |face: &Fiducials68| frontalize(&view, face, 112, &mut out).map(|_| ());
    assert_eq!(run(&face), Ok(()));
    assert_eq!(run(&face.map(|p| Point::new(p.x + 900.0, p.y))), Err(AlignError::Outside));
    assert_eq!(run(&face.map(|_| Point::new(9.0, 9.0))), Err(AlignError::Coincident));
    assert_eq!(run(&face.map(|p| Point::new(p.x, p.x))), Err(AlignError::Collinear));
    assert_eq!(run(&face.map(|p| Point::new(p.x, f32::NAN))), Err(AlignError::NotFinite));
    assert_eq!(
        frontalize(&view, &face, 112, &mut [0; 10]).map(|_| ()),
        Err(AlignError::Buffer { expected: 37_632, actual: 10 })
    );
}

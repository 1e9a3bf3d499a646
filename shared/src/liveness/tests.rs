use super::synthetic::{Kind, Sequence, play, rates};
use super::*;
use crate::detection::Point;
use proptest::prelude::*;

/// About what a fiducials net of 2 % mean error leaves from frame to frame, in eye distances.
const NOISE: f32 = 0.015;

#[test]
fn heads_that_turn_as_asked_pass() {
    for (turn_deg, least) in [(16.0, 190), (20.0, 197), (28.0, 197)] {
        let found = rates(Kind::Head { turn_deg }, NOISE, 200);
        assert!(found.turned >= least, "{turn_deg}°: {found:?}");
        assert_eq!(found.not_a_head, 0, "{turn_deg}°: {found:?}");
    }
}

#[test]
fn heads_that_do_not_or_that_turn_the_other_way_do_not_pass() {
    let still = rates(Kind::Head { turn_deg: 0.0 }, NOISE, 200);
    // Some of those who stand still turn by 10° all the same, and those are heads.
    assert!(still.turned + still.wrong_way <= 4 && still.not_a_head == 0, "{still:?}");
    let other = rates(Kind::Head { turn_deg: -20.0 }, NOISE, 200);
    assert_eq!(other.turned, 0, "{other:?}");
    assert!(other.wrong_way >= 190, "{other:?}");
}

#[test]
fn prints_do_not_pass_however_they_are_held() {
    for noise in [0.004, NOISE, 0.03] {
        for kind in [
            Kind::Print { turn_deg: 0.0, tip_deg: 0.0 },
            Kind::Print { turn_deg: 20.0, tip_deg: 0.0 },
            Kind::Print { turn_deg: 40.0, tip_deg: 10.0 },
            Kind::Print { turn_deg: 0.0, tip_deg: 35.0 },
            Kind::Bent { radius: 1.7, turn_deg: 20.0 },
            Kind::Bent { radius: 1.7, turn_deg: 35.0 },
            Kind::Bent { radius: 3.0, turn_deg: 40.0 },
            Kind::Flexed { radius: 1.2, turn_deg: 20.0 },
            Kind::Flexed { radius: 1.7, turn_deg: 35.0 },
        ] {
            let found = rates(kind, noise, 200);
            assert_eq!(found.turned, 0, "{kind:?} at {noise}: {found:?}");
        }
    }
}

#[test]
fn a_print_that_is_turned_far_is_found_out_at_once() {
    let found = rates(Kind::Print { turn_deg: 35.0, tip_deg: 0.0 }, NOISE, 200);
    assert!(found.not_a_head >= 190, "{found:?}");
}

#[test]
fn a_mirrored_camera_swaps_the_sides() {
    let frames = |mirrored| {
        let mut challenge = Challenge::new(Turn::Left, mirrored);
        Sequence::new(Kind::Head { turn_deg: 22.0 }, 0.005, 3)
            .map(|frame| if mirrored { frame.mirrored(640) } else { frame })
            .map(|frame| challenge.observe(&frame))
            .find(|progress| *progress != Progress::Watching)
    };
    assert_eq!(frames(false), Some(Progress::Turned));
    assert_eq!(frames(true), Some(Progress::Turned));
}

#[test]
fn the_turn_is_about_its_sine() {
    let mut frames = Sequence::new(Kind::Head { turn_deg: 20.0 }, 0.0, 5);
    let first = frames.next().unwrap();
    let motion = compare(&first, &frames.last().unwrap()).unwrap();
    assert!((0.25..0.48).contains(&motion.turn), "{motion:?}");
    assert!((0.8..1.1).contains(&(motion.relief / motion.turn)), "{motion:?}");
    let still = compare(&first, &first).unwrap();
    assert!(still.turn.abs() < 1e-5 && still.relief_any < 1e-5 && still.deformation < 1e-5, "{still:?}");
}

proptest! {
    #[test]
    fn the_same_face_moved_in_the_picture_has_not_turned(seed in any::<u32>(), angle in -1.0..1.0_f32, scale in 0.3..3.0_f32, dx in -200.0..200.0_f32) {
        let face = Sequence::new(Kind::Head { turn_deg: 0.0 }, 0.0, seed).next().unwrap();
        let (s, c) = (scale * angle.sin(), scale * angle.cos());
        let moved = face.map(|p| Point::new(c * p.x - s * p.y + dx, s * p.x + c * p.y));
        let motion = compare(&face, &moved).unwrap();
        prop_assert!(motion.turn.abs() < 1e-3 && motion.relief_any < 1e-3, "{motion:?}");
    }

    /// Any homography of one photograph: whatever is done to a flat print before the camera.
    #[test]
    fn no_homography_is_a_turn(seed in any::<u32>(), a in -0.4..0.4_f32, b in -0.4..0.4_f32, p in -4e-4..4e-4_f32, q in -4e-4..4e-4_f32) {
        let face = Sequence::new(Kind::Head { turn_deg: 6.0 }, 0.0, seed).next().unwrap();
        let flat = face.map(|at| {
            let (x, y) = (at.x - 320.0, at.y - 240.0);
            let w = 1.0 + p * x + q * y;
            Point::new(320.0 + ((1.0 + a) * x + b * y) / w, 240.0 + (b * x + y) / w)
        });
        let mut challenge = Challenge::new(Turn::Left, false);
        for frame in [&face; 4].into_iter().chain([&flat; 8]) {
            prop_assert_ne!(challenge.observe(frame), Progress::Turned);
        }
    }

    #[test]
    fn whatever_the_points_are_nothing_breaks(points in prop::collection::vec((prop_oneof![Just(f32::NAN), Just(1e30_f32), -1e4..1e4_f32], -1e4..1e4_f32), 68), seed in any::<u32>()) {
        let odd = Fiducials68::all_visible(core::array::from_fn(|i| Point::new(points[i].0, points[i].1)));
        let mut challenge = Challenge::new(Turn::Right, false);
        for frame in Sequence::new(Kind::Head { turn_deg: 0.0 }, 0.01, seed).take(4) {
            challenge.observe(&frame);
        }
        for _ in 0..6 {
            challenge.observe(&odd);
        }
    }

    #[test]
    fn a_sequence_is_the_same_for_the_same_seed(seed in any::<u32>()) {
        let kind = Kind::Head { turn_deg: 20.0 };
        prop_assert_eq!(play(kind, NOISE, seed), play(kind, NOISE, seed));
    }
}

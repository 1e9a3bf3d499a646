use proptest::prelude::*;

use super::*;

/// The generic face, turned by `pose`, at `scale` and `shift`.
fn view(pose: Pose, scale: f32, shift: (f32, f32)) -> AffineCamera {
    let [(sy, cy), (sp, cp), (sr, cr)] =
        [pose.yaw_deg, pose.pitch_deg, pose.roll_deg].map(|d| d.to_radians().sin_cos());
    // Yaw about the vertical axis, then pitch, then roll in the picture.
    let pitched = [[cy, 0.0, -sy], [sp * sy, cp, sp * cy]];
    let row = |x: f32, y: f32| -> [f32; 3] {
        core::array::from_fn(|k| scale * (x * pitched[0][k] + y * pitched[1][k]))
    };
    let [a, b] = [row(cr, -sr), row(sr, cr)];
    AffineCamera { rows: [[a[0], a[1], a[2], shift.0], [b[0], b[1], b[2], shift.1]] }
}

fn picture(camera: &AffineCamera) -> Fiducials68 {
    Fiducials68::all_visible(core::array::from_fn(|i| camera.project(shape::positions()[i])))
}

fn close(a: Pose, b: Pose, degrees: f32) -> bool {
    (a.yaw_deg - b.yaw_deg).abs() < degrees
        && (a.pitch_deg - b.pitch_deg).abs() < degrees
        && (a.roll_deg - b.roll_deg).abs() < degrees
}

proptest! {
    #[test]
    fn the_camera_of_a_generic_face_is_found(
        yaw_deg in -60.0_f32..60.0, pitch_deg in -35.0_f32..35.0, roll_deg in -170.0_f32..170.0,
        scale in 0.3_f32..6.0, x in -200.0_f32..600.0, y in -200.0_f32..600.0,
    ) {
        let pose = Pose { yaw_deg, pitch_deg, roll_deg };
        let camera = view(pose, scale, (x, y));
        let found = fit(&picture(&camera)).unwrap();
        prop_assert!(close(found.camera.pose(), pose, 0.2), "{:?} for {pose:?}", found.camera.pose());
        prop_assert!(found.residual_px < 0.05);
        for (a, b) in found.face[..FIDUCIALS].iter().zip(shape::positions()) {
            prop_assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 0.1), "{a:?} {b:?}");
        }
    }

    #[test]
    fn no_input_gives_numbers_that_are_not_finite(
        points in prop::collection::vec((-1e6_f32..1e6, -1e6_f32..1e6), FIDUCIALS),
        visibility in prop::collection::vec(0.0_f32..=1.0, FIDUCIALS), spread in 0.0_f32..1.0,
    ) {
        let all = Fiducials68 {
            points: core::array::from_fn(|i| Point::new(points[i].0 * spread, points[i].1 * spread)),
            visibility: core::array::from_fn(|i| visibility[i]),
        };
        if let Ok(found) = fit(&all) {
            prop_assert!(found.camera.rows.iter().flatten().all(|v| v.is_finite()));
            prop_assert!(found.face.iter().flatten().all(|v| v.is_finite()));
        }
    }
}

#[test]
fn signs_are_those_of_the_words() {
    let pose = Pose { yaw_deg: 30.0, pitch_deg: 20.0, roll_deg: 0.0 };
    let camera = view(pose, 1.0, (0.0, 0.0));
    let (nose, ears) = (camera.project([0.0, 0.0, -30.0]), camera.project([0.0, 0.0, 0.0]));
    assert!(nose.x > ears.x, "yaw turns the nose to the viewer's right");
    assert!(nose.y < ears.y, "pitch lifts it");
    assert!(close(camera.pose(), pose, 1e-3));
    let tilted = view(Pose { roll_deg: 25.0, ..pose }, 2.0, (9.0, 9.0));
    assert!(tilted.project([30.0, 0.0, 0.0]).y > tilted.project([-30.0, 0.0, 0.0]).y, "roll is clockwise");
    assert!(close(tilted.pose(), Pose { roll_deg: 25.0, ..pose }, 1e-3));
    assert!(camera.line_of_sight()[0] > 0.4, "seen from the viewer's right of the face it looks to its left");
}

#[test]
fn a_face_that_differs_keeps_its_difference() {
    // An open mouth and a wide jaw, turned: the residuals come back.
    let mut amounts = [0.0; MODES];
    (amounts[0], amounts[1]) = (1.5, -1.0);
    let mut face = shape::deformed(&amounts);
    face[8][1] += 3.0;
    for yaw_deg in [0.0, 35.0] {
        let pose = Pose { yaw_deg, pitch_deg: 5.0, roll_deg: -12.0 };
        let camera = view(pose, 1.7, (200.0, 100.0));
        let seen = Fiducials68::all_visible(core::array::from_fn(|i| camera.project(face[i])));
        let found = fit(&seen).unwrap();
        let off = |i: usize| (0..2).map(|k| (found.face[i][k] - face[i][k]).powi(2)).sum::<f32>().sqrt();
        let worst = (0..FIDUCIALS).map(off).fold(0.0, f32::max);
        let generic = (0..FIDUCIALS)
            .map(|i| (0..2).map(|k| (shape::positions()[i][k] - face[i][k]).powi(2)).sum::<f32>().sqrt())
            .fold(0.0, f32::max);
        assert!(worst < 0.35 * generic, "at yaw {yaw_deg}: {worst} px of {generic}");
        assert!(close(found.camera.pose(), pose, 4.0), "{:?}", found.camera.pose());
    }
}

#[test]
fn hidden_points_hardly_pull() {
    let pose = Pose { yaw_deg: 20.0, pitch_deg: 0.0, roll_deg: 0.0 };
    let mut seen = picture(&view(pose, 2.0, (300.0, 200.0)));
    for i in 9..17 {
        seen.points[i].x -= 25.0;
        seen.visibility[i] = 0.0;
    }
    let with = fit(&seen).unwrap().camera.pose();
    assert!(close(with, pose, 3.0), "{with:?}");
}

#[test]
fn what_is_no_face_is_refused() {
    let good = picture(&view(Pose::default(), 1.0, (100.0, 100.0)));
    let said = |change: &dyn Fn(&mut Fiducials68)| {
        let mut face = good;
        change(&mut face);
        fit(&face).map(|found| found.residual_px)
    };
    assert!(said(&|_| ()).is_ok());
    assert_eq!(said(&|f| f.points[5].x = f32::INFINITY), Err(AlignError::NotFinite));
    assert_eq!(said(&|f| f.points = [Point::new(7.0, 7.0); FIDUCIALS]), Err(AlignError::Coincident));
    assert_eq!(said(&|f| f.points.iter_mut().for_each(|p| p.y = 2.0 * p.x)), Err(AlignError::Collinear));
    // Left and right exchanged, without their names: a face seen from behind.
    assert_eq!(said(&|f| f.points.iter_mut().for_each(|p| p.x = 200.0 - p.x)), Err(AlignError::Unrelated));
    let scattered = said(&|f| {
        for (i, p) in f.points.iter_mut().enumerate() {
            *p = Point::new((i * 7919 % 101) as f32, (i * 104_729 % 103) as f32);
        }
    });
    assert_eq!(scattered, Err(AlignError::Unrelated));
}

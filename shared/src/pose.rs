//! The views of a head that an enrolment asks for, and when a head shows one.
//!
//! Poses come from the affine camera on the fiducials where a net finds them, else from the likeliest face for the detector's five landmarks. The
//! latter cannot tell a short nose from a raised head: a view is therefore judged against how the same head looked when it faced the camera,
//! never by itself.

use serde::{Deserialize, Serialize};

use crate::align::camera::{self, Pose};
use crate::align::five::from_five;
use crate::detection::Landmarks5;
use crate::quality::Quality;

/// A view of a head, as the person sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// Into the camera.
    Front,
    /// Turned to the person's own left.
    Left,
    /// Turned to the person's own right.
    Right,
    /// Chin up.
    Up,
    /// Chin down.
    Down,
}

impl View {
    /// Every view, in the order in which they are asked for.
    pub const ALL: [Self; 5] = [Self::Front, Self::Left, Self::Right, Self::Up, Self::Down];

    /// Whether a head at `pose`, which was at `rest` while it faced the camera, shows this view. `mirrored` when the camera's picture is a mirror image.
    #[must_use]
    pub fn is_shown(self, pose: &Pose, rest: &Pose, mirrored: bool) -> bool {
        let (yaw, pitch) = (pose.yaw_deg - rest.yaw_deg, pose.pitch_deg - rest.pitch_deg);
        // A person who turns to the own left turns to the right of whoever looks.
        let to_the_left = if mirrored { -yaw } else { yaw };
        match self {
            Self::Front => libm::fabsf(yaw) < LEAST_YAW_DEG && libm::fabsf(pitch) < LEAST_PITCH_DEG,
            Self::Left => to_the_left >= LEAST_YAW_DEG,
            Self::Right => to_the_left <= -LEAST_YAW_DEG,
            Self::Up => pitch >= LEAST_PITCH_DEG && libm::fabsf(yaw) < LEAST_YAW_DEG,
            Self::Down => pitch <= -LEAST_PITCH_DEG && libm::fabsf(yaw) < LEAST_YAW_DEG,
        }
    }
}

/// Whether a face looks into the camera, before anything is known of the person: the head hardly turned; a camera may well hang higher or lower than the face.
#[must_use]
pub fn faces_the_camera(quality: &Quality, pose: Option<&Pose>) -> bool {
    pose.map_or(libm::fabsf(quality.turn) < FRONT_TURN, |pose| libm::fabsf(pose.yaw_deg) < FRONT_YAW_DEG)
}

/// The pose of the face of `landmarks` that measured `quality`: from its fiducials, else from the landmarks; `None` when these admit none.
#[must_use]
pub fn of_face(quality: &Quality, landmarks: &Landmarks5) -> Option<Pose> {
    if let Some(head) = quality.head {
        return Some(Pose { yaw_deg: head.yaw_deg, pitch_deg: head.pitch_deg, roll_deg: head.roll_deg });
    }
    let guess = from_five(landmarks).ok()?;
    Some(camera::fit(&guess).ok()?.camera.pose())
}

/// The middle of several poses; `None` of none.
#[must_use]
pub fn mean(poses: &[Pose]) -> Option<Pose> {
    let mean = |of: fn(&Pose) -> f32| poses.iter().map(of).sum::<f32>() / poses.len() as f32;
    (!poses.is_empty()).then(|| Pose {
        yaw_deg: mean(|p| p.yaw_deg),
        pitch_deg: mean(|p| p.pitch_deg),
        roll_deg: mean(|p| p.roll_deg),
    })
}

/// Turned sideways from here on.
const LEAST_YAW_DEG: f32 = 12.0;
/// Raised or lowered from here on.
const LEAST_PITCH_DEG: f32 = 8.0;
/// Facing the camera up to here.
const FRONT_YAW_DEG: f32 = 15.0;
/// The same by [`Quality::turn`], a tangent.
const FRONT_TURN: f32 = 0.27;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::align::camera::AffineCamera;
    use crate::align::{Fiducials68, shape};

    /// The generic face at a pose, 1.5 pixels a pixel of its chip.
    fn at(yaw_deg: f32, pitch_deg: f32) -> Landmarks5 {
        let ((sy, cy), (sp, cp)) = (yaw_deg.to_radians().sin_cos(), pitch_deg.to_radians().sin_cos());
        let s = 1.5;
        let rows = [[s * cy, 0.0, -s * sy, 300.0], [s * sp * sy, s * cp, s * sp * cy, 200.0]];
        let camera = AffineCamera { rows };
        Fiducials68::all_visible(core::array::from_fn(|i| camera.project(shape::positions()[i]))).five()
    }

    fn pose(yaw_deg: f32, pitch_deg: f32) -> Pose {
        of_face(&Quality::default(), &at(yaw_deg, pitch_deg)).unwrap()
    }

    fn views(yaw_deg: f32, pitch_deg: f32, rest: &Pose, mirrored: bool) -> Vec<View> {
        let seen = pose(yaw_deg, pitch_deg);
        View::ALL.into_iter().filter(|view| view.is_shown(&seen, rest, mirrored)).collect()
    }

    #[test]
    fn five_landmarks_tell_where_a_head_looks() {
        for (yaw, pitch) in [(0.0, 0.0), (20.0, 0.0), (-20.0, 0.0), (0.0, 12.0), (0.0, -12.0), (15.0, 10.0)] {
            let found = pose(yaw, pitch);
            assert!(
                (found.yaw_deg - yaw).abs() < 3.0 && (found.pitch_deg - pitch).abs() < 3.0,
                "{yaw} {pitch}: {found:?}"
            );
        }
    }

    #[test]
    fn each_view_is_told_from_the_others_and_against_the_persons_own_rest() {
        let rest = pose(0.0, 0.0);
        for (yaw, pitch, view) in [
            (0.0, 0.0, View::Front),
            (18.0, 0.0, View::Left),
            (-18.0, 0.0, View::Right),
            (0.0, 12.0, View::Up),
            (0.0, -12.0, View::Down),
        ] {
            assert_eq!(views(yaw, pitch, &rest, false), [view]);
        }
        assert_eq!(views(18.0, 0.0, &rest, true), [View::Right], "the picture is a mirror image");
        assert_eq!(views(18.0, 12.0, &rest, false), [View::Left], "askew is no raised head");
        // A camera above the door sees everyone look down.
        let rest = pose(0.0, -12.0);
        assert_eq!(views(0.0, -12.0, &rest, false), [View::Front]);
        assert_eq!(views(0.0, 0.0, &rest, false), [View::Up]);
    }

    #[test]
    fn the_fiducials_come_first_and_points_that_are_no_face_have_no_pose() {
        let head = crate::quality::Head { yaw_deg: 31.0, pitch_deg: 2.0, roll_deg: 1.0, hidden: 0.0 };
        let quality = Quality { head: Some(head), ..Quality::default() };
        assert_eq!(of_face(&quality, &at(0.0, 0.0)).unwrap().yaw_deg, 31.0);
        assert_eq!(of_face(&Quality::default(), &Landmarks5::default()), None);
        assert!(faces_the_camera(&Quality::default(), None));
        assert!(!faces_the_camera(&Quality { turn: 0.4, ..Quality::default() }, None));
        assert!(!faces_the_camera(&Quality::default(), Some(&pose(20.0, 0.0))));
        assert_eq!(mean(&[]), None);
        assert_eq!(
            mean(&[Pose { yaw_deg: 1.0, ..Pose::default() }, Pose { yaw_deg: 3.0, ..Pose::default() }])
                .unwrap()
                .yaw_deg,
            2.0
        );
    }
}

//! The story that `make demo` plays: one person enrolled at the door and let in on other photographs, strangers, bad light, broken
//! frames, a camera pulled out, a forced door.

use std::path::Path;
use std::sync::Arc;

use facelatch_shared::access::Label;
use facelatch_shared::event::{EnrolFailure, EventKind, Refusal};
use facelatch_shared::liveness::Turn;
use facelatch_shared::person::{Name, NameError, PersonState, SubjectId};
use facelatch_shared::protocol::{Request, RightsChange};
use facelatch_shared::vision::Eyes;
use thiserror::Error;

use super::act::{Act, Expect};
use super::photos::{Photo, PhotoError, pictures_in};
use super::turn::{Head, print};
use crate::camera::replay::{Coding, Fault, Shot};
use crate::camera::scene::{Picture, Scene};
use crate::session::{LivenessPolicy, called_after};

/// The schedule that the demonstration's door knows beside `always`.
pub const NIGHT: &str = "night";

/// The administrator PIN of the demonstration's door.
pub const DEMO_PIN: &str = "246810";

/// Ten frames a second, of simulated time.
pub const FRAME_MS: u64 = 100;

/// The story on the photographs that `make demo` fetches into `photos`.
///
/// # Errors
/// [`StoryError`] when a photograph is missing or shows no face.
pub fn builtin(photos: &Path, eyes: &mut Eyes) -> Result<Vec<Act>, StoryError> {
    let mut load = |name: &str| Photo::load(&photos.join(name), eyes);
    let portrait = load("face_recognition/obama.jpg")?;
    let speaking = load("face_recognition/obama2.jpg")?;
    let backlit = load("face_recognition/obama3.jpg")?;
    let older = load("face_recognition/biden.jpg")?;
    let grey = load("insightface/Tom_Hanks_54745.png")?;
    let group = load("insightface/t1.jpg")?;
    let ada = Name::new("Barack O.")?;
    let subject = SubjectId(1);
    let shot =
        |scene: Scene| Shot::of(Arc::new(scene.finish())).every_ms(FRAME_MS).coded(Coding::Alternating);
    let gone = |frames| shot(Scene::blank()).frames(frames);
    let person = |photo: &Photo, height: f32, across: f32, frames| {
        shot(photo.at_the_door(0, height, across)).frames(frames)
    };
    // As an enrolment asks for them: the front, left, right. No photograph can be bent into a nod that the detector takes for one, so what follows
    // is not shown in time.
    let guided = |photo: &Photo| -> Result<Vec<Shot>, PhotoError> {
        let turned = |yaw| Ok::<_, PhotoError>(person(&photo.turned(yaw, 0.0)?, 0.5, 0.5, 12));
        Ok(vec![
            gone(8),
            person(photo, 0.5, 0.5, 12),
            turned(24.0)?,
            turned(-24.0)?,
            person(photo, 0.5, 0.5, 75),
            gone(40),
        ])
    };
    let set_state = |state| Request::SetState { id: subject, state };
    let hours = |schedule| Request::SetRights {
        id: subject,
        change: RightsChange { schedule: Some(schedule), ..RightsChange::default() },
    };
    let night = Label::try_from(NIGHT).ok();
    let suspended = |kind: &EventKind| matches!(kind, EventKind::Suspended { .. });
    let locked_out = |kind: &EventKind| matches!(kind, EventKind::LockedOut { .. });
    let camera_back = |kind: &EventKind| *kind == EventKind::CameraBack;
    let called_off = |kind: &EventKind| *kind == EventKind::EnrolFailed { reason: EnrolFailure::Cancelled };
    let next = called_after(SubjectId(2)).to_string();
    let exit = |kind: &EventKind| *kind == EventKind::ExitRequested;

    Ok(vec![
        Act::new("Nobody is there.", vec![gone(10)]).expect(Expect::Shows("idle")).expect(Expect::StaysShut),
        Act::new("Someone comes, but nobody is enrolled yet.", vec![person(&portrait, 0.5, 0.5, 8), gone(35)])
            .expect(Expect::Refused(Refusal::NobodyEnrolled))
            .expect(Expect::StaysShut),
        Act::new(
            "The administrator enrols the person at the door: `facelatchd people enrol \"Barack O.\"`. The person agrees (#) and is guided from side to side; a nod that does not come is left out.",
            guided(&portrait)?,
        )
        .ask(Request::Enrol { name: ada.clone() })
        .types(4, "#")
        .expect(Expect::Shows("consent"))
        .expect(Expect::Shows("enrol-down"))
        .expect(Expect::Logs(|kind| matches!(kind, EventKind::Consented { .. }), "the consent"))
        .expect(Expect::Enrols(ada.to_string()))
        .expect(Expect::Shows("enrolled"))
        .expect(Expect::StaysShut),
        Act::new(
            "The same person in another photograph, first too far away; goes in, and the door shuts.",
            vec![person(&speaking, 0.1, 0.4, 8), person(&speaking, 0.5, 0.5, 10), gone(30)],
        )
        .door_open(20, 35)
        .expect(Expect::Shows("come-closer"))
        .expect(Expect::Opens(ada.to_string()))
        .expect(Expect::Shows("welcome"))
        .expect(Expect::Logs(|kind| *kind == EventKind::DoorClosed, "the door closed")),
        Act::new(
            "And in a third, with the light from behind; nobody goes in, the door secures itself after five seconds.",
            vec![person(&backlit, 0.5, 0.5, 10), gone(60)],
        )
        .expect(Expect::Opens(ada.to_string())),
        Act::new("A stranger.", vec![person(&older, 0.5, 0.5, 8), gone(35)])
            .expect(Expect::Refused(Refusal::NotRecognised))
            .expect(Expect::Shows("not-recognised"))
            .expect(Expect::StaysShut),
        Act::new("A whole party comes.", vec![shot(group.at_the_door(0, 0.3, 0.5)).frames(10), gone(10)])
            .expect(Expect::Shows("one-face-only"))
            .expect(Expect::StaysShut),
        Act::new(
            "The known person and a stranger together.",
            vec![shot(speaking.beside(older.at_the_door(0, 0.42, 0.25), 0, 0.42, 0.78)).frames(12), gone(10)],
        )
        .expect(Expect::Shows("one-face-only"))
        .expect(Expect::StaysShut),
        Act::new(
            "The light is out.",
            vec![shot(speaking.at_the_door(0, 0.5, 0.5).dimmed(0.16)).frames(10), gone(10)],
        )
        .expect(Expect::StaysShut),
        Act::new(
            "The person is walking past.",
            vec![shot(speaking.at_the_door(0, 0.5, 0.5).blurred(7.0)).frames(10), gone(10)],
        )
        .expect(Expect::StaysShut),
        Act::new(
            "The camera sends broken frames: empty, cut off, of the wrong size.",
            vec![
                person(&speaking, 0.5, 0.5, 1).broken(Fault::ZeroBytes),
                person(&speaking, 0.5, 0.5, 3).coded(Coding::Mjpeg).broken(Fault::Truncated),
                person(&speaking, 0.5, 0.5, 3).coded(Coding::Yuyv).broken(Fault::WrongSize),
                gone(15),
            ],
        )
        .expect(Expect::BadFrames(7))
        .expect(Expect::StaysShut),
        Act::new(
            "The camera is unplugged and plugged in again.",
            vec![
                gone(2),
                shot(Scene::blank()).frames(1).broken(Fault::Unplugged { failing_opens: 2 }),
                gone(10),
            ],
        )
        .expect(Expect::Logs(camera_back, "the camera came back"))
        .expect(Expect::StaysShut),
        Act::new("The administrator suspends the person.", vec![gone(3), person(&portrait, 0.5, 0.5, 10), gone(40)])
            .ask(set_state(PersonState::Suspended))
            .expect(Expect::Logs(suspended, "a suspension"))
            .expect(Expect::Refused(Refusal::Suspended))
            .expect(Expect::StaysShut),
        Act::new(
            "Reinstated, the person is let in again.",
            vec![gone(3), person(&backlit, 0.55, 0.5, 10), gone(60)],
        )
        .ask(set_state(PersonState::Active))
        .expect(Expect::Opens(ada.to_string())),
        Act::new(
            "The administrator gives the person night hours, `facelatchd people permit 1 --schedule night`; it is morning.",
            vec![gone(3), person(&portrait, 0.5, 0.5, 10), gone(40)],
        )
        .ask(hours(night))
        .expect(Expect::Refused(Refusal::OutOfHours))
        .expect(Expect::Shows("out-of-hours"))
        .expect(Expect::StaysShut),
        Act::new(
            "And the door's own hours again; it is always open to those who are enrolled.",
            vec![gone(3), person(&speaking, 0.5, 0.5, 10), gone(60)],
        )
        .ask(hours(None))
        .expect(Expect::Opens(ada.to_string())),
        Act::new(
            "Strangers try until the door locks them out.",
            [(&older, 0.45), (&grey, 0.5), (&older, 0.6), (&grey, 0.42), (&older, 0.52)]
                .into_iter()
                .flat_map(|(photo, height)| [person(photo, height, 0.5, 8), gone(35)])
                .chain([gone(60)])
                .collect(),
        )
        .expect(Expect::Refused(Refusal::NotRecognised))
        .expect(Expect::Logs(locked_out, "a lock-out"))
        .expect(Expect::Shows("locked-out"))
        .expect(Expect::StaysShut),
        Act::new("Someone inside presses the exit button.", vec![gone(60)])
            .exit_pressed(3)
            .expect(Expect::Logs(exit, "the request to exit"))
            .expect(Expect::Shows("exit-granted")),
        Act::new("Someone forces the door.", vec![gone(30)])
            .door_open(5, 20)
            .expect(Expect::Logs(|kind| *kind == EventKind::DoorForced, "the forced door"))
            .expect(Expect::Shows("door-forced"))
            .expect(Expect::StaysShut),
        Act::new("Someone opens the case of the electronics; the known person is not looked at.", vec![gone(5), person(&speaking, 0.5, 0.5, 10), gone(30)])
            .case_open(3, 20)
            .expect(Expect::Logs(|kind| *kind == EventKind::Tampered, "the opened case"))
            .expect(Expect::Shows("tampered"))
            .expect(Expect::StaysShut),
        Act::new(
            "The known person is to be enrolled under another name.",
            vec![gone(3), person(&portrait, 0.5, 0.5, 12), gone(40)],
        )
        .ask(Request::EnrolAgreed { name: Name::new("Somebody Else")? })
        .expect(Expect::Shows("enrol-already-enrolled"))
        .expect(Expect::StaysShut),
        Act::new(
            "Inside, the service button is held for two seconds; the next person agrees and is enrolled without a computer, from the front, for the head does not turn.",
            vec![gone(35), person(&older, 0.5, 0.5, 90), gone(40)],
        )
        .service_held(2, 26)
        .types(30, "#")
        .expect(Expect::Enrols(next.clone()))
        .expect(Expect::Shows("enrolled-front-only"))
        .expect(Expect::StaysShut),
        Act::new("And is let in.", vec![person(&older, 0.45, 0.5, 10), gone(60)])
            .expect(Expect::Opens(next)),
        Act::new(
            "The administrator PIN begins an enrolment (*, PIN, #); the person agrees, and calls it off halfway (*).",
            vec![gone(8), person(&grey, 0.5, 0.5, 12), gone(40)],
        )
        .types(2, &format!("*{DEMO_PIN}#"))
        .types(5, "#")
        .types(14, "*")
        .expect(Expect::Logs(called_off, "that it was called off"))
        .expect(Expect::Shows("enrol-cancelled"))
        .expect(Expect::StaysShut),
    ])
}

/// What comes once the door asks for a turn of the head, the known person being enrolled: a print held still, a print turned, the person. The
/// ways asked for are those of `asking`. Nothing without a fiducials net.
///
/// # Errors
/// [`StoryError`] when a photograph is missing or shows no face.
pub fn turning(photos: &Path, eyes: &mut Eyes, asking: &LivenessPolicy) -> Result<Vec<Act>, StoryError> {
    if !eyes.finds_fiducials() {
        return Ok(Vec::new());
    }
    let portrait = Photo::load(&photos.join("face_recognition/obama.jpg"), eyes)?;
    let shot = |picture: Picture, frames| {
        Shot::of(Arc::new(picture)).every_ms(FRAME_MS).coded(Coding::Alternating).frames(frames)
    };
    let gone = |frames| shot(Scene::blank().finish(), frames);
    let facing = portrait.at_the_door(0, 0.5, 0.5).finish();
    let seen = facing.view();
    let failed = |source| PhotoError::Vision { path: file_name(&portrait), source: Box::new(source) };
    let faces = eyes.find(&seen).map_err(failed)?;
    let none = || PhotoError::NoFace { path: file_name(&portrait) };
    let face = faces.first().ok_or_else(none)?;
    let points = eyes.fiducials_at(&seen, &face.landmarks).map_err(failed)?.ok_or_else(none)?;
    let head = Head::new(&facing, &points).map_err(|_| none())?;
    // To the viewer's right for a turn to the person's own left.
    let way = |challenge, degrees: f32| match asking.way(challenge) {
        Turn::Left => degrees,
        Turn::Right => -degrees,
    };
    // Asked within the first frames; then the turn takes a second and a half, and stays.
    let swing = |most: f32, picture: &dyn Fn(f32) -> Picture| -> Vec<Shot> {
        let mut shots = vec![shot(picture(0.0), 14)];
        shots.extend((1..=15).map(|step| shot(picture(most * step as f32 / 15.0), 1)));
        shots.push(shot(picture(most), 14));
        shots
    };
    let passed = |kind: &EventKind| matches!(kind, EventKind::ChallengePassed { .. });
    let ada = Name::new("Barack O.")?;
    Ok(vec![
        Act::new("A print of the person is held before the door.", vec![shot(print(&facing, 0.0), 88), gone(40)])
            .expect(Expect::Refused(Refusal::NotTurned))
            .expect(Expect::StaysShut),
        Act::new(
            "The print is turned as the panel asks.",
            swing(way(2, 35.0), &|yaw| print(&facing, yaw)).into_iter().chain([gone(70)]).collect(),
        )
        .expect(Expect::StaysShut),
        Act::new(
            "The person comes and turns the head as the panel asks (rendered from the photograph by the 3D face).",
            swing(way(3, 20.0), &|yaw| head.turned(yaw)).into_iter().chain([gone(70)]).collect(),
        )
        .expect(Expect::Logs(passed, "the turn of the head"))
        .expect(Expect::Opens(ada.to_string())),
    ])
}

/// A story on the user's own photographs: `folder` has one sub-folder a person. Each person's first half of the pictures (at least one, at most
/// three) enrols, the others must open; the last person of three or more stays a stranger.
///
/// # Errors
/// [`StoryError`] when there is nobody, a name is no name, or a picture shows no face.
pub fn of_folder(folder: &Path, eyes: &mut Eyes) -> Result<Vec<Act>, StoryError> {
    let mut people = Vec::new();
    let read = |source| StoryError::Folder { path: folder.display().to_string(), source };
    for entry in std::fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        if path.is_dir() {
            let name = Name::new(&path.file_name().unwrap_or_default().to_string_lossy())?;
            let mut photos = Vec::new();
            for picture in pictures_in(&path)? {
                photos.push(Photo::load(&picture, eyes)?);
            }
            people.push((name, photos));
        }
    }
    people.retain(|(_, photos)| !photos.is_empty());
    people.sort_by(|a, b| a.0.cmp(&b.0));
    if people.is_empty() {
        return Err(StoryError::Nobody { path: folder.display().to_string() });
    }
    let stranger = if people.len() >= 3 { people.pop() } else { None };
    let shot =
        |scene: Scene| Shot::of(Arc::new(scene.finish())).every_ms(FRAME_MS).coded(Coding::Alternating);
    let shown = |photo: &Photo, height: f32, frames| shot(photo.at_the_door(0, height, 0.5)).frames(frames);
    let gone = |frames| shot(Scene::blank()).frames(frames);
    let mut acts = Vec::new();
    for (name, photos) in &people {
        let enrolling = photos.len().div_ceil(2).min(3);
        let mut shots = vec![gone(3)];
        for photo in &photos[..enrolling] {
            shots.push(shown(photo, 0.5, 12));
            shots.push(shown(photo, 0.42, 12));
        }
        // Five views of one picture take longer than two glances at it.
        shots.push(shown(&photos[enrolling - 1], 0.46, 12));
        shots.push(gone(40));
        let act = Act::new(
            format!("{name} is enrolled at the door from {enrolling} of {} pictures.", photos.len()),
            shots,
        );
        acts.push(act.ask(Request::Enrol { name: name.clone() }).expect(Expect::Enrols(name.to_string())));
    }
    for (name, photos) in &people {
        let enrolled = photos.len().div_ceil(2).min(3);
        for photo in &photos[enrolled..] {
            let title = format!("{name} comes: {}.", file_name(photo));
            acts.push(
                Act::new(title, vec![shown(photo, 0.5, 10), gone(60)])
                    .expect(Expect::Opens(name.to_string())),
            );
        }
    }
    if let Some((name, photos)) = &stranger {
        for photo in photos {
            // A pause in which failures are forgiven: these are visits, not an attack.
            let pause = gone(1).every_ms(61_000);
            let title = format!("{name}, who is not enrolled, comes: {}.", file_name(photo));
            acts.push(
                Act::new(title, vec![shown(photo, 0.5, 10), gone(35), pause]).expect(Expect::StaysShut),
            );
        }
    }
    Ok(acts)
}

fn file_name(photo: &Photo) -> String {
    photo.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Why there is no story.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoryError {
    /// A photograph.
    #[error(transparent)]
    Photo(#[from] PhotoError),
    /// A folder's name is no person's name.
    #[error("a folder's name is the person's name: {0}")]
    Name(#[from] NameError),
    /// The folder cannot be read.
    #[error("{path}: {source}")]
    Folder {
        /// The folder.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The folder has no people.
    #[error(
        "{path}: no pictures; put each person's JPEG or PNG pictures into a sub-folder that bears the person's name"
    )]
    Nobody {
        /// The folder.
        path: String,
    },
}

//! A folder of pictures in the place of a camera, for a door on a bench: each is shown for a while, one after the other, again and again.
//! What is put into the folder or taken out of it is noticed before the next picture.
//!
//! Each frame waits until the door has dealt with the former one, and time between frames never seems longer than 300 ms: on a machine that is too
//! slow for ten frames a second the pictures last longer, and a face is still one face from frame to frame.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use facelatch_shared::frame::RgbView;
use facelatch_shared::time::Millis;

use super::pace::{Pace, PaceError};
use super::scene::{Picture, Scene};
use super::{Camera, CameraError, PixelFormat, RawFrame};
use crate::clock::Clock;
use crate::decode::encode_yuyv;

/// Plays the pictures of a folder, and a blank wall while there are none.
pub struct FolderCamera {
    folder: PathBuf,
    clock: Arc<dyn Clock>,
    pace: Arc<Pace>,
    last: Option<Millis>,
    shown: Option<PathBuf>,
    picture: Picture,
    frames_left: u32,
    seq: u64,
}

impl FolderCamera {
    /// Opens `folder`.
    ///
    /// # Errors
    /// [`CameraError::Unusable`] when it cannot be read.
    pub fn open(folder: &Path, clock: Arc<dyn Clock>, pace: Arc<Pace>) -> Result<Self, CameraError> {
        pictures_in(folder)?;
        let picture = Scene::blank().finish();
        let folder = folder.to_owned();
        Ok(Self { folder, clock, pace, last: None, shown: None, picture, frames_left: 0, seq: 0 })
    }

    /// The picture after the one that was shown, in the order of their names.
    fn turn_over(&mut self) -> Result<(), CameraError> {
        let paths = pictures_in(&self.folder)?;
        let after = paths.iter().find(|path| self.shown.as_ref().is_none_or(|shown| *path > shown));
        self.shown = after.or(paths.first()).cloned();
        self.picture = self.shown.as_deref().and_then(load).unwrap_or_else(|| Scene::blank().finish());
        Ok(())
    }
}

impl Camera for FolderCamera {
    fn next_frame(&mut self, frame: &mut RawFrame) -> Result<(), CameraError> {
        self.clock.wait_ms(EVERY_MS);
        if self.pace.wait_for(self.seq, PATIENCE) == Err(PaceError::Closed) {
            return Err(CameraError::Ended);
        }
        let now = self.clock.now();
        let at = self.last.map_or(now, |last| now.min(last.plus(MOST_MS)));
        self.last = Some(at);
        if self.frames_left == 0 {
            self.turn_over()?;
            self.frames_left = FRAMES_EACH;
        }
        self.frames_left -= 1;
        self.seq += 1;
        let view = self.picture.view();
        (frame.seq, frame.at) = (self.seq, at);
        (frame.width_px, frame.height_px) = (view.width_px(), view.height_px());
        frame.format = Some(PixelFormat::Yuyv);
        encode_yuyv(&view, &mut frame.bytes);
        Ok(())
    }

    fn describe(&self) -> String {
        format!("pictures in {}, YUYV", self.folder.display())
    }
}

/// The picture at `path` as a camera would see it hung on a wall; nothing, said in the log, when it cannot be read.
fn load(path: &Path) -> Option<Picture> {
    let rgb = match image::open(path) {
        Ok(picture) => picture.into_rgb8(),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a picture cannot be played");
            return None;
        }
    };
    let view = RgbView::new(rgb.as_raw(), rgb.width() as usize, rgb.height() as usize).ok()?;
    Some(Scene::blank().letterbox(&view).finish())
}

fn pictures_in(folder: &Path) -> Result<Vec<PathBuf>, CameraError> {
    let failed = |error: std::io::Error| CameraError::Unusable {
        device: folder.display().to_string(),
        what: error.to_string(),
        remedy: "name a folder that can be read in camera.device".into(),
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let kind = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
        if matches!(kind.as_deref(), Some("jpg" | "jpeg" | "png")) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

const EVERY_MS: u64 = 100;
/// Less than a track is remembered.
const MOST_MS: u64 = 300;
/// A door that hangs for longer misses frames.
const PATIENCE: Duration = Duration::from_secs(10);
/// Two seconds: enough for a decision.
const FRAMES_EACH: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SimClock;
    use facelatch_shared::time::UnixMs;

    #[test]
    fn pictures_are_played_in_turn_and_new_ones_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, grey: u8| {
            let picture = image::RgbImage::from_pixel(64, 48, image::Rgb([grey; 3]));
            picture.save(folder.path().join(name)).unwrap();
        };
        let clock: Arc<dyn Clock> = Arc::new(SimClock::starting_at(UnixMs(0)));
        let pace = Pace::new();
        pace.done(u64::MAX);
        let mut camera = FolderCamera::open(folder.path(), clock, pace).unwrap();
        let mut frame = RawFrame::default();
        // The light in the middle of the picture, once for each turn.
        let mut turns = |count: u32| -> Vec<u8> {
            let mut seen = Vec::new();
            for at in 0..count * FRAMES_EACH {
                camera.next_frame(&mut frame).unwrap();
                let middle = (frame.height_px / 2 * frame.width_px + frame.width_px / 2) * 2;
                if at % FRAMES_EACH == 0 {
                    seen.push(frame.bytes[middle]);
                }
            }
            seen
        };
        let wall = turns(1)[0];
        put("a.png", 20);
        put("b.png", 220);
        let seen = turns(3);
        assert!(seen[0] < 50 && seen[1] > 190 && seen[0] == seen[2], "{seen:?}");
        std::fs::write(folder.path().join("c.jpg"), b"no picture").unwrap();
        std::fs::remove_file(folder.path().join("b.png")).unwrap();
        let seen = turns(2);
        assert!(seen[0] == wall && seen[1] < 50, "{seen:?}");
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let clock: Arc<dyn Clock> = Arc::new(SimClock::starting_at(UnixMs(0)));
        let error =
            FolderCamera::open(Path::new("/nowhere/at/all"), clock, Pace::new()).err().unwrap().to_string();
        assert!(error.contains("/nowhere/at/all") && error.contains("camera.device"), "{error}");
    }
}

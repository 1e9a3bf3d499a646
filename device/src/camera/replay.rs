//! A camera that plays a script: pictures become raw YUYV or motion-JPEG frames and take the path that V4L2's frames take.
//!
//! It is deterministic: what a frame holds depends on the script, the seed and the frame's number alone; time is a [`SimClock`]
//! that each frame moves on; and [`Pace`] makes it wait for its consumer, so that a slow machine drops nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use facelatch_shared::frame::RgbView;

use super::pace::{Pace, PaceError};
use super::scene::Picture;
use super::{Camera, CameraError, PixelFormat, RawFrame};
use crate::clock::{Clock, SimClock};
use crate::decode::{encode_mjpeg, encode_yuyv, strip_huffman_tables};

/// One picture, shown for a while.
#[derive(Clone, Debug)]
pub struct Shot {
    picture: Arc<Picture>,
    frames: u32,
    interval_ms: u64,
    coding: Coding,
    fault: Option<Fault>,
}

impl Shot {
    /// `picture` for one frame, 40 ms after the former one, as YUYV.
    #[must_use]
    pub const fn of(picture: Arc<Picture>) -> Self {
        Self { picture, frames: 1, interval_ms: 40, coding: Coding::Yuyv, fault: None }
    }

    /// Shows it for `frames` frames; zero skips it.
    #[must_use]
    pub const fn frames(mut self, frames: u32) -> Self {
        self.frames = frames;
        self
    }

    /// How many frames of it reach the door: none of a camera that is unplugged.
    #[must_use]
    pub const fn playing(&self) -> u64 {
        match self.fault {
            Some(Fault::Unplugged { .. }) => 0,
            _ => self.frames as u64,
        }
    }

    /// Milliseconds from one frame to the next.
    #[must_use]
    pub const fn every_ms(mut self, interval_ms: u64) -> Self {
        self.interval_ms = interval_ms;
        self
    }

    /// How its frames are coded.
    #[must_use]
    pub const fn coded(mut self, coding: Coding) -> Self {
        self.coding = coding;
        self
    }

    /// Breaks each of its frames.
    #[must_use]
    pub const fn broken(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }
}

/// How a shot's frames are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Coding {
    /// Packed 4:2:2.
    Yuyv,
    /// Motion JPEG with its Huffman tables.
    Mjpeg,
    /// Motion JPEG without them, as many UVC cameras send it.
    MjpegWithoutTables,
    /// YUYV for odd frame numbers, motion JPEG for even ones.
    Alternating,
}

/// What is wrong with a shot's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The frame has no bytes.
    ZeroBytes,
    /// The second half of the bytes is missing.
    Truncated,
    /// The bytes are those of a picture 16 px narrower than announced.
    WrongSize,
    /// The camera is unplugged: no frame, [`CameraError::Lost`], and so many attempts to open it again fail.
    Unplugged {
        /// Attempts that fail.
        failing_opens: u32,
    },
}

/// The device that a [`ReplayCamera`] is opened at. It keeps its place in the script while the camera is lost and opened again.
#[derive(Clone, Debug)]
pub struct Replay {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    shots: Vec<Shot>,
    seed: u64,
    clock: Arc<SimClock>,
    pace: Arc<Pace>,
    place: Mutex<Place>,
}

#[derive(Debug, Default)]
struct Place {
    shot: usize,
    frame_in_shot: u32,
    seq: u64,
    failing_opens: u32,
    open: bool,
}

impl Replay {
    /// A device that plays `shots` in order. `seed` fixes the jitter.
    #[must_use]
    pub fn new(shots: Vec<Shot>, seed: u64, clock: Arc<SimClock>, pace: Arc<Pace>) -> Self {
        let place = Mutex::new(Place::default());
        Self { shared: Arc::new(Shared { shots, seed, clock, pace, place }) }
    }

    /// Opens the camera, at the place in the script where the former one stopped.
    ///
    /// # Errors
    /// [`CameraError::Unusable`] while a scripted outage lasts, or (as with a real device) while another camera is open.
    pub fn open(&self) -> Result<ReplayCamera, CameraError> {
        let mut place = self.shared.place();
        if place.open {
            return Err(unusable(
                "it is in use already",
                "drop the camera that is open before opening another",
            ));
        }
        if place.failing_opens > 0 {
            place.failing_opens -= 1;
            return Err(unusable("no such device", "the script has it unplugged; try again later"));
        }
        place.open = true;
        drop(place);
        Ok(ReplayCamera { shared: Arc::clone(&self.shared), rgb: Vec::new(), narrow: Vec::new() })
    }

    /// Which shot of the script frame `seq` shows, as an index; `None` beyond the script.
    #[must_use]
    pub fn shot_of(&self, seq: u64) -> Option<usize> {
        let mut last = 0;
        self.shared.shots.iter().position(|shot| {
            last += shot.playing();
            seq >= 1 && seq <= last
        })
    }
}

impl Shared {
    fn place(&self) -> MutexGuard<'_, Place> {
        // Plain numbers that are valid in any combination.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Plays a script; see [`Replay::open`].
#[derive(Debug)]
pub struct ReplayCamera {
    shared: Arc<Shared>,
    rgb: Vec<u8>,
    narrow: Vec<u8>,
}

impl Drop for ReplayCamera {
    fn drop(&mut self) {
        self.shared.place().open = false;
    }
}

impl Camera for ReplayCamera {
    fn next_frame(&mut self, frame: &mut RawFrame) -> Result<(), CameraError> {
        let shared = Arc::clone(&self.shared);
        let former = shared.place().seq;
        shared.pace.wait_for(former, PATIENCE).map_err(|error| match error {
            PaceError::Closed => CameraError::Ended,
            stuck => lost(&stuck.to_string()),
        })?;
        let mut place = shared.place();
        let shot = loop {
            let Some(shot) = shared.shots.get(place.shot) else { return Err(CameraError::Ended) };
            if place.frame_in_shot < shot.frames {
                break shot;
            }
            place.shot += 1;
            place.frame_in_shot = 0;
        };
        if let Some(Fault::Unplugged { failing_opens }) = shot.fault {
            place.shot += 1;
            place.frame_in_shot = 0;
            place.failing_opens = failing_opens;
            return Err(lost("the script unplugs it here"));
        }
        place.frame_in_shot += 1;
        place.seq += 1;
        let seq = place.seq;
        drop(place);
        shared.clock.advance_ms(shot.interval_ms);
        frame.seq = seq;
        frame.at = shared.clock.now();
        self.fill(shot, seq, frame)
    }

    fn describe(&self) -> String {
        format!("{NAME}: {} shots, YUYV and MJPG", self.shared.shots.len())
    }
}

impl ReplayCamera {
    fn fill(&mut self, shot: &Shot, seq: u64, frame: &mut RawFrame) -> Result<(), CameraError> {
        let photo = shot.picture.view();
        (frame.width_px, frame.height_px) = (photo.width_px(), photo.height_px());
        jitter(&photo, self.shared.seed, seq, &mut self.rgb);
        let mut rgb = RgbView::new(&self.rgb, photo.width_px(), photo.height_px())
            .map_err(|e| unusable(&e.to_string(), "use pictures of at least 1×1 px"))?;
        if shot.fault == Some(Fault::WrongSize) {
            rgb = narrower(&rgb, &mut self.narrow)?;
        }
        let even = seq.is_multiple_of(2);
        let (format, with_tables) = match shot.coding {
            Coding::Yuyv => (PixelFormat::Yuyv, true),
            Coding::Mjpeg => (PixelFormat::Mjpeg, true),
            Coding::MjpegWithoutTables => (PixelFormat::Mjpeg, false),
            Coding::Alternating => (if even { PixelFormat::Mjpeg } else { PixelFormat::Yuyv }, true),
        };
        frame.format = Some(format);
        if format == PixelFormat::Yuyv {
            encode_yuyv(&rgb, &mut frame.bytes);
        } else {
            let odd = |what: String| unusable(&what, "use pictures of at most 65535 px a side");
            encode_mjpeg(&rgb, QUALITY, &mut frame.bytes).map_err(|e| odd(e.to_string()))?;
            if !with_tables {
                frame.bytes = strip_huffman_tables(&frame.bytes).map_err(|e| odd(e.to_string()))?;
            }
        }
        match shot.fault {
            Some(Fault::ZeroBytes) => frame.bytes.clear(),
            Some(Fault::Truncated) => frame.bytes.truncate(frame.bytes.len() / 2),
            Some(Fault::WrongSize | Fault::Unplugged { .. }) | None => {}
        }
        Ok(())
    }
}

/// Writes `photo` over `out`, shifted by up to [`SHIFT_PX`] px each way and with noise of up to ±[`NOISE`] a channel, so that no
/// two frames are equal, as with a sensor. The same seed and frame number give the same bytes.
fn jitter(photo: &RgbView<'_>, seed: u64, seq: u64, out: &mut Vec<u8>) {
    let mut state = seed ^ seq.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let first = splitmix(&mut state);
    let span = 2 * SHIFT_PX as u64 + 1;
    let dx = (first % span) as isize - SHIFT_PX;
    let dy = ((first >> 32) % span) as isize - SHIFT_PX;
    out.clear();
    out.reserve(photo.data().len());
    for y in 0..photo.height_px() as isize {
        for x in 0..photo.width_px() as isize {
            out.extend_from_slice(&photo.pixel_clamped(x + dx, y + dy));
        }
    }
    for channels in out.chunks_mut(8) {
        let random = splitmix(&mut state).to_le_bytes();
        for (channel, byte) in channels.iter_mut().zip(random) {
            // Five values of equal chance, 0 to 4, within 1/256.
            let noise = (u16::from(byte) * (2 * NOISE + 1)) >> 8;
            let value = u16::from(*channel) + noise;
            // In range after the clamp.
            *channel = value.saturating_sub(NOISE).min(255) as u8;
        }
    }
}

/// The left part of `rgb`, 16 px narrower (at least 2 px wide).
fn narrower<'a>(rgb: &RgbView<'_>, out: &'a mut Vec<u8>) -> Result<RgbView<'a>, CameraError> {
    let width_px = rgb.width_px().saturating_sub(16).max(2);
    out.clear();
    for y in 0..rgb.height_px() {
        for x in 0..width_px {
            out.extend_from_slice(&rgb.pixel_clamped(x as isize, y as isize));
        }
    }
    RgbView::new(out, width_px, rgb.height_px()).map_err(|e| unusable(&e.to_string(), "use larger pictures"))
}

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014, figure 17).
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn unusable(what: &str, remedy: &str) -> CameraError {
    CameraError::Unusable { device: NAME.to_owned(), what: what.to_owned(), remedy: remedy.to_owned() }
}

fn lost(what: &str) -> CameraError {
    CameraError::Lost { device: NAME.to_owned(), what: what.to_owned() }
}

const NAME: &str = "replay";
/// Quality that cheap cameras use for motion JPEG or better.
const QUALITY: u8 = 90;
const SHIFT_PX: isize = 2;
const NOISE: u16 = 2;
/// Real time that the consumer may take for one frame.
const PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use facelatch_shared::time::{Millis, UnixMs};

    use super::*;
    use crate::camera::scene::Scene;
    use crate::decode::{DecodeError, Decoder};

    fn picture() -> Arc<Picture> {
        Arc::new(Scene::blank().finish())
    }

    fn small() -> Arc<Picture> {
        let rgb = (0..64 * 48 * 3).map(|i| (i / 40) as u8).collect();
        Arc::new(Picture::new(rgb, 64, 48).unwrap())
    }

    struct Bench {
        replay: Replay,
        clock: Arc<SimClock>,
        pace: Arc<Pace>,
    }

    fn bench(shots: Vec<Shot>, seed: u64) -> Bench {
        let clock = Arc::new(SimClock::starting_at(UnixMs(0)));
        let pace = Pace::new();
        let replay = Replay::new(shots, seed, Arc::clone(&clock), Arc::clone(&pace));
        Bench { replay, clock, pace }
    }

    /// All frames until the script ends, each dealt with at once.
    fn play(shots: Vec<Shot>, seed: u64) -> Vec<RawFrame> {
        let bench = bench(shots, seed);
        let mut camera = bench.replay.open().unwrap();
        let mut frames = Vec::new();
        let mut frame = RawFrame::default();
        while camera.next_frame(&mut frame).is_ok() {
            bench.pace.done(frame.seq);
            frames.push(frame.clone());
        }
        frames
    }

    #[test]
    fn every_coding_decodes_to_the_picture() {
        let codings = [Coding::Yuyv, Coding::Mjpeg, Coding::MjpegWithoutTables, Coding::Alternating];
        let shots = codings.iter().map(|c| Shot::of(picture()).frames(2).coded(*c)).collect();
        let frames = play(shots, 1);
        let formats: Vec<_> = frames.iter().map(|f| f.format.unwrap()).collect();
        let (y, m) = (PixelFormat::Yuyv, PixelFormat::Mjpeg);
        assert_eq!(formats, [y, y, m, m, m, m, y, m]);
        let mut decoder = Decoder::new();
        for frame in &frames {
            let view = decoder.decode(frame).unwrap();
            let scene = picture();
            let apart = view.data().iter().zip(scene.view().data()).map(|(a, b)| u64::from(a.abs_diff(*b)));
            let mean = apart.sum::<u64>() as f64 / view.data().len() as f64;
            assert!(mean < 4.0, "frame {} is {mean} off", frame.seq);
        }
    }

    #[test]
    fn a_run_repeats_to_the_byte_and_no_two_frames_are_equal() {
        for coding in [Coding::Yuyv, Coding::Mjpeg] {
            let shots = || vec![Shot::of(picture()).frames(6).coded(coding)];
            let (once, again, other) = (play(shots(), 7), play(shots(), 7), play(shots(), 8));
            assert!(once.iter().zip(&again).all(|(a, b)| a.bytes == b.bytes));
            assert!(once.iter().zip(&other).all(|(a, b)| a.bytes != b.bytes));
            assert!(once.windows(2).all(|w| w[0].bytes != w[1].bytes));
        }
    }

    #[test]
    fn time_and_numbers_follow_the_script() {
        let shots = vec![
            Shot::of(small()).frames(2).every_ms(100),
            Shot::of(small()).frames(0),
            Shot::of(small()).every_ms(40),
        ];
        let bench = bench(shots.clone(), 0);
        let seen: Vec<_> = play(shots, 0).iter().map(|f| (f.seq, f.at)).collect();
        assert_eq!(seen, [(1, Millis(100)), (2, Millis(200)), (3, Millis(240))]);
        let shots: Vec<_> = (0..5).map(|seq| bench.replay.shot_of(seq)).collect();
        assert_eq!(shots, [None, Some(0), Some(0), Some(2), None]);
    }

    #[test]
    fn it_waits_for_its_consumer() {
        let bench = bench(vec![Shot::of(small()).frames(2)], 0);
        let mut camera = bench.replay.open().unwrap();
        let mut frame = RawFrame::default();
        camera.next_frame(&mut frame).unwrap();
        let worker = std::thread::spawn(move || {
            let mut second = RawFrame::default();
            camera.next_frame(&mut second).map(|()| second.seq)
        });
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(
            bench.clock.now(),
            Millis(40),
            "the second frame was made before the first was dealt with"
        );
        bench.pace.done(1);
        assert_eq!(worker.join().unwrap().unwrap(), 2);

        let mut camera = bench.replay.open().unwrap();
        bench.pace.close();
        assert!(matches!(camera.next_frame(&mut frame), Err(CameraError::Ended)));
    }

    #[test]
    fn faults_reach_the_decoder_as_typed_errors() {
        let shot = |coding, fault| Shot::of(picture()).coded(coding).broken(fault);
        let mut decoder = Decoder::new();
        let mut outcome = |coding, fault| {
            let frames = play(vec![shot(coding, fault)], 3);
            assert_eq!((frames.len(), frames[0].width_px, frames[0].height_px), (1, 640, 480));
            decoder.decode(&frames[0]).map(|_| ()).unwrap_err()
        };
        for coding in [Coding::Yuyv, Coding::Mjpeg] {
            assert!(matches!(outcome(coding, Fault::ZeroBytes), DecodeError::Empty { .. }));
        }
        assert!(matches!(outcome(Coding::Mjpeg, Fault::Truncated), DecodeError::Truncated { .. }));
        assert!(matches!(
            outcome(Coding::Yuyv, Fault::Truncated),
            DecodeError::Length { expected: 614_400, actual: 307_200, .. }
        ));
        assert!(matches!(
            outcome(Coding::MjpegWithoutTables, Fault::WrongSize),
            DecodeError::Size { expected_width_px: 640, actual_width_px: 624, .. }
        ));
        assert!(matches!(
            outcome(Coding::Yuyv, Fault::WrongSize),
            DecodeError::Length { actual: 599_040, .. }
        ));
    }

    #[test]
    fn an_unplugged_camera_comes_back_where_the_script_goes_on() {
        let shots = vec![
            Shot::of(small()),
            Shot::of(small()).broken(Fault::Unplugged { failing_opens: 2 }),
            Shot::of(small()).frames(2),
        ];
        let bench = bench(shots, 0);
        let mut frame = RawFrame::default();
        let mut camera = bench.replay.open().unwrap();
        assert!(matches!(bench.replay.open(), Err(CameraError::Unusable { .. })), "one camera at a time");
        camera.next_frame(&mut frame).unwrap();
        bench.pace.done(1);
        assert!(matches!(camera.next_frame(&mut frame), Err(CameraError::Lost { .. })));
        drop(camera);
        for _ in 0..2 {
            assert!(matches!(bench.replay.open(), Err(CameraError::Unusable { .. })));
        }
        let mut camera = bench.replay.open().unwrap();
        for seq in [2, 3] {
            camera.next_frame(&mut frame).unwrap();
            assert_eq!((frame.seq, bench.replay.shot_of(seq)), (seq, Some(2)));
            bench.pace.done(seq);
        }
        assert!(matches!(camera.next_frame(&mut frame), Err(CameraError::Ended)));
    }
}

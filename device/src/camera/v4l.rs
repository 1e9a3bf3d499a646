//! A camera at a V4L2 device: USB cameras, and what else the kernel shows as a single-planar capture device.
//!
//! The `v4l` crate panics on values that it does not know (an odd colour space, a name that is no UTF-8) and when a stream cannot be
//! stopped. A camera must not end the program, so these panics are caught and become errors here.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use v4l::buffer::{Flags as BufferFlags, Type};
use v4l::capability::Flags as Capability;
use v4l::control::{Control, Value};
use v4l::frameinterval::FrameIntervalEnum;
use v4l::framesize::FrameSizeEnum;
use v4l::io::mmap::Stream;
use v4l::io::traits::{CaptureStream, Stream as _};
use v4l::video::Capture;
use v4l::video::capture::Parameters;
use v4l::{Device, Format, FourCC};

use super::choose::{Choice, Offer, OfferedSize, Wish, choose};
use super::{Camera, CameraError, PixelFormat, RawFrame};
use crate::clock::Clock;

/// Which camera, and what to ask of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct V4lSpec {
    /// The device, such as `/dev/video0`; a path below `/dev/v4l/by-id` survives replugging.
    pub device: PathBuf,
    /// Format and size.
    pub wish: Wish,
    /// Picture settings.
    pub hints: Hints,
    /// How long a frame may take before the camera counts as lost, in milliseconds, 1 to 60,000 (else the nearer bound).
    pub frame_timeout_ms: u64,
}

/// Picture settings that the camera is asked for; what it does not have is said in the log and left alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// Frames a second.
    pub fps: Option<u32>,
    /// Exposure in microseconds instead of the camera's own choice.
    pub exposure_us: Option<u32>,
    /// Gain in the camera's own unit instead of its own choice.
    pub gain: Option<i32>,
}

/// An open camera. Frames are numbered from 1 after each opening; gaps are frames that the driver dropped.
pub struct V4lCamera {
    name: String,
    card: String,
    choice: Choice,
    stride: usize,
    // None only while it is dropped.
    stream: Option<Stream<'static>>,
    started: bool,
    first_sequence: Option<u32>,
    last_seq: u64,
    timeout: Duration,
    clock: Arc<dyn Clock>,
}

impl V4lCamera {
    /// Opens the device and agrees with the driver on format and size. Frames flow from the first [`Camera::next_frame`] on.
    ///
    /// # Errors
    /// [`CameraError::Unusable`] with a remedy: no such device (naming those present), no permission, in use, no capture
    /// device, no format that the decoder reads.
    pub fn open(spec: &V4lSpec, clock: Arc<dyn Clock>) -> Result<Self, CameraError> {
        let name = spec.device.display().to_string();
        let puzzling = || CameraError::Unusable {
            device: name.clone(),
            what: "its driver reports values that are not understood".to_owned(),
            remedy: "update the kernel or use another camera".to_owned(),
        };
        catch_unwind(AssertUnwindSafe(|| Self::open_unguarded(spec, name.clone(), clock)))
            .unwrap_or_else(|_| Err(puzzling()))
    }

    fn open_unguarded(spec: &V4lSpec, name: String, clock: Arc<dyn Clock>) -> Result<Self, CameraError> {
        let failed = |error: io::Error| opening_error(&name, &error, &present_devices(Path::new("/dev")));
        let device = Device::with_path(&spec.device).map_err(failed)?;
        let caps = device.query_caps().map_err(failed)?;
        if !caps.capabilities.contains(Capability::VIDEO_CAPTURE | Capability::STREAMING) {
            let planar = caps.capabilities.contains(Capability::VIDEO_CAPTURE_MPLANE);
            return Err(not_a_camera(&name, &caps.card, planar));
        }
        let offers = offers(&device).map_err(failed)?;
        let choice = choose(&offers, &spec.wish).map_err(|no_fit| CameraError::Unusable {
            device: name.clone(),
            what: no_fit.to_string(),
            remedy: "change [camera] format in the configuration or use another camera".to_owned(),
        })?;
        let asked = Format::new(choice.width_px, choice.height_px, FourCC::new(&choice.fourcc));
        // The driver may give another size; a frame's header then says so. Another format it may not give.
        let given = device.set_format(&asked).map_err(failed)?;
        if given.fourcc.repr != choice.fourcc {
            return Err(CameraError::Unusable {
                device: name,
                what: format!(
                    "was asked for {} and gives {}",
                    choice.fourcc.escape_ascii(),
                    given.fourcc.repr.escape_ascii()
                ),
                remedy: "set another [camera] format or size in the configuration".to_owned(),
            });
        }
        spec.hints.apply(&device, &name);
        let timeout = Duration::from_millis(spec.frame_timeout_ms.clamp(1, 60_000));
        let mut stream = Stream::with_buffers(&device, Type::VideoCapture, BUFFERS).map_err(failed)?;
        stream.set_timeout(timeout);
        Ok(Self {
            name,
            card: format!("{}, {}", caps.card, caps.driver),
            choice: Choice { width_px: given.width, height_px: given.height, ..choice },
            stride: given.stride as usize,
            stream: Some(stream),
            started: false,
            first_sequence: None,
            last_seq: 0,
            timeout,
            clock,
        })
    }

    fn lost(&self, what: String) -> CameraError {
        CameraError::Lost { device: self.name.clone(), what }
    }

    fn late(&self) -> CameraError {
        self.lost(format!("no good frame within {} ms; check its cable and power", self.timeout.as_millis()))
    }

    /// Waits until the driver has a frame. It must be streaming: polling before that is an error.
    fn wait(&self, stream: &Stream<'static>, deadline: Instant) -> Result<(), CameraError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // At most 60,000 by construction.
            let left_ms = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
            match stream.handle().poll(POLLIN, left_ms) {
                Ok(0) => return Err(self.late()),
                Ok(_) => return Ok(()),
                // A signal; the deadline stands.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.lost(error.to_string())),
            }
        }
    }

    fn fetch(&mut self, stream: &mut Stream<'static>, frame: &mut RawFrame) -> Result<(), CameraError> {
        let deadline = Instant::now() + self.timeout;
        loop {
            if self.started {
                self.wait(stream, deadline)?;
            }
            let (bytes, meta) = stream.next().map_err(|error| match error.kind() {
                io::ErrorKind::TimedOut => self.late(),
                _ => self.lost(error.to_string()),
            })?;
            self.started = true;
            let first = *self.first_sequence.get_or_insert(meta.sequence);
            if meta.flags.contains(BufferFlags::ERROR) {
                // The driver says that the content is damaged; its number stays a gap.
                if Instant::now() >= deadline {
                    return Err(self.late());
                }
                continue;
            }
            // The driver's counter wraps after 2³² frames (four years); numbers rise even then.
            let counted = u64::from(meta.sequence.wrapping_sub(first)) + 1;
            self.last_seq = counted.max(self.last_seq + 1);
            frame.seq = self.last_seq;
            frame.at = self.clock.now();
            frame.format = Some(self.choice.format);
            (frame.width_px, frame.height_px) =
                (self.choice.width_px as usize, self.choice.height_px as usize);
            let used = bytes.get(..meta.bytesused as usize).unwrap_or(bytes);
            let (width_px, height_px) = (frame.width_px, frame.height_px);
            let (row_len, rows) = match self.choice.format {
                PixelFormat::Yuyv => (width_px * 2, height_px),
                // The rows of both planes are of one length.
                PixelFormat::Nv12 => (width_px, height_px + height_px / 2),
                PixelFormat::Grey => (width_px, height_px),
                PixelFormat::Rgb24 => (width_px * 3, height_px),
                PixelFormat::Mjpeg => (0, 0),
            };
            unpad(used, row_len, self.stride, rows, &mut frame.bytes);
            return Ok(());
        }
    }
}

impl Camera for V4lCamera {
    fn next_frame(&mut self, frame: &mut RawFrame) -> Result<(), CameraError> {
        let Some(mut stream) = self.stream.take() else {
            return Err(self.lost("it is closed".to_owned()));
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| self.fetch(&mut stream, frame)));
        self.stream = Some(stream);
        outcome.unwrap_or_else(|_| Err(self.lost("its driver broke the rules of V4L2".to_owned())))
    }

    fn describe(&self) -> String {
        let Choice { fourcc, width_px, height_px, .. } = self.choice;
        format!("{} ({}): {} {width_px}x{height_px}", self.name, self.card, fourcc.escape_ascii())
    }
}

impl Drop for V4lCamera {
    fn drop(&mut self) {
        let Some(mut stream) = self.stream.take() else { return };
        match stream.stop() {
            Err(error) if error.raw_os_error() != Some(ENODEV) => {
                // Dropping the stream would panic twice, which aborts. Its few buffers are leaked instead; the kernel frees them.
                tracing::error!(camera = %self.name, %error, "the camera could not be stopped");
                std::mem::forget(stream);
            }
            _ => {
                if catch_unwind(AssertUnwindSafe(|| drop(stream))).is_err() {
                    tracing::error!(camera = %self.name, "the camera's buffers could not be freed");
                }
            }
        }
    }
}

fn offers(device: &Device) -> io::Result<Vec<Offer>> {
    let formats = device.enum_formats()?;
    Ok(formats
        .iter()
        .map(|format| {
            // Drivers that do not list sizes answer with an error; the wish is then asked for as it is.
            let sizes = device.enum_framesizes(format.fourcc).unwrap_or_default();
            let sizes = sizes
                .into_iter()
                .map(|size| match offered(&size.size) {
                    OfferedSize::Discrete { width_px, height_px, .. } => OfferedSize::Discrete {
                        width_px,
                        height_px,
                        max_mfps: fastest(device, format.fourcc, width_px, height_px),
                    },
                    range => range,
                })
                .collect();
            Offer { fourcc: format.fourcc.repr, sizes }
        })
        .collect())
}

/// The most frames in a thousand seconds, where the driver lists intervals.
fn fastest(device: &Device, fourcc: FourCC, width_px: u32, height_px: u32) -> Option<u32> {
    let intervals = device.enum_frameintervals(fourcc, width_px, height_px).ok()?;
    let mfps = |of: &v4l::Fraction| {
        let per_ks = u64::from(of.denominator) * 1000 / u64::from(of.numerator.max(1));
        u32::try_from(per_ks).unwrap_or(u32::MAX)
    };
    intervals
        .iter()
        .map(|interval| match &interval.interval {
            FrameIntervalEnum::Discrete(one) => mfps(one),
            FrameIntervalEnum::Stepwise(many) => mfps(&many.min),
        })
        .max()
}

impl Hints {
    fn apply(&self, device: &Device, name: &str) {
        let ignored = |what: &str, error: &io::Error| {
            tracing::warn!(camera = name, %error, "the camera does not take {what}; its own choice stays");
        };
        if let Some(fps) = self.fps
            && let Err(error) = device.set_params(&Parameters::with_fps(fps.max(1)))
        {
            ignored("[camera] fps", &error);
        }
        // The automatic that would undo a setting is switched off first; cameras without one only know the setting.
        let set = |id, value| device.set_control(Control { id, value: Value::Integer(value) });
        if let Some(exposure_us) = self.exposure_us {
            let _ = set(EXPOSURE_AUTO, EXPOSURE_MANUAL);
            if let Err(error) = set(EXPOSURE_ABSOLUTE, i64::from(exposure_us / 100).max(1)) {
                ignored("[camera] exposure_us", &error);
            }
        }
        if let Some(gain) = self.gain {
            let _ = set(AUTOGAIN, 0);
            if let Err(error) = set(GAIN, i64::from(gain)) {
                ignored("[camera] gain", &error);
            }
        }
    }
}

const fn offered(size: &FrameSizeEnum) -> OfferedSize {
    match size {
        FrameSizeEnum::Discrete(one) => {
            OfferedSize::Discrete { width_px: one.width, height_px: one.height, max_mfps: None }
        }
        FrameSizeEnum::Stepwise(many) => OfferedSize::Stepwise {
            width_px: (many.min_width, many.max_width, many.step_width),
            height_px: (many.min_height, many.max_height, many.step_height),
        },
    }
}

/// Copies `bytes` over `out` without the padding that a driver puts after each row (`stride` bytes a row, of which `row_len`
/// count) and after the last one. `row_len` zero means compressed: all of it counts. Too few bytes stay too few, for the decoder
/// to say so.
fn unpad(bytes: &[u8], row_len: usize, stride: usize, rows: usize, out: &mut Vec<u8>) {
    out.clear();
    if row_len == 0 {
        out.extend_from_slice(bytes);
        return;
    }
    if stride <= row_len {
        out.extend_from_slice(&bytes[..bytes.len().min(row_len * rows)]);
        return;
    }
    for row in bytes.chunks(stride).take(rows) {
        out.extend_from_slice(&row[..row.len().min(row_len)]);
    }
}

/// What the system said when the device was opened or set up, and what the installer can do about it.
fn opening_error(device: &str, error: &io::Error, present: &[String]) -> CameraError {
    let others = match present {
        [] => "no camera is connected: plug one in and look at `dmesg`".to_owned(),
        some => format!("set [camera] device to one of {}", some.join(", ")),
    };
    let (what, remedy) = match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::NotFound, _) | (_, Some(ENODEV | ENXIO)) => ("no such device".to_owned(), others),
        (io::ErrorKind::PermissionDenied, _) => (
            "no permission to open it".to_owned(),
            "add the user to the group video (usermod -aG video USER) and log in again".to_owned(),
        ),
        (io::ErrorKind::ResourceBusy, _) => {
            ("another program uses it".to_owned(), format!("stop that program (`fuser {device}` names it)"))
        }
        (_, Some(ENOTTY | ENOSYS)) => ("it is not a video device".to_owned(), others),
        _ => (error.to_string(), "unplug it, plug it in again and look at `dmesg`".to_owned()),
    };
    CameraError::Unusable { device: device.to_owned(), what, remedy }
}

fn not_a_camera(device: &str, card: &str, planar: bool) -> CameraError {
    let (what, remedy) = if planar {
        (
            format!("{card} gives multi-planar pictures only, which are not read"),
            "use a USB camera, or the board's single-planar capture node",
        )
    } else {
        (
            format!("{card} has no pictures here"),
            "many cameras have a second node for metadata: use the one with the lower number",
        )
    };
    CameraError::Unusable { device: device.to_owned(), what, remedy: remedy.to_owned() }
}

/// The `video*` nodes in `dev`, in the order of their numbers.
fn present_devices(dev: &Path) -> Vec<String> {
    let mut found: Vec<(u32, String)> = std::fs::read_dir(dev)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.strip_prefix("video")?.parse().ok()?;
            Some((number, entry.path().display().to_string()))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

/// Enough that one slow frame of the consumer drops none, few enough that a frame is fresh.
const BUFFERS: u32 = 4;
// Linux' numbers, the same on every architecture that a door runs on.
const POLLIN: i16 = 1;
// Controls, as Linux numbers them (`v4l2-controls.h`); exposure counts in units of 100 µs.
const GAIN: u32 = 0x0098_0913;
const AUTOGAIN: u32 = 0x0098_0912;
const EXPOSURE_AUTO: u32 = 0x009a_0901;
const EXPOSURE_ABSOLUTE: u32 = 0x009a_0902;
const EXPOSURE_MANUAL: i64 = 1;
const ENXIO: i32 = 6;
const ENODEV: i32 = 19;
const ENOTTY: i32 = 25;
/// What an emulated kernel answers to a request the file does not know.
const ENOSYS: i32 = 38;

#[cfg(test)]
mod tests {
    use facelatch_shared::time::UnixMs;

    use super::*;
    use crate::clock::SimClock;

    fn open(device: &str) -> CameraError {
        let spec = V4lSpec {
            device: device.into(),
            wish: Wish::default(),
            hints: Hints::default(),
            frame_timeout_ms: 1_000,
        };
        let clock = Arc::new(SimClock::starting_at(UnixMs(0)));
        V4lCamera::open(&spec, clock).err().unwrap()
    }

    #[test]
    fn a_missing_device_and_a_file_that_is_none_are_told_apart() {
        let missing = open("/nonexistent/video9").to_string();
        assert!(missing.starts_with("camera /nonexistent/video9: no such device; "), "{missing}");
        let other = open("/dev/null").to_string();
        assert!(other.starts_with("camera /dev/null: it is not a video device; "), "{other}");
    }

    #[test]
    fn every_opening_error_has_its_remedy() {
        let remedy = |code, present: &[String]| {
            opening_error("/dev/video0", &io::Error::from_raw_os_error(code), present).to_string()
        };
        let two = ["/dev/video2".to_owned(), "/dev/video4".to_owned()];
        for (code, said) in [
            (2, "no such device; set [camera] device to one of /dev/video2, /dev/video4"),
            (ENODEV, "no such device; set"),
            (13, "usermod -aG video"),
            (1, "usermod -aG video"),
            (16, "another program uses it; stop that program (`fuser /dev/video0`"),
            (ENOTTY, "it is not a video device; set"),
            (5, "plug it in again"),
        ] {
            let message = remedy(code, &two);
            assert!(message.contains(said), "error {code}: {message}");
        }
        assert!(remedy(2, &[]).contains("no camera is connected"));
        assert!(not_a_camera("/dev/video1", "Cam", false).to_string().contains("lower number"));
        assert!(not_a_camera("/dev/video1", "unicam", true).to_string().contains("multi-planar"));
    }

    #[test]
    fn nodes_are_listed_by_number() {
        let dev = tempfile::tempdir().unwrap();
        for name in ["video10", "video2", "videodev", "null"] {
            std::fs::write(dev.path().join(name), "").unwrap();
        }
        let found = present_devices(dev.path());
        let names: Vec<_> = found.iter().map(|p| p.rsplit('/').next().unwrap()).collect();
        assert_eq!(names, ["video2", "video10"]);
        assert!(present_devices(Path::new("/nonexistent")).is_empty());
    }

    #[test]
    fn padding_goes_and_shortage_stays() {
        let unpadded = |bytes: &[u8], row_len, stride, rows| {
            let mut out = vec![99; 3];
            unpad(bytes, row_len, stride, rows, &mut out);
            out
        };
        let padded = [1, 2, 3, 4, 0, 0, 5, 6, 7, 8, 0, 0];
        assert_eq!(unpadded(&padded, 4, 6, 2), [1, 2, 3, 4, 5, 6, 7, 8]);
        // The last row's padding is often left out.
        assert_eq!(unpadded(&padded[..10], 4, 6, 2), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(unpadded(&padded[..8], 4, 6, 2), [1, 2, 3, 4, 5, 6]);
        assert_eq!(unpadded(&[1, 2, 3, 4, 5, 6], 2, 2, 2), [1, 2, 3, 4], "a page-rounded buffer");
        assert_eq!(unpadded(&[1, 2, 3, 4], 2, 0, 2), [1, 2, 3, 4], "a driver that says no stride");
        assert_eq!(unpadded(&[1, 2, 3], 2, 2, 2), [1, 2, 3]);
        assert_eq!(unpadded(&[7, 8, 9], 0, 0, 480), [7, 8, 9], "compressed");
        assert!(unpadded(&[], 4, 6, 2).is_empty());
    }

    #[test]
    fn ranges_keep_their_bounds() {
        let range = FrameSizeEnum::Stepwise(v4l::framesize::Stepwise {
            min_width: 1,
            max_width: 2,
            step_width: 3,
            min_height: 4,
            max_height: 5,
            step_height: 6,
        });
        let expected = OfferedSize::Stepwise { width_px: (1, 2, 3), height_px: (4, 5, 6) };
        assert_eq!(offered(&range), expected);
    }
}

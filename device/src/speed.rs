//! `facelatchd bench`: what every stage costs on this very machine, and which form of a net is the faster one here.
//!
//! No pictures are needed: the cost of decoding, aligning and of the nets hardly depends on what is seen. Everything is run once a round in turn, so
//! that a machine that slows down slows all of it.

use std::path::PathBuf;
use std::time::Instant;

use facelatch_shared::align::{CHIP_BYTES, CHIP_PX};
use facelatch_shared::detection::{Landmarks5, Point};
use facelatch_shared::frame::RgbView;
use facelatch_shared::vision::chip::ChipCutter;
use facelatch_shared::vision::contract::{Alignment, AlignmentMethod, ModelKind};
use facelatch_shared::vision::detect::Detector;
use facelatch_shared::vision::embed::Embedder;
use facelatch_shared::vision::fiducials::FiducialFinder;
use facelatch_shared::vision::{Manifest, ManifestError, VisionError};
use serde::Serialize;
use thiserror::Error;

use crate::camera::{PixelFormat, RawFrame};
use crate::config::Config;
use crate::decode::{Decoder, JpegEncodeError, encode_mjpeg, encode_yuyv};
use crate::metrics::resident_bytes;

/// Time every stage and every model on this machine, one thread, no pictures needed
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct SpeedArgs {
    /// The folder with the models' manifest.toml [default: the configuration's]
    #[arg(long, value_name = "DIR")]
    pub models: Option<PathBuf>,
    /// How often each is run, after one round of warming up
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(3..=10_000))]
    pub rounds: u32,
    /// Print one line of JSON, for a table of boards
    #[arg(long)]
    pub json: bool,
}

/// What was measured, and where.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The program's version.
    pub version: &'static str,
    /// Whether the program was built with optimization; without it the times say nothing.
    pub optimized: bool,
    /// Architecture that the program was built for.
    pub arch: &'static str,
    /// What the kernel calls the processor; empty where it says nothing.
    pub processor: String,
    /// Cores that the program may use.
    pub cores: usize,
    /// Rounds measured.
    pub rounds: u32,
    /// In the order of a frame.
    pub rows: Vec<Row>,
    /// Of nets that are there in two forms, the faster one.
    pub faster: Vec<Faster>,
    /// Memory of the process in RAM with all these models loaded.
    pub resident_bytes: u64,
}

/// One thing that was timed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The stage.
    pub stage: &'static str,
    /// Which of several.
    pub what: String,
    /// Median, in microseconds.
    pub median_us: u64,
    /// 95th percentile, in microseconds.
    pub p95_us: u64,
}

/// Two forms of one net.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Faster {
    /// The one to name in `door.toml`.
    pub take: String,
    /// The other one.
    pub rather_than: String,
    /// Time of the first in percent of the other's.
    pub percent: u64,
}

/// Measures.
///
/// # Errors
/// [`SpeedError`] naming the file.
pub fn measure(args: &SpeedArgs, config: &Config) -> Result<Report, SpeedError> {
    let mut subjects = subjects(args, config)?;
    let mut times: Vec<Vec<u64>> = vec![Vec::with_capacity(args.rounds as usize); subjects.len()];
    for round in 0..=args.rounds {
        for (subject, times) in subjects.iter_mut().zip(&mut times) {
            let start = Instant::now();
            (subject.run)()?;
            let took = start.elapsed();
            if round > 0 {
                times.push(took.as_micros().try_into().unwrap_or(u64::MAX));
            }
        }
    }
    let rows: Vec<Row> = subjects
        .into_iter()
        .zip(times)
        .map(|(subject, mut times)| {
            times.sort_unstable();
            let (median_us, p95_us) = (rank(&times, 0.5), rank(&times, 0.95));
            Row { stage: subject.stage, what: subject.what, median_us, p95_us }
        })
        .collect();
    Ok(Report {
        version: env!("CARGO_PKG_VERSION"),
        optimized: !cfg!(debug_assertions),
        arch: std::env::consts::ARCH,
        processor: processor(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        rounds: args.rounds,
        faster: faster(&rows),
        rows,
        resident_bytes: resident_bytes(),
    })
}

/// Something to time.
struct Subject {
    stage: &'static str,
    what: String,
    run: Box<dyn FnMut() -> Result<(), SpeedError>>,
}

impl Subject {
    fn new(
        stage: &'static str,
        what: impl Into<String>,
        run: impl FnMut() -> Result<(), SpeedError> + 'static,
    ) -> Self {
        Self { stage, what: what.into(), run: Box::new(run) }
    }
}

fn subjects(args: &SpeedArgs, config: &Config) -> Result<Vec<Subject>, SpeedError> {
    let models = &config.models;
    let dir = args.models.clone().unwrap_or_else(|| models.dir.clone());
    let manifest = Manifest::load(&dir)?;
    let pixels = picture();
    let mut all = Vec::new();
    let (mut yuyv, mut jpeg) = (Vec::new(), Vec::new());
    encode_yuyv(&frame(&pixels)?, &mut yuyv);
    encode_mjpeg(&frame(&pixels)?, 85, &mut jpeg)?;
    for (format, name, bytes) in [(PixelFormat::Yuyv, "yuyv", yuyv), (PixelFormat::Mjpeg, "mjpeg", jpeg)] {
        let (width_px, height_px) = (WIDTH_PX, HEIGHT_PX);
        let raw = RawFrame { format: Some(format), width_px, height_px, bytes, ..RawFrame::default() };
        let mut decoder = Decoder::new();
        all.push(Subject::new("decode", format!("{name} {WIDTH_PX}x{HEIGHT_PX}"), move || {
            decoder.decode(&raw).map(|_| ()).map_err(|_| SpeedError::Frame)
        }));
    }
    let of_kind = |kind| manifest.models.iter().filter(move |entry| entry.kind == kind);
    let size = (models.detector_width_px, models.detector_height_px);
    for entry in of_kind(ModelKind::Detector) {
        let mut detector = Detector::load(&dir, entry, size)?;
        let pixels = pixels.clone();
        all.push(Subject::new("detect", format!("{} {}x{}", entry.name, size.0, size.1), move || {
            Ok(detector.find(&frame(&pixels)?).map(|_| ())?)
        }));
    }
    for entry in of_kind(ModelKind::Fiducials) {
        let mut finder = FiducialFinder::load(&dir, entry)?;
        let pixels = pixels.clone();
        all.push(Subject::new("fiducials", entry.name.clone(), move || {
            Ok(finder.find(&frame(&pixels)?, &landmarks()).map(|_| ())?)
        }));
    }
    let mut chip = Box::new([0_u8; CHIP_BYTES]);
    for method in AlignmentMethod::ALL {
        let mut cutter = ChipCutter::new(Alignment { method, ..Alignment::ARCFACE_112 });
        let pixels = pixels.clone();
        cutter.cut(&frame(&pixels)?, &landmarks(), None, &mut chip)?;
        let mut chip = chip.clone();
        all.push(Subject::new("align", method.name(), move || {
            Ok(cutter.cut(&frame(&pixels)?, &landmarks(), None, &mut chip)?)
        }));
    }
    for entry in of_kind(ModelKind::Embedder) {
        let mut embedder = Embedder::load(&dir, entry)?;
        let chip = chip.clone();
        all.push(Subject::new("embed", entry.name.clone(), move || Ok(embedder.embed(&chip).map(|_| ())?)));
    }
    Ok(all)
}

fn frame(pixels: &[u8]) -> Result<RgbView<'_>, SpeedError> {
    RgbView::new(pixels, WIDTH_PX, HEIGHT_PX).map_err(|_| SpeedError::Frame)
}

/// A smooth picture with texture, packed RGB: nothing that a decoder or a warp could skip.
fn picture() -> Vec<u8> {
    let mut state = 1_u32;
    let mut pixels = Vec::with_capacity(WIDTH_PX * HEIGHT_PX * 3);
    for y in 0..HEIGHT_PX {
        for x in 0..WIDTH_PX {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = (state >> 28) as usize;
            pixels.extend([x / 4 + noise, y / 3 + noise, (x + y) / 6 + noise].map(|v| v.min(255) as u8));
        }
    }
    pixels
}

/// A face of 100 px between the eyes in the middle of it, slightly tilted.
fn landmarks() -> Landmarks5 {
    let (scale, sin, cos) = (100.0 / 35.2, 0.1_f32, 0.995_f32);
    let half = CHIP_PX as f32 / 2.0;
    Landmarks5(Alignment::ARCFACE_112.landmarks().0.map(|p| {
        let (x, y) = ((p.x - half) * scale, (p.y - half) * scale);
        let (middle_x, middle_y) = (WIDTH_PX as f32 / 2.0, HEIGHT_PX as f32 / 2.0);
        Point::new(middle_x + cos * x - sin * y, middle_y + sin * x + cos * y)
    }))
}

/// The `share` quantile of sorted `times`.
fn rank(times: &[u64], share: f64) -> u64 {
    let at = (times.len().saturating_sub(1) as f64 * share).round() as usize;
    times.get(at).copied().unwrap_or(0)
}

/// Of every pair `X` and `X-int8` of embedders, the one with the smaller median.
fn faster(rows: &[Row]) -> Vec<Faster> {
    let embedders = || rows.iter().filter(|row| row.stage == "embed");
    let pair = |integer: &Row| {
        let stem = integer.what.strip_suffix("-int8")?;
        let other = embedders().find(|row| row.what == stem)?;
        let (fast, slow) =
            if integer.median_us < other.median_us { (integer, other) } else { (other, integer) };
        Some(Faster {
            take: fast.what.clone(),
            rather_than: slow.what.clone(),
            percent: 100 * fast.median_us / slow.median_us.max(1),
        })
    };
    embedders().filter_map(pair).collect()
}

/// The processor's name in `/proc/cpuinfo`: x86 has `model name`, Raspberry Pi OS `Model`, other ARM kernels only part numbers.
fn processor(cpuinfo: &str) -> String {
    let value = |key: &str| {
        let mut lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().to_owned())
    };
    value("model name")
        .or_else(|| value("Model"))
        .or_else(|| Some(format!("implementer {}, part {}", value("CPU implementer")?, value("CPU part")?)))
        .unwrap_or_default()
}

/// Why there are no figures.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SpeedError {
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A model.
    #[error(transparent)]
    Vision(#[from] VisionError),
    /// The picture that stands for a camera's.
    #[error(transparent)]
    Encode(#[from] JpegEncodeError),
    /// The same.
    #[error("the built-in picture cannot be read back: this program is damaged, install it again")]
    Frame,
}

const WIDTH_PX: usize = 640;
const HEIGHT_PX: usize = 480;

const EXAMPLES: &str = "\
Examples:
  facelatchd bench                            the models of /etc/facelatch/door.toml's folder
  facelatchd bench --models target/models     those of another folder
  facelatchd bench --json                     one line for a table of boards";

#[cfg(test)]
mod tests {
    use super::*;

    fn row(what: &str, median_us: u64) -> Row {
        Row { stage: "embed", what: what.into(), median_us, p95_us: median_us }
    }

    #[test]
    fn the_faster_form_of_each_net_is_named() {
        let rows = [row("a", 100), row("a-int8", 40), row("b", 10), row("b-int8", 20), row("c-int8", 1)];
        let found = faster(&rows);
        let names: Vec<_> = found.iter().map(|f| (f.take.as_str(), f.percent)).collect();
        assert_eq!(names, [("a-int8", 40), ("b", 50)]);
    }

    #[test]
    fn the_processor_is_named_on_each_kind_of_kernel() {
        assert_eq!(processor("processor : 0\nmodel name\t: AMD EPYC\n"), "AMD EPYC");
        assert_eq!(processor("CPU part\t: 0xd03\nModel\t\t: Raspberry Pi 3\n"), "Raspberry Pi 3");
        assert_eq!(processor("CPU implementer\t: 0x41\nCPU part\t: 0xd03\n"), "implementer 0x41, part 0xd03");
        assert_eq!(processor(""), "");
    }

    #[test]
    fn ranks_are_those_of_the_sorted_times() {
        let times: Vec<u64> = (0..=100).collect();
        assert_eq!((rank(&times, 0.5), rank(&times, 0.95)), (50, 95));
        assert_eq!(rank(&[], 0.5), 0);
    }

    #[test]
    fn the_built_in_face_can_be_aligned_every_way() {
        let pixels = picture();
        let frame = RgbView::new(&pixels, WIDTH_PX, HEIGHT_PX).unwrap();
        for method in AlignmentMethod::ALL {
            let mut cutter = ChipCutter::new(Alignment { method, ..Alignment::ARCFACE_112 });
            cutter.cut(&frame, &landmarks(), None, &mut [0; CHIP_BYTES]).unwrap();
        }
    }
}

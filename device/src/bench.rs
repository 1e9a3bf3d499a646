//! `facelatchd bench-stages`: the time of each stage on given frames, for comparison with another program on the same frames.

use std::path::PathBuf;

use facelatch_shared::observation::StageTimings;
use facelatch_shared::quality::Gate;
use facelatch_shared::time::Millis;
use facelatch_shared::vision::{Eyes, VisionError};
use serde::Serialize;

use crate::config::Config;
use crate::demo::photos::{Photo, PhotoError, pictures_in};

/// Time the pipeline's stages on a folder of pictures, one thread.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    /// The folder with the models' manifest.toml
    #[arg(long, value_name = "DIR", default_value = "target/models")]
    pub models: PathBuf,
    /// The detector's name in the manifest
    #[arg(long, value_name = "NAME", default_value = "yunet")]
    pub detector: String,
    /// Passes over the pictures, after one of warming up
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub repeats: u32,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The folder of pictures
    #[arg(long, value_name = "DIR", required = true)]
    pub frames: PathBuf,
}

/// Median time of each stage.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The stages that look, by name.
    pub stages: std::collections::BTreeMap<&'static str, Stage>,
    /// Pictures in which a face was found.
    pub frames_with_face: usize,
}

/// One stage.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Stage {
    /// Median, in microseconds.
    pub median_us: f64,
    /// Measurements.
    pub n: usize,
}

/// Measures `args.repeats` passes. Every face passes the gate, so that each picture with one is embedded.
///
/// # Errors
/// [`BenchError`] naming the file.
pub fn stages(args: &BenchArgs) -> Result<Report, BenchError> {
    let models = Config::default().models;
    let size = (models.detector_width_px, models.detector_height_px);
    let mut eyes = Eyes::load(&args.models, &args.detector, &models.embedder, Gate::OPEN, size)?;
    let mut photos = Vec::new();
    for path in pictures_in(&args.frames)? {
        photos.push(Photo::open(&path)?);
    }
    if photos.is_empty() {
        return Err(BenchError::NoFrames { path: args.frames.display().to_string() });
    }
    let mut timings: Vec<StageTimings> = Vec::new();
    let mut frames_with_face = 0;
    for pass in 0..=args.repeats {
        for (seq, photo) in photos.iter().enumerate() {
            let seen = eyes.observe(&photo.view(), seq as u64, Millis(seq as u64 * 1000))?;
            if pass > 0 {
                timings.push(seen.timings);
            } else {
                frames_with_face += usize::from(!seen.faces.is_empty());
            }
        }
    }
    type Of = fn(&StageTimings) -> u32;
    let columns: [(&'static str, Of, bool); 3] = [
        ("detect", |t| t.detect_us, false),
        ("align", |t| t.align_us, true),
        ("embed", |t| t.embed_us, true),
    ];
    let stages = columns
        .iter()
        .map(|(name, of, embedded)| {
            let mut times: Vec<u32> =
                timings.iter().filter(|t| !embedded || t.embed_us > 0).map(of).collect();
            times.sort_unstable();
            let median_us = f64::from(times.get(times.len() / 2).copied().unwrap_or(0));
            (*name, Stage { median_us, n: times.len() })
        })
        .collect();
    Ok(Report { stages, frames_with_face })
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The models.
    #[error(transparent)]
    Vision(#[from] VisionError),
    /// A picture.
    #[error(transparent)]
    Photo(#[from] PhotoError),
    /// Nothing to measure.
    #[error("{path}: no JPEG or PNG pictures; `make bench` composes some")]
    NoFrames {
        /// The folder.
        path: String,
    },
}

//! `run.toml`: everything that made a run, saved into its folder.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::optimizer::Rule;
use crate::dataset::Augment;
use crate::model::compact::Shape;

/// Settings of a distillation. Unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// Seed of weights, order and augmentation.
    pub seed: u64,
    /// Chips in a batch.
    pub batch: usize,
    /// Length of the schedule in minutes of training; repeatable runs use `steps` instead.
    pub minutes: f64,
    /// Length of the schedule in steps; when above zero `minutes` is ignored and the run is repeatable bit for bit on one CPU type.
    pub steps: u64,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// AdamW's λ.
    pub weight_decay: f64,
    /// What updates dense convolutions.
    pub rule: Rule,
    /// Decay of the running mean of the weights, which is what is evaluated and exported.
    pub ema: f64,
    /// Convolutions in bfloat16.
    pub bf16: bool,
    /// Weight of the relational term.
    pub relational: f64,
    /// Chip sides in the order of training: each is used until its share of the schedule has passed.
    pub sides: Vec<Side>,
    /// Share of identities held out.
    pub held_out: f64,
    /// Most faces of the held-out part that one evaluation uses.
    pub held_out_faces: usize,
    /// Largest decoded data set.
    pub memory_limit_mb: usize,
    /// Threads of libtorch.
    pub threads: i32,
    /// The net.
    pub shape: Shape,
    /// How chips are varied.
    pub augment: Augment,
    /// What the run was made from; filled in at its start.
    pub origin: Origin,
}

/// A chip side and the share of the schedule (0–1) at which it ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Side {
    /// Side in pixels, a multiple of 16.
    pub px: usize,
    /// End of its use.
    pub until: f64,
}

/// Where a run's data and code came from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Origin {
    /// Revision of the source tree, `-dirty` when it differed.
    pub revision: String,
    /// SHA-256 of `manifest.csv`.
    pub manifest_sha256: String,
    /// SHA-256 of the teacher's vectors.
    pub teacher_sha256: String,
    /// Faces learnt from.
    pub faces: usize,
    /// Identities among them, where known.
    pub identities: usize,
    /// Parameters of the net.
    pub parameters: usize,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            batch: 64,
            minutes: 60.0,
            steps: 0,
            learning_rate: 2e-3,
            warmup_steps: 200,
            weight_decay: 0.05,
            rule: Rule::Muon,
            ema: 0.998,
            bf16: true,
            relational: 0.0,
            sides: vec![
                Side { px: 64, until: 0.4 },
                Side { px: 96, until: 0.75 },
                Side { px: 112, until: 1.0 },
            ],
            held_out: 0.02,
            held_out_faces: 512,
            memory_limit_mb: 6000,
            threads: 2,
            shape: Shape::default(),
            augment: Augment::default(),
            origin: Origin::default(),
        }
    }
}

impl RunConfig {
    /// Reads a TOML file.
    ///
    /// # Errors
    /// [`ConfigError`] when it cannot be read, does not parse, or a value is out of range.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
        let config: Self = toml::from_str(&text)
            .map_err(|e| ConfigError::Malformed { path: path.to_owned(), reason: e.to_string() })?;
        config.check()?;
        Ok(config)
    }

    /// Writes it as TOML.
    ///
    /// # Errors
    /// [`ConfigError::File`].
    pub fn write(&self, path: &Path) -> Result<(), ConfigError> {
        let text = toml::to_string_pretty(self)
            .map_err(|e| ConfigError::Malformed { path: path.to_owned(), reason: e.to_string() })?;
        std::fs::write(path, text).map_err(|source| ConfigError::File { path: path.to_owned(), source })
    }

    /// Refuses values the training loop cannot work with.
    ///
    /// # Errors
    /// [`ConfigError::Value`] naming the key.
    pub fn check(&self) -> Result<(), ConfigError> {
        let bad = |key, reason| Err(ConfigError::Value { key, reason });
        if self.batch < 2 {
            return bad("batch", "batch statistics need at least 2 chips");
        }
        if self.steps == 0 && !(self.minutes > 0.0 && self.minutes.is_finite()) {
            return bad("minutes", "must be above 0 when steps is 0");
        }
        if self.sides.is_empty() || self.sides.iter().any(|s| s.px == 0 || s.px % 16 != 0 || s.px > 112) {
            return bad("sides", "each px must be a multiple of 16 up to 112");
        }
        if self.sides.last().is_some_and(|s| s.px != 112) {
            return bad("sides", "the last must be 112, the size the door uses");
        }
        if !(0.0..0.9).contains(&self.held_out) {
            return bad("held_out", "must be at least 0 and below 0.9");
        }
        if !(0.0..1.0).contains(&self.ema) {
            return bad("ema", "must be at least 0 and below 1");
        }
        if !(0.0..=16.0).contains(&self.augment.shift_px) {
            return bad("augment.shift_px", "must be 0 to 16");
        }
        Ok(())
    }

    /// Chip side at `share` (0–1) of the schedule.
    #[must_use]
    pub fn side_px(&self, share: f64) -> usize {
        self.sides.iter().find(|s| share < s.until).or(self.sides.last()).map_or(112, |s| s.px)
    }

    /// Learning rate at `step` and `share` (0–1) of the schedule: linear warm-up, then half a cosine down to zero.
    #[must_use]
    pub fn rate(&self, step: u64, share: f64) -> f64 {
        let warm = ((step + 1) as f64 / self.warmup_steps.max(1) as f64).min(1.0);
        self.learning_rate * warm * 0.5 * (1.0 + (share.clamp(0.0, 1.0) * std::f64::consts::PI).cos())
    }
}

/// Why settings were refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not the TOML expected.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and what.
        reason: String,
    },
    /// A value is out of range.
    #[error("setting '{key}': {reason}")]
    Value {
        /// The key.
        key: &'static str,
        /// The rule it breaks.
        reason: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_config_reads_back_and_a_typo_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.toml");
        RunConfig::default().write(&path).unwrap();
        assert_eq!(RunConfig::read(&path).unwrap(), RunConfig::default());
        std::fs::write(&path, "learning_rat = 0.1").unwrap();
        assert!(RunConfig::read(&path).unwrap_err().to_string().contains("learning_rat"));
    }

    #[test]
    fn the_rate_warms_up_and_falls_to_zero_and_sides_follow_the_schedule() {
        let config = RunConfig::default();
        assert!(config.rate(0, 0.0) < config.learning_rate * 0.01);
        assert!((config.rate(5000, 0.5) - config.learning_rate / 2.0).abs() < 1e-9);
        assert!(config.rate(9000, 1.0).abs() < 1e-12);
        assert_eq!([0.0, 0.5, 0.9, 1.5].map(|s| config.side_px(s)), [64, 96, 112, 112]);
    }

    #[test]
    fn a_run_that_does_not_end_at_the_doors_size_is_refused() {
        let config = RunConfig { sides: vec![Side { px: 96, until: 1.0 }], ..RunConfig::default() };
        assert!(matches!(config.check(), Err(ConfigError::Value { key: "sides", .. })));
    }
}

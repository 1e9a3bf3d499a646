//! From a float run to integer arithmetic: fold, equalize, observe, choose which layers compute on codes, correct, and, where
//! that is not enough, fine-tune with the rounding in place.
//!
//! Everything here sees the calibration split only: one half of the identities that the run held out. The other half tells
//! how well it went.

pub mod net;
pub mod observer;
pub mod equalize;
pub mod simulate;
pub mod sensitivity;
pub mod faces;
pub mod finetune;
pub mod file;

use tch::{Kind, Tensor};

use crate::export::ExportError;
use net::Net;
use observer::Observer;
use sensitivity::Sensitivity;
use simulate::{Observed, Plan};

/// A net with the ranges and scales that make it integer.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantized {
    /// Folded, equalized where that helps, corrected.
    pub net: Net,
    /// Which layers are integer, and the ranges of values.
    pub plan: Plan,
    /// One scale for each layer's weights.
    pub scales: Vec<f32>,
}

/// Rounds of equalization through the net.
pub const EQUALIZE_ROUNDS: usize = 4;

/// What to do on the way.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The observer; the one with the best cosine when none is named.
    pub observer: Option<Observer>,
    /// Try cross-layer equalization, and keep it where it helps.
    pub equalize: bool,
    /// Bias correction.
    pub correct: bool,
    /// Layers that stay float whatever they cost.
    pub float_layers: Vec<String>,
    /// Layers are taken out of integer arithmetic, the costliest first, until the mean cosine to the float net reaches this.
    pub least_cosine: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { observer: None, equalize: true, correct: true, float_layers: Vec::new(), least_cosine: 0.99 }
    }
}

/// How a quantized net compares with its float net, over faces.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Agreement {
    /// Mean cosine.
    pub mean: f64,
    /// The cosine that one face in a hundred falls below.
    pub first_percentile: f64,
}

/// What was tried and chosen.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Report {
    /// Mean cosine with each observer on calibration faces, all eligible layers integer, with or without equalization as chosen,
    /// before bias correction.
    pub observers: Vec<(Observer, f64)>,
    /// The observer chosen.
    pub observer: Observer,
    /// The best cosine without equalization, and with it when it was tried.
    pub equalization: (f64, Option<f64>),
    /// Each layer.
    pub layers: Vec<Sensitivity>,
    /// Integer layers in the end.
    pub integer_layers: usize,
    /// Share of multiply-adds that is integer.
    pub integer_share: f64,
    /// Calibration faces, after everything.
    pub calibration: Agreement,
    /// Faces seen by nothing before.
    pub check: Agreement,
}

/// Quantizes `net`; `calibration` and `check` are chips `[n, 3, 112, 112]` RGB 0–255 of different people.
///
/// # Errors
/// [`QuantizeError::UnknownLayer`].
pub fn quantize(
    net: &Net,
    calibration: &Tensor,
    check: &Tensor,
    settings: &Settings,
) -> Result<(Quantized, Report), QuantizeError> {
    let _no_grad = tch::no_grad_guard();
    if let Some(name) = settings.float_layers.iter().find(|n| net.layers.iter().all(|l| l.name != **n)) {
        let known = net.layers.iter().map(|l| l.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(QuantizeError::UnknownLayer { name: name.clone(), known });
    }
    let float = net.clone();
    let expected = embed_float(&float, calibration);
    let eligible: Vec<bool> = (0..net.layers.len())
        .map(|i| net.may_be_integer(i) && !settings.float_layers.contains(&net.layers[i].name))
        .collect();
    let tried = |net: Net| {
        let observed = Observed::over(&net, &net.tensors(), calibration);
        let scales = simulate::scales(&net);
        let observers: Vec<(Observer, f64)> = Observer::ALL
            .into_iter()
            .map(|observer| {
                let plan = observed.plan(observer, eligible.clone());
                (observer, cosines(&embed_integer(&net, &plan, &scales, calibration), &expected).mean)
            })
            .collect();
        let best = observers
            .iter()
            .filter(|(o, _)| settings.observer.is_none_or(|named| named == *o))
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .map_or((Observer::Mse, f64::MIN), |o| *o);
        (net, observed, scales, observers, best)
    };
    let plain = tried(net.clone());
    let plain_best = plain.4.1;
    let equalized = settings.equalize.then(|| {
        let mut net = net.clone();
        equalize::equalize(&mut net, EQUALIZE_ROUNDS);
        tried(net)
    });
    let equalized_best = equalized.as_ref().map(|e| e.4.1);
    let takes_equalized = equalized_best.is_some_and(|cosine| cosine > plain_best);
    let (mut net, observed, scales, observers, (observer, _)) =
        equalized.filter(|_| takes_equalized).unwrap_or(plain);
    let mut plan = observed.plan(observer, eligible);
    let layers = sensitivity::choose(&net, &mut plan, &scales, calibration, &expected, settings.least_cosine);
    if settings.correct {
        simulate::correct_biases(
            &mut net,
            &plan,
            &scales,
            &calibration.narrow(0, 0, calibration.size()[0].min(128)),
        );
    }
    let quantized = Quantized { net, plan, scales };
    let report = Report {
        observers,
        observer,
        equalization: (plain_best, equalized_best),
        integer_layers: quantized.plan.integers(),
        integer_share: sensitivity::integer_share(&layers),
        layers,
        calibration: cosines(&quantized.embed(calibration), &expected),
        check: cosines(&quantized.embed(check), &embed_float(&float, check)),
    };
    Ok((quantized, report))
}

impl Quantized {
    /// Embeddings `[n, 128]` of chips `[n, 3, 112, 112]`, simulated.
    pub fn embed(&self, chips: &Tensor) -> Tensor {
        embed_integer(&self.net, &self.plan, &self.scales, chips)
    }
}

fn in_chunks(chips: &Tensor, run: impl Fn(&Tensor) -> Tensor) -> Tensor {
    let _no_grad = tch::no_grad_guard();
    let n = chips.size()[0];
    let parts: Vec<Tensor> = (0..n)
        .step_by(simulate::CHUNK as usize)
        .map(|start| run(&chips.narrow(0, start, (n - start).min(simulate::CHUNK))))
        .collect();
    Tensor::cat(&parts, 0)
}

fn embed_integer(net: &Net, plan: &Plan, scales: &[f32], chips: &Tensor) -> Tensor {
    let tensors = net.tensors();
    in_chunks(chips, |part| simulate::embed(net, plan, scales, &tensors, part))
}

/// Embeddings `[n, 128]` of the float net.
pub fn embed_float(net: &Net, chips: &Tensor) -> Tensor {
    let tensors = net.tensors();
    in_chunks(chips, |part| {
        net.values(&tensors, part).pop().map_or_else(Tensor::new, |last| last.flatten(1, -1))
    })
}

/// Cosines of rows.
#[must_use]
pub fn cosines(a: &Tensor, b: &Tensor) -> Agreement {
    let all = Tensor::cosine_similarity(a, b, 1, 1e-12).to_kind(Kind::Double);
    let mut values: Vec<f64> = Vec::try_from(&all).unwrap_or_default();
    values.sort_unstable_by(f64::total_cmp);
    Agreement {
        mean: values.iter().sum::<f64>() / values.len().max(1) as f64,
        first_percentile: values.get(values.len() / 100).copied().unwrap_or(f64::NAN),
    }
}

/// Why a net was not quantized.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// A layer named in the settings.
    #[error("the net has no layer '{name}'; it has: {known}")]
    UnknownLayer {
        /// The name.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The run.
    #[error(transparent)]
    Run(#[from] ExportError),
    /// The list of faces.
    #[error(transparent)]
    Manifest(#[from] crate::dataset::manifest::ManifestError),
    /// The pictures.
    #[error(transparent)]
    Shards(#[from] crate::dataset::shards::ShardError),
    /// The teacher's vectors.
    #[error(transparent)]
    Teacher(#[from] crate::train::teacher::TeacherError),
    /// The split is too small to measure on.
    #[error("{part} has {faces} faces, {least} are needed: the run's held_out is too small for this data")]
    TooFewFaces {
        /// Which part.
        part: &'static str,
        /// Faces in it.
        faces: usize,
        /// Faces needed.
        least: usize,
    },
    /// The file with the quantized net.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::net::tests::{chips, small};
    use super::*;

    #[test]
    fn the_whole_way_ends_near_the_float_net_and_says_what_it_did() {
        let (store, _, shape) = small();
        let net = Net::fold(&store, &shape).unwrap();
        let faces = chips(24);
        let (calibration, check) = (faces.narrow(0, 0, 16), faces.narrow(0, 16, 8));
        let (quantized, report) = quantize(&net, &calibration, &check, &Settings::default()).unwrap();
        assert!(report.check.mean > 0.98 && report.check.first_percentile <= report.check.mean, "{report:?}");
        assert_eq!(report.layers.len(), net.layers.len());
        assert_eq!(report.integer_layers, quantized.plan.integers());
        assert!(report.integer_share > 0.5 && report.integer_share < 1.0);
        assert_eq!(report.observers.len(), 4);
    }

    #[test]
    fn named_layers_stay_float_and_a_misspelt_one_is_refused() {
        let (store, _, shape) = small();
        let net = Net::fold(&store, &shape).unwrap();
        let faces = chips(8);
        let named = |name: &str| Settings { float_layers: vec![name.into()], ..Settings::default() };
        let (quantized, _) = quantize(&net, &faces, &faces, &named("head")).unwrap();
        let head = net.layers.iter().position(|l| l.name == "head").unwrap();
        assert!(!quantized.plan.integer[head]);
        let error = quantize(&net, &faces, &faces, &named("haed")).unwrap_err().to_string();
        assert!(error.contains("'haed'") && error.contains("stage0.down"), "{error}");
    }
}

//! A net, the running mean of its weights, and what trains it: what the recipes of the door's eyes share.

use tch::nn::{Path, VarStore};
use tch::{Device, Kind, Tensor};

use crate::train::checkpoint::{self, CheckpointError};
use crate::train::optimizer::{Optimizer, Rule};

/// A net `N` with its weights in one store and their running mean in another.
#[derive(Debug)]
pub struct Student<N> {
    weights: VarStore,
    /// The net that learns.
    pub net: N,
    ema: VarStore,
    /// The running mean, which is evaluated and exported.
    pub ema_net: N,
    optimizer: Optimizer,
}

impl<N> Student<N> {
    /// A net with fresh weights; `seed` seeds libtorch.
    pub fn new(seed: u64, device: Device, rule: Rule, decay: f64, build: impl Fn(&Path<'_>) -> N) -> Self {
        tch::manual_seed(seed as i64);
        let weights = VarStore::new(device);
        let net = build(&weights.root());
        let mut ema = VarStore::new(device);
        let ema_net = build(&ema.root());
        ema.freeze();
        let trainable = weights.variables().into_iter().filter(|(_, t)| t.requires_grad()).collect();
        let optimizer = Optimizer::new(trainable, rule, decay);
        let student = Self { weights, net, ema, ema_net, optimizer };
        student.average(0.0);
        student
    }

    /// Weights to start from instead.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn load(&self, path: &std::path::Path) -> Result<(), CheckpointError> {
        checkpoint::load_weights(path, &self.weights)?;
        self.average(0.0);
        Ok(())
    }

    /// Parameters that are learnt.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.weights.trainable_variables().iter().map(Tensor::numel).sum()
    }

    /// One update from `loss`, and a step of the running mean towards it.
    pub fn learn(&mut self, loss: &Tensor, step: u64, rate: f64, ema: f64) {
        loss.backward();
        self.optimizer.step(step, rate);
        self.average(ema.min((step + 1) as f64 / (step + 10) as f64));
    }

    /// Moves the running mean towards the weights: mean ← decay·mean + (1 − decay)·weights.
    pub fn average(&self, decay: f64) {
        let _no_grad = tch::no_grad_guard();
        let source = self.weights.variables();
        for (name, mut mean) in self.ema.variables() {
            if let Some(now) = source.get(&name) {
                let _ = mean.g_mul_scalar_(decay);
                let _ = mean.g_add_(&(now * (1.0 - decay)));
            }
        }
    }

    /// Everything that steps change.
    #[must_use]
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = checkpoint::named("weights", &self.weights);
        state.extend(checkpoint::named("ema", &self.ema));
        state.extend(self.optimizer.state());
        state
    }

    /// Takes it back.
    ///
    /// # Errors
    /// The name of a tensor that is missing or of another shape.
    pub fn restore(&mut self, state: &[(String, Tensor)]) -> Result<(), String> {
        checkpoint::fill(&self.weights, "weights", state)?;
        checkpoint::fill(&self.ema, "ema", state)?;
        self.optimizer.restore(state)
    }
}

/// `[n, side, side, 3]` bytes as an `[n, 3, side, side]` view of the same memory order (channels last).
pub fn planes(pixels: &[u8], side: usize) -> Tensor {
    let side = side as i64;
    let n = pixels.len() as i64 / (side * side * 3);
    Tensor::from_data_size(pixels, &[n, side, side, 3], Kind::Uint8).permute([0, 3, 1, 2])
}

/// Linear warm-up, then half a cosine down to zero, at `step` and `share` (0–1) of the schedule.
#[must_use]
pub fn rate(highest: f64, warmup_steps: u64, step: u64, share: f64) -> f64 {
    let warm = ((step + 1) as f64 / warmup_steps.max(1) as f64).min(1.0);
    highest * warm * 0.5 * (1.0 + (share.clamp(0.0, 1.0) * std::f64::consts::PI).cos())
}

//! AdamW, and Muon for the convolutions, with state that can be saved.
//!
//! AdamW: Loshchilov and Hutter 2019. Muon (Jordan et al. 2024): momentum whose matrix is replaced by the nearest orthogonal one
//! (five Newton–Schulz steps), so that all directions of a weight learn at one rate; scaled by 0.2·√max(rows, columns) (Liu et
//! al. 2025) its steps have AdamW's size, so both share one learning rate and decay.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Which rule updates the weights of dense convolutions; everything else is always AdamW's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// AdamW for all.
    Adamw,
    /// Muon for dense convolutions of at least 32 rows and 64 columns.
    Muon,
}

/// The optimizer and its moments, in the order of the parameters' names.
#[derive(Debug)]
pub struct Optimizer {
    slots: Vec<Slot>,
    decay: f64,
}

#[derive(Debug)]
struct Slot {
    name: String,
    value: Tensor,
    muon: bool,
    /// Weights are pulled towards zero; scales, shifts and biases are not.
    decayed: bool,
    first: Tensor,
    second: Tensor,
}

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.99;
const MOMENTUM: f64 = 0.95;

impl Optimizer {
    /// For named parameters that require gradients; `decay` is AdamW's λ, multiplied by the learning rate.
    #[must_use]
    pub fn new(mut parameters: Vec<(String, Tensor)>, rule: Rule, decay: f64) -> Self {
        parameters.sort_by(|a, b| a.0.cmp(&b.0));
        let slots = parameters
            .into_iter()
            .map(|(name, value)| {
                let size = value.size();
                let columns: i64 = size.iter().skip(1).product();
                let muon =
                    rule == Rule::Muon && size.len() == 4 && size[0] >= 32 && size[1] >= 16 && columns >= 64;
                let second =
                    if muon { Tensor::zeros([0], (Kind::Float, value.device())) } else { value.zeros_like() };
                Slot { muon, decayed: size.len() > 1, first: value.zeros_like(), second, name, value }
            })
            .collect();
        Self { slots, decay }
    }

    /// One step; `step` counts from zero and is what the bias correction uses. Gradients are left at zero.
    pub fn step(&mut self, step: u64, rate: f64) {
        let _no_grad = tch::no_grad_guard();
        let t = (step + 1).min(1_000_000) as i32;
        let correction = ((1.0 - BETA2.powi(t)).sqrt(), 1.0 - BETA1.powi(t));
        let mut matrices = Vec::new();
        for slot in &mut self.slots {
            let mut grad = slot.value.grad();
            if !grad.defined() {
                continue;
            }
            if slot.decayed {
                let _ = slot.value.g_mul_scalar_(1.0 - rate * self.decay);
            }
            if slot.muon {
                let _ = slot.first.g_mul_scalar_(MOMENTUM);
                let _ = slot.first.g_add_(&grad);
                let look_ahead = &grad + &slot.first * MOMENTUM;
                matrices.push(look_ahead.reshape([look_ahead.size()[0], -1]));
            } else {
                let _ = slot.first.g_mul_scalar_(BETA1);
                let _ = slot.first.g_add_(&(&grad * (1.0 - BETA1)));
                let _ = slot.second.g_mul_scalar_(BETA2);
                let _ = slot.second.g_add_(&(grad.square() * (1.0 - BETA2)));
                let update =
                    &slot.first / (slot.second.sqrt() * (1.0 / correction.0) + 1e-8) * (-rate / correction.1);
                let _ = slot.value.g_add_(&update);
            }
            let _ = grad.zero_();
        }
        let with_gradient = self.slots.iter_mut().filter(|slot| slot.muon && slot.value.grad().defined());
        for (slot, update) in with_gradient.zip(orthogonal_all(matrices)) {
            let size = 0.2 * (update.size()[0].max(update.size()[1]) as f64).sqrt();
            let _ = slot.value.g_add_(&(update.reshape_as(&slot.value) * (-rate * size)));
        }
    }

    /// Moments by name, for a checkpoint: `optimizer.first.…`, `optimizer.second.…`.
    #[must_use]
    pub fn state(&self) -> Vec<(String, Tensor)> {
        self.slots
            .iter()
            .flat_map(|slot| {
                let first = (format!("optimizer.first.{}", slot.name), slot.first.shallow_clone());
                let second = (!slot.muon)
                    .then(|| (format!("optimizer.second.{}", slot.name), slot.second.shallow_clone()));
                std::iter::once(first).chain(second)
            })
            .collect()
    }

    /// Takes moments back; returns the name of one that is missing or of another shape.
    ///
    /// # Errors
    /// That name, when the state is not this optimizer's.
    pub fn restore(&mut self, state: &[(String, Tensor)]) -> Result<(), String> {
        let _no_grad = tch::no_grad_guard();
        for slot in &mut self.slots {
            let take = |prefix: &str, target: &mut Tensor| {
                let name = format!("optimizer.{prefix}.{}", slot.name);
                let found = state.iter().find(|(n, t)| *n == name && t.size() == target.size());
                found.map(|(_, t)| target.copy_(t)).ok_or(name)
            };
            take("first", &mut slot.first)?;
            if !slot.muon {
                take("second", &mut slot.second)?;
            }
        }
        Ok(())
    }
}

/// [`orthogonal`] of each, in order, on the caller's thread and one more with about half of the work each.
fn orthogonal_all(matrices: Vec<Tensor>) -> Vec<Tensor> {
    let cost = |m: &Tensor| m.numel() as i64 * m.size()[0].min(m.size()[1]);
    let total: i64 = matrices.iter().map(cost).sum();
    let (mut mine, mut other, mut sum) = (Vec::new(), Vec::new(), 0);
    for (i, matrix) in matrices.into_iter().enumerate() {
        sum += cost(&matrix);
        if sum * 2 <= total { mine.push((i, matrix)) } else { other.push((i, matrix)) }
    }
    let all = |part: Vec<(usize, Tensor)>| -> Vec<(usize, Tensor)> {
        let _no_grad = tch::no_grad_guard();
        part.into_iter().map(|(i, matrix)| (i, orthogonal(&matrix))).collect()
    };
    let helper = std::thread::spawn(move || {
        tch::set_num_threads(1);
        all(other)
    });
    let mut done = all(mine);
    match helper.join() {
        Ok(more) => done.extend(more),
        Err(panic) => std::panic::resume_unwind(panic),
    }
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, matrix)| matrix).collect()
}

/// The orthogonal matrix nearest to `matrix` (roughly: singular values end in 0.7–1.2), by the quintic Newton–Schulz iteration,
/// in bfloat16 as its authors do: the iteration corrects its own rounding.
fn orthogonal(matrix: &Tensor) -> Tensor {
    let (a, b, c) = (3.4445, -4.7750, 2.0315);
    let tall = matrix.size()[0] > matrix.size()[1];
    let mut x = if tall { matrix.tr() } else { matrix.shallow_clone() };
    x = (&x / (x.norm() + 1e-7)).to_kind(Kind::BFloat16);
    for _ in 0..5 {
        let gram = x.matmul(&x.tr());
        let polynomial = &gram * b + gram.matmul(&gram) * c;
        x = &x * a + polynomial.matmul(&x);
    }
    let x = x.to_kind(Kind::Float);
    if tall { x.tr() } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn newton_schulz_makes_all_singular_values_about_one() {
        tch::manual_seed(5);
        for size in [[64, 576], [128, 64]] {
            let x = orthogonal(&Tensor::randn(size, (Kind::Float, Device::Cpu)));
            let (_, values, _) = x.svd(true, false);
            let (low, high) = (values.min().double_value(&[]), values.max().double_value(&[]));
            assert!(low > 0.5 && high < 1.4, "{low} {high}");
        }
    }

    #[test]
    fn both_rules_find_the_minimum_of_a_bowl() {
        for rule in [Rule::Adamw, Rule::Muon] {
            tch::manual_seed(6);
            let value =
                (Tensor::randn([32, 32, 3, 3], (Kind::Float, Device::Cpu)) * 0.1).set_requires_grad(true);
            let mut optimizer = Optimizer::new(vec![("w".into(), value.shallow_clone())], rule, 0.0);
            let start = value.square().sum(Kind::Float).double_value(&[]);
            for step in 0..300 {
                value.square().sum(Kind::Float).backward();
                optimizer.step(step, 0.02 * (1.0 - step as f64 / 300.0));
            }
            let end = value.square().sum(Kind::Float).double_value(&[]);
            assert!(end < start * 1e-2, "{rule:?}: {start} -> {end}");
        }
    }
}

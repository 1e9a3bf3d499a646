//! Stochastic gradient descent with momentum and weight decay, as the papers of 2014 and 2015 train.

use tch::Tensor;

/// v ← μ·v + g + λ·w, w ← w − rate·v.
#[derive(Debug)]
pub struct Sgd {
    slots: Vec<Slot>,
    momentum: f64,
    decay: f64,
}

#[derive(Debug)]
struct Slot {
    name: String,
    value: Tensor,
    velocity: Tensor,
}

impl Sgd {
    /// For named parameters; biases are not decayed.
    #[must_use]
    pub fn new(mut parameters: Vec<(String, Tensor)>, momentum: f64, decay: f64) -> Self {
        parameters.sort_by(|a, b| a.0.cmp(&b.0));
        let slots = parameters
            .into_iter()
            .map(|(name, value)| Slot { velocity: value.zeros_like(), name, value })
            .collect();
        Self { slots, momentum, decay }
    }

    /// One step; gradients are left at zero. Parameters for which `moves` is false stand still.
    pub fn step(&mut self, rate: f64, moves: impl Fn(&str) -> bool) {
        let _no_grad = tch::no_grad_guard();
        for slot in &mut self.slots {
            let mut grad = slot.value.grad();
            if !grad.defined() {
                continue;
            }
            if moves(&slot.name) {
                let _ = slot.velocity.g_mul_scalar_(self.momentum);
                let _ = slot.velocity.g_add_(&grad);
                if self.decay > 0.0 && slot.value.dim() > 1 {
                    let _ = slot.velocity.g_add_(&(&slot.value * self.decay));
                }
                let _ = slot.value.g_add_(&(&slot.velocity * -rate));
            }
            let _ = grad.zero_();
        }
    }

    /// Velocities by name, `optimizer.velocity.…`, for a checkpoint.
    #[must_use]
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let name = |slot: &Slot| format!("optimizer.velocity.{}", slot.name);
        self.slots.iter().map(|slot| (name(slot), slot.velocity.shallow_clone())).collect()
    }

    /// Takes velocities back.
    ///
    /// # Errors
    /// The name of one that is missing or of another shape.
    pub fn restore(&mut self, state: &[(String, Tensor)]) -> Result<(), String> {
        let _no_grad = tch::no_grad_guard();
        for slot in &mut self.slots {
            let name = format!("optimizer.velocity.{}", slot.name);
            let found = state.iter().find(|(n, t)| *n == name && t.size() == slot.velocity.size());
            slot.velocity.copy_(&found.ok_or(name)?.1);
        }
        Ok(())
    }
}

/// `rate` divided by ten at each share of the schedule that has passed.
#[must_use]
pub fn stepped(rate: f64, falls: &[f64], share: f64) -> f64 {
    rate * 0.1_f64.powi(falls.iter().filter(|&&at| share >= at).count() as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn it_follows_the_formula_and_finds_the_minimum() {
        let value = Tensor::from_slice(&[1.0_f32, -2.0]).reshape([1, 2]).set_requires_grad(true);
        let mut sgd = Sgd::new(vec![("w".into(), value.shallow_clone())], 0.9, 0.5);
        value.square().sum(Kind::Float).backward();
        sgd.step(0.1, |_| true);
        // g = 2w, v = 2w + 0.5w, w ← w − 0.25w.
        assert!((value.double_value(&[0, 0]) - 0.75).abs() < 1e-6);
        value.square().sum(Kind::Float).backward();
        sgd.step(0.1, |name| name != "w");
        assert!((value.double_value(&[0, 1]) + 1.5).abs() < 1e-6);
        for _ in 0..200 {
            value.square().sum(Kind::Float).backward();
            sgd.step(0.05, |_| true);
        }
        assert!(value.abs().max().double_value(&[]) < 1e-3);
    }

    #[test]
    fn velocities_come_back_and_foreign_ones_are_named() {
        let make = || Tensor::ones([2, 2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let (a, b) = (make(), make());
        let mut first = Sgd::new(vec![("w".into(), a.shallow_clone())], 0.9, 0.0);
        a.square().sum(Kind::Float).backward();
        first.step(0.1, |_| true);
        let mut second = Sgd::new(vec![("w".into(), b)], 0.9, 0.0);
        second.restore(&first.state()).unwrap();
        assert_eq!(second.state()[0].1, first.state()[0].1);
        let mut other = Sgd::new(vec![("x".into(), make())], 0.9, 0.0);
        assert_eq!(other.restore(&first.state()).unwrap_err(), "optimizer.velocity.x");
    }

    #[test]
    fn the_rate_falls_by_ten_at_each_mark() {
        let at = |share| stepped(0.1, &[0.5, 0.8], share);
        for (share, expected) in [(0.0, 0.1), (0.49, 0.1), (0.5, 0.01), (0.9, 0.001)] {
            assert!((at(share) - expected).abs() < 1e-12);
        }
    }
}

//! AdaGrad (Duchi et al. 2011), which trained FaceNet: each weight's rate falls with the root of the sum of its squared gradients.

use tch::Tensor;

/// s ← s + g², w ← w − rate · g / (√s + ε).
#[derive(Debug)]
pub struct Adagrad {
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    name: String,
    value: Tensor,
    sum: Tensor,
}

const EPSILON: f64 = 1e-10;

impl Adagrad {
    /// For named parameters; the sums begin at `initial`. At zero the first steps move every weight by the whole rate, however small its
    /// gradient.
    #[must_use]
    pub fn new(mut parameters: Vec<(String, Tensor)>, initial: f64) -> Self {
        parameters.sort_by(|a, b| a.0.cmp(&b.0));
        let slots = parameters
            .into_iter()
            .map(|(name, value)| Slot { sum: value.detach().full_like(initial), name, value })
            .collect();
        Self { slots }
    }

    /// One step; gradients are left at zero. Parameters for which `moves` is false stand still and gather nothing.
    pub fn step(&mut self, rate: f64, moves: impl Fn(&str) -> bool) {
        let _no_grad = tch::no_grad_guard();
        for slot in &mut self.slots {
            let mut grad = slot.value.grad();
            if !grad.defined() {
                continue;
            }
            if moves(&slot.name) {
                let _ = slot.sum.addcmul_(&grad, &grad);
                let _ = slot.value.g_add_(&(&grad / (slot.sum.sqrt() + EPSILON) * -rate));
            }
            let _ = grad.zero_();
        }
    }

    /// Sums by name, `optimizer.sum.…`, for a checkpoint.
    #[must_use]
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let name = |slot: &Slot| format!("optimizer.sum.{}", slot.name);
        self.slots.iter().map(|slot| (name(slot), slot.sum.shallow_clone())).collect()
    }

    /// Takes sums back.
    ///
    /// # Errors
    /// The name of one that is missing or of another shape.
    pub fn restore(&mut self, state: &[(String, Tensor)]) -> Result<(), String> {
        let _no_grad = tch::no_grad_guard();
        for slot in &mut self.slots {
            let name = format!("optimizer.sum.{}", slot.name);
            let found = state.iter().find(|(n, t)| *n == name && t.size() == slot.sum.size());
            slot.sum.copy_(&found.ok_or(name)?.1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    fn values(x: &Tensor) -> Vec<f32> {
        Vec::try_from(x).unwrap()
    }

    #[test]
    fn steps_are_those_of_the_definition_and_survive_a_checkpoint() {
        let new = || {
            let w = Tensor::from_slice(&[1.0_f32, -2.0]).set_requires_grad(true);
            let optimizer = Adagrad::new(vec![("w".into(), w.shallow_clone())], 0.5);
            (w, optimizer)
        };
        let learn = |w: &Tensor, optimizer: &mut Adagrad| {
            (w * Tensor::from_slice(&[3.0_f32, -0.1])).sum(Kind::Float).backward();
            optimizer.step(0.1, |_| true);
        };
        let (w, mut optimizer) = new();
        learn(&w, &mut optimizer);
        learn(&w, &mut optimizer);
        let expected = |start: f64, g: f64| {
            let step = |n: f64| 0.1 * g / (0.5 + n * g * g).sqrt();
            (start - step(1.0) - step(2.0)) as f32
        };
        for (actual, expected) in values(&w).iter().zip([expected(1.0, 3.0), expected(-2.0, -0.1)]) {
            assert!((actual - expected).abs() < 1e-6, "{actual} {expected}");
        }
        let (v, mut other) = new();
        tch::no_grad(|| v.shallow_clone().copy_(&w));
        other.restore(&optimizer.state()).unwrap();
        learn(&v, &mut other);
        learn(&w, &mut optimizer);
        assert_eq!(values(&v), values(&w));
        assert_eq!(other.restore(&[]).unwrap_err(), "optimizer.sum.w");
    }

    #[test]
    fn what_does_not_move_stands_still() {
        let w = Tensor::ones([2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let mut optimizer = Adagrad::new(vec![("w".into(), w.shallow_clone())], 0.0);
        w.sum(Kind::Float).backward();
        optimizer.step(0.1, |name| name != "w");
        assert_eq!(values(&w), [1.0, 1.0]);
        assert_eq!(values(&w.grad()), [0.0, 0.0]);
    }
}

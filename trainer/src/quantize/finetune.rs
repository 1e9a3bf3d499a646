//! Fine-tuning with the rounding in place (Jacob et al. 2018, section 3, with normalization folded from the start): the forward pass
//! computes on rounded weights and values, the backward pass goes straight through the rounding, and the float weights behind it move until
//! the rounded net answers as the teacher again. Ranges and scales stay as they were calibrated.

use std::path::PathBuf;
use std::time::Instant;

use tch::Tensor;

use super::faces::chips;
use super::{Quantized, cosines, simulate};
use crate::dataset::{Source, batches::Order};
use crate::loss::distill;
use crate::train::optimizer::{Optimizer, Rule};

/// What to learn from and for how long.
#[derive(Debug)]
pub struct Tuning<'a> {
    /// Varied chips of the faces learnt from.
    pub source: &'a Source,
    /// The teacher's vectors, one for each row of the manifest, length one.
    pub teacher: &'a Tensor,
    /// Chips that decide whether anything was gained, with their teacher's vectors.
    pub check: (&'a Tensor, &'a Tensor),
    /// Steps of the whole schedule.
    pub steps: u64,
    /// Highest learning rate; half a cosine takes it to zero.
    pub rate: f64,
    /// A file whose appearance ends the schedule early.
    pub stop: Option<PathBuf>,
}

/// Mean cosine to the teacher on the check faces.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Gain {
    /// Before the first step.
    pub before: f64,
    /// Of the net returned.
    pub after: f64,
    /// Steps taken.
    pub steps: u64,
}

/// Steps between two looks at the check faces.
const LOOK_EVERY: u64 = 100;

/// Moves the weights of `quantized`; keeps the state that did best on the check faces, which may be the one it began with.
pub fn finetune(quantized: &mut Quantized, tuning: &Tuning<'_>, say: &mut dyn FnMut(u64, f64, f64)) -> Gain {
    let check = |q: &Quantized| cosines(&q.embed(tuning.check.0), tuning.check.1).mean;
    let before = check(quantized);
    let (mut best, mut best_net) = (before, quantized.net.clone());
    let tensors: Vec<(Tensor, Tensor)> = quantized
        .net
        .tensors()
        .into_iter()
        .map(|(w, b)| (w.set_requires_grad(true), b.set_requires_grad(true)))
        .collect();
    let named = tensors
        .iter()
        .enumerate()
        .flat_map(|(i, (w, b))| {
            [(format!("{i:03}.w"), w.shallow_clone()), (format!("{i:03}.b"), b.shallow_clone())]
        })
        .collect();
    let mut optimizer = Optimizer::new(named, Rule::Adamw, 0.0);
    let (mut order, mut step, mut losses) = (Order::default(), 0, (0.0, 0.0));
    let begun = Instant::now();
    while step < tuning.steps && !tuning.stop.as_ref().is_some_and(|path| path.exists()) {
        let batch = tuning.source.batch(&mut order, step, facelatch_shared::align::CHIP_PX);
        let rows: Vec<i64> = batch.rows.iter().map(|&r| i64::from(r)).collect();
        let target = tuning.teacher.index_select(0, &Tensor::from_slice(&rows));
        let out = simulate::embed(
            &quantized.net,
            &quantized.plan,
            &quantized.scales,
            &tensors,
            &chips(&batch.pixels),
        );
        let loss = distill::cosine(&out, &target);
        loss.backward();
        let share = step as f64 / tuning.steps as f64;
        let rate = tuning.rate * 0.5 * (1.0 + (share * std::f64::consts::PI).cos());
        optimizer.step(step, rate);
        losses = (losses.0 + loss.double_value(&[]), losses.1 + 1.0);
        step += 1;
        if step % LOOK_EVERY == 0 || step == tuning.steps {
            quantized.net.set_tensors(&tensors);
            let now = check(quantized);
            if now > best {
                (best, best_net) = (now, quantized.net.clone());
            }
            say(step, losses.0 / losses.1, now);
            losses = (0.0, 0.0);
        }
    }
    tracing::debug!(seconds = begun.elapsed().as_secs_f64(), steps = step, "fine-tuned");
    quantized.net = best_net;
    Gain { before, after: best, steps: step }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::net::tests::{chips as pictures, small};
    use super::super::{Net, Settings, embed_float, quantize};
    use super::*;
    use crate::dataset::Augment;
    use crate::dataset::shards::{CANVAS_BYTES, CANVAS_PX, Canvases};

    #[test]
    fn a_rounded_net_learns_back_what_rounding_cost() {
        let (store, _, shape) = small();
        let net = Net::fold(&store, &shape).unwrap();
        // Canvases with the test pictures in their middle.
        let n = 16;
        let faces = pictures(n).round().to_kind(tch::Kind::Uint8);
        let bytes: Vec<u8> = Vec::try_from(faces.permute([0, 2, 3, 1]).contiguous().flatten(0, -1)).unwrap();
        let mut pixels = vec![0; n as usize * CANVAS_BYTES];
        for (face, chip) in bytes.chunks(112 * 112 * 3).enumerate() {
            for (y, line) in chip.chunks(112 * 3).enumerate() {
                let at = face * CANVAS_BYTES + ((y + 8) * CANVAS_PX + 8) * 3;
                pixels[at..at + line.len()].copy_from_slice(line);
            }
        }
        let chips = chips(&bytes);
        let teacher = distill::unit(&embed_float(&net, &chips));
        let (mut quantized, _) = quantize(&net, &chips, &chips, &Settings::default()).unwrap();
        // Coarse weights, as if four bits were all.
        for scale in &mut quantized.scales {
            *scale *= 16.0;
        }
        let source = Source {
            canvases: Arc::new(Canvases::from_pixels(pixels)),
            rows: Arc::new((0..n as u32).collect()),
            augment: Augment::none(),
            batch: 8,
            seed: 1,
        };
        let tuning = Tuning {
            source: &source,
            teacher: &teacher,
            check: (&chips, &teacher),
            steps: 60,
            rate: 2e-3,
            stop: None,
        };
        let gain = finetune(&mut quantized, &tuning, &mut |_, _, _| {});
        assert!(gain.after > gain.before + 0.1 * (1.0 - gain.before), "{gain:?}");
        let now = cosines(&quantized.embed(&chips), &teacher).mean;
        assert!((now - gain.after).abs() < 1e-9);
    }
}

//! Copies of the net on threads of their own, each with one part of the batch.
//!
//! libtorch's own threads meet after every layer; on a machine that also does other work each meeting waits for the slowest.
//! Copies meet once a step. They share the storage of the weights with the first net; batch statistics are taken over
//! their own part ("ghost" batches, Hoffer et al. 2017), and only the first net's running statistics are kept.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use tch::{Device, Tensor, nn::VarStore};

use crate::model::compact::{Compact, Shape};
use crate::model::layers::Mode;

/// One part of a batch: chips, the teacher's vectors, and how to compute.
#[derive(Debug)]
pub struct Part {
    /// `[part, 3, side, side]`.
    pub chips: Tensor,
    /// `[part, dim]`.
    pub target: Tensor,
    /// Train or not, precision.
    pub mode: Mode,
    /// Weight of the relational term.
    pub relational: f64,
    /// The part's share of the batch.
    pub share: f64,
}

impl Part {
    /// Forward and backward; gradients are added to the net's. Returns the mean cosine loss of the part.
    #[must_use]
    pub fn learn(&self, net: &Compact) -> f64 {
        let out = net.forward(&self.chips, self.mode);
        let cosine = crate::loss::distill::cosine(&out, &self.target);
        let loss = if self.relational > 0.0 {
            &cosine + crate::loss::distill::relational(&out, &self.target) * self.relational
        } else {
            cosine.shallow_clone()
        };
        (loss * self.share).backward();
        cosine.double_value(&[])
    }
}

/// A copy of the net on its own thread.
#[derive(Debug)]
pub struct Replica {
    parts: Option<Sender<Part>>,
    losses: Receiver<f64>,
    /// (the first net's parameter, this copy's), same storage, gradients apart.
    pairs: Vec<(Tensor, Tensor)>,
    thread: Option<JoinHandle<()>>,
}

impl Replica {
    /// Starts a copy of the net whose parameters are in `first`.
    #[must_use]
    pub fn start(first: &VarStore, shape: &Shape, device: Device) -> Self {
        let store = VarStore::new(device);
        let net = Compact::new(&store.root(), shape);
        let originals = first.variables();
        let mut pairs = Vec::new();
        for (name, mut copy) in store.variables() {
            if let Some(original) = originals.get(&name).filter(|t| t.requires_grad()) {
                copy.set_data(&original.detach());
                pairs.push((original.shallow_clone(), copy));
            }
        }
        let (parts, work) = channel::<Part>();
        let (done, losses) = channel();
        let thread = std::thread::spawn(move || {
            tch::set_num_threads(1);
            for part in work {
                if done.send(part.learn(&net)).is_err() {
                    return;
                }
            }
        });
        Self { parts: Some(parts), losses, pairs, thread: Some(thread) }
    }

    /// Starts on a part.
    pub fn learn(&self, part: Part) {
        if let Some(parts) = &self.parts {
            // A thread that has gone shows in `finish`.
            let _ = parts.send(part);
        }
    }

    /// Waits for the part, adds its gradients to the first net's and clears them. `None` when the thread has died.
    pub fn finish(&self) -> Option<f64> {
        let loss = self.losses.recv().ok()?;
        let _no_grad = tch::no_grad_guard();
        for (original, copy) in &self.pairs {
            let mut gradient = copy.grad();
            if gradient.defined() {
                let _ = original.grad().g_add_(&gradient);
                let _ = gradient.zero_();
            }
        }
        Some(loss)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.parts = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

//! Copies of the net on threads of their own, each with one part of the batch.
//!
//! libtorch's own threads meet after every layer; on a machine that also does other work each meeting waits for the slowest.
//! Copies meet once a step. They share the storage of the weights with the first net; batch statistics are taken over
//! their own part ("ghost" batches, Hoffer et al. 2017), and only the first net's running statistics are kept.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use tch::nn::{Path, VarStore};
use tch::{Device, Tensor};

/// A copy of the net on its own thread.
#[derive(Debug)]
pub struct Replica<P> {
    parts: Option<Sender<P>>,
    losses: Receiver<f64>,
    /// (the first net's parameter, this copy's), same storage, gradients apart.
    pairs: Vec<(Tensor, Tensor)>,
    thread: Option<JoinHandle<()>>,
}

impl<P: Send + 'static> Replica<P> {
    /// Starts a copy, made by `build`, of the net whose parameters are in `first`. `learn` goes forward and backward through
    /// it with one part of a batch, weighs the gradients by the part's share, and returns the loss.
    #[must_use]
    pub fn start<N: Send + 'static>(
        first: &VarStore,
        device: Device,
        build: impl Fn(&Path<'_>) -> N,
        learn: impl Fn(&N, P) -> f64 + Send + 'static,
    ) -> Self {
        let store = VarStore::new(device);
        let net = build(&store.root());
        let originals = first.variables();
        let mut pairs = Vec::new();
        for (name, mut copy) in store.variables() {
            if let Some(original) = originals.get(&name).filter(|t| t.requires_grad()) {
                copy.set_data(&original.detach());
                pairs.push((original.shallow_clone(), copy));
            }
        }
        let (parts, work) = channel::<P>();
        let (done, losses) = channel();
        let thread = std::thread::spawn(move || {
            tch::set_num_threads(1);
            for part in work {
                if done.send(learn(&net, part)).is_err() {
                    return;
                }
            }
        });
        Self { parts: Some(parts), losses, pairs, thread: Some(thread) }
    }

    /// Starts on a part.
    pub fn learn(&self, part: P) {
        if let Some(parts) = &self.parts {
            // A thread that has gone shows in `finish`.
            let _ = parts.send(part);
        }
    }

    /// Waits for the part, adds its gradients to the first net's and clears them. `None` when the thread has died.
    #[must_use]
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

impl<P> Drop for Replica<P> {
    fn drop(&mut self) {
        self.parts = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

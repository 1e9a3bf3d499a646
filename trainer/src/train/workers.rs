//! Batches made on worker threads and handed over in the order of the steps.
//!
//! Each worker has a maker of its own and takes every n-th request, so no order is ever guessed. At most as many batches
//! exist as were asked for.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::At;

/// Makes the batch of a step: a pure function of the settings, the step and the share of the schedule.
pub type Maker<B> = Box<dyn FnMut(At) -> B + Send>;

/// Worker threads that answer requests in order.
#[derive(Debug)]
pub struct Workers<B> {
    workers: Vec<Worker<B>>,
    asked: usize,
    taken: usize,
}

#[derive(Debug)]
struct Worker<B> {
    requests: Option<Sender<At>>,
    batches: Receiver<B>,
    thread: Option<JoinHandle<()>>,
}

impl<B: Send + 'static> Workers<B> {
    /// Starts one thread for each maker; there must be at least one.
    #[must_use]
    pub fn start(makers: Vec<Maker<B>>) -> Self {
        let workers = makers
            .into_iter()
            .map(|mut make| {
                let (requests, asked) = channel();
                let (made, batches) = channel();
                let thread = std::thread::spawn(move || {
                    for at in asked {
                        if made.send(make(at)).is_err() {
                            return;
                        }
                    }
                });
                Worker { requests: Some(requests), batches, thread: Some(thread) }
            })
            .collect();
        Self { workers, asked: 0, taken: 0 }
    }

    /// Asks for a batch. Ask a few steps ahead of [`Self::take`].
    pub fn request(&mut self, at: At) {
        let turn = self.asked % self.workers.len();
        if let Some(requests) = &self.workers[turn].requests {
            // A worker that has gone shows in `take`.
            let _ = requests.send(at);
        }
        self.asked += 1;
    }

    /// The next batch asked for, or `None` when its worker has ended.
    pub fn take(&mut self) -> Option<B> {
        let turn = self.taken % self.workers.len();
        self.taken += 1;
        self.workers[turn].batches.recv().ok()
    }
}

impl<B> Drop for Workers<B> {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            worker.requests = None;
        }
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take() {
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_come_in_the_order_of_the_requests_from_any_number_of_workers() {
        for threads in 1..4 {
            let maker = |_| -> Maker<u64> {
                Box::new(|at: At| {
                    // The first of each pair takes longest.
                    std::thread::sleep(std::time::Duration::from_millis(5 * (at.step % 2)));
                    at.step * 10
                })
            };
            let mut workers = Workers::start((0..threads).map(maker).collect());
            for step in 0..9 {
                workers.request(At { step, share: 0.0 });
            }
            let made: Vec<u64> = (0..9).map(|_| workers.take().unwrap()).collect();
            assert_eq!(made, (0..9).map(|s| s * 10).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_worker_that_panics_ends_its_batches() {
        let mut workers: Workers<u64> = Workers::start(vec![Box::new(|_| panic!("on purpose"))]);
        workers.request(At { step: 0, share: 0.0 });
        assert_eq!(workers.take(), None);
    }
}

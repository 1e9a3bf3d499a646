//! Edges on GPIO lines as the kernel reports them, with its own time stamps: one thread waits for all lines at once and wakes the session.
//!
//! A press is timed by the interrupt, not by whoever looks at the line next; what happens while the session draws a picture is not lost. A chip
//! without interrupts refuses such a request, and the line is read instead.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use facelatch_shared::time::Millis;
use linux_embedded_hal::gpio_cdev::{EventType, LineEventHandle};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};

use crate::clock::Clock;

/// One edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edge {
    /// Which of the watched lines, in their order.
    pub line: usize,
    /// The level after it.
    pub high: bool,
    /// When, by the door's clock.
    pub at: Millis,
}

/// Called when an edge came.
pub type Waker = Box<dyn Fn() + Send>;

/// What the watching thread and the reader share.
#[derive(Default)]
pub(super) struct Edges {
    seen: Mutex<Vec<Edge>>,
    waker: Mutex<Option<Waker>>,
    stop: AtomicBool,
}

impl Edges {
    /// Everything since the last call, oldest first.
    pub(super) fn take(&self) -> Vec<Edge> {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether nothing waits to be taken.
    pub(super) fn is_empty(&self) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    pub(super) fn wake_with(&self, waker: Waker) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker);
    }

    pub(super) fn add(&self, edge: Edge) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // A line that oscillates while nobody reads must not fill the memory: the newest edges tell the level.
        if seen.len() >= MOST_EDGES {
            seen.remove(0);
        }
        seen.push(edge);
        drop(seen);
        if let Some(wake) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner) {
            wake();
        }
    }
}

/// The thread that watches. Dropping it frees the lines.
pub(super) struct Watch {
    edges: Arc<Edges>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches `lines`.
    pub(super) fn start(
        lines: Vec<LineEventHandle>,
        edges: Arc<Edges>,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<Self> {
        let shared = Arc::clone(&edges);
        let thread = std::thread::Builder::new()
            .name("inputs".into())
            .spawn(move || watch(lines, &shared, &*clock))?;
        Ok(Self { edges, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.edges.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // It looks at the flag several times a second.
            let _ = thread.join();
        }
    }
}

fn watch(mut lines: Vec<LineEventHandle>, edges: &Edges, clock: &dyn Clock) {
    while !edges.stop.load(Ordering::SeqCst) {
        let ready: Vec<bool> = {
            let mut fds: Vec<PollFd<'_>> =
                lines.iter().map(|line| PollFd::new(line, PollFlags::IN)).collect();
            match poll(&mut fds, Some(&PATIENCE)) {
                Ok(0) | Err(_) => continue,
                Ok(_) => fds.iter().map(|fd| fd.revents().contains(PollFlags::IN)).collect(),
            }
        };
        for (line, handle) in lines.iter_mut().enumerate().filter(|(line, _)| ready[*line]) {
            // One event is there, so this does not block.
            let Ok(event) = handle.get_event() else { continue };
            let high = event.event_type() == EventType::RisingEdge;
            edges.add(Edge { line, high, at: door_time(event.timestamp(), clock) });
        }
    }
}

/// The door's time of a kernel's time stamp in nanoseconds. Kernels before 5.7 stamp with the wall clock: those edges count as just now.
fn door_time(stamp_ns: u64, clock: &dyn Clock) -> Millis {
    let now = clock_gettime(ClockId::Monotonic);
    let now_ns = (now.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(now.tv_nsec as u64);
    let age_ms = now_ns.checked_sub(stamp_ns).map_or(0, |age| age / 1_000_000);
    let age_ms = if age_ms > MOST_AGE_MS { 0 } else { age_ms };
    Millis(clock.now().0.saturating_sub(age_ms))
}

/// How long the thread waits before it looks whether it is to end.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// Edges kept for a reader who does not come.
const MOST_EDGES: usize = 256;
/// An edge is reported within this time, or its stamp is of another clock.
const MOST_AGE_MS: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    #[test]
    fn a_stamp_becomes_the_doors_time_and_one_of_another_clock_is_now() {
        let clock = SystemClock::new();
        std::thread::sleep(std::time::Duration::from_millis(30));
        let now = clock_gettime(ClockId::Monotonic);
        let now_ns = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
        let ago = door_time(now_ns - 20_000_000, &clock);
        assert!(ago.0 + 20 <= clock.now().0, "{ago:?}");
        let wall = door_time(1_800_000_000_000_000_000, &clock);
        assert!(wall.0 > ago.0);
    }

    #[test]
    fn edges_wait_in_order_bounded_and_wake_whoever_asked() {
        let edges = Edges::default();
        let woken = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&woken);
        edges.wake_with(Box::new(move || flag.store(true, Ordering::SeqCst)));
        for at in 0..300 {
            edges.add(Edge { line: 0, high: at % 2 == 0, at: Millis(at) });
        }
        assert!(woken.load(Ordering::SeqCst) && !edges.is_empty());
        let seen = edges.take();
        assert_eq!((seen.len(), seen[0].at, seen[255].at), (MOST_EDGES, Millis(44), Millis(299)));
        assert!(edges.is_empty());
    }
}

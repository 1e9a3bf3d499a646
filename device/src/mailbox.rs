//! The newest item only, from one thread to another: a slow consumer misses frames and learns how many, and nothing queues up.
//!
//! Three items exist: the producer's, the one in the box, the consumer's. Handing over swaps them, so that their buffers are
//! reused and nothing is allocated once each has grown to its size.

use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;

/// An empty box, and its two ends.
#[must_use]
pub fn mailbox<T: Default>() -> (Producer<T>, Consumer<T>) {
    let shared = Arc::new(Shared { slot: Mutex::new(Slot::default()), filled: Condvar::new() });
    (Producer { shared: Arc::clone(&shared) }, Consumer { shared })
}

/// The end that puts items in. Dropping it closes the box.
#[derive(Debug)]
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Producer<T> {
    /// Puts `item` in the box and gives back an old item's buffers in its place. An item that nobody fetched is replaced and
    /// counted. Never blocks longer than a swap.
    ///
    /// # Errors
    /// [`Closed`] when the consumer is gone; `item` is left as it is.
    pub fn publish(&mut self, item: &mut T) -> Result<(), Closed> {
        let mut slot = self.shared.lock();
        if slot.closed {
            return Err(Closed);
        }
        mem::swap(&mut slot.item, item);
        slot.dropped += u64::from(slot.full);
        slot.full = true;
        drop(slot);
        self.shared.filled.notify_one();
        Ok(())
    }

    /// Whether the consumer is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.lock().closed
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// The end that takes items out. Dropping it closes the box.
#[derive(Debug)]
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Consumer<T> {
    /// Waits up to `timeout` for an item and swaps it with `item`, whose buffers go back to the producer. An item that was in the
    /// box when it was closed is still given.
    ///
    /// # Errors
    /// [`TakeError`]; `item` is left as it is.
    pub fn take(&mut self, item: &mut T, timeout: Duration) -> Result<(), TakeError> {
        let empty = |slot: &mut Slot<T>| !slot.full && !slot.closed;
        let (mut slot, _) = self
            .shared
            .filled
            .wait_timeout_while(self.shared.lock(), timeout, empty)
            .unwrap_or_else(PoisonError::into_inner);
        if !slot.full {
            return Err(if slot.closed { TakeError::Closed } else { TakeError::Empty });
        }
        mem::swap(&mut slot.item, item);
        slot.full = false;
        Ok(())
    }

    /// Items that were replaced before anyone fetched them, since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.lock().dropped
    }

    /// Closes the box from a third place, to stop both threads.
    #[must_use]
    pub fn closer(&self) -> Closer
    where
        T: Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        Closer { close: Box::new(move || shared.close()) }
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// Closes a mailbox; see [`Consumer::closer`].
pub struct Closer {
    close: Box<dyn Fn() + Send + Sync>,
}

impl Closer {
    /// Wakes a waiting consumer and makes the producer's next publication fail. Safe to repeat.
    pub fn close(&self) {
        (self.close)();
    }
}

impl std::fmt::Debug for Closer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Closer")
    }
}

/// The other end is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the other end of the mailbox is closed")]
pub struct Closed;

/// Why nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TakeError {
    /// Nothing came in time.
    #[error("nothing came within the time-out")]
    Empty,
    /// The box is empty and nothing will come.
    #[error("the mailbox is closed")]
    Closed,
}

#[derive(Debug)]
struct Shared<T> {
    slot: Mutex<Slot<T>>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct Slot<T> {
    item: T,
    full: bool,
    closed: bool,
    dropped: u64,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Slot<T>> {
        // Only swaps and plain stores happen under the lock: none can panic halfway.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::thread;

    use super::*;
    use crate::camera::RawFrame;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn only_the_newest_is_kept_and_the_others_are_counted() {
        let (mut producer, mut consumer) = mailbox::<u32>();
        let mut got = 0;
        assert_eq!(consumer.take(&mut got, Duration::ZERO), Err(TakeError::Empty));
        for value in [1, 2, 3] {
            producer.publish(&mut { value }).unwrap();
        }
        consumer.take(&mut got, Duration::ZERO).unwrap();
        assert_eq!((got, consumer.dropped()), (3, 2));
        assert_eq!(consumer.take(&mut got, Duration::ZERO), Err(TakeError::Empty));
        producer.publish(&mut 4).unwrap();
        consumer.take(&mut got, Duration::ZERO).unwrap();
        assert_eq!((got, consumer.dropped()), (4, 2));
    }

    #[test]
    fn three_buffers_serve_any_number_of_frames() {
        let (mut producer, mut consumer) = mailbox::<RawFrame>();
        let (mut writing, mut reading) = (RawFrame::default(), RawFrame::default());
        let mut buffers = BTreeSet::new();
        for seq in 1..=1_000 {
            writing.seq = seq;
            writing.bytes.clear();
            writing.bytes.resize(4_096, 0);
            buffers.insert(writing.bytes.as_ptr() as usize);
            producer.publish(&mut writing).unwrap();
            if seq % 3 != 0 {
                consumer.take(&mut reading, Duration::ZERO).unwrap();
                assert_eq!(reading.seq, seq);
            }
        }
        // The first round grows each of the three; none is allocated after that.
        assert_eq!(buffers.len(), 3);
        assert_eq!(consumer.dropped(), 333);
    }

    #[test]
    fn frames_arrive_in_order_and_every_one_is_taken_or_counted() {
        const FRAMES: u64 = 20_000;
        let (mut producer, mut consumer) = mailbox::<RawFrame>();
        let capture = thread::spawn(move || {
            let mut frame = RawFrame::default();
            for seq in 1..=FRAMES {
                frame.seq = seq;
                frame.bytes.clear();
                frame.bytes.extend_from_slice(&seq.to_le_bytes());
                producer.publish(&mut frame).unwrap();
            }
        });
        let mut frame = RawFrame::default();
        let (mut taken, mut last) = (0, 0);
        while consumer.take(&mut frame, LONG).is_ok() {
            assert!(frame.seq > last && frame.bytes == frame.seq.to_le_bytes());
            last = frame.seq;
            taken += 1;
        }
        capture.join().unwrap();
        assert_eq!((last, taken + consumer.dropped()), (FRAMES, FRAMES));
    }

    #[test]
    fn closing_either_end_wakes_or_refuses_the_other() {
        let (producer, mut consumer) = mailbox::<u32>();
        let waiting = thread::spawn(move || consumer.take(&mut 0, LONG));
        drop(producer);
        assert_eq!(waiting.join().unwrap(), Err(TakeError::Closed));

        let (mut producer, consumer) = mailbox::<u32>();
        drop(consumer);
        assert!(producer.is_closed());
        let mut kept = 5;
        assert_eq!((producer.publish(&mut kept), kept), (Err(Closed), 5));

        let (mut producer, mut consumer) = mailbox::<u32>();
        let closer = consumer.closer();
        let waiting = thread::spawn(move || (consumer.take(&mut 0, LONG), consumer));
        closer.close();
        let (outcome, _consumer) = waiting.join().unwrap();
        assert_eq!(outcome, Err(TakeError::Closed));
        assert_eq!(producer.publish(&mut 1), Err(Closed));
    }

    #[test]
    fn the_last_item_outlives_its_producer() {
        let (mut producer, mut consumer) = mailbox::<u32>();
        producer.publish(&mut 9).unwrap();
        drop(producer);
        let mut got = 0;
        consumer.take(&mut got, LONG).unwrap();
        assert_eq!(got, 9);
        assert_eq!(consumer.take(&mut got, LONG), Err(TakeError::Closed));
    }
}

//! Liveness without training data: the panel asks for a small head turn, and what moves before the camera must be a turning head.
//!
//! A print or a screen carries its points on one surface. Seen from elsewhere they move by a homography when it is flat, and nearly by a
//! quadratic map when it is bent; a head's points move by their depth as well: the nose against the cheeks, the lips against the chin.
//! `motion` measures both on the fiducials of two moments, with the depth of the generic 3D face
//! ([`shape`](crate::align::shape)); [`Challenge`] decides over the frames of one track. Nothing here is learnt.
//!
//! It does not stop masks, nor a video of the person turning the head the way that happens to be asked for.

mod motion;
pub mod synthetic;

use heapless::Deque;

use crate::align::Fiducials68;
pub use motion::{Motion, compare};
use motion::{Normal, mean};

/// The way a head is turned, as the person sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Turn {
    /// To the person's own left.
    Left,
    /// To the person's own right.
    Right,
}

impl Turn {
    /// The other way.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }
}

/// What the frames so far say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing yet.
    Watching,
    /// A head turned as asked.
    Turned,
    /// A head turned the other way.
    WrongWay,
    /// Something turned, and it was no head.
    NotAHead,
}

/// A head turn that was asked for.
#[derive(Clone, Debug)]
pub struct Challenge {
    /// 1 when the asked turn moves the nose to the viewer's right in the picture, −1 for the left.
    sign: f32,
    reference: Option<Normal>,
    recent: Deque<Normal, WINDOW>,
    /// Windows in a row that say the same.
    said: Progress,
    times: u8,
}

impl Challenge {
    /// Asks for `asked`. `mirrored` when the camera's picture is a mirror image.
    #[must_use]
    pub const fn new(asked: Turn, mirrored: bool) -> Self {
        // A person who turns to the own left turns to the right of whoever looks.
        let to_viewers_right = matches!(asked, Turn::Left) != mirrored;
        Self {
            sign: if to_viewers_right { 1.0 } else { -1.0 },
            reference: None,
            recent: Deque::new(),
            said: Progress::Watching,
            times: 0,
        }
    }

    /// Adds a frame of the same face. The first ones say where the turn starts; points that are no face are passed over.
    pub fn observe(&mut self, fiducials: &Fiducials68) -> Progress {
        let Some(normal) = Normal::of(fiducials) else { return Progress::Watching };
        if self.recent.is_full() {
            self.recent.pop_front();
        }
        // There is room.
        let _ = self.recent.push_back(normal);
        if !self.recent.is_full() {
            return Progress::Watching;
        }
        let now = mean(self.recent.iter());
        let Some(reference) = &self.reference else {
            self.reference = Some(now);
            self.recent.clear();
            return Progress::Watching;
        };
        let says = motion::between(reference, &now).map_or(Progress::Watching, |motion| self.judge(&motion));
        self.times = if says == self.said { self.times.saturating_add(1) } else { 1 };
        self.said = says;
        if self.times >= AGREEING { says } else { Progress::Watching }
    }

    /// Whether the frames so far have set where the turn starts.
    #[must_use]
    pub const fn has_begun(&self) -> bool {
        self.reference.is_some()
    }

    fn judge(&self, motion: &Motion) -> Progress {
        let (turn, relief) = (motion.turn * self.sign, motion.relief * self.sign);
        let is_head = motion.plane_over_head >= MIN_RATIO;
        if is_head && turn >= MIN_TURN && relief >= MIN_RELIEF {
            Progress::Turned
        } else if is_head && turn <= -MIN_TURN && relief <= -MIN_RELIEF {
            Progress::WrongWay
        } else if motion.deformation >= MAX_FLAT_DEFORMATION && motion.relief_any < MAX_FLAT_RELIEF {
            Progress::NotAHead
        } else {
            Progress::Watching
        }
    }
}

/// Frames averaged, for the start and for each moment after it.
const WINDOW: usize = 4;
/// Moments in a row that must agree.
const AGREEING: u8 = 2;
/// Least turn: the sine of about 10°, in depths of the generic face.
const MIN_TURN: f32 = 0.18;
/// Least share of it that no bent sheet explains.
const MIN_RELIEF: f32 = 0.14;
/// What the best homography leaves unexplained, over what the turning head leaves.
const MIN_RATIO: f32 = 1.2;
/// A picture stretched by so much is turned by about 25°...
const MAX_FLAT_DEFORMATION: f32 = 0.1;
/// ...and a head's depth would have moved by far more than this.
const MAX_FLAT_RELIEF: f32 = 0.06;

#[cfg(test)]
mod tests;

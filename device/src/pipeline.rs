//! The whole path of one frame, in order:
//!
//! ```text
//! camera ─ decode ─ detect ─ track ─ quality ─ align ─ embed ─┬─ match ─ decide ─ actuate ─ show ─ log
//!          └──────────────────── see ───────────────────────┘ └──────────── Door::attend ───────────┘
//!                          vision thread                                  session thread
//! ```
//!
//! [`see`] turns a camera's bytes into an [`Observation`]; [`look_up`] holds the observation against the gallery;
//! [`Door::attend`](crate::door::Door::attend) lets the session decide and does what it says. The door, the demo and the tests run this code and no other.

use std::time::Instant;

use facelatch_shared::embedding::{ModelBinding, Template};
use facelatch_shared::gallery::MatchReport;
use facelatch_shared::observation::Observation;
use facelatch_shared::quality::Unusable;
use facelatch_shared::vision::{Eyes, VisionError};
use thiserror::Error;

use crate::camera::RawFrame;
use crate::decode::{DecodeError, Decoder};
use crate::display::Preview;
use crate::people::People;
use crate::session::{Known, Matched, Sighting};

/// Camera bytes in, observation out: decode, detect, track, quality, align, embed. Buffers are reused from frame to frame.
///
/// # Errors
/// [`SeeError`]: the frame is skipped, the next one may be fine.
pub fn see(frame: &RawFrame, decoder: &mut Decoder, eyes: &mut Eyes) -> Result<Observation, SeeError> {
    see_and_show(frame, decoder, eyes, false).map(|(observation, _)| observation)
}

/// The same, with a small copy of the picture where one is `wanted`.
///
/// # Errors
/// As [`see`].
pub fn see_and_show(
    frame: &RawFrame,
    decoder: &mut Decoder,
    eyes: &mut Eyes,
    wanted: bool,
) -> Result<(Observation, Option<Preview>), SeeError> {
    let start = Instant::now();
    let picture = decoder.decode(frame)?;
    let decode_us = micros_since(start);
    let mut observation = eyes.observe(&picture, frame.seq, frame.at)?;
    observation.timings.decode_us = decode_us;
    let preview = wanted.then(|| Preview::of(&picture, &observation));
    Ok((observation, preview))
}

/// Holds an observation against the gallery: who is it, and how clearly?
#[must_use]
pub fn look_up(observation: &mut Observation, people: &People, binding: ModelBinding) -> LookedUp {
    let probe = match &observation.attended {
        Ok(probe) => probe,
        Err(reason) => return LookedUp { sighting: Sighting::Unusable(*reason), report: None },
    };
    let start = Instant::now();
    let template = Template::quantize(&probe.embedding);
    let report = people.identify(&template, binding).ok();
    let who = report
        .and_then(|report| report.best)
        .and_then(|best| people.get(best.subject))
        .map(|person| Known { name: person.name, state: person.state, rights: person.rights });
    observation.timings.match_us = micros_since(start);
    LookedUp {
        sighting: Sighting::Probe(Matched {
            track: probe.track,
            template,
            report,
            who,
            fiducials: probe.fiducials,
            landmarks: probe.detection.landmarks,
            quality: probe.quality,
        }),
        report,
    }
}

/// What [`look_up`] found: the session's input, and the bare scores for whoever watches.
#[derive(Debug)]
pub struct LookedUp {
    /// For the session.
    pub sighting: Sighting,
    /// Best and second best; `None` without a probe, or when the gallery belongs to another model.
    pub report: Option<MatchReport>,
}

impl LookedUp {
    /// Why there was no probe.
    #[must_use]
    pub const fn unusable(&self) -> Option<Unusable> {
        match self.sighting {
            Sighting::Unusable(reason) => Some(reason),
            Sighting::Probe(_) => None,
        }
    }
}

fn micros_since(start: Instant) -> u32 {
    u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX)
}

/// Why a frame gave no observation.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SeeError {
    /// The camera's bytes are no picture.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A model failed on it.
    #[error(transparent)]
    Vision(#[from] VisionError),
}

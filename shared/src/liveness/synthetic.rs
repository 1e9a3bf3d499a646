//! Heads that turn and prints that are moved, as fiducials: for tests, and for the rates that are told.
//!
//! A head is the generic face deformed along its modes and spreads, so that each is another person's; a print is the picture of such a
//! head, flat or bent on a cylinder. Both are seen in perspective at arm's length, wander, tilt and come nearer as a hand or a
//! standing person does, and each point of each frame is off by noise.

use super::{Challenge, Progress, Turn};
use crate::align::Fiducials68;
use crate::align::fiducials::FIDUCIALS;
use crate::align::shape::{self, MODES};
use crate::detection::Point;

/// What moves before the camera.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A head turned by so many degrees, to the person's own left when positive.
    Head {
        /// Degrees.
        turn_deg: f32,
    },
    /// A flat print or screen, turned likewise.
    Print {
        /// Degrees.
        turn_deg: f32,
        /// Degrees by which it is tipped towards the camera meanwhile.
        tip_deg: f32,
    },
    /// A print bent on a cylinder of this radius in eye distances, axis upright, turned.
    Bent {
        /// Eye distances.
        radius: f32,
        /// Degrees.
        turn_deg: f32,
    },
    /// A print that is flat at first and bent while it is turned.
    Flexed {
        /// Eye distances, at the end.
        radius: f32,
        /// Degrees.
        turn_deg: f32,
    },
}

/// How often each outcome came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Sequences tried.
    pub tried: u32,
    /// Taken for a head turned as asked.
    pub turned: u32,
    /// Taken for a head turned the other way.
    pub wrong_way: u32,
    /// Found to be no head.
    pub not_a_head: u32,
}

impl Rates {
    /// Sequences that decided nothing within their time: refused as not turned.
    #[must_use]
    pub const fn undecided(&self) -> u32 {
        self.tried - self.turned - self.wrong_way - self.not_a_head
    }
}

/// Plays `tried` sequences of `kind` against a challenge that asks for a turn to the left. `noise` is the standard deviation of each
/// coordinate of each point, in eye distances.
#[must_use]
pub fn rates(kind: Kind, noise: f32, tried: u32) -> Rates {
    let mut rates = Rates { tried, ..Rates::default() };
    for seed in 0..tried {
        match play(kind, noise, seed) {
            Progress::Turned => rates.turned += 1,
            Progress::WrongWay => rates.wrong_way += 1,
            Progress::NotAHead => rates.not_a_head += 1,
            Progress::Watching => {}
        }
    }
    rates
}

/// What a challenge to the left says of one sequence.
#[must_use]
pub fn play(kind: Kind, noise: f32, seed: u32) -> Progress {
    let mut challenge = Challenge::new(Turn::Left, false);
    Sequence::new(kind, noise, seed)
        .map(|frame| challenge.observe(&frame))
        .find(|progress| *progress != Progress::Watching)
        .unwrap_or(Progress::Watching)
}

/// The frames of one attempt: four seconds at ten frames a second, of which the turn takes one.
#[derive(Clone, Debug)]
pub struct Sequence {
    kind: Kind,
    noise: f32,
    random: Random,
    /// The face in three dimensions, or as it is printed: x, y, and z for a head. In eye distances round its middle.
    body: [[f32; 3]; FIDUCIALS],
    start: Stance,
    end: Stance,
    frame: u32,
}

#[derive(Clone, Copy, Debug)]
struct Stance {
    yaw: f32,
    pitch: f32,
    roll: f32,
    scale: f32,
    at: [f32; 2],
    /// One over the radius of the cylinder; 0 is flat.
    curvature: f32,
}

impl Sequence {
    /// A sequence that is the same for the same arguments.
    #[must_use]
    pub fn new(kind: Kind, noise: f32, seed: u32) -> Self {
        let mut random = Random::new(seed);
        let mut body = person(&mut random);
        let mut stance = |yaw_deg: f32, tip_deg: f32, curvature| Stance {
            yaw: (yaw_deg + 2.0 * random.normal()).to_radians(),
            pitch: (tip_deg + 3.0 * random.normal()).to_radians(),
            roll: (3.0 * random.normal()).to_radians(),
            scale: 60.0 * (1.0 + 0.05 * random.normal()),
            at: [320.0 + 20.0 * random.normal(), 240.0 + 15.0 * random.normal()],
            curvature,
        };
        // To the person's left is to the viewer's right.
        let (start, end) = match kind {
            Kind::Head { turn_deg } => (stance(0.0, 0.0, 0.0), stance(turn_deg, 0.0, 0.0)),
            Kind::Print { turn_deg, tip_deg } => (stance(0.0, 0.0, 0.0), stance(turn_deg, tip_deg, 0.0)),
            Kind::Bent { radius, turn_deg } => {
                (stance(0.0, 0.0, 1.0 / radius), stance(turn_deg, 0.0, 1.0 / radius))
            }
            Kind::Flexed { radius, turn_deg } => (stance(0.0, 0.0, 0.0), stance(turn_deg, 0.0, 1.0 / radius)),
        };
        if !matches!(kind, Kind::Head { .. }) {
            // The photographed person looked a little to one side or the other.
            let pose = Stance { curvature: 0.0, ..stance(0.0, 0.0, 0.0) };
            body = photographed(&body, &Stance { yaw: pose.yaw * 3.0, pitch: pose.pitch * 2.0, ..pose });
        }
        Self { kind, noise, random, body, start, end, frame: 0 }
    }

    fn stance(&mut self) -> Stance {
        let done = ((self.frame as f32 - 10.0) / 10.0).clamp(0.0, 1.0);
        let eased = done * done * (3.0 - 2.0 * done);
        let tremble = self.random.normal() * 0.004;
        let mix = |a: f32, b: f32| a + (b - a) * eased;
        let (a, b) = (self.start, self.end);
        Stance {
            yaw: mix(a.yaw, b.yaw) + tremble,
            pitch: mix(a.pitch, b.pitch) - tremble,
            roll: mix(a.roll, b.roll),
            scale: mix(a.scale, b.scale),
            at: [mix(a.at[0], b.at[0]), mix(a.at[1], b.at[1])],
            curvature: mix(a.curvature, b.curvature),
        }
    }
}

impl Iterator for Sequence {
    type Item = Fiducials68;

    fn next(&mut self) -> Option<Fiducials68> {
        if self.frame >= FRAMES {
            return None;
        }
        let stance = self.stance();
        self.frame += 1;
        let head = matches!(self.kind, Kind::Head { .. });
        let mut points = [Point::default(); FIDUCIALS];
        for (point, &[x, y, z]) in points.iter_mut().zip(&self.body) {
            let place = if head { [x, y, z] } else { on_sheet([x, y], stance.curvature) };
            let [px, py] = seen(place, &stance);
            let off = self.noise * stance.scale;
            *point = Point::new(px + off * self.random.normal(), py + off * self.random.normal());
        }
        Some(Fiducials68::all_visible(points))
    }
}

/// Another person's face: amounts of each mode and each point's own spread, in eye distances round the middle of the face.
fn person(random: &mut Random) -> [[f32; 3]; FIDUCIALS] {
    let amounts: [f64; MODES] = core::array::from_fn(|_| f64::from(random.normal()));
    let deformed = shape::deformed(&amounts);
    let mut face: [[f32; 3]; FIDUCIALS] = core::array::from_fn(|i| {
        core::array::from_fn(|axis| deformed[i][axis] + random.normal() * shape::spread()[i][axis])
    });
    let eye = |from: usize| face[from..from + 6].iter().map(|p| p[0]).sum::<f32>() / 6.0;
    let apart = eye(42) - eye(36);
    let middle: [f32; 3] =
        core::array::from_fn(|axis| face.iter().map(|p| p[axis]).sum::<f32>() / FIDUCIALS as f32);
    for point in &mut face {
        for (value, centre) in point.iter_mut().zip(middle) {
            *value = (*value - centre) / apart;
        }
    }
    face
}

/// The face as a camera took it: flat.
fn photographed(face: &[[f32; 3]; FIDUCIALS], pose: &Stance) -> [[f32; 3]; FIDUCIALS] {
    face.map(|place| {
        let [x, y] = seen(place, &Stance { scale: 1.0, at: [0.0; 2], ..*pose });
        [x, y, 0.0]
    })
}

/// Where a point of a print lies when it is rolled on an upright cylinder whose axis is behind it.
fn on_sheet([x, y]: [f32; 2], curvature: f32) -> [f32; 3] {
    if curvature <= 1e-6 {
        return [x, y, 0.0];
    }
    let radius = 1.0 / curvature;
    [radius * libm::sinf(x / radius), y, radius * (1.0 - libm::cosf(x / radius))]
}

fn seen([x, y, z]: [f32; 3], stance: &Stance) -> [f32; 2] {
    let (sy, cy) = (libm::sinf(stance.yaw), libm::cosf(stance.yaw));
    let (sp, cp) = (libm::sinf(stance.pitch), libm::cosf(stance.pitch));
    let (sr, cr) = (libm::sinf(stance.roll), libm::cosf(stance.roll));
    // What is near, z below zero, moves to the right for a turn to the viewer's right.
    let (x, z) = (x * cy - z * sy, x * sy + z * cy);
    let (y, z) = (y * cp - z * sp, y * sp + z * cp);
    let (x, y) = (x * cr - y * sr, x * sr + y * cr);
    let near = DISTANCE / (DISTANCE + z);
    [stance.at[0] + stance.scale * near * x, stance.at[1] + stance.scale * near * y]
}

/// A small generator: xorshift (Marsaglia 2003), and the sum of twelve for a bell curve.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn new(seed: u32) -> Self {
        let mut random = Self(u64::from(seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03);
        for _ in 0..8 {
            random.uniform();
        }
        random
    }

    fn uniform(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1_u64 << 24) as f32
    }

    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }
}

/// Four seconds at ten frames a second.
pub const FRAMES: u32 = 40;
/// The camera is 0.9 m away: eye distances of 63 mm.
const DISTANCE: f32 = 14.0;

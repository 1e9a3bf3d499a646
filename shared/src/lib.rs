//! What the door and the workstation must compute and parse identically.
//!
//! The core is `no_std` and needs no allocator: frame views, detections, alignment, quality, templates, scores.
//! `alloc` adds the gallery and its matcher, `std` error traits and files, `vision` the device's own
//! frame-to-observation pipeline on tract. The door runs that pipeline on camera frames and the workstation's
//! evaluator runs the very same code on files. `link` adds the encrypted connection between the two.
//!
//! Modules are listed in the order in which a frame meets them.
#![cfg_attr(not(any(feature = "std", test)), no_std)]
#[cfg(feature = "alloc")]
extern crate alloc;

pub mod time;
pub mod frame;
pub mod detection;
pub mod quality;
pub mod align;
pub mod pose;
pub mod liveness;
pub mod embedding;
pub mod score;
pub mod person;
pub mod schedule;
pub mod access;
pub mod erasure;
pub mod operating_point;
pub mod observation;
#[cfg(feature = "alloc")]
pub mod journal;
#[cfg(feature = "alloc")]
pub mod gallery;
#[cfg(feature = "alloc")]
pub mod decision;
pub mod remote;
pub mod event;
#[cfg(feature = "alloc")]
pub mod bundle;
#[cfg(feature = "alloc")]
pub mod transfer;
#[cfg(feature = "alloc")]
pub mod protocol;
#[cfg(feature = "link")]
pub mod link;
#[cfg(feature = "vision")]
pub mod vision;

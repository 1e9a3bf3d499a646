//! The door: everything that touches hardware, time and files. What it computes lives in `facelatch-shared`.
//!
//! Modules are listed in the order in which a frame meets them; see [`pipeline`] for the whole path in one page.

pub mod config;
pub mod clock;
pub mod access;
pub mod pin;
pub mod camera;
pub mod decode;
pub mod mailbox;
pub mod pipeline;
pub mod session;
pub mod door;
pub mod lock;
pub mod inputs;
pub mod display;
pub mod store;
pub mod people;
pub mod update;
pub mod system;
pub mod event_log;
pub mod erasure;
pub mod transfer;
pub mod control;
pub mod link;
pub mod heartbeat;
pub mod metrics;
pub mod runner;
pub mod daemon;
pub mod selftest;
pub mod demo;
pub mod bench;
pub mod speed;
pub mod soak;
pub mod cli;

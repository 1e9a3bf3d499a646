//! How well a detector and an embedder do, measured with the code that opens the door.

pub mod pairs;
pub mod pictures;
pub mod roc;
pub mod interval;
pub mod operating_point;
pub mod plot;
pub mod detection;
pub mod fiducials;
#[cfg(feature = "train")]
pub mod fiducials_curve;
pub mod lfw;
pub mod ytf;
pub mod tracks;
pub mod identify;
pub mod sensitivity;
pub mod cluster;
pub mod metric;
pub mod pool;
pub mod chips;
pub mod all_pairs;
pub mod curves;
mod door;

//! How well a detector and an embedder do, measured with the code that opens the door.

pub mod pairs;
pub mod roc;
pub mod lfw;
mod door;

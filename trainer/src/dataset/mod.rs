//! Faces to learn from: manifest and tar shards on disk, decoded once, split by identity, varied and batched by a worker thread.

pub mod manifest;
pub mod shards;
pub mod split;
pub mod random;
pub mod augment;
pub mod batches;

pub use augment::Augment;
pub use batches::{Batch, Loader, Source};
pub use manifest::Row;
pub use random::{Random, Stream};
pub use shards::Canvases;
pub use split::Split;

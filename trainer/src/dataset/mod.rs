//! Faces to learn from: manifest and tar shards on disk, decoded once, split by identity, varied and batched.

pub mod manifest;
pub mod shards;
pub mod pictures;
pub mod exclude;
pub mod split;
pub mod random;
pub mod augment;
pub mod batches;
pub mod labelled;
pub mod people;
pub mod picture;
pub mod scenes;
pub mod mesh;
pub mod weather;
pub mod close_ups;
pub mod street;

pub use augment::Augment;
pub use batches::{Batch, Order, Source};
pub use manifest::Row;
pub use pictures::Pictures;
pub use random::{Random, Stream};
pub use shards::Canvases;
pub use split::Split;

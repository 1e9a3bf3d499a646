//! Making and checking bundles at the workstation: keys and root documents as files, sections from a model folder.

pub mod build;
pub mod keyfile;
pub mod probes;
pub mod system;

pub use build::{BuildError, BuildJob, Built, check_file};
pub use keyfile::{KeyFileError, read_public, read_root, read_secret, write_root, write_secret};
pub use system::SystemBundle;

//! A bundle that brings boards with a card's image a new system.

use facelatch_shared::bundle::{Draft, FORMAT, Manifest, SecretKey, SectionKind, SignedRoot, Trial, Version};
use facelatch_shared::embedding::ModelBinding;
use facelatch_shared::score::Threshold;
use facelatch_shared::time::UnixMs;

use super::build::{BuildError, short};
use crate::image::System;

/// What the bundle says of itself.
#[derive(Debug)]
pub struct SystemBundle<'a> {
    /// What people call it.
    pub name: &'a str,
    /// The board that the image is for.
    pub board: &'a str,
    /// Rollback counter.
    pub counter: u64,
    /// When it was built.
    pub created: UnixMs,
    /// When it is no longer taken.
    pub expires: UnixMs,
    /// Root documents, oldest first.
    pub roots: Vec<SignedRoot>,
    /// Who signs.
    pub keys: &'a [SecretKey],
}

impl SystemBundle<'_> {
    /// The file.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn build(self, system: &System) -> Result<Vec<u8>, BuildError> {
        // What is said of models says nothing here.
        let manifest = Manifest {
            format: FORMAT,
            name: short("the bundle's name", self.name)?,
            counter: self.counter,
            created: self.created,
            expires: Some(self.expires),
            min_firmware: Version(0, 0, 0),
            boards: vec![short("a board's name", self.board)?],
            contracts: Vec::new(),
            detector: heapless::String::new(),
            embedder: heapless::String::new(),
            binding: ModelBinding([0; 16]),
            compatible: Vec::new(),
            threshold: Threshold(0.0),
            trial: Trial { seconds: 0, max_starts: 1, max_p95_us: 0, max_rejection_rise: 0 },
            sections: Vec::new(),
        };
        let files: [(SectionKind, &str, &[u8]); 4] = [
            (SectionKind::Entry, "entry.conf", system.entry.as_bytes()),
            (SectionKind::Kernel, "linux", &system.kernel),
            (SectionKind::Initrd, "initrd", &system.initrd),
            (SectionKind::Root, "root.squashfs", &system.root),
        ];
        let mut draft = Draft::new(manifest, &files, self.roots)?;
        for key in self.keys {
            draft.sign(key);
        }
        Ok(draft.to_bytes()?)
    }
}

//! What a curation kept, as tar shards and `manifest.csv` that the trainer reads.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use image::codecs::jpeg::JpegEncoder;
use thiserror::Error;

use super::describe::shared_out;
use super::sources::{Reader, SourceError};
use super::store::{Candidate, Face, Key, Stage, Store, StoreError};
use super::{canvas, decode};
use crate::dataset::manifest;
use crate::progress::Progress;

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// People.
    pub people: usize,
    /// Faces.
    pub faces: usize,
    /// Shards.
    pub shards: usize,
    /// Pictures that could not be read any more.
    pub unreadable: usize,
}

/// Writes aligned canvases (128×128, JPEG at quality 95) of everything kept into shards of `per_shard` faces, and the manifest with columns
/// `path`, `set`, `identity` and `source`. Shards that an earlier, killed run has finished are kept; the manifest comes last, so that a folder
/// that has one is whole. The same store gives the same bytes.
///
/// # Errors
/// [`ExportError`].
pub fn run(
    store: &Store,
    out: &Path,
    (set, per_shard, threads): (&str, usize, usize),
    progress: &dyn Progress,
) -> Result<Exported, ExportError> {
    store.need(Stage::Describe)?;
    if let Some(stage) =
        Stage::ALL.into_iter().find(|&s| store.state(s).is_ok_and(|s| s.is_some_and(|s| !s.done)))
    {
        return Err(StoreError::NotYet { stage }.into());
    }
    if out.join(manifest::FILE).exists() {
        return Err(ExportError::Done { path: out.to_owned() });
    }
    fs::create_dir_all(out).map_err(|source| ExportError::Write { path: out.to_owned(), source })?;
    let reader = Reader::open(&store.sources()?)?;
    let (mut exported, mut names) = (Exported::default(), BTreeSet::new());
    let mut batch: Vec<Job> = Vec::new();
    let people = store.people()?;
    progress.start("people exported", people.len() as u64);
    for (person, named) in people {
        let kept = store.kept(person)?;
        exported.people += usize::from(!kept.is_empty());
        let identity = identity(&named.name, person, &mut names);
        for (key, candidate) in kept {
            if let Some(face) = store.face(key)? {
                batch.push(Job { key, candidate, face, identity: identity.clone() });
            }
            if batch.len() == per_shard {
                shard(out, &reader, &mut batch, (set, threads), &mut exported)?;
            }
        }
        progress.step();
    }
    if !batch.is_empty() {
        shard(out, &reader, &mut batch, (set, threads), &mut exported)?;
    }
    progress.finish();
    let mut all = "path,set,identity,source\n".to_owned();
    for number in 0..exported.shards {
        let part = out.join(part_name(number));
        all += &fs::read_to_string(&part).map_err(|source| ExportError::Write { path: part, source })?;
    }
    exported.faces = all.lines().count() - 1;
    write_whole(&out.join(manifest::FILE), all.as_bytes())?;
    for number in 0..exported.shards {
        // What is left of them disturbs nobody.
        drop(fs::remove_file(out.join(part_name(number))));
    }
    Ok(exported)
}

struct Job {
    key: Key,
    candidate: Candidate,
    face: Face,
    identity: String,
}

fn part_name(number: usize) -> String {
    format!("part-{number:04}.csv")
}

fn shard(
    out: &Path,
    reader: &Reader,
    batch: &mut Vec<Job>,
    (set, threads): (&str, usize),
    exported: &mut Exported,
) -> Result<(), ExportError> {
    let number = exported.shards;
    exported.shards += 1;
    let jobs = std::mem::take(batch);
    let (tar_name, part) = (format!("{set}-{number:04}.tar"), out.join(part_name(number)));
    // The list of a shard is written after it: where it stands, both are whole.
    if part.exists() {
        return Ok(());
    }
    let files = shared_out(&jobs, &mut vec![(); threads.max(1)], |(), job| -> Option<Vec<u8>> {
        let picture = decode(&reader.bytes(&job.candidate).ok()?).ok()?;
        let mut bytes = Vec::new();
        let face = canvas(&picture, &job.face).ok()?;
        face.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, 95)).ok()?;
        Some(bytes)
    });
    let mut tar = tar::Builder::new(Vec::new());
    let mut list = String::new();
    for (job, bytes) in jobs.iter().zip(files) {
        let Some(bytes) = bytes else {
            exported.unreadable += 1;
            continue;
        };
        let member = format!("{}/{:06}.jpg", job.identity, job.key.index);
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        tar.append_data(&mut header, &member, bytes.as_slice())
            .map_err(|source| ExportError::Write { path: out.join(&tar_name), source })?;
        // The trainer's manifest knows no quotes.
        let source = job.candidate.place.name().replace([',', '"', '\n'], "_");
        let _ =
            writeln!(list, "{tar_name}/{member},{set},{},{}:{source}", job.identity, job.candidate.source);
    }
    let bytes =
        tar.into_inner().map_err(|source| ExportError::Write { path: out.join(&tar_name), source })?;
    write_whole(&out.join(&tar_name), &bytes)?;
    write_whole(&part, list.as_bytes())
}

/// The file is there whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), ExportError> {
    let fail = |source| ExportError::Write { path: path.to_owned(), source };
    let partial = path.with_extension("partial");
    let mut file = File::create(&partial).map_err(fail)?;
    file.write_all(bytes).map_err(fail)?;
    file.sync_all().map_err(fail)?;
    fs::rename(&partial, path).map_err(fail)
}

/// A name as a folder and in the manifest, unlike those before it.
fn identity(name: &str, person: u32, taken: &mut BTreeSet<String>) -> String {
    let latin = deunicode::deunicode(name).to_lowercase();
    let plain: String = latin.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let plain = plain.trim_matches('_').to_owned();
    let chosen = if plain.is_empty() || taken.contains(&plain) { format!("{plain}_{person}") } else { plain };
    taken.insert(chosen.clone());
    chosen
}

/// Why nothing was exported.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A source is gone.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// There is a set already.
    #[error("{} holds a finished set: name another folder", path.display())]
    Done {
        /// The folder.
        path: PathBuf,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_plain_and_apart() {
        let mut taken = BTreeSet::new();
        let names = ["Lee, Ann", "José Ñ.", "lee  ann", "北京", "?"];
        let all: Vec<String> = names.iter().zip(0..).map(|(name, i)| identity(name, i, &mut taken)).collect();
        assert_eq!(all, ["lee__ann", "jose_n", "lee__ann_2", "bei_jing", "_4"]);
    }
}

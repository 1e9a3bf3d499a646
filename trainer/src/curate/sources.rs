//! Where pictures come from: folders with a folder per person, tar and zip archives. Listed in a fixed order, read where they lie.
//!
//! Pictures are on disk before a curation begins; those of a list of addresses are brought there by [`super::fetch`].

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use thiserror::Error;

use super::store::{Candidate, Place, Source};
use crate::dataset::pictures::is_picture;

/// A picture that a source lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The folder that holds it: a name.
    pub person: String,
    /// Where it is.
    pub place: Place,
    /// Where to go on after it: two numbers of the source's own.
    pub next: (u64, u64),
}

/// Hands every picture of `source` from `from` on to `see`, in the source's order; `see` returns whether to go on.
///
/// A folder is listed one person at a time, an archive member by member, so that what is held at once is one folder's names.
///
/// # Errors
/// [`SourceError`] naming the file, or what `see` says.
pub fn list<E: From<SourceError>>(
    source: &Path,
    from: (u64, u64),
    mut see: impl FnMut(Listed) -> Result<(), E>,
) -> Result<(), E> {
    match kind(source)? {
        Kind::Folder => folder(source, from, &mut see),
        Kind::Tar => tar(source, from, &mut see),
        Kind::Zip => zip(source, from, &mut see),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Folder,
    Tar,
    Zip,
}

fn kind(path: &Path) -> Result<Kind, SourceError> {
    let extension = |ext: &str| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(ext));
    match path.metadata() {
        Err(source) => Err(SourceError::Unreadable { path: path.to_owned(), source }),
        Ok(meta) if meta.is_dir() => Ok(Kind::Folder),
        Ok(_) if extension("tar") => Ok(Kind::Tar),
        Ok(_) if extension("zip") => Ok(Kind::Zip),
        Ok(_) => Err(SourceError::Unknown { path: path.to_owned() }),
    }
}

fn folder<E: From<SourceError>>(
    source: &Path,
    from: (u64, u64),
    see: &mut impl FnMut(Listed) -> Result<(), E>,
) -> Result<(), E> {
    let names = |path: &Path, folders: bool| -> Result<Vec<String>, SourceError> {
        let fail = |source| SourceError::Unreadable { path: path.to_owned(), source };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_folder = entry.path().is_dir();
            if is_folder == folders && (folders || is_picture(&name)) {
                names.push(name);
            }
        }
        names.sort_by(|a, b| by_number(a, b));
        Ok(names)
    };
    for (at, person) in names(source, true)?.into_iter().enumerate().skip(from.0 as usize) {
        let start = if at as u64 == from.0 { from.1 as usize } else { 0 };
        for (i, file) in names(&source.join(&person), false)?.into_iter().enumerate().skip(start) {
            let place = Place::File(format!("{person}/{file}"));
            see(Listed { person: person.clone(), place, next: (at as u64, i as u64 + 1) })?;
        }
    }
    Ok(())
}

/// `2.jpg` before `10.jpg`: search engines number by rank.
fn by_number(a: &str, b: &str) -> std::cmp::Ordering {
    let number = |name: &str| {
        let digits: String = name.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u64>().ok()
    };
    match (number(a), number(b)) {
        (Some(x), Some(y)) => x.cmp(&y).then_with(|| a.cmp(b)),
        (Some(_), None) => std::cmp::Ordering::Less,
        (None, Some(_)) => std::cmp::Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

fn tar<E: From<SourceError>>(
    source: &Path,
    from: (u64, u64),
    see: &mut impl FnMut(Listed) -> Result<(), E>,
) -> Result<(), E> {
    let fail = |e| SourceError::Unreadable { path: source.to_owned(), source: e };
    let file = File::open(source).map_err(fail)?;
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek().map_err(fail)? {
        let entry = entry.map_err(fail)?;
        // Headers before where it stopped are passed over; their pictures are not read.
        if entry.raw_header_position() < from.0 || !entry.header().entry_type().is_file() {
            continue;
        }
        let name = entry.path().map_err(fail)?.to_string_lossy().trim_start_matches("./").to_owned();
        let Some(person) = person_of(&name) else { continue };
        let place = Place::Tar(entry.raw_file_position(), entry.size(), name);
        see(Listed { person, place, next: (entry.raw_header_position() + 1, 0) })?;
    }
    Ok(())
}

fn zip<E: From<SourceError>>(
    source: &Path,
    from: (u64, u64),
    see: &mut impl FnMut(Listed) -> Result<(), E>,
) -> Result<(), E> {
    let mut archive = open_zip(source)?;
    for index in from.0 as usize..archive.len() {
        let member = archive.by_index_raw(index).map_err(|e| zip_error(source, e))?;
        let Some(person) = person_of(member.name()) else { continue };
        let place = Place::Zip(index as u32, member.name().to_owned());
        see(Listed { person, place, next: (index as u64 + 1, 0) })?;
    }
    Ok(())
}

/// The folder that holds a picture; `None` for what is no picture or lies in no folder.
fn person_of(member: &str) -> Option<String> {
    let parent = Path::new(member).parent().and_then(Path::file_name)?;
    is_picture(member).then(|| parent.to_string_lossy().into_owned())
}

fn open_zip(path: &Path) -> Result<zip::ZipArchive<File>, SourceError> {
    let file =
        File::open(path).map_err(|source| SourceError::Unreadable { path: path.to_owned(), source })?;
    zip::ZipArchive::new(file).map_err(|e| zip_error(path, e))
}

fn zip_error(path: &Path, error: zip::result::ZipError) -> SourceError {
    SourceError::Unreadable { path: path.to_owned(), source: std::io::Error::other(error) }
}

/// The sources of a curation, opened for reading pictures from several threads.
pub struct Reader {
    open: Vec<Open>,
}

enum Open {
    Folder(PathBuf),
    Tar(File),
    Zip(Mutex<zip::ZipArchive<File>>),
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("sources", &self.open.len()).finish_non_exhaustive()
    }
}

impl Reader {
    /// Opens all sources.
    ///
    /// # Errors
    /// [`SourceError`] naming the one that is gone.
    pub fn open(sources: &[Source]) -> Result<Self, SourceError> {
        let one = |source: &Source| {
            let path = &source.path;
            Ok(match kind(path)? {
                Kind::Folder => Open::Folder(path.clone()),
                Kind::Tar => Open::Tar(
                    File::open(path)
                        .map_err(|e| SourceError::Unreadable { path: path.clone(), source: e })?,
                ),
                Kind::Zip => Open::Zip(Mutex::new(open_zip(path)?)),
            })
        };
        Ok(Self { open: sources.iter().map(one).collect::<Result<_, _>>()? })
    }

    /// A candidate's bytes.
    ///
    /// # Errors
    /// Why it cannot be read, for the report: one unreadable picture ends nothing.
    pub fn bytes(&self, candidate: &Candidate) -> Result<Vec<u8>, String> {
        let source = self.open.get(usize::from(candidate.source)).ok_or("its source is not open")?;
        match (source, &candidate.place) {
            (Open::Folder(folder), Place::File(name)) => {
                std::fs::read(folder.join(name)).map_err(|e| e.to_string())
            }
            (Open::Tar(file), Place::Tar(offset, length, _)) => {
                // A damaged header must not ask for all memory there is.
                let length = usize::try_from(*length).ok().filter(|&n| n <= LARGEST_PICTURE);
                let mut bytes = vec![0; length.ok_or("it is larger than 256 MB")?];
                file.read_exact_at(&mut bytes, *offset).map_err(|e| e.to_string())?;
                Ok(bytes)
            }
            (Open::Zip(archive), Place::Zip(index, _)) => {
                let mut archive = archive.lock().unwrap_or_else(PoisonError::into_inner);
                let member = archive.by_index(*index as usize).map_err(|e| e.to_string())?;
                let mut bytes = Vec::new();
                member.take(LARGEST_PICTURE as u64).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
                Ok(bytes)
            }
            _ => Err("its source has become another kind of file".into()),
        }
    }
}

const LARGEST_PICTURE: usize = 256 << 20;

/// A source's path, and an archive's size: a stage is not continued on another.
#[must_use]
pub fn stamp(source: &Path) -> String {
    let meta = source.metadata().ok();
    let size = meta.as_ref().map_or(0, |m| if m.is_dir() { 0 } else { m.len() });
    format!("{}:{size}", source.display())
}

/// A source that cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SourceError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is of no known kind.
    #[error("{} is no folder with one folder a person, no .tar and no .zip file", path.display())]
    Unknown {
        /// What was named.
        path: PathBuf,
    },
}

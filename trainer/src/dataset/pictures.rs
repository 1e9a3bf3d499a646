//! Pictures where they lie, decoded when they are needed: a folder per identity, a CSV manifest with files or tar and zip
//! archives, or one archive with a folder per identity.
//!
//! Nothing is unpacked and nothing is kept in memory but where each picture is. A picture that cannot be decoded is skipped
//! and counted.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use thiserror::Error;

use super::manifest::{self, ManifestError, Row};
use super::shards::{CANVAS_BYTES, decode};

/// Faces by row: 128×128 crops, aligned as `manifest.csv` describes; other sizes are resized to that.
#[derive(Debug)]
pub struct Pictures {
    rows: Vec<Row>,
    places: Vec<Place>,
    archives: Vec<Archive>,
    skipped: Mutex<BTreeMap<u32, String>>,
    source: PathBuf,
}

#[derive(Debug)]
enum Place {
    File(PathBuf),
    /// Bytes of a tar file.
    Tar {
        archive: usize,
        offset: u64,
        length: usize,
    },
    /// Member of a zip file.
    Zip {
        archive: usize,
        index: usize,
    },
    /// The manifest names it, the archive does not hold it.
    Missing,
}

#[derive(Debug)]
enum Archive {
    Tar(File),
    // Reading a member needs the archive alone; decoding, which takes longer, does not.
    Zip(Mutex<zip::ZipArchive<File>>),
}

impl Pictures {
    /// Opens `data`: a folder with `manifest.csv`; any other `.csv` with columns `path` and `identity`; a folder of folders; or a
    /// `.tar` or `.zip` with a folder per identity.
    ///
    /// # Errors
    /// [`SourceError`]; unreadable single pictures are no error, see [`Self::skipped`].
    pub fn open(data: &Path) -> Result<Self, SourceError> {
        let listed = data.join(manifest::FILE);
        let extension = |ext: &str| data.extension().is_some_and(|e| e.eq_ignore_ascii_case(ext));
        if data.is_dir() && listed.is_file() {
            Self::from_rows(data, manifest::read_file(&listed)?, listed)
        } else if data.is_dir() {
            Self::from_rows(data, folders(data)?, data.to_owned())
        } else if extension("csv") {
            let folder = data.parent().unwrap_or_else(|| Path::new(""));
            Self::from_rows(folder, manifest::read_file(data)?, data.to_owned())
        } else if extension("tar") || extension("zip") {
            let folder = data.parent().unwrap_or_else(|| Path::new(""));
            let name = data.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let (_, members) = open_archive(data)?;
            let mut members: Vec<String> = members.into_keys().filter(|member| is_picture(member)).collect();
            members.sort();
            let rows = members.into_iter().map(|member| row(&name, member)).collect();
            Self::from_rows(folder, rows, data.to_owned())
        } else {
            Err(SourceError::Unknown { path: data.to_owned() })
        }
    }

    fn from_rows(folder: &Path, rows: Vec<Row>, source: PathBuf) -> Result<Self, SourceError> {
        if rows.is_empty() {
            return Err(SourceError::Empty { path: source });
        }
        let (mut archives, mut indices) = (Vec::new(), HashMap::new());
        let mut places = Vec::with_capacity(rows.len());
        for row in &rows {
            if !is_archive(&row.shard) {
                places.push(Place::File(folder.join(row.path())));
                continue;
            }
            if !indices.contains_key(&row.shard) {
                let (archive, members) = open_archive(&folder.join(&row.shard))?;
                indices.insert(row.shard.clone(), (archives.len(), members));
                archives.push(archive);
            }
            let (archive, members) = &indices[&row.shard];
            places.push(match (members.get(&row.member), &archives[*archive]) {
                (Some(&(offset, length)), Archive::Tar(_)) => {
                    Place::Tar { archive: *archive, offset, length }
                }
                (Some(&(index, _)), Archive::Zip(_)) => {
                    Place::Zip { archive: *archive, index: index as usize }
                }
                (None, _) => Place::Missing,
            });
        }
        Ok(Self { rows, places, archives, skipped: Mutex::default(), source })
    }

    /// One for each picture, in the order of the manifest or of the names.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// What names the pictures: the manifest, the archive or the folder.
    #[must_use]
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// The canvas of a row, `[128, 128, 3]` RGB 0–255. `None`, counted, when it cannot be read or decoded.
    #[must_use]
    pub fn canvas(&self, row: u32) -> Option<Vec<u8>> {
        let mut canvas = vec![0; CANVAS_BYTES];
        match self.bytes(row as usize).and_then(|bytes| decode(&bytes, &mut canvas)) {
            Ok(()) => Some(canvas),
            Err(reason) => {
                self.lock_skipped().insert(row, reason);
                None
            }
        }
    }

    /// Pictures met so far that could not be read or decoded, with the reason.
    #[must_use]
    pub fn skipped(&self) -> Vec<(String, String)> {
        self.lock_skipped()
            .iter()
            .map(|(&row, reason)| (self.rows[row as usize].path(), reason.clone()))
            .collect()
    }

    fn lock_skipped(&self) -> MutexGuard<'_, BTreeMap<u32, String>> {
        self.skipped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of a row's file, as they are.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn bytes(&self, row: usize) -> Result<Vec<u8>, String> {
        match &self.places[row] {
            Place::File(path) => std::fs::read(path).map_err(|e| e.to_string()),
            Place::Tar { archive, offset, length } => {
                let Archive::Tar(file) = &self.archives[*archive] else { return Err("no tar file".into()) };
                let mut bytes = vec![0; *length];
                file.read_exact_at(&mut bytes, *offset).map_err(|e| e.to_string())?;
                Ok(bytes)
            }
            Place::Zip { archive, index } => {
                let Archive::Zip(zip) = &self.archives[*archive] else { return Err("no zip file".into()) };
                let mut zip = zip.lock().unwrap_or_else(PoisonError::into_inner);
                let mut member = zip.by_index(*index).map_err(|e| e.to_string())?;
                let mut bytes = Vec::new();
                member.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
                Ok(bytes)
            }
            Place::Missing => Err("not in the archive".into()),
        }
    }
}

fn is_archive(name: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("tar") || e.eq_ignore_ascii_case("zip"))
}

/// Whether a file's name says that it is a picture that can be decoded.
pub(crate) fn is_picture(name: &str) -> bool {
    let extension = Path::new(name).extension().map(|e| e.to_string_lossy().to_lowercase());
    extension.is_some_and(|e| ["jpg", "jpeg", "png", "webp"].contains(&e.as_str()))
}

/// `…/identity/name.jpg`: the identity is the folder that holds the picture.
fn row(shard: &str, member: String) -> Row {
    let parent = Path::new(&member).parent().and_then(Path::file_name);
    let identity = parent.map(|name| name.to_string_lossy().into_owned());
    Row { shard: shard.to_owned(), identity, member, set: String::new(), masked: false }
}

/// Pictures two levels down, in the order of their names.
fn folders(data: &Path) -> Result<Vec<Row>, SourceError> {
    let unreadable = |source| SourceError::Unreadable { path: data.to_owned(), source };
    let entries = |path: &Path| -> std::io::Result<Vec<PathBuf>> {
        let mut entries =
            std::fs::read_dir(path)?.map(|e| e.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>()?;
        entries.sort();
        Ok(entries)
    };
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut rows = Vec::new();
    for folder in entries(data).map_err(unreadable)?.into_iter().filter(|path| path.is_dir()) {
        let identity = name(&folder);
        for file in entries(&folder).map_err(unreadable)?.iter().map(|f| name(f)).filter(|f| is_picture(f)) {
            rows.push(Row {
                shard: identity.clone(),
                member: file,
                set: String::new(),
                identity: Some(identity.clone()),
                masked: false,
            });
        }
    }
    Ok(rows)
}

/// Members by name: (offset, length) in a tar file, (index, size) in a zip file.
type Members = HashMap<String, (u64, usize)>;

fn open_archive(path: &Path) -> Result<(Archive, Members), SourceError> {
    let fail = |source| SourceError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(fail)?;
    let mut members = Members::new();
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("zip")) {
        let mut zip = zip::ZipArchive::new(file).map_err(|e| fail(std::io::Error::other(e)))?;
        for index in 0..zip.len() {
            let member = zip.by_index_raw(index).map_err(|e| fail(std::io::Error::other(e)))?;
            members.insert(member.name().to_owned(), (index as u64, member.size() as usize));
        }
        return Ok((Archive::Zip(Mutex::new(zip)), members));
    }
    let mut tar = tar::Archive::new(file.try_clone().map_err(fail)?);
    for entry in tar.entries_with_seek().map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.path().map_err(fail)?.to_string_lossy().trim_start_matches("./").to_owned();
        members.insert(name, (entry.raw_file_position(), entry.size() as usize));
    }
    Ok((Archive::Tar(file), members))
}

/// Why there are no pictures.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A file or folder cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is neither a folder, nor a manifest, nor an archive.
    #[error(
        "{} is no folder with manifest.csv, no folder with one folder an identity, no .csv, .tar or .zip file",
        path.display()
    )]
    Unknown {
        /// What was named.
        path: PathBuf,
    },
    /// It holds no picture.
    #[error("{} names no pictures (jpg, png, webp in one folder an identity)", path.display())]
    Empty {
        /// What was named.
        path: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn png(value: u8) -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        image::RgbImage::from_pixel(128, 128, image::Rgb([value, 0, 255]))
            .write_to(&mut bytes, image::ImageFormat::Png)
            .unwrap();
        bytes.into_inner()
    }

    const MEMBERS: [&str; 4] = ["ann/1.png", "ann/2.png", "bob/1.png", "bob/broken.png"];

    fn content(member: usize) -> Vec<u8> {
        if member == 3 { b"no picture".to_vec() } else { png(10 * member as u8) }
    }

    fn write_tar(path: &Path) {
        let mut builder = tar::Builder::new(File::create(path).unwrap());
        for (i, member) in MEMBERS.iter().enumerate() {
            let mut header = tar::Header::new_gnu();
            header.set_size(content(i).len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, format!("./{member}"), content(i).as_slice()).unwrap();
        }
        builder.into_inner().unwrap();
    }

    fn write_zip(path: &Path) {
        let mut zip = zip::ZipWriter::new(File::create(path).unwrap());
        for (i, member) in MEMBERS.iter().enumerate() {
            zip.start_file(*member, zip::write::FileOptions::default()).unwrap();
            zip.write_all(&content(i)).unwrap();
        }
        zip.finish().unwrap();
    }

    /// Every source of the same four pictures gives the same rows, pictures and one skipped.
    #[test]
    fn folders_archives_and_manifests_give_the_same_pictures() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (i, member) in MEMBERS.iter().enumerate() {
            let path = at("folder").join(member);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content(i)).unwrap();
        }
        write_tar(&at("a.tar"));
        write_zip(&at("a.zip"));
        let list = |prefix: &str| {
            let line = |m: &&str| format!("{prefix}/{m},{}\n", &m[..3]);
            "path,identity\n".to_owned() + &MEMBERS.iter().map(line).collect::<String>()
        };
        for (name, prefix) in [("tar.csv", "a.tar"), ("zip.csv", "a.zip"), ("files.csv", "folder")] {
            std::fs::write(at(name), list(prefix)).unwrap();
        }
        for source in ["folder", "a.tar", "a.zip", "tar.csv", "zip.csv", "files.csv"] {
            let pictures = Pictures::open(&at(source)).unwrap();
            let identities: Vec<_> = pictures.rows().iter().map(|r| r.identity.clone().unwrap()).collect();
            assert_eq!(identities, ["ann", "ann", "bob", "bob"], "{source}");
            for row in 0..3 {
                let canvas = pictures.canvas(row).unwrap();
                assert!(canvas.chunks(3).all(|p| p == [10 * row as u8, 0, 255]), "{source} {row}");
            }
            assert!(pictures.skipped().is_empty() && pictures.canvas(3).is_none());
            let skipped = pictures.skipped();
            assert!(skipped.len() == 1 && skipped[0].0.ends_with("bob/broken.png"), "{source}: {skipped:?}");
        }
    }

    #[test]
    fn what_is_missing_or_no_source_is_named() {
        let dir = tempfile::tempdir().unwrap();
        write_tar(&dir.path().join("a.tar"));
        std::fs::write(dir.path().join("m.csv"), "path\na.tar/ann/9.png\n").unwrap();
        let pictures = Pictures::open(&dir.path().join("m.csv")).unwrap();
        assert!(pictures.canvas(0).is_none());
        assert_eq!(pictures.skipped(), [("a.tar/ann/9.png".to_owned(), "not in the archive".to_owned())]);
        std::fs::create_dir(dir.path().join("empty")).unwrap();
        let open = |name: &str| Pictures::open(&dir.path().join(name)).unwrap_err();
        assert!(matches!(open("empty"), SourceError::Empty { .. }));
        assert!(matches!(open("gone.xyz"), SourceError::Unknown { .. }));
        assert!(matches!(open("gone.tar"), SourceError::Unreadable { .. }));
    }
}

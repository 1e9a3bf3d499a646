//! What became of each address: a CSV in the folder of pictures, one line written after each.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{FetchError, Job};
use crate::curate::table::{Rows, quoted};

/// Its name in the folder.
pub const FILE: &str = "fetched.csv";
const HEADER: &str = "url,identity,licence,outcome,file,bytes,sha256\n";
/// The column `outcome` of a picture that is there.
pub(super) const KEPT: &str = "kept";

/// The list of what is done.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    path: PathBuf,
    done: HashSet<u64>,
}

impl Journal {
    /// Opens the list of `folder` and drops the line that a killed run had not ended.
    pub(super) fn open(folder: &Path) -> Result<Self, FetchError> {
        let path = folder.join(FILE);
        let fail = |source| FetchError::Write { path: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(fail)?;
        // Two at once would ask each host twice as often.
        file.try_lock().map_err(|_| FetchError::Busy { path: folder.to_owned() })?;
        let whole = whole_lines(&mut file).map_err(fail)?;
        file.set_len(whole).map_err(fail)?;
        file.seek(SeekFrom::End(0)).map_err(fail)?;
        if whole == 0 {
            file.write_all(HEADER.as_bytes()).map_err(fail)?;
        }
        let mut done = HashSet::new();
        let bad = |(line, reason)| FetchError::List { path: path.clone(), line, reason };
        let rows = Rows::open(&path).map_err(bad)?;
        if rows.header.join(",") != HEADER.trim_end() {
            return Err(bad((1, "it is of another kind: name another folder".into())));
        }
        for row in rows {
            let (_, row) = row.map_err(bad)?;
            done.insert(key(&row[0], &row[1]));
        }
        Ok(Self { file, path, done })
    }

    /// Whether that address of that person is done.
    pub(super) fn has(&self, job: &Job) -> bool {
        self.done.contains(&key(&job.url, &job.identity))
    }

    /// Writes down what became of `job`; `file` is a picture's name, size and hash.
    pub(super) fn write(
        &mut self,
        job: &Job,
        outcome: &str,
        file: Option<(&str, usize, &str)>,
    ) -> Result<(), FetchError> {
        let (name, bytes, hash) = file.map_or_else(Default::default, |(n, b, h)| (n, b.to_string(), h));
        let row = [&job.url, &job.identity, &job.licence, outcome, name, &bytes, hash].map(quoted).join(",");
        let fail = |source| FetchError::Write { path: self.path.clone(), source };
        self.file.write_all(format!("{row}\n").as_bytes()).map_err(fail)?;
        self.done.insert(key(&job.url, &job.identity));
        Ok(())
    }
}

/// Eight bytes of a hash: what is held of each address that is done.
fn key(url: &str, identity: &str) -> u64 {
    let digest = Sha256::new().chain_update(url).chain_update([0]).chain_update(identity).finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(first)
}

/// Bytes up to the last line end outside of quotes.
fn whole_lines(file: &mut File) -> std::io::Result<u64> {
    let (mut at, mut whole, mut quoted) = (0_u64, 0, false);
    let mut buffer = vec![0; 1 << 16];
    file.seek(SeekFrom::Start(0))?;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(whole);
        }
        for &byte in &buffer[..read] {
            at += 1;
            match byte {
                b'"' => quoted = !quoted,
                b'\n' if !quoted => whole = at,
                _ => {}
            }
        }
    }
}

/// The licence of each picture in a folder that was fetched: file and a number, and what the numbers mean. Some 100 bytes a picture.
#[derive(Debug, Default)]
pub struct Licences {
    of: HashMap<String, u16>,
    names: Vec<String>,
}

impl Licences {
    /// Reads a folder's list; `None` where it has none that can be read.
    #[must_use]
    pub fn read(folder: &Path) -> Option<Self> {
        let rows = Rows::open(&folder.join(FILE)).ok()?;
        let mut all = Self::default();
        for row in rows {
            let (_, row) = row.ok()?;
            if row.len() != HEADER.split(',').count() || row[3] != KEPT {
                continue;
            }
            let number = all.names.iter().position(|name| *name == row[2]).unwrap_or(all.names.len());
            if number == all.names.len() {
                all.names.push(row[2].clone());
            }
            all.of.insert(row[4].clone(), number as u16);
        }
        Some(all)
    }

    /// The licence of a file, as the list had it.
    #[must_use]
    pub fn of(&self, file: &str) -> Option<&str> {
        let name = &self.names[usize::from(*self.of.get(file)?)];
        (!name.is_empty()).then_some(name)
    }
}

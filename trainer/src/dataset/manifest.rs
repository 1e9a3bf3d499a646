//! `manifest.csv`: one row for each face crop of a folder of tar shards.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// The manifest's name in a data folder.
pub const FILE: &str = "manifest.csv";

/// One face: where its picture is, and who it shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Name of the tar file in the data folder.
    pub shard: String,
    /// Name of the member in the tar file.
    pub member: String,
    /// The collection it comes from.
    pub set: String,
    /// The person, when known.
    pub identity: Option<String>,
    /// The face wears a mask.
    pub masked: bool,
}

impl Row {
    /// `shard/member`, the name other files use for this face.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/{}", self.shard, self.member)
    }

    /// What a split may not tear apart: the identity, or the picture itself when it is not known.
    #[must_use]
    pub fn split_key(&self) -> String {
        self.identity.clone().unwrap_or_else(|| self.path())
    }
}

/// Reads `manifest.csv` in `folder`; columns are found by their names: `path` is needed, `set`, `identity` and `masked` are used when there.
///
/// # Errors
/// [`ManifestError`] with the line that does not fit.
pub fn read(folder: &Path) -> Result<Vec<Row>, ManifestError> {
    read_file(&folder.join(FILE))
}

/// Reads a manifest of any name.
///
/// # Errors
/// [`ManifestError`] with the line that does not fit.
pub fn read_file(path: &Path) -> Result<Vec<Row>, ManifestError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ManifestError::Unreadable { path: path.to_owned(), source })?;
    let malformed = |(line, reason)| ManifestError::Malformed { path: path.to_owned(), line, reason };
    parse(&text).map_err(malformed)
}

fn parse(text: &str) -> Result<Vec<Row>, (usize, String)> {
    let mut lines = text.lines().enumerate();
    let (_, header) = lines.next().ok_or((1, "it is empty".to_owned()))?;
    let names: Vec<&str> = header.split(',').collect();
    let column = |name: &str| names.iter().position(|&n| n == name);
    let path = column("path").ok_or((1, "the header has no column 'path'".to_owned()))?;
    let (set, identity, masked) = (column("set"), column("identity"), column("masked"));
    let mut rows = Vec::new();
    for (index, line) in lines {
        let number = index + 1;
        if line.contains('"') {
            return Err((number, "quoted fields are not supported; use names without commas".to_owned()));
        }
        let fields: Vec<&str> = line.split(',').collect();
        if fields.len() != names.len() {
            return Err((number, format!("it has {} fields, the header {}", fields.len(), names.len())));
        }
        let (shard, member) = fields[path]
            .split_once('/')
            .ok_or((number, format!("path '{}' is not shard/member", fields[path])))?;
        let field = |at: Option<usize>| at.map_or("", |at| fields[at]);
        rows.push(Row {
            shard: shard.to_owned(),
            member: member.to_owned(),
            set: field(set).to_owned(),
            identity: Some(field(identity)).filter(|name| !name.is_empty()).map(str::to_owned),
            masked: field(masked) == "1",
        });
    }
    if rows.is_empty() {
        return Err((1, "it lists no faces".to_owned()));
    }
    Ok(rows)
}

/// Why a manifest was refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}; --data must name a folder with manifest.csv and tar shards", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line does not parse.
    #[error("{} line {line}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line, counted from one.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name_and_empty_identities_are_none() {
        let rows =
            parse("masked,path,identity,set\n1,a.tar/x/1.webp,ann,one\n0,a.tar/u/2.webp,,one\n").unwrap();
        assert_eq!(rows[0].member, "x/1.webp");
        assert_eq!((rows[0].masked, rows[0].identity.as_deref()), (true, Some("ann")));
        assert_eq!((rows[1].identity.as_deref(), rows[1].split_key().as_str()), (None, "a.tar/u/2.webp"));
    }

    #[test]
    fn a_short_line_is_named() {
        assert_eq!(parse("path,set\na.tar/x,s\nb.tar/y\n").unwrap_err().0, 3);
        assert!(parse("name\nx\n").unwrap_err().1.contains("path"));
    }
}

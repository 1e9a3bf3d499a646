//! Tables as spreadsheets write them: CSV with quotes (RFC 4180).
//!
//! Strict, unlike the usual readers: a quote that never ends is an error with its line, and neither a field that swallows the rest of a list nor
//! a row as large as memory.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;

/// A line, counted from one, and what is wrong there.
pub(super) type TableError = (u64, String);

/// A table with a header; every row has as many fields as it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Table {
    /// Names of the columns.
    pub header: Vec<String>,
    /// Line, counted from one, and fields.
    pub rows: Vec<(u64, Vec<String>)>,
}

impl Table {
    /// Reads a file whole.
    pub(super) fn read(path: &Path) -> Result<Self, TableError> {
        let mut rows = Rows::open(path)?;
        let header = std::mem::take(&mut rows.header);
        Ok(Self { header, rows: rows.collect::<Result<_, _>>()? })
    }
}

/// The rows of a table, one at a time: for those that are larger than memory.
#[derive(Debug)]
pub(super) struct Rows<R> {
    /// Names of the columns.
    pub header: Vec<String>,
    columns: usize,
    input: R,
    /// Lines read.
    lines: u64,
}

/// A row is no longer than this: a quote that does not end must not take all memory.
const LONGEST_ROW: usize = 1 << 20;

impl Rows<BufReader<File>> {
    /// Opens a file and reads its header.
    pub(super) fn open(path: &Path) -> Result<Self, TableError> {
        Self::new(BufReader::new(File::open(path).map_err(|e| (0, e.to_string()))?))
    }
}

impl<R: BufRead> Rows<R> {
    fn new(input: R) -> Result<Self, TableError> {
        let mut rows = Self { header: Vec::new(), columns: 0, input, lines: 0 };
        let (_, header) = rows.row()?.ok_or((1, "it is empty".to_owned()))?;
        rows.header =
            header.iter().map(|name| name.trim_start_matches('\u{feff}').trim().to_owned()).collect();
        rows.columns = rows.header.len();
        Ok(rows)
    }

    /// The next row that is not blank; `None` at the end.
    fn row(&mut self) -> Result<Option<(u64, Vec<String>)>, TableError> {
        loop {
            let (begun, mut text) = (self.lines + 1, String::new());
            // A row ends with a line where no quote is open.
            let ended = loop {
                let left = (LONGEST_ROW - text.len()) as u64;
                let read = self.input.by_ref().take(left).read_line(&mut text);
                self.lines += 1;
                match read.map_err(|e| (self.lines, e.to_string()))? {
                    0 => break false,
                    _ if text.bytes().filter(|&b| b == b'"').count() % 2 == 0 => break true,
                    _ => {}
                }
            };
            if !ended && text.is_empty() {
                return Ok(None);
            }
            let row = fields(text.strip_suffix('\n').unwrap_or(&text)).map_err(|reason| (begun, reason))?;
            if row.len() > 1 || !row[0].trim().is_empty() {
                return Ok(Some((begun, row)));
            }
        }
    }
}

impl<R: BufRead> Iterator for Rows<R> {
    type Item = Result<(u64, Vec<String>), TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (line, row) = match self.row() {
            Ok(row) => row?,
            Err(error) => return Some(Err(error)),
        };
        Some(if row.len() == self.columns {
            Ok((line, row))
        } else {
            Err((line, format!("it has {} fields, the header {}", row.len(), self.columns)))
        })
    }
}

/// The fields of one row, without its line end.
fn fields(text: &str) -> Result<Vec<String>, String> {
    let (mut row, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = text.strip_suffix('\r').unwrap_or(text).chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            '"' => return Err("a quote in the middle of a field".into()),
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    if quoted {
        return Err("a quote that does not end".into());
    }
    row.push(field);
    Ok(row)
}

/// Where something is wrong, for a message: a file that cannot be read has no lines.
pub(super) fn place(path: &Path, line: u64) -> String {
    match line {
        0 => format!("cannot read {}", path.display()),
        line => format!("{} line {line}", path.display()),
    }
}

/// A field as a table writes it.
pub(super) fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_commas_and_line_ends_are_read_as_spreadsheets_write_them() {
        let parse = |text: &'static str| -> Result<Table, TableError> {
            let mut rows = Rows::new(text.as_bytes())?;
            let header = std::mem::take(&mut rows.header);
            Ok(Table { header, rows: rows.collect::<Result<_, TableError>>()? })
        };
        let table = parse("\u{feff}name, b\r\n\"Lee, Ann\",\"say \"\"hi\"\"\nthere\"\r\n\nBob,\n").unwrap();
        assert_eq!(table.header, ["name", "b"]);
        assert_eq!(table.rows[0], (2, vec!["Lee, Ann".into(), "say \"hi\"\nthere".into()]));
        assert_eq!(table.rows[1], (5, vec!["Bob".into(), String::new()]));
        for (text, line) in
            [("a,b\n1\n", 2), ("a\n\"x", 2), ("a\nx\"y\n", 2), ("\n", 1), ("a,b\n1,2\n\n3\n", 4)]
        {
            assert_eq!(parse(text).unwrap_err().0, line, "{text}");
        }
    }
}

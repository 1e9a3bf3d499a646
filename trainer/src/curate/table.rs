//! Tables as spreadsheets write them: CSV with quotes (RFC 4180).

use std::path::Path;

/// A table with a header; every row has as many fields as it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Table {
    /// Names of the columns.
    pub header: Vec<String>,
    /// Line, counted from one, and fields.
    pub rows: Vec<(u64, Vec<String>)>,
}

impl Table {
    /// Reads a file; the error is a line and what is wrong there.
    pub(super) fn read(path: &Path) -> Result<Self, (u64, String)> {
        let text = std::fs::read_to_string(path).map_err(|e| (0, e.to_string()))?;
        Self::parse(text.strip_prefix('\u{feff}').unwrap_or(&text))
    }

    fn parse(text: &str) -> Result<Self, (u64, String)> {
        let (mut rows, mut row, mut field) = (Vec::new(), Vec::new(), String::new());
        let (mut line, mut begun, mut quoted) = (1, 1, false);
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            if c == '\n' {
                line += 1;
            }
            match c {
                '"' if quoted && chars.peek() == Some(&'"') => {
                    chars.next();
                    field.push('"');
                }
                '"' if quoted => quoted = false,
                '"' if field.is_empty() => quoted = true,
                '"' => return Err((line, "a quote in the middle of a field".into())),
                c if quoted => field.push(c),
                ',' => row.push(std::mem::take(&mut field)),
                '\r' if chars.peek() == Some(&'\n') => {}
                '\n' => {
                    row.push(std::mem::take(&mut field));
                    rows.push((begun, std::mem::take(&mut row)));
                    begun = line;
                }
                c => field.push(c),
            }
        }
        if quoted {
            return Err((begun, "a quote that does not end".into()));
        }
        if !field.is_empty() || !row.is_empty() {
            row.push(field);
            rows.push((begun, row));
        }
        rows.retain(|(_, row)| row.len() > 1 || !row[0].trim().is_empty());
        if rows.is_empty() {
            return Err((1, "it is empty".into()));
        }
        let header: Vec<String> = rows.remove(0).1.iter().map(|name| name.trim().to_owned()).collect();
        match rows.iter().find(|(_, row)| row.len() != header.len()) {
            Some((line, row)) => {
                Err((*line, format!("it has {} fields, the header {}", row.len(), header.len())))
            }
            None => Ok(Self { header, rows }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_commas_and_line_ends_are_read_as_spreadsheets_write_them() {
        let table = Table::parse("name, b\r\n\"Lee, Ann\",\"say \"\"hi\"\"\nthere\"\r\n\nBob,\n").unwrap();
        assert_eq!(table.header, ["name", "b"]);
        assert_eq!(table.rows[0], (2, vec!["Lee, Ann".into(), "say \"hi\"\nthere".into()]));
        assert_eq!(table.rows[1], (5, vec!["Bob".into(), String::new()]));
        for (text, line) in [("a,b\n1\n", 2), ("a\n\"x", 2), ("a\nx\"y\n", 2), ("\n", 1)] {
            assert_eq!(Table::parse(text).unwrap_err().0, line, "{text}");
        }
    }
}

//! `facelatchd events export`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::super::door::Door;
use super::super::output::{print, print_json};
use super::super::text::counted;
use super::super::{Failure, FailureKind};
use super::row::Row;
use crate::config::Config;

/// Write the whole log into a file.
///
/// The extension says how: `.jsonl` holds one JSON object a line, `.csv` one line an entry under a head. The file appears when it is whole.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Where to, ending in .jsonl or .csv
    file: PathBuf,
}

pub(super) fn run(args: &Args, config: &Config, json: bool) -> Result<(), Failure> {
    let format = Format::of(&args.file)?;
    let mut door = Door::open(config)?;
    let shown = args.file.display();
    let failed = |error: std::io::Error| Failure::failed(format!("{shown}: {error}"));
    let mut beside = args.file.clone().into_os_string();
    beside.push(".part");
    let beside = PathBuf::from(beside);
    let written = write(&beside, format, &mut door);
    let exported = match written {
        Ok(exported) => exported,
        Err(failure) => {
            let _ = std::fs::remove_file(&beside);
            return Err(failure);
        }
    };
    std::fs::rename(&beside, &args.file).map_err(failed)?;
    if json {
        return print_json(&Exported { file: shown.to_string(), events: exported });
    }
    print(&format!("{} in {shown}\n", counted(exported, "event", "events")))
}

#[derive(Debug, Serialize)]
struct Exported {
    file: String,
    events: u64,
}

fn write(path: &Path, format: Format, door: &mut Door) -> Result<u64, Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", path.display()));
    let mut file = BufWriter::new(File::create(path).map_err(failed)?);
    let mut exported = 0;
    if format == Format::Csv {
        writeln!(file, "{CSV_HEAD}").map_err(failed)?;
    }
    door.events(0, |page| {
        for event in &page {
            let row = Row::from(event);
            let line = match format {
                Format::JsonLines => serde_json::to_string(&row).map_err(Failure::failed)?,
                Format::Csv => csv(&row),
            };
            writeln!(file, "{line}").map_err(failed)?;
            exported += 1;
        }
        Ok(true)
    })?;
    file.into_inner().map_err(|error| failed(error.into_error()))?.sync_all().map_err(failed)?;
    Ok(exported)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    JsonLines,
    Csv,
}

impl Format {
    fn of(path: &Path) -> Result<Self, Failure> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("jsonl") => Ok(Self::JsonLines),
            Some("csv") => Ok(Self::Csv),
            _ => Err(Failure::new(
                FailureKind::Usage,
                format!("{}: the name must end in .jsonl or .csv, which says how to write", path.display()),
            )
            .hint("facelatchd events export log.csv")),
        }
    }
}

const CSV_HEAD: &str = "seq,at,uptime_ms,event,subject,reason,similarity,threshold,detail";

/// Numbers and words of our own, none of which holds a comma or a quote; the detail is quoted for safety of what may come.
fn csv(row: &Row) -> String {
    let text = |value: Option<String>| value.unwrap_or_default();
    let detail = row.detail();
    let detail = if detail.contains([',', '"', '\n']) {
        format!("\"{}\"", detail.replace('"', "\"\""))
    } else {
        detail
    };
    [
        row.seq.to_string(),
        row.at.clone(),
        row.uptime_ms.to_string(),
        row.event.to_owned(),
        text(row.subject.map(|v| v.to_string())),
        text(row.reason.map(str::to_owned)),
        text(row.similarity.map(|v| v.to_string())),
        text(row.threshold.map(|v| v.to_string())),
        detail,
    ]
    .join(",")
}

const EXAMPLES: &str = "\
Examples:
  facelatchd events export log.jsonl
  facelatchd events export log.csv";

#[cfg(test)]
mod tests {
    use super::super::row::tests::some_events;
    use super::*;

    #[test]
    fn the_csv() {
        let lines: Vec<String> = some_events().iter().map(|event| csv(&Row::from(event))).collect();
        assert_eq!(
            lines.join("\n"),
            "\
1,2024-02-29T12:34:56.001Z,1,started,,,,,version=0.1.0 model=abababababababababababababababab people=2
2,2024-02-29T12:34:56.002Z,2,granted,3,,0.6123,0.363,
3,2024-02-29T12:34:56.003Z,3,refused,,not_recognised,,0.363,
4,2024-02-29T12:34:56.004Z,4,locked_out,,,,,seconds=5
5,2024-02-29T12:34:56.005Z,5,enrol_failed,3,already_enrolled,,,
6,2024-02-29T12:34:56.006Z,6,door_forced,,,,,"
        );
        let columns = CSV_HEAD.split(',').count();
        assert!(lines.iter().all(|line| line.split(',').count() == columns));
    }

    #[test]
    fn the_extension_decides() {
        assert_eq!(Format::of(Path::new("a/log.csv")).unwrap(), Format::Csv);
        assert_eq!(Format::of(Path::new("log.jsonl")).unwrap(), Format::JsonLines);
        assert_eq!(Format::of(Path::new("log.txt")).unwrap_err().kind(), FailureKind::Usage);
    }
}

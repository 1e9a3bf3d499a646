//! `facelatchd events list`.

use super::super::door::Door;
use super::super::output::{print, print_json};
use super::super::text::table;
use super::Failure;
use super::row::Row;
use crate::config::Config;

/// What happened, oldest first.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// All entries from this number on
    #[arg(long, value_name = "N", conflicts_with = "last")]
    from: Option<u64>,
    /// Only the last N entries
    #[arg(long, value_name = "N", default_value_t = 50)]
    last: u64,
}

pub(super) fn run(args: &Args, config: &Config, json: bool) -> Result<(), Failure> {
    let mut door = Door::open(config)?;
    let rows: Vec<Row> = match args.from {
        Some(from) => all(&mut door, from)?,
        None => newest(&mut door, args.last)?,
    };
    if json {
        return print_json(&rows);
    }
    if rows.is_empty() {
        return print("Nothing is logged here.\n");
    }
    print(&shown(&rows))
}

fn all(door: &mut Door, from: u64) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    door.events(from, |page| {
        rows.extend(page.iter().map(Row::from));
        Ok(true)
    })?;
    Ok(rows)
}

fn newest(door: &mut Door, count: u64) -> Result<Vec<Row>, Failure> {
    let page = door.last_events(u16::try_from(count).unwrap_or(u16::MAX))?;
    // Numbers run on without gaps, so that the page's last one says where a longer list begins.
    match page.last() {
        Some(last) if count > page.len() as u64 && page.first().is_some_and(|first| first.seq > 1) => {
            all(door, last.seq.saturating_sub(count - 1))
        }
        _ => Ok(page.iter().map(Row::from).collect()),
    }
}

fn shown(rows: &[Row]) -> String {
    let or_blank = |value: Option<String>| value.unwrap_or_default();
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let similarity = row.similarity.map(|s| format!("{s:.3}"));
            let threshold = row.threshold.map(|t| format!("{t:.3}"));
            let mut detail = vec![or_blank(row.reason.map(|reason| reason.replace('_', " "))), row.detail()];
            detail.retain(|text| !text.is_empty());
            [
                row.seq.to_string(),
                row.at.clone(),
                row.event.replace('_', " "),
                or_blank(row.subject.map(|subject| format!("#{subject}"))),
                or_blank(similarity),
                or_blank(threshold),
                detail.join(" "),
            ]
        })
        .collect();
    table(["NO", "TIME (UTC)", "EVENT", "WHO", "SIMILARITY", "THRESHOLD", "DETAIL"], &rows)
}

const EXAMPLES: &str = "\
Examples:
  facelatchd events list --last 200
  facelatchd events list --from 1 --json";

#[cfg(test)]
mod tests {
    use super::super::row::tests::some_events;
    use super::*;

    #[test]
    fn the_table() {
        let rows: Vec<Row> = some_events().iter().skip(1).map(Row::from).collect();
        assert_eq!(
            shown(&rows),
            "\
NO  TIME (UTC)                EVENT         WHO  SIMILARITY  THRESHOLD  DETAIL
2   2024-02-29T12:34:56.002Z  granted       #3   0.612       0.363
3   2024-02-29T12:34:56.003Z  refused                        0.363      not recognised
4   2024-02-29T12:34:56.004Z  locked out                                seconds=5
5   2024-02-29T12:34:56.005Z  enrol failed  #3                          already enrolled
6   2024-02-29T12:34:56.006Z  door forced
"
        );
    }
}

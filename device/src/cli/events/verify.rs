//! `facelatchd events verify`.

use facelatch_shared::protocol::{Request, Response};
use serde::Serialize;

use super::super::door::{Door, unexpected};
use super::super::output::{print, print_json};
use super::super::text::counted;
use super::super::{Failure, FailureKind};
use crate::config::Config;

pub(super) fn run(config: &Config, json: bool) -> Result<(), Failure> {
    let Response::Checked { events, broken_at, damaged_bytes, missing_end } =
        Door::open(config)?.ask(Request::CheckEvents)?
    else {
        return Err(unexpected());
    };
    let intact = broken_at.is_empty() && damaged_bytes == 0 && missing_end.is_none();
    let found = Found { intact, events, broken_at, damaged_bytes, missing_end };
    if json {
        print_json(&found)?;
    }
    if !found.intact {
        return Err(found.failure());
    }
    if json {
        return Ok(());
    }
    print(&format!("The log is intact: {} in one chain.\n", counted(events, "event", "events")))
}

#[derive(Debug, Serialize)]
struct Found {
    intact: bool,
    events: u64,
    broken_at: Vec<u64>,
    damaged_bytes: u64,
    missing_end: Option<u64>,
}

impl Found {
    fn failure(&self) -> Failure {
        let mut what = Vec::new();
        if !self.broken_at.is_empty() {
            let numbers: Vec<_> = self.broken_at.iter().map(u64::to_string).collect();
            what.push(format!("the chain is broken before {}", numbers.join(", ")));
        }
        if self.damaged_bytes > 0 {
            what.push(format!("{} are no entry", counted(self.damaged_bytes, "byte", "bytes")));
        }
        if let Some(seq) = self.missing_end {
            what.push(format!("the end is cut off: entry {seq} was there"));
        }
        Failure::new(FailureKind::Refused, format!("the log is not intact: {}", what.join("; "))).hint(
            "entries were changed, moved, removed or damaged there; keep events.journal and compare it with an earlier export",
        )
    }
}

//! `facelatchd status`.

use std::process::ExitCode;

use facelatch_shared::protocol::{Request, Response, Status};
use serde::Serialize;

use super::Failure;
use super::door::{Door, unexpected};
use super::output::{print, print_json};
use super::text::{counted, span};
use crate::config::Config;

/// How the running door is.
///
/// Exit code 1 when none runs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  facelatchd status\n  facelatchd status --json")]
pub(super) struct Args {
    /// The result as JSON, for programs
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args, config: &Config) -> Result<ExitCode, Failure> {
    let Response::Status(status) = Door::running(config)?.ask(Request::Status)? else {
        return Err(unexpected());
    };
    if args.json {
        print_json(&Shown::from(&status))?;
    } else {
        print(&shown(&status))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(status: &Status) -> String {
    let lost_pct = match status.frames + status.dropped {
        0 => 0.0,
        all => status.dropped as f64 * 100.0 / all as f64,
    };
    format!(
        "door     {}\nversion  {}, running for {}\npeople   {} enrolled\ncamera   {}, {} seen, {:.1} % dropped while busy\nlock     {}\n",
        status.door,
        status.version,
        span(status.uptime_s),
        status.people,
        if status.camera_ok { "ok" } else { "NO FRAMES" },
        counted(status.frames, "frame", "frames"),
        lost_pct,
        if status.released { "released" } else { "secured" },
    )
}

/// The status for programs. Fields are added, never renamed.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    door: &'a str,
    version: &'a str,
    uptime_s: u64,
    people: u32,
    frames: u64,
    dropped: u64,
    camera_ok: bool,
    released: bool,
}

impl<'a> From<&'a Status> for Shown<'a> {
    fn from(status: &'a Status) -> Self {
        Self {
            door: status.door.as_str(),
            version: status.version.as_str(),
            uptime_s: status.uptime_s,
            people: status.people,
            frames: status.frames,
            dropped: status.dropped,
            camera_ok: status.camera_ok,
            released: status.released,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch_shared::person::Name;

    fn status() -> Status {
        Status {
            version: heapless::String::try_from("0.1.0").unwrap(),
            uptime_s: 3_725,
            door: Name::new("Front door").unwrap(),
            people: 12,
            frames: 900,
            dropped: 100,
            camera_ok: true,
            released: false,
        }
    }

    #[test]
    fn for_people() {
        assert_eq!(
            shown(&status()),
            "\
door     Front door
version  0.1.0, running for 1 h 2 min
people   12 enrolled
camera   ok, 900 frames seen, 10.0 % dropped while busy
lock     secured
"
        );
        let new = Status { frames: 0, dropped: 0, camera_ok: false, ..status() };
        assert!(shown(&new).contains("NO FRAMES, 0 frames seen, 0.0 %"));
    }

    #[test]
    fn for_programs() {
        assert_eq!(
            serde_json::to_string(&Shown::from(&status())).unwrap(),
            r#"{"door":"Front door","version":"0.1.0","uptime_s":3725,"people":12,"frames":900,"dropped":100,"camera_ok":true,"released":false}"#
        );
    }
}

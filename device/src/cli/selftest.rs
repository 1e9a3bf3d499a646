//! `facelatchd selftest`: the installer's report.

use std::process::ExitCode;

use super::Failure;
use super::output::{print, print_json};
use crate::config::Config;
use crate::selftest::{self, Check, Outcome};

/// Check everything that this door is made of, and say what to do about what is wrong.
///
/// Looks at storage, clock, models, camera (format, frame rate, light), the gallery's own margin against mistaken identity, inputs, lock and panel;
/// the panel shows the result. The door must not be running: it holds camera, lock and files.
/// Exit code 1 when a check failed.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Release the lock for half a second: stand by the door
    #[arg(long)]
    pulse: bool,
    /// The result as JSON, for programs
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args, config: &Config) -> Result<ExitCode, Failure> {
    let report = selftest::run(config, args.pulse);
    if args.json {
        print_json(&report)?;
    } else {
        print(&shown(&report.checks))?;
        print(&format!("\n{}\n", report.summary()))?;
    }
    Ok(if report.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn shown(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let word = match check.outcome {
            Outcome::Passed => "ok",
            Outcome::Warned => "look",
            Outcome::Failed => "FAILED",
            Outcome::Skipped => "-",
        };
        text.push_str(&format!("{word:<7} {:<9} {}\n", check.name, check.said));
        if let Some(remedy) = &check.remedy {
            text.push_str(&format!("{:17} → {remedy}\n", ""));
        }
    }
    text
}

const EXAMPLES: &str = "\
Examples:
  facelatchd selftest
  facelatchd selftest --pulse                release the lock once, for half a second
  facelatchd selftest --json

Stop a running door first: systemctl stop facelatchd";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_reads_as_a_list_with_remedies() {
        let checks = [
            Check::passed("clock", "2026-11-24 is plausible"),
            Check::failed("camera", "no such device", "plug it in"),
            Check::skipped("lock", "none is configured"),
        ];
        assert_eq!(
            shown(&checks),
            "ok      clock     2026-11-24 is plausible\nFAILED  camera    no such device\n                  → plug it in\n-       lock      none is configured\n"
        );
    }
}

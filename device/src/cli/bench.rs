//! `facelatchd bench`: what every stage costs on this machine.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::Failure;
use super::output::print;
use crate::config::Config;
use crate::speed::{self, Report, SpeedArgs};

pub(super) fn run(args: &SpeedArgs, config: &Config) -> Result<ExitCode, Failure> {
    let report = speed::measure(args, config).map_err(Failure::failed)?;
    if args.json {
        print(&(serde_json::to_string(&report).map_err(Failure::failed)? + "\n"))?;
    } else {
        print(&text(&report))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// As a table.
fn text(report: &Report) -> String {
    let mut text = String::new();
    let processor = if report.processor.is_empty() { "unknown processor" } else { &report.processor };
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "{} ({}), {} cores; one thread, {} rounds",
        processor, report.arch, report.cores, report.rounds
    );
    if !report.optimized {
        text.push_str("this program was built without optimization: these are not the times of a door\n");
    }
    for row in &report.rows {
        let ms = |us: u64| us as f64 / 1000.0;
        let _ = writeln!(
            text,
            "{:<10} {:<24} {:>9.3} ms   (95 % within {:.3})",
            row.stage,
            row.what,
            ms(row.median_us),
            ms(row.p95_us)
        );
    }
    for faster in &report.faster {
        let _ = writeln!(
            text,
            "{} is the faster form here ({} % of {}'s time): `embedder = \"{}\"` in door.toml, before anybody is enrolled",
            faster.take, faster.percent, faster.rather_than, faster.take
        );
    }
    let _ =
        writeln!(text, "memory with all of them loaded: {:.1} MiB", report.resident_bytes as f64 / 1048576.0);
    text
}

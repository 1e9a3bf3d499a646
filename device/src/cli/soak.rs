//! `facelatchd soak`: a long run, its memory and its times.

use std::process::ExitCode;

use super::Failure;
use super::daemon::stop_on_signal;
use super::output::{print, print_json};
use crate::soak::{self, SoakArgs};

pub(super) fn run(args: &SoakArgs) -> Result<ExitCode, Failure> {
    let report = soak::run(args, stop_on_signal()?).map_err(Failure::failed)?;
    let faults = report.faults();
    if args.json {
        print_json(&report)?;
    } else {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        print(&format!(
            "{} frames in {:.0} s, {} lost\n{} let in, {} refused, {} events, {} lost\nmemory {:.1} MiB after the warm-up, {:.1} at most, {:.1} at the end\n",
            report.frames,
            report.seconds,
            report.frames_lost,
            report.granted[0],
            report.refused[0],
            report.events[1],
            report.events_lost,
            mib(report.resident_warm),
            mib(report.resident_most),
            mib(report.resident_end)
        ))?;
        for stage in &report.stages {
            let ms = |us: u32| f64::from(us) / 1000.0;
            print(&format!(
                "{:<8} p50 {:>8.3} ms   p99 {:>8.3} ms   ({} frames)\n",
                stage.name,
                ms(stage.p50_us),
                ms(stage.p99_us),
                stage.frames
            ))?;
        }
    }
    for fault in &faults {
        eprintln!("error: {fault}");
    }
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

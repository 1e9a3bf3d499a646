//! `facelatchd bench-stages`: what each stage costs on given frames.

use std::process::ExitCode;

use super::Failure;
use super::output::print;
use crate::bench::{self, BenchArgs};

pub(super) fn run(args: &BenchArgs) -> Result<ExitCode, Failure> {
    let report = bench::stages(args).map_err(Failure::failed)?;
    if args.json {
        print(&(serde_json::to_string(&report).map_err(Failure::failed)? + "\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    for (name, stage) in &report.stages {
        print(&format!("{name:<8} {:>9.3} ms   ({} times)\n", stage.median_us / 1000.0, stage.n))?;
    }
    print(&format!("a face was found in {} pictures\n", report.frames_with_face))?;
    Ok(ExitCode::SUCCESS)
}

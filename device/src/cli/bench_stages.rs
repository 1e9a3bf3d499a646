//! `facelatchd bench-stages`: what each stage costs on given frames.

use std::process::ExitCode;

use super::Failure;
use crate::bench::{self, BenchArgs};

pub(super) fn run(args: &BenchArgs) -> Result<ExitCode, Failure> {
    let report = bench::stages(args).map_err(Failure::failed)?;
    if args.json {
        println!("{}", serde_json::to_string(&report).map_err(Failure::failed)?);
    } else {
        for (name, stage) in &report.stages {
            println!("{name:<8} {:>9.3} ms   ({} times)", stage.median_us / 1000.0, stage.n);
        }
        println!("a face was found in {} pictures", report.frames_with_face);
    }
    Ok(ExitCode::SUCCESS)
}

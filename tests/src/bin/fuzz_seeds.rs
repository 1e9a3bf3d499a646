//! Writes the seeds of every fuzz target: `fuzz_seeds OUT` makes `OUT/TARGET/seed-N`. `.ci/fuzz` calls it.

use std::path::PathBuf;
use std::process::ExitCode;

use facelatch_tests::fuzz::TARGETS;

fn main() -> ExitCode {
    let Some(out) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: fuzz_seeds OUT");
        return ExitCode::from(2);
    };
    for target in TARGETS {
        let folder = out.join(target.name);
        let written = std::fs::create_dir_all(&folder).and_then(|()| {
            let seeds = (target.seeds)();
            (seeds.iter().enumerate())
                .try_for_each(|(number, seed)| std::fs::write(folder.join(format!("seed-{number}")), seed))
        });
        if let Err(error) = written {
            eprintln!("fuzz_seeds: {}: {error}", folder.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

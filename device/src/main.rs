//! `facelatchd`: the door's program.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use facelatch_device::cli::{self, Cli};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    // clap prints usage errors itself and leaves with code 2.
    let cli = Cli::parse();
    let wanted = std::env::var("FACELATCH_LOG").unwrap_or_default();
    let filter = if wanted.is_empty() { cli.default_log_filter() } else { wanted.as_str() };
    match EnvFilter::try_new(filter) {
        Ok(filter) => tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .init(),
        Err(error) => {
            eprintln!(
                "error: FACELATCH_LOG={wanted}: {error}\n  hint: error, warn, info, debug, or facelatch_device=debug"
            );
            return ExitCode::from(2);
        }
    }
    cli::run(cli)
}

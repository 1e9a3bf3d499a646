//! The command line of `facelatchd`: the door itself, and its administration on the board.
//!
//! Results go to stdout, status and progress to stderr; `--json` is stable. Exit codes: 0 done, 1 failed, 2 wrong usage or
//! configuration, 3 refused by policy or by a verification. One file a subcommand.

mod daemon;
pub mod demo;
mod bench;
mod bench_stages;
mod soak;
mod people;
mod events;
mod status;
mod orders;
mod models;
mod system;
mod liveness_rates;
mod link;
mod config;
mod secure;
mod selftest;
mod door;
mod failure;
mod output;
mod text;

pub use failure::{Failure, FailureKind};

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Config;

/// The program of a Facelatch door. Without a subcommand it runs the door.
#[derive(Debug, Parser)]
#[command(name = "facelatchd", version, propagate_version = true, after_help = EXAMPLES)]
pub struct Cli {
    /// The door's configuration [default: /etc/facelatch/door.toml, or built-in values where there is none]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What `facelatchd` can do beside running the door; each says it on its `Args`.
#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    People(people::Args),
    Events(events::Args),
    Status(status::Args),
    Models(models::Args),
    System(system::Args),
    Unbar(orders::UnbarArgs),
    AcceptClock(orders::AcceptClockArgs),
    LivenessRates(liveness_rates::Args),
    Link(link::Args),
    Config(config::Args),
    Secure(secure::Args),
    Selftest(selftest::Args),
    #[command(hide = true)]
    GuardLock(secure::GuardArgs),
    /// Time each stage of the pipeline on a folder of pictures
    BenchStages(crate::bench::BenchArgs),
    Bench(crate::speed::SpeedArgs),
    /// Play a hundred thousand frames through the whole door: does it grow, does it forget
    Soak(crate::soak::SoakArgs),
}

impl Cli {
    /// What is logged when `FACELATCH_LOG` says nothing: a daemon tells what it does, a command only what goes wrong.
    #[must_use]
    pub const fn default_log_filter(&self) -> &'static str {
        match self.command {
            None => "warn,facelatch_device=info,facelatch_shared=info",
            Some(_) => "warn",
        }
    }
}

/// Does what the arguments say and reports errors on stderr.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let config = cli.config.as_deref();
    let result = match cli.command {
        None => load_config(config).and_then(|parsed| daemon::run(parsed, config_path(config))),
        Some(Command::Demo(args)) => demo::run(args),
        Some(Command::People(args)) => load_config(config).and_then(|config| people::run(args, &config)),
        Some(Command::Events(args)) => load_config(config).and_then(|config| events::run(args, &config)),
        Some(Command::Status(args)) => load_config(config).and_then(|config| status::run(args, &config)),
        Some(Command::Models(args)) => load_config(config).and_then(|config| models::run(&args, &config)),
        Some(Command::System(args)) => load_config(config).and_then(|config| system::run(&args, &config)),
        Some(Command::Unbar(args)) => load_config(config).and_then(|config| orders::unbar(args, &config)),
        Some(Command::AcceptClock(args)) => {
            load_config(config).and_then(|config| orders::accept_clock(args, &config))
        }
        Some(Command::LivenessRates(args)) => liveness_rates::run(&args),
        Some(Command::Link(args)) => load_config(config).and_then(|config| link::run(args, &config)),
        Some(Command::Config(args)) => config::run(args),
        Some(Command::Secure(args)) => load_config(config).and_then(|config| secure::run(args, &config)),
        Some(Command::Selftest(args)) => load_config(config).and_then(|config| selftest::run(args, &config)),
        Some(Command::GuardLock(args)) => secure::run_guard(&args),
        Some(Command::Bench(args)) => load_config(config).and_then(|config| bench::run(&args, &config)),
        Some(Command::BenchStages(args)) => bench_stages::run(&args),
        Some(Command::Soak(args)) => soak::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(failure) => {
            eprint!("{failure}");
            ExitCode::from(failure.kind() as u8)
        }
    }
}

/// The configuration that was named, or the board's, or the built-in one.
fn load_config(named: Option<&Path>) -> Result<Config, Failure> {
    let board = Path::new(BOARD_CONFIG);
    match named {
        Some(path) => Ok(Config::load(path)?),
        None if board.exists() => Ok(Config::load(board)?),
        None => {
            tracing::info!("no {BOARD_CONFIG}: the built-in configuration holds");
            Ok(Config::default())
        }
    }
}

/// The file that a reload reads again.
fn config_path(named: Option<&Path>) -> Option<PathBuf> {
    let board = Path::new(BOARD_CONFIG);
    named.or_else(|| board.exists().then_some(board)).map(Path::to_owned)
}

const BOARD_CONFIG: &str = "/etc/facelatch/door.toml";

const EXAMPLES: &str = "\
Examples:
  facelatchd                                 run the door of /etc/facelatch/door.toml
  facelatchd --config door.toml              run another one
  facelatchd demo                            a simulated door, from photographs to panel
  facelatchd people enrol \"Ada Lovelace\"     enrol the person who stands at the door
  facelatchd people list                     who is enrolled
  facelatchd events list --last 20           what happened last
  facelatchd link pair                       let a workstation in: shows the code for `facelatch pair`
  facelatchd config > door.toml              a configuration to start from

Environment: FACELATCH_LOG sets what is logged on stderr: error, warn, info, debug, or a
filter such as facelatch_device=debug.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 refused by policy or verification.";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_example_in_the_help_parses() {
        fn walk(command: &clap::Command, found: &mut usize) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().filter_map(|line| line.strip_prefix("  ")) {
                // The command ends where two blanks begin the explanation; a redirection is the shell's.
                let text = line.split("  ").next().unwrap_or_default();
                let text = text.split(" > ").next().unwrap_or_default().trim();
                let mut words: Vec<String> = Vec::new();
                for (at, part) in text.split('"').enumerate() {
                    if at % 2 == 1 {
                        words.push(part.to_owned());
                    } else {
                        words.extend(part.split_whitespace().map(str::to_owned));
                    }
                }
                assert_eq!(words.first().map(String::as_str), Some("facelatchd"), "{line}");
                Cli::try_parse_from(&words).unwrap_or_else(|e| panic!("{line}: {e}"));
                *found += 1;
            }
            command.get_subcommands().for_each(|sub| walk(sub, found));
        }
        let mut found = 0;
        walk(&Cli::command(), &mut found);
        assert!(found >= 15, "{found} examples");
    }

    #[test]
    fn options_of_the_whole_program_stand_anywhere() {
        let cli = Cli::try_parse_from(["facelatchd", "people", "list", "--config", "x.toml"]).unwrap();
        assert_eq!(cli.config.as_deref(), Some(Path::new("x.toml")));
        assert!(Cli::try_parse_from(["facelatchd", "people", "--json", "list"]).is_ok());
        assert!(Cli::try_parse_from(["facelatchd", "people", "list", "--json"]).is_ok());
    }
}

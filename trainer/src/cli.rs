//! The command line of `facelatch`: subcommands, errors with hints, exit codes.
//!
//! Results go to stdout, status and progress to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused by a
//! verification.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands;
use crate::import::ImportError;

/// The workstation's program for a Facelatch door.
#[derive(Debug, Parser)]
#[command(name = "facelatch", version, propagate_version = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What `facelatch` can do; one file each in `commands/`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Import, list and check models
    Models(commands::models::Args),
    /// Make a teacher's vectors for every face
    #[cfg(feature = "train")]
    Teach(commands::teach::Args),
    /// Train a net
    #[cfg(feature = "train")]
    Train(commands::train::Args),
    /// Write a trained net as ONNX
    #[cfg(feature = "train")]
    Export(commands::export::Args),
    /// Draw how faces are aligned
    Align(commands::align::Args),
    /// Turn a trained net's arithmetic into integers
    #[cfg(feature = "train")]
    Quantize(commands::quantize::Args),
    /// Compare a net's forms layer by layer and on faces
    #[cfg(feature = "train")]
    Parity(commands::parity::Args),
    /// Measure a detector and an embedder with the code that opens the door
    Evaluate(commands::evaluate::Args),
    /// Group pictures of people nobody has named
    Cluster(commands::cluster::Args),
    /// Make a training set of a heap of pictures, step by step
    Curate(commands::curate::Args),
    /// Make keys and root documents: who may sign for a door
    Keys(commands::keys::Args),
    /// Build, sign, inspect and verify bundles of models
    Bundle(commands::bundle::Args),
    /// Find doors on the network
    Devices(commands::devices::Args),
    /// Pair this workstation with a door, by the code that stands on its panel
    Pair(commands::pair::Args),
    /// How a door is
    Status(commands::status::Args),
    /// List, rename, suspend and erase the people of a door
    People(commands::people::Args),
    /// Enrol a person at a door from photographs
    Enrol(commands::enrol::Args),
    /// What happened at a door
    Log(commands::log::Args),
    /// Send a signed bundle of models to a door, which tries it and confirms it or goes back by itself
    Push(commands::push::PushArgs),
    /// How new models stand at a door: trust, activate, confirm, roll back
    Update(commands::push::UpdateArgs),
    /// Build, sign and verify the image of a board's card
    Image(commands::image::Args),
    /// Write an image to a card, or to a file
    Flash(commands::flash::Args),
    /// Compare a net's representations, of any length, by the metrics of the papers
    Metrics(commands::metrics::Args),
    /// Find the similarity that each false-match rate asks for
    Calibrate(commands::calibrate::Args),
}

/// Parses the process's arguments, does what they say and reports errors on stderr.
#[must_use]
pub fn run() -> ExitCode {
    // clap prints usage errors itself and leaves with code 2.
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Models(args) => commands::models::run(&args),
        #[cfg(feature = "train")]
        Command::Train(args) => commands::train::run(&args),
        #[cfg(feature = "train")]
        Command::Teach(args) => commands::teach::run(&args),
        #[cfg(feature = "train")]
        Command::Export(args) => commands::export::run(&args),
        Command::Align(args) => commands::align::run(&args),
        #[cfg(feature = "train")]
        Command::Quantize(args) => commands::quantize::run(&args),
        #[cfg(feature = "train")]
        Command::Parity(args) => commands::parity::run(&args),
        Command::Evaluate(args) => commands::evaluate::run(&args),
        Command::Cluster(args) => commands::cluster::run(&args),
        Command::Curate(args) => commands::curate::run(&args),
        Command::Keys(args) => commands::keys::run(&args),
        Command::Bundle(args) => commands::bundle::run(&args),
        Command::Devices(args) => commands::devices::run(&args),
        Command::Pair(args) => commands::pair::run(&args),
        Command::Push(args) => commands::push::run(&args),
        Command::Update(args) => commands::push::run_update(&args),
        Command::Status(args) => commands::status::run(&args),
        Command::People(args) => commands::people::run(&args),
        Command::Enrol(args) => commands::enrol::run(&args),
        Command::Log(args) => commands::log::run(&args),
        Command::Image(args) => commands::image::run(&args),
        Command::Flash(args) => commands::flash::run(&args),
        Command::Metrics(args) => commands::metrics::run(&args),
        Command::Calibrate(args) => commands::calibrate::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint!("{failure}");
            ExitCode::from(failure.kind as u8)
        }
    }
}

/// How a command failed; the discriminant is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FailureKind {
    /// It could not be done.
    Failed = 1,
    /// The arguments contradict each other.
    Usage = 2,
    /// A verification refused it.
    Refused = 3,
}

/// An error ready for the operator: what failed, why, and what to do about it.
#[derive(Debug)]
pub struct Failure {
    kind: FailureKind,
    error: Box<dyn Error + Send + Sync>,
    hint: Option<String>,
}

impl Failure {
    /// A failure of `kind` by `error`.
    pub fn new(kind: FailureKind, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind, error: error.into(), hint: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Which exit code it leads to.
    #[must_use]
    pub const fn kind(&self) -> FailureKind {
        self.kind
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.error)?;
        let mut cause = self.error.source();
        while let Some(error) = cause {
            writeln!(f, "  cause: {error}")?;
            cause = error.source();
        }
        match &self.hint {
            Some(hint) => writeln!(f, "  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Self {
        let kind = if error.is_refusal() { FailureKind::Refused } else { FailureKind::Failed };
        let hint = error.hint();
        Self { hint, ..Self::new(kind, error) }
    }
}

const EXAMPLES: &str = "\
Examples:
  facelatch models import                    import the demo's detector and embedder
  facelatch models list                      what a model directory holds
  facelatch pair --device door.local         let this workstation talk to a door
  facelatch enrol --name Ada ada1.jpg        enrol a person there
  facelatch evaluate lfw --images lfw --pairs pairs.txt
                                             accuracy on a benchmark of pairs
  facelatch image build -o door.img          the image of a board's card
  facelatch flash --list                     where it may be written

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused by a verification.";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_failure_shows_its_causes_and_the_remedy() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read x")]
        struct Outer(#[source] std::io::Error);
        let failure = Failure::new(FailureKind::Failed, Outer(std::io::Error::other("disk on fire")))
            .hint("put it out");
        assert_eq!(failure.to_string(), "error: cannot read x\n  cause: disk on fire\n  hint: put it out\n");
    }

    #[test]
    fn exit_codes_are_fixed() {
        assert_eq!(
            [FailureKind::Failed as u8, FailureKind::Usage as u8, FailureKind::Refused as u8],
            [1, 2, 3]
        );
    }
}

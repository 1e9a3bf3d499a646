//! `facelatch curate verify` and `review`: the local page and what ends the stage.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

use super::{WorkArgs, failed, print_done};
use crate::cli::{Failure, FailureKind};
use crate::curate::Stage;
use crate::curate::review::{Desk, ReviewError, Rules};
use crate::curate::server::Site;
use crate::curate::sources::Reader;

/// Arguments of `facelatch curate verify` and `review`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Arrow keys move, space marks a wrong picture, Enter decides, R refuses the block, U takes the last block back. Every decision is stored at \
once; stop the server with Ctrl-C at any time and start it again. Several reviewers open the same address under their own names.

Examples:
  facelatch curate review --overlap 0.1
  facelatch curate review --overlap 0.1 --finish")]
pub(super) struct Args {
    #[command(flatten)]
    work: WorkArgs,
    /// Address of the page; anybody who reaches it sees the pictures
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8780", value_parser = address)]
    listen: SocketAddr,
    /// Pictures a block
    #[arg(long, value_name = "N", default_value_t = 200)]
    size: usize,
    /// Share of right pictures from which a block or person is accepted [default: 0.95, of verify 0.9]
    #[arg(long, value_name = "SHARE", value_parser = limit)]
    accept: Option<f64>,
    /// Share of blocks that two reviewers see
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = limit)]
    overlap: f64,
    /// End the stage: drop what was marked and refused
    #[arg(long)]
    finish: bool,
    /// End it although blocks are left; they are kept as they are
    #[arg(long, requires = "finish")]
    partial: bool,
    /// Forget earlier decisions and all stages after this one
    #[arg(long, conflicts_with = "finish")]
    again: bool,
}

/// A name and a port, or an address and a port.
fn address(text: &str) -> Result<SocketAddr, String> {
    let found =
        text.to_socket_addrs().map_err(|error| format!("{error}; write it as 127.0.0.1:8780"))?.next();
    found
        .filter(|address| address.port() != 0)
        .ok_or_else(|| "it must name an address and a port above 0".into())
}

fn limit(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|v| (0.0..=1.0).contains(v)).ok_or_else(|| "it must lie between 0 and 1".into())
}

pub(super) fn run(args: &Args, stage: Stage) -> Result<(), Failure> {
    let store = args.work.open()?;
    let rules = Rules {
        stage,
        size: args.size.max(1),
        accept: args.accept.unwrap_or(Rules::of(stage).accept),
        overlap: args.overlap,
    };
    let desk = Desk::open(&store, rules, args.again)?;
    if args.finish {
        let state = desk.finish(&store, args.partial).map_err(|error| match error {
            ReviewError::Store(error) => error.into(),
            open => Failure::new(FailureKind::Refused, open),
        })?;
        return print_done(&store, stage, &state);
    }
    let reader = Reader::open(&store.sources()?).map_err(failed)?;
    let (made, needed) = desk.progress();
    let server = Arc::new(Site::new(store, desk, reader)).serve(args.listen).map_err(|e| {
        failed(format!("cannot listen on {}: {e}", args.listen)).hint("choose another --listen")
    })?;
    println!("{} of {needed} decisions are left; open http://{}/", needed - made, args.listen);
    if !args.listen.ip().is_loopback() {
        eprintln!(
            "warning: the page has no password and no encryption; whoever reaches {} sees the pictures",
            args.listen
        );
    }
    server.join().map_err(failed)?;
    Ok(())
}

//! `facelatch curate fetch`.

use std::path::PathBuf;
use std::time::Duration;

use super::failed;
use crate::cli::{Failure, FailureKind};
use crate::curate::fetch::web::{Client, Real};
use crate::curate::fetch::{self, FetchError, Options, TOKEN};
use crate::progress::Bar;

/// Arguments of `facelatch curate fetch`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The list is a CSV with columns url and identity, and perhaps licence; its lines count as the order of each person's pictures. Each host is asked once \
a second at most, slower where its robots.txt says Crawl-delay, and never for what that file forbids to facelatch or to everybody; a host whose \
rules cannot be had is not asked. No answer, 429 and 5xx are tried again after ever longer pauses or what Retry-After says. Only JPEG, PNG and \
WebP are kept.

In --out a folder a person holds the pictures, and fetched.csv tells what became of each address, with licence and SHA-256. Stop with Ctrl-C at any time; the \
same command goes on. An address that failed is not tried again: remove its line from fetched.csv. Whether you may collect these pictures is \
for you to know.

Examples:
  facelatch curate fetch --list urls.csv --out heap --contact you@example.org
  facelatch curate candidates --source 'heap;origin=urls.csv of May'")]
pub(super) struct Args {
    /// Addresses as CSV
    #[arg(long, value_name = "FILE")]
    list: PathBuf,
    /// Folder of the pictures
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Mail or web address that a host's owner can write to: part of the name under which is asked
    #[arg(long, value_name = "ADDRESS", value_parser = contact)]
    contact: String,
    /// Seconds between two requests to a host, at least
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = pause)]
    pause: f64,
    /// Times a request is tried again
    #[arg(long, value_name = "N", default_value_t = 4)]
    retries: u32,
    /// Megabytes of a picture at most
    #[arg(long, value_name = "MB", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=200))]
    largest: u32,
    /// Seconds for one answer
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

fn contact(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|b| b.is_ascii_graphic() && !b"()".contains(&b));
    let reachable = text.contains('@') || text.starts_with("http://") || text.starts_with("https://");
    (plain && reachable)
        .then(|| text.to_owned())
        .ok_or_else(|| "give a mail address, or a page's with https://".into())
}

/// A host may be asked faster than ten times a second by nobody.
fn pause(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|s| (0.1..=3600.0).contains(s));
    seconds.ok_or_else(|| "it must lie between 0.1 and 3600".into())
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let options = Options {
        pause_ms: (args.pause * 1000.0) as u64,
        retries: args.retries,
        largest: (args.largest as usize) << 20,
    };
    let name = format!("{TOKEN}/{} (+{})", env!("CARGO_PKG_VERSION"), args.contact);
    let mut client = Client::new(&name, Duration::from_secs(args.timeout), true);
    let found = fetch::run(&args.list, &args.out, &options, (&mut client, &Real::default()), &Bar::new())
        .map_err(|error| match error {
            FetchError::Busy { .. } => Failure::new(FailureKind::Refused, error),
            error => failed(error),
        })?;
    for (outcome, count) in &found {
        println!("{count:>8}  {outcome}");
    }
    Ok(())
}

//! `facelatch keys new|public|root|sign|show`.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Subcommand;
use facelatch_shared::bundle::{
    BundleError, Engineer, FORMAT, PublicKey, Root, SecretKey, SignedRoot, Trust,
};
use facelatch_shared::time::UnixMs;
use serde_json::json;

use crate::bundle::keyfile::{
    KeyFileError, SystemEntropy, read_public, read_root, read_secret, write_root, write_secret,
};
use crate::cli::{Failure, FailureKind};

/// Arguments of `facelatch keys`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a secret key and print its public half
    New(NewArgs),
    /// Print the public half of a key
    Public {
        /// A key file
        key: String,
    },
    /// Make a root document: who may sign bundles, and who the next root document
    Root(RootArgs),
    /// Add a root key's signature to a root document
    Sign(SignArgs),
    /// Show a root document
    Show(ShowArgs),
}

#[derive(Debug, clap::Args)]
struct NewArgs {
    /// File to write; one that is there is never overwritten
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, clap::Args)]
struct RootArgs {
    /// File to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The root document that this one follows
    #[arg(long, value_name = "FILE")]
    after: Option<PathBuf>,
    /// A root key: 64 digits or a key file; repeat for each [default: those of --after]
    #[arg(long = "root-key", value_name = "KEY")]
    root_keys: Vec<String>,
    /// How many root keys must sign a root document [default: that of --after, or 1]
    #[arg(long, value_name = "N")]
    threshold: Option<u8>,
    /// Who signs bundles, as NAME=KEY; repeat for each [default: those of --after]
    #[arg(long = "engineer", value_name = "NAME=KEY")]
    engineers: Vec<String>,
    /// How many engineers must sign a bundle [default: that of --after, or 1]
    #[arg(long, value_name = "N")]
    engineers_needed: Option<u8>,
    /// A key that never counts again; repeat for each
    #[arg(long, value_name = "KEY")]
    revoke: Vec<String>,
    /// The document is not taken after so many days
    #[arg(long, value_name = "N")]
    expires_days: Option<u32>,
    /// Sign with these root keys at once
    #[arg(long, value_name = "FILE")]
    sign_with: Vec<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct SignArgs {
    /// The root document; the signature is added to it
    root: PathBuf,
    /// A root key of this document, or of the one before it
    #[arg(long, value_name = "FILE", required = true)]
    key: Vec<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// The root document
    root: PathBuf,
    /// The one before it: says whether doors that trust that one will follow
    #[arg(long, value_name = "FILE")]
    after: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Does what `args` say.
///
/// # Errors
/// [`Failure`] with the cause and a hint.
pub fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::New(args) => {
            let key =
                SecretKey::generate(&mut SystemEntropy).map_err(|e| Failure::new(FailureKind::Failed, e))?;
            write_secret(&args.out, &key)?;
            println!("{}", key.public());
            eprintln!(
                "the secret half is in {}: keep a copy where no network reaches it",
                args.out.display()
            );
            Ok(())
        }
        Command::Public { key } => {
            println!("{}", read_public(key)?);
            Ok(())
        }
        Command::Root(args) => make_root(args),
        Command::Sign(args) => {
            let mut root = read_root(&args.root)?;
            for key in &args.key {
                root.sign(&read_secret(key)?);
            }
            write_root(&args.root, &root)?;
            report(&root, None)
        }
        Command::Show(args) => {
            let root = read_root(&args.root)?;
            if args.json {
                println!("{:#}", root_json(&root)?);
                return Ok(());
            }
            let before = args.after.as_deref().map(read_root).transpose()?;
            report(&root, before.as_ref())
        }
    }
}

fn make_root(args: &RootArgs) -> Result<(), Failure> {
    let before = args.after.as_deref().map(read_root).transpose()?;
    let former = before.as_ref().map(SignedRoot::root).transpose()?;
    let revoked_now = keys(&args.revoke)?;
    let mut root = former.clone().unwrap_or(Root {
        format: FORMAT,
        version: 0,
        created: now(),
        expires: None,
        keys: Vec::new(),
        threshold: 1,
        engineers: Vec::new(),
        engineer_threshold: 1,
        revoked: Vec::new(),
    });
    root.version += 1;
    root.created = now();
    if !args.root_keys.is_empty() {
        root.keys = keys(&args.root_keys)?;
    }
    if !args.engineers.is_empty() {
        root.engineers = args.engineers.iter().map(|text| engineer(text)).collect::<Result<_, _>>()?;
    }
    root.threshold = args.threshold.unwrap_or(root.threshold);
    root.engineer_threshold = args.engineers_needed.unwrap_or(root.engineer_threshold);
    root.expires = args.expires_days.map(|days| UnixMs(root.created.0 + i64::from(days) * DAY_MS));
    root.keys.retain(|key| !revoked_now.contains(key));
    root.engineers.retain(|engineer| !revoked_now.contains(&engineer.key));
    root.revoked.extend(revoked_now);
    root.revoked.sort_unstable();
    root.revoked.dedup();
    let mut signed = SignedRoot::unsigned(&root)?;
    for key in &args.sign_with {
        signed.sign(&read_secret(key)?);
    }
    write_root(&args.out, &signed)?;
    report(&signed, before.as_ref())
}

fn report(signed: &SignedRoot, before: Option<&SignedRoot>) -> Result<(), Failure> {
    let root = signed.root()?;
    let date = |at: Option<UnixMs>| at.map_or("never".to_owned(), day);
    println!("root document {}, made {}, expires {}", root.version, day(root.created), date(root.expires));
    println!("  {} of {} root keys sign:", root.threshold, root.keys.len());
    for key in &root.keys {
        println!(
            "    {key}{}",
            if signed.signatures.iter().any(|s| s.key == *key) { "  signed" } else { "" }
        );
    }
    println!("  {} of {} engineers sign bundles:", root.engineer_threshold, root.engineers.len());
    for engineer in &root.engineers {
        println!("    {}  {}", engineer.key, engineer.name);
    }
    for key in &root.revoked {
        println!("  revoked: {key}");
    }
    let verdict = match before {
        Some(before) => {
            Trust::begin(before.clone()).and_then(|t| t.follow(std::slice::from_ref(signed))).map(drop)
        }
        None => Trust::begin(signed.clone()).map(drop),
    };
    match verdict {
        Ok(()) => println!("  signed by enough keys"),
        Err(error) => println!("  not valid yet: {error}"),
    }
    Ok(())
}

fn root_json(signed: &SignedRoot) -> Result<serde_json::Value, Failure> {
    let root = signed.root()?;
    let text = |keys: &[PublicKey]| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
    Ok(json!({
        "version": root.version,
        "created_ms": root.created.0,
        "expires_ms": root.expires.map(|at| at.0),
        "root_keys": text(&root.keys),
        "threshold": root.threshold,
        "engineers": root.engineers.iter().map(|e| json!({"name": e.name, "key": e.key.to_string()})).collect::<Vec<_>>(),
        "engineers_needed": root.engineer_threshold,
        "revoked": text(&root.revoked),
        "signed_by": signed.signatures.iter().map(|s| s.key.to_string()).collect::<Vec<_>>(),
        "valid": Trust::begin(signed.clone()).is_ok(),
    }))
}

fn keys(texts: &[String]) -> Result<Vec<PublicKey>, KeyFileError> {
    texts.iter().map(|text| read_public(text)).collect()
}

fn engineer(text: &str) -> Result<Engineer, Failure> {
    let usage = |what: String| Failure::new(FailureKind::Usage, what);
    let (name, key) =
        text.split_once('=').ok_or_else(|| usage(format!("--engineer {text}: give NAME=KEY")))?;
    let name = heapless::String::try_from(name)
        .map_err(|_| usage(format!("--engineer: a name has at most 48 bytes, {name} has {}", name.len())))?;
    Ok(Engineer { key: read_public(key)?, name })
}

/// Wall-clock time.
pub(crate) fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The day in UTC, as 2026-11-25 (civil-from-days, Howard Hinnant).
pub(crate) fn day(at: UnixMs) -> String {
    let days = at.0.div_euclid(DAY_MS) + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

pub(crate) const DAY_MS: i64 = 24 * 3600 * 1000;

impl From<KeyFileError> for Failure {
    fn from(error: KeyFileError) -> Self {
        let kind = match &error {
            KeyFileError::Exposed { .. } | KeyFileError::Root { .. } => FailureKind::Refused,
            _ => FailureKind::Failed,
        };
        Self::new(kind, error)
    }
}

impl From<BundleError> for Failure {
    fn from(error: BundleError) -> Self {
        Self::new(FailureKind::Refused, error)
    }
}

const EXAMPLES: &str = "\
Examples:
  facelatch keys new --out root-a.key
  facelatch keys new --out eve.key
  facelatch keys root --out root-1.bin --root-key root-a.key --root-key root-b.key --threshold 2 \\
      --engineer Eve=eve.key --sign-with root-a.key --sign-with root-b.key
  facelatch keys root --out root-2.bin --after root-1.bin --revoke eve.key --engineer Fay=fay.key \\
      --sign-with root-a.key --sign-with root-b.key

Doors follow from one root document to the next; the next must be signed by enough keys of both.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        assert_eq!(day(UnixMs(0)), "1970-01-01");
        assert_eq!(day(UnixMs(1_709_164_800_000)), "2024-02-29");
        assert_eq!(day(UnixMs(1_767_225_599_999)), "2025-12-31");
        assert_eq!(day(UnixMs(-1)), "1969-12-31");
    }
}

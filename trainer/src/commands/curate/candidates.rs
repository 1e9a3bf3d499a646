//! `facelatch curate candidates` and `make-noisy`.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{WorkArgs, failed, print_done};
use crate::cli::{Failure, FailureKind};
use crate::curate::candidates::{self, CandidatesError, Plan};
use crate::curate::names::{self, Forbidden, balance};
use crate::curate::noisy::{self, Mix};
use crate::curate::sources::stamp;
use crate::curate::store::Source;
use crate::curate::{Stage, Store};
use crate::dataset::Pictures;
use crate::dataset::exclude::Excluded;
use crate::progress::Bar;

/// Arguments of `facelatch curate candidates`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A source is a folder with one folder a person, or a .tar or .zip file of such folders; licence and origin are what you know of its \
pictures and go into the report. A list of people is a CSV with a column name, optionally popularity, and any attributes. Without one, \
whoever the sources hold is collected. Names of --exclude are found in other spellings too: words in any order, without initials and \
accents, with a letter or two wrong.

Examples:
  facelatch curate candidates --source heap --exclude pairs.txt
  facelatch curate candidates --people people.csv --balance gender --most-people 2000 \\
      --source 'crawl.tar;licence=CC BY 4.0;origin=https://example.org/archive'")]
pub(super) struct Args {
    #[command(flatten)]
    work: WorkArgs,
    /// Folder or archive of pictures, with `;licence=…` and `;origin=…` [may be repeated]
    #[arg(long, value_name = "PATH[;licence=…][;origin=…]", required = true)]
    source: Vec<String>,
    /// List of people as CSV
    #[arg(long, value_name = "FILE")]
    people: Option<PathBuf>,
    /// Evaluation list whose people are left out: LFW's pairs or people files, or one name a line [may be repeated]
    #[arg(long, value_name = "FILE")]
    exclude: Vec<PathBuf>,
    /// Leave out names of evaluation lists only as they are spelled there
    #[arg(long)]
    exact_names: bool,
    /// Attribute of the list whose values get as many people each as there can be
    #[arg(long, value_name = "COLUMN", requires = "people")]
    balance: Option<String>,
    /// People at most, the most popular first
    #[arg(long, value_name = "N", requires = "people")]
    most_people: Option<usize>,
    /// Pictures a person at most
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    most: u32,
    /// Forget an earlier beginning and all stages after it
    #[arg(long)]
    again: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let sources = args.source.iter().map(|text| source(text)).collect::<Result<Vec<_>, _>>()?;
    let mut hash = Sha256::new();
    let lists = args.people.iter().chain(&args.exclude);
    for path in lists {
        hash.update(std::fs::read(path).map_err(|e| failed(format!("cannot read {}: {e}", path.display())))?);
    }
    let excluded = match args.exclude.is_empty() {
        true => Excluded::default(),
        false => Excluded::read(&args.exclude).map_err(failed)?,
    };
    let forbidden = Forbidden::new(excluded.spelled(), !args.exact_names);
    let mut people = args.people.as_deref().map(names::read).transpose().map_err(failed)?.unwrap_or_default();
    for person in &mut people {
        if let Some(name) = forbidden.find(&person.name) {
            person.left_out = Some(format!("of an evaluation list: {name}"));
        }
    }
    if let Some(by) = &args.balance
        && !people.iter().any(|person| person.attributes.iter().any(|(column, _)| column == by))
    {
        return Err(Failure::new(FailureKind::Usage, format!("the list of people has no column '{by}'")));
    }
    balance(&mut people, args.most_people, args.balance.as_deref());
    let stamps: Vec<String> = sources.iter().map(|s| stamp(&s.path)).collect();
    let digest = hex::encode(&hash.finalize()[..6]);
    let settings = format!(
        "sources {}, lists {digest}, balance {}, people {}, pictures {}",
        stamps.join(" "),
        args.balance.as_deref().unwrap_or("none"),
        args.most_people.map_or("all".into(), |n| n.to_string()),
        args.most
    );
    let store = Store::create(&args.work.work)?;
    let plan = Plan { people, forbidden, sources, most: args.most, settings };
    let state = candidates::run(&store, &plan, args.again, &Bar::new()).map_err(|error| match error {
        CandidatesError::Store(error) => error.into(),
        other => failed(other),
    })?;
    print_done(&store, Stage::Candidates, &state)?;
    for (_, person) in store.people()?.into_iter().filter(|(_, p)| p.left_out.is_some()).take(20) {
        println!("{:<12} left out: {} ({})", "", person.name, person.left_out.unwrap_or_default());
    }
    Ok(())
}

/// `path;licence=…;origin=…`
fn source(text: &str) -> Result<Source, Failure> {
    let mut parts = text.split(';');
    let mut source = Source { path: PathBuf::from(parts.next().unwrap_or("")), licence: None, origin: None };
    for part in parts {
        match part.split_once('=') {
            Some(("licence", value)) => source.licence = Some(value.to_owned()),
            Some(("origin", value)) => source.origin = Some(value.to_owned()),
            _ => {
                return Err(Failure::new(
                    FailureKind::Usage,
                    format!("'{part}' of --source '{text}' is not known"),
                )
                .hint("give PATH;licence=…;origin=…"));
            }
        }
    }
    source.path = std::path::absolute(&source.path).unwrap_or(source.path);
    Ok(source)
}

/// Arguments of `facelatch curate make-noisy`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Wrong faces are of people who are not collected, half of them of one namesake. Near-duplicates are crops, JPEG, colour, borders, mirror images and \
smaller copies. truth.csv in the new folder says what each picture is, for `facelatch curate report --labels`.

Examples:
  facelatch curate make-noisy --data faces --out heap --people 60 --pictures 20")]
pub(super) struct NoisyArgs {
    /// Pictures whose people are known: folder with manifest.csv, CSV, folder of folders, .tar or .zip
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// New folder for the heap
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// People
    #[arg(long, value_name = "N", default_value_t = 100)]
    people: usize,
    /// Right, different pictures a person; people with fewer than half of it are not taken
    #[arg(long, value_name = "N", default_value_t = 20)]
    pictures: usize,
    /// Share of wrong faces
    #[arg(long, value_name = "SHARE", default_value_t = 0.3, value_parser = share)]
    wrong: f64,
    /// Share of near-duplicates
    #[arg(long, value_name = "SHARE", default_value_t = 0.2, value_parser = share)]
    duplicates: f64,
    /// Share of pictures without a face
    #[arg(long, value_name = "SHARE", default_value_t = 0.05, value_parser = share)]
    no_faces: f64,
    /// Draws everything
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// 0 to 0.95.
pub(super) fn share(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|v| (0.0..=0.95).contains(v))
        .ok_or_else(|| "it must lie between 0 and 0.95".into())
}

pub(super) fn make_noisy(args: &NoisyArgs) -> Result<(), Failure> {
    let pictures = Pictures::open(&args.data).map_err(failed)?;
    let mix = Mix {
        people: args.people,
        pictures: args.pictures.max(2),
        wrong: args.wrong,
        duplicates: args.duplicates,
        no_faces: args.no_faces,
        seed: args.seed,
    };
    let made = noisy::make(&pictures, Path::new(&args.out), mix, &Bar::new()).map_err(failed)?;
    let all = made.right + made.wrong + made.duplicates + made.no_faces;
    let percent = |n: usize| format!("{n} ({:.1} %)", n as f64 / all as f64 * 100.0);
    println!("people            {}", made.people);
    println!("pictures          {all} in {}", args.out.display());
    println!("right             {}", percent(made.right));
    println!("near-duplicates   {}", percent(made.duplicates));
    println!("wrong faces       {}", percent(made.wrong));
    println!("no face           {}", percent(made.no_faces));
    Ok(())
}

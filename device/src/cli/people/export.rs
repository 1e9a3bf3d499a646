//! `facelatchd people export` and `import`.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use facelatch_shared::bundle::{PublicKey, SecretKey};
use facelatch_shared::person::{PersonState, SubjectId};
use facelatch_shared::protocol::{Request, Response};
use facelatch_shared::time::UnixMs;
use facelatch_shared::transfer::{
    Head, MAX_RECORD, Opener, PREFIX_BYTES, PersonData, SIGNATURE_BYTES, Sealer, TransferError,
    TransferRequest, TransferResponse, start_length,
};
use serde_json::{Value, json};

use super::super::door::{Door, unexpected};
use super::super::output::print;
use super::super::text::{counted, seconds};
use super::super::{Failure, FailureKind};
use super::Id;
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::store::{SystemEntropy, door_key};

/// One person's data for that person, or the gallery for one other door.
///
/// A person's data goes into a folder: `person.json` with everything that is stored and every entry of the log about the person, and the pictures
/// of the face that were kept. The gallery goes into one file that only the door with the given key opens; it must decide with the same models.
/// Either is an entry in the log.
#[derive(Debug, clap::Args)]
#[command(after_help = EXPORT_EXAMPLES)]
pub(super) struct ExportArgs {
    /// Whose data: 3 or #3
    #[arg(required_unless_present = "to", conflicts_with = "to")]
    id: Option<Id>,
    /// Seal the whole gallery for the door with this key, as `facelatchd link key` shows it there
    #[arg(long = "for", id = "to", value_name = "KEY", value_parser = door_key_of)]
    to: Option<PublicKey>,
    /// The folder for a person's data, or the file of the gallery; neither may exist
    #[arg(long)]
    out: PathBuf,
}

/// Take the people of another door, as it sealed them for this one.
///
/// The whole file is verified first. Whoever is enrolled here already stays as they are; the others get numbers and keys of this door. A gallery
/// is taken once, and no older one after it; interrupted, it can be taken again.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  facelatchd people import north.flg --from 4f596932ed0a3f037f09cf81f28b4c3e936f0a9c7ba86018915c740d2516c886"
)]
pub(super) struct ImportArgs {
    /// The sealed gallery
    file: PathBuf,
    /// The key of the door that it must come from, as `facelatchd link key` shows it there
    #[arg(long, value_name = "KEY", value_parser = door_key_of)]
    from: PublicKey,
}

pub(super) fn export(args: &ExportArgs, config: &Config) -> Result<(), Failure> {
    if args.out.exists() {
        let what = format!("{} is there already: nothing is overwritten", args.out.display());
        return Err(Failure::new(FailureKind::Usage, what));
    }
    match (&args.id, args.to) {
        (Some(Id(id)), _) => person(config, *id, &args.out),
        (None, Some(to)) => gallery(config, to, &args.out),
        (None, None) => Err(Failure::new(FailureKind::Usage, "whose data, or for which door?")),
    }
}

fn ask(door: &mut Door, request: TransferRequest) -> Result<TransferResponse, Failure> {
    match door.ask(Request::Transfer(request))? {
        Response::Transfer(response) => Ok(response),
        _ => Err(unexpected()),
    }
}

fn person(config: &Config, id: SubjectId, out: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", out.display()));
    let mut door = Door::open(config)?;
    let TransferResponse::Person(data) = ask(&mut door, TransferRequest::Person { id })? else {
        return Err(unexpected());
    };
    let mut log = Vec::new();
    door.events(0, |page| {
        log.extend(page.iter().filter_map(|event| super::super::events::about(event, id)));
        Ok(true)
    })?;
    std::fs::DirBuilder::new().mode(0o700).create(out).map_err(failed)?;
    let write =
        |name: &str, bytes: &[u8]| -> std::io::Result<()> { private(&out.join(name))?.write_all(bytes) };
    let text = format!("{:#}\n", readable(&data, log));
    write("person.json", text.as_bytes()).map_err(failed)?;
    for (at, jpeg) in data.chips.iter().enumerate() {
        write(&face_file(at), jpeg).map_err(failed)?;
    }
    print(&format!(
        "Everything about {id} {} is in {}: person.json and {}.\n",
        data.name,
        out.display(),
        counted(data.chips.len() as u64, "picture", "pictures")
    ))
}

fn face_file(at: usize) -> String {
    format!("face-{}.jpg", at + 1)
}

/// What is stored, in words. Fields are added, never renamed.
fn readable(data: &PersonData, log: Vec<Value>) -> Value {
    let PersonData { id, name, state, enrolled_at, rights, templates, chips } = data;
    let templates: Vec<Value> = templates
        .iter()
        .map(|t| json!({ "model": t.binding.to_string(), "taken_at": seconds(t.taken_at), "codes": codes(&t.codes) }))
        .collect();
    let consent = rights.consent.as_ref().map(
        |consent| json!({ "text": consent.text.as_str(), "at": seconds(consent.at), "taken_by": consent.by }),
    );
    json!({
        "id": id.0,
        "name": name.as_str(),
        "suspended": *state == PersonState::Suspended,
        "enrolled_at": seconds(*enrolled_at),
        "role": rights.role,
        "valid_from": rights.valid_from.map(|day| day.to_string()),
        "valid_until": rights.valid_until.map(|day| day.to_string()),
        "schedule": rights.schedule.as_deref(),
        "pin": if rights.pin.is_some() { "kept as a salted hash" } else { "none" },
        "consent": consent,
        "templates": templates,
        "pictures": (0..chips.len()).map(face_file).collect::<Vec<_>>(),
        "log": log,
    })
}

/// One line, not 128.
fn codes(codes: &[i8]) -> String {
    codes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn gallery(config: &Config, to: PublicKey, out: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", out.display()));
    let key = own_key(config)?;
    if key.public() == to {
        return Err(Failure::new(
            FailureKind::Usage,
            "this is the door's own key: name that of the other one",
        ));
    }
    let mut door = Door::running(config)?;
    let TransferResponse::Export { number, binding, people } =
        ask(&mut door, TransferRequest::BeginExport { to })?
    else {
        return Err(unexpected());
    };
    let told = (number, now(), binding, people);
    let (mut sealer, start) = Sealer::begin(key, to, told, &mut SystemEntropy).map_err(refused)?;
    let beside = out.with_extension("part");
    let written = (|| {
        let mut file = BufWriter::new(private(&beside).map_err(failed)?);
        file.write_all(&start).map_err(failed)?;
        let mut from = SubjectId(0);
        while let TransferResponse::Person(data) = ask(&mut door, TransferRequest::NextPerson { from })? {
            from = SubjectId(data.id.0.saturating_add(1));
            file.write_all(&sealer.person(&data).map_err(changed_meanwhile)?).map_err(failed)?;
        }
        file.write_all(&sealer.finish().map_err(changed_meanwhile)?).map_err(failed)?;
        file.into_inner().map_err(|error| failed(error.into_error()))?.sync_all().map_err(failed)?;
        std::fs::rename(&beside, out).map_err(failed)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written?;
    print(&format!(
        "{} in {}, sealed for the door {to}.\nThere: facelatchd people import FILE --from {}\n",
        counted(u64::from(people), "person", "people"),
        out.display(),
        own_key(config)?.public()
    ))
}

pub(super) fn import(args: &ImportArgs, config: &Config) -> Result<(), Failure> {
    let shown = args.file.display();
    let mut file = File::open(&args.file).map_err(|error| Failure::failed(format!("{shown}: {error}")))?;
    let key = own_key(config)?;
    // Everything is read once before anything is taken, and sealed parts open the same way twice.
    let head = read(&mut file, &key, args.from, &mut |_| Ok(())).map_err(|failure| failure.about(&shown))?;
    let mut door = Door::running(config)?;
    let (from, number) = (args.from, head.number);
    match door.ask(Request::Transfer(TransferRequest::BeginImport { from, number, binding: head.binding }))? {
        Response::Done => {}
        _ => return Err(unexpected()),
    }
    file.rewind().map_err(|error| Failure::failed(format!("{shown}: {error}")))?;
    let (mut added, mut known) = (0, 0);
    read(&mut file, &key, args.from, &mut |data| {
        let name = data.name.clone();
        match ask(&mut door, TransferRequest::ImportPerson(Box::new(data)))? {
            TransferResponse::Imported { id } => {
                added += 1;
                print(&format!("{id} {name}\n"))
            }
            TransferResponse::Known { id } => {
                known += 1;
                print(&format!("{name}: enrolled already, as {id}\n"))
            }
            _ => Err(unexpected()),
        }
    })
    .map_err(|failure| failure.about(&shown))?;
    let end = TransferRequest::EndImport { from, number, people: added };
    match door.ask(Request::Transfer(end))? {
        Response::Done => {}
        _ => return Err(unexpected()),
    }
    print(&format!("{} added, {known} known before.\n", counted(u64::from(added), "person", "people")))
}

/// Why a file was not read to its end.
enum ReadFailure {
    Sealed(TransferError),
    Other(Failure),
}

impl ReadFailure {
    fn about(self, file: &dyn std::fmt::Display) -> Failure {
        match self {
            Self::Sealed(error) => Failure::new(FailureKind::Refused, format!("{file}: {error}")),
            Self::Other(failure) => failure,
        }
    }
}

impl From<TransferError> for ReadFailure {
    fn from(error: TransferError) -> Self {
        Self::Sealed(error)
    }
}

fn read(
    file: &mut File,
    key: &SecretKey,
    from: PublicKey,
    each: &mut dyn FnMut(PersonData) -> Result<(), Failure>,
) -> Result<Head, ReadFailure> {
    let mut file = BufReader::new(file);
    let mut take = |length: usize| -> Result<Vec<u8>, TransferError> {
        let mut bytes = vec![0; length];
        // A file that ends too early is no whole gallery.
        file.read_exact(&mut bytes).map_err(|_| TransferError::Changed)?;
        Ok(bytes)
    };
    let mut start = take(PREFIX_BYTES).map_err(|_| TransferError::NotOne)?;
    let prefix = start.as_slice().try_into().map_err(|_| TransferError::NotOne)?;
    start.extend(take(start_length(prefix)? - PREFIX_BYTES)?);
    let mut opener = Opener::begin(&start, key, from)?;
    while opener.left() > 0 {
        let length = take(4)?.as_slice().try_into().map(u32::from_le_bytes).unwrap_or(u32::MAX) as usize;
        if length > MAX_RECORD {
            return Err(TransferError::Changed.into());
        }
        let data = opener.person(&take(length)?)?;
        each(data).map_err(ReadFailure::Other)?;
    }
    let head = opener.finish(&take(SIGNATURE_BYTES)?)?;
    if take(1).is_ok() {
        return Err(TransferError::Changed.into());
    }
    Ok(head)
}

fn own_key(config: &Config) -> Result<SecretKey, Failure> {
    door_key(&config.door.state_dir).map_err(Failure::failed)
}

fn now() -> UnixMs {
    SystemClock::new().unix()
}

fn refused(error: TransferError) -> Failure {
    Failure::new(FailureKind::Refused, error)
}

fn changed_meanwhile(error: TransferError) -> Failure {
    Failure::failed(error).hint("somebody was enrolled or erased meanwhile? Export again")
}

/// For its owner alone.
fn private(path: &Path) -> std::io::Result<File> {
    std::fs::OpenOptions::new().mode(0o600).create_new(true).write(true).open(path)
}

pub(super) fn door_key_of(text: &str) -> Result<PublicKey, &'static str> {
    let digits = (text.len() == 64 && text.is_ascii()).then_some(text.as_bytes());
    let mut key = [0; 32];
    for (byte, pair) in key.iter_mut().zip(digits.ok_or(KEY)?.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16).ok_or(KEY)?;
        let low = char::from(pair[1]).to_digit(16).ok_or(KEY)?;
        // Two digits of base 16 are below 256.
        *byte = (high * 16 + low) as u8;
    }
    Ok(PublicKey(key))
}

const KEY: &str = "a door's key has 64 hexadecimal digits, as `facelatchd link key` shows them at that door";
const EXPORT_EXAMPLES: &str = "\
Examples:
  facelatchd people export 3 --out ada
  facelatchd people export --for 4f596932ed0a3f037f09cf81f28b4c3e936f0a9c7ba86018915c740d2516c886 --out north.flg";

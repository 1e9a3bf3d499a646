//! `facelatch flash`.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::keys::now;
use crate::bundle::keyfile::read_root;
use crate::cli::{Failure, FailureKind};
use crate::image::devices::{Disk, disks};
use crate::image::disk::MIB;
use crate::image::{ImageError, flash, signature, tools};
use crate::progress::Bar;

/// Arguments of `facelatch flash`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The image
    #[arg(required_unless_present = "list")]
    image: Option<PathBuf>,
    /// The card, such as /dev/sdb, or a file
    #[arg(required_unless_present = "list")]
    target: Option<PathBuf>,
    /// List the disks of this machine instead
    #[arg(long, conflicts_with_all = ["image", "target"])]
    list: bool,
    /// The root document that says who may sign images
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Write an image that nobody signed
    #[arg(long, conflicts_with = "root")]
    unsigned: bool,
    /// This door's configuration; it takes the place of the image's at the next start
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Make a file this large, as a card would be, in MiB
    #[arg(long, value_name = "N")]
    size_mib: Option<u64>,
    /// Write to the disk of this name though it is in use or no removable one; everything on it is lost
    #[arg(long, value_name = "NAME")]
    overwrite: Option<String>,
    /// Print JSON (with --list)
    #[arg(long, requires = "list")]
    json: bool,
}

/// Does what `args` say.
///
/// # Errors
/// [`Failure`] with the cause and a hint.
pub fn run(args: &Args) -> Result<(), Failure> {
    let (Some(image), Some(target)) = (&args.image, &args.target) else {
        return list(args.json);
    };
    let device = std::fs::metadata(target).is_ok_and(|meta| meta.file_type().is_block_device());
    if device {
        permit(target, &disks(), args.overwrite.as_deref())?;
        if args.size_mib.is_some() {
            return Err(Failure::new(FailureKind::Usage, "--size-mib is for files; a card has its size"));
        }
    } else {
        permit_file(image, target)?;
    }
    check(image, args)?;
    let config = args.config.as_deref().map(checked_config).transpose()?;

    let mut source = File::open(image).map_err(ImageError::io(image))?;
    let bytes = source.metadata().map_err(ImageError::io(image))?.len();
    let mut options = File::options();
    options.read(true).write(true).create(!device).truncate(!device);
    if device && args.overwrite.is_none() {
        // The kernel's own word that nothing uses it.
        options.custom_flags(EXCL);
    }
    let mut card = options.open(target).map_err(ImageError::io(target))?;
    let room = if device {
        card.seek(SeekFrom::End(0)).map_err(ImageError::io(target))?
    } else {
        let size = args.size_mib.map_or(bytes, |mib| mib * MIB);
        card.set_len(size).map_err(ImageError::io(target))?;
        size
    };
    if room < bytes {
        return Err(Failure::new(
            FailureKind::Failed,
            format!("{} has {}, the image {}", target.display(), size(room), size(bytes)),
        )
        .hint("take a larger card"));
    }
    let started = std::time::Instant::now();
    flash::write(&mut source, bytes, &mut card, &target.display().to_string(), &Bar::new())?;
    let seconds = started.elapsed().as_secs_f64();
    if let Some(config) = config {
        put_config(target, &mut card, &config)?;
    }
    println!("{}: {} written and compared in {seconds:.0} s", target.display(), size(bytes));
    if room < bytes + 32 * MIB {
        eprintln!(
            "note: this leaves no room for people, keys and log; a door needs 256 MB or more (--size-mib, for a file)"
        );
    }
    Ok(())
}

fn list(json: bool) -> Result<(), Failure> {
    let disks = disks();
    if json {
        let shown: Vec<_> = disks
            .iter()
            .map(|disk| {
                json!({ "device": disk.path(), "bytes": disk.bytes, "model": disk.model, "removable": disk.removable,
                    "used_at": disk.used_at, "objection": disk.objection() })
            })
            .collect();
        println!("{:#}", json!(shown));
        return Ok(());
    }
    if disks.is_empty() {
        eprintln!("this machine shows no disk: put a card in");
    }
    for disk in disks {
        let verdict = match disk.objection() {
            _ if disk.bytes == 0 => "no card in it".to_owned(),
            Some(objection) => format!("refused: {objection}"),
            None if disk.read_only => "refused: it is write-protected".to_owned(),
            None => "may be written".to_owned(),
        };
        println!(
            "{:<14} {:>9}  {:<24} {verdict}",
            disk.path().display().to_string(),
            size(disk.bytes),
            disk.model
        );
    }
    Ok(())
}

/// Whether the disk at `target` may be written.
fn permit(target: &Path, disks: &[Disk], overwrite: Option<&str>) -> Result<(), Failure> {
    let real = std::fs::canonicalize(target).unwrap_or_else(|_| target.to_owned());
    let name = real.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let refused = |what: String| Failure::new(FailureKind::Refused, format!("{}: {what}", target.display()));
    let Some(disk) = disks.iter().find(|disk| disk.name == name) else {
        let whole = disks.iter().find(|disk| name.starts_with(&disk.name));
        return match whole {
            Some(disk) => Err(refused("this is a partition".into())
                .hint(format!("the whole disk is {}", disk.path().display()))),
            None => Err(refused("this is no disk".into()).hint("`facelatch flash --list` shows them")),
        };
    };
    if disk.read_only {
        return Err(refused("it is write-protected".into()).hint("move the little switch on the card's side"));
    }
    match disk.objection() {
        Some(_) if overwrite == Some(disk.name.as_str()) => Ok(()),
        Some(objection) => Err(refused(objection).hint(format!(
            "{}if you are certain that everything on it may be lost: --overwrite {}",
            if disk.used_at.is_empty() || disk.is_system() { "" } else { "unmount it; or " },
            disk.name
        ))),
        None => Ok(()),
    }
}

/// A file that is there must be an image already, and not the one that is written.
fn permit_file(image: &Path, target: &Path) -> Result<(), Failure> {
    let Ok(mut file) = File::open(target) else { return Ok(()) };
    if std::fs::canonicalize(image).ok() == std::fs::canonicalize(target).ok() {
        return Err(Failure::new(FailureKind::Usage, "image and target are the same file"));
    }
    let mut head = [0; 1024];
    let is_image = file.read_exact(&mut head).is_ok()
        && (&head[512..520] == b"EFI PART" || head.iter().all(|byte| *byte == 0));
    if is_image {
        return Ok(());
    }
    Err(Failure::new(FailureKind::Refused, format!("{} is there and is no disk image", target.display()))
        .hint("remove it first, or name another file"))
}

fn check(image: &Path, args: &Args) -> Result<(), Failure> {
    let Some(root) = &args.root else {
        if args.unsigned {
            return Ok(());
        }
        return Err(Failure::new(FailureKind::Refused, "nothing to check the image's signature against")
            .hint("--root root-1.bin names the root document that says who may sign; --unsigned writes it unchecked"));
    };
    let document = signature::verify(image, read_root(root)?, now())?;
    eprintln!("{}: {} for {}, signed", image.display(), document.version, document.board);
    Ok(())
}

fn checked_config(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path).map_err(ImageError::io(path))?;
    text.parse::<toml::Table>()
        .map_err(|error| Failure::new(FailureKind::Failed, format!("{}: {error}", path.display())))?;
    Ok(text)
}

/// Puts the configuration onto the boot partition that was just written: no root needed, and no mount.
fn put_config(target: &Path, card: &mut File, config: &str) -> Result<(), Failure> {
    let mut entry = [0; 128];
    // The first entry of the table in the third sector (UEFI 2.10, section 5.3): bytes 32 to 39 are the first sector.
    card.seek(SeekFrom::Start(1024))
        .and_then(|_| card.read_exact(&mut entry))
        .map_err(ImageError::io(target))?;
    let mut first = [0; 8];
    first.copy_from_slice(&entry[32..40]);
    let offset = u64::from_le_bytes(first) * 512;
    let folder = std::env::temp_dir().join(format!("facelatch-flash-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(ImageError::io(&folder))?;
    let file = folder.join("door.toml");
    let put = std::fs::write(&file, config).map_err(ImageError::io(&file)).and_then(|()| {
        let place = format!("{}@@{offset}", target.display());
        tools::run(
            tools::tool("mcopy", 0)?.args(["-o", "-i", &place]).arg(&file).arg("::facelatch/door.toml"),
        )
    });
    let _ = std::fs::remove_dir_all(&folder);
    put?;
    card.sync_all().map_err(ImageError::io(target))?;
    eprintln!("the configuration is on the boot partition; the door takes it at its next start");
    Ok(())
}

fn size(bytes: u64) -> String {
    match bytes {
        0 => "-".to_owned(),
        _ if bytes < 1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// `O_EXCL` of Linux, the same on every architecture that this is built for.
const EXCL: i32 = 0o200;

const EXAMPLES: &str = "\
Examples:
  facelatch flash --list
  facelatch flash door.img /dev/sdb --root root-1.bin
  facelatch flash door.img card.img --root root-1.bin --size-mib 512
  facelatch flash door.img /dev/sdb --root root-1.bin --config front-door.toml

Signature and length are checked before anything is written. What was written is read back and compared; exit
code 3 when it differs.";

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str, removable: bool, used_at: &[&str]) -> Disk {
        Disk {
            name: name.into(),
            bytes: 1 << 33,
            model: "Card".into(),
            removable,
            read_only: false,
            used_at: used_at.iter().map(|place| (*place).to_owned()).collect(),
        }
    }

    #[test]
    fn what_must_not_be_lost_is_asked_for_by_name() {
        let disks = [
            disk("sda", false, &["/", "/boot"]),
            disk("sdb", true, &[]),
            disk("sdc", true, &["/media/x"]),
            disk("sdd", false, &[]),
        ];
        let verdict = |path: &str, overwrite| {
            permit(Path::new(path), &disks, overwrite)
                .map_err(|failure| (failure.kind(), failure.to_string()))
        };
        assert_eq!(verdict("/dev/sdb", None), Ok(()));
        for (path, say) in [
            (
                "/dev/sda",
                "error: /dev/sda: this system runs from it (/, /boot)\n  hint: if you are certain that everything on it may be lost: --overwrite sda\n",
            ),
            (
                "/dev/sdc",
                "error: /dev/sdc: it is in use (/media/x)\n  hint: unmount it; or if you are certain that everything on it may be lost: --overwrite sdc\n",
            ),
            (
                "/dev/sdd",
                "error: /dev/sdd: it is not a removable disk\n  hint: if you are certain that everything on it may be lost: --overwrite sdd\n",
            ),
            ("/dev/sdb1", "error: /dev/sdb1: this is a partition\n  hint: the whole disk is /dev/sdb\n"),
            ("/dev/zz", "error: /dev/zz: this is no disk\n  hint: `facelatch flash --list` shows them\n"),
        ] {
            assert_eq!(verdict(path, Some("sdb")), Err((FailureKind::Refused, say.to_owned())));
        }
        assert_eq!(verdict("/dev/sdd", Some("sdd")), Ok(()));
    }

    #[test]
    fn a_file_that_is_no_image_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let (image, target) = (folder.path().join("door.img"), folder.path().join("thesis.txt"));
        std::fs::write(&image, [0; 2048]).unwrap();
        assert!(permit_file(&image, &target).is_ok(), "a new file");
        std::fs::write(&target, "x".repeat(2000)).unwrap();
        assert_eq!(permit_file(&image, &target).unwrap_err().kind(), FailureKind::Refused);
        assert_eq!(permit_file(&image, &image).unwrap_err().kind(), FailureKind::Usage);
        let mut table = vec![0; 2048];
        table[512..520].copy_from_slice(b"EFI PART");
        std::fs::write(&target, table).unwrap();
        assert!(permit_file(&image, &target).is_ok(), "an image");
    }
}

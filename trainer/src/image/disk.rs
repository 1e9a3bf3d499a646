//! From trees to one file: squashfs with its dm-verity tree, the boot partition, the partition table.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::tools::{run, tool};
use super::{Board, ImageError, mbr};

/// Partitions begin at multiples of this many bytes.
pub const MIB: u64 = 1 << 20;
/// The block size of dm-verity, in bytes.
const BLOCK: u64 = 4096;

/// A root file system, ready for a slot.
#[derive(Clone, Debug)]
pub struct VerityRoot {
    /// Blocks of data; the tree follows.
    pub blocks: u64,
    /// The root hash, hexadecimal.
    pub hash: String,
    /// The salt, hexadecimal.
    pub salt: String,
    /// Length of the file, in bytes.
    pub bytes: u64,
}

/// Packs `tree` into `out` as squashfs and appends the dm-verity tree.
///
/// # Errors
/// [`ImageError`].
pub fn pack_root(tree: &Path, epoch: u64, out: &Path) -> Result<VerityRoot, ImageError> {
    let mut pack = tool("mksquashfs", epoch)?;
    // The times are options here, and this program takes one or the other.
    pack.env_remove("SOURCE_DATE_EPOCH").arg(tree).arg(out);
    pack.args([
        "-noappend",
        "-quiet",
        "-no-progress",
        "-all-root",
        "-no-xattrs",
        "-no-exports",
        "-comp",
        "xz",
        "-b",
        "256K",
    ]);
    pack.args(["-mkfs-time", &epoch.to_string(), "-all-time", &epoch.to_string()]);
    run(&mut pack)?;
    let mut file = File::options().read(true).write(true).open(out).map_err(ImageError::io(out))?;
    let bytes = file.metadata().map_err(ImageError::io(out))?.len().next_multiple_of(BLOCK);
    file.set_len(bytes).map_err(ImageError::io(out))?;
    let salt = hex::encode(sha256(&mut file, out)?);
    let blocks = bytes / BLOCK;
    let mut format = tool("veritysetup", epoch)?;
    format.arg("format").args([
        "--no-superblock",
        "--hash=sha256",
        "--data-block-size=4096",
        "--hash-block-size=4096",
    ]);
    format
        .arg(format!("--salt={salt}"))
        .arg(format!("--hash-offset={bytes}"))
        .arg(format!("--data-blocks={blocks}"));
    let said = run(format.arg(out).arg(out))?;
    let hash = said
        .lines()
        .find_map(|line| line.strip_prefix("Root hash:"))
        .map(|hash| hash.trim().to_owned())
        .filter(|hash| hash.len() == 64)
        .ok_or_else(|| ImageError::Tool {
            tool: "veritysetup".into(),
            said: "it names no root hash".into(),
        })?;
    let bytes = std::fs::metadata(out).map_err(ImageError::io(out))?.len();
    Ok(VerityRoot { blocks, hash, salt, bytes })
}

/// What the boot partition is made of.
#[derive(Debug)]
pub struct BootFiles<'a> {
    /// The boot loader: each file's name on the partition, and the file.
    pub loader: &'a [(String, PathBuf)],
    /// The kernel.
    pub kernel: &'a Path,
    /// The initrd.
    pub initrd: &'a Path,
    /// The root of both slots.
    pub root: &'a VerityRoot,
    /// Shown by the boot loader.
    pub version: &'a str,
    /// Added to the kernel's options.
    pub options: &'a str,
    /// The wireless network, for wpa_supplicant.
    pub wifi: Option<String>,
}

/// Writes the boot partition: both slots with the same files, slot a first. Its size in bytes.
///
/// # Errors
/// [`ImageError`].
pub fn pack_boot(
    out: &Path,
    work: &Path,
    board: Board,
    epoch: u64,
    files: &BootFiles<'_>,
) -> Result<u64, ImageError> {
    let length = |path: &Path| std::fs::metadata(path).map(|m| m.len()).map_err(ImageError::io(path));
    let mut content = 2 * (length(files.kernel)? + length(files.initrd)?);
    for (_, file) in files.loader {
        content += length(file)?;
    }
    // File tables and folders, and room for entries that an update adds.
    let size = (content + 2 * MIB).next_multiple_of(MIB).max(40 * MIB);
    let file = File::create(out).and_then(|file| file.set_len(size));
    file.map_err(ImageError::io(out))?;
    let id = hex::encode(&Sha256::digest(&files.root.hash)[..4]);
    run(tool("mkfs.vfat", epoch)?.args(["--invariant", "-F", "32", "-n", "FACELATCH", "-i", &id]).arg(out))?;
    let mut folders = BTreeSet::from(
        ["loader", "loader/entries", "facelatch", "facelatch/a", "facelatch/b"].map(Path::new),
    );
    folders.extend(files.loader.iter().flat_map(|(name, _)| Path::new(name).ancestors().skip(1)));
    folders.remove(Path::new(""));
    run(tool("mmd", epoch)?
        .arg("-i")
        .arg(out)
        .args(folders.iter().map(|name| format!("::{}", name.display()))))?;
    let put = |from: &Path, name: &str| {
        // With the image's time, not that of the package.
        let copy = work.join("put");
        std::fs::copy(from, &copy).map_err(ImageError::io(from))?;
        run(std::process::Command::new("touch").args(["-d", &format!("@{epoch}")]).arg(&copy))?;
        run(tool("mcopy", epoch)?.arg("-i").arg(out).arg("-m").arg(&copy).arg(format!("::{name}"))).map(drop)
    };
    let write = |name: &str, text: &str| {
        let file = work.join("text");
        std::fs::write(&file, text).map_err(ImageError::io(&file))?;
        put(&file, name)
    };
    for (name, file) in files.loader {
        put(file, name)?;
    }
    if let Some(wifi) = &files.wifi {
        write("facelatch/wifi.conf", wifi)?;
    }
    // The newest version that has tries left is booted.
    for (slot, number) in [("a", "2"), ("b", "1")] {
        put(files.kernel, &format!("facelatch/{slot}/linux"))?;
        put(files.initrd, &format!("facelatch/{slot}/initrd"))?;
        write(&format!("loader/entries/facelatch-{slot}+3.conf"), &entry(slot, number, board, files))?;
    }
    Ok(size)
}

/// A Boot Loader Specification entry (type 1); U-Boot cannot read one, but takes lines `name=value`.
pub(super) fn entry(slot: &str, number: &str, board: Board, files: &BootFiles<'_>) -> String {
    let VerityRoot { blocks, hash, salt, .. } = files.root;
    let mut options = format!("quiet panic=5 gpt {}", board.kernel_options());
    if !files.options.is_empty() {
        options = format!("{options} {}", files.options);
    }
    let options = format!("{options} facelatch.slot={slot} facelatch.verity={blocks}:{hash}:{salt}");
    let title = format!("title Facelatch {} (slot {slot})", files.version);
    match board {
        Board::GenericArm64 => format!(
            "{title}\nsort-key facelatch\nversion {number}\nlinux /facelatch/{slot}/linux\n\
             initrd /facelatch/{slot}/initrd\noptions {options}\n"
        ),
        // An entry without its last line was cut short.
        Board::RpiArm64 => format!(
            "{title}\nversion {number}\nfacelatch_number={number}\nfacelatch_options={options}\nfacelatch_end=yes\n"
        ),
    }
}

/// Where a partition lies, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its first byte.
    pub start: u64,
    /// Its length.
    pub bytes: u64,
}

/// The partitions of an image, in order: boot, root a, root b.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The boot partition.
    pub boot: Place,
    /// The roots.
    pub roots: [Place; 2],
}

impl Layout {
    /// For these sizes, each rounded up; a root has `spare` bytes for larger ones that come as updates.
    #[must_use]
    pub const fn new(boot: u64, root: u64, spare: u64) -> Self {
        let root = (root + spare).next_multiple_of(MIB);
        let boot = Place { start: MIB, bytes: boot.next_multiple_of(MIB) };
        let a = Place { start: boot.start + boot.bytes, bytes: root };
        let b = Place { start: a.start + a.bytes, bytes: root };
        Self { boot, roots: [a, b] }
    }

    /// The image's length: the last MiB is the second copy of the table's.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.roots[1].start + self.roots[1].bytes + MIB
    }
}

/// Writes the image.
///
/// # Errors
/// [`ImageError`].
pub fn assemble(
    out: &Path,
    board: Board,
    layout: &Layout,
    boot: &Path,
    root: &Path,
    identity: &str,
    epoch: u64,
) -> Result<(), ImageError> {
    let mut image = File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(out)
        .map_err(ImageError::io(out))?;
    image.set_len(layout.bytes()).map_err(ImageError::io(out))?;
    let sectors = |place: Place| format!("start={}, size={}", place.start / 512, place.bytes / 512);
    let script = format!(
        "label: gpt\nlabel-id: {}\nfirst-lba: 2048\n\
         {}, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid={}, name=\"facelatch-boot\"\n\
         {}, type=B921B045-1DF0-41C3-AF44-4C6F280D3FAE, uuid={}, name=\"facelatch-root-a\"\n\
         {}, type=B921B045-1DF0-41C3-AF44-4C6F280D3FAE, uuid={}, name=\"facelatch-root-b\"\n",
        uuid(identity, "disk"),
        sectors(layout.boot),
        uuid(identity, "boot"),
        sectors(layout.roots[0]),
        uuid(identity, "root a"),
        sectors(layout.roots[1]),
        uuid(identity, "root b"),
    );
    let file = out.with_extension("gpt");
    std::fs::write(&file, script).map_err(ImageError::io(&file))?;
    let input = File::open(&file).map_err(ImageError::io(&file))?;
    run(tool("sfdisk", epoch)?
        .args(["--quiet", "--wipe", "never", "--no-reread", "--no-tell-kernel"])
        .arg(out)
        .stdin(input))?;
    std::fs::remove_file(&file).map_err(ImageError::io(&file))?;
    if board == Board::RpiArm64 {
        let mut id = [0; 4];
        id.copy_from_slice(&Sha256::digest(identity)[..4]);
        let mbr = mbr::hybrid(layout.boot, id);
        image.rewind().and_then(|()| image.write_all(&mbr)).map_err(ImageError::io(out))?;
    }
    for (from, place) in [(boot, layout.boot), (root, layout.roots[0]), (root, layout.roots[1])] {
        copy_into(&mut image, place, from).map_err(ImageError::io(from))?;
    }
    image.sync_all().map_err(ImageError::io(out))
}

/// Copies a file to its place; runs of zeros stay holes.
fn copy_into(image: &mut File, place: Place, from: &Path) -> std::io::Result<()> {
    let mut from = File::open(from)?;
    let mut at = place.start;
    let mut chunk = vec![0; MIB as usize];
    loop {
        let mut have = 0;
        while have < chunk.len() {
            match from.read(&mut chunk[have..])? {
                0 => break,
                n => have += n,
            }
        }
        if have == 0 {
            return Ok(());
        }
        if chunk[..have].iter().any(|byte| *byte != 0) {
            image.seek(SeekFrom::Start(at))?;
            image.write_all(&chunk[..have])?;
        }
        at += have as u64;
    }
}

/// An identifier that follows from what is identified (RFC 9562, version 8).
#[must_use]
pub fn uuid(identity: &str, what: &str) -> String {
    let mut id = [0; 16];
    id.copy_from_slice(&Sha256::digest(format!("facelatch image\0{identity}\0{what}"))[..16]);
    id[6] = id[6] & 0x0f | 0x80;
    id[8] = id[8] & 0x3f | 0x80;
    let hex = hex::encode_upper(id);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// SHA-256 of the whole file.
pub(crate) fn sha256(file: &mut File, path: &Path) -> Result<[u8; 32], ImageError> {
    let mut hash = Sha256::new();
    let hashed = file.seek(SeekFrom::Start(0)).and_then(|_| {
        let mut chunk = vec![0; MIB as usize];
        loop {
            match file.read(&mut chunk)? {
                0 => return Ok(()),
                n => hash.update(&chunk[..n]),
            }
        }
    });
    hashed.map_err(ImageError::io(path))?;
    Ok(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_follow_each_other_and_leave_room_for_the_table() {
        let layout = Layout::new(40 * MIB + 1, 10 * MIB + 5, 4 * MIB);
        assert_eq!(layout.boot, Place { start: MIB, bytes: 41 * MIB });
        assert_eq!(layout.roots[0], Place { start: 42 * MIB, bytes: 15 * MIB });
        assert_eq!(layout.roots[1], Place { start: 57 * MIB, bytes: 15 * MIB });
        assert_eq!(layout.bytes(), 73 * MIB);
    }

    #[test]
    fn identifiers_follow_from_contents() {
        assert_eq!(uuid("x", "disk"), uuid("x", "disk"));
        assert_ne!(uuid("x", "disk"), uuid("x", "boot"));
        assert_ne!(uuid("x", "disk"), uuid("y", "disk"));
        let id = uuid("x", "disk");
        assert_eq!((id.len(), &id[14..15]), (36, "8"), "{id}");
    }

    #[test]
    fn the_entry_carries_slot_and_root_hash() {
        let root = VerityRoot { blocks: 9, hash: "ab".repeat(32), salt: "cd".repeat(32), bytes: 0 };
        let none = Path::new("");
        let files = BootFiles {
            loader: &[],
            kernel: none,
            initrd: none,
            root: &root,
            version: "0.1.0",
            options: "facelatch.log=info",
            wifi: None,
        };
        let text = entry("b", "1", Board::GenericArm64, &files);
        assert!(text.contains("\nlinux /facelatch/b/linux\n") && text.contains("\nversion 1\n"), "{text}");
        let verity = format!("facelatch.slot=b facelatch.verity=9:{}:{}\n", "ab".repeat(32), "cd".repeat(32));
        assert!(text.ends_with(&verity) && text.contains(" facelatch.log=info "), "{text}");
        // U-Boot's `env import` passes over lines of other names; the system's installer reads the number as in the other entry.
        let text = entry("b", "1", Board::RpiArm64, &files);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1..3], ["version 1", "facelatch_number=1"]);
        assert!(lines[3].starts_with("facelatch_options=quiet panic=5 gpt console=ttyS1,115200 "), "{text}");
        assert!(lines[3].ends_with(verity.trim_end()) && lines[4..] == ["facelatch_end=yes"], "{text}");
    }
}

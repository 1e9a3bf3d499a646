//! Debian's packages for the board, fetched by name.

use std::path::{Path, PathBuf};

use super::ImageError;
use super::apt::Apt;
use super::tools::{run, tool};

/// What images are made of, beside the kernel.
const NAMES: [&str; 41] = [
    "busybox-static",
    "dmsetup",
    "e2fsprogs",
    "fdisk",
    "libblkid1",
    "libc6",
    "libcom-err2",
    "libdevmapper1.02.1",
    "libext2fs2",
    "libfdisk1",
    "libgcc-s1",
    "libpcre2-8-0",
    "libreadline8",
    "libselinux1",
    "libsmartcols1",
    "libss2",
    "libtinfo6",
    "libudev1",
    "libuuid1",
    "systemd-boot-efi",
    // Wi-Fi, with what wpa_supplicant needs.
    "wpasupplicant",
    "libcap2",
    "libdbus-1-3",
    "libgcrypt20",
    "libgpg-error0",
    "liblz4-1",
    "liblzma5",
    "libnl-3-200",
    "libnl-genl-3-200",
    "libnl-route-3-200",
    "libpcsclite1",
    "libssl3",
    "libsystemd0",
    "libzstd1",
    // Debian's releases after 12 call these otherwise.
    "libext2fs2t64",
    "libreadline8t64",
    "libcom-err2t64",
    "libss2t64",
    "libssl3t64",
    "libpcsclite1t64",
    "libnl-3-200t64",
];

/// Packages of no architecture: what each country allows on the air, and the firmware of wireless cards that Debian has as free software.
const DATA: [&str; 2] = ["firmware-ath9k-htc", "wireless-regdb"];

/// Unpacked packages.
#[derive(Clone, Debug)]
pub struct Packages {
    /// Where they were unpacked, as one tree.
    pub tree: PathBuf,
    /// The kernel's version, such as `6.1.0-32-arm64`.
    pub kernel: String,
    /// `name_version_architecture` of each, sorted.
    pub names: Vec<String>,
}

impl Packages {
    /// The packages in `cache`, fetched when they are not there yet (`refresh`: in any case, at today's versions).
    ///
    /// # Errors
    /// [`ImageError`] when the archive cannot be read.
    pub fn get(cache: &Path, refresh: bool) -> Result<Self, ImageError> {
        let complete = cache.join("complete");
        if refresh || !complete.is_file() {
            fetch(cache)?;
        }
        let listed = std::fs::read_to_string(&complete).map_err(ImageError::io(&complete))?;
        let mut lines = listed.lines().map(str::to_owned);
        let kernel = lines.next().unwrap_or_default();
        Ok(Self { tree: cache.join("tree"), kernel, names: lines.collect() })
    }

    /// A file of the tree: with or without `/usr` before it, as the release has it.
    ///
    /// # Errors
    /// [`ImageError::Input`] when no package has it.
    pub fn file(&self, path: &str) -> Result<PathBuf, ImageError> {
        [self.tree.join(path), self.tree.join("usr").join(path)]
            .into_iter()
            .find(|path| path.exists())
            .ok_or_else(|| ImageError::input(format!("no package of this release has {path}")))
    }
}

fn fetch(cache: &Path) -> Result<(), ImageError> {
    let fresh = cache.with_extension("partial");
    let _ = std::fs::remove_dir_all(&fresh);
    let (folder, tree) = (fresh.join("apt"), fresh.join("tree"));
    let apt = Apt::new(&folder, None)?;
    // Some lists of a machine may not be readable; whether the packages are there is seen below.
    let update = apt.update();
    let depends = apt.cache(&["depends", "linux-image-arm64:arm64"]).unwrap_or_default();
    let kernel = depends
        .split([' ', ':', '\n'])
        .find_map(|word| word.strip_prefix("linux-image-").filter(|v| v.starts_with(|c: char| c.is_ascii_digit())))
        .ok_or_else(|| ImageError::input("apt knows no linux-image-arm64: this needs Debian's archive, and apt-get update must be able to read it"))?
        .to_owned();
    let mut wanted = vec![format!("linux-image-{kernel}:arm64")];
    // Names that this release does not have are passed over by this command: ` name | version | source`.
    let names = NAMES.map(|name| format!("{name}:arm64"));
    let known = apt.cache(&[&["madison"], &names.each_ref().map(String::as_str)[..]].concat())?;
    // As they were asked for, or, by other versions of apt, without the architecture.
    let known: Vec<&str> = known
        .lines()
        .filter_map(|line| line.split('|').next())
        .map(|name| name.trim().trim_end_matches(":arm64"))
        .collect();
    // Present in every release: without one of them a list was not read, and what is fetched would be no whole tree.
    if let Some(lost) =
        ["busybox-static", "systemd-boot-efi", "wpasupplicant"].iter().find(|name| !known.contains(name))
    {
        let said = update.map_or_else(|error| format!(" ({error})"), |()| String::new());
        return Err(ImageError::input(format!(
            "apt's lists lack {lost}{said}: run this again; `apt-get update` shows what cannot be read"
        )));
    }
    wanted.extend(NAMES.iter().filter(|name| known.contains(name)).map(|name| format!("{name}:arm64")));
    wanted.extend(DATA.map(str::to_owned));
    let names = apt.unpack(&wanted, &tree)?;
    // Releases after 12 have everything below /usr; modprobe looks above.
    if !tree.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", tree.join("lib")).map_err(ImageError::io(&tree))?;
    }
    // The package's modules come without their index.
    run(tool("depmod", 0)?.arg("-b").arg(&tree).arg(&kernel))?;
    std::fs::remove_dir_all(&folder).map_err(ImageError::io(&folder))?;
    let complete = fresh.join("complete");
    std::fs::write(&complete, format!("{kernel}\n{}\n", names.join("\n")))
        .map_err(ImageError::io(&complete))?;
    let _ = std::fs::remove_dir_all(cache);
    std::fs::rename(&fresh, cache).map_err(ImageError::io(cache))
}

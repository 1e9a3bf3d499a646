//! Debian's packages for the board, fetched by name by an apt of our own: the machine's list of architectures stays as it is, nothing is
//! installed, and root is not needed.

use std::path::{Path, PathBuf};

use super::ImageError;
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
    let (apt, debs, tree) = (fresh.join("apt"), fresh.join("debs"), fresh.join("tree"));
    for folder in [&debs, &tree, &apt.join("lists/partial"), &apt.join("archives/partial")] {
        std::fs::create_dir_all(folder).map_err(ImageError::io(folder))?;
    }
    let here = run(tool("dpkg-deb", 0)?.arg("--version")).and_then(|_| native())?;
    let conf = apt.join("conf");
    let folder = apt.display();
    let text = format!(
        "#clear APT::Architectures;\nAPT::Sandbox::User \"root\";\nAPT::Architectures {{ \"{here}\"; \"arm64\"; }};\n\
         Dir::State::Lists \"{folder}/lists\";\nDir::Cache \"{folder}\";\nAcquire::Languages \"none\";\n"
    );
    std::fs::write(&conf, text).map_err(ImageError::io(&conf))?;
    // Some lists of a machine may not be readable; whether the packages are there is seen below.
    let update = run(tool("apt-get", 0)?.env("APT_CONFIG", &conf).args(["update", "-qq"]));
    let apt_cache = |arguments: &[&str]| run(tool("apt-cache", 0)?.env("APT_CONFIG", &conf).args(arguments));
    let depends = apt_cache(&["depends", "linux-image-arm64:arm64"]).unwrap_or_default();
    let kernel = depends
        .split([' ', ':', '\n'])
        .find_map(|word| word.strip_prefix("linux-image-").filter(|v| v.starts_with(|c: char| c.is_ascii_digit())))
        .ok_or_else(|| ImageError::input("apt knows no linux-image-arm64: this needs Debian's archive, and apt-get update must be able to read it"))?
        .to_owned();
    let mut wanted = vec![format!("linux-image-{kernel}:arm64")];
    // Names that this release does not have are passed over by this command: ` name | version | source`.
    let names = NAMES.map(|name| format!("{name}:arm64"));
    let known = apt_cache(&[&["madison"], &names.each_ref().map(String::as_str)[..]].concat())?;
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
        let said = update.map_or_else(|error| format!(" ({error})"), |_| String::new());
        return Err(ImageError::input(format!(
            "apt's lists lack {lost}{said}: run this again; `apt-get update` shows what cannot be read"
        )));
    }
    wanted.extend(NAMES.iter().filter(|name| known.contains(name)).map(|name| format!("{name}:arm64")));
    wanted.extend(DATA.map(str::to_owned));
    run(tool("apt-get", 0)?
        .env("APT_CONFIG", &conf)
        .current_dir(&debs)
        .args(["download", "-qq"])
        .args(&wanted))?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&debs).map_err(ImageError::io(&debs))? {
        let path = entry.map_err(ImageError::io(&debs))?.path();
        run(tool("dpkg-deb", 0)?.arg("-x").arg(&path).arg(&tree))?;
        names.push(path.file_stem().unwrap_or_default().to_string_lossy().replace("%3a", ":"));
    }
    names.sort_unstable();
    // Releases after 12 have everything below /usr; modprobe looks above.
    if !tree.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", tree.join("lib")).map_err(ImageError::io(&tree))?;
    }
    // The package's modules come without their index.
    run(tool("depmod", 0)?.arg("-b").arg(&tree).arg(&kernel))?;
    for folder in [&apt, &debs] {
        std::fs::remove_dir_all(folder).map_err(ImageError::io(folder))?;
    }
    let complete = fresh.join("complete");
    std::fs::write(&complete, format!("{kernel}\n{}\n", names.join("\n")))
        .map_err(ImageError::io(&complete))?;
    let _ = std::fs::remove_dir_all(cache);
    std::fs::rename(&fresh, cache).map_err(ImageError::io(cache))
}

/// This machine's architecture in Debian's words.
fn native() -> Result<&'static str, ImageError> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        "arm" => Ok("armhf"),
        other => Err(ImageError::input(format!("images are built on amd64 or arm64, this is {other}"))),
    }
}

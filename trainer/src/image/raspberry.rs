//! What starts a Raspberry Pi: its own firmware, which reads a FAT partition, and U-Boot with a script that takes a slot.
//!
//! ```text
//! boot ROM ─ bootcode.bin ─ start.elf, config.txt, device tree ─ u-boot.bin ─ boot.scr ─ kernel's EFI stub
//!            └── a Pi 3 and Zero 2 W; a Pi 4 has it in a chip and takes start4.elf
//! ```
//!
//! The firmware is Debian's package `raspi-firmware` of its component non-free-firmware: Broadcom's licence, for a Raspberry Pi only. It is
//! fetched where an image for this board is built.

use std::path::{Path, PathBuf};

use super::ImageError;
use super::apt::Apt;
use super::loader::Loader;
use super::packages::Packages;
use super::uboot;

/// This board's [`Loader`].
pub(super) fn loader(
    packages: &Packages,
    cache: &Path,
    epoch: u64,
    work: &Path,
) -> Result<Loader, ImageError> {
    let cache = cache.join("raspberry");
    let complete = cache.join("complete");
    if !complete.is_file() {
        fetch(&cache)?;
    }
    let listed = std::fs::read_to_string(&complete).map_err(ImageError::io(&complete))?;
    let tree = cache.join("tree");
    let mut files: Vec<(String, PathBuf)> = FIRMWARE
        .iter()
        .map(|name| ((*name).to_owned(), tree.join("usr/lib/raspi-firmware").join(name)))
        .collect();
    files.push(("u-boot.bin".into(), tree.join("usr/lib/u-boot/rpi_arm64/u-boot.bin")));
    // Its licence asks for that.
    files.push(("LICENCE.txt".into(), tree.join("usr/share/doc/raspi-firmware/copyright")));
    if let Some((_, lost)) = files.iter().find(|(_, file)| !file.is_file()) {
        return Err(ImageError::input(format!("Debian's packages have no {}", lost.display())));
    }
    files.extend(device_trees(&packages.file(&format!("lib/linux-image-{}/broadcom", packages.kernel))?)?);
    let environment = uboot::environment(&ENVIRONMENT, ENVIRONMENT_BYTES)?;
    for (name, bytes) in [
        ("config.txt", include_bytes!("board/config.txt").to_vec()),
        ("boot.scr", uboot::script(SCRIPT, epoch)),
        ("uboot.env", environment),
    ] {
        let file = work.join(name);
        std::fs::write(&file, bytes).map_err(ImageError::io(&file))?;
        files.push((name.into(), file));
    }
    Ok(Loader { files, packages: listed.lines().map(str::to_owned).collect() })
}

/// Those of the kernel for 64-bit boards with these chips, by the names that the firmware looks for with `upstream_kernel=1`.
fn device_trees(folder: &Path) -> Result<Vec<(String, PathBuf)>, ImageError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(ImageError::io(folder))? {
        let path = entry.map_err(ImageError::io(folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if CHIPS.iter().any(|chip| name.starts_with(chip)) && name.ends_with(".dtb") {
            found.push((name, path));
        }
    }
    found.sort_unstable();
    if found.is_empty() {
        return Err(ImageError::input(format!("{} has no device tree of a Raspberry Pi", folder.display())));
    }
    Ok(found)
}

fn fetch(cache: &Path) -> Result<(), ImageError> {
    let fresh = cache.with_extension("partial");
    let _ = std::fs::remove_dir_all(&fresh);
    // The machine's own sources tell which archive is Debian's, and which release this is.
    let own = Apt::new(&fresh.join("own"), None)?;
    let read = own.update();
    let source = source(&own.targets(TARGETS)?, |path| std::fs::read_to_string(path).ok())?;
    let apt = Apt::new(&fresh.join("apt"), Some(&source))?;
    let update = read.and_then(|()| apt.update());
    let known = apt.cache(&["madison", PACKAGES[0], PACKAGES[1]])?;
    if let Some(lost) = PACKAGES.iter().find(|name| !known.contains(name.trim_end_matches(":arm64"))) {
        let said = update.map_or_else(|error| format!(" ({error})"), |()| String::new());
        return Err(ImageError::input(format!(
            "no {lost} in this archive{said}; it takes Debian 12 or newer, and its component non-free-firmware:\n{source}"
        )));
    }
    let names = apt.unpack(&PACKAGES.map(str::to_owned), &fresh.join("tree"))?;
    for folder in ["own", "apt"].map(|name| fresh.join(name)) {
        std::fs::remove_dir_all(&folder).map_err(ImageError::io(folder))?;
    }
    let complete = fresh.join("complete");
    std::fs::write(&complete, names.join("\n") + "\n").map_err(ImageError::io(complete))?;
    let _ = std::fs::remove_dir_all(cache);
    std::fs::rename(&fresh, cache).map_err(ImageError::io(cache))
}

/// A source of Debian's archive that names non-free-firmware too, as `targets` (in the format [`TARGETS`]) and the files that they come from
/// say: the same archive, release and keyring. The machine's own list need not name that component.
fn source(targets: &str, read: impl Fn(&Path) -> Option<String>) -> Result<String, ImageError> {
    let found = targets.lines().find_map(|line| {
        let fields: Vec<&str> = line.split('|').collect();
        let [origin, component, release, archive, entry] = fields[..] else { return None };
        // Not its updates, nor its security archive.
        (origin == "Debian" && component == "main" && !release.contains('-'))
            .then_some((release, archive, entry))
    });
    let (release, archive, entry) = found.ok_or_else(|| {
        ImageError::input(
            "the firmware of a Raspberry Pi comes from Debian's component non-free-firmware, and this machine's sources name no Debian \
             archive (Ubuntu has no such package): build this image on Debian 12 or newer",
        )
    })?;
    let mut text =
        format!("Types: deb\nURIs: {archive}\nSuites: {release}\nComponents: main non-free-firmware\n");
    let (file, number) = entry.rsplit_once(':').unwrap_or((entry, "1"));
    let (listed, number) = (read(Path::new(file)).unwrap_or_default(), number.parse().unwrap_or(1));
    // Without one, apt takes the machine's trusted keys.
    if let Some(keyring) = keyring(&listed, number) {
        text += &format!("Signed-By: {keyring}\n");
    }
    Ok(text)
}

/// What an entry of a file of sources says of keys: the `number`th paragraph (deb822), or the line of that number.
fn keyring(listed: &str, number: usize) -> Option<String> {
    if let Some(line) = listed.lines().nth(number.checked_sub(1)?).filter(|line| line.starts_with("deb ")) {
        let rest = line.split_once("signed-by=")?.1;
        return rest.split([' ', ']']).next().map(str::to_owned);
    }
    let paragraph = listed.split("\n\n").filter(|text| !text.trim().is_empty()).nth(number - 1)?;
    let mut lines = paragraph.lines().skip_while(|line| !line.to_ascii_lowercase().starts_with("signed-by:"));
    let first = lines.next()?.split_once(':')?.1.trim();
    // A key itself may follow, each line of it indented.
    let key = lines.take_while(|line| line.starts_with(' ')).map(|line| format!("\n{line}"));
    Some(first.to_owned() + &key.collect::<String>())
}

/// The firmware proper, as its package has it: for a Pi 3 and Zero 2 W, and for a Pi 4.
const FIRMWARE: [&str; 5] = ["bootcode.bin", "start.elf", "fixup.dat", "start4.elf", "fixup4.dat"];
const PACKAGES: [&str; 2] = ["u-boot-rpi:arm64", "raspi-firmware"];
/// Pi 3, Zero 2 W, CM3; Pi 4, 400, CM4.
const CHIPS: [&str; 2] = ["bcm2837-rpi-", "bcm2711-rpi-"];
const TARGETS: &str = "$(ORIGIN)|$(COMPONENT)|$(RELEASE)|$(REPO_URI)|$(SOURCESENTRY)";
const SCRIPT: &str = include_str!("board/uboot");

/// What this U-Boot keeps in a file (its `CONFIG_ENV_SIZE`).
const ENVIRONMENT_BYTES: usize = 0x4000;

/// A key on the serial line, or noise where nothing is plugged in, does not stop the start, and nothing leads to the prompt. Where U-Boot does
/// not find this file (it looks on `mmc 0`, which on a Pi 4 is the wireless chip), its own environment finds the same script, after two seconds
/// in which it listens for a key.
const ENVIRONMENT: [(&str, &str); 6] = [
    ("bootdelay", "-2"),
    (
        "bootcmd",
        "setenv distro_bootpart 1; setenv devtype mmc; for n in 0 1 2; do setenv devnum ${n}; run facelatch; done; \
         usb start; setenv devtype usb; setenv devnum 0; run facelatch; reset",
    ),
    ("facelatch", "if load ${devtype} ${devnum}:1 02400000 boot.scr; then source 02400000; fi"),
    ("stdin", "serial"),
    ("stdout", "serial"),
    ("stderr", "serial"),
];

#[cfg(test)]
mod tests {
    use super::*;

    const DEB822: &str = "Types: deb\nURIs: http://archive/debian\nSuites: bookworm bookworm-updates\nComponents: main\n\
        Signed-By: /usr/share/keyrings/debian.gpg\n\nTypes: deb\nURIs: http://archive/security\nSuites: bookworm-security\n\
        Components: main\nSigned-By: /usr/share/keyrings/security.gpg\n";

    #[test]
    fn the_source_is_the_machines_own_with_one_more_component() {
        let targets = "Debian|main|bookworm-security|http://archive/security/|/etc/apt/debian.sources:2\n\
            Nodesource|main|nodistro|http://node/|/etc/apt/node.sources:1\n\
            Debian|main|bookworm|http://archive/debian/|/etc/apt/debian.sources:1\n";
        let read = |path: &Path| (path == Path::new("/etc/apt/debian.sources")).then(|| DEB822.to_owned());
        assert_eq!(
            source(targets, read).unwrap(),
            "Types: deb\nURIs: http://archive/debian/\nSuites: bookworm\nComponents: main non-free-firmware\n\
             Signed-By: /usr/share/keyrings/debian.gpg\n"
        );
        let ubuntu = "Ubuntu|main|noble|http://ubuntu/|/etc/apt/ubuntu.sources:1\n";
        let error = source(ubuntu, |_| None).unwrap_err().to_string();
        assert!(
            error.contains("non-free-firmware") && error.contains("build this image on Debian 12"),
            "{error}"
        );
    }

    #[test]
    fn keys_are_found_in_every_form_of_entry() {
        assert_eq!(keyring(DEB822, 2).as_deref(), Some("/usr/share/keyrings/security.gpg"));
        let one_line = "# a comment\ndeb [arch=amd64 signed-by=/k.gpg] http://archive/debian bookworm main\n";
        assert_eq!(keyring(one_line, 2).as_deref(), Some("/k.gpg"));
        assert_eq!(keyring("deb http://archive/debian bookworm main\n", 1), None);
        let key = "Types: deb\nSigned-By:\n -----BEGIN\n .\n abc\nURIs: x\n";
        assert_eq!(keyring(key, 1).as_deref(), Some("\n -----BEGIN\n .\n abc"));
    }

    #[test]
    fn only_device_trees_of_boards_that_are_supported_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        for name in
            ["bcm2837-rpi-3-b.dtb", "bcm2711-rpi-4-b.dtb", "bcm2712-rpi-5-b.dtb", "bcm2837-rpi-3-b.dts"]
        {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let found = device_trees(folder.path()).unwrap();
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["bcm2711-rpi-4-b.dtb", "bcm2837-rpi-3-b.dtb"]);
        assert!(device_trees(tempfile::tempdir().unwrap().path()).is_err());
    }
}

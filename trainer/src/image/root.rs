//! The read-only root file system: busybox, the door's program, its models, the drivers that a door may need, and scripts that bring it up.

use std::path::{Path, PathBuf};

use facelatch_shared::vision::manifest::Manifest;

use super::packages::Packages;
use super::userland::Tree;
use super::{Board, ImageError};

/// Programs of busybox that the board's scripts, and whoever stands at a console, may call.
const APPLETS: &str = "[ ash awk basename blockdev cat chgrp chmod chown clear cmp cp cut date dd df dirname dmesg du echo env expr false \
    find free fsync getty grep gzip gunzip head hexdump hostname id ifconfig init ip kill killall ln logger ls lsmod md5sum mkdir mknod \
    mktemp modprobe more mount mv nproc pidof ping poweroff printf ps pwd readlink realpath reboot rm rmdir sed seq setsid sh sha256sum \
    sleep sort stat stty su sync tail tar tee test time timeout top touch tr true udhcpc uevent umount uname uniq uptime vi wc which who \
    xargs yes";

/// Beside what every part of the hardware asks for by its identity: cameras, panels, wires, networks, watchdogs, and the tests' camera.
const MODULES: [&str; 56] = [
    "virtio_pci",
    "virtio_mmio",
    "virtio_blk",
    "virtio_net",
    "virtio-gpu",
    "virtio_input",
    "ext4",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "crc32c_generic",
    "uvcvideo",
    "xhci-pci",
    "xhci-plat-hcd",
    "ehci-pci",
    "ehci-platform",
    "ohci-platform",
    "dwc2",
    "dwc3",
    "usbhid",
    "hid-generic",
    "usb-storage",
    "evdev",
    "i2c-dev",
    "spidev",
    "i2c-bcm2835",
    "spi-bcm2835",
    "bcm2835-wdt",
    "bcm2835_unicam",
    "vc4",
    "i6300esb",
    "sbsa_gwdt",
    "softdog",
    "gpio-pca953x",
    "gpio-mcp23s08",
    "gpio_keys",
    "genet",
    "r8152",
    "smsc95xx",
    "lan78xx",
    "ax88179_178a",
    "cdc_ether",
    "e1000e",
    "r8169",
    "stmmac-platform",
    // A Raspberry Pi's.
    "fixed",
    "gpio-regulator",
    "phy-generic",
    "reset-raspberrypi",
    "pwrseq_simple",
    "bcm2835-rng",
    "iproc-rng200",
    "broadcom",
    "mdio-bcm-unimac",
    "bcm2835_thermal",
    "bcm2711_thermal",
];

/// Drivers of wireless networks that no hardware asks for by identity alone, and those of cards that are met often. Most want firmware of
/// their makers, which `--add` can bring.
const WIFI_MODULES: [&str; 23] = [
    "cfg80211",
    "mac80211",
    "ath9k_htc",
    "brcmfmac",
    "rtl8xxxu",
    "rtw88_8822bu",
    "rtw88_8822cu",
    "mt7601u",
    "mt76x0u",
    "mt76x2u",
    "mt7921u",
    "rt2800usb",
    "carl9170",
    "iwlwifi",
    "ath10k_pci",
    "aes_generic",
    "aes-arm64",
    "aes-ce-blk",
    "aes-ce-ccm",
    "ccm",
    "cmac",
    "ctr",
    "gcm",
];

/// What goes in.
#[derive(Debug)]
pub struct Contents<'a> {
    /// The board.
    pub board: Board,
    /// `facelatchd` for aarch64.
    pub program: &'a Path,
    /// The model directory.
    pub models: &'a Path,
    /// The door's configuration; a door without a lock where there is none.
    pub config: Option<&'a str>,
    /// Whom the door trusts.
    pub trust: Option<&'a [u8]>,
    /// Shown in `/etc/os-release`.
    pub version: &'a str,
    /// Whether it can join wireless networks.
    pub wifi: bool,
    /// A root shell on the serial console, for development.
    pub console: bool,
    /// A folder whose files are added as they lie, for development.
    pub extra: Option<&'a Path>,
}

/// Puts the tree together in `folder`.
///
/// # Errors
/// [`ImageError`].
pub fn make(folder: &Path, packages: &Packages, contents: &Contents<'_>) -> Result<(), ImageError> {
    let tree = Tree::new(folder, packages)?;
    for name in ["proc", "sys", "dev", "run", "tmp", "data", "boot", "root", "mnt", "var", "etc"] {
        tree.folder(name)?;
    }
    tree.copy("bin/busybox", &packages.file("bin/busybox")?, 0o755)?;
    for applet in APPLETS.split_whitespace() {
        tree.link(&format!("bin/{applet}"), "busybox")?;
    }
    tree.link("sbin/init", "../bin/busybox")?;
    // Where the kernel looks for it when it needs a driver itself.
    tree.link("sbin/modprobe", "../bin/busybox")?;
    for (name, from) in
        [("sbin/mke2fs", "sbin/mke2fs"), ("sbin/e2fsck", "sbin/e2fsck"), ("sbin/resize2fs", "sbin/resize2fs")]
    {
        tree.program(name, from)?;
    }
    let elf = std::fs::read(contents.program).map_err(ImageError::io(contents.program))?;
    check_program(&elf, contents.program)?;
    tree.write("usr/bin/facelatchd", &elf, 0o755)?;
    tree.libraries_of(contents.program)?;
    copy_models(&tree, contents)?;
    settings(&tree, contents)?;
    let mut modules: Vec<&str> = MODULES.to_vec();
    if contents.wifi {
        modules.extend(WIFI_MODULES);
        add_wifi(&tree, packages)?;
    }
    if contents.console {
        modules.push("vivid");
    }
    tree.modules(&modules)?;
    if let Some(extra) = contents.extra {
        add_all(&tree, extra, extra)?;
    }
    Ok(())
}

/// wpa_supplicant, the table of what each country allows, and free firmware. Which network it is stands on the boot partition.
fn add_wifi(tree: &Tree<'_>, packages: &Packages) -> Result<(), ImageError> {
    tree.program("sbin/wpa_supplicant", "sbin/wpa_supplicant")?;
    for table in ["regulatory.db", "regulatory.db.p7s"] {
        // The plain name is a link that an installation makes.
        let file = packages.file(&format!("lib/firmware/{table}-debian"))?;
        tree.copy(&format!("lib/firmware/{table}"), &file, 0o644)?;
    }
    let folder = packages.file("lib/firmware/ath9k_htc")?;
    for entry in std::fs::read_dir(&folder).map_err(ImageError::io(&folder))? {
        let path = entry.map_err(ImageError::io(&folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        tree.copy(&format!("lib/firmware/ath9k_htc/{name}"), &path, 0o644)?;
    }
    Ok(())
}

/// The models that a door's configuration names.
pub struct NamedModels {
    /// The detector.
    pub detector: String,
    /// The embedder.
    pub embedder: String,
    /// The fiducials net, if any.
    pub fiducials: Option<String>,
}

impl NamedModels {
    /// Those of `config`, the text of a `door.toml`; of an image's own where there is none.
    ///
    /// # Errors
    /// It is no TOML.
    pub fn of(config: Option<&str>) -> Result<Self, ImageError> {
        let config: toml::Table = config
            .unwrap_or(DOOR_TOML)
            .parse()
            .map_err(|error| ImageError::input(format!("the door's configuration is no TOML: {error}")))?;
        let named = |key: &str| Some(config.get("models")?.get(key)?.as_str()?.to_owned());
        Ok(Self {
            detector: named("detector").unwrap_or_else(|| "yunet".into()),
            embedder: named("embedder").unwrap_or_else(|| "sface".into()),
            fiducials: named("fiducials"),
        })
    }
}

/// The configuration and the models that it names must fit, or the door would start without eyes.
fn copy_models(tree: &Tree<'_>, contents: &Contents<'_>) -> Result<(), ImageError> {
    let manifest = Manifest::load(contents.models).map_err(|error| ImageError::input(error.to_string()))?;
    let named = NamedModels::of(contents.config)?;
    let wanted = [Some(named.detector), Some(named.embedder), named.fiducials];
    for name in wanted.iter().flatten() {
        let entry = manifest.models.iter().find(|entry| entry.name == *name).ok_or_else(|| {
            let have: Vec<_> = manifest.models.iter().map(|entry| entry.name.as_str()).collect();
            ImageError::input(format!(
                "the door's configuration names the model {name}, {} has: {}. Name one of those, or run `facelatch models import`",
                contents.models.display(),
                have.join(", ")
            ))
        })?;
        tree.copy(&format!("{MODELS}/{}", entry.file), &contents.models.join(&entry.file), 0o644)?;
    }
    let kept = manifest
        .models
        .into_iter()
        .filter(|entry| wanted.iter().flatten().any(|name| *name == entry.name))
        .collect();
    Manifest { models: kept }
        .save(&tree.path.join(MODELS))
        .map_err(|error| ImageError::input(error.to_string()))
}

fn settings(tree: &Tree<'_>, contents: &Contents<'_>) -> Result<(), ImageError> {
    for (name, text) in SCRIPTS {
        tree.write(&format!("usr/lib/facelatch/{name}"), text.as_bytes(), 0o755)?;
    }
    let mut inittab = INITTAB.to_owned();
    if contents.console {
        inittab += "::respawn:-/bin/sh\n";
    }
    let version = contents.version;
    let board = format!("{}\n", contents.board.name());
    let release =
        format!("NAME=Facelatch\nID=facelatch\nVERSION_ID={version}\nPRETTY_NAME=\"Facelatch {version}\"\n");
    for (name, text) in [
        ("etc/inittab", inittab.as_str()),
        ("etc/facelatch/door.toml", contents.config.unwrap_or(DOOR_TOML)),
        ("etc/facelatch/board", &board),
        ("etc/os-release", &release),
        (
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nfacelatch:x:990:990:the door:/data/facelatch:/bin/false\n",
        ),
        ("etc/group", GROUPS),
        ("etc/hosts", "127.0.0.1 localhost facelatch\n"),
        ("etc/profile", "export PATH=/usr/bin:/usr/sbin:/bin:/sbin\n"),
    ] {
        tree.write(name, text.as_bytes(), 0o644)?;
    }
    tree.link("etc/resolv.conf", "../run/resolv.conf")?;
    if let Some(trust) = contents.trust {
        tree.write("etc/facelatch/root.bin", trust, 0o644)?;
    }
    Ok(())
}

fn add_all(tree: &Tree<'_>, from: &Path, folder: &Path) -> Result<(), ImageError> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(ImageError::io(folder))?
        .iter()
        .map(std::fs::DirEntry::path)
        .collect();
    paths.sort_unstable();
    for path in paths {
        if path.is_dir() {
            add_all(tree, from, &path)?;
            continue;
        }
        let name = path.strip_prefix(from).unwrap_or(&path).to_string_lossy().into_owned();
        tree.copy(&name, &path, 0o755)?;
    }
    Ok(())
}

/// Whether it is a program for a 64-bit ARM board (ELF header: class 64, machine 183).
fn check_program(elf: &[u8], path: &Path) -> Result<(), ImageError> {
    if elf.get(..5) == Some(b"\x7fELF\x02") && elf.get(18..20) == Some(&[183, 0]) {
        return Ok(());
    }
    Err(ImageError::input(format!("{} is no program for aarch64: `make device` builds one", path.display())))
}

const MODELS: &str = "usr/share/facelatch/models";
const DOOR_TOML: &str = include_str!("board/door.toml");
const INITTAB: &str = include_str!("board/inittab");
const GROUPS: &str = "root:x:0:\nfacelatch:x:990:\nvideo:x:44:facelatch\ngpio:x:991:facelatch\nspi:x:992:facelatch\ninput:x:993:facelatch\n\
    watchdog:x:994:facelatch\n";
const SCRIPTS: [(&str, &str); 9] = [
    ("common", include_str!("board/common")),
    ("start", include_str!("board/start")),
    ("door", include_str!("board/door")),
    ("settle", include_str!("board/settle")),
    ("system", include_str!("board/system")),
    ("device", include_str!("board/device")),
    ("interface", include_str!("board/interface")),
    ("network", include_str!("board/network")),
    ("stop", include_str!("board/stop")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_another_machine_is_refused() {
        let me = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let here = check_program(&me, Path::new("me")).is_ok();
        assert_eq!(here, cfg!(target_arch = "aarch64"));
        let error = check_program(b"#!/bin/sh", Path::new("door.sh")).unwrap_err();
        assert!(error.to_string().contains("make device"), "{error}");
    }

    #[test]
    fn the_door_never_sees_the_boot_partition() {
        let mounts =
            SCRIPTS.iter().flat_map(|(_, text)| text.lines().filter(|line| line.contains("mount -t vfat")));
        let mounts: Vec<&str> = mounts.collect();
        assert!(mounts.len() >= 5 && mounts.iter().all(|line| line.contains("umask=077")), "{mounts:?}");
    }

    #[test]
    fn every_script_calls_programs_that_are_there() {
        let own = [
            "facelatchd",
            "/sbin/mke2fs",
            "/sbin/e2fsck",
            "/sbin/resize2fs",
            "/sbin/wpa_supplicant",
            "/usr/lib/facelatch/interface",
        ];
        let shell = "[ ] if then else elif fi for do done while until case esac in local export set exit return continue break read cd \
            echo printf true false test exec eval . say value door config permissions prepare_data take_config take_wifi umask :";
        let known: Vec<&str> =
            APPLETS.split_whitespace().chain(own).chain(shell.split_whitespace()).collect();
        for (name, text) in SCRIPTS {
            for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
                // The first word of a simple command; patterns of `case`, assignments and continuations are none.
                let word = line.split([' ', '(', ';']).next().unwrap_or_default();
                if word.is_empty()
                    || word.contains(['=', '{', '}', '|', ')', '"', '$', '!'])
                    || line.contains(')') && line.ends_with(";;")
                {
                    continue;
                }
                let word = word.trim_end_matches(';');
                assert!(known.contains(&word) || line.ends_with(')'), "{name}: {line}: {word}");
            }
        }
    }
}

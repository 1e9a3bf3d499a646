//! The first file system: what it takes to find the card, make room on it and check the root.

use std::path::Path;

use super::ImageError;
use super::packages::Packages;
use super::tools::{run, tool};
use super::userland::Tree;

/// What reaches a card: in qemu, behind USB, in a slot, on NVMe or SATA; and what reads it.
const MODULES: [&str; 38] = [
    "virtio_pci",
    "virtio_mmio",
    "virtio_blk",
    "squashfs",
    "dm-verity",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "crc32c_generic",
    "sha256_generic",
    "sha256-arm64",
    "sha2-ce",
    "usb-storage",
    "uas",
    "sd_mod",
    "xhci-pci",
    "xhci-plat-hcd",
    "ehci-pci",
    "ehci-platform",
    "dwc2",
    "dwc3",
    "nvme",
    "ahci",
    "ahci_platform",
    "mmc_block",
    "sdhci-pci",
    "sdhci-acpi",
    "sdhci-iproc",
    "sdhci-of-arasan",
    "sdhci-of-dwcmshc",
    "dw_mmc-rockchip",
    "sunxi-mmc",
    "bcm2835",
    // A Raspberry Pi's regulators, USB and the way to restart it.
    "fixed",
    "gpio-regulator",
    "phy-generic",
    "reset-raspberrypi",
    "bcm2835_wdt",
];

/// Writes the initrd of these packages to `out`: a `newc` archive, compressed.
///
/// # Errors
/// [`ImageError`].
pub fn make(folder: &Path, packages: &Packages, epoch: u64, out: &Path) -> Result<(), ImageError> {
    let tree = Tree::new(folder, packages)?;
    tree.write("init", include_str!("board/boot").as_bytes(), 0o755)?;
    tree.copy("bin/busybox", &packages.file("bin/busybox")?, 0o755)?;
    tree.program("sbin/dmsetup", "sbin/dmsetup")?;
    tree.program("sbin/sfdisk", "sbin/sfdisk")?;
    tree.modules(&MODULES)?;
    let archive = out.with_extension("cpio");
    // cpio takes the files' own times: all of them are the image's.
    let script = "find . -exec touch -h -d @\"$SOURCE_DATE_EPOCH\" {} + && find . -print0 | sort -z | \
        \"$0\" --null --create --format=newc --reproducible --owner=0:0 --quiet >\"$1\" && xz --check=crc32 -6 -T1 <\"$1\" >\"$2\"";
    let cpio = tool("cpio", epoch)?;
    let mut shell = std::process::Command::new("sh");
    shell.arg("-euc").arg(script).arg(cpio.get_program()).args([&archive, out]).current_dir(folder);
    shell.envs(cpio.get_envs().filter_map(|(key, value)| Some((key, value?))));
    run(&mut shell)?;
    std::fs::remove_file(&archive).map_err(ImageError::io(archive))
}

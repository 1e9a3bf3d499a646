//! The disks of this machine, and which of them may be overwritten.

use std::path::{Path, PathBuf};

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The kernel's name, such as `sdb` or `mmcblk0`.
    pub name: String,
    /// Size in bytes; 0 for a reader without a card.
    pub bytes: u64,
    /// Maker and model, as far as they are known.
    pub model: String,
    /// Behind USB, a card in a slot, or marked as removable by its driver.
    pub removable: bool,
    /// Cannot be written.
    pub read_only: bool,
    /// Where it, its partitions and what is built on them (LVM, RAID, encryption) are mounted, or used as swap.
    pub used_at: Vec<String>,
}

impl Disk {
    /// The device's file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }

    /// Whether this very system runs from it.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.used_at.iter().any(|place| SYSTEM.contains(&place.as_str()))
    }

    /// Why it is not written without being asked twice.
    #[must_use]
    pub fn objection(&self) -> Option<String> {
        if self.is_system() {
            return Some(format!("this system runs from it ({})", self.used_at.join(", ")));
        }
        if !self.used_at.is_empty() {
            return Some(format!("it is in use ({})", self.used_at.join(", ")));
        }
        (!self.removable).then(|| "it is not a removable disk".to_owned())
    }
}

/// Every disk of this machine, by name.
#[must_use]
pub fn disks() -> Vec<Disk> {
    disks_below(Path::new("/"))
}

/// The same in the tree at `root`: its `sys`, and its `proc/self/mountinfo` and `proc/swaps`.
#[must_use]
pub fn disks_below(root: &Path) -> Vec<Disk> {
    let uses = uses(root);
    let block = root.join("sys/block");
    let mut found: Vec<Disk> = std::fs::read_dir(&block)
        .map(|entries| {
            entries.filter_map(Result::ok).filter_map(|entry| disk(&entry.path(), &uses, &block)).collect()
        })
        .unwrap_or_default();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn disk(path: &Path, uses: &[(String, String)], block: &Path) -> Option<Disk> {
    let name = path.file_name()?.to_str()?.to_owned();
    // What has no hardware behind it is no disk: loop, ram, dm, md, zram.
    if !path.join("device").exists()
        || name.starts_with("sr")
        || name.contains("boot")
        || name.contains("rpmb")
    {
        return None;
    }
    let read = |file: &str| {
        std::fs::read_to_string(path.join(file)).map(|text| text.trim().to_owned()).unwrap_or_default()
    };
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let behind_usb = real.components().any(|part| part.as_os_str().to_string_lossy().starts_with("usb"));
    let model = [read("device/vendor"), read("device/model"), read("device/name")];
    let mut used_at = Vec::new();
    collect_uses(&real, uses, block, &mut used_at);
    used_at.sort_unstable();
    used_at.dedup();
    Some(Disk {
        // In units of 512 bytes, whatever the disk's own are.
        bytes: read("size").parse::<u64>().unwrap_or(0) * 512,
        model: model
            .into_iter()
            .filter(|part| !part.is_empty() && !part.starts_with("0x"))
            .collect::<Vec<_>>()
            .join(" "),
        removable: read("removable") == "1" || behind_usb || read("device/type") == "SD",
        read_only: read("ro") == "1",
        used_at,
        name,
    })
}

/// What the device at `path`, its partitions and everything that holds them are used for.
fn collect_uses(path: &Path, uses: &[(String, String)], block: &Path, out: &mut Vec<String>) {
    let number = std::fs::read_to_string(path.join("dev")).unwrap_or_default();
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    out.extend(
        uses.iter().filter(|(key, _)| *key == number.trim() || *key == name).map(|(_, place)| place.clone()),
    );
    let entries = |folder: &Path| {
        std::fs::read_dir(folder).map(|e| e.filter_map(Result::ok).collect::<Vec<_>>()).unwrap_or_default()
    };
    for entry in entries(path) {
        if entry.path().join("partition").exists() {
            collect_uses(&entry.path(), uses, block, out);
        }
    }
    for holder in entries(&path.join("holders")) {
        collect_uses(&block.join(holder.file_name()), uses, block, out);
    }
}

/// Device (by number, `8:1`, or by name) and what it is used for.
fn uses(root: &Path) -> Vec<(String, String)> {
    let mounts = std::fs::read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default();
    let swaps = std::fs::read_to_string(root.join("proc/swaps")).unwrap_or_default();
    let mut found = Vec::new();
    for line in mounts.lines() {
        // `36 35 8:1 / /mnt rw,noatime - ext4 /dev/sda1 rw`: number and mount point; some file systems have a number of their own, but name the device.
        let fields: Vec<&str> = line.split(' ').collect();
        let (Some(number), Some(place)) = (fields.get(2), fields.get(4)) else { continue };
        let place = place.replace("\\040", " ");
        found.push(((*number).to_owned(), place.clone()));
        let source = fields.iter().position(|field| *field == "-").and_then(|at| fields.get(at + 2));
        if let Some(name) = source.and_then(|source| source.strip_prefix("/dev/")) {
            found.push((name.to_owned(), place));
        }
    }
    for name in swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next()?.strip_prefix("/dev/"))
    {
        found.push((name.to_owned(), "swap".to_owned()));
    }
    found
}

const SYSTEM: [&str; 6] = ["/", "/boot", "/boot/efi", "/usr", "/var", "/home"];

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with an NVMe disk below LVM that carries the system, a mounted USB stick, a free card in a reader, a card slot, an empty
    /// reader, and things that are no disks.
    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("{text}\n")).unwrap();
        };
        let folder = |name: &str| std::fs::create_dir_all(root.path().join(name)).unwrap();
        let disk = |name: &str, bus: &str, number: &str, sectors: u64, removable: u8| {
            let path = format!("sys/devices/{bus}/block/{name}");
            for (file, text) in [
                ("dev", number),
                ("size", &sectors.to_string()),
                ("removable", &removable.to_string()),
                ("ro", "0"),
            ] {
                write(&format!("{path}/{file}"), text);
            }
            folder(&format!("{path}/device"));
            folder("sys/block");
            std::os::unix::fs::symlink(root.path().join(&path), root.path().join("sys/block").join(name))
                .unwrap();
            path
        };
        let nvme = disk("nvme0n1", "pci0/nvme0", "259:0", 1_000_215_216, 0);
        write(&format!("{nvme}/device/model"), "Fast 512G  ");
        for (file, text) in [("dev", "259:3"), ("partition", "3")] {
            write(&format!("{nvme}/nvme0n1p3/{file}"), text);
        }
        folder(&format!("{nvme}/nvme0n1p3/holders/dm-0"));
        write("sys/block/dm-0/dev", "253:0");
        write("sys/block/dm-0/size", "1000");
        let stick = disk("sda", "pci0/usb1/1-2", "8:0", 31_116_288, 0);
        write(&format!("{stick}/device/vendor"), "SanDisk ");
        write(&format!("{stick}/device/model"), "Ultra");
        for (file, text) in [("dev", "8:1"), ("partition", "1")] {
            write(&format!("{stick}/sda1/{file}"), text);
        }
        disk("sdb", "pci0/usb1/1-3", "8:16", 62_333_952, 1);
        disk("sdc", "pci0/usb1/1-4", "8:32", 0, 1);
        let slot = disk("mmcblk0", "soc/mmc0", "179:0", 15_523_840, 0);
        write(&format!("{slot}/device/type"), "SD");
        write(&format!("{slot}/device/name"), "SC16G");
        let swap = disk("sdd", "pci0/ata1", "8:48", 4_096, 0);
        write(&format!("{swap}/sdd1/partition"), "1");
        write(&format!("{swap}/sdd1/dev"), "8:49");
        disk("sr0", "pci0/ata2", "11:0", 2_097_151, 1);
        write("sys/block/loop0/dev", "7:0");
        write(
            "proc/self/mountinfo",
            "22 1 253:0 / / rw shared:1 - ext4 /dev/mapper/vg-root rw\n40 22 8:1 / /media/my\\040stick rw - vfat /dev/sda1 rw\n\
             41 22 0:5 / /proc rw - proc proc rw",
        );
        write("proc/swaps", "Filename Type Size Used Priority\n/dev/sdd1 partition 1 0 -2");
        root
    }

    #[test]
    fn every_disk_is_listed_with_what_speaks_against_it() {
        let root = machine();
        let disks = disks_below(root.path());
        let names: Vec<&str> = disks.iter().map(|disk| disk.name.as_str()).collect();
        assert_eq!(names, ["mmcblk0", "nvme0n1", "sda", "sdb", "sdc", "sdd"]);
        let objection = |name: &str| disks.iter().find(|disk| disk.name == name).unwrap().objection();
        assert_eq!(objection("nvme0n1").unwrap(), "this system runs from it (/)", "through LVM");
        assert_eq!(objection("sda").unwrap(), "it is in use (/media/my stick)");
        assert_eq!(objection("sdd").unwrap(), "it is in use (swap)");
        assert_eq!([objection("sdb"), objection("mmcblk0"), objection("sdc")], [None, None, None]);
    }

    #[test]
    fn size_and_model_are_told() {
        let root = machine();
        let disks = disks_below(root.path());
        let told: Vec<_> = disks.iter().map(|d| (d.bytes, d.model.as_str(), d.removable)).collect();
        assert_eq!(told[0], (15_523_840 * 512, "SC16G", true));
        assert_eq!(told[1], (1_000_215_216 * 512, "Fast 512G", false));
        assert_eq!(
            told[2],
            (31_116_288 * 512, "SanDisk Ultra", true),
            "behind USB, though its driver calls it fixed"
        );
    }

    #[test]
    fn a_machine_without_disks_has_none() {
        assert!(disks_below(tempfile::tempdir().unwrap().path()).is_empty());
    }
}

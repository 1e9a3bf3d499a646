//! A card's image, packed with the machine's tools from small files: reproducible, whole, and found damaged when it is. What boots it is
//! `make image-test`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use facelatch_trainer::image::disk::{BootFiles, Layout, MIB, VerityRoot, assemble, pack_boot, pack_root};
use facelatch_trainer::image::{Board, tools};

/// A program of the system, wherever it is.
fn system(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
    command
}

fn output(command: &mut Command) -> (bool, String) {
    let output = command.output().expect("the tool starts");
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// Packs an image in `folder`, from files that are new each time.
fn pack(folder: &Path, board: Board) -> (PathBuf, Layout, VerityRoot) {
    let tree = folder.join("tree");
    std::fs::create_dir_all(tree.join("usr/bin")).unwrap();
    let bytes: Vec<u8> = (0..300_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(tree.join("usr/bin/door"), bytes).unwrap();
    std::os::unix::fs::symlink("door", tree.join("usr/bin/d")).unwrap();
    let [loader, kernel, initrd] = ["loader", "kernel", "initrd"].map(|name| folder.join(name));
    let loaders = [("EFI/BOOT/BOOTAA64.EFI".to_owned(), loader.clone())];
    for (path, byte) in [(&loader, 1), (&kernel, 2), (&initrd, 3)] {
        std::fs::write(path, vec![byte; 100_000]).unwrap();
    }
    let (root_file, boot_file, image) = (folder.join("root"), folder.join("boot"), folder.join("door.img"));
    let root = pack_root(&tree, 1_700_000_000, &root_file).unwrap();
    let files = BootFiles {
        loader: &loaders,
        kernel: &kernel,
        initrd: &initrd,
        root: &root,
        version: "1.2.3",
        options: "",
        wifi: Some("country=DE\n".into()),
    };
    let boot = pack_boot(&boot_file, folder, board, 1_700_000_000, &files).unwrap();
    let layout = Layout::new(boot, root.bytes, MIB);
    assemble(&image, board, &layout, &boot_file, &root_file, "a test", 1_700_000_000).unwrap();
    (image, layout, root)
}

#[test]
fn an_image_is_reproducible_and_its_damage_is_found() {
    if let Err(error) = tools::check() {
        println!("skipped: image: {error}");
        return;
    }
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (image, layout, root) = pack(one.path(), Board::GenericArm64);
    // FAT keeps times to two seconds: what depends on the clock shows only then.
    std::thread::sleep(std::time::Duration::from_millis(2_100));
    let (again, ..) = pack(two.path(), Board::GenericArm64);
    let bytes = std::fs::read(&image).unwrap();
    assert!(bytes == std::fs::read(&again).unwrap(), "two builds differ");
    assert_eq!(bytes.len() as u64, layout.bytes());

    let (ok, said) = output(system("sfdisk").arg("--verify").arg(&image));
    assert!(ok && said.contains("No errors detected"), "{said}");
    let (_, table) = output(system("sfdisk").arg("--dump").arg(&image));
    for name in ["facelatch-boot", "facelatch-root-a", "facelatch-root-b"] {
        assert!(table.contains(&format!("name=\"{name}\"")), "{table}");
    }
    let entries = output(
        system("mdir")
            .args(["-b", "-i"])
            .arg(format!("{}@@{}", image.display(), layout.boot.start))
            .arg("::loader/entries"),
    )
    .1;
    assert!(entries.contains("facelatch-a+3.conf") && entries.contains("facelatch-b+3.conf"), "{entries}");

    let slot = one.path().join("slot");
    let verify = |bytes: &[u8]| {
        std::fs::write(&slot, bytes).unwrap();
        let mut command = system("veritysetup");
        command.arg("verify").args([
            "--no-superblock",
            "--hash=sha256",
            "--data-block-size=4096",
            "--hash-block-size=4096",
        ]);
        command.arg(format!("--salt={}", root.salt)).arg(format!("--hash-offset={}", root.blocks * 4096));
        command.arg(format!("--data-blocks={}", root.blocks)).args([&slot, &slot]).arg(&root.hash);
        output(&mut command).0
    };
    for place in layout.roots {
        let mut slot = bytes[place.start as usize..][..root.bytes as usize].to_vec();
        assert!(verify(&slot), "what was packed");
        slot[root.bytes as usize / 3] ^= 1;
        assert!(!verify(&slot), "one bit");
    }
}

/// What `sfdisk` calls a hybrid MBR, with a GPT that is whole; and the command that writes a card finds the boot partition of it.
#[test]
fn an_image_with_a_hybrid_mbr_is_flashed_with_its_configuration() {
    if let Err(error) = tools::check() {
        println!("skipped: image: {error}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (image, layout, _) = pack(folder.path(), Board::RpiArm64);
    let bytes = std::fs::read(&image).unwrap();
    let (boot, sectors) = ((layout.boot.start / 512) as u32, (layout.boot.bytes / 512) as u32);
    assert_eq!((bytes[450], bytes[466], bytes[482], bytes[498]), (0x0c, 0xee, 0, 0));
    assert_eq!(bytes[454..462], [boot.to_le_bytes(), sectors.to_le_bytes()].concat());
    let (ok, said) = output(system("sfdisk").arg("--verify").arg(&image));
    assert!(ok && said.contains("No errors detected"), "{said}");

    let (card, config) = (folder.path().join("card.img"), folder.path().join("front.toml"));
    std::fs::write(&config, "[door]\nname = \"Front\"\n").unwrap();
    let mut flash = Command::new(env!("CARGO_BIN_EXE_facelatch"));
    flash
        .arg("flash")
        .args([&image, &card])
        .args(["--unsigned", "--size-mib", "128", "--config"])
        .arg(&config);
    let (ok, said) = output(&mut flash);
    assert!(ok && said.contains("the configuration is on the boot partition"), "{said}");
    let place = format!("{}@@{}", card.display(), layout.boot.start);
    let (_, text) = output(system("mtype").args(["-i", &place, "::facelatch/door.toml"]));
    assert_eq!(text, "[door]\nname = \"Front\"\n");
    assert_eq!(std::fs::read(&card).unwrap()[..512], bytes[..512]);
}

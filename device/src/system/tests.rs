//! Installing a system: what is refused, what a cut in between leaves, and what a start says afterwards.

use std::fs;
use std::path::PathBuf;

use facelatch_shared::bundle::{
    BundleError, Draft, FORMAT, Manifest, SecretKey, SectionKind, Trial, Version,
};
use facelatch_shared::embedding::ModelBinding;
use facelatch_shared::score::Threshold;
use facelatch_shared::time::UnixMs;

use super::*;
use crate::update::power_tests::root;

const NOW: UnixMs = UnixMs(1_800_000_000_000);
const ENTRY: &str =
    "title Facelatch\nversion @NUMBER@\nlinux /facelatch/@SLOT@/linux\noptions facelatch.slot=@SLOT@\n";

fn manifest(counter: u64, board: &str) -> Manifest {
    Manifest {
        format: FORMAT,
        name: "spring".try_into().unwrap(),
        counter,
        created: NOW,
        expires: None,
        min_firmware: Version(0, 0, 0),
        boards: vec![board.try_into().unwrap()],
        contracts: vec![],
        detector: "".try_into().unwrap(),
        embedder: "".try_into().unwrap(),
        binding: ModelBinding([0; 16]),
        compatible: vec![],
        threshold: Threshold(0.0),
        trial: Trial { seconds: 0, max_starts: 1, max_p95_us: 0, max_rejection_rise: 0 },
        sections: vec![],
    }
}

/// A card with slot a running, and a bundle that the door has received.
struct Card {
    folder: tempfile::TempDir,
    image: Image,
}

impl Card {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["boot/loader/entries", "boot/facelatch/a", "boot/facelatch/b", "slots/b", "state"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        fs::write(path("boot/loader/entries/facelatch-a.conf"), "version 2\n").unwrap();
        fs::write(path("boot/loader/entries/facelatch-b+3.conf"), "version 1\n").unwrap();
        for name in ["boot/facelatch/b/linux", "boot/facelatch/b/initrd"] {
            fs::write(path(name), "old").unwrap();
        }
        fs::write(path("root-b"), vec![7; 200_000]).unwrap();
        let image = Image { board: "generic-arm64".into(), slot: 'a', record: SystemRecord::default() };
        Self { folder, image }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn receive(&self, manifest: Manifest, signer: u8, entry: &str) {
        let bytes = root_bytes();
        let files: [(SectionKind, &str, &[u8]); 4] = [
            (SectionKind::Root, "root.squashfs", &bytes),
            (SectionKind::Kernel, "linux", b"kernel"),
            (SectionKind::Initrd, "initrd", b"initrd"),
            (SectionKind::Entry, "entry.conf", entry.as_bytes()),
        ];
        let mut draft = Draft::new(manifest, &files, vec![root()]).unwrap();
        draft.sign(&SecretKey::from_bytes([signer; 32]));
        let file = draft.to_bytes().unwrap();
        let parts = facelatch_shared::bundle::split(&file).unwrap();
        fs::write(self.path("slots/b/_header"), parts.header).unwrap();
        for (_, name, bytes) in files {
            fs::write(self.path("slots/b").join(name), bytes).unwrap();
        }
    }

    fn install(&self) -> Result<Install, InstallError> {
        install(&Job {
            from: &self.path("slots/b"),
            root: &self.path("root-b"),
            boot: &self.path("boot"),
            image: &self.image,
            trust: &root(),
            state: &self.path("state"),
            now: NOW,
        })
    }

    fn entries(&self) -> Vec<String> {
        let listed = fs::read_dir(self.path("boot/loader/entries")).unwrap();
        let mut names: Vec<_> = listed.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }
}

fn root_bytes() -> Vec<u8> {
    (0..100_000u32).map(|i| (i % 251) as u8).collect()
}

#[test]
fn a_good_system_is_booted_next_and_confirmed_when_it_comes_up() {
    let mut card = Card::new();
    card.receive(manifest(3, "generic-arm64"), 11, ENTRY);
    let done = card.install().unwrap();
    assert_eq!((done.slot, done.state, done.counter), ('b', State::Trying, 3));
    assert_eq!(card.entries(), ["facelatch-a.conf", "facelatch-b+3.conf"]);
    let entry = fs::read_to_string(card.path("boot/loader/entries/facelatch-b+3.conf")).unwrap();
    assert!(entry.contains("version 3\nlinux /facelatch/b/linux\noptions facelatch.slot=b\n"), "{entry}");
    assert_eq!(fs::read(card.path("boot/facelatch/b/linux")).unwrap(), b"kernel");
    assert_eq!(fs::read(card.path("root-b")).unwrap()[..100_000], root_bytes());

    // It came up: from now on nothing older is taken.
    let state = card.path("state");
    assert_eq!(settle(&state, 'b').unwrap().unwrap().state, State::Confirmed);
    assert_eq!(settle(&state, 'b').unwrap(), None);
    card.image = Image { slot: 'b', record: SystemRecord::load(&state).unwrap(), ..card.image };
    let refused = card.install().unwrap_err();
    assert!(
        matches!(refused, InstallError::Bundle(BundleError::OldCounter { counter: 3, floor: 3 })),
        "{refused}"
    );
}

/// The entry of a board that U-Boot starts: its second number is the one that U-Boot compares.
#[test]
fn every_number_in_an_entry_is_the_new_one() {
    let mut card = Card::new();
    card.image.board = "rpi-arm64".into();
    card.receive(
        manifest(3, "rpi-arm64"),
        11,
        "version @NUMBER@\nfacelatch_number=@NUMBER@\nfacelatch_options=facelatch.slot=@SLOT@\n",
    );
    card.install().unwrap();
    assert_eq!(
        fs::read_to_string(card.path("boot/loader/entries/facelatch-b+3.conf")).unwrap(),
        "version 3\nfacelatch_number=3\nfacelatch_options=facelatch.slot=b\n"
    );
}

#[test]
fn a_system_that_did_not_come_up_is_said_to_have_fallen_back() {
    let card = Card::new();
    card.receive(manifest(3, "generic-arm64"), 11, ENTRY);
    card.install().unwrap();
    assert_eq!(settle(&card.path("state"), 'a').unwrap().unwrap().state, State::FellBack);
    assert_eq!(SystemRecord::load(&card.path("state")).unwrap().floor, 0);
}

#[test]
fn what_is_refused_changes_nothing() {
    type Case<'a> = (&'a str, &'a dyn Fn(&mut Card));
    let cases: [Case<'_>; 8] = [
        ("other boards", &|card| card.receive(manifest(3, "rpi-arm64"), 11, ENTRY)),
        ("other boards", &|card| {
            card.image.board = "rpi-arm64".into();
            card.receive(manifest(3, "generic-arm64"), 11, ENTRY);
        }),
        ("does not name", &|card| card.receive(manifest(3, "generic-arm64"), 12, ENTRY)),
        ("confirmed 9 already", &|card| {
            card.image.record.floor = 9;
            card.receive(manifest(3, "generic-arm64"), 11, ENTRY);
        }),
        ("no place for the slot", &|card| card.receive(manifest(3, "generic-arm64"), 11, "title x\n")),
        ("its partition", &|card| {
            card.receive(manifest(3, "generic-arm64"), 11, ENTRY);
            fs::write(card.path("root-b"), vec![7; 99_999]).unwrap();
        }),
        ("chunk 0 of section 3", &|card| {
            card.receive(manifest(3, "generic-arm64"), 11, ENTRY);
            fs::write(card.path("slots/b/entry.conf"), ENTRY.to_uppercase()).unwrap();
        }),
        ("Too many levels of symbolic links", &|card| {
            card.receive(manifest(3, "generic-arm64"), 11, ENTRY);
            fs::rename(card.path("slots/b/_header"), card.path("elsewhere")).unwrap();
            std::os::unix::fs::symlink(card.path("elsewhere"), card.path("slots/b/_header")).unwrap();
        }),
    ];
    for (why, prepare) in cases {
        let mut card = Card::new();
        prepare(&mut card);
        let before = fs::read(card.path("root-b")).unwrap();
        let error = card.install().unwrap_err().to_string();
        assert!(error.contains(why), "{why}: {error}");
        assert_eq!(card.entries(), ["facelatch-a.conf", "facelatch-b+3.conf"], "{why}");
        assert_eq!(fs::read(card.path("root-b")).unwrap(), before, "{why}");
        assert_eq!(fs::read(card.path("boot/facelatch/b/linux")).unwrap(), b"old", "{why}");
    }
}

/// A section that is damaged behind its first chunk is found while it is copied: the other slot is gone then, and cannot be booted.
#[test]
fn half_a_system_is_never_booted() {
    let card = Card::new();
    card.receive(manifest(3, "generic-arm64"), 11, ENTRY);
    let mut root = root_bytes();
    root[90_000] ^= 1;
    fs::write(card.path("slots/b/root.squashfs"), root).unwrap();
    assert!(matches!(
        card.install(),
        Err(InstallError::Bundle(BundleError::BadChunk { section: 0, chunk: 2 }))
    ));
    assert_eq!(card.entries(), ["facelatch-a.conf"]);
    assert_eq!(SystemRecord::load(&card.path("state")).unwrap(), SystemRecord::default());
    // Sent whole once more, it is installed.
    card.receive(manifest(3, "generic-arm64"), 11, ENTRY);
    card.install().unwrap();
    assert_eq!(card.entries(), ["facelatch-a.conf", "facelatch-b+3.conf"]);
}

#[test]
fn an_image_is_known_by_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let paths = SystemPaths { board: path("board"), boot: path("boot"), state: path("state") };
    assert_eq!(Image::look(&paths), None);
    fs::write(&paths.board, "generic-arm64\n").unwrap();
    fs::write(&paths.boot, "slot=b\ndisk=/dev/vda\n").unwrap();
    let image = Image::look(&paths).unwrap();
    assert_eq!(
        (image.slot, image.platform().board, image.platform().counter_floor),
        ('b', "generic-arm64", 0)
    );
    fs::write(&paths.boot, "slot=x\n").unwrap();
    assert_eq!(Image::look(&paths), None);
}

#[test]
fn a_request_comes_back_as_it_was_stored() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!((Request::load(folder.path()), Request::is_open(folder.path())), (None, false));
    let request = Request { lies_in: 'b', bundle: "ab".repeat(32) };
    request.store(folder.path()).unwrap();
    assert_eq!(
        (Request::load(folder.path()), Request::is_open(folder.path())),
        (Some(request.clone()), true)
    );
    // It becomes part of a path.
    Request { lies_in: '/', ..request }.store(folder.path()).unwrap();
    assert_eq!(Request::load(folder.path()), None);
}

#[test]
fn a_refusal_is_kept_beside_the_record() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(Refused::load(folder.path()), None);
    let refused = Refused { bundle: "ab".repeat(32), why: "other board".into() };
    refused.store(folder.path()).unwrap();
    assert_eq!(Refused::load(folder.path()), Some(refused));
}

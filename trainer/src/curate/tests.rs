//! All stages in a row on made-up people: killed at every write they end alike; the page in a real browser.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use facelatch_shared::align::CANONICAL_112;
use facelatch_shared::detection::{BoxPx, Detection, Faces, Landmarks5, Point};
use facelatch_shared::embedding::Embedding;
use facelatch_shared::frame::RgbView;
use image::{Rgb, RgbImage};

use super::candidates::{self, Plan};
use super::edit::Edit;
use super::names::Forbidden;
use super::rank::{self, Descriptor, Ranking};
use super::review::{Desk, Marks, Rules};
use super::server::Site;
use super::sources::Reader;
use super::store::{Drop, Source};
use super::{Stage, Store, dedupe, describe, export, report};
use crate::dataset::Pictures;
use crate::evaluate::pictures::Eyes;
use crate::progress::Silent;

/// Sees a face that fills the picture, unless the picture is black, and knows people by their colours.
struct Made;

impl Eyes for Made {
    type Error = Infallible;

    fn find(&mut self, picture: &RgbView<'_>) -> Result<Faces, Infallible> {
        let mut faces = Faces::new();
        let side = picture.width_px() as f32;
        let landmarks = Landmarks5(
            CANONICAL_112.0.map(|p| Point::new((p.x + 8.0) * side / 128.0, (p.y + 8.0) * side / 128.0)),
        );
        let face = Detection { bbox: BoxPx { x: 0.0, y: 0.0, w: side, h: side }, landmarks, score: 0.9 };
        if colour(picture).iter().sum::<f32>() > 20.0 {
            faces.push(face).unwrap();
        }
        Ok(faces)
    }

    fn embed_at(&mut self, picture: &RgbView<'_>, _: &Landmarks5) -> Result<Embedding, Infallible> {
        let mut raw = [0.0; 128];
        raw[..3].copy_from_slice(&colour(picture).map(|v| v - 100.0));
        raw[3] = 20.0;
        Ok(Embedding::from_raw(&raw).unwrap())
    }
}

fn colour(picture: &RgbView<'_>) -> [f32; 3] {
    let side = picture.width_px() as isize;
    let points = (0..64).map(|i| picture.pixel_clamped(i % 8 * side / 8, i / 8 * side / 8).map(f32::from));
    points.fold([0.0; 3], |sum, p| std::array::from_fn(|k| sum[k] + p[k] / 64.0))
}

const COLOURS: [[i32; 3]; 3] = [[190, 90, 60], [60, 180, 80], [70, 80, 190]];

/// A picture of `person`: blobs of its own on the person's colour.
fn picture(person: usize, number: u64) -> RgbImage {
    let mut state = number * 31 + person as u64;
    let blobs: Vec<[i32; 4]> =
        (0..14).map(|_| std::array::from_fn(|_| super::svm::below(&mut state, 128) as i32)).collect();
    RgbImage::from_fn(128, 128, |x, y| {
        let near = |b: &&[i32; 4]| (x as i32 - b[0]).pow(2) + (y as i32 - b[1]).pow(2) < 60 + b[2] * 3;
        let shade: i32 = blobs.iter().filter(near).map(|b| b[3] - 64).sum();
        Rgb(COLOURS[person].map(|c| (c + shade / 2).clamp(0, 255) as u8))
    })
}

/// Three people with eight pictures each, among them one of somebody else, one without a face, one that is broken, copies and one picture
/// under two names.
fn heap(dir: &Path) -> PathBuf {
    let heap = dir.join("heap");
    for person in 0..3 {
        let folder = heap.join(format!("person {person}"));
        std::fs::create_dir_all(&folder).unwrap();
        for i in 0..8 {
            picture(person, i).save(folder.join(format!("{i}.png"))).unwrap();
        }
        picture((person + 1) % 3, 90 + person as u64).save(folder.join("8.png")).unwrap();
        std::fs::copy(folder.join("0.png"), folder.join("9.png")).unwrap();
        let mut state = 5;
        std::fs::write(folder.join("10.jpg"), Edit::Mirror.make(&picture(person, 1), &mut state).unwrap())
            .unwrap();
        std::fs::write(folder.join("11.jpg"), Edit::Jpeg.make(&picture(person, 2), &mut state).unwrap())
            .unwrap();
        RgbImage::new(64, 64).save(folder.join("12.png")).unwrap();
        std::fs::write(folder.join("13.png"), b"broken").unwrap();
    }
    std::fs::copy(heap.join("person 0/3.png"), heap.join("person 1/14.png")).unwrap();
    heap
}

fn stages(work: &Path, heap: &Path, fuse: Option<u32>) -> Result<String, String> {
    stages_by(Descriptor::Embedder, work, heap, fuse)
}

fn stages_by(descriptor: Descriptor, work: &Path, heap: &Path, fuse: Option<u32>) -> Result<String, String> {
    let store = Store::create(work).unwrap();
    if let Some(writes) = fuse {
        store.interrupt_after(writes);
    }
    let plan = Plan {
        people: vec![],
        forbidden: Forbidden::new(std::iter::empty(), true),
        sources: vec![Source { path: heap.to_owned(), licence: Some("CC0".into()), origin: None }],
        most: 2000,
        settings: "heap".into(),
    };
    let text = |e: &dyn std::fmt::Display| e.to_string();
    candidates::run(&store, &plan, false, &Silent).map_err(|e| text(&e))?;
    describe::run(&store, &mut [Made, Made], "made", false, &Silent).map_err(|e| text(&e))?;
    let ranking = Ranking { share: 0.9, descriptor, threads: 2, ..Ranking::default() };
    rank::run(&store, &ranking, false, &Silent).map_err(|e| text(&e))?;
    let options = dedupe::Options { threshold: 0.7, across: 0.8, threads: 2 };
    dedupe::run(&store, &options, false, &Silent).map_err(|e| text(&e))?;
    store.dump().map_err(|e| text(&e))
}

#[test]
fn stages_drop_what_they_should_and_killed_at_every_write_they_end_alike() {
    let dir = tempfile::tempdir().unwrap();
    let heap = heap(dir.path());
    let whole = stages(&dir.path().join("whole"), &heap, None).unwrap();
    let store = Store::open(&dir.path().join("whole")).unwrap();
    let dropped = |stage| -> Vec<(String, Drop)> {
        let candidate = |key| store.candidate(key).unwrap().unwrap().place.name().to_owned();
        store.drops(0, stage).unwrap().into_iter().map(|(key, why)| (candidate(key), why)).collect()
    };
    let names = |stage| dropped(stage).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(Stage::Describe), ["person 0/12.png", "person 0/13.png"]);
    assert_eq!(names(Stage::Rank), ["person 0/8.png"], "somebody else");
    let copies = dropped(Stage::Dedupe);
    let of = |name: &str| copies.iter().find(|(n, _)| n == name).map(|(_, why)| why.word());
    assert_eq!(of("person 0/9.png"), Some("same file"), "{copies:?}");
    drop(store);

    ends_alike(dir.path(), &heap, Descriptor::Embedder, &whole);
}

/// Loses a write now and again and starts anew, to the end.
fn ends_alike(dir: &Path, heap: &Path, descriptor: Descriptor, whole: &str) {
    let killed = dir.join("killed");
    let run = |fuse| stages_by(descriptor, &killed, heap, fuse);
    let mut kills = 0;
    while let Err(said) = run(Some(kills % 3)) {
        assert_eq!(said, "interrupted");
        kills += 1;
        assert!(kills < 200, "it does not come to an end");
        if kills % 3 == 0 {
            // At least one write must get through.
            let _ = run(Some(1));
        }
    }
    assert!(kills > 8, "{kills}");
    assert_eq!(run(None).unwrap(), whole);
}

#[test]
fn ranked_by_fisher_vectors_it_ends_alike_too() {
    let dir = tempfile::tempdir().unwrap();
    let heap = heap(dir.path());
    let whole = stages_by(Descriptor::Fisher, &dir.path().join("whole"), &heap, None).unwrap();
    let store = Store::open(&dir.path().join("whole")).unwrap();
    let scores = store.scores(0).unwrap();
    assert!(scores.iter().any(|(_, score)| *score > 0.0) && scores.iter().any(|(_, score)| *score < 0.0));
    let (again, _) = (store.state(Stage::Rank).unwrap().unwrap(), drop(store));
    assert!(again.settings.starts_with("descriptor fisher"), "{}", again.settings);
    ends_alike(dir.path(), &heap, Descriptor::Fisher, &whole);
}

#[test]
fn what_is_kept_is_exported_for_the_trainer_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let heap = heap(dir.path());
    stages(&dir.path().join("work"), &heap, None).unwrap();
    let store = Store::open(&dir.path().join("work")).unwrap();
    let kept: usize = (0..3).map(|p| store.kept(p).unwrap().len()).sum();
    let out = dir.path().join("set");
    let exported = export::run(&store, &out, ("made", 10, 2), &Silent).unwrap();
    assert_eq!((exported.people, exported.faces, exported.shards), (3, kept, kept.div_ceil(10)));
    let pictures = Pictures::open(&out).unwrap();
    assert_eq!(pictures.rows().len(), kept);
    assert!(pictures.canvas(0).is_some() && pictures.rows()[0].identity.as_deref() == Some("person_0"));
    assert!(
        export::run(&store, &out, ("made", 10, 2), &Silent).is_err(),
        "a finished set is not overwritten"
    );

    // One of them was fetched, under a licence of its own.
    let list = "url,identity,licence,outcome,file,bytes,sha256\nhttp://a,person 0,CC BY 4.0,kept,person 0/4.png,1,0\n";
    std::fs::write(heap.join("fetched.csv"), list).unwrap();
    let rows = report::rows(&store, None).unwrap();
    assert_eq!(rows.iter().map(|row| row.pictures).min(), Some(kept));
    report::write(&store, &dir.path().join("report"), "Made <up>", (&rows, &Vec::new())).unwrap();
    let sheet = std::fs::read_to_string(dir.path().join("report/datasheet.md")).unwrap();
    let licences =
        format!("| heap | CC BY 4.0 | not stated | 1 |\n| heap | CC0 | not stated | {} |", kept - 1);
    assert!(sheet.contains(&licences), "{sheet}");
    assert!(
        sheet.contains("not stated") && sheet.contains("near-duplicate") && sheet.contains("keeper"),
        "{sheet}"
    );
    let html = std::fs::read_to_string(dir.path().join("report/datasheet.html")).unwrap();
    assert!(html.contains("Made &lt;up&gt;") && !html.contains("<up>"));
    assert!(image::open(dir.path().join("report/kept.png")).unwrap().width() > 500);
}

#[test]
fn the_pages_in_a_real_browser() {
    let browser = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|out| out.status.success()));
    let Some(browser) = browser else {
        println!("skipped: review page: there is no Chromium");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let heap = heap(dir.path());
    stages(&dir.path().join("work"), &heap, None).unwrap();
    let store = Store::open(&dir.path().join("work")).unwrap();
    let desk = Desk::open(&store, Rules::of(Stage::Review), false).unwrap();
    let shown = desk.pictures(&store, (0, 0)).unwrap().len();
    let reader = Reader::open(&store.sources().unwrap()).unwrap();
    let site = Arc::new(Site::new(store, desk, reader));
    let address = free_address();
    let _server = site.serve(address).unwrap();
    let block = page(browser, dir.path(), address);
    assert!(block.contains("person 0 · block 1") && block.contains("0 of 3 decided"), "{block}");
    assert!(block.contains("100.0 % right: accepted (limit 95 %)"), "{block}");
    // What the page counts are pictures that have come, not those it has asked for.
    assert!(shown >= 5 && block.contains(&format!("data-shown=\"{shown}\"")), "{shown} pictures: {block}");
    site.with(|store, desk| {
        for person in 0..3 {
            let marks = Marks { wrong: vec![], refused: false, seconds: 1.0, at_ms: 1 };
            desk.mark(store, "ann", (person, 0), &marks).unwrap();
        }
    });
    let done = page(browser, dir.path(), address);
    assert!(done.contains("3 of 3 decided") && done.contains("facelatch curate review --finish"), "{done}");
}

/// What the page is like once it has loaded.
fn page(browser: &str, dir: &Path, address: SocketAddr) -> String {
    let out = Command::new("timeout")
        .args(["120", browser])
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", dir.join("profile").display()))
        .arg(format!("http://{address}/?reviewer=ann"))
        .output()
        .unwrap();
    assert!(out.status.success(), "{:?}: {}", out.status, String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Where nothing listens at the moment.
pub(super) fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

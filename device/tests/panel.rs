//! Every screen as a picture, compared pixel for pixel with those in `tests/panel/`.
//!
//! `FACELATCH_BLESS=1 cargo test --test panel` rewrites them; look at each before committing. Every run also puts all
//! screens on one sheet a size, `target/tmp/panel/sheet-*.png`.

#![allow(clippy::unwrap_used)] // a test's helpers fail by panicking

use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::Rectangle;
use facelatch_device::display::{Canvas, Instruction, Screen, draw};
use facelatch_shared::person::Name;
use facelatch_shared::pose::View;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const SIZES: [Size; 2] = [Size::new(480, 320), Size::new(240, 240)];
/// A picture that grows beyond this does not belong into a repository.
const MOST_BYTES: usize = 10_000;

#[test]
fn every_screen_is_as_it_was_approved() {
    let bless = std::env::var_os("FACELATCH_BLESS").is_some_and(|value| value == "1");
    let approved = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/panel");
    let actual = actual_folder();
    let mut wrong = Vec::new();
    let mut expected_files = BTreeSet::new();
    for size in SIZES {
        let mut pictures = Vec::new();
        for (name, screen) in screens() {
            let canvas = drawn(size, &screen);
            let file = format!("{name}-{}x{}.png", size.width, size.height);
            let bytes = canvas.to_png().unwrap();
            assert!(bytes.len() <= MOST_BYTES, "{file} has {} bytes", bytes.len());
            let path = approved.join(&file);
            if bless {
                std::fs::create_dir_all(&approved).unwrap();
                std::fs::write(&path, &bytes).unwrap();
            }
            let same = std::fs::read(&path).is_ok_and(|bytes| Canvas::from_png(&bytes).unwrap() == canvas);
            if !same {
                let shown = actual.join(&file);
                canvas.write_png(&shown).unwrap();
                wrong.push(format!("{}\n    now {}", path.display(), shown.display()));
            }
            expected_files.insert(file);
            pictures.push(canvas);
        }
        sheet(&pictures)
            .write_png(&actual.join(format!("sheet-{}x{}.png", size.width, size.height)))
            .unwrap();
    }
    assert!(
        wrong.is_empty(),
        "{} screens differ from the approved picture or have none:\n  {}\nLook at them; FACELATCH_BLESS=1 approves.",
        wrong.len(),
        wrong.join("\n  ")
    );
    let there: BTreeSet<String> = std::fs::read_dir(&approved)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let left_over: Vec<_> = there.difference(&expected_files).collect();
    assert!(left_over.is_empty(), "pictures without a screen in {}: {left_over:?}", approved.display());
}

#[test]
fn no_two_screens_look_alike() {
    for size in SIZES {
        let all: Vec<_> = screens().map(|(name, screen)| (name, drawn(size, &screen))).collect();
        for (i, (name, picture)) in all.iter().enumerate() {
            let twin = all[..i].iter().find(|(_, other)| other == picture);
            assert!(twin.is_none(), "{name} looks like {}", twin.unwrap().0);
        }
    }
}

#[test]
fn any_size_can_be_drawn() {
    let tiny = [(0, 0), (1, 1), (1, 300), (300, 1), (8, 8)];
    let real = [(64, 32), (128, 64), (128, 160), (320, 240), (240, 320), (800, 480)];
    for (width, height) in tiny.into_iter().chain(real) {
        let mut pictures = Vec::new();
        for (name, screen) in screens() {
            let canvas = drawn(Size::new(width, height), &screen);
            let pixels = canvas.rgb().as_chunks::<3>().0;
            let ground = pixels.get(pixels.len() / 2 / width.max(1) as usize * width as usize);
            let drawn = pixels.iter().filter(|pixel| Some(*pixel) != ground).count();
            assert!(width.min(height) < 32 || drawn > 100, "{name} is empty at {width}×{height}");
            pictures.push(canvas);
        }
        if width.min(height) >= 32 {
            sheet(&pictures).write_png(&actual_folder().join(format!("sheet-{width}x{height}.png"))).unwrap();
        }
    }
}

#[test]
fn a_screen_covers_all_that_was_there_before() {
    let size = Size::new(240, 240);
    let clean = drawn(size, &Screen::Looking);
    let mut used = drawn(size, &Screen::DoorForced);
    draw(&mut used, &Screen::Looking).unwrap();
    assert_eq!(used, clean);
}

#[test]
fn a_part_of_a_larger_panel_can_be_drawn_on() {
    let area = Rectangle::new(Point::new(30, 20), Size::new(240, 240));
    let mut whole = Canvas::new(Size::new(320, 280));
    draw(&mut whole.cropped(&area), &Screen::NotRecognised).unwrap();
    let alone = drawn(area.size, &Screen::NotRecognised);
    for point in Rectangle::new(Point::zero(), whole.size()).points() {
        let expected =
            if area.contains(point) { alone.pixel(point - area.top_left) } else { Some(Rgb888::BLACK) };
        assert_eq!(whole.pixel(point), expected, "{point}");
    }
}

fn drawn(size: Size, screen: &Screen) -> Canvas {
    let mut canvas = Canvas::new(size);
    draw(&mut canvas, screen).unwrap();
    canvas
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// Every kind of screen, and those whose words are hard to set.
fn screens() -> impl Iterator<Item = (String, Screen)> {
    let (door, person) = (name("Workshop, north door"), name("Ada Lovelace"));
    let examples = Screen::examples(&door, &person).into_iter().map(|s| (s.slug().to_owned(), s));
    let welcome = |text: &str, seconds_left, seconds_total| Screen::Welcome {
        name: name(text),
        seconds_left,
        seconds_total,
    };
    let enrol = |text: &str, instruction, taken, wanted| Screen::Enrol {
        name: name(text),
        view: View::Front,
        instruction,
        taken,
        wanted,
    };
    let longest = "Hubert Blaine Wolfeschlegelsteinhausenbergerdorf";
    assert_eq!(longest.len(), 48);
    let hard = [
        ("idle-no-clock", Screen::Idle { door, clock: heapless::String::new() }),
        ("welcome-short", welcome("Bo", 5, 5)),
        ("welcome-accents", welcome("Zoë Ångström-Łukaszewicz", 1, 5)),
        ("welcome-longest", welcome(longest, 120, 255)),
        ("welcome-no-blank", welcome(&"W".repeat(48), 0, 5)),
        ("welcome-han", welcome("欧阳小明", 3, 5)),
        ("enrol-hold-still", enrol("Nguyễn Thị Minh Khai", Some(Instruction::HoldStill), 0, 5)),
        ("enrol-turn", enrol(person.as_str(), Some(Instruction::LookAtCamera), 5, 12)),
        ("enrol-many", enrol(longest, None, 30, 40)),
    ];
    examples.chain(hard.map(|(name, screen)| (name.to_owned(), screen)))
}

/// All pictures side by side.
fn sheet(pictures: &[Canvas]) -> Canvas {
    const COLUMNS: usize = 5;
    let cell = pictures[0].size() + Size::new(8, 8);
    let rows = pictures.len().div_ceil(COLUMNS) as u32;
    let mut sheet = Canvas::new(Size::new(cell.width * COLUMNS as u32, cell.height * rows));
    sheet.clear(Rgb888::new(90, 90, 90)).unwrap();
    for (i, picture) in pictures.iter().enumerate() {
        let (column, row) = ((i % COLUMNS) as u32, (i / COLUMNS) as u32);
        let at = Point::new((column * cell.width + 4) as i32, (row * cell.height + 4) as i32);
        let colors = picture.rgb().as_chunks::<3>().0.iter().map(|p| Rgb888::new(p[0], p[1], p[2]));
        sheet.fill_contiguous(&Rectangle::new(at, picture.size()), colors).unwrap();
    }
    sheet
}

fn actual_folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("panel");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

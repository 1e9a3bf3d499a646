//! What a curation did: the table of its stages, contact sheets, and a datasheet in Markdown and HTML.
//!
//! The datasheet follows the questions of "Datasheets for Datasets" (Gebru et al. 2021) as far as the store can answer them, and says
//! which are left to the keeper.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use image::{RgbImage, imageops};
use serde_json::{Value, json};

use super::document::{Bar, Part, bars};
use super::fetch::journal::Licences;
use super::sources::Reader;
use super::store::{Key, Stage, Store, StoreError};
use super::truth::{self, Labels, Purity};
use super::{canvas, decode};
use crate::evaluate::cluster::{self, THUMBNAIL_PX};

/// What one stage left.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Which.
    pub stage: Stage,
    /// People with a picture.
    pub people: usize,
    /// Pictures.
    pub pictures: usize,
    /// Why others went: word and count.
    pub dropped: BTreeMap<&'static str, usize>,
    /// Seconds: of people in `verify` and `review`, of the machine elsewhere.
    pub seconds: f64,
    /// Pictures looked at.
    pub seen: u64,
    /// What the stage noted.
    pub notes: Vec<(String, String)>,
    /// With which settings it ran.
    pub settings: String,
    /// By labelled pictures.
    pub purity: Option<Purity>,
}

impl Row {
    /// Whether people decided it.
    #[must_use]
    pub const fn by_people(&self) -> bool {
        matches!(self.stage, Stage::Verify | Stage::Review)
    }
}

/// The stages that have ended. One person's pictures at a time.
///
/// # Errors
/// [`StoreError`].
pub fn rows(store: &Store, labels: Option<&Labels>) -> Result<Vec<Row>, StoreError> {
    let purity: BTreeMap<Stage, Purity> = match labels {
        Some(labels) => truth::stages(store, labels)?.into_iter().collect(),
        None => BTreeMap::new(),
    };
    let people = store.people()?;
    let mut rows = Vec::new();
    for stage in Stage::ALL {
        let Some(state) = store.state(stage)?.filter(|state| state.done) else { continue };
        let mut row = Row {
            stage,
            people: 0,
            pictures: 0,
            dropped: BTreeMap::new(),
            seconds: state.seconds,
            seen: state.seen,
            notes: state.notes,
            settings: state.settings,
            purity: purity.get(&stage).copied(),
        };
        for &(person, _) in &people {
            let drops = store.drops(person, stage)?;
            let left = store.alive_keys(person, stage)?.len() - drops.len();
            row.pictures += left;
            row.people += usize::from(left > 0);
            for (_, why) in drops {
                *row.dropped.entry(why.word()).or_default() += 1;
            }
        }
        rows.push(row);
    }
    Ok(rows)
}

/// What plain filters keep: the least similarity to the mean, and the purity.
pub type Plain = Vec<(f32, Purity)>;

/// As JSON: stable keys.
#[must_use]
pub fn to_json(rows: &[Row], plain: &Plain) -> Value {
    let purity = |p: &Purity| {
        let (share, interval) = p.share();
        json!({ "labelled": p.labelled, "right": p.right, "duplicates": p.duplicates, "share": share,
            "interval": [interval.low, interval.high] })
    };
    let stage = |row: &Row| {
        json!({ "stage": row.stage.name(), "people": row.people, "pictures": row.pictures, "dropped": row.dropped,
            "seconds": row.seconds, "seen": row.seen, "settings": row.settings, "purity": row.purity.as_ref().map(purity) })
    };
    let plain = plain.iter().map(|(least, p)| {
        json!({ "least": least, "people": p.people, "pictures": p.pictures, "purity": purity(p) })
    });
    json!({ "stages": rows.iter().map(stage).collect::<Vec<_>>(), "plain_filter": plain.collect::<Vec<_>>() })
}

/// The paper's table (Parkhi et al. 2015, table 1 and section 3): stage, aim, people, pictures, effort.
#[must_use]
pub fn table(rows: &[Row], plain: &Plain) -> Part {
    let labelled = rows.iter().any(|row| row.purity.is_some());
    let mut header = vec!["stage", "aim", "people", "pictures a person", "pictures", "dropped", "effort"];
    if labelled {
        header.extend(["right (95 %)", "duplicates left"]);
    }
    let counted = |people: usize, pictures: usize| {
        let each = if people == 0 { 0.0 } else { pictures as f64 / people as f64 };
        [people.to_string(), format!("{each:.1}"), pictures.to_string()]
    };
    let mut lines: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let mut line = vec![row.stage.name().to_owned(), row.stage.aim().to_owned()];
            line.extend(counted(row.people, row.pictures));
            let dropped: Vec<String> = row.dropped.iter().map(|(word, n)| format!("{n} {word}")).collect();
            line.push(if dropped.is_empty() { "–".into() } else { dropped.join(", ") });
            line.push(
                format!("{} {}", time(row.seconds), if row.by_people() { "of people" } else { "" })
                    .trim()
                    .into(),
            );
            if labelled {
                line.extend(purity_cells(row.purity.as_ref()));
            }
            line
        })
        .collect();
    for (least, purity) in plain {
        let mut line = vec!["(plain)".into(), format!("instead: similarity to the mean ≥ {least}")];
        line.extend(counted(purity.people, purity.pictures));
        line.extend(["–".into(), "–".into()]);
        line.extend(purity_cells(Some(purity)));
        lines.push(line);
    }
    Part::Table { header: header.into_iter().map(str::to_owned).collect(), lines }
}

fn purity_cells(purity: Option<&Purity>) -> [String; 2] {
    match purity.filter(|p| p.labelled > 0) {
        None => ["–".into(), "–".into()],
        Some(p) => {
            let (share, i) = p.share();
            [
                format!("{:.1} % ({:.1}–{:.1})", share * 100.0, i.low * 100.0, i.high * 100.0),
                format!("{:.1} %", p.duplicates as f64 / p.labelled as f64 * 100.0),
            ]
        }
    }
}

fn time(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// The datasheet's parts.
///
/// # Errors
/// [`StoreError`].
pub fn datasheet(store: &Store, title: &str, rows: &[Row], plain: &Plain) -> Result<Vec<Part>, StoreError> {
    let (people, sources) = (store.people()?, store.sources()?);
    let last = rows.last();
    let mut parts = vec![
        Part::Heading(1, title.to_owned()),
        Part::Text(format!(
            "{} pictures of {} people, kept of {} candidates by `facelatch curate`.",
            last.map_or(0, |row| row.pictures),
            last.map_or(0, |row| row.people),
            rows.first().map_or(0, |row| row.pictures),
        )),
        Part::Heading(2, "How it was collected".into()),
        table(rows, plain),
    ];
    let sizes: Vec<Bar> = rows
        .iter()
        .map(|row| Bar {
            name: row.stage.name().into(),
            value: row.pictures as f64,
            label: row.pictures.to_string(),
        })
        .collect();
    parts.push(Part::Svg(bars("Pictures left by each stage", &sizes)));
    let pure: Vec<Bar> = rows
        .iter()
        .filter_map(|row| {
            let share = row.purity.filter(|p| p.labelled > 0)?.share().0;
            Some(Bar {
                name: row.stage.name().into(),
                value: share,
                label: format!("{:.1} %", share * 100.0),
            })
        })
        .collect();
    if !pure.is_empty() {
        parts.push(Part::Svg(bars("Right among labelled pictures", &pure)));
    }
    parts.push(Part::Heading(2, "Settings and notes of each stage".into()));
    let mut lines = Vec::new();
    for row in rows {
        let speed = row.seen as f64 / row.seconds.max(1e-9);
        let mut notes: Vec<String> =
            row.notes.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        if row.seen > 0 && row.seconds > 0.0 {
            notes.push(format!("{speed:.0} pictures a second"));
        }
        lines.push(vec![row.stage.name().to_owned(), row.settings.clone(), notes.join("; ")]);
    }
    parts.push(Part::Table { header: ["stage", "settings", "notes"].map(str::to_owned).to_vec(), lines });
    parts.push(Part::Heading(2, "Sources and licences".into()));
    // What was fetched has a licence a picture, other sources one for all.
    let licences: Vec<Option<Licences>> = sources.iter().map(|source| Licences::read(&source.path)).collect();
    let mut kept_of: BTreeMap<(u16, Option<String>), usize> = BTreeMap::new();
    let mut per_person: BTreeMap<u32, usize> = BTreeMap::new();
    let mut eyes: Vec<f32> = Vec::new();
    let mut attributes: BTreeMap<String, BTreeMap<String, [usize; 2]>> = BTreeMap::new();
    for (number, person) in &people {
        let kept = store.kept(*number)?;
        if kept.is_empty() {
            continue;
        }
        per_person.insert(*number, kept.len());
        for (column, value) in person.attributes.iter().filter(|(c, _)| !c.eq_ignore_ascii_case("popularity"))
        {
            let of = attributes.entry(column.clone()).or_default().entry(value.clone()).or_default();
            of[0] += 1;
            of[1] += kept.len();
        }
        for (key, candidate) in &kept {
            let number = usize::from(candidate.source);
            let own = licences[number].as_ref().and_then(|l| l.of(candidate.place.name()));
            let licence = own.or(sources[number].licence.as_deref());
            *kept_of.entry((candidate.source, licence.map(str::to_owned))).or_default() += 1;
            // An even part of them is enough for a distribution.
            if key.index % 7 == 0 {
                eyes.extend(store.face(*key)?.map(|face| face.eye_distance_px()));
            }
        }
    }
    let unknown = || "not stated".to_owned();
    for (number, source) in (0..).zip(&sources) {
        // A source of which nothing was kept is named too.
        if !kept_of.keys().any(|(of, _)| *of == number) {
            kept_of.insert((number, source.licence.clone()), 0);
        }
    }
    let lines = kept_of.into_iter().map(|((number, licence), kept)| {
        let source = &sources[usize::from(number)];
        let name = source.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        vec![
            name,
            licence.unwrap_or_else(unknown),
            source.origin.clone().unwrap_or_else(unknown),
            kept.to_string(),
        ]
    });
    parts.push(Part::Table {
        header: ["source", "licence", "origin", "pictures kept"].map(str::to_owned).to_vec(),
        lines: lines.collect(),
    });
    parts.push(Part::Heading(2, "What it is made of".into()));
    let mut counts: Vec<usize> = per_person.values().copied().collect();
    counts.sort_unstable();
    eyes.sort_by(f32::total_cmp);
    let at = |share: f64| counts.get((counts.len() as f64 * share) as usize).copied().unwrap_or(0);
    let eye = |share: f64| eyes.get((eyes.len() as f64 * share) as usize).copied().unwrap_or(0.0);
    parts.push(Part::Text(format!(
        "Pictures a person: {} at least, {} in the middle, {} at most. Pixels between the eyes in the sources (5, 50, 95 %): {:.0}, {:.0}, {:.0}.",
        counts.first().unwrap_or(&0), at(0.5), counts.last().unwrap_or(&0), eye(0.05), eye(0.5), eye(0.95),
    )));
    for (column, values) in &attributes {
        let shown: Vec<Bar> = values
            .iter()
            .map(|(value, [people, pictures])| Bar {
                name: value.clone(),
                value: *people as f64,
                label: format!("{people} people, {pictures} pictures"),
            })
            .collect();
        if shown.len() <= 20 {
            parts.push(Part::Svg(bars(&format!("Balance by {column}"), &shown)));
        } else {
            parts.push(Part::Text(format!("{column}: {} values.", shown.len())));
        }
    }
    if attributes.is_empty() {
        parts.push(Part::Text("No attributes of the people were given, so balance cannot be told.".into()));
    }
    let left_out = people
        .iter()
        .filter(|(_, p)| p.left_out.as_ref().is_some_and(|why| why.starts_with("of an evaluation")))
        .count();
    parts.push(Part::Text(format!("{left_out} people were left out because an evaluation list names them.")));
    parts.push(Part::Heading(2, "What only its keeper can say".into()));
    parts.push(Part::Text(
        "Why it was made and who paid; whether the people agreed, and how one of them has pictures taken out; whether the terms of each source allow \
         training, and passing on; who maintains it and until when. Fill these in before it is used or handed on: pictures of faces are personal \
         data in most places."
            .into(),
    ));
    Ok(parts)
}

/// Contact sheets: some people's kept pictures, a block each, and what was dropped, a block for each reason.
///
/// # Errors
/// [`StoreError`]; pictures that cannot be read any more are left out.
pub fn sheets(store: &Store, reader: &Reader) -> Result<Vec<(String, RgbImage, String)>, StoreError> {
    let (mut kept, mut dropped): (Vec<Vec<Key>>, BTreeMap<&'static str, Vec<Key>>) = Default::default();
    let people = store.people()?;
    // People from everywhere in the list, as the first are the best known.
    let stride = people.len().div_ceil(SHEET_PEOPLE).max(1);
    for (person, _) in people.iter().step_by(stride) {
        kept.push(store.kept(*person)?.into_iter().map(|(key, _)| key).take(2 * COLUMNS as usize).collect());
    }
    let stride = people.len().div_ceil(200).max(1);
    for (person, _) in people.iter().step_by(stride) {
        for stage in Stage::ALL {
            for (key, why) in store.drops(*person, stage)? {
                let of = dropped.entry(why.word()).or_default();
                if of.len() < 3 * COLUMNS as usize {
                    of.push(key);
                }
            }
        }
    }
    let mut sheets = Vec::new();
    kept.sort_by_key(|keys| std::cmp::Reverse(keys.len()));
    let reasons: Vec<String> =
        dropped.iter().map(|(word, keys)| format!("{word} ({} shown)", keys.len())).collect();
    let dropped: Vec<Vec<Key>> = dropped.into_values().collect();
    for (name, groups, caption) in [
        ("kept.png", kept, "Kept: a block for each of some people.".to_owned()),
        (
            "dropped.png",
            dropped,
            format!("Dropped, a block for each reason, from above: {}.", reasons.join(", ")),
        ),
    ] {
        let mut thumbnails = Vec::new();
        let mut places: Vec<Vec<usize>> = Vec::new();
        for group in groups {
            let mut of = Vec::new();
            for key in group {
                if let Some(thumbnail) = thumbnail(store, reader, key)? {
                    of.push(thumbnails.len());
                    thumbnails.push(thumbnail);
                }
            }
            places.push(of);
        }
        if !thumbnails.is_empty() {
            let sheet = cluster::sheet(&places, &thumbnails, COLUMNS, 1, 40).0;
            sheets.push((name.to_owned(), sheet, caption));
        }
    }
    Ok(sheets)
}

const SHEET_PEOPLE: usize = 16;
const COLUMNS: u32 = 20;

fn thumbnail(store: &Store, reader: &Reader, key: Key) -> Result<Option<RgbImage>, StoreError> {
    let Some(candidate) = store.candidate(key)? else { return Ok(None) };
    let Ok(picture) = reader.bytes(&candidate).and_then(|bytes| decode(&bytes)) else { return Ok(None) };
    let face = store.face(key)?.and_then(|face| canvas(&picture, &face).ok());
    let shown = face.unwrap_or(picture);
    Ok(Some(imageops::resize(&shown, THUMBNAIL_PX, THUMBNAIL_PX, imageops::FilterType::Triangle)))
}

/// Writes everything into `out`.
///
/// # Errors
/// What cannot be written, or read from the store.
pub fn write(
    store: &Store,
    out: &Path,
    title: &str,
    (rows, plain): (&[Row], &Plain),
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    std::fs::create_dir_all(out)?;
    let mut parts = datasheet(store, title, rows, plain)?;
    let reader = Reader::open(&store.sources()?)?;
    parts.push(Part::Heading(2, "Contact sheets".into()));
    for (name, sheet, caption) in sheets(store, &reader)? {
        sheet.save(out.join(&name))?;
        parts.push(Part::Picture { file: name, caption });
    }
    let (mut markdown, mut html, mut figures) = (String::new(), String::new(), 0);
    for part in &parts {
        if let Part::Svg(svg) = part {
            let name = format!("figure-{figures}.svg");
            std::fs::write(out.join(&name), svg)?;
            let _ = writeln!(markdown, "![]({name})\n");
            figures += 1;
        } else {
            markdown += &part.markdown();
        }
        html += &part.html();
    }
    std::fs::write(out.join("datasheet.md"), markdown)?;
    std::fs::write(out.join("datasheet.html"), super::document::page(title, &html))?;
    let json = format!("{:#}\n", to_json(rows, plain));
    std::fs::write(out.join("report.json"), json)?;
    Ok(())
}

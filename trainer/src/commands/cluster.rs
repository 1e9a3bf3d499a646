//! `facelatch cluster`: pictures of people nobody has named, in groups.

use std::path::{Path, PathBuf};

use image::{RgbImage, imageops};
use serde_json::json;

use super::evaluate::EyesArgs;
use crate::cli::{Failure, FailureKind};
use crate::evaluate::cluster::{self, Agreement, Linkage, THUMBNAIL_PX};
use crate::evaluate::identify::pictures_in;
use crate::evaluate::pictures::{self, look};
use crate::progress::Bar;

/// Arguments of `facelatch cluster`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Folder of pictures; sub-folders are searched too
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// Groups are merged while they are at least this alike
    #[arg(long, value_name = "SIMILARITY", default_value_t = 0.4, allow_negative_numbers = true)]
    threshold: f32,
    /// How alike two groups are
    #[arg(long, value_enum, default_value = "average")]
    linkage: Linkage,
    /// Write a contact sheet as PNG
    #[arg(long, value_name = "FILE")]
    sheet: Option<PathBuf>,
    /// Smallest group shown on the sheet
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    least: u32,
    /// The name of a picture's folder is its person's: say how well the groups match
    #[arg(long)]
    labelled: bool,
    #[command(flatten)]
    eyes: EyesArgs,
    /// Print JSON, with the pictures of every group
    #[arg(long)]
    json: bool,
}

/// Faces whose similarities fit into 450 MB.
const MAX_FACES: usize = 15_000;
const SHEET_COLUMNS: u32 = 16;
/// Rows of a sheet of 1,800 px or so, which an image viewer still shows whole.
const SHEET_ROWS: u32 = 30;

/// Finds faces, groups them, prints and draws the groups.
///
/// # Errors
/// A [`Failure`].
pub fn run(args: &Args) -> Result<(), Failure> {
    let failed = |error: String| Failure::new(FailureKind::Failed, error);
    let mut files = Vec::new();
    collect(&args.images, &mut files)
        .map_err(|e| failed(format!("cannot list {}: {e}", args.images.display())))?;
    files.sort();
    if files.is_empty() || files.len() > MAX_FACES {
        let count = files.len();
        return Err(failed(format!("{} holds {count} pictures", args.images.display()))
            .hint(format!("1 to {MAX_FACES} can be grouped (.jpg, .png, .webp)")));
    }
    let mut loaded = args.eyes.load()?;
    let keep = args.sheet.is_some();
    let seen = pictures::each(&files, &mut loaded.eyes, &Bar::new(), |eyes, picture| {
        Ok(look(eyes, &picture)?.map(|seen| {
            let thumbnail = if keep { thumbnail(&picture, &seen) } else { RgbImage::default() };
            (seen.embedding, thumbnail)
        }))
    })?;
    let mut faces = Vec::new();
    let (mut embeddings, mut thumbnails) = (Vec::new(), Vec::new());
    for (file, seen) in files.iter().zip(seen) {
        if let Some((embedding, thumbnail)) = seen {
            faces.push(file);
            embeddings.push(embedding);
            thumbnails.push(thumbnail);
        }
    }
    let groups = cluster::cluster(&embeddings, args.linkage, args.threshold);
    let agreement = args.labelled.then(|| {
        let mut names: Vec<&Path> = faces.iter().filter_map(|file| file.parent()).collect();
        names.sort_unstable();
        names.dedup();
        let number = |file: &PathBuf| file.parent().and_then(|name| names.binary_search(&name).ok());
        let people: Vec<usize> = faces.iter().filter_map(|file| number(file)).collect();
        (cluster::agreement(&groups, &people), names.len())
    });
    let shown = match &args.sheet {
        None => 0,
        Some(path) => {
            let (sheet, shown) =
                cluster::sheet(&groups, &thumbnails, SHEET_COLUMNS, args.least as usize, SHEET_ROWS);
            sheet.save(path).map_err(|e| failed(format!("cannot write {}: {e}", path.display())))?;
            shown
        }
    };
    let missed = files.len() - faces.len();
    if args.json {
        let of = |group: &Vec<usize>| {
            let names = group.iter().map(|&face| {
                faces[face].strip_prefix(&args.images).unwrap_or(faces[face]).display().to_string()
            });
            names.collect::<Vec<_>>()
        };
        let value = json!({
            "faces": faces.len(),
            "faces_not_found": missed,
            "groups": groups.iter().map(of).collect::<Vec<_>>(),
            "agreement": agreement.map(|(a, people)| {
                json!({ "people": people, "precision": a.precision, "recall": a.recall, "f1": a.f1 })
            }),
        });
        println!("{value:#}");
    } else {
        print!("{}", text(&groups, faces.len(), missed, agreement));
        if let Some(path) = &args.sheet {
            println!("{:<17} {} groups of {} or more on {}", "sheet", shown, args.least, path.display());
        }
    }
    Ok(())
}

fn text(groups: &[Vec<usize>], faces: usize, missed: usize, agreement: Option<(Agreement, usize)>) -> String {
    let alone = groups.iter().filter(|group| group.len() == 1).count();
    let largest: Vec<String> = groups.iter().take(10).map(|group| group.len().to_string()).collect();
    let mut text = format!(
        "faces             {faces}; none found in {missed} pictures\n\
         groups            {} of two or more, {alone} faces alone\n\
         largest           {}\n",
        groups.len() - alone,
        largest.join(", ")
    );
    if let Some((agreement, people)) = agreement {
        text += &format!(
            "people            {people} by folder; of pairs grouped {:.2} % are right, of a person's pairs {:.2} % are grouped, F1 {:.2} %\n",
            agreement.precision * 100.0,
            agreement.recall * 100.0,
            agreement.f1 * 100.0
        );
    }
    text
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    files.extend(pictures_in(folder)?);
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // Not through links, which could lead in circles.
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        }
    }
    Ok(())
}

/// The face with a third of its size round it.
fn thumbnail(picture: &RgbImage, seen: &pictures::Seen) -> RgbImage {
    let face = seen.detection.bbox;
    let (centre, side) = (face.centre(), face.w.max(face.h) * 1.33);
    let limit = |value: f32, most: u32| value.clamp(0.0, (most - 1) as f32) as u32;
    let (left, top) =
        (limit(centre.x - side / 2.0, picture.width()), limit(centre.y - side / 2.0, picture.height()));
    let (right, bottom) =
        (limit(centre.x + side / 2.0, picture.width()), limit(centre.y + side / 2.0, picture.height()));
    let crop =
        imageops::crop_imm(picture, left, top, (right - left).max(1), (bottom - top).max(1)).to_image();
    imageops::resize(&crop, THUMBNAIL_PX, THUMBNAIL_PX, imageops::FilterType::Triangle)
}

const HELP: &str = "\
Every picture's subject is found and embedded by the door's own code, then groups are merged, the most alike first, until no two are as \
alike as the threshold. The sheet shows the largest groups, one block each with a coloured bar at its left. Faces on it belong to people: \
treat it like the pictures it was made from.

Examples:
  facelatch cluster --images unsorted --sheet groups.png
  facelatch cluster --images faces --labelled --threshold 0.45 --linkage complete --json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_folders_are_searched_and_other_files_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        for name in ["x.JPG", "a/y.png", "a/b/z.webp", "a/notes.txt"] {
            std::fs::write(dir.path().join(name), b"").unwrap();
        }
        let mut files = Vec::new();
        collect(dir.path(), &mut files).unwrap();
        assert_eq!(files.len(), 3);
    }

    #[test]
    fn the_text_counts_groups_and_lone_faces() {
        let agreement = Agreement { precision: 1.0, recall: 0.5, f1: 2.0 / 3.0 };
        let text = text(&[vec![0, 1, 2], vec![3, 4], vec![5]], 6, 1, Some((agreement, 4)));
        assert!(text.contains("2 of two or more, 1 faces alone"), "{text}");
        assert!(text.contains("3, 2, 1") && text.contains("F1 66.67 %"), "{text}");
    }
}

//! A panel made of files: each screen shown becomes a PNG picture, for demonstrations and documents.

use super::{Canvas, Display, DisplayError, Preview, Screen, draw, draw_live};
use embedded_graphics::geometry::Size;
use facelatch_shared::person::Name;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Most pictures one run writes: a door left running must not fill the disk.
pub const MOST_PICTURES: usize = 999;

/// Writes every screen as `NN-slug.png` (`01-idle.png`, `02-come-closer.png` …) into one folder.
#[derive(Debug)]
pub struct PngDisplay {
    folder: PathBuf,
    canvas: Canvas,
    written: Arc<Mutex<Vec<String>>>,
    /// The screen whose live picture was written: one each is enough.
    live: Option<&'static str>,
}

impl PngDisplay {
    /// Pictures of `size` in `folder`, which is made if need be. Pictures of an earlier run in it (files named
    /// as this one names them) are removed, so that the folder tells one story.
    ///
    /// # Errors
    /// [`DisplayError`] when the size has no pixels, or the folder cannot be made, read or cleared.
    pub fn new(folder: &Path, size: Size) -> Result<Self, DisplayError> {
        let fail = |what: String| DisplayError { panel: folder.display().to_string(), what };
        if size.width == 0 || size.height == 0 {
            return Err(fail(format!(
                "a picture of {}×{} has no pixels; give a size above 0",
                size.width, size.height
            )));
        }
        let clear = || -> std::io::Result<()> {
            std::fs::create_dir_all(folder)?;
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                if is_ours(&entry.file_name().to_string_lossy()) {
                    std::fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        };
        clear().map_err(|error| fail(format!("{error}; give a folder that this user may write")))?;
        Ok(Self { folder: folder.to_owned(), canvas: Canvas::new(size), written: Arc::default(), live: None })
    }

    /// The file names written so far, in order: the list grows while the panel is in use elsewhere.
    #[must_use]
    pub fn written(&self) -> Arc<Mutex<Vec<String>>> {
        Arc::clone(&self.written)
    }
}

impl Display for PngDisplay {
    fn show(&mut self, screen: &Screen) -> Result<(), DisplayError> {
        let Ok(()) = draw(&mut self.canvas, screen);
        self.live = None;
        self.write(screen.slug())
    }

    fn show_live(&mut self, screen: &Screen, preview: &Preview) -> Result<(), DisplayError> {
        if self.live == Some(screen.slug()) {
            return Ok(());
        }
        let Ok(()) = draw_live(&mut self.canvas, screen, preview);
        self.live = Some(screen.slug());
        self.write(&format!("{}{LIVE}", screen.slug()))
    }
}

impl PngDisplay {
    fn write(&mut self, slug: &str) -> Result<(), DisplayError> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.len() >= MOST_PICTURES {
            let what = format!("{MOST_PICTURES} pictures are written, no more; start again to write others");
            return Err(DisplayError { panel: self.folder.display().to_string(), what });
        }
        let name = format!("{:02}-{slug}.png", written.len() + 1);
        self.canvas.write_png(&self.folder.join(&name))?;
        written.push(name);
        Ok(())
    }
}

/// What the name of a screen with the camera's picture ends in.
const LIVE: &str = "-live";

/// Two or three digits, a hyphen, a slug, `.png`.
fn is_ours(name: &str) -> bool {
    let Some((number, slug)) = name.strip_suffix(".png").and_then(|stem| stem.split_once('-')) else {
        return false;
    };
    let slug = slug.strip_suffix(LIVE).unwrap_or(slug);
    let digits = (2..=3).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
    digits && Name::new("x").is_ok_and(|x| Screen::examples(&x, &x).iter().any(|s| s.slug() == slug))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn screens_become_numbered_files_and_an_older_story_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("panel");
        std::fs::create_dir_all(&path).unwrap();
        for name in [
            "07-idle.png",
            "08-enrol-left-live.png",
            "02-holiday.png",
            "idle.png",
            "notes.txt",
            "2024-idle.png",
        ] {
            std::fs::write(path.join(name), b"x").unwrap();
        }
        let mut panel = PngDisplay::new(&path, Size::new(120, 80)).unwrap();
        let written = panel.written();
        panel.show(&Screen::Looking).unwrap();
        panel.show(&Screen::NotRecognised).unwrap();
        assert_eq!(*written.lock().unwrap(), ["01-looking.png", "02-not-recognised.png"]);
        let mut there: Vec<String> = std::fs::read_dir(&path)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        there.sort();
        let kept = ["02-holiday.png", "2024-idle.png", "idle.png", "notes.txt"];
        let mut expected: Vec<&str> =
            kept.into_iter().chain(["01-looking.png", "02-not-recognised.png"]).collect();
        expected.sort_unstable();
        assert_eq!(there, expected);
        let picture = Canvas::from_png(&std::fs::read(path.join("01-looking.png")).unwrap()).unwrap();
        let mut drawn = Canvas::new(Size::new(120, 80));
        draw(&mut drawn, &Screen::Looking).unwrap();
        assert_eq!(picture, drawn);
    }

    #[test]
    fn a_folder_that_cannot_be_and_a_size_of_nothing_are_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = PngDisplay::new(&file.path().join("x"), Size::new(8, 8)).unwrap_err();
        assert!(error.to_string().contains("may write"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        assert!(PngDisplay::new(folder.path(), Size::new(8, 0)).is_err());
    }

    #[test]
    fn the_disk_is_not_filled() {
        let folder = tempfile::tempdir().unwrap();
        let mut panel = PngDisplay::new(folder.path(), Size::new(1, 1)).unwrap();
        panel.written().lock().unwrap().resize(MOST_PICTURES, String::new());
        assert!(panel.show(&Screen::Looking).unwrap_err().to_string().contains("999"));
    }
}

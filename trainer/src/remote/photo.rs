//! Photographs made fit for the link: upright, of bounded size, without whatever else the file said about place and time.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use facelatch_shared::remote::PHOTO_BYTES;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::{DynamicImage, ImageDecoder as _, ImageReader};
use thiserror::Error;

/// The photograph at `path` as a JPEG of at most [`SIDE_PX`] a side and [`PHOTO_BYTES`] bytes, turned as the camera was held.
///
/// # Errors
/// [`PhotoError`], naming the file.
pub fn prepare(path: &Path) -> Result<Vec<u8>, PhotoError> {
    let unreadable = |what: String| PhotoError { path: path.to_owned(), what };
    let read = || -> Result<DynamicImage, image::ImageError> {
        let mut decoder = ImageReader::open(path)?.with_guessed_format()?.into_decoder()?;
        let orientation = decoder.orientation()?;
        let mut picture = DynamicImage::from_decoder(decoder)?;
        picture.apply_orientation(orientation);
        Ok(picture)
    };
    let mut picture = read().map_err(|error| unreadable(error.to_string()))?;
    if picture.width().max(picture.height()) > SIDE_PX {
        picture = picture.resize(SIDE_PX, SIDE_PX, FilterType::Triangle);
    }
    let rgb = picture.into_rgb8();
    for quality in QUALITIES {
        let mut out = Cursor::new(Vec::new());
        JpegEncoder::new_with_quality(&mut out, quality)
            .encode_image(&rgb)
            .map_err(|error| unreadable(error.to_string()))?;
        if out.get_ref().len() <= PHOTO_BYTES {
            return Ok(out.into_inner());
        }
    }
    Err(unreadable(format!("it stays above {} KiB as a JPEG of {SIDE_PX} px", PHOTO_BYTES / 1024)))
}

/// Longest side. A face that the door can use fills a tenth of it or more.
pub const SIDE_PX: u32 = 1280;
/// A photograph of 1280 px takes about 300 KiB at the first.
const QUALITIES: [u8; 3] = [92, 80, 60];

/// A file that is of no use.
#[derive(Debug, Error)]
#[error("{}: {what}", path.display())]
pub struct PhotoError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageFormat, Rgb, RgbImage};

    #[test]
    fn large_photographs_are_scaled_and_small_ones_left() {
        let folder = tempfile::tempdir().unwrap();
        let size = |width, height| {
            let path = folder.path().join("p.png");
            RgbImage::from_pixel(width, height, Rgb([90, 80, 70])).save(&path).unwrap();
            let jpeg = prepare(&path).unwrap();
            assert!(jpeg.len() <= PHOTO_BYTES);
            let back = image::load_from_memory_with_format(&jpeg, ImageFormat::Jpeg).unwrap();
            (back.width(), back.height())
        };
        assert_eq!(size(2560, 640), (1280, 320));
        assert_eq!(size(100, 50), (100, 50));
    }

    #[test]
    fn a_photograph_of_a_camera_held_upright_is_turned_and_stripped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.jpg");
        // A JPEG, landscape, whose EXIF block says that it must be turned a quarter clockwise (orientation 6).
        let mut plain = Cursor::new(Vec::new());
        RgbImage::from_fn(80, 40, |x, _| Rgb([if x < 40 { 250 } else { 5 }; 3]))
            .write_to(&mut plain, ImageFormat::Jpeg)
            .unwrap();
        let plain = plain.into_inner();
        let tiff = [
            &b"MM\0*\0\0\0\x08\0\x01"[..],
            &[0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0], // tag 0x0112, SHORT, one value: 6
            &[0, 0, 0, 0],
        ]
        .concat();
        let body = [&b"Exif\0\0"[..], &tiff].concat();
        let length = (body.len() as u16 + 2).to_be_bytes();
        let with_exif = [&plain[..2], &[0xFF, 0xE1], &length, &body, &plain[2..]].concat();
        std::fs::write(&path, with_exif).unwrap();
        let jpeg = prepare(&path).unwrap();
        assert!(!jpeg.windows(4).any(|w| w == b"Exif"));
        let back = image::load_from_memory(&jpeg).unwrap().into_rgb8();
        assert_eq!((back.width(), back.height()), (40, 80));
        assert!(back.get_pixel(20, 10)[0] > 200 && back.get_pixel(20, 70)[0] < 60);
    }

    #[test]
    fn what_is_no_photograph_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.jpg");
        std::fs::write(&path, "no picture").unwrap();
        assert!(prepare(&path).unwrap_err().to_string().contains("notes.jpg"));
        assert!(prepare(Path::new("/nowhere.jpg")).unwrap_err().to_string().contains("/nowhere.jpg"));
    }
}

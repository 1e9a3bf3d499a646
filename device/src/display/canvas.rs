//! A picture in memory that every screen can be drawn on, and its way to a PNG file.

use super::DisplayError;
use embedded_graphics::Pixel;
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::primitives::{PointsIter, Rectangle};
use std::path::Path;

/// Longest side of a canvas, in pixels.
pub const LONGEST_SIDE_PX: u32 = 4096;

/// An owned 8-bit RGB picture, rows top down, no padding. What is drawn outside it is dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canvas {
    size: Size,
    rgb: Vec<u8>,
}

impl Canvas {
    /// A black canvas; sides above [`LONGEST_SIDE_PX`] are cut to it.
    #[must_use]
    pub fn new(size: Size) -> Self {
        let size = Size::new(size.width.min(LONGEST_SIDE_PX), size.height.min(LONGEST_SIDE_PX));
        Self { size, rgb: vec![0; size.width as usize * size.height as usize * 3] }
    }

    /// The bytes: `height × width × 3`, red first.
    #[must_use]
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// The colour at `point`, `None` outside.
    #[must_use]
    pub fn pixel(&self, point: Point) -> Option<Rgb888> {
        let at = self.index(point)?;
        let [r, g, b] = *self.rgb.get(at..at + 3)? else { return None };
        Some(Rgb888::new(r, g, b))
    }

    /// The picture as PNG bytes; the same picture always gives the same bytes. Up to 256 colours are stored by
    /// number, which halves the file.
    ///
    /// # Errors
    /// [`DisplayError`] for a canvas without pixels.
    pub fn to_png(&self) -> Result<Vec<u8>, DisplayError> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.size.width, self.size.height);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::High);
        encoder.set_filter(png::Filter::NoFilter);
        let pixels = match self.numbered() {
            Some((palette, numbers)) => {
                encoder.set_color(png::ColorType::Indexed);
                encoder.set_palette(palette);
                std::borrow::Cow::Owned(numbers)
            }
            None => {
                encoder.set_color(png::ColorType::Rgb);
                std::borrow::Cow::Borrowed(&self.rgb)
            }
        };
        encoder
            .write_header()
            .and_then(|mut writer| writer.write_image_data(&pixels).and_then(|()| writer.finish()))
            .map_err(|error| DisplayError { panel: "png".to_owned(), what: error.to_string() })?;
        Ok(bytes)
    }

    /// The colours in order of appearance, three bytes each, and each pixel's number among them; `None` above 256.
    fn numbered(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut numbers_of = std::collections::HashMap::new();
        let mut palette = Vec::new();
        let mut numbers = Vec::with_capacity(self.rgb.len() / 3);
        for color in self.rgb.as_chunks::<3>().0 {
            let next = numbers_of.len();
            let number = *numbers_of.entry(*color).or_insert(next);
            if number == next {
                palette.extend_from_slice(color);
            }
            numbers.push(u8::try_from(number).ok()?);
        }
        Some((palette, numbers))
    }

    /// Writes the picture to `path` as PNG.
    ///
    /// # Errors
    /// [`DisplayError`] when the file cannot be written.
    pub fn write_png(&self, path: &Path) -> Result<(), DisplayError> {
        let fail = |what: String| DisplayError { panel: path.display().to_string(), what };
        let bytes = self.to_png().map_err(|error| fail(error.what))?;
        std::fs::write(path, bytes)
            .map_err(|error| fail(format!("{error}; is the folder there, writable and not full?")))
    }

    /// Reads back a PNG of any colour type.
    ///
    /// # Errors
    /// [`DisplayError`] when the bytes are no PNG picture.
    pub fn from_png(bytes: &[u8]) -> Result<Self, DisplayError> {
        let picture = image::load_from_memory_with_format(bytes, image::ImageFormat::Png)
            .map_err(|error| DisplayError { panel: "png".to_owned(), what: error.to_string() })?
            .into_rgb8();
        Ok(Self { size: Size::new(picture.width(), picture.height()), rgb: picture.into_raw() })
    }

    fn index(&self, point: Point) -> Option<usize> {
        let x = u32::try_from(point.x).ok().filter(|x| *x < self.size.width)?;
        let y = u32::try_from(point.y).ok().filter(|y| *y < self.size.height)?;
        Some((y as usize * self.size.width as usize + x as usize) * 3)
    }

    fn set(&mut self, point: Point, color: Rgb888) {
        if let Some(cell) = self.index(point).and_then(|at| self.rgb.get_mut(at..at + 3)) {
            cell.copy_from_slice(&[color.r(), color.g(), color.b()]);
        }
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        self.size
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = core::convert::Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Self::Error> {
        pixels.into_iter().for_each(|Pixel(point, color)| self.set(point, color));
        Ok(())
    }

    fn fill_contiguous<I: IntoIterator<Item = Rgb888>>(
        &mut self,
        area: &Rectangle,
        colors: I,
    ) -> Result<(), Self::Error> {
        area.points().zip(colors).for_each(|(point, color)| self.set(point, color));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_graphics::pixelcolor::WebColors;

    #[test]
    fn pixels_land_where_they_are_put_and_nowhere_else() {
        let mut canvas = Canvas::new(Size::new(3, 2));
        let all = [(0, 0), (2, 1), (3, 0), (-1, 0), (0, 2), (i32::MAX, i32::MIN)];
        canvas.draw_iter(all.map(|(x, y)| Pixel(Point::new(x, y), Rgb888::CSS_ORANGE))).unwrap();
        let orange = [255, 165, 0];
        let mut expected = [[0_u8; 3]; 6];
        (expected[0], expected[5]) = (orange, orange);
        assert_eq!(canvas.rgb(), expected.as_flattened());
        assert_eq!(canvas.pixel(Point::new(2, 1)), Some(Rgb888::CSS_ORANGE));
        assert_eq!(canvas.pixel(Point::new(3, 1)), None);
    }

    #[test]
    fn areas_are_filled_row_by_row_and_clipped() {
        let mut canvas = Canvas::new(Size::new(2, 2));
        let area = Rectangle::new(Point::new(-1, 0), Size::new(2, 2));
        let colors = [1, 2, 3, 4].map(|level| Rgb888::new(level, 0, 0));
        canvas.fill_contiguous(&area, colors).unwrap();
        assert_eq!(canvas.rgb(), [[2, 0, 0], [0; 3], [4, 0, 0], [0; 3]].as_flattened());
    }

    #[test]
    fn a_png_comes_back_pixel_for_pixel() {
        let mut canvas = Canvas::new(Size::new(5, 4));
        canvas
            .fill_contiguous(
                &Rectangle::new(Point::zero(), canvas.size()),
                (0_u8..20).map(|level| Rgb888::new(level * 12, 255 - level, level)),
            )
            .unwrap();
        let bytes = canvas.to_png().unwrap();
        assert_eq!(Canvas::from_png(&bytes).unwrap(), canvas);
        assert_eq!(canvas.to_png().unwrap(), bytes);
        assert!(Canvas::from_png(&bytes[..20]).is_err());
    }

    #[test]
    fn pictures_of_more_than_256_colours_keep_them_all() {
        for colors in [256, 257_u16] {
            let mut canvas = Canvas::new(Size::new(257, 2));
            let shade = |i: u16| Rgb888::new((i % colors / 256) as u8, (i % colors % 256) as u8, 9);
            let area = Rectangle::new(Point::zero(), canvas.size());
            canvas.fill_contiguous(&area, (0..514).map(shade)).unwrap();
            assert_eq!(canvas.numbered().is_some(), colors == 256);
            assert_eq!(Canvas::from_png(&canvas.to_png().unwrap()).unwrap(), canvas);
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = Canvas::new(Size::new(1, 1)).write_png(Path::new("/nonexistent/a.png")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/a.png"), "{error}");
        assert!(Canvas::new(Size::zero()).to_png().is_err());
    }
}

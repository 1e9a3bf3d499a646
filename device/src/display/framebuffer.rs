//! A panel behind Linux's framebuffer device: `/dev/fb0` of HDMI, DSI and most SPI panels (`fbtft`, `panel-mipi-dbi`).
//!
//! The picture's shape is read from `/sys/class/graphics/fbN/{virtual_size,modes,bits_per_pixel,stride}`, so nothing is
//! mapped and no call is unsafe: a screen is drawn in memory, and what changed is converted row by row and written to its place.
//! Source: Linux, `Documentation/fb/api.rst` and `drivers/video/fbdev/core/fbsysfs.c`.

use super::damage::{self, Redraw};
use super::{Canvas, Display, DisplayError, Preview, Screen, draw, draw_live};
use embedded_graphics::geometry::{Point, Size};
use embedded_graphics::primitives::Rectangle;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// How one pixel lies in memory, least byte first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PixelFormat {
    /// 16 bits: five red, six green, five blue.
    Rgb565,
    /// 32 bits: an unused byte, then red, green, blue.
    Xrgb8888,
}

impl PixelFormat {
    const fn bytes(self) -> usize {
        match self {
            Self::Rgb565 => 2,
            Self::Xrgb8888 => 4,
        }
    }
}

/// The shape of a framebuffer's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Visible pixels.
    pub size: Size,
    /// From one row to the next.
    pub stride_bytes: usize,
    /// How a pixel is stored.
    pub format: PixelFormat,
}

impl Geometry {
    /// Reads `virtual_size`, `bits_per_pixel` and `stride` from `folder`, `/sys/class/graphics/fb0` on a board.
    ///
    /// # Errors
    /// [`DisplayError`] when one cannot be read, makes no sense, or asks for a pixel format other than these two.
    pub fn read(folder: &Path) -> Result<Self, DisplayError> {
        let fail = |what: String| DisplayError { panel: folder.display().to_string(), what };
        let value = |name: &str| {
            std::fs::read_to_string(folder.join(name)).map(|text| text.trim().to_owned()).map_err(|error| {
                fail(format!("{name}: {error}; is the panel's driver loaded? `ls /sys/class/graphics` lists what is there"))
            })
        };
        let number = |name: &str, text: &str| {
            text.trim().parse::<u32>().map_err(|_| fail(format!("{name} says \"{text}\", expected a number")))
        };
        let text = value("virtual_size")?;
        let (width, height) = text
            .split_once(',')
            .ok_or_else(|| fail(format!("virtual_size says \"{text}\", expected \"width,height\"")))?;
        let size = Size::new(number("virtual_size", width)?, number("virtual_size", height)?);
        let format = match number("bits_per_pixel", &value("bits_per_pixel")?)? {
            16 => PixelFormat::Rgb565,
            32 => PixelFormat::Xrgb8888,
            other => {
                return Err(fail(format!(
                    "bits_per_pixel is {other}, supported are 16 and 32; set it with `fbset -depth 16` or in the panel's device tree overlay"
                )));
            }
        };
        let stride_bytes = number("stride", &value("stride")?)? as usize;
        // A driver with two pages reports both as one tall picture; its mode ("U:480x320p-60") says what is seen.
        let seen = std::fs::read_to_string(folder.join("modes")).ok().and_then(|text| visible(&text));
        let size = seen.map_or(size, |seen| size.component_min(seen));
        let geometry = Self { size, stride_bytes, format };
        let longest = super::canvas::LONGEST_SIDE_PX;
        if !(1..=longest).contains(&size.width) || !(1..=longest).contains(&size.height) {
            return Err(fail(format!(
                "a panel of {width}×{height} pixels; 1 to {longest} a side are supported"
            )));
        }
        let least = geometry.row_bytes();
        if stride_bytes < least || stride_bytes > 4 * least + 4096 {
            return Err(fail(format!("stride is {stride_bytes} bytes, expected at least the row's {least}")));
        }
        Ok(geometry)
    }

    const fn row_bytes(&self) -> usize {
        self.size.width as usize * self.format.bytes()
    }

    /// Where the pixel at `point` lies.
    const fn offset(&self, point: Point) -> usize {
        point.y as usize * self.stride_bytes + point.x as usize * self.format.bytes()
    }

    /// Row `y` of `canvas`, `width` pixels from `left` on, as this framebuffer's memory.
    fn pack_row(&self, canvas: &Canvas, left: usize, y: usize, width: usize, memory: &mut Vec<u8>) {
        let from = (y * self.size.width as usize + left) * 3;
        for pixel in canvas.rgb()[from..from + width * 3].as_chunks::<3>().0 {
            let [red, green, blue] = *pixel;
            match self.format {
                PixelFormat::Rgb565 => {
                    let packed =
                        u16::from(red >> 3) << 11 | u16::from(green >> 2) << 5 | u16::from(blue >> 3);
                    memory.extend_from_slice(&packed.to_le_bytes());
                }
                PixelFormat::Xrgb8888 => memory.extend_from_slice(&[blue, green, red, 0xFF]),
            }
        }
    }
}

/// Width and height of the first mode in `modes`.
fn visible(modes: &str) -> Option<Size> {
    let (_, mode) = modes.lines().next()?.split_once(':')?;
    let (width, rest) = mode.split_once('x')?;
    let height = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some(Size::new(width.parse().ok()?, height.parse().ok()?))
        .filter(|size| size.width > 0 && size.height > 0)
}

/// A panel written as a file.
#[derive(Debug)]
pub struct FramebufferDisplay {
    path: PathBuf,
    file: File,
    geometry: Geometry,
    canvas: Canvas,
    // What the panel shows; `None` before the first picture and after one that could not be written.
    shown: Option<Canvas>,
    memory: Vec<u8>,
    last: Redraw,
}

impl FramebufferDisplay {
    /// Opens `device` (`/dev/fb0`) and reads its shape from `/sys/class/graphics` under the same name.
    ///
    /// # Errors
    /// [`DisplayError`] when there is no such device, this user may not write it, or its shape is not supported.
    pub fn open(device: &Path) -> Result<Self, DisplayError> {
        let name = device.file_name().ok_or_else(|| DisplayError {
            panel: device.display().to_string(),
            what: "not a device; give one like /dev/fb0".to_owned(),
        })?;
        Self::with_geometry(device, Geometry::read(&Path::new("/sys/class/graphics").join(name))?)
    }

    /// Opens `device` with a known shape.
    ///
    /// # Errors
    /// [`DisplayError`] when it cannot be opened for writing.
    pub fn with_geometry(device: &Path, geometry: Geometry) -> Result<Self, DisplayError> {
        let file = OpenOptions::new().write(true).open(device).map_err(|error| {
            let remedy = match error.kind() {
                std::io::ErrorKind::PermissionDenied => "add this user to the group `video`",
                std::io::ErrorKind::NotFound => {
                    "is the panel's driver loaded? `ls /dev/fb*` lists what is there"
                }
                _ => "is it a framebuffer?",
            };
            DisplayError { panel: device.display().to_string(), what: format!("{error}; {remedy}") }
        })?;
        Ok(Self {
            path: device.to_owned(),
            file,
            geometry,
            canvas: Canvas::new(geometry.size),
            shown: None,
            memory: Vec::new(),
            last: Redraw::default(),
        })
    }

    /// What the last picture cost.
    #[must_use]
    pub const fn last_redraw(&self) -> Redraw {
        self.last
    }

    fn write(&mut self) -> Result<(), DisplayError> {
        self.flush().map_err(|error| DisplayError {
            panel: self.path.display().to_string(),
            what: format!("{error}; is the panel still plugged in?"),
        })
    }

    /// Writes what of the canvas is not shown yet; rows of a rectangle as wide as the panel in one piece.
    fn flush(&mut self) -> std::io::Result<()> {
        let geometry = self.geometry;
        let whole = Rectangle::new(Point::zero(), geometry.size);
        let areas =
            self.shown.as_ref().map_or_else(|| vec![whole], |shown| damage::changed(shown, &self.canvas));
        self.shown = None;
        self.last = Redraw::default();
        for area in areas {
            let (left, width) = (area.top_left.x as usize, area.size.width as usize);
            let (top, height) = (area.top_left.y as usize, area.size.height as usize);
            let in_one = width == geometry.size.width as usize;
            self.memory.clear();
            for y in top..top + height {
                geometry.pack_row(&self.canvas, left, y, width, &mut self.memory);
                if in_one {
                    // The padding of a row is written too: one call instead of one a row.
                    self.memory.resize((y + 1 - top) * geometry.stride_bytes, 0);
                } else {
                    let at = geometry.offset(Point::new(left as i32, y as i32));
                    self.file.write_all_at(&self.memory, at as u64)?;
                    self.memory.clear();
                }
            }
            self.file.write_all_at(&self.memory, (top * geometry.stride_bytes) as u64)?;
            self.last.pixels += width * height;
            self.last.bytes += width * height * geometry.format.bytes();
            self.last.areas += 1;
        }
        self.shown = Some(self.canvas.clone());
        Ok(())
    }

    /// The shape of its memory.
    #[must_use]
    pub const fn geometry(&self) -> Geometry {
        self.geometry
    }
}

impl Display for FramebufferDisplay {
    fn show(&mut self, screen: &Screen) -> Result<(), DisplayError> {
        let Ok(()) = draw(&mut self.canvas, screen);
        self.write()
    }

    fn show_live(&mut self, screen: &Screen, preview: &Preview) -> Result<(), DisplayError> {
        let Ok(()) = draw_live(&mut self.canvas, screen, preview);
        self.write()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_graphics::pixelcolor::RgbColor;

    fn sysfs(size: &str, bits: &str, stride: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("virtual_size", size), ("bits_per_pixel", bits), ("stride", stride)] {
            std::fs::write(folder.path().join(name), format!("{text}\n")).unwrap();
        }
        folder
    }

    #[test]
    fn the_shape_is_read_from_sysfs() {
        let folder = sysfs("480,320", "16", "960");
        let expected = Geometry { size: Size::new(480, 320), stride_bytes: 960, format: PixelFormat::Rgb565 };
        assert_eq!(Geometry::read(folder.path()).unwrap(), expected);
        let folder = sysfs("800,480", "32", "3328");
        assert_eq!(Geometry::read(folder.path()).unwrap().stride_bytes, 3328);
        let folder = sysfs("480,640", "16", "960");
        std::fs::write(folder.path().join("modes"), "U:480x320p-60\n").unwrap();
        assert_eq!(Geometry::read(folder.path()).unwrap(), expected, "two pages, one seen");
        std::fs::write(folder.path().join("modes"), "\n").unwrap();
        assert_eq!(Geometry::read(folder.path()).unwrap().size.height, 640);
    }

    #[test]
    fn shapes_that_cannot_be_are_refused_by_name() {
        for (size, bits, stride, said) in [
            ("480", "16", "960", "width,height"),
            ("480,tall", "16", "960", "expected a number"),
            ("0,320", "16", "0", "0×320"),
            ("480,99999", "16", "960", "480×99999"),
            ("480,320", "24", "1440", "16 and 32"),
            ("480,320", "32", "960", "at least the row's 1920"),
            ("480,320", "16", "4000000000", "stride"),
        ] {
            let error = Geometry::read(sysfs(size, bits, stride).path()).unwrap_err().to_string();
            assert!(error.contains(said), "{size} {bits} {stride}: {error}");
        }
        let error = Geometry::read(Path::new("/nonexistent")).unwrap_err().to_string();
        assert!(error.contains("driver loaded"), "{error}");
    }

    #[test]
    fn both_formats_store_what_was_drawn_at_the_stride_and_rewrite_in_place() {
        for (format, bytes) in [(PixelFormat::Rgb565, 2), (PixelFormat::Xrgb8888, 4)] {
            let geometry = Geometry { size: Size::new(96, 64), stride_bytes: 96 * bytes + 32, format };
            let device = tempfile::NamedTempFile::new().unwrap();
            let mut panel = FramebufferDisplay::with_geometry(device.path(), geometry).unwrap();
            panel.show(&Screen::DoorForced).unwrap();
            panel.show(&Screen::NotRecognised).unwrap();
            let memory = std::fs::read(device.path()).unwrap();
            assert_eq!(memory.len(), 64 * geometry.stride_bytes);
            let mut drawn = Canvas::new(geometry.size);
            draw(&mut drawn, &Screen::NotRecognised).unwrap();
            for (x, y) in (0..64).flat_map(|y| (0..96).map(move |x| (x, y))) {
                let color = drawn.pixel(Point::new(x as i32, y as i32)).unwrap();
                let at = y * geometry.stride_bytes + x * bytes;
                let (red, green, blue) = match format {
                    PixelFormat::Rgb565 => {
                        let packed = u16::from_le_bytes([memory[at], memory[at + 1]]);
                        assert!(
                            (packed >> 11) as u8 == color.r() >> 3 && (packed & 31) as u8 == color.b() >> 3
                        );
                        (color.r(), ((packed >> 5 & 63) as u8) << 2 | color.g() & 3, color.b())
                    }
                    PixelFormat::Xrgb8888 => (memory[at + 2], memory[at + 1], memory[at]),
                };
                assert_eq!((red, green, blue), (color.r(), color.g(), color.b()), "{format:?} at {x}, {y}");
            }
            assert!(memory[96 * bytes..geometry.stride_bytes].iter().all(|b| *b == 0), "padding");
        }
    }

    #[test]
    fn only_what_changed_is_written() {
        let geometry = Geometry { size: Size::new(480, 320), stride_bytes: 960, format: PixelFormat::Rgb565 };
        let device = tempfile::NamedTempFile::new().unwrap();
        let mut panel = FramebufferDisplay::with_geometry(device.path(), geometry).unwrap();
        let name = facelatch_shared::person::Name::new("Ada").unwrap();
        let welcome = |seconds_left| Screen::Welcome { name: name.clone(), seconds_left, seconds_total: 5 };
        panel.show(&welcome(5)).unwrap();
        assert_eq!(panel.last_redraw(), Redraw { pixels: 480 * 320, bytes: 480 * 320 * 2, areas: 1 });
        panel.show(&welcome(4)).unwrap();
        let partly = panel.last_redraw();
        assert!(partly.pixels > 0 && partly.pixels * 3 < 480 * 320, "{partly:?}");
        let fresh = tempfile::NamedTempFile::new().unwrap();
        FramebufferDisplay::with_geometry(fresh.path(), geometry).unwrap().show(&welcome(4)).unwrap();
        assert!(std::fs::read(device.path()).unwrap() == std::fs::read(fresh.path()).unwrap());
    }

    #[test]
    fn a_missing_device_comes_with_a_remedy() {
        let error = FramebufferDisplay::open(Path::new("/dev/fb99")).unwrap_err().to_string();
        assert!(error.contains("fb99") && error.contains("driver loaded"), "{error}");
        let geometry = Geometry { size: Size::new(8, 8), stride_bytes: 16, format: PixelFormat::Rgb565 };
        let error = FramebufferDisplay::with_geometry(Path::new("/nonexistent/fb0"), geometry)
            .unwrap_err()
            .to_string();
        assert!(error.contains("ls /dev/fb*"), "{error}");
        assert!(FramebufferDisplay::open(Path::new("/")).is_err());
    }

    #[test]
    fn a_full_device_is_an_error_not_a_panic() {
        let geometry = Geometry { size: Size::new(8, 8), stride_bytes: 16, format: PixelFormat::Rgb565 };
        let mut panel = FramebufferDisplay::with_geometry(Path::new("/dev/full"), geometry).unwrap();
        assert!(panel.show(&Screen::Looking).unwrap_err().to_string().contains("/dev/full"));
    }
}

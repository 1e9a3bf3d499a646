//! A small colour panel on the board's SPI bus: ILI9341, ST7735, ST7789 and ST7796 controllers, through the `mipidsi` crate.
//!
//! Only what changed is sent ([`damage`]): a full 320×240 picture is 154 kB, 31 ms at 40 MHz; a countdown a tenth of it. Where the kernel
//! has a driver for the panel (`panel-mipi-dbi`, `fbtft`), `kind = "framebuffer"` works as well and needs no pins here.

use std::path::PathBuf;

use embedded_graphics::geometry::{OriginDimensions as _, Point, Size};
use embedded_graphics::pixelcolor::{Rgb565, Rgb888};
use embedded_graphics::primitives::{PointsIter as _, Rectangle};
use embedded_hal::delay::DelayNs;
use embedded_hal::digital::OutputPin;
use embedded_hal::spi::SpiDevice;
use linux_embedded_hal::gpio_cdev::{Chip, LineRequestFlags};
use linux_embedded_hal::spidev::{SpiModeFlags, SpidevOptions};
use linux_embedded_hal::{CdevPin, Delay, SpidevDevice};
use mipidsi::Builder;
use mipidsi::interface::{Interface, InterfacePixelFormat, SpiInterface};
use mipidsi::models::{ILI9341Rgb565, Model, ST7735s, ST7789, ST7796};
use mipidsi::options::{ColorInversion, ColorOrder, Orientation, Rotation};
use serde::{Deserialize, Serialize};

use super::damage::{self, Redraw};
use super::{Canvas, Display, DisplayError, Preview, Screen, draw, draw_live};
use crate::camera::orientation;
use crate::lock::gpio::{explain, line_name};

/// The chip that drives the panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Controller {
    /// 240×320.
    Ili9341,
    /// Up to 132×162.
    St7735,
    /// Up to 240×320.
    St7789,
    /// 320×480.
    St7796,
}

/// An output line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinSpec {
    /// The chip's device, such as `/dev/gpiochip0`.
    pub chip: PathBuf,
    /// The line's offset at that chip, from 0.
    pub line: u32,
}

/// Where the panel is wired, and what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpiSpec {
    /// The bus and its chip select, such as `/dev/spidev0.0`.
    pub device: PathBuf,
    /// The controller.
    pub controller: Controller,
    /// Width of the glass in pixels, before it is turned.
    pub width_px: u16,
    /// Its height.
    pub height_px: u16,
    /// How far the picture is turned on it, clockwise: 0, 90, 180 or 270.
    #[serde(default)]
    pub rotate_deg: orientation::Rotation,
    /// The clock of the bus, in Hz; most panels take 32 to 40 MHz.
    #[serde(default = "default_hz")]
    pub clock_hz: u32,
    /// Colours come out inverted without it, on most ST7789 panels.
    #[serde(default)]
    pub invert: bool,
    /// Red and blue come out swapped without it.
    #[serde(default)]
    pub bgr: bool,
    /// Data or command.
    pub dc: PinSpec,
    /// Reset; left out, the panel is reset by command.
    pub reset: Option<PinSpec>,
    /// Backlight, on while high; left out, it is always on.
    pub backlight: Option<PinSpec>,
}

const fn default_hz() -> u32 {
    32_000_000
}

/// A panel on any SPI device and pins; [`open`] is the one on real hardware.
pub struct SpiPanel<B: OutputPin> {
    name: String,
    glass: Box<dyn Glass>,
    shown: Option<Canvas>,
    backlight: Option<B>,
    last: Redraw,
}

/// Sends pixels to a rectangle. Hides which controller it is.
trait Glass: Send {
    fn size(&self) -> Size;
    fn send(&mut self, area: &Rectangle, pixels: &mut dyn Iterator<Item = Rgb565>) -> Result<(), String>;
}

impl<I, M, R> Glass for mipidsi::Display<I, M, R>
where
    I: Interface + Send,
    M: Model<ColorFormat = Rgb565> + Send,
    Rgb565: InterfacePixelFormat<I::Word>,
    R: OutputPin + Send,
{
    fn size(&self) -> Size {
        embedded_graphics::geometry::OriginDimensions::size(self)
    }

    fn send(&mut self, area: &Rectangle, pixels: &mut dyn Iterator<Item = Rgb565>) -> Result<(), String> {
        // Inside the panel by construction, whose sides fit 16 bits.
        let (left, top) = (area.top_left.x as u16, area.top_left.y as u16);
        let (right, bottom) = (left + area.size.width as u16 - 1, top + area.size.height as u16 - 1);
        self.set_pixels(left, top, right, bottom, pixels).map_err(|error| format!("{error:?}"))
    }
}

/// Opens the bus and the lines that `spec` names and wakes the panel.
///
/// # Errors
/// [`DisplayError`] naming the device or line and the remedy.
pub fn open(spec: &SpiSpec) -> Result<SpiPanel<CdevPin>, DisplayError> {
    let name = spec.device.display().to_string();
    let failed = |what: String| DisplayError { panel: name.clone(), what };
    let mut bus = SpidevDevice::open(&spec.device).map_err(|error| {
        failed(format!("{error}; is SPI switched on (`ls /dev/spidev*`), and is the user in the group spi?"))
    })?;
    let options = SpidevOptions::new()
        .bits_per_word(8)
        .max_speed_hz(spec.clock_hz)
        .mode(SpiModeFlags::SPI_MODE_0)
        .build();
    bus.configure(&options).map_err(|error| failed(format!("{error}; try a lower panel.clock_hz")))?;
    let pin = |pin: &PinSpec| {
        Chip::new(&pin.chip)
            .and_then(|mut chip| chip.get_line(pin.line))
            .and_then(|line| line.request(LineRequestFlags::OUTPUT, 0, "facelatch panel"))
            .and_then(CdevPin::new)
            .map_err(|error| {
                failed(format!(
                    "{}: {}",
                    line_name(&pin.chip, pin.line),
                    explain(&pin.chip, &error.to_string())
                ))
            })
    };
    let reset = spec.reset.as_ref().map(pin).transpose()?;
    let backlight = spec.backlight.as_ref().map(pin).transpose()?;
    SpiPanel::new(spec, name.clone(), bus, pin(&spec.dc)?, reset, backlight, &mut Delay)
}

impl<B: OutputPin> SpiPanel<B> {
    /// Wakes the panel on `bus`, clears it, and then switches the backlight on.
    ///
    /// # Errors
    /// [`DisplayError`] when bus or pins fail, or the controller has no such size.
    pub fn new<S, D, R>(
        spec: &SpiSpec,
        name: String,
        bus: S,
        dc: D,
        reset: Option<R>,
        backlight: Option<B>,
        delay: &mut impl DelayNs,
    ) -> Result<Self, DisplayError>
    where
        S: SpiDevice + Send + 'static,
        D: OutputPin + Send + 'static,
        R: OutputPin + Send + 'static,
    {
        let failed = |what: String| DisplayError { panel: name.clone(), what };
        // One buffer for the life of the program: the interface borrows it.
        let buffer: &'static mut [u8] = Box::leak(vec![0; BUFFER_BYTES].into_boxed_slice());
        let interface = SpiInterface::new(bus, dc, buffer);
        let glass = match spec.controller {
            Controller::Ili9341 => wake(ILI9341Rgb565, spec, interface, reset, delay),
            Controller::St7796 => wake(ST7796, spec, interface, reset, delay),
            Controller::St7735 => wake(ST7735s, spec, interface, reset, delay),
            Controller::St7789 => wake(ST7789, spec, interface, reset, delay),
        }
        .map_err(|what| {
            failed(format!("{what}; check panel.controller, width_px and height_px, and the wiring"))
        })?;
        let mut panel = Self { name, glass, shown: None, backlight, last: Redraw::default() };
        panel.send(Canvas::new(panel.glass.size()))?;
        if let Some(pin) = &mut panel.backlight {
            pin.set_high().map_err(|error| DisplayError {
                panel: panel.name.clone(),
                what: format!("backlight: {error:?}"),
            })?;
        }
        Ok(panel)
    }

    /// What the last picture cost.
    #[must_use]
    pub const fn last_redraw(&self) -> Redraw {
        self.last
    }

    fn send(&mut self, canvas: Canvas) -> Result<(), DisplayError> {
        let whole = Rectangle::new(Point::zero(), canvas.size());
        let areas = self.shown.as_ref().map_or_else(|| vec![whole], |shown| damage::changed(shown, &canvas));
        // A picture that was sent in part is none that is known.
        self.shown = None;
        self.last = Redraw::default();
        for area in areas {
            let mut pixels = area
                .points()
                .map(|point| canvas.pixel(point).map_or_else(Rgb565::default, |p: Rgb888| p.into()));
            self.glass.send(&area, &mut pixels).map_err(|what| DisplayError {
                panel: self.name.clone(),
                what: format!("{what}; is the panel still plugged in?"),
            })?;
            let pixels = (area.size.width * area.size.height) as usize;
            self.last.pixels += pixels;
            self.last.bytes += pixels * 2;
            self.last.areas += 1;
        }
        self.shown = Some(canvas);
        Ok(())
    }
}

fn wake<M, S, D, R>(
    model: M,
    spec: &SpiSpec,
    interface: SpiInterface<'static, S, D>,
    reset: Option<R>,
    delay: &mut impl DelayNs,
) -> Result<Box<dyn Glass>, String>
where
    M: Model<ColorFormat = Rgb565> + Send + 'static,
    S: SpiDevice + Send + 'static,
    D: OutputPin + Send + 'static,
    R: OutputPin + Send + 'static,
{
    let rotation = match spec.rotate_deg {
        orientation::Rotation::None => Rotation::Deg0,
        orientation::Rotation::Quarter => Rotation::Deg90,
        orientation::Rotation::Half => Rotation::Deg180,
        orientation::Rotation::ThreeQuarters => Rotation::Deg270,
    };
    let builder = Builder::new(model, interface)
        .display_size(spec.width_px, spec.height_px)
        .orientation(Orientation::new().rotate(rotation))
        .invert_colors(if spec.invert { ColorInversion::Inverted } else { ColorInversion::Normal })
        .color_order(if spec.bgr { ColorOrder::Bgr } else { ColorOrder::Rgb });
    match reset {
        Some(reset) => builder
            .reset_pin(reset)
            .init(delay)
            .map(|glass| Box::new(glass) as Box<dyn Glass>)
            .map_err(|error| format!("{error:?}")),
        None => builder
            .init(delay)
            .map(|glass| Box::new(glass) as Box<dyn Glass>)
            .map_err(|error| format!("{error:?}")),
    }
}

impl<B: OutputPin + Send> Display for SpiPanel<B> {
    fn show(&mut self, screen: &Screen) -> Result<(), DisplayError> {
        let mut canvas = Canvas::new(self.glass.size());
        let Ok(()) = draw(&mut canvas, screen);
        self.send(canvas)
    }

    fn show_live(&mut self, screen: &Screen, preview: &Preview) -> Result<(), DisplayError> {
        let mut canvas = Canvas::new(self.glass.size());
        let Ok(()) = draw_live(&mut canvas, screen, preview);
        self.send(canvas)
    }
}

impl<B: OutputPin> Drop for SpiPanel<B> {
    fn drop(&mut self) {
        if let Some(pin) = &mut self.backlight {
            let _ = pin.set_low();
        }
    }
}

/// What the kernel's SPI driver takes in one transfer unless told otherwise (`spidev.bufsiz`).
const BUFFER_BYTES: usize = 4096;

#[cfg(test)]
#[path = "spi_panel_tests.rs"]
mod tests;

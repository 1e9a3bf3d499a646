//! A panel that understands the MIPI commands which set a window and fill it, and nothing else: what it shows is what was sent.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use embedded_hal::digital::ErrorType as PinError;
use embedded_hal::spi::{ErrorType as BusError, Operation};
use facelatch_shared::person::Name;

use super::*;

#[derive(Default)]
struct Chip {
    data: bool,
    backlight: bool,
    command: u8,
    arguments: Vec<u8>,
    columns: (u16, u16),
    rows: (u16, u16),
    // Where the next pixel goes, counted from the window's first.
    next: usize,
    pixels: Vec<u16>,
    width: usize,
    half: Option<u8>,
    sent: usize,
    broken: bool,
}

impl Chip {
    fn byte(&mut self, byte: u8) {
        if !self.data {
            (self.command, self.arguments, self.next, self.half) = (byte, Vec::new(), 0, None);
            return;
        }
        self.arguments.push(byte);
        let window = |a: &[u8]| (u16::from_be_bytes([a[0], a[1]]), u16::from_be_bytes([a[2], a[3]]));
        match (self.command, self.arguments.len()) {
            (0x2A, 4) => self.columns = window(&self.arguments),
            (0x2B, 4) => self.rows = window(&self.arguments),
            (0x2C, _) => {
                self.arguments.clear();
                self.sent += 1;
                let Some(high) = self.half.take() else {
                    self.half = Some(byte);
                    return;
                };
                let wide = usize::from(self.columns.1 - self.columns.0) + 1;
                let x = usize::from(self.columns.0) + self.next % wide;
                let y = usize::from(self.rows.0) + self.next / wide;
                assert!(y <= usize::from(self.rows.1), "more pixels than the window holds");
                self.pixels[y * self.width + x] = u16::from_be_bytes([high, byte]);
                self.next += 1;
            }
            _ => {}
        }
    }
}

#[derive(Clone)]
struct Bus(Arc<Mutex<Chip>>);
#[derive(Clone)]
struct DataPin(Arc<Mutex<Chip>>);
#[derive(Clone)]
struct Light(Arc<Mutex<Chip>>);

#[derive(Debug)]
struct Unplugged;

impl embedded_hal::spi::Error for Unplugged {
    fn kind(&self) -> embedded_hal::spi::ErrorKind {
        embedded_hal::spi::ErrorKind::Other
    }
}
impl BusError for Bus {
    type Error = Unplugged;
}
impl SpiDevice for Bus {
    fn transaction(&mut self, operations: &mut [Operation<'_, u8>]) -> Result<(), Unplugged> {
        let mut chip = self.0.lock().unwrap();
        if chip.broken {
            return Err(Unplugged);
        }
        for operation in operations {
            match operation {
                Operation::Write(bytes) => bytes.iter().for_each(|byte| chip.byte(*byte)),
                _ => panic!("a panel is only written to"),
            }
        }
        Ok(())
    }
}
impl PinError for DataPin {
    type Error = Infallible;
}
impl OutputPin for DataPin {
    fn set_low(&mut self) -> Result<(), Infallible> {
        self.0.lock().unwrap().data = false;
        Ok(())
    }
    fn set_high(&mut self) -> Result<(), Infallible> {
        self.0.lock().unwrap().data = true;
        Ok(())
    }
}
impl PinError for Light {
    type Error = Infallible;
}
impl OutputPin for Light {
    fn set_low(&mut self) -> Result<(), Infallible> {
        self.0.lock().unwrap().backlight = false;
        Ok(())
    }
    fn set_high(&mut self) -> Result<(), Infallible> {
        self.0.lock().unwrap().backlight = true;
        Ok(())
    }
}

struct NoWait;
impl DelayNs for NoWait {
    fn delay_ns(&mut self, _: u32) {}
}

fn spec(controller: Controller, width_px: u16, height_px: u16, degrees: u16) -> SpiSpec {
    SpiSpec {
        device: PathBuf::from("/dev/spidev0.0"),
        controller,
        width_px,
        height_px,
        rotate_deg: orientation::Rotation::try_from(degrees).unwrap(),
        clock_hz: default_hz(),
        invert: true,
        bgr: true,
        dc: PinSpec { chip: PathBuf::from("/dev/gpiochip0"), line: 25 },
        reset: None,
        backlight: None,
    }
}

fn panel(spec: &SpiSpec, shown_width: usize) -> (SpiPanel<Light>, Arc<Mutex<Chip>>) {
    let all = usize::from(spec.width_px) * usize::from(spec.height_px);
    let chip = Chip { width: shown_width, pixels: vec![0xAAAA; all], ..Chip::default() };
    let chip = Arc::new(Mutex::new(chip));
    let [bus, data, light] = [0; 3].map(|_| Arc::clone(&chip));
    let reset = Some(DataPin(Arc::new(Mutex::new(Chip::default()))));
    let panel =
        SpiPanel::new(spec, "test".into(), Bus(bus), DataPin(data), reset, Some(Light(light)), &mut NoWait)
            .unwrap();
    (panel, chip)
}

/// What the glass should show.
fn expected(size: Size, screen: &Screen) -> Vec<u16> {
    use embedded_graphics::pixelcolor::IntoStorage as _;
    let mut canvas = Canvas::new(size);
    let Ok(()) = draw(&mut canvas, screen);
    let whole = Rectangle::new(Point::zero(), size);
    whole.points().map(|point| Rgb565::from(canvas.pixel(point).unwrap()).into_storage()).collect()
}

#[test]
fn every_controller_shows_what_is_drawn_and_only_changes_are_sent() {
    let name = Name::new("Ada").unwrap();
    let welcome = |seconds_left| Screen::Welcome { name: name.clone(), seconds_left, seconds_total: 5 };
    for (controller, width, height, degrees) in [
        (Controller::St7789, 240, 320, 90),
        (Controller::Ili9341, 240, 320, 0),
        (Controller::St7796, 320, 480, 270),
        (Controller::St7735, 132, 162, 180),
    ] {
        let spec = spec(controller, width, height, degrees);
        let (across, down) = if degrees % 180 == 0 { (width, height) } else { (height, width) };
        let size = Size::new(across.into(), down.into());
        let (mut panel, chip) = panel(&spec, across.into());
        assert!(chip.lock().unwrap().backlight, "lit after it was cleared");
        assert!(chip.lock().unwrap().pixels.iter().all(|pixel| *pixel == 0), "{controller:?} is cleared");
        let all = usize::from(width) * usize::from(height);
        assert_eq!(panel.last_redraw(), Redraw { pixels: all, bytes: all * 2, areas: 1 });
        for screen in [welcome(5), welcome(4), Screen::NotRecognised, Screen::DoorForced, welcome(1)] {
            let before = chip.lock().unwrap().sent;
            panel.show(&screen).unwrap();
            assert!(
                chip.lock().unwrap().pixels == expected(size, &screen),
                "{controller:?} {}",
                screen.slug()
            );
            assert_eq!(
                chip.lock().unwrap().sent - before,
                panel.last_redraw().bytes,
                "what is counted is what went over the bus"
            );
        }
        // A second of a countdown is a small part of the picture.
        panel.show(&welcome(3)).unwrap();
        assert!(panel.last_redraw().pixels * 3 < all, "{controller:?}: {:?}", panel.last_redraw());
        drop(panel);
        assert!(!chip.lock().unwrap().backlight, "dark when the door has ended");
    }
}

#[test]
fn after_a_fault_the_whole_picture_is_sent_again() {
    let (mut panel, chip) = panel(&spec(Controller::St7789, 240, 320, 0), 240);
    chip.lock().unwrap().broken = true;
    let error = panel.show(&Screen::Looking).unwrap_err().to_string();
    assert!(error.starts_with("panel test: ") && error.contains("plugged in"), "{error}");
    chip.lock().unwrap().broken = false;
    panel.show(&Screen::Looking).unwrap();
    assert_eq!(panel.last_redraw().pixels, 240 * 320);
    assert!(chip.lock().unwrap().pixels == expected(Size::new(240, 320), &Screen::Looking));
}

#[test]
fn a_size_that_the_controller_cannot_have_and_a_missing_bus_are_named() {
    let chip = Arc::new(Mutex::new(Chip::default()));
    let wrong = spec(Controller::St7735, 240, 320, 0);
    let error = SpiPanel::<Light>::new(
        &wrong,
        "test".into(),
        Bus(Arc::clone(&chip)),
        DataPin(Arc::clone(&chip)),
        None::<DataPin>,
        None,
        &mut NoWait,
    )
    .err()
    .unwrap()
    .to_string();
    assert!(error.contains("panel.controller"), "{error}");
    let gone = SpiSpec { device: PathBuf::from("/nonexistent/spidev9.9"), ..wrong };
    let error = open(&gone).err().unwrap().to_string();
    assert!(error.contains("/nonexistent/spidev9.9") && error.contains("ls /dev/spidev*"), "{error}");
}

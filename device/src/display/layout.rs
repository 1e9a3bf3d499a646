//! Where everything on a screen goes: one grid for all screens, computed from the panel's size.
//!
//! The icon stands above the text, or left of it on panels at least [`WIDE`] times as wide as high. Sizes are shares
//! of the panel, so a screen looks the same on every panel; a line that would be too small to read is left out.

use super::icons::{GRID, Place};
use super::paint::{Pen, Picture, Shape, Spot, at};
use super::palette::{Colors, Tone};
use super::screens::{Card, Progress};
use super::text::{CAPITAL_EM, Cut, DESCENT_EM, Fitted, Room, Setting, fit};
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{Point, Size};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::primitives::Rectangle;

/// From this ratio of width to height the icon stands beside the text.
const WIDE: f32 = 1.9;
/// Lines of smaller type than this are left out.
const SMALLEST_EM_PX: f32 = 8.0;

/// A screen set for one panel size: what is painted where.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    size: Size,
    ground: Rgb888,
    pictures: Vec<(Part, Rectangle, Picture)>,
    texts: Vec<(Part, Setting)>,
}

/// What an area of the panel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Icon,
    Steps,
    Stripes,
    Kicker,
    Title,
    Note,
    /// The countdown's number, on the icon.
    Number,
}

impl Plan {
    /// Sets `card` for a panel of `size`.
    pub(crate) fn new(size: Size, card: &Card) -> Self {
        let colors = card.tone.colors();
        let mut plan = Self { size, ground: colors.ground, pictures: Vec::new(), texts: Vec::new() };
        if size.width == 0 || size.height == 0 {
            return plan;
        }
        let grid = Grid::new(size, card);
        if card.tone.is_alarm() {
            plan.stripes(&grid, colors);
        }
        plan.icon(&grid, card, colors);
        plan.text(&grid, card, colors);
        plan
    }

    /// Every part with the smallest rectangle around it.
    #[cfg(test)]
    pub(crate) fn parts(&self) -> Vec<(Part, Rectangle)> {
        let pictures = self.pictures.iter().map(|(part, area, _)| (*part, *area));
        pictures.chain(self.texts.iter().map(|(part, setting)| (*part, setting.area()))).collect()
    }

    /// The type size of a part, in pixels; 0 if it is not there.
    #[cfg(test)]
    fn em_px(&self, wanted: Part) -> f32 {
        self.texts.iter().find(|(part, _)| *part == wanted).map_or(0.0, |(_, setting)| setting.em_px())
    }

    pub(crate) fn draw<D: DrawTarget<Color = Rgb888>>(&self, target: &mut D) -> Result<(), D::Error> {
        target.fill_solid(&Rectangle::new(Point::zero(), self.size), self.ground)?;
        for (_, area, picture) in &self.pictures {
            picture.draw(target, *area)?;
        }
        self.texts.iter().try_for_each(|(_, setting)| setting.draw(target))
    }

    /// Slanted stripes along the upper and lower edge.
    fn stripes(&mut self, grid: &Grid, colors: Colors) {
        let (width, height) = (grid.width, grid.margin * 0.6);
        for top in [0.0, grid.height - height] {
            let mut picture = Picture::new(colors.ground);
            let mut x = -height;
            while x < width {
                let corners = [
                    (x + height, top),
                    (x + 2.0 * height, top),
                    (x + height, top + height),
                    (x, top + height),
                ];
                picture.add(Shape::Area(corners.map(|(x, y)| at(x, y)).to_vec()), Pen::Fill, colors.empty);
                x += 2.0 * height;
            }
            self.pictures.push((Part::Stripes, around(at(0.0, top), at(width, top + height)), picture));
        }
    }

    fn icon(&mut self, grid: &Grid, card: &Card, colors: Colors) {
        let Grid { icon: centre, icon_radius: radius, .. } = *grid;
        let disc_radius = radius * 0.86;
        let mut picture = Picture::new(colors.ground);
        picture.add(Shape::Disc { at: centre, radius: disc_radius }, Pen::Fill, colors.disc);
        let scale = disc_radius * 2.0 * 0.68 / GRID;
        let origin = at(centre.x - scale * GRID / 2.0, centre.y - scale * GRID / 2.0);
        card.icon.add_to(&mut picture, Place { origin, scale, mark: colors.mark, behind: colors.disc });
        if let Progress::Countdown { left, total } = card.progress {
            self.countdown(&mut picture, grid, colors, (left, total));
        }
        let corner = at(radius, radius);
        let area = around(
            at(centre.x - corner.x, centre.y - corner.y),
            at(centre.x + corner.x, centre.y + corner.y),
        );
        self.pictures.insert(0, (Part::Icon, area, picture));
    }

    /// The ring around the icon, empty when no second is left, and the number on a badge at its lower right.
    fn countdown(&mut self, picture: &mut Picture, grid: &Grid, colors: Colors, (left, total): (u8, u8)) {
        let Grid { icon: centre, icon_radius: radius, .. } = *grid;
        let line = radius * 0.085;
        let rim = radius - line / 2.0 - 0.5;
        picture.add(Shape::Disc { at: centre, radius: rim }, Pen::Line(line), colors.empty);
        let share = f32::from(left.min(total)) / f32::from(total.max(1));
        if share > 0.0 {
            let arc = Shape::Arc { at: centre, radius: rim, from: 0.0, sweep: share };
            picture.add(arc, Pen::Line(line), colors.disc);
        }
        let badge_radius = radius * 0.33;
        let badge = at(centre.x + radius - badge_radius - 0.5, centre.y + radius - badge_radius - 0.5);
        picture.add(Shape::Disc { at: badge, radius: badge_radius + line * 0.8 }, Pen::Fill, colors.ground);
        picture.add(Shape::Disc { at: badge, radius: badge_radius }, Pen::Fill, colors.text);
        let room = Room {
            width_px: badge_radius * 1.5,
            height_px: badge_radius,
            lines: 1,
            largest_em_px: badge_radius * 1.2,
            smallest_em_px: badge_radius * 0.5,
        };
        let number = fit(&left.to_string(), Cut::Bold, room);
        let top = badge.y - number.em_px * CAPITAL_EM / 2.0;
        let ink = (colors.ground, colors.text);
        self.texts.push((Part::Number, Setting::centred(&number, Cut::Bold, badge.x, top, ink)));
    }

    /// Kicker, title, note and dots, as one block in the middle of the room for text.
    fn text(&mut self, grid: &Grid, card: &Card, colors: Colors) {
        let mut room = grid.text_height;
        let gap = grid.title_em * if grid.is_clock(card) { 0.55 } else { 0.4 };
        let steps = match card.progress {
            Progress::Steps { taken, wanted } => Steps::fit(grid, taken, wanted),
            _ => None,
        };
        if let Some(steps) = &steps {
            room -= steps.height + gap * 1.3;
        }
        let mut side_line = |text: &Option<String>, lines: usize| {
            let fitted = grid.line(text.as_deref()?, lines)?;
            room -= fitted.height_px() + gap;
            Some(fitted)
        };
        let kicker = side_line(&card.kicker, 1);
        let note = side_line(&card.note, if grid.is_clock(card) { 2 } else { 1 });
        let title = fit(&card.title, Cut::Bold, grid.title_room(card, room));
        let block = [
            kicker.map(|fitted| (Part::Kicker, fitted, Cut::Regular, colors.disc)),
            Some((Part::Title, title, Cut::Bold, colors.text)),
            note.map(|fitted| (Part::Note, fitted, Cut::Regular, colors.soft)),
        ];
        let lines: Vec<_> =
            block.into_iter().flatten().filter(|(_, fitted, ..)| !fitted.lines.is_empty()).collect();
        let mut height: f32 = lines.iter().map(|(_, fitted, ..)| fitted.height_px() + gap).sum();
        height += steps.as_ref().map_or(-gap, |steps| steps.height + gap * 0.3);
        let mut y = grid.text_top + ((grid.text_height - height) / 2.0).max(0.0);
        for (part, fitted, cut, color) in lines {
            let setting = Setting::centred(&fitted, cut, grid.text_centre, y, (color, colors.ground));
            y += fitted.height_px() + gap;
            self.texts.push((part, setting));
        }
        if let Some(steps) = steps {
            let (area, picture) = steps.picture(grid.text_centre, y + gap * 0.3, colors);
            self.pictures.push((Part::Steps, area, picture));
        }
    }
}

/// The lines everything hangs on, in pixels.
struct Grid {
    width: f32,
    height: f32,
    margin: f32,
    icon: Spot,
    icon_radius: f32,
    text_centre: f32,
    text_width: f32,
    text_top: f32,
    text_height: f32,
    title_em: f32,
    side_em: f32,
}

impl Grid {
    #[allow(clippy::cast_precision_loss)] // panels are at most a few thousand pixels wide
    fn new(size: Size, card: &Card) -> Self {
        let (width, height) = (size.width as f32, size.height as f32);
        let least = width.min(height);
        let margin = least * 0.065;
        if width >= height * WIDE {
            let radius = (height / 2.0 - margin).min(width * 0.2);
            let left = margin * 2.0 + radius * 2.0;
            let text_width = width - left - margin;
            return Self {
                width,
                height,
                margin,
                icon: at(margin + radius, height / 2.0),
                icon_radius: radius,
                text_centre: left + text_width / 2.0,
                text_width,
                text_top: margin,
                text_height: height - 2.0 * margin,
                title_em: least * 0.24,
                side_em: least * 0.13,
            };
        }
        let share = match (card.tone, card.progress) {
            (Tone::Quiet, _) => 0.7,
            (_, Progress::Steps { .. }) => 0.8,
            _ => 1.0,
        };
        let radius = (height * 0.24).min(width * 0.28) * share;
        let top = margin * 1.1 + radius * 2.0 + margin * 0.9;
        Self {
            width,
            height,
            margin,
            icon: at(width / 2.0, margin * 1.1 + radius),
            icon_radius: radius,
            text_centre: width / 2.0,
            text_width: width - 2.0 * margin,
            text_top: top,
            text_height: height - top - margin,
            title_em: least * 0.15,
            side_em: least * 0.088,
        }
    }

    /// Whether the title is the time of day.
    fn is_clock(&self, card: &Card) -> bool {
        card.tone == Tone::Quiet && card.note.is_some()
    }

    fn title_room(&self, card: &Card, height_px: f32) -> Room {
        let large = if self.is_clock(card) { 2.0 } else { 1.0 };
        Room {
            width_px: self.text_width,
            height_px: height_px - self.title_em * DESCENT_EM * 0.6,
            lines: if self.is_clock(card) { 1 } else { 2 },
            largest_em_px: self.title_em * large,
            smallest_em_px: (self.title_em * 0.5).max(SMALLEST_EM_PX.min(self.title_em)),
        }
    }

    /// A line beside the title; none where it would be too small to read.
    fn line(&self, text: &str, lines: usize) -> Option<Fitted> {
        (self.side_em >= SMALLEST_EM_PX).then(|| {
            let room = Room {
                width_px: self.text_width,
                height_px: self.height,
                lines,
                largest_em_px: self.side_em,
                smallest_em_px: self.side_em * 0.8,
            };
            fit(text, Cut::Regular, room)
        })
    }
}

/// Dots in a row: full for each step taken, hollow for each still wanted. A bar where there are too many to count.
struct Steps {
    taken: u8,
    wanted: u8,
    height: f32,
    width: f32,
}

impl Steps {
    /// More dots than this nobody counts.
    const MOST_DOTS: u8 = 12;

    fn fit(grid: &Grid, taken: u8, wanted: u8) -> Option<Self> {
        let wanted = wanted.max(1);
        let height = grid.side_em * 0.6;
        let dots = f32::from(wanted.min(Self::MOST_DOTS));
        let width = (height * (1.9 * dots - 0.9)).min(grid.text_width);
        (height >= 4.0).then_some(Self { taken: taken.min(wanted), wanted, height, width })
    }

    fn picture(&self, centre_x: f32, top: f32, colors: Colors) -> (Rectangle, Picture) {
        let mut picture = Picture::new(colors.ground);
        let left = centre_x - self.width / 2.0;
        let middle = top + self.height / 2.0;
        if self.wanted > Self::MOST_DOTS {
            let corner = self.height / 2.0;
            let bar = |width: f32| Shape::Block {
                at: at(left + width / 2.0, middle),
                half: at(width / 2.0, corner),
                corner,
            };
            let share = f32::from(self.taken) / f32::from(self.wanted);
            picture.add(bar(self.width), Pen::Fill, colors.empty);
            if self.taken > 0 {
                picture.add(bar((self.width * share).max(self.height)), Pen::Fill, colors.disc);
            }
        } else {
            let count = f32::from(self.wanted);
            let radius = (self.height / 2.0).min(self.width / (count * 1.9 - 0.9) / 2.0) - 0.5;
            for step in 0..self.wanted {
                let pitch =
                    if self.wanted > 1 { (self.width - 2.0 * radius - 1.0) / (count - 1.0) } else { 0.0 };
                let spot = at(left + radius + 0.5 + pitch * f32::from(step), middle);
                if step < self.taken {
                    picture.add(Shape::Disc { at: spot, radius }, Pen::Fill, colors.disc);
                } else {
                    let line = radius * 0.4;
                    let dot = Shape::Disc { at: spot, radius: radius - line / 2.0 };
                    picture.add(dot, Pen::Line(line), colors.soft);
                }
            }
        }
        (around(at(left, top), at(left + self.width, top + self.height)), picture)
    }
}

/// The pixels touched by the area between two corners.
#[allow(clippy::cast_possible_truncation)] // whole pixels near the panel
fn around(low: Spot, high: Spot) -> Rectangle {
    let top_left = Point::new(libm::floorf(low.x) as i32, libm::floorf(low.y) as i32);
    let bottom_right = Point::new(libm::ceilf(high.x) as i32 - 1, libm::ceilf(high.y) as i32 - 1);
    Rectangle::with_corners(top_left, bottom_right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::display::{Instruction, Screen};
    use facelatch_shared::person::Name;
    use facelatch_shared::pose::View;

    const SIZES: [(u32, u32); 7] =
        [(480, 320), (240, 240), (320, 240), (800, 480), (240, 320), (128, 64), (1024, 300)];

    /// Names that are as long, as wide, as tall and as strange as a name can be.
    fn names() -> Vec<Name> {
        let long = [
            "Bo".to_owned(),
            "W".repeat(48),
            "W ".repeat(24),
            "Ậ".repeat(16),
            "gjpqy".repeat(9),
            "Hubert Blaine Wolfeschlegelsteinhausenbergerdorf".to_owned(),
            "欧阳小明山田".repeat(2),
            "محمد عبد الرحمن".to_owned(),
            "\u{E000}".repeat(16),
            "i".repeat(48),
        ];
        long.iter().map(|name| Name::new(name).unwrap()).collect()
    }

    fn screens() -> Vec<Screen> {
        let mut screens = Vec::new();
        for name in names() {
            screens.extend(Screen::examples(&name, &name));
            screens.push(Screen::Idle { door: name.clone(), clock: heapless::String::new() });
            screens.push(Screen::Welcome { name: name.clone(), seconds_left: 255, seconds_total: 0 });
            let steps = [(0, 0), (9, 5), (12, 12), (200, 255)];
            screens.extend(steps.map(|(taken, wanted)| {
                let instruction = Some(Instruction::TooBright);
                Screen::Enrol { name: name.clone(), view: View::Front, instruction, taken, wanted }
            }));
        }
        screens
    }

    #[test]
    fn nothing_leaves_the_panel_and_nothing_overlaps() {
        for (width, height) in SIZES {
            let panel = Rectangle::new(Point::zero(), Size::new(width, height));
            for screen in screens() {
                let parts = Plan::new(panel.size, &Card::of(&screen)).parts();
                for (i, (part, area)) in parts.iter().enumerate() {
                    let place = || format!("{part:?} {area:?} of {screen:?} at {width}×{height}");
                    assert_eq!(panel.intersection(area), *area, "outside: {}", place());
                    for (other, taken) in &parts[..i] {
                        let on_icon = (*part, *other) == (Part::Number, Part::Icon);
                        let apart = area.intersection(taken).is_zero_sized();
                        assert!(on_icon || apart, "{} lies over {other:?} {taken:?}", place());
                    }
                }
            }
        }
    }

    #[test]
    fn the_number_lies_inside_its_badge() {
        for (width, height) in SIZES {
            for left in [0, 8, 88, 200] {
                let screen = Screen::LockedOut { seconds_left: left, seconds_total: 255 };
                let plan = Plan::new(Size::new(width, height), &Card::of(&screen));
                let parts = plan.parts();
                let find = |part| parts.iter().find(|(p, _)| *p == part).unwrap().1;
                let (number, icon) = (find(Part::Number), find(Part::Icon));
                #[allow(clippy::cast_precision_loss)]
                let radius = icon.size.width as f32 / 2.0 * 0.33;
                let middle =
                    number.center() - (icon.bottom_right().unwrap() - Point::new_equal(radius as i32));
                assert!(
                    middle.x.abs() <= 2 && middle.y.abs() <= 2,
                    "{left} is off by {middle} at {width}×{height}"
                );
                let corner = number.size / 2;
                let reach = f64::from(corner.width).hypot(f64::from(corner.height));
                assert!(reach <= f64::from(radius) + 1.0, "{left}: {reach} of {radius} at {width}×{height}");
            }
        }
    }

    /// ISO 15008 and DIN 1450 agree on letters 1/300 of the distance as the least: capitals of 2 mm at 60 cm.
    /// The panels meant: 480×320 on 3.5 inches (0.154 mm a pixel), 240×240 on 1.54 inches (0.115 mm).
    #[test]
    fn fixed_words_are_legible_at_arm_s_length() {
        let name = Name::new("Ada Lovelace").unwrap();
        for (width, height, pixel_mm) in [(480, 320, 0.154), (240, 240, 0.115)] {
            for screen in Screen::examples(&name, &name) {
                let card = Card::of(&screen);
                let plan = Plan::new(Size::new(width, height), &card);
                let title = plan.em_px(Part::Title) * CAPITAL_EM * pixel_mm;
                assert!(title >= 2.0, "{} at {width}×{height}: capitals of {title:.2} mm", screen.slug());
                if height == 320 {
                    assert!(title >= 4.0, "{} at {width}×{height}: capitals of {title:.2} mm", screen.slug());
                }
            }
        }
    }

    #[test]
    fn no_pixels_no_parts() {
        for (width, height) in [(0, 0), (0, 100), (100, 0)] {
            assert!(Plan::new(Size::new(width, height), &Card::of(&Screen::DoorForced)).parts().is_empty());
        }
    }

    #[test]
    fn steps_and_seconds_show_how_many() {
        let name = Name::new("Ada").unwrap();
        let lit = |screen: &Screen| {
            let mut canvas = crate::display::Canvas::new(Size::new(480, 320));
            crate::display::draw(&mut canvas, screen).unwrap();
            let colors = Card::of(screen).tone.colors();
            use embedded_graphics::pixelcolor::RgbColor;
            let disc = [colors.disc.r(), colors.disc.g(), colors.disc.b()];
            canvas.rgb().as_chunks::<3>().0.iter().filter(|pixel| **pixel == disc).count()
        };
        for wanted in [5, 40] {
            let step = |taken| {
                let view = View::Front;
                lit(&Screen::Enrol { name: name.clone(), view, instruction: None, taken, wanted })
            };
            assert!((1..=wanted).all(|taken| step(taken) > step(taken - 1) || wanted == 40 && taken <= 3));
        }
        let second = |seconds_left| lit(&Screen::LockedOut { seconds_left, seconds_total: 30 });
        // The ring's end passes behind the badge, where only the number tells the seconds.
        assert!((1..=30).all(|left| second(left) >= second(left - 1)));
        assert!((5..=30).all(|left| second(left) > second(left - 5)));
    }
}

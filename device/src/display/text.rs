//! Letters: what of a name the panel's font can show, how large it fits, and its pixels.
//!
//! The font (Noto Sans, SIL Open Font License 1.1, from the crate `notosans`) holds Latin with all its accents, Greek and Cyrillic. Other scripts are written
//! in Latin letters (`deunicode`); what has no reading at all becomes a hollow square.

use super::paint::{blend, level};
use ab_glyph::{Font, FontRef, Glyph, OutlinedGlyph, PxScale, ScaleFont, point};
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{Point, Size};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::primitives::Rectangle;
use std::sync::LazyLock;
use unicode_normalization::UnicodeNormalization;

/// Baseline to baseline, in em.
pub(crate) const LINE_EM: f32 = 1.2;
/// Baseline to the top of a capital letter, in em.
pub(crate) const CAPITAL_EM: f32 = 0.714;
/// Baseline to the foot of a "g", in em.
pub(crate) const DESCENT_EM: f32 = 0.24;

/// Stands for a character that the font lacks and that has no reading in Latin letters.
const NO_READING: char = '□';

/// The two cuts of the panel's font.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// What to read first.
    Bold,
    /// What explains it.
    Regular,
}

impl Cut {
    fn font(self) -> &'static FontRef<'static> {
        static BOLD: LazyLock<FontRef<'static>> = LazyLock::new(|| parsed(notosans::BOLD_TTF));
        static REGULAR: LazyLock<FontRef<'static>> = LazyLock::new(|| parsed(notosans::REGULAR_TTF));
        match self {
            Self::Bold => &BOLD,
            Self::Regular => &REGULAR,
        }
    }
}

#[allow(clippy::expect_used)] // Both files are part of the program, and the tests below parse both.
fn parsed(bytes: &'static [u8]) -> FontRef<'static> {
    FontRef::try_from_slice(bytes).expect("the built-in font parses")
}

/// What the panel shows for `text`: composed accents, one blank between words, only characters of the font.
pub(crate) fn displayable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.nfc() {
        if character.is_whitespace() {
            shown.push(' ');
        } else if character.is_control() || is_invisible(character) {
        } else if has_glyph(character) {
            shown.push(character);
        } else {
            match deunicode::deunicode_char(character) {
                Some(latin) => shown.extend(latin.chars().map(|c| if c.is_control() { ' ' } else { c })),
                None => shown.push(NO_READING),
            }
        }
    }
    let words: Vec<&str> = shown.split_ascii_whitespace().collect();
    if words.is_empty() && !text.is_empty() {
        return NO_READING.to_string();
    }
    words.join(" ")
}

fn has_glyph(character: char) -> bool {
    Cut::Bold.font().glyph_id(character).0 != 0
}

/// Joiners, direction marks, variation selectors and the soft hyphen: they shape text and have no shape.
const fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{E0000}'..='\u{E0FFF}')
}

/// Width of one line, in pixels.
pub(crate) fn width_px(text: &str, cut: Cut, em_px: f32) -> f32 {
    pen_positions(text, cut, em_px).1
}

/// Lines of text and the size at which they fit their box.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fitted {
    pub(crate) lines: Vec<String>,
    pub(crate) em_px: f32,
}

impl Fitted {
    /// From the top of the first capital to the last baseline, in pixels.
    #[allow(clippy::cast_precision_loss)] // a handful of lines
    pub(crate) fn height_px(&self) -> f32 {
        let below_first = self.lines.len().saturating_sub(1) as f32;
        self.em_px * (CAPITAL_EM + LINE_EM * below_first)
    }
}

/// A box for text: how wide, how high (capital to last baseline), how many lines, and the type sizes allowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) width_px: f32,
    pub(crate) height_px: f32,
    pub(crate) lines: usize,
    pub(crate) largest_em_px: f32,
    pub(crate) smallest_em_px: f32,
}

/// The largest setting of `text` that fits `room`: fewer lines before smaller type only at the same size, words
/// broken and an ellipsis only at the smallest size.
pub(crate) fn fit(text: &str, cut: Cut, room: Room) -> Fitted {
    for step in 0..=STEPS {
        #[allow(clippy::cast_precision_loss)] // a few steps
        let share = step as f32 / STEPS as f32;
        let em_px = room.largest_em_px + (room.smallest_em_px - room.largest_em_px) * share;
        for count in 1..=lines_at(room, em_px) {
            if let Some(lines) = balanced(text, cut, em_px, room.width_px, count) {
                return Fitted { lines, em_px };
            }
        }
    }
    let em_px = room.smallest_em_px;
    Fitted { lines: broken(text, cut, em_px, room.width_px, lines_at(room, em_px).max(1)), em_px }
}

/// Sizes tried between largest and smallest.
const STEPS: u32 = 12;

fn lines_at(room: Room, em_px: f32) -> usize {
    (1..=room.lines)
        .rev()
        .find(|lines| {
            Fitted { lines: vec![String::new(); *lines], em_px }.height_px() <= room.height_px + 0.01
        })
        .unwrap_or(0)
}

/// `text` on exactly `count` lines, broken between words where the widest line is narrowest.
fn balanced(text: &str, cut: Cut, em_px: f32, width: f32, count: usize) -> Option<Vec<String>> {
    let words: Vec<&str> = text.split(' ').collect();
    if count <= 1 || words.len() < count {
        return (count <= 1 && width_px(text, cut, em_px) <= width).then(|| vec![text.to_owned()]);
    }
    (1..=words.len() - (count - 1))
        .filter_map(|taken| {
            let first = words[..taken].join(" ");
            let first_width = width_px(&first, cut, em_px);
            if first_width > width {
                return None;
            }
            let mut lines = balanced(&words[taken..].join(" "), cut, em_px, width, count - 1)?;
            lines.insert(0, first);
            let widest = lines.iter().map(|line| width_px(line, cut, em_px)).fold(0.0, f32::max);
            Some((widest, lines))
        })
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, lines)| lines)
}

/// `text` on at most `count` lines, broken anywhere, the rest dropped behind an ellipsis.
fn broken(text: &str, cut: Cut, em_px: f32, width: f32, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() && lines.len() < count {
        let is_last = lines.len() + 1 == count;
        if width_px(rest, cut, em_px) <= width {
            lines.push(rest.to_owned());
            return lines;
        }
        let tail = if is_last { "…" } else { "" };
        let fits = |end: usize| width_px(&format!("{}{tail}", rest[..end].trim_end()), cut, em_px) <= width;
        let ends = rest.char_indices().map(|(at, c)| at + c.len_utf8());
        let longest = ends.take_while(|end| fits(*end)).last().unwrap_or(0);
        let end = match rest[..longest].rfind(' ') {
            Some(blank) if !is_last && blank > 0 => blank,
            _ => longest,
        };
        let line = format!("{}{tail}", rest[..end].trim_end());
        if line.is_empty() || width_px(&line, cut, em_px) > width {
            break; // not even one letter fits
        }
        lines.push(line);
        rest = rest[end..].trim_start();
    }
    lines
}

/// Lines set in place: their pixels and the rectangle that holds every one of them.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    area: Rectangle,
    #[cfg(test)]
    em_px: f32,
    coverage: Vec<u8>,
    color: Rgb888,
    background: Rgb888,
}

impl Setting {
    /// Sets `fitted` centred on `centre_x_px`, the top of its first capital at `top_px`.
    pub(crate) fn centred(
        fitted: &Fitted,
        cut: Cut,
        centre_x_px: f32,
        top_px: f32,
        (color, background): (Rgb888, Rgb888),
    ) -> Self {
        let mut glyphs = Vec::new();
        let mut baseline_px = top_px + fitted.em_px * CAPITAL_EM;
        for line in &fitted.lines {
            let (positions, width) = pen_positions(line, cut, fitted.em_px);
            let left_px = libm::roundf(centre_x_px - width / 2.0);
            let at = |(mut glyph, x_px): (Glyph, f32)| {
                glyph.position = point(left_px + x_px, libm::roundf(baseline_px));
                cut.font().outline_glyph(glyph)
            };
            glyphs.extend(positions.into_iter().filter_map(at));
            baseline_px += fitted.em_px * LINE_EM;
        }
        let area = enclosing(&glyphs);
        let mut coverage = vec![0_u8; area.size.width as usize * area.size.height as usize];
        for glyph in &glyphs {
            let origin = top_left(glyph) - area.top_left;
            glyph.draw(|x, y, share| {
                let column = i64::from(origin.x) + i64::from(x);
                let row = i64::from(origin.y) + i64::from(y);
                let at = usize::try_from(row * i64::from(area.size.width) + column).unwrap_or(usize::MAX);
                if let Some(cell) = coverage.get_mut(at) {
                    *cell = cell.saturating_add(level(share));
                }
            });
        }
        Self {
            area,
            #[cfg(test)]
            em_px: fitted.em_px,
            coverage,
            color,
            background,
        }
    }

    /// The size it was set in, in pixels.
    #[cfg(test)]
    pub(crate) const fn em_px(&self) -> f32 {
        self.em_px
    }

    /// The smallest rectangle around the ink.
    #[cfg(test)]
    pub(crate) const fn area(&self) -> Rectangle {
        self.area
    }

    pub(crate) fn draw<D: DrawTarget<Color = Rgb888>>(&self, target: &mut D) -> Result<(), D::Error> {
        let color = |coverage: &u8| blend(self.background, self.color, *coverage);
        target.fill_contiguous(&self.area, self.coverage.iter().map(color))
    }
}

/// Each glyph with its distance from the line's start, and the line's width, in pixels.
fn pen_positions(text: &str, cut: Cut, em_px: f32) -> (Vec<(Glyph, f32)>, f32) {
    let font = cut.font();
    let units = font.units_per_em().unwrap_or(1000.0);
    let font = font.as_scaled(PxScale::from(em_px * font.height_unscaled() / units));
    let mut x_px = 0.0;
    let mut before = None;
    let mut glyphs = Vec::with_capacity(text.len());
    for character in text.chars() {
        let glyph = font.scaled_glyph(character);
        x_px += before.map_or(0.0, |before| font.kern(before, glyph.id));
        before = Some(glyph.id);
        let advance = font.h_advance(glyph.id);
        glyphs.push((glyph, x_px));
        x_px += advance;
    }
    (glyphs, x_px)
}

#[allow(clippy::cast_possible_truncation)] // glyph bounds are whole pixels near the panel
fn top_left(glyph: &OutlinedGlyph) -> Point {
    let bounds = glyph.px_bounds();
    Point::new(bounds.min.x as i32, bounds.min.y as i32)
}

#[allow(clippy::cast_possible_truncation)] // as above
fn enclosing(glyphs: &[OutlinedGlyph]) -> Rectangle {
    let corners = glyphs.iter().map(|glyph| {
        let max = glyph.px_bounds().max;
        (top_left(glyph), Point::new(max.x as i32, max.y as i32))
    });
    match corners.reduce(|(a, b), (c, d)| (a.component_min(c), b.component_max(d))) {
        Some((low, high)) => {
            let size = high - low;
            Rectangle::new(low, Size::new(size.x.unsigned_abs(), size.y.unsigned_abs()))
        }
        None => Rectangle::zero(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::display::Canvas;
    use embedded_graphics::pixelcolor::RgbColor;

    const ROOM: Room =
        Room { width_px: 200.0, height_px: 80.0, lines: 2, largest_em_px: 36.0, smallest_em_px: 18.0 };

    #[test]
    fn names_of_many_scripts_are_shown_readably() {
        let cases = [
            ("Ada Lovelace", "Ada Lovelace"),
            ("Zoë Ångström", "Zoë Ångström"),
            ("Zoe\u{308}  A\u{30A}ngstro\u{308}m", "Zoë Ångström"),
            ("Łukasz Żółć", "Łukasz Żółć"),
            ("Nguyễn Thị Ánh", "Nguyễn Thị Ánh"),
            ("Γιώργος", "Γιώργος"),
            ("Олександр Їжак", "Олександр Їжак"),
            ("王小明", "Wang Xiao Ming"),
            ("山田 はなこ", "Shan Tian hanako"),
            ("a\u{200D}b\u{FE0F}", "ab"),
            ("\u{E000}", "□"),
            ("\u{200B}", "□"),
            ("", ""),
        ];
        for (name, shown) in cases {
            assert_eq!(displayable(name), shown, "{name}");
        }
        for name in ["محمد", "דוד", "สมชาย", "ნინო", "김민준", "🦄"] {
            let shown = displayable(name);
            assert!(!shown.is_empty() && shown.is_ascii(), "{name} became {shown:?}");
        }
    }

    #[test]
    fn both_cuts_hold_the_same_characters_and_all_of_ascii() {
        for character in (' '..='\u{FFFF}').filter(|c| has_glyph(*c)) {
            assert_ne!(Cut::Regular.font().glyph_id(character).0, 0, "{character}");
        }
        assert!((' '..='~').chain(['…', NO_READING, 'é', 'ő', 'Ş']).all(has_glyph));
    }

    #[test]
    fn width_follows_the_size() {
        let wide = |text, em| width_px(text, Cut::Bold, em);
        assert!((wide("door", 60.0) - 3.0 * wide("door", 20.0)).abs() < 0.1);
        assert_eq!(wide("", 60.0), 0.0);
    }

    #[test]
    fn short_text_is_large_long_text_wraps_then_shrinks_then_is_cut() {
        let short = fit("Ada", Cut::Bold, ROOM);
        assert_eq!((short.lines.len(), short.em_px), (1, 36.0));
        let wrapped = fit("Look at the camera", Cut::Bold, ROOM);
        assert_eq!(wrapped.lines, ["Look at the", "camera"]);
        assert!(wrapped.em_px > 30.0, "{wrapped:?}");
        let shrunk = fit("Wolfeschlegelstein", Cut::Bold, ROOM);
        assert!(shrunk.lines.len() == 1 && shrunk.em_px < 36.0, "{shrunk:?}");
        let cut = fit(&"W".repeat(48), Cut::Bold, ROOM);
        assert!(cut.em_px == 18.0 && cut.lines.len() == 2 && cut.lines[1].ends_with('…'), "{cut:?}");
        for fitted in [short, wrapped, shrunk, cut] {
            assert!(fitted.height_px() <= ROOM.height_px + 0.01);
            assert!(fitted.lines.iter().all(|l| width_px(l, Cut::Bold, fitted.em_px) <= ROOM.width_px));
        }
    }

    #[test]
    fn no_room_at_all_gives_no_text_and_no_panic() {
        for width in [0.0, 1.0, 5.0] {
            let room = Room { width_px: width, height_px: 0.0, ..ROOM };
            let fitted = fit("Ada Lovelace", Cut::Regular, room);
            assert!(fitted.lines.iter().all(|l| width_px(l, Cut::Regular, 18.0) <= width), "{fitted:?}");
        }
        assert_eq!(fit("", Cut::Regular, ROOM).lines, [""]);
    }

    #[test]
    fn the_area_holds_every_inked_pixel() {
        let fitted = Fitted { lines: vec!["Ăg".into(), "Ớy".into()], em_px: 30.0 };
        let colors = (Rgb888::WHITE, Rgb888::BLACK);
        let setting = Setting::centred(&fitted, Cut::Bold, 50.0, 20.0, colors);
        let mut canvas = Canvas::new(Size::new(100, 100));
        setting.draw(&mut canvas).unwrap();
        let inked = canvas.rgb().iter().filter(|level| **level > 128).count();
        assert!(inked > 500, "{inked}");
        let clear = Setting::centred(&fitted, Cut::Bold, 50.0, 20.0, (Rgb888::BLACK, Rgb888::WHITE));
        let mut canvas = Canvas::new(Size::new(100, 100));
        clear.draw(&mut canvas).unwrap();
        let area = clear.area();
        assert!(area.top_left.x > 0 && area.top_left.y > 0 && area.size.width < 60);
    }
}

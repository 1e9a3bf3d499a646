//! The panel's colours: one dark ground, one white, one colour a meaning; alarms take the whole panel.

use embedded_graphics::pixelcolor::Rgb888;

/// What a screen means, before a word is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Tone {
    /// Nobody there.
    Quiet,
    /// Something for the person to do.
    Guide,
    /// Yes.
    Good,
    /// No.
    Refused,
    /// Not now.
    Wait,
    /// Out of service.
    Service,
    /// The door itself calls for somebody.
    Caution,
    /// The door was opened against its lock.
    Alarm,
}

/// The colours of one tone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Colors {
    /// Behind everything.
    pub(crate) ground: Rgb888,
    /// What to read first.
    pub(crate) text: Rgb888,
    /// What explains it.
    pub(crate) soft: Rgb888,
    /// The disc behind the icon, the countdown, the dots taken.
    pub(crate) disc: Rgb888,
    /// The icon on its disc.
    pub(crate) mark: Rgb888,
    /// What is left empty: the rest of the countdown, the dots still wanted.
    pub(crate) empty: Rgb888,
}

impl Tone {
    pub(crate) const fn colors(self) -> Colors {
        match self {
            Self::Quiet => Colors { mark: MIST, ..dark(INK) },
            Self::Guide => dark(hex(0x5A_B0_FF)),
            Self::Good => dark(hex(0x3D_D6_8C)),
            Self::Refused => dark(hex(0xFF_6B_6B)),
            Self::Wait => dark(hex(0xFF_B8_3D)),
            Self::Service => dark(hex(0xB4_C2_D0)),
            Self::Caution => Colors {
                ground: hex(0xFF_B8_1F),
                text: INK,
                soft: INK,
                disc: INK,
                mark: hex(0xFF_B8_1F),
                empty: hex(0xC4_86_00),
            },
            Self::Alarm => Colors {
                ground: hex(0xB8_12_1F),
                text: WHITE,
                soft: WHITE,
                disc: WHITE,
                mark: hex(0xB8_12_1F),
                empty: hex(0x7D_07_11),
            },
        }
    }

    /// Whether the panel is framed in stripes.
    pub(crate) const fn is_alarm(self) -> bool {
        matches!(self, Self::Caution | Self::Alarm)
    }
}

/// The common look: a coloured disc on the dark ground.
const fn dark(disc: Rgb888) -> Colors {
    Colors { ground: INK, text: WHITE, soft: MIST, disc, mark: INK, empty: SLATE }
}

const INK: Rgb888 = hex(0x0D_13_1A);
const SLATE: Rgb888 = hex(0x2A_36_42);
const MIST: Rgb888 = hex(0xB7_C3_CF);
const WHITE: Rgb888 = hex(0xFF_FF_FF);

#[allow(clippy::cast_possible_truncation)] // the low byte is what is meant
const fn hex(rgb: u32) -> Rgb888 {
    Rgb888::new((rgb >> 16) as u8, (rgb >> 8) as u8, rgb as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_graphics::pixelcolor::RgbColor;

    const ALL: [Tone; 8] = [
        Tone::Quiet,
        Tone::Guide,
        Tone::Good,
        Tone::Refused,
        Tone::Wait,
        Tone::Service,
        Tone::Caution,
        Tone::Alarm,
    ];

    /// WCAG 2.2, "contrast ratio": 1 to 21.
    fn contrast(a: Rgb888, b: Rgb888) -> f64 {
        let linear = |level: u8| {
            let share = f64::from(level) / 255.0;
            if share <= 0.04045 { share / 12.92 } else { ((share + 0.055) / 1.055).powf(2.4) }
        };
        let luminance = |c: Rgb888| 0.2126 * linear(c.r()) + 0.7152 * linear(c.g()) + 0.0722 * linear(c.b());
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn contrast_is_wcag_s() {
        assert!((contrast(Rgb888::WHITE, Rgb888::BLACK) - 21.0).abs() < 1e-9);
        // #767676 is the well-known lightest grey that passes 4.5:1 on white.
        assert!((contrast(Rgb888::new(0x76, 0x76, 0x76), Rgb888::WHITE) - 4.54).abs() < 0.01);
    }

    #[test]
    fn text_passes_aa_even_as_small_text_and_icons_pass_as_graphics() {
        for tone in ALL {
            let c = tone.colors();
            for (what, ratio, least) in [
                ("text", contrast(c.text, c.ground), 4.5),
                ("soft text", contrast(c.soft, c.ground), 4.5),
                ("icon on disc", contrast(c.mark, c.disc), 3.0),
                ("number on its badge", contrast(c.ground, c.text), 4.5),
            ] {
                assert!(ratio >= least, "{tone:?}: {what} has {ratio:.2}:1, needs {least}:1");
            }
            assert!(tone == Tone::Quiet || contrast(c.disc, c.ground) >= 3.0, "{tone:?}: disc on ground");
            assert!(
                tone == Tone::Quiet || contrast(c.disc, c.empty) >= 3.0,
                "{tone:?}: taken against wanted"
            );
        }
    }

    #[test]
    fn tones_differ() {
        for (i, a) in ALL.iter().enumerate() {
            assert!(ALL[..i].iter().all(|b| a.colors() != b.colors()), "{a:?}");
        }
    }
}

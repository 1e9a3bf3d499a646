//! What each screen says: its tone, its icon, a few words. How it is set is `layout`'s business.

use super::icons::Icon;
use super::layout::Plan;
use super::palette::Tone;
use super::text::displayable;
use super::{EnrolNote, EnrolProblem, Instruction, NotNow, Preview, Screen, ServiceReason, preview};
use embedded_graphics::draw_target::{DrawTarget, DrawTargetExt as _};
use embedded_graphics::pixelcolor::Rgb888;
use facelatch_shared::liveness::Turn;
use facelatch_shared::pose::View;

/// Draws `screen` over the whole of `target`, laid out from its size: made for 480×320 and 240×240, sound at any.
///
/// # Errors
/// Only what the target itself reports.
pub fn draw<D: DrawTarget<Color = Rgb888>>(target: &mut D, screen: &Screen) -> Result<(), D::Error> {
    let area = target.bounding_box();
    let plan = Plan::new(area.size, &Card::of(screen));
    plan.draw(&mut target.translated(area.top_left))
}

/// Draws `screen` and, beside or above it, the camera's picture with a frame around the face that the door attends to.
///
/// # Errors
/// Only what the target itself reports.
pub fn draw_live<D: DrawTarget<Color = Rgb888>>(
    target: &mut D,
    screen: &Screen,
    preview: &Preview,
) -> Result<(), D::Error> {
    let card = Card::of(screen);
    let area = target.bounding_box();
    let colors = card.tone.colors();
    let (picture, words) = preview::split(area);
    target.fill_solid(&area, colors.ground)?;
    Plan::new(words.size, &card).draw(&mut target.cropped(&words))?;
    preview.draw(target, picture, colors.disc)
}

/// A screen in words: everything that is drawn, nothing about where.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Card {
    pub(crate) tone: Tone,
    pub(crate) icon: Icon,
    /// A short line above the title.
    pub(crate) kicker: Option<String>,
    /// What to read first.
    pub(crate) title: String,
    /// A short line below the title.
    pub(crate) note: Option<String>,
    pub(crate) progress: Progress,
}

/// What a screen counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    None,
    /// Whole seconds left of how many: a ring and a number.
    Countdown {
        left: u8,
        total: u8,
    },
    /// Steps taken of how many: dots.
    Steps {
        taken: u8,
        wanted: u8,
    },
}

impl Card {
    fn new(tone: Tone, icon: Icon, title: &str, note: &str) -> Self {
        Self {
            tone,
            icon,
            kicker: None,
            title: displayable(title),
            note: (!note.is_empty()).then(|| displayable(note)),
            progress: Progress::None,
        }
    }

    fn under(self, kicker: &str) -> Self {
        Self { kicker: Some(kicker.to_owned()), ..self }
    }

    /// The words of `screen`.
    pub(crate) fn of(screen: &Screen) -> Self {
        match screen {
            Screen::Idle { door, clock } if clock.is_empty() => {
                Self::new(Tone::Quiet, Icon::Padlock, door.as_str(), "")
            }
            Screen::Idle { door, clock } => Self::new(Tone::Quiet, Icon::Padlock, clock, door.as_str()),
            Screen::Instruct(instruction) => Self::instruct(*instruction),
            Screen::Looking => Self::new(Tone::Guide, Icon::FaceFrame, "One moment", "Looking for a match"),
            Screen::Welcome { name, seconds_left, seconds_total } => Self {
                progress: Progress::Countdown { left: *seconds_left, total: *seconds_total },
                ..Self::new(Tone::Good, Icon::Tick, name.as_str(), "").under("Welcome")
            },
            Screen::ExitGranted => Self::new(Tone::Good, Icon::DoorOut, "Door is open", "Opened from inside"),
            Screen::NotRecognised => Self::new(Tone::Refused, Icon::Cross, "Not recognised", AGAIN),
            Screen::Suspended => Self::new(Tone::Refused, Icon::Barred, "No access now", ASK),
            Screen::NotNow(reason) => Self::not_now(*reason),
            Screen::TurnHead(Turn::Left) => {
                Self::new(Tone::Guide, Icon::HeadLeft, "Turn left", "Your head, a little")
            }
            Screen::TurnHead(Turn::Right) => {
                Self::new(Tone::Guide, Icon::HeadRight, "Turn right", "Your head, a little")
            }
            Screen::EnterPin { typed } => Self {
                progress: Progress::Steps { taken: *typed, wanted: (*typed).max(LEAST_PIN) },
                ..Self::new(Tone::Guide, Icon::Keypad, "Enter your PIN", "Then press #")
            },
            Screen::Barred => Self::new(Tone::Alarm, Icon::Padlock, "Door is blocked", ASK),
            Screen::LockedOut { seconds_left, seconds_total } => Self {
                progress: Progress::Countdown { left: *seconds_left, total: *seconds_total },
                ..Self::new(Tone::Wait, Icon::Padlock, "Please wait", "Too many tries")
            },
            Screen::DoorForced => Self::new(Tone::Alarm, Icon::Warning, "Door forced", "Alarm raised"),
            Screen::Tampered => Self::new(Tone::Alarm, Icon::Wrench, "Case opened", "Alarm raised"),
            Screen::DoorHeld => {
                Self::new(Tone::Caution, Icon::DoorAlert, "Close the door", "Open for too long")
            }
            Screen::CallAdministrator { pin, typed } => Self {
                progress: match typed {
                    0 => Progress::None,
                    _ => Progress::Steps { taken: *typed, wanted: (*typed).max(LEAST_PIN) },
                },
                ..Self::new(
                    Tone::Service,
                    Icon::Keypad,
                    "Administrator",
                    if *pin { "Face or PIN" } else { "Show your face" },
                )
            },
            Screen::Consent { text } => {
                let note = format!("Text {text}, # agrees");
                Self::new(Tone::Guide, Icon::FaceCard, "Do you agree?", &note)
            }
            Screen::Enrol { name, view, instruction, taken, wanted } => Self {
                progress: Progress::Steps { taken: *taken, wanted: *wanted },
                ..instruction
                    .map_or_else(
                        || Self::view(*view),
                        |instruction| Self { note: None, ..Self::instruct(instruction) },
                    )
                    .under(&displayable(name.as_str()))
            },
            Screen::Pair { code, seconds_left, seconds_total } => Self {
                progress: Progress::Countdown { left: *seconds_left, total: *seconds_total },
                ..Self::new(Tone::Service, Icon::Keypad, code, "").under("Pairing code")
            },
            Screen::Enrolled { name, note } => match note {
                EnrolNote::None => Self::new(Tone::Good, Icon::FaceTick, name.as_str(), "").under("Enrolled"),
                EnrolNote::FrontOnly => {
                    Self::new(Tone::Good, Icon::FaceFrame, name.as_str(), "Enrolled, front only")
                }
                EnrolNote::Lookalike => {
                    Self::new(Tone::Wait, Icon::TwoFaces, name.as_str(), "Enrolled, has a lookalike")
                }
            },
            Screen::EnrolFailed(problem) => Self::enrol_failed(*problem),
            Screen::Service(reason) => Self::service(*reason),
            Screen::SelfTest { failed } if failed.is_empty() => {
                Self::new(Tone::Good, Icon::Tick, "All well", "").under("Self-test")
            }
            Screen::SelfTest { failed } => {
                Self::new(Tone::Caution, Icon::Wrench, &failed.join(", "), "").under("Self-test failed")
            }
        }
    }

    fn instruct(instruction: Instruction) -> Self {
        let (icon, title, note) = match instruction {
            Instruction::ComeCloser => (Icon::FaceCloser, "Come closer", ""),
            Instruction::StepBack => (Icon::FaceBack, "Step back", ""),
            Instruction::HoldStill => (Icon::FaceStill, "Hold still", ""),
            Instruction::TooDark => (Icon::Moon, "Face the light", "It is too dark"),
            Instruction::TooBright => (Icon::Sun, "Turn from light", "It is too bright"),
            Instruction::OneFaceOnly => (Icon::TwoFaces, "One at a time", "Only one face, please"),
            Instruction::LookAtCamera => (Icon::FaceTurn, "Look at the camera", ""),
            Instruction::NextPerson => (Icon::TwoFaces, "Step aside", "The new person's turn"),
        };
        Self::new(Tone::Guide, icon, title, note)
    }

    /// The side of the head that is asked for.
    fn view(view: View) -> Self {
        let (icon, title) = match view {
            View::Front => (Icon::FaceFrame, "Keep looking"),
            View::Left => (Icon::HeadLeft, "Head left"),
            View::Right => (Icon::HeadRight, "Head right"),
            View::Up => (Icon::HeadUp, "Chin up"),
            View::Down => (Icon::HeadDown, "Chin down"),
        };
        Self::new(Tone::Guide, icon, title, "")
    }

    fn not_now(reason: NotNow) -> Self {
        let (tone, icon, title, note) = match reason {
            NotNow::OutOfHours => (Tone::Wait, Icon::Clock, "Not at this time", "Outside your hours"),
            NotNow::NotYetValid => (Tone::Wait, Icon::Calendar, "Not valid yet", ASK),
            NotNow::Expired => (Tone::Refused, Icon::Calendar, "Access ended", ASK),
            NotNow::TimeUnknown => (Tone::Wait, Icon::Clock, "Clock not set", ASK),
            NotNow::WrongPin => (Tone::Refused, Icon::Keypad, "Wrong PIN", AGAIN),
            NotNow::PinTimedOut => (Tone::Wait, Icon::Hourglass, "No PIN entered", AGAIN),
            NotNow::NoPin => (Tone::Wait, Icon::Keypad, "No PIN set", ASK),
            NotNow::PassedBack => (Tone::Wait, Icon::DoorOut, "Already inside", ASK),
            NotNow::NotLive => (Tone::Refused, Icon::FaceCard, "Not confirmed", AGAIN),
            NotNow::NotTurned => (Tone::Wait, Icon::FaceTurn, "No head turn", AGAIN),
            NotNow::NotAdministrator => (Tone::Refused, Icon::Keypad, "Not permitted", "Administrators only"),
        };
        Self::new(tone, icon, title, note)
    }

    fn enrol_failed(problem: EnrolProblem) -> Self {
        let (tone, icon, note) = match problem {
            EnrolProblem::TimedOut => (Tone::Wait, Icon::Hourglass, "Time is up"),
            EnrolProblem::NotOnePerson => (Tone::Refused, Icon::TwoFaces, "More than one person"),
            EnrolProblem::AlreadyEnrolled => (Tone::Wait, Icon::FaceCard, "This face is known"),
            EnrolProblem::Storage => (Tone::Refused, Icon::MemoryCard, "Could not be saved"),
            EnrolProblem::Cancelled => (Tone::Service, Icon::Cross, "Cancelled"),
            EnrolProblem::NoConsent => (Tone::Service, Icon::Barred, "Not agreed to"),
        };
        Self::new(tone, icon, "Not enrolled", note)
    }

    fn service(reason: ServiceReason) -> Self {
        let (icon, title, note) = match reason {
            ServiceReason::Starting => (Icon::Hourglass, "Starting", "One moment"),
            ServiceReason::Camera => (Icon::CameraOff, OUT, "No camera"),
            ServiceReason::Models => (Icon::Chip, OUT, "Models missing"),
            ServiceReason::Storage => (Icon::MemoryCard, OUT, "Storage fault"),
            ServiceReason::Lock => (Icon::PadlockOff, OUT, "Lock fault"),
            ServiceReason::Maintenance => (Icon::Wrench, OUT, "Maintenance"),
        };
        Self::new(Tone::Service, icon, title, note)
    }
}

const OUT: &str = "Out of service";
const ASK: &str = "Ask the administrator";
const AGAIN: &str = "Please try again";
/// Digits of the shortest PIN.
const LEAST_PIN: u8 = crate::pin::MIN_DIGITS as u8;

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch_shared::person::Name;

    fn cards() -> Vec<(&'static str, Card)> {
        let (door, person) = (Name::new("North door").unwrap(), Name::new("Ada").unwrap());
        Screen::examples(&door, &person).iter().map(|screen| (screen.slug(), Card::of(screen))).collect()
    }

    #[test]
    fn instructions_are_one_to_four_words() {
        for (slug, card) in cards() {
            for text in [Some(&card.title), card.note.as_ref(), card.kicker.as_ref()].into_iter().flatten() {
                assert!((1..=4).contains(&text.split(' ').count()), "{slug} says {text:?}");
            }
        }
    }

    #[test]
    fn without_colour_each_screen_is_told_from_the_others() {
        let cards = cards();
        for (i, (slug, card)) in cards.iter().enumerate() {
            for (other, twin) in &cards[..i] {
                let same_words =
                    (&card.kicker, &card.title, &card.note) == (&twin.kicker, &twin.title, &twin.note);
                assert!(!same_words, "{slug} and {other} say the same");
                let same_icon = card.icon == twin.icon && card.title == twin.title;
                assert!(!same_icon, "{slug} and {other} show the same icon under the same title");
            }
        }
    }

    #[test]
    fn the_self_test_names_what_failed() {
        let card = Card::of(&Screen::SelfTest { failed: vec!["camera", "lock"] });
        assert_eq!(card.title, "camera, lock");
        assert_ne!(Card::of(&Screen::SelfTest { failed: vec![] }).tone, card.tone);
    }

    #[test]
    fn names_are_made_displayable_everywhere() {
        let name = Name::new("\u{E000}王\u{200D}").unwrap();
        for screen in Screen::examples(&name, &name) {
            let card = Card::of(&screen);
            let texts = [Some(card.title), card.note, card.kicker];
            assert!(texts.into_iter().flatten().all(|text| text == displayable(&text)), "{}", screen.slug());
        }
    }
}

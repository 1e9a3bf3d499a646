//! Reasons in words.

use facelatch_shared::event::Refusal;
use facelatch_shared::quality::Unusable;

/// Why someone was not let in.
#[must_use]
pub const fn refusal(reason: Refusal) -> &'static str {
    match reason {
        Refusal::NotRecognised => "not recognised",
        Refusal::Ambiguous => "two people are about equally close",
        Refusal::Suspended => "suspended",
        Refusal::OtherModel => "the gallery belongs to another model",
        Refusal::NobodyEnrolled => "nobody is enrolled",
        Refusal::OutOfHours => "outside the person's hours",
        Refusal::NotYetValid => "not valid yet",
        Refusal::Expired => "no longer valid",
        Refusal::TimeUnknown => "the door does not know the time",
        Refusal::WrongPin => "wrong PIN",
        Refusal::PinTimedOut => "no PIN in time",
        Refusal::NoPin => "the person has no PIN",
        Refusal::PassedBack => "went in a short while ago",
        Refusal::NotLive => "not a turning head",
        Refusal::NotTurned => "the head was not turned in time",
        Refusal::NotAdministrator => "no administrator",
        _ => "for another reason",
    }
}

/// Why a frame gave no probe.
#[must_use]
pub const fn unusable(reason: Unusable) -> &'static str {
    match reason {
        Unusable::NoFace => "no face",
        Unusable::SeveralFaces => "several faces",
        Unusable::TooSmall => "too far away",
        Unusable::TooClose => "too close, or not wholly in the picture",
        Unusable::Blurred => "blurred",
        Unusable::TooDark => "too dark",
        Unusable::TooBright => "too bright",
        Unusable::Turned => "turned away",
        Unusable::BadGeometry => "landmarks that make no face",
        Unusable::Covered => "partly covered",
        _ => "another reason",
    }
}

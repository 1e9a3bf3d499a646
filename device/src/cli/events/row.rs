//! One event, flat: for tables, JSON and CSV. Fields and words are added, never renamed.

use facelatch_shared::access::Authority;
use facelatch_shared::event::{EnrolFailure, Event, EventKind, Refusal};
use facelatch_shared::person::SubjectId;
use facelatch_shared::remote::LinkEvent;
use facelatch_shared::score::{Similarity, Threshold};
use serde::Serialize;

use super::super::text::millis;

/// Everything that an event may say; what it does not say is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) seq: u64,
    pub(super) at: String,
    pub(super) uptime_ms: u64,
    pub(super) event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) similarity: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) threshold: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    people: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    templates: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    records: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost_bytes: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_kept: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    behind_s: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failures: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    other: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bundle: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counter: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    door: Option<String>,
    /// Whole, as `people receipt` shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<String>,
}

impl Row {
    /// Whether the event names this person beside another.
    pub(super) fn other_is(&self, id: SubjectId) -> bool {
        self.other == Some(id.0)
    }

    /// What stands in no column of its own: `seconds=5`.
    pub(super) fn detail(&self) -> String {
        let said = [
            ("version", self.version.clone()),
            ("model", self.model.clone()),
            ("people", self.people.map(|v| v.to_string())),
            ("seconds", self.seconds.map(|v| v.to_string())),
            ("templates", self.templates.map(|v| v.to_string())),
            ("count", self.count.map(|v| v.to_string())),
            ("records", self.records.map(|v| v.to_string())),
            ("lost_bytes", self.lost_bytes.map(|v| v.to_string())),
            ("first_kept", self.first_kept.map(|v| v.to_string())),
            ("behind_s", self.behind_s.map(|v| v.to_string())),
            ("failures", self.failures.map(|v| v.to_string())),
            ("text", self.text.clone()),
            ("by", self.by.clone()),
            ("other", self.other.map(|v| format!("#{v}"))),
            ("peer", self.peer.clone()),
            ("role", self.role.map(str::to_owned)),
            ("bundle", self.bundle.clone()),
            ("counter", self.counter.map(|v| v.to_string())),
            ("why", self.why.clone()),
            ("door", self.door.clone()),
        ];
        let said: Vec<_> =
            said.into_iter().filter_map(|(key, value)| Some(format!("{key}={}", value?))).collect();
        said.join(" ")
    }
}

impl From<&Event> for Row {
    fn from(event: &Event) -> Self {
        let row = Self {
            seq: event.seq,
            at: millis(event.at),
            uptime_ms: event.uptime.0,
            event: word(&event.kind),
            ..Self::default()
        };
        let of = |subject: &SubjectId| Some(subject.0);
        match &event.kind {
            EventKind::Started { version, model, people } => Self {
                version: Some(version.to_string()),
                model: Some(model.to_string()),
                people: Some(*people),
                ..row
            },
            EventKind::Granted { subject, similarity, threshold } => {
                let (similarity, threshold) = (rounded(similarity), Some(threshold.0));
                Self { subject: of(subject), similarity, threshold, ..row }
            }
            EventKind::Refused { reason, subject, similarity, threshold: Threshold(threshold) } => Self {
                reason: Some(refusal(*reason)),
                subject: subject.as_ref().and_then(of),
                similarity: similarity.as_ref().and_then(rounded),
                threshold: Some(*threshold),
                ..row
            },
            EventKind::LockedOut { seconds } => Self { seconds: Some(*seconds), ..row },
            EventKind::Enrolled { subject, templates } => {
                Self { subject: of(subject), templates: Some(*templates), ..row }
            }
            EventKind::EnrolFailed { reason } => {
                let subject = match reason {
                    EnrolFailure::AlreadyEnrolled { subject } => of(subject),
                    _ => None,
                };
                Self { reason: Some(enrol_failure(*reason)), subject, ..row }
            }
            EventKind::Renamed { subject }
            | EventKind::Suspended { subject }
            | EventKind::Reinstated { subject }
            | EventKind::RightsChanged { subject }
            | EventKind::ChallengePassed { subject }
            | EventKind::Erased { subject } => Self { subject: of(subject), ..row },
            EventKind::ErasureReceipt(receipt) => {
                Self { subject: of(&receipt.erasure.subject), receipt: Some(receipt.to_string()), ..row }
            }
            EventKind::BadFrames { count } | EventKind::EventsLost { count } => {
                Self { count: Some(*count), ..row }
            }
            EventKind::GalleryRecovered { records, lost_bytes } => {
                Self { records: Some(*records), lost_bytes: Some(*lost_bytes), ..row }
            }
            EventKind::Rotated { first_kept } => Self { first_kept: Some(*first_kept), ..row },
            EventKind::ClockDoubtful { behind_s } => Self { behind_s: Some(*behind_s), ..row },
            EventKind::Barred { failures } => Self { failures: Some(*failures), ..row },
            EventKind::BarLifted { by } | EventKind::EnrolStarted { by } => {
                Self { by: Some(authority(*by)), ..row }
            }
            EventKind::Consented { subject, text, by } => {
                Self { subject: of(subject), text: Some(text.to_string()), by: Some(authority(*by)), ..row }
            }
            EventKind::Lookalike { subject, other } => {
                Self { subject: of(subject), other: Some(other.0), ..row }
            }
            EventKind::Link(event) => {
                let (peer, role, count) = match event {
                    LinkEvent::PairingOpened { role } => (None, Some(role), None),
                    LinkEvent::Paired { peer, role } | LinkEvent::RoleTooLow { peer, role } => {
                        (Some(peer), Some(role), None)
                    }
                    LinkEvent::Removed { peer }
                    | LinkEvent::Misbehaved { peer }
                    | LinkEvent::Ordered { peer } => (Some(peer), None, None),
                    LinkEvent::ConnectionsRefused { count } => (None, None, Some(*count)),
                    _ => (None, None, None),
                };
                let peer = peer.map(ToString::to_string);
                Self { peer, role: role.map(|role| role.word()), count, ..row }
            }
            EventKind::DataExported { subject } => Self { subject: of(subject), ..row },
            EventKind::GalleryExported { to, people } => {
                Self { door: Some(hex(to)), people: Some(*people), ..row }
            }
            EventKind::GalleryImported { from, number, people } => {
                Self { door: Some(hex(from)), counter: Some(*number), people: Some(*people), ..row }
            }
            EventKind::RootTrusted { version } => Self { version: Some(version.to_string()), ..row },
            EventKind::BundleRefused { reason } => Self { why: Some(reason.to_string()), ..row },
            EventKind::BundleStaged { bundle, counter }
            | EventKind::ModelsConfirmed { bundle, counter }
            | EventKind::SystemInstalled { bundle, counter }
            | EventKind::SystemConfirmed { bundle, counter }
            | EventKind::SystemFellBack { bundle, counter } => {
                Self { bundle: Some(hex(bundle)), counter: Some(*counter), ..row }
            }
            EventKind::ModelsActivated { bundle, model } => {
                Self { bundle: Some(hex(bundle)), model: Some(model.to_string()), ..row }
            }
            EventKind::ModelsRolledBack { model, why } => {
                Self { model: Some(model.to_string()), why: Some(why.word().into()), ..row }
            }
            _ => row,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn authority(by: Authority) -> String {
    match by {
        Authority::CommandLine => "command_line".into(),
        Authority::ServiceButton => "service_button".into(),
        Authority::AdminPin => "admin_pin".into(),
        Authority::Administrator(id) => format!("administrator_{}", id.0),
        Authority::Workstation(id) => format!("workstation_{id}"),
    }
}

/// Four decimals: as much as a cosine of int8 templates carries.
fn rounded(similarity: &Similarity) -> Option<f32> {
    Some((similarity.0 * 10_000.0).round() / 10_000.0)
}

fn word(kind: &EventKind) -> &'static str {
    match kind {
        EventKind::Started { .. } => "started",
        EventKind::Stopped => "stopped",
        EventKind::Granted { .. } => "granted",
        EventKind::Refused { .. } => "refused",
        EventKind::Released => "released",
        EventKind::Secured => "secured",
        EventKind::LockFault => "lock_fault",
        EventKind::DoorOpened => "door_opened",
        EventKind::DoorClosed => "door_closed",
        EventKind::DoorForced => "door_forced",
        EventKind::DoorHeld => "door_held",
        EventKind::ExitRequested => "exit_requested",
        EventKind::LockedOut { .. } => "locked_out",
        EventKind::Enrolled { .. } => "enrolled",
        EventKind::EnrolFailed { .. } => "enrol_failed",
        EventKind::Renamed { .. } => "renamed",
        EventKind::Suspended { .. } => "suspended",
        EventKind::Reinstated { .. } => "reinstated",
        EventKind::Erased { .. } => "erased",
        EventKind::CameraLost => "camera_lost",
        EventKind::CameraBack => "camera_back",
        EventKind::BadFrames { .. } => "bad_frames",
        EventKind::GalleryRecovered { .. } => "gallery_recovered",
        EventKind::EventsLost { .. } => "events_lost",
        EventKind::Rotated { .. } => "rotated",
        EventKind::ClockDoubtful { .. } => "clock_doubtful",
        EventKind::ClockTrusted => "clock_trusted",
        EventKind::ClockAccepted => "clock_accepted",
        EventKind::Barred { .. } => "barred",
        EventKind::BarLifted { .. } => "bar_lifted",
        EventKind::ChallengePassed { .. } => "challenge_passed",
        EventKind::RightsChanged { .. } => "rights_changed",
        EventKind::EnrolStarted { .. } => "enrol_started",
        EventKind::Consented { .. } => "consented",
        EventKind::Lookalike { .. } => "lookalike",
        EventKind::Link(LinkEvent::PairingOpened { .. }) => "pairing_opened",
        EventKind::Link(LinkEvent::Paired { .. }) => "paired",
        EventKind::Link(LinkEvent::Removed { .. }) => "unpaired",
        EventKind::Link(LinkEvent::PairingRefused) => "pairing_refused",
        EventKind::Link(LinkEvent::ConnectionsRefused { .. }) => "connections_refused",
        EventKind::Link(LinkEvent::RoleTooLow { .. }) => "role_too_low",
        EventKind::Link(LinkEvent::Misbehaved { .. }) => "link_misbehaved",
        EventKind::Link(LinkEvent::Ordered { .. }) => "link_ordered",
        EventKind::RootTrusted { .. } => "root_trusted",
        EventKind::BundleRefused { .. } => "bundle_refused",
        EventKind::BundleStaged { .. } => "bundle_staged",
        EventKind::ModelsActivated { .. } => "models_activated",
        EventKind::ModelsConfirmed { .. } => "models_confirmed",
        EventKind::ModelsRolledBack { .. } => "models_rolled_back",
        EventKind::Tampered => "tampered",
        EventKind::TamperCleared => "tamper_cleared",
        EventKind::ErasureReceipt(_) => "erasure_receipt",
        EventKind::DataExported { .. } => "data_exported",
        EventKind::GalleryExported { .. } => "gallery_exported",
        EventKind::GalleryImported { .. } => "gallery_imported",
        EventKind::SystemInstalled { .. } => "system_installed",
        EventKind::SystemConfirmed { .. } => "system_confirmed",
        EventKind::SystemFellBack { .. } => "system_fell_back",
        _ => "unknown",
    }
}

fn refusal(reason: Refusal) -> &'static str {
    match reason {
        Refusal::NotRecognised => "not_recognised",
        Refusal::Ambiguous => "ambiguous",
        Refusal::Suspended => "suspended",
        Refusal::OtherModel => "other_model",
        Refusal::NobodyEnrolled => "nobody_enrolled",
        Refusal::OutOfHours => "out_of_hours",
        Refusal::NotYetValid => "not_yet_valid",
        Refusal::Expired => "expired",
        Refusal::TimeUnknown => "time_unknown",
        Refusal::WrongPin => "wrong_pin",
        Refusal::PinTimedOut => "pin_timed_out",
        Refusal::NoPin => "no_pin",
        Refusal::PassedBack => "passed_back",
        Refusal::NotLive => "not_live",
        Refusal::NotTurned => "not_turned",
        Refusal::NotAdministrator => "not_administrator",
        _ => "unknown",
    }
}

fn enrol_failure(reason: EnrolFailure) -> &'static str {
    match reason {
        EnrolFailure::TimedOut => "timed_out",
        EnrolFailure::NotOnePerson => "not_one_person",
        EnrolFailure::AlreadyEnrolled { .. } => "already_enrolled",
        EnrolFailure::Storage => "storage",
        EnrolFailure::Cancelled => "cancelled",
        EnrolFailure::NoConsent => "no_consent",
        _ => "unknown",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use facelatch_shared::embedding::ModelBinding;
    use facelatch_shared::time::{Millis, UnixMs};

    pub(in crate::cli::events) fn some_events() -> Vec<Event> {
        let version = heapless::String::try_from("0.1.0").unwrap();
        [
            EventKind::Started { version, model: ModelBinding([0xAB; 16]), people: 2 },
            EventKind::Granted {
                subject: SubjectId(3),
                similarity: Similarity(0.612_349),
                threshold: Threshold(0.363),
            },
            EventKind::Refused {
                reason: Refusal::NotRecognised,
                subject: None,
                similarity: None,
                threshold: Threshold(0.363),
            },
            EventKind::LockedOut { seconds: 5 },
            EventKind::EnrolFailed { reason: EnrolFailure::AlreadyEnrolled { subject: SubjectId(3) } },
            EventKind::DoorForced,
        ]
        .into_iter()
        .zip(1_u64..)
        .map(|(kind, seq)| Event {
            seq,
            at: UnixMs(1_709_210_096_000 + seq as i64),
            uptime: Millis(seq),
            kind,
        })
        .collect()
    }

    #[test]
    fn the_json() {
        let lines: Vec<String> =
            some_events().iter().map(|e| serde_json::to_string(&Row::from(e)).unwrap()).collect();
        assert_eq!(
            lines.join("\n"),
            r#"{"seq":1,"at":"2024-02-29T12:34:56.001Z","uptime_ms":1,"event":"started","version":"0.1.0","model":"abababababababababababababababab","people":2}
{"seq":2,"at":"2024-02-29T12:34:56.002Z","uptime_ms":2,"event":"granted","subject":3,"similarity":0.6123,"threshold":0.363}
{"seq":3,"at":"2024-02-29T12:34:56.003Z","uptime_ms":3,"event":"refused","reason":"not_recognised","threshold":0.363}
{"seq":4,"at":"2024-02-29T12:34:56.004Z","uptime_ms":4,"event":"locked_out","seconds":5}
{"seq":5,"at":"2024-02-29T12:34:56.005Z","uptime_ms":5,"event":"enrol_failed","subject":3,"reason":"already_enrolled"}
{"seq":6,"at":"2024-02-29T12:34:56.006Z","uptime_ms":6,"event":"door_forced"}"#
        );
    }
}

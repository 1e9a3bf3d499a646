//! `facelatch log`: what happened at a door, over the link.

use std::time::Duration;

use facelatch_shared::event::Event;
use facelatch_shared::protocol::{PAGE, Request, Response};
use facelatch_shared::schedule::Day;
use facelatch_shared::time::UnixMs;
use serde_json::{Value, json};

use super::remote::{DeviceArgs, print};
use crate::cli::{Failure, FailureKind};
use crate::remote::RemoteDoor;

/// Arguments of `facelatch log`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    device: DeviceArgs,
    /// So many of the newest events
    #[arg(long, value_name = "N", default_value_t = 20, conflicts_with = "from")]
    last: u16,
    /// All events from this number on
    #[arg(long, value_name = "NUMBER")]
    from: Option<u64>,
    /// Go on with what happens from now on, until interrupted
    #[arg(long)]
    follow: bool,
    /// One JSON object a line, for programs
    #[arg(long)]
    json: bool,
    /// Check instead that every event follows from the one before and the newest is there
    #[arg(long, conflicts_with_all = ["last", "from", "follow", "json"])]
    verify: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut door = args.device.connect()?;
    if args.verify {
        return verify(&mut door);
    }
    let mut next = match args.from {
        Some(from) => from,
        None => {
            let count = args.last.min(PAGE as u16);
            let events = ask(&mut door, &Request::LastEvents { count })?;
            if !show(&events, args.json)? {
                return Ok(());
            }
            events.last().map_or(1, |event| event.seq + 1)
        }
    };
    while args.from.is_some() || args.follow {
        let events = ask(&mut door, &Request::ListEvents { from: next })?;
        if !show(&events, args.json)? {
            return Ok(());
        }
        let ended = events.len() < PAGE;
        next = events.last().map_or(next, |event| event.seq + 1);
        if ended && !args.follow {
            break;
        }
        if ended {
            std::thread::sleep(EVERY);
        }
    }
    door.close();
    Ok(())
}

fn ask(door: &mut RemoteDoor, request: &Request) -> Result<Vec<Event>, Failure> {
    match door.ask(request)? {
        Response::Events(events) => Ok(events),
        _ => Err(door.unexpected().into()),
    }
}

fn verify(door: &mut RemoteDoor) -> Result<(), Failure> {
    let answer = door.ask(&Request::CheckEvents)?;
    let Response::Checked { events, broken_at, damaged_bytes, missing_end } = answer else {
        return Err(door.unexpected().into());
    };
    if broken_at.is_empty() && damaged_bytes == 0 && missing_end.is_none() {
        print(&format!("{events} events, each follows from the one before.\n"))?;
        return Ok(());
    }
    let what = format!(
        "the log was changed or damaged: {events} events, broken at {broken_at:?}, {damaged_bytes} bytes are none, {}",
        missing_end
            .map_or_else(|| "the end is there".into(), |seq| format!("event {seq} is missing at the end"))
    );
    Err(Failure::new(FailureKind::Refused, what).hint("`facelatchd events export` at the door keeps a copy"))
}

/// Whether anybody reads on.
fn show(events: &[Event], as_json: bool) -> Result<bool, Failure> {
    let mut text = String::new();
    for event in events {
        let kind = serde_json::to_value(&event.kind).map_err(|e| Failure::new(FailureKind::Failed, e))?;
        if as_json {
            let row =
                json!({ "seq": event.seq, "at_ms": event.at.0, "uptime_ms": event.uptime.0, "event": kind });
            text.push_str(&format!("{row}\n"));
        } else {
            let line = format!("{:>6}  {}  {}", event.seq, instant(event.at), words(&kind));
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    print(&text)
}

/// `granted subject=3 similarity=0.771 threshold=0.48`: the event's own names, flat.
fn words(kind: &Value) -> String {
    match kind {
        Value::Object(fields) if fields.len() == 1 => fields
            .iter()
            .map(|(word, value)| match value {
                // Its signature is for `facelatch people receipt`.
                Value::Object(inner) if word == "erasure_receipt" => {
                    let erasure = &inner["erasure"];
                    format!(
                        "{word} subject={} templates={} chips={}",
                        erasure["subject"], erasure["templates"], erasure["chips"]
                    )
                }
                // An event about the link is an event in an event.
                Value::Object(inner) if !NESTED.contains(&word.as_str()) => inner
                    .iter()
                    .filter(|(_, value)| !value.is_null())
                    .fold(word.clone(), |text, (key, value)| format!("{text} {key}={}", plain(value))),
                inner => format!("{word} {}", words(inner)),
            })
            .collect(),
        other => plain(other),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => {
            // Four decimals: as much as a cosine of int8 templates carries.
            format!("{}", (number.as_f64().unwrap_or_default() * 10_000.0).round() / 10_000.0)
        }
        // Keys and bindings.
        Value::Array(bytes) => bytes
            .iter()
            .map(|byte| byte.as_u64().map_or_else(|| plain(byte), |byte| format!("{byte:02x}")))
            .collect(),
        Value::Object(fields) => {
            let inner: Vec<String> =
                fields.iter().map(|(key, value)| format!("{key}:{}", plain(value))).collect();
            inner.join(",")
        }
        other => other.to_string(),
    }
}

/// RFC 3339 in UTC, to the second.
fn instant(at: UnixMs) -> String {
    let (days, seconds) = (at.0.div_euclid(86_400_000), at.0.rem_euclid(86_400_000) / 1000);
    let Ok(days) = i32::try_from(days) else { return format!("{} ms", at.0) };
    format!("{}T{:02}:{:02}:{:02}Z", Day(days), seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Events that hold another.
const NESTED: [&str; 2] = ["link", "update"];
const EVERY: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  facelatch log
  facelatch log --last 100 --json
  facelatch log --follow
  facelatch log --verify";

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch_shared::embedding::ModelBinding;
    use facelatch_shared::event::{EnrolFailure, EventKind, Refusal};
    use facelatch_shared::person::SubjectId;
    use facelatch_shared::remote::{LinkEvent, LinkRole, PeerId};
    use facelatch_shared::score::{Similarity, Threshold};

    #[test]
    fn events_in_words() {
        let say = |kind: EventKind| words(&serde_json::to_value(kind).unwrap());
        assert_eq!(say(EventKind::Stopped), "stopped");
        let version = heapless::String::try_from("0.1.0").unwrap();
        let model = ModelBinding([0xAB; 16]);
        assert_eq!(
            say(EventKind::Started { version, model, people: 2 }),
            format!("started model={} people=2 version=0.1.0", "ab".repeat(16))
        );
        assert_eq!(
            say(EventKind::Refused {
                reason: Refusal::NotRecognised,
                subject: None,
                similarity: Some(Similarity(0.123_456)),
                threshold: Threshold(0.48),
            }),
            "refused reason=not_recognised similarity=0.1235 threshold=0.48"
        );
        assert_eq!(
            say(EventKind::EnrolFailed { reason: EnrolFailure::AlreadyEnrolled { subject: SubjectId(3) } }),
            "enrol_failed reason=already_enrolled:subject:3"
        );
        let peer = PeerId([0, 1, 0xAB, 0xFF]);
        assert_eq!(
            say(EventKind::Link(LinkEvent::Paired { peer, role: LinkRole::Reader })),
            "link paired peer=0001abff role=reader"
        );
        assert_eq!(say(EventKind::Link(LinkEvent::PairingRefused)), "link pairing_refused");
        assert_eq!(instant(UnixMs(1_709_210_096_001)), "2024-02-29T12:34:56Z");
    }
}

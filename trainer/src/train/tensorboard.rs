//! TensorBoard event files: a TFRecord stream of `Event` messages with scalars.
//!
//! A record is: length (u64, little endian), masked CRC-32C of those eight bytes, the message, masked CRC-32C of the message
//! (TensorFlow, `core/lib/io/record_writer.h`). The messages here are the few fields that scalars need
//! (`core/util/event.proto`, `core/framework/summary.proto`).

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crc::{CRC_32_ISCSI, Crc};
use prost::Message;

/// Writes scalars into one event file. A run has one file for each part; TensorBoard joins them.
#[derive(Debug)]
pub struct Events {
    file: File,
}

#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Scalar>,
}

#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    /// Optional, so that a zero is written too.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `SessionLog.START`: whatever earlier files hold from this step on is out of date.
const START: i32 = 1;

impl Events {
    /// A new file in `folder` for a run, or a part of one, that begins at `step`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(folder: &Path, step: u64) -> std::io::Result<Self> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Digits of one length, so that files sort by age, as TensorBoard reads them.
        let name =
            format!("events.out.tfevents.{:010}.{:09}.facelatch", since.as_secs(), since.subsec_nanos());
        let mut events = Self { file: File::create(folder.join(name))? };
        events.write(0, What::FileVersion("brain.Event:2".into()))?;
        events.write(step, What::SessionLog(SessionLog { status: START }))?;
        Ok(events)
    }

    /// Writes named numbers at `step`. `held_out_x` goes under `held_out/x`, anything else under `train/`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn scalars(&mut self, step: u64, values: &[(String, f64)]) -> std::io::Result<()> {
        let scalar = |(name, value): &(String, f64)| Scalar {
            tag: match name.strip_prefix("held_out_") {
                Some(rest) => format!("held_out/{rest}"),
                None => format!("train/{name}"),
            },
            simple_value: Some(*value as f32),
        };
        self.write(step, What::Summary(Summary { value: values.iter().map(scalar).collect() }))
    }

    fn write(&mut self, step: u64, what: What) -> std::io::Result<()> {
        let wall_time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let event = Event { wall_time, step: i64::try_from(step).unwrap_or(i64::MAX), what: Some(what) };
        self.file.write_all(&record(&event.encode_to_vec()))
    }
}

fn record(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    let mut bytes = length.to_vec();
    bytes.extend(masked_crc(&length).to_le_bytes());
    bytes.extend(message);
    bytes.extend(masked_crc(message).to_le_bytes());
    bytes
}

/// CRC-32C, rotated and shifted so that a CRC of data that holds CRCs is not degenerate.
fn masked_crc(bytes: &[u8]) -> u32 {
    let crc = Crc::<u32>::new(&CRC_32_ISCSI).checksum(bytes);
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a file back, checking every length and CRC.
    fn read(folder: &Path) -> Vec<Event> {
        let path = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
        let (bytes, mut at, mut events) = (std::fs::read(path).unwrap(), 0, Vec::new());
        while at < bytes.len() {
            let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
            let message = &bytes[at + 12..at + 12 + length];
            for (data, crc) in [(&bytes[at..at + 8], at + 8), (message, at + 12 + length)] {
                assert_eq!(bytes[crc..crc + 4], masked_crc(data).to_le_bytes());
            }
            events.push(Event::decode(message).unwrap());
            at += 16 + length;
        }
        events
    }

    #[test]
    fn the_mask_is_the_published_one() {
        // CRC-32C of "123456789" is e3069283 (RFC 3720's check value); masked by hand: ror 15, then the constant.
        assert_eq!(masked_crc(b"123456789"), 0xe306_9283_u32.rotate_right(15).wrapping_add(0xa282_ead8));
    }

    #[test]
    fn scalars_come_back_with_tags_steps_and_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let mut events = Events::create(dir.path(), 40).unwrap();
        events.scalars(41, &[("loss".into(), 0.0), ("held_out_cosine".into(), 0.5)]).unwrap();
        let read = read(dir.path());
        assert_eq!(read[0].what, Some(What::FileVersion("brain.Event:2".into())));
        assert_eq!(
            (read[1].step, &read[1].what),
            (40, &Some(What::SessionLog(SessionLog { status: START })))
        );
        let Some(What::Summary(summary)) = &read[2].what else { panic!("{:?}", read[2]) };
        let value: Vec<_> = summary.value.iter().map(|s| (s.tag.as_str(), s.simple_value)).collect();
        assert_eq!(value, [("train/loss", Some(0.0)), ("held_out/cosine", Some(0.5))]);
        assert!(read[2].step == 41 && read[2].wall_time > 1.7e9);
    }
}

//! `log.jsonl`: one JSON object a line with step, images, seconds and what was measured.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use serde_json::{Map, Value};

use super::checkpoint::Counters;

/// The file in a run's folder with one JSON object a line.
pub const LOG: &str = "log.jsonl";

/// Named numbers.
pub type Values = Vec<(String, f64)>;

/// An open log.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
}

impl Log {
    /// Opens the log of a run. Lines beyond `step`, which a killed run wrote after its last checkpoint, are dropped: the
    /// resumed run writes them again.
    pub(super) fn open(folder: &Path, step: u64) -> std::io::Result<Self> {
        let path = folder.join(LOG);
        if let Ok(text) = std::fs::read_to_string(&path) {
            let kept: String = text
                .lines()
                .filter(|line| read_line(line).is_some_and(|l| l.step <= step))
                .flat_map(|line| [line, "\n"])
                .collect();
            if kept != text {
                std::fs::write(&path, kept)?;
            }
        }
        Ok(Self { file: OpenOptions::new().create(true).append(true).open(path)? })
    }

    pub(super) fn write(&mut self, counters: Counters, values: &[(String, f64)]) -> std::io::Result<()> {
        let mut line = Map::new();
        line.insert("step".into(), counters.step.into());
        line.insert("images".into(), counters.images.into());
        line.insert("seconds".into(), counters.seconds.into());
        line.extend(values.iter().map(|(name, value)| (name.clone(), Value::from(*value))));
        writeln!(self.file, "{}", Value::Object(line))
    }
}

/// One line, read back.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    pub(super) step: u64,
    pub(super) values: Values,
}

pub(super) fn read_line(text: &str) -> Option<Line> {
    let Ok(Value::Object(map)) = serde_json::from_str(text) else { return None };
    let step = map.get("step")?.as_u64()?;
    let values = map
        .into_iter()
        .filter(|(name, _)| !["step", "images", "seconds"].contains(&name.as_str()))
        .filter_map(|(name, value)| Some((name, value.as_f64()?)))
        .collect();
    Some(Line { step, values })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_log_forgets_what_came_after_the_checkpoint_and_half_lines() {
        let dir = tempfile::tempdir().unwrap();
        let at = |step| Counters { step, images: step * 8, seconds: 1.5 };
        let mut log = Log::open(dir.path(), 0).unwrap();
        for step in 1..=5 {
            log.write(at(step), &[("loss".into(), 1.0 / step as f64)]).unwrap();
        }
        write!(log.file, "{{\"step\": 2, \"lo").unwrap();
        drop(log);
        let mut log = Log::open(dir.path(), 3).unwrap();
        log.write(at(4), &[("loss".into(), 9.0)]).unwrap();
        let text = std::fs::read_to_string(dir.path().join(LOG)).unwrap();
        let lines: Vec<Line> = text.lines().map(|l| read_line(l).unwrap()).collect();
        assert_eq!(lines.iter().map(|l| l.step).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(lines[3].values, [("loss".to_owned(), 9.0)]);
    }
}

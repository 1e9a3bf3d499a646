//! The fake of [`SlotStore`]: fails as flash fails, only oftener, and forgives nothing that flash would forgive.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::record::{Record, Source};
use super::slots::{Slot, SlotStore};
use crate::store::JournalStore;

/// One power supply for several fakes: it counts every write, sync, clear and replacement, and goes off when told to.
#[derive(Clone, Debug, Default)]
pub struct Power {
    supply: Arc<Mutex<Supply>>,
}

#[derive(Debug, Default)]
struct Supply {
    steps: usize,
    cut_at: Option<usize>,
    /// How far the step that meets the cut gets, 0 to 100 percent.
    torn_percent: usize,
    off: bool,
}

/// What the power allows of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// All of it.
    Whole,
    /// So many percent of it, then nothing more.
    Torn(usize),
}

impl Power {
    /// The power goes at step number `step` (from 0), which gets `torn_percent` of its bytes done.
    pub fn cut_at(&self, step: usize, torn_percent: usize) {
        self.with(|s| (s.cut_at, s.torn_percent) = (Some(s.steps + step), torn_percent));
    }

    /// The power is back, and stays.
    pub fn on(&self) {
        self.with(|s| (s.off, s.cut_at) = (false, None));
    }

    /// Whether it is off.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.with(|s| s.off)
    }

    /// Steps made so far.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.with(|s| s.steps)
    }

    fn step(&self) -> io::Result<Step> {
        self.with(|s| {
            if s.off {
                return Err(io::Error::other("there is no power"));
            }
            s.steps += 1;
            if s.cut_at == Some(s.steps - 1) {
                s.off = true;
                return Ok(Step::Torn(s.torn_percent));
            }
            Ok(Step::Whole)
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Supply) -> T) -> T {
        act(&mut self.supply.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn cut() -> io::Error {
    io::Error::other("the power is cut")
}

/// Slots in memory. Clones share one medium.
///
/// Stricter than files: writes that were not synced are lost with the power (torn, where the cut met them); a slot that the record
/// names as the one in use may be neither written nor cleared; the record must parse.
#[derive(Clone, Debug, Default)]
pub struct MemSlots {
    medium: Arc<Mutex<Medium>>,
    power: Power,
    /// Deliberately broken, to show that the tests notice: replaces the record in place, as a plain write does.
    tears_record: bool,
}

#[derive(Debug, Default)]
struct Medium {
    record: Vec<u8>,
    files: BTreeMap<(u8, String), Kept>,
}

#[derive(Clone, Debug, Default)]
struct Kept {
    durable: Vec<u8>,
    written: Vec<u8>,
}

impl MemSlots {
    /// Empty slots on this power supply.
    #[must_use]
    pub fn on(power: &Power) -> Self {
        Self { power: power.clone(), ..Self::default() }
    }

    /// The same medium, with a record that tears: what a writer without rename does.
    #[must_use]
    pub fn tearing_record(mut self) -> Self {
        self.tears_record = true;
        self
    }

    /// What happens to the medium when the power comes back: whatever was not synced is gone.
    pub fn power_on(&self) {
        self.with(|medium| {
            medium.files.retain(|_, kept| !kept.durable.is_empty());
            medium.files.values_mut().for_each(|kept| kept.written.clone_from(&kept.durable));
        });
        self.power.on();
    }

    /// A file's durable bytes.
    #[must_use]
    pub fn durable(&self, slot: Slot, file: &str) -> Vec<u8> {
        self.with(|m| {
            m.files.get(&(slot as u8, file.to_owned())).map(|k| k.durable.clone()).unwrap_or_default()
        })
    }

    fn in_use(&self, slot: Slot) -> bool {
        let record = self.with(|medium| medium.record.clone());
        Record::decode(&record).is_some_and(|record| record.active() == Source::Slot(slot))
    }

    fn refuse_in_use(&self, slot: Slot) -> io::Result<()> {
        if self.in_use(slot) {
            return Err(io::Error::other("the slot in use must not be touched"));
        }
        Ok(())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Medium) -> T) -> T {
        act(&mut self.medium.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl SlotStore for MemSlots {
    fn load_record(&mut self) -> io::Result<Vec<u8>> {
        Ok(self.with(|medium| medium.record.clone()))
    }

    fn replace_record(&mut self, bytes: &[u8]) -> io::Result<()> {
        if Record::decode(bytes).is_none() {
            return Err(io::Error::other("the record does not parse"));
        }
        match self.power.step()? {
            Step::Whole => {
                self.with(|medium| medium.record = bytes.to_vec());
                Ok(())
            }
            Step::Torn(percent) => {
                let upto = bytes.len() * percent / 100;
                if self.tears_record {
                    self.with(|medium| medium.record = bytes[..upto].to_vec());
                } else if percent == 100 {
                    // Renamed, but nobody heard of it.
                    self.with(|medium| medium.record = bytes.to_vec());
                }
                Err(cut())
            }
        }
    }

    fn clear(&mut self, slot: Slot) -> io::Result<()> {
        self.refuse_in_use(slot)?;
        let step = self.power.step()?;
        self.with(|medium| {
            let names: Vec<_> = medium.files.keys().filter(|(s, _)| *s == slot as u8).cloned().collect();
            let upto = match step {
                Step::Whole => names.len(),
                Step::Torn(percent) => names.len() * percent / 100,
            };
            for name in &names[..upto] {
                medium.files.remove(name);
            }
        });
        if step == Step::Whole { Ok(()) } else { Err(cut()) }
    }

    fn write(&mut self, slot: Slot, file: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.refuse_in_use(slot)?;
        let step = self.power.step()?;
        let at = usize::try_from(at).map_err(io::Error::other)?;
        self.with(|medium| {
            let kept = medium.files.entry((slot as u8, file.to_owned())).or_default();
            let put = |target: &mut Vec<u8>, bytes: &[u8]| {
                if target.len() < at + bytes.len() {
                    // A hole reads as whatever the medium held.
                    target.resize(at + bytes.len(), 0xE5);
                }
                target[at..at + bytes.len()].copy_from_slice(bytes);
            };
            match step {
                Step::Whole => {
                    put(&mut kept.written, bytes);
                    Ok(())
                }
                Step::Torn(percent) => {
                    // Some of an unsynced write may have reached the medium all the same.
                    let upto = bytes.len() * percent / 100;
                    if upto > 0 {
                        put(&mut kept.durable, &bytes[..upto]);
                    }
                    Err(cut())
                }
            }
        })
    }

    fn sync(&mut self, slot: Slot, file: &str) -> io::Result<()> {
        let step = self.power.step()?;
        self.with(|medium| {
            let Some(kept) = medium.files.get_mut(&(slot as u8, file.to_owned())) else {
                return Err(io::Error::from(io::ErrorKind::NotFound));
            };
            match step {
                Step::Whole => {
                    kept.durable.clone_from(&kept.written);
                    Ok(())
                }
                Step::Torn(percent) => {
                    let upto = kept.written.len() * percent / 100;
                    let behind = kept.durable.split_off(kept.durable.len().min(upto));
                    kept.durable = kept.written[..upto].to_vec();
                    kept.durable.extend(behind);
                    Err(cut())
                }
            }
        })
    }

    fn read(&mut self, slot: Slot, file: &str, at: u64, into: &mut [u8]) -> io::Result<usize> {
        if self.power.is_off() {
            return Err(io::Error::other("there is no power"));
        }
        let at = usize::try_from(at).map_err(io::Error::other)?;
        Ok(self.with(|medium| {
            let Some(kept) = medium.files.get(&(slot as u8, file.to_owned())) else { return 0 };
            let rest = kept.written.get(at..).unwrap_or_default();
            let count = rest.len().min(into.len());
            into[..count].copy_from_slice(&rest[..count]);
            count
        }))
    }

    fn folder(&self, _slot: Slot) -> Option<PathBuf> {
        None
    }
}

/// A journal on the same power supply: appends tear, replacements do not.
#[derive(Clone, Debug, Default)]
pub struct PoweredJournal {
    bytes: Arc<Mutex<Vec<u8>>>,
    power: Power,
}

impl PoweredJournal {
    /// An empty journal on this power supply.
    #[must_use]
    pub fn on(power: &Power) -> Self {
        Self { power: power.clone(), ..Self::default() }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        act(&mut self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl JournalStore for PoweredJournal {
    fn load(&mut self) -> io::Result<Vec<u8>> {
        if self.power.is_off() {
            return Err(io::Error::other("there is no power"));
        }
        Ok(self.with(|bytes| bytes.clone()))
    }

    fn append(&mut self, more: &[u8]) -> io::Result<()> {
        match self.power.step()? {
            Step::Whole => {
                self.with(|bytes| bytes.extend_from_slice(more));
                Ok(())
            }
            Step::Torn(percent) => {
                let upto = more.len() * percent / 100;
                self.with(|bytes| bytes.extend_from_slice(&more[..upto]));
                Err(cut())
            }
        }
    }

    fn replace(&mut self, fresh: &[u8]) -> io::Result<()> {
        match self.power.step()? {
            Step::Whole => {
                self.with(|bytes| *bytes = fresh.to_vec());
                Ok(())
            }
            Step::Torn(percent) => {
                if percent == 100 {
                    self.with(|bytes| *bytes = fresh.to_vec());
                }
                Err(cut())
            }
        }
    }

    fn set_aside(&mut self, _bytes: &[u8]) -> io::Result<String> {
        Ok("aside".into())
    }

    fn destroy_asides(&mut self) -> io::Result<()> {
        if self.power.is_off() { Err(cut()) } else { Ok(()) }
    }
}

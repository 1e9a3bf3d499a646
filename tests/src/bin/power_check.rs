//! Looks at what a power cut left of doors' folders: `power_check FOLDER...` prints one JSON object a folder. `tests/system/power` calls it.
//!
//! Opens each as the door's start does, and mends what a start mends.

use std::path::Path;
use std::process::ExitCode;

use facelatch_device::clock::SystemClock;
use facelatch_device::config::DoorConfig;
use facelatch_device::control::State;
use facelatch_device::update::{FileSlots, Updater, slots_dir};
use facelatch_shared::event::EventKind;

fn main() -> ExitCode {
    for folder in std::env::args_os().skip(1) {
        let found = look(Path::new(&folder)).unwrap_or_else(|error| format!("\"error\": {error:?}"));
        println!("{{{found}}}");
    }
    ExitCode::SUCCESS
}

/// The members of the object.
fn look(folder: &Path) -> Result<String, String> {
    let door = DoorConfig { state_dir: folder.to_owned(), ..DoorConfig::default() };
    // Before the first start came far enough there is nothing, and nothing was promised.
    if !folder.join("gallery.journal").exists() {
        return Ok("\"people\": {}, \"receipts\": [], \"counter\": 0, \"floor\": 0, \"events\": 0".into());
    }
    let slots = FileSlots::open(&slots_dir(&door)).map_err(|error| format!("slots: {error}"))?;
    let mut updater =
        Updater::look(Box::new(slots), &door.board).map_err(|error| format!("record: {error}"))?;
    updater.check_active().map_err(|error| format!("the models in use: {error}"))?;
    let manifest = updater.active_manifest().map_err(|error| format!("the models in use: {error}"))?;
    let counter = manifest.as_ref().map_or(0, |manifest| manifest.counter);
    let floor = updater.record().counter_floor;
    let State { people, mut log, recovery, log_check, .. } =
        State::open(&door, &SystemClock::new()).map_err(|error| error.to_string())?;
    if recovery.is_damage() {
        return Err(format!("the gallery is damaged: {recovery:?}"));
    }
    if !log_check.is_intact() {
        return Err(format!("the log is broken: {log_check:?}"));
    }
    let events = log.page(0, usize::MAX).map_err(|error| error.to_string())?;
    let receipts: Vec<u32> = events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::ErasureReceipt(receipt) if receipt.is_genuine() => Some(receipt.erasure.subject.0),
            _ => None,
        })
        .collect();
    let bound = |id| match &manifest {
        Some(manifest) => {
            people.data(id).is_some_and(|d| d.templates.iter().any(|t| t.binding == manifest.binding))
        }
        None => true,
    };
    let mut shown = Vec::new();
    for person in people.list() {
        if !bound(person.id) {
            return Err(format!("{} has no template of the models in use", person.id));
        }
        shown.push(format!("\"{}\": {:?}", person.id.0, person.name.as_str()));
    }
    Ok(format!(
        "\"people\": {{{}}}, \"receipts\": {receipts:?}, \"counter\": {counter}, \"floor\": {floor}, \"events\": {}",
        shown.join(", "),
        events.len()
    ))
}

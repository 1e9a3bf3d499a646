//! Power is cut at every step of a door's life: enrolling, pushing, carrying over, activating, confirming, rolling back, erasing.
//!
//! After each cut everything is opened again: the record must be whole, the slot in use whole and verified, the gallery and the log without
//! damage, and whatever was acknowledged must be there. Then the life goes on from where it was.

use facelatch_shared::access::Rights;
use facelatch_shared::bundle::{
    Draft, Engineer, FORMAT, Manifest, Root, SecretKey, SectionKind, SignedRoot, Trial, Version, split,
};
use facelatch_shared::embedding::{DIM, Embedding, ModelBinding, Template};
use facelatch_shared::event::EventKind;
use facelatch_shared::gallery::{Change, CountingEntropy, Key};
use facelatch_shared::journal::{self, Item};
use facelatch_shared::person::{Name, SubjectId};
use facelatch_shared::score::Threshold;
use facelatch_shared::time::{Millis, UnixMs};

use super::*;
use crate::clock::SimClock;
use crate::erasure;
use crate::event_log::EventLog;
use crate::people::{Opened, People};
use crate::store::JournalStore as _;

const NOW: UnixMs = UnixMs(1_800_000_000_000);
/// Looking at a door counts as a start: more than the looks of one test.
const MAX_STARTS: u8 = 10;
const FACTORY: ModelBinding = ModelBinding([1; 16]);

fn key(n: u8) -> SecretKey {
    SecretKey::from_bytes([n; 32])
}

pub(crate) fn root() -> SignedRoot {
    let root = Root {
        format: FORMAT,
        version: 1,
        created: NOW,
        expires: None,
        keys: vec![key(1).public()],
        threshold: 1,
        engineers: vec![Engineer { key: key(11).public(), name: "Eve".try_into().unwrap() }],
        engineer_threshold: 1,
        revoked: vec![],
    };
    let mut signed = SignedRoot::unsigned(&root).unwrap();
    signed.sign(&key(1));
    signed
}

fn binding(counter: u64) -> ModelBinding {
    if counter == 0 { FACTORY } else { ModelBinding([counter as u8 + 100; 16]) }
}

/// Bundle number `counter`: three sections, one of three chunks.
pub(super) fn bundle(counter: u64) -> Vec<u8> {
    let manifest = Manifest {
        format: FORMAT,
        name: "models".try_into().unwrap(),
        counter,
        created: NOW,
        expires: None,
        min_firmware: Version(0, 0, 0),
        boards: vec![],
        contracts: vec![],
        detector: "yunet".try_into().unwrap(),
        embedder: "net".try_into().unwrap(),
        binding: binding(counter),
        compatible: vec![],
        threshold: Threshold(0.5),
        trial: Trial { seconds: 60, max_starts: MAX_STARTS, max_p95_us: 1_000_000, max_rejection_rise: 20 },
        sections: vec![],
    };
    let network: Vec<u8> = (0..70_000_u64).map(|i| ((i * 31 * (counter + 1)) >> 5) as u8).collect();
    let files: [(SectionKind, &str, &[u8]); 3] = [
        (SectionKind::Models, "manifest.toml", b"[[models]]"),
        (SectionKind::Network, "net.onnx", &network),
        (SectionKind::SelfTest, "selftest.postcard", b"probes"),
    ];
    let mut draft = Draft::new(manifest, &files, vec![root()]).unwrap();
    draft.sign(&key(11));
    draft.to_bytes().unwrap()
}

/// Sends a whole bundle, or what is missing of it.
pub(super) fn push(updater: &mut Updater, file: &[u8]) -> Result<Progress, UpdateError> {
    let parts = split(file).unwrap();
    let total = parts.header.len() as u32;
    let (first, second) = parts.header.split_at(parts.header.len() / 2);
    updater.header(total, 0, first, NOW)?;
    let mut progress = updater.header(total, first.len() as u32, second, NOW)?;
    let header = facelatch_shared::bundle::Header::parse(parts.header).unwrap();
    let manifest = Manifest::parse(&header.manifest).unwrap();
    while let Some((section, chunk)) = progress.next {
        let before: usize = manifest.sections[..usize::from(section)].iter().map(|s| s.length as usize).sum();
        let from = before + chunk as usize * facelatch_shared::bundle::CHUNK_BYTES;
        let length = manifest.sections[usize::from(section)].chunk_length(chunk).unwrap();
        progress = updater.chunk(section, chunk, &parts.contents[from..from + length])?;
    }
    Ok(progress)
}

fn template(person: u32, model: ModelBinding) -> Template {
    let seed = u64::from(person) * 1009 + u64::from(model.0[0]) * 7;
    let raw: Vec<f32> = (0..DIM as u64)
        .map(|i| ((seed + i).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f32 % 199.0 - 99.0)
        .collect();
    Template::quantize(&Embedding::from_raw(&raw).unwrap())
}

/// The medium of one door.
#[derive(Clone)]
struct Medium {
    power: Power,
    slots: MemSlots,
    gallery: PoweredJournal,
    log: PoweredJournal,
}

impl Medium {
    fn new(tearing: bool) -> Self {
        let power = Power::default();
        let slots = MemSlots::on(&power);
        Self {
            slots: if tearing { slots.tearing_record() } else { slots },
            gallery: PoweredJournal::on(&power),
            log: PoweredJournal::on(&power),
            power,
        }
    }
}

/// What the door was told is done.
#[derive(Clone, Debug, Default)]
struct Believed {
    people: Vec<SubjectId>,
    erased: Vec<SubjectId>,
    /// The life goes on at this step.
    next: usize,
    active: u64,
    floor: u64,
    events: usize,
}

struct Door {
    updater: Updater,
    boot: Boot,
    people: People,
    log: EventLog,
}

fn open(medium: &Medium) -> Result<Door, String> {
    let entropy = CountingEntropy(medium.power.steps() as u64 * 1000 + 1);
    let device_key = || Key::from_bytes([5; 32]);
    let (updater, boot) =
        Updater::open(Box::new(medium.slots.clone()), "board").map_err(|e| e.to_string())?;
    let Opened { mut people, recovery, .. } =
        People::open(Box::new(medium.gallery.clone()), device_key(), Box::new(entropy))
            .map_err(|e| e.to_string())?;
    if recovery.is_damage() {
        return Err(format!("the gallery is damaged: {recovery:?}"));
    }
    let (mut log, found) =
        EventLog::open(Box::new(medium.log.clone()), &device_key(), 1 << 20).map_err(|e| e.to_string())?;
    if !found.broken_at.is_empty() {
        return Err(format!("the log is broken: {found:?}"));
    }
    people.sign_with(SecretKey::from_bytes([6; 32]));
    erasure::erase_restored(&mut people, &mut log, &clock());
    erasure::settle(&mut people, &mut log, &clock());
    Ok(Door { updater, boot, people, log })
}

fn clock() -> SimClock {
    SimClock::starting_at(NOW)
}

impl Door {
    /// What the models in use are, by the bundle's counter.
    fn active(&mut self) -> u64 {
        self.updater.active_manifest().unwrap().map_or(0, |manifest| manifest.counter)
    }

    fn carry(&mut self, counter: u64) -> Result<(), String> {
        let everyone: Vec<_> =
            self.people.list().map(|p| (p.id, vec![template(p.id.0, binding(counter))])).collect();
        self.people.carry(binding(counter), &everyone, NOW).map_err(|e| e.to_string())
    }

    /// One step of the life; an error is the power, or a bug that the caller tells apart.
    fn step(&mut self, number: usize, believed: &mut Believed) -> Result<bool, String> {
        let said = |e: UpdateError| e.to_string();
        match number {
            0 => self.updater.set_root(root()).map_err(said)?,
            1 | 2 | 8 => {
                let name = Name::new(&format!("Person {number}")).unwrap();
                let active = binding(believed.active);
                let id = self.people.list().map(|p| p.id.0).max().unwrap_or(0) + 1;
                let change = Change::Enrol {
                    name,
                    templates: vec![template(id, active); 2],
                    binding: active,
                    rights: Rights::default(),
                };
                let id =
                    self.people.enrol_keeping(change, &[vec![7; 5000]], NOW).map_err(|e| e.to_string())?;
                believed.people.push(id);
            }
            3 | 9 | 13 => {
                let counter = [1, 2, 3][[3, 9, 13].iter().position(|&n| n == number).unwrap()];
                let progress = push(&mut self.updater, &bundle(counter)).map_err(said)?;
                assert!(progress.staged);
            }
            4 | 10 | 14 => self.carry([1, 2, 3][[4, 10, 14].iter().position(|&n| n == number).unwrap()])?,
            5 | 11 | 15 => {
                let trying = self.updater.activate(NOW).map_err(said)?;
                believed.active = trying.counter;
            }
            6 | 16 => {
                self.updater.confirm().map_err(said)?;
                believed.floor = believed.active;
            }
            7 => {
                let keep = [binding(believed.active)];
                self.people.keep_bindings(&keep).map_err(|e| e.to_string())?;
            }
            12 => {
                self.updater.roll_back(Outcome::Rejections).map_err(said)?;
                believed.active = 1;
            }
            17 => {
                let id = believed.people[0];
                match erasure::erase(&mut self.people, &mut self.log, &clock(), id) {
                    Ok(()) | Err(crate::people::PeopleError::ErasureUnfinished { .. }) => {}
                    Err(error) => return Err(error.to_string()),
                }
                believed.people.remove(0);
                believed.erased.push(id);
            }
            _ => return Ok(false),
        }
        if !self.log.record(NOW, Millis(0), EventKind::Renamed { subject: SubjectId(number as u32) }) {
            // The step itself was acknowledged.
            believed.next = number + 1;
            return Err("the log".into());
        }
        believed.events += 1;
        believed.next = number + 1;
        Ok(true)
    }
}

/// Lives until the end or the first error.
fn live(medium: &Medium, believed: &mut Believed) -> Result<(), String> {
    let mut door = open(medium)?;
    loop {
        let next = believed.next;
        if !door.step(next, believed)? {
            return Ok(());
        }
    }
}

/// Everything that must hold after a cut.
fn check(medium: &Medium, believed: &Believed) -> Result<(), String> {
    let mut door = open(medium)?;
    if door.boot == Boot::RecordLost {
        return Err("the record is torn".into());
    }
    // The models in use are whole: every chunk as it was signed.
    let active = door.active();
    if let Source::Slot(slot) = door.updater.record().active() {
        let file = bundle(active);
        let whole = split(&file).unwrap().contents;
        let stored = ["manifest.toml", "net.onnx", "selftest.postcard"]
            .iter()
            .flat_map(|name| medium.slots.durable(slot, name))
            .collect::<Vec<_>>();
        if stored != whole {
            return Err(format!("the slot in use is torn: {} of {} bytes", stored.len(), whole.len()));
        }
    }
    // A step that was under way may have been done or not; one that was acknowledged is done.
    let step = believed.next;
    let may_be: &[u64] = match step {
        5 => &[0, 1],
        11 => &[1, 2],
        12 => &[2, 1],
        15 => &[1, 3],
        _ => &[believed.active],
    };
    if !may_be.contains(&active) {
        return Err(format!("step {step}: bundle {active} is in use, {} was acknowledged", believed.active));
    }
    let floor = door.updater.record().counter_floor;
    if floor < believed.floor {
        return Err(format!("the counter went back to {floor}"));
    }
    for id in &believed.people {
        if door.people.get(*id).is_none() {
            // Erasing may have been done without being acknowledged.
            if !(step == 17 && *id == believed.people[0]) {
                return Err(format!("{id} is gone"));
            }
            continue;
        }
        let probe = template(id.0, binding(active));
        let best = door.people.identify(&probe, binding(active)).map_err(|e| e.to_string())?.best;
        if best.is_none_or(|best| best.subject != *id || best.similarity.0 < 0.99) {
            return Err(format!("{id} is not recognised by bundle {active}: {best:?}"));
        }
    }
    if believed.erased.iter().any(|id| door.people.get(*id).is_some()) {
        return Err("an erased person is back".into());
    }
    let (events, found) = door.log.read().map_err(|e| e.to_string())?;
    // Whoever is gone has a receipt, exactly one, and nothing that opens is left.
    for number in 1..door.people.next_id().0 {
        let id = SubjectId(number);
        let given = |kind: &EventKind| matches!(kind, EventKind::ErasureReceipt(r) if r.erasure.subject == id && r.is_genuine());
        let receipts = events.iter().filter(|event| given(&event.kind)).count();
        let gone = door.people.get(id).is_none();
        if receipts != usize::from(gone) {
            return Err(format!(
                "{receipts} receipts for {id}, who is {}",
                if gone { "gone" } else { "here" }
            ));
        }
        let bytes = medium.gallery.clone().load().map_err(|e| e.to_string())?;
        // A record's kind, then the person: enrolment 1, template 2, facts 3, chip 5.
        let of_person = |item| match item {
            Item::Frame { payload: [1 | 2 | 3 | 5, of, ..], .. } => u32::from(*of) == number,
            _ => false,
        };
        if gone && journal::frames(&bytes).any(of_person) {
            return Err(format!("sealed records of {id} are still on the medium"));
        }
    }
    if events.len() < believed.events || !found.broken_at.is_empty() {
        return Err(format!("{} events of {} are there, {found:?}", events.len(), believed.events));
    }
    Ok(())
}

/// Cuts at every step of the life, each three ways. Returns cuts made and what went wrong.
fn cut_everywhere(tearing: bool) -> (usize, Vec<String>) {
    let whole = Medium::new(false);
    live(&whole, &mut Believed::default()).unwrap();
    let (mut cuts, mut wrong) = (0, Vec::new());
    for step in 0..whole.power.steps() {
        for torn_percent in [0, 55, 100] {
            let medium = Medium::new(tearing);
            let mut believed = Believed::default();
            medium.power.cut_at(step, torn_percent);
            let ended = live(&medium, &mut believed);
            assert!(medium.power.is_off(), "step {step}: {ended:?}");
            medium.slots.power_on();
            cuts += 1;
            if let Err(what) = check(&medium, &believed) {
                wrong.push(format!("cut at step {step}, {torn_percent} % torn: {what}"));
                continue;
            }
            // What was cut may be asked for again, and the life goes on to its end.
            go_on(&medium, &mut believed).unwrap_or_else(|what| {
                wrong.push(format!("cut at step {step}, {torn_percent} % torn, later: {what}"));
            });
        }
    }
    (cuts, wrong)
}

fn go_on(medium: &Medium, believed: &mut Believed) -> Result<(), String> {
    let mut door = open(medium)?;
    believed.active = door.active();
    // The step under way may have been done: an activation, a confirmation and a roll-back are not asked for twice.
    let in_trial = matches!(door.updater.record().phase, Phase::Trial(_));
    match believed.next {
        5 | 11 | 15 if in_trial => believed.next += 1,
        6 | 16 if !in_trial => {
            believed.floor = believed.active;
            believed.next += 1;
        }
        12 if !in_trial => believed.next += 1,
        17 if door.people.get(believed.people[0]).is_none() => {
            believed.people.remove(0);
            believed.next += 1;
        }
        _ => {}
    }
    drop(door);
    live(medium, believed)?;
    check(medium, believed)?;
    if believed.active != 3 || believed.floor != 3 {
        return Err(format!("it ended with {believed:?}"));
    }
    Ok(())
}

#[test]
fn power_cut_at_every_step_leaves_no_torn_state_and_one_usable_model() {
    let (cuts, wrong) = cut_everywhere(false);
    assert!(wrong.is_empty(), "{} of {cuts} cuts:\n{}", wrong.len(), wrong.join("\n"));
    println!("{cuts} cuts, no torn state");
    assert!(cuts > 150, "{cuts}");
}

#[test]
fn a_writer_that_tears_its_record_is_noticed() {
    let (cuts, wrong) = cut_everywhere(true);
    assert!(wrong.len() > 5, "the test would not notice a broken writer: {} of {cuts}", wrong.len());
}

#[test]
fn a_program_that_keeps_crashing_in_a_trial_gets_its_former_models_back() {
    let medium = Medium::new(false);
    let mut door = open(&medium).unwrap();
    door.updater.set_root(root()).unwrap();
    push(&mut door.updater, &bundle(1)).unwrap();
    door.updater.activate(NOW).unwrap();
    for starts in 2..=MAX_STARTS {
        let door = open(&medium).unwrap();
        assert!(matches!(door.boot, Boot::Trying(trying) if trying.starts == starts), "{:?}", door.boot);
    }
    let door = open(&medium).unwrap();
    assert_eq!((door.boot, door.updater.record().active()), (Boot::RolledBack, Source::Factory));
    assert_eq!(door.updater.record().last, Some(Outcome::Crashed));
    assert_eq!(open(&medium).unwrap().boot, Boot::Normal);
}

#[test]
fn what_does_not_follow_is_refused_and_changes_nothing() {
    let medium = Medium::new(false);
    let mut updater = open(&medium).unwrap().updater;
    assert!(matches!(push(&mut updater, &bundle(1)), Err(UpdateError::NoRoot)));
    updater.set_root(root()).unwrap();
    assert!(matches!(updater.activate(NOW), Err(UpdateError::NothingStaged)));
    assert!(matches!(updater.confirm(), Err(UpdateError::NoTrial)));
    assert!(matches!(updater.roll_back(Outcome::Commanded), Err(UpdateError::NothingBefore)));
    assert!(matches!(updater.chunk(0, 0, b"x"), Err(UpdateError::NoHeader)));
    let record = updater.record().clone();
    // A header that claims more than any has, one that skips, one of rubbish.
    assert!(matches!(updater.header(u32::MAX, 0, b"x", NOW), Err(UpdateError::Bundle(_))));
    assert!(matches!(updater.header(100, 50, b"x", NOW), Err(UpdateError::OutOfOrder { .. })));
    assert!(matches!(updater.header(4, 0, &[0xFF; 4], NOW), Err(UpdateError::Bundle(_))));
    assert_eq!(*updater.record(), record);

    let file = bundle(1);
    let header = split(&file).unwrap().header;
    updater.header(header.len() as u32, 0, header, NOW).unwrap();
    assert!(matches!(updater.chunk(1, 0, b"x"), Err(UpdateError::OutOfOrder { section: Some(0), next: 0 })));
    assert!(matches!(updater.chunk(0, 0, b"other text"), Err(UpdateError::Bundle(_))));
    assert!(medium.slots.durable(Slot::A, "manifest.toml").is_empty());
    push(&mut updater, &file).unwrap();
    updater.activate(NOW).unwrap();
    assert!(matches!(push(&mut updater, &bundle(2)), Err(UpdateError::TrialUnderWay)));
    assert!(matches!(push(&mut updater, &file), Err(UpdateError::AlreadyActive)));
    updater.confirm().unwrap();
    assert!(matches!(push(&mut updater, &file), Err(UpdateError::Bundle(_))), "its counter is confirmed");
    // Back by command, and the confirmed counter stays the floor.
    assert_eq!(updater.roll_back(Outcome::Commanded).unwrap(), Source::Factory);
    assert_eq!(updater.record().counter_floor, 1);
}

#[test]
fn an_interrupted_push_goes_on_where_it_was() {
    let medium = Medium::new(false);
    let mut updater = open(&medium).unwrap().updater;
    updater.set_root(root()).unwrap();
    let file = bundle(1);
    let parts = split(&file).unwrap();
    let length = parts.header.len() as u32;
    updater.header(length, 0, parts.header, NOW).unwrap();
    updater.chunk(0, 0, &parts.contents[..10]).unwrap();
    updater.chunk(1, 0, &parts.contents[10..10 + 32_768]).unwrap();
    drop(updater);
    // The program is started again: nothing was lost, since the power stayed on.
    let mut updater = open(&medium).unwrap().updater;
    let progress = updater.header(length, 0, parts.header, NOW).unwrap();
    assert_eq!(progress.next, Some((1, 1)));
    // The power goes: what was not synced is asked for again.
    medium.slots.power_on();
    let mut updater = open(&medium).unwrap().updater;
    assert_eq!(updater.header(length, 0, parts.header, NOW).unwrap().next, Some((1, 0)));
    assert!(push(&mut updater, &file).unwrap().staged);
    // Staged, and one bit of it decays: it is not activated, and that piece is asked for again.
    let mut slots = medium.slots.clone();
    slots.write(Slot::A, "net.onnx", 40_000, &[0xAA, 0x55, 0xAA]).unwrap();
    assert!(matches!(updater.activate(NOW), Err(UpdateError::Bundle(_))));
    assert_eq!(push(&mut updater, &file).unwrap().next, None);
    updater.activate(NOW).unwrap();
}

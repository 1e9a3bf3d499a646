//! Stage `candidates`: who is collected, and which pictures there are of them.

use std::collections::BTreeMap;

use thiserror::Error;

use super::names::{Forbidden, NamesError, letters};
use super::sources::{self, Listed, SourceError};
use super::store::{Candidate, Person, Source, Stage, State, Store, StoreError};
use crate::progress::Progress;

/// What the stage works on.
#[derive(Debug)]
pub struct Plan {
    /// Those to collect, most popular first, with reasons where one is left out; empty: whoever the sources hold.
    pub people: Vec<Person>,
    /// Who must not be collected.
    pub forbidden: Forbidden,
    /// Where pictures are.
    pub sources: Vec<Source>,
    /// At most so many pictures a person.
    pub most: u32,
    /// What all of that was made from: a run is continued only with the same.
    pub settings: String,
}

/// Lists all sources into the store. Continues where an earlier run stopped.
///
/// # Errors
/// [`CandidatesError`].
pub fn run(
    store: &Store,
    plan: &Plan,
    again: bool,
    progress: &dyn Progress,
) -> Result<State, CandidatesError> {
    // A name mistyped must not become the settings that a run is held to.
    sources::Reader::open(&plan.sources)?;
    let mut state = store.begin(Stage::Candidates, &plan.settings, again)?;
    if state.done {
        return Ok(state);
    }
    let listed = !plan.people.is_empty();
    if state.cursor == [0; 3] && store.people()?.is_empty() {
        store.write(|txn| {
            for (source, number) in plan.sources.iter().zip(0..) {
                txn.put_source(number, source)?;
            }
            for (person, number) in plan.people.iter().zip(0..) {
                txn.put_person(number, &forbid(person.clone(), &plan.forbidden))?;
            }
            Ok(())
        })?;
    }
    let mut known: BTreeMap<String, (u32, bool)> = BTreeMap::new();
    for (number, person) in store.people()? {
        known.insert(letters(&person.name), (number, person.left_out.is_none()));
    }
    progress.start("candidates", 0);
    let mut batch: Vec<(u32, Candidate)> = Vec::new();
    let mut new_people: Vec<(u32, Person)> = Vec::new();
    for (source, at) in plan.sources.iter().zip(0_u64..).skip(state.cursor[0] as usize) {
        let from = if at == state.cursor[0] { (state.cursor[1], state.cursor[2]) } else { (0, 0) };
        sources::list(&source.path, from, |Listed { person, place, next }| {
            let spelled = letters(&person);
            if !listed && !known.contains_key(&spelled) {
                let named = Person { name: person.clone(), attributes: vec![], left_out: None };
                let named = forbid(named, &plan.forbidden);
                let number = known.len() as u32;
                known.insert(spelled.clone(), (number, named.left_out.is_none()));
                new_people.push((number, named));
            }
            match known.get(&spelled) {
                Some(&(number, true)) => batch.push((number, Candidate { source: at as u16, place })),
                Some(_) => {}
                None => stranger(&mut state, person),
            }
            state.cursor = [at, next.0, next.1];
            progress.step();
            if batch.len() >= BATCH {
                flush(store, &mut state, &mut batch, &mut new_people, plan.most)?;
            }
            Ok::<(), CandidatesError>(())
        })?;
        state.cursor = [at + 1, 0, 0];
        flush(store, &mut state, &mut batch, &mut new_people, plan.most)?;
    }
    progress.finish();
    state.done = true;
    let people = store.people()?;
    let left_out = people.iter().filter(|(_, person)| person.left_out.is_some()).count();
    state.notes.insert(0, ("people left out".into(), left_out.to_string()));
    if people.iter().all(|(number, _)| store.count(*number).is_ok_and(|count| count == 0)) {
        return Err(CandidatesError::Nothing);
    }
    state.seconds += store.lap();
    store.write(|txn| txn.put_state(Stage::Candidates, &state))?;
    Ok(state)
}

/// Notes a folder of nobody on the list; a few are enough to see what is wrong.
fn stranger(state: &mut State, folder: String) {
    let note = ("folder of nobody on the list".to_owned(), folder);
    if state.notes.len() < 20 && !state.notes.contains(&note) {
        state.notes.push(note);
    }
}

fn forbid(mut person: Person, forbidden: &Forbidden) -> Person {
    if let (None, Some(name)) = (&person.left_out, forbidden.find(&person.name)) {
        person.left_out = Some(format!("of an evaluation list: {name}"));
    }
    person
}

fn flush(
    store: &Store,
    state: &mut State,
    batch: &mut Vec<(u32, Candidate)>,
    new_people: &mut Vec<(u32, Person)>,
    most: u32,
) -> Result<(), StoreError> {
    let mut room: BTreeMap<u32, u32> = BTreeMap::new();
    for (person, _) in batch.iter() {
        if !room.contains_key(person) {
            room.insert(*person, most.saturating_sub(store.count(*person)?));
        }
    }
    state.seconds += store.lap();
    let taken = store.write(|txn| {
        let mut taken = 0;
        for (number, person) in new_people.iter() {
            txn.put_person(*number, person)?;
        }
        for (person, candidate) in batch.iter() {
            match room.get_mut(person) {
                Some(left) if *left > 0 => *left -= 1,
                _ => continue,
            }
            txn.add_candidate(*person, candidate)?;
            taken += 1;
        }
        txn.put_state(Stage::Candidates, &State { seen: state.seen + taken, ..state.clone() })?;
        Ok(taken)
    })?;
    state.seen += taken;
    batch.clear();
    new_people.clear();
    Ok(())
}

const BATCH: usize = if cfg!(test) { 4 } else { 4096 };

/// Why there are no candidates.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CandidatesError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The list.
    #[error(transparent)]
    Names(#[from] NamesError),
    /// No picture belongs to anybody who is collected.
    #[error(
        "no source holds a picture of anybody to collect: folders must be called like the names of the list, and not everybody be left out"
    )]
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use std::path::Path;

    const PEOPLE: [&str; 4] = ["ann lee", "bob_ray", "Aaron Eckhardt", "stranger"];

    /// The same pictures as a folder, a tar file and a zip file; only names count here.
    fn heap(dir: &Path) -> Vec<Source> {
        let mut tar = tar::Builder::new(std::fs::File::create(dir.join("b.tar")).unwrap());
        let mut zip = zip::ZipWriter::new(std::fs::File::create(dir.join("c.zip")).unwrap());
        for name in PEOPLE {
            std::fs::create_dir_all(dir.join("a").join(name)).unwrap();
            for i in 0..7 {
                let member = format!("{name}/{i}.jpg");
                std::fs::write(dir.join("a").join(&member), format!("file {member}")).unwrap();
                let bytes = format!("tar {member}");
                let mut header = tar::Header::new_gnu();
                header.set_size(bytes.len() as u64);
                header.set_mode(0o644);
                tar.append_data(&mut header, format!("faces/{member}"), bytes.as_bytes()).unwrap();
                zip.start_file(&member, zip::write::FileOptions::default()).unwrap();
                std::io::Write::write_all(&mut zip, format!("zip {member}").as_bytes()).unwrap();
            }
            std::fs::write(dir.join("a").join(name).join("notes.txt"), "").unwrap();
        }
        tar.finish().unwrap();
        zip.finish().unwrap();
        let source = |name: &str| Source { path: dir.join(name), licence: None, origin: None };
        ["a", "b.tar", "c.zip"].map(source).to_vec()
    }

    fn plan(sources: Vec<Source>, listed: bool) -> Plan {
        let person = |name: &str| Person { name: name.into(), attributes: vec![], left_out: None };
        Plan {
            people: if listed { PEOPLE[..3].iter().map(|name| person(name)).collect() } else { vec![] },
            forbidden: Forbidden::new(["Aaron_Eckhart"].into_iter(), true),
            sources,
            most: 18,
            settings: "s".into(),
        }
    }

    #[test]
    fn pictures_come_from_folders_and_archives_and_people_of_benchmarks_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let sources = heap(dir.path());
        let store = Store::create(&dir.path().join("work")).unwrap();
        let mut mistyped = plan(vec![Source { path: dir.path().join("none"), ..sources[0].clone() }], true);
        mistyped.settings = "none".into();
        assert!(matches!(run(&store, &mistyped, false, &Silent), Err(CandidatesError::Source(_))));
        let state = run(&store, &plan(sources.clone(), true), false, &Silent).unwrap();
        assert_eq!(state.seen, 36, "two people, limited to 18 of 21");
        assert!(state.notes.iter().any(|(_, value)| value == "stranger"), "{:?}", state.notes);
        let people = store.people().unwrap();
        assert!(people[2].1.left_out.as_ref().unwrap().contains("Aaron_Eckhart"));
        let reader = sources::Reader::open(&sources).unwrap();
        let all = store.alive(1, Stage::Describe).unwrap();
        for (at, said) in [(0, "file bob_ray/0.jpg"), (7, "tar bob_ray/0.jpg"), (17, "zip bob_ray/3.jpg")] {
            assert_eq!(String::from_utf8(reader.bytes(&all[at].1).unwrap()).unwrap(), said);
        }
    }

    #[test]
    fn killed_at_any_write_it_ends_with_the_same_store() {
        let dir = tempfile::tempdir().unwrap();
        let sources = heap(dir.path());
        for listed in [true, false] {
            let whole = Store::create(&dir.path().join(format!("whole{listed}"))).unwrap();
            run(&whole, &plan(sources.clone(), listed), false, &Silent).unwrap();
            let killed = dir.path().join(format!("killed{listed}"));
            let mut kills = 0;
            for writes in [2, 1, 1, 1, 0, 1, 3, 99] {
                let store = Store::create(&killed).unwrap();
                store.interrupt_after(writes);
                kills += u32::from(run(&store, &plan(sources.clone(), listed), false, &Silent).is_err());
            }
            assert!(kills > 2);
            assert_eq!(Store::open(&killed).unwrap().dump().unwrap(), whole.dump().unwrap());
        }
    }
}

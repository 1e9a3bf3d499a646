use super::*;

fn candidate(name: &str) -> Candidate {
    Candidate { source: 0, place: Place::File(name.into()) }
}

#[test]
fn what_a_stage_drops_later_stages_do_not_see_and_again_takes_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    store.begin(Stage::Candidates, "a", false).unwrap();
    let keys = store
        .write(|txn| {
            (0..3).map(|i| txn.add_candidate(7, &candidate(&i.to_string()))).collect::<Result<Vec<_>, _>>()
        })
        .unwrap();
    store.begin(Stage::Rank, "k=1", false).unwrap();
    store.write(|txn| txn.drop(Stage::Rank, keys[1], &Drop::Rank(2))).unwrap();
    assert_eq!(store.alive_keys(7, Stage::Rank).unwrap().len(), 3);
    assert_eq!(store.alive_keys(7, Stage::Dedupe).unwrap(), [keys[0], keys[2]]);
    assert_eq!(store.alive(7, Stage::Dedupe).unwrap()[1].1.place.name(), "2");
    assert!(matches!(store.begin(Stage::Rank, "k=2", false), Err(StoreError::Settings { .. })));
    store.begin(Stage::Rank, "k=2", true).unwrap();
    assert_eq!(store.alive_keys(7, Stage::Dedupe).unwrap().len(), 3);
    assert_eq!(store.count(7).unwrap(), 3, "candidates stay");
}

#[test]
fn an_interrupted_write_leaves_nothing_and_a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    store.interrupt_after(1);
    store.write(|txn| txn.add_candidate(1, &candidate("a"))).unwrap();
    let second = store.write(|txn| txn.add_candidate(1, &candidate("b")));
    assert!(matches!(second, Err(StoreError::Interrupted)));
    assert!(matches!(Store::open(dir.path()), Err(StoreError::Open { .. })));
    drop(store);
    assert_eq!(Store::open(dir.path()).unwrap().count(1).unwrap(), 1);
    assert!(matches!(Store::open(&dir.path().join("none")), Err(StoreError::Missing { .. })));
}

use super::*;

#[test]
fn a_clock_that_was_never_set_or_was_set_back_is_seen() {
    let now = UnixMs(EARLIEST_MS + 1_000);
    assert_eq!(check_clock(now, None).outcome, Outcome::Passed);
    assert_eq!(check_clock(now, Some(UnixMs(now.0 - 5))).outcome, Outcome::Passed);
    assert_eq!(check_clock(now, Some(UnixMs(now.0 + 60_000))).outcome, Outcome::Warned);
    let unset = check_clock(UnixMs(3_600_000), None);
    assert!(unset.outcome == Outcome::Failed && unset.remedy.unwrap().contains("time server"));
}

#[test]
fn light_and_rate_have_remedies() {
    for (fps, light, bad, word) in [
        (30.0, 120.0, 0, None),
        (30.0, 12.0, 0, Some("lamp")),
        (30.0, 240.0, 0, Some("sun")),
        (4.0, 120.0, 0, Some("slow")),
        (30.0, 120.0, 9, Some("cable")),
    ] {
        let check = judge_camera("cam", fps, light, bad);
        match word {
            None => assert_eq!(check.outcome, Outcome::Passed),
            Some(word) => assert!(check.remedy.unwrap().contains(word)),
        }
    }
}

#[test]
fn a_model_for_research_only_is_named() {
    let found = check_lineage(&[("yunet", "MIT", None), ("compact", "X", Some(Allows::Research))]);
    assert!(found.outcome == Outcome::Warned && found.said.ends_with("research only: compact"), "{found:?}");
    let found = check_lineage(&[("yunet", "MIT", None), ("ours", "MIT", Some(Allows::Product))]);
    assert!(found.outcome == Outcome::Passed && found.said.contains("makers of yunet"), "{found:?}");
}

#[test]
fn light_is_measured_as_luma() {
    let rgb = [[255, 0, 0]; 16].concat();
    let mean = mean_luma(&RgbView::new(&rgb, 4, 4).unwrap());
    assert!((mean - 76.7).abs() < 0.1, "{mean}");
}

#[test]
fn storage_is_written_and_cleaned_up() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("state");
    assert_ne!(check_storage(&below).outcome, Outcome::Failed);
    assert_eq!(std::fs::read_dir(&below).unwrap().count(), 0);
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert_eq!(check_storage(&file).outcome, Outcome::Failed);
}

#[test]
fn a_door_without_anything_says_so_and_does_not_stop_at_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.door.state_dir = folder.path().join("state");
    config.models.dir = folder.path().join("models");
    config.camera.device = folder.path().join("video9");
    let report = run(&config, false);
    let of = |name| report.checks.iter().find(|check| check.name == name).unwrap().outcome;
    assert_eq!([of("models"), of("camera")], [Outcome::Failed; 2]);
    assert_eq!([of("people"), of("lock"), of("inputs"), of("panel")], [Outcome::Skipped; 4]);
    assert_eq!(of("storage"), Outcome::Passed);
    assert_eq!(report.failed(), 2);
    assert!(report.summary().contains("2 failed"));
}

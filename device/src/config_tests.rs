use super::*;

#[test]
fn an_empty_file_is_a_door_and_the_defaults_hold() {
    let config = Config::parse("").unwrap();
    assert_eq!(config, Config::default());
    config.check().unwrap();
    let back = Config::parse(&toml::to_string(&config).unwrap()).unwrap();
    assert_eq!(back, config);
}

#[test]
fn a_typo_names_the_line_and_what_is_allowed() {
    let error = Config::parse("[decision]\ntreshold = 0.2\n").unwrap_err();
    assert!(
        error.contains("line 2") && error.contains("treshold") && error.contains("`threshold`"),
        "{error}"
    );
    let error = Config::parse(
        "[lock]\nkind = \"strike\"\nactive_low = false\nchip = \"/dev/gpiochip0\"\nline = 3\nactive = true\n",
    )
    .unwrap_err();
    assert!(error.contains("active"), "{error}");
}

#[test]
fn values_out_of_range_say_the_range() {
    for (text, word) in [
        ("[decision]\nthreshold = 40.0", "0 to 1"),
        ("[decision]\nvotes = 6", "window"),
        ("[decision]\nwindow = 17", "window"),
        ("[decision]\nfalse_accepts = 0.0", "above 0"),
        ("[decision]\npin_timeout_s = 2", "5 to 120"),
        ("[decision]\nsecond_factor = \"pin\"", "keypad.device"),
        ("[session]\nopen_s = 0", "at least 1"),
        ("[session]\nbar_after = 3", "lockout_after"),
        ("[access]\ntime_zone = \"Mars/Olympus\"", "Mars/Olympus"),
        ("[access]\nschedule = \"nights\"", "access.schedules"),
        ("[access]\nholidays = [\"2026-02-30\"]", "2026-02-30"),
        ("[access.schedules]\nday = [\"mo 08:00-09:00\"]", "access.schedules.day"),
        ("[access.schedules]\nalways = []", "always"),
        ("[enrol]\nviews = 1", "3 to 8"),
        ("[enrol]\npose_timeout_s = 1", "3 to 60"),
        ("[enrol]\nconsent = \"\"", "1 to 24"),
        ("[enrol]\nadmin_pin = \"4711\"", "--hash-pin"),
        ("[models]\ndetector_width_px = 3", "64 to 1280"),
        ("[service]\nmetrics = \"0.0.0.0:9465\"", "service.metrics"),
        ("[service]\nwatchdog_timeout_s = 1", "2 to 600"),
        ("[camera]\nrotate_deg = 45", "camera.rotate_deg is 45"),
    ] {
        let error = Config::parse(text).unwrap_err();
        assert!(error.contains(word), "{text}: {error}");
    }
}

#[test]
fn a_door_with_a_lock_says_so_when_it_does_without_liveness() {
    let lock = "[lock]\nkind = \"strike\"\nactive_low = false\nchip = \"/dev/gpiochip0\"\nline = 3\n";
    let liveness = |text: &str, finds| Config::parse(text).unwrap().liveness(finds).ok();
    assert_eq!(liveness(lock, true), Some(LivenessMode::Challenge));
    assert_eq!(liveness(lock, false), None);
    assert_eq!(liveness(&format!("{lock}[liveness]\nmode = \"off\""), false), Some(LivenessMode::Off));
    assert_eq!(liveness("", true), Some(LivenessMode::Off), "nothing is released");
    assert_eq!(liveness("[liveness]\nmode = \"challenge\"", true), Some(LivenessMode::Challenge));
    assert_eq!(liveness("[liveness]\nmode = \"challenge\"", false), None);
}

#[test]
fn the_threshold_must_come_from_somewhere() {
    let table = [OperatingPoint { fmr: 1e-5, threshold: Threshold(0.45) }];
    let config = Config::default();
    assert!(matches!(config.threshold_source(&[], None), Err(ConfigError::NoThreshold { .. })));
    let of = |config: &Config, table: &[OperatingPoint]| {
        config.rule(&config.threshold_source(table, Some(Threshold(0.4))).unwrap()).threshold
    };
    assert_eq!(of(&config, &[]), Threshold(0.4));
    assert_eq!(of(&config, &table), Threshold(0.45));
    let config = Config::parse("[decision]\nthreshold = 0.5").unwrap();
    assert_eq!(of(&config, &table), Threshold(0.5));
}

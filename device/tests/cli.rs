//! The real program, as an administrator runs it on the board: without a daemon on the door's files, and with one through its socket.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufRead as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::sync_channel;

use facelatch_device::clock::SystemClock;
use facelatch_device::config::DoorConfig;
use facelatch_device::control::{ControlMessage, Limits, Server, State, answer};
use facelatch_shared::embedding::{DIM, Embedding, ModelBinding, Template};
use facelatch_shared::event::{EnrolFailure, EventKind};
use facelatch_shared::person::{Name, SubjectId};
use facelatch_shared::protocol::{Enrolment, Liveness, Request, Response, Rules, Status, ThresholdFrom};
use facelatch_shared::remote::{LinkRequest, LinkResponse, LinkRole, PeerId, PeerRow};
use facelatch_shared::score::Threshold;
use facelatch_shared::time::{Millis, UnixMs};

/// A door's folder with its configuration.
struct Door {
    folder: tempfile::TempDir,
}

impl Door {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let door = Self { folder };
        std::fs::create_dir(door.state_dir()).unwrap();
        door.configure("");
        door
    }

    fn configure(&self, more: &str) {
        let text = format!("[door]\nstate_dir = {:?}\n{more}", self.state_dir());
        std::fs::write(self.config(), text).unwrap();
    }

    fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("door.toml")
    }

    fn state(&self) -> State {
        let door = DoorConfig { state_dir: self.state_dir(), ..DoorConfig::default() };
        State::open(&door, &SystemClock::new()).unwrap()
    }

    /// Enrols as the daemon would, without a camera.
    fn with_people(self, names: &[&str]) -> Self {
        let mut state = self.state();
        for (name, seed) in names.iter().zip(1_u16..) {
            let raw: Vec<f32> =
                (0..DIM).map(|i| ((i * 37 * usize::from(seed)) % 101) as f32 - 50.0).collect();
            let view = Template::quantize(&Embedding::from_raw(&raw).unwrap());
            let name = Name::new(name).unwrap();
            let at = UnixMs(1_709_210_096_789);
            let subject = state.people.enrol(name, vec![view; 3], ModelBinding([1; 16]), at).unwrap();
            state.log.record(at, Millis(5), EventKind::Enrolled { subject, templates: 3 });
        }
        drop(state);
        self
    }

    fn run(&self, words: &[&str]) -> Outcome {
        Outcome::of(Command::new(PROGRAM).arg("--config").arg(self.config()).args(words))
    }
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_facelatchd");

#[derive(Debug)]
struct Outcome {
    code: i32,
    out: String,
    err: String,
}

impl Outcome {
    fn of(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } =
            command.env_remove("FACELATCH_LOG").stdin(Stdio::null()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: status.code().unwrap(), out: text(stdout), err: text(stderr) }
    }

    #[track_caller]
    fn ends(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.out.contains(word) || self.err.contains(word), "no {word:?} in {self:?}");
        }
        self
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

#[test]
fn an_empty_door() {
    let door = Door::new();
    door.run(&["people", "list"]).ends(0, &["Nobody is enrolled", "people enrol NAME"]);
    let listed = door.run(&["people", "list", "--json"]).ends(0, &[]);
    assert_eq!((listed.out.as_str(), listed.err.as_str()), ("[]\n", ""));
    door.run(&["events", "list"]).ends(0, &["Nothing is logged"]);
    door.run(&["events", "verify"]).ends(0, &["intact", "0 events"]);
}

#[test]
fn people_are_listed_renamed_suspended_and_erased_on_the_files() {
    let door = Door::new().with_people(&["Ada Lovelace", "Bo"]);
    let listed = door.run(&["people", "list"]).ends(0, &[]);
    assert_eq!(
        listed.out,
        "\
ID  NAME          STATE   VIEWS  ENROLLED
#1  Ada Lovelace  active  3      2024-02-29T12:34:56Z
#2  Bo            active  3      2024-02-29T12:34:56Z
2 people
"
    );
    door.run(&["people", "rename", "#1", "Ada Byron"]).ends(0, &["#1 Ada Byron is renamed"]);
    door.run(&["people", "suspend", "2"]).ends(0, &["#2 Bo is suspended"]);
    let refused = door.run(&["people", "erase", "1"]).ends(2, &["--yes"]);
    assert!(refused.err.contains("error:") && refused.err.contains("hint:"), "{refused:?}");
    let erased = door.run(&["people", "erase", "1", "--yes", "--json"]).ends(0, &[]);
    let mut erased = erased.json();
    let receipt = erased.as_object_mut().unwrap().remove("receipt").unwrap();
    assert_eq!(erased, serde_json::json!({"id": 1, "name": "Ada Byron", "change": "erased"}));
    assert_eq!((&receipt["id"], &receipt["templates"]), (&1.into(), &3.into()), "{receipt}");
    assert_eq!(
        door.run(&["people", "list", "--json"]).ends(0, &[]).out,
        r#"[
  {
    "id": 2,
    "name": "Bo",
    "state": "suspended",
    "templates": 3,
    "enrolled_at": "2024-02-29T12:34:56.789Z"
  }
]
"#
    );
    let logged = door.run(&["events", "list", "--json"]).ends(0, &[]).json();
    let words: Vec<_> = logged.as_array().unwrap().iter().map(|e| e["event"].as_str().unwrap()).collect();
    assert_eq!(words, ["enrolled", "enrolled", "renamed", "suspended", "erased", "erasure_receipt"]);
    door.run(&["people", "reinstate", "2"]).ends(0, &["#2 Bo is reinstated"]);
}

#[test]
fn who_is_not_there_is_told_with_the_remedy() {
    let door = Door::new().with_people(&["Ada"]);
    for words in [
        &["people", "rename", "9", "X"][..],
        &["people", "suspend", "9"],
        &["people", "reinstate", "#9"],
        &["people", "erase", "9", "--yes"],
    ] {
        door.run(words).ends(1, &["error: nobody has the number #9", "people list"]);
    }
    door.run(&["people", "rename", "Ada", "X"]).ends(2, &["an ID is a number"]);
    door.run(&["people", "rename", "1", " "]).ends(2, &["at least one character"]);
}

#[test]
fn enrolment_and_status_need_the_daemon() {
    let door = Door::new();
    door.run(&["people", "enrol", "Ada"]).ends(1, &["no facelatchd answers", "start it"]);
    door.run(&["status"]).ends(1, &["no facelatchd answers", "start it"]);
    door.run(&["people", "enrol"]).ends(2, &["NAME"]);
}

#[test]
fn a_wrong_configuration_names_the_line() {
    let door = Door::new();
    door.configure("[decision]\ntreshold = 0.2\n");
    door.run(&["people", "list"]).ends(2, &["line 4", "treshold", "`threshold`", "door.toml"]);
    door.configure("[decision]\nvotes = 9\n");
    door.run(&["people", "list"]).ends(2, &["votes = 9"]);
    std::fs::remove_file(door.config()).unwrap();
    door.run(&["people", "list"]).ends(2, &["door.toml", "facelatchd config"]);
}

#[test]
fn a_folder_that_is_not_there_is_not_made_by_looking() {
    let door = Door::new();
    std::fs::remove_dir(door.state_dir()).unwrap();
    door.run(&["people", "list"]).ends(1, &["no such folder", "door.state_dir"]);
    assert!(!door.state_dir().exists());
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let door = Door::new().with_people(&["Ada"]);
    let key = door.state_dir().join("device.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    door.run(&["people", "list"]).ends(3, &["mode 644", "chmod 600"]);
}

#[test]
fn a_tampered_log_is_refused() {
    let door = Door::new().with_people(&["Ada", "Bo", "Cem"]);
    let path = door.state_dir().join("events.journal");
    let whole = std::fs::read(&path).unwrap();
    door.run(&["events", "verify"]).ends(0, &["3 events"]);
    // One bit: the entry is no entry any more.
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    std::fs::write(&path, flipped).unwrap();
    door.run(&["events", "verify"]).ends(3, &["error: the log is not intact", "are no entry", "hint:"]);
    // A whole entry cut out: the frames are whole and the chain is not.
    let third = whole.len() / 3;
    std::fs::write(&path, [&whole[..third], &whole[2 * third..]].concat()).unwrap();
    let found = door.run(&["events", "verify", "--json"]).ends(3, &["broken before 3"]).json();
    assert_eq!(
        found,
        serde_json::json!({"intact": false, "events": 2, "broken_at": [3], "damaged_bytes": 0, "missing_end": null})
    );
}

#[test]
fn the_log_is_exported_in_both_formats() {
    let door = Door::new().with_people(&["Ada"]);
    let mut state = door.state();
    for n in 0..600 {
        state.log.record(UnixMs(n), Millis(0), EventKind::Released);
    }
    drop(state);
    let to = |name: &str| door.folder.path().join(name).display().to_string();
    door.run(&["events", "export", &to("log.csv")]).ends(0, &["601 events in"]);
    let csv = std::fs::read_to_string(to("log.csv")).unwrap();
    assert_eq!(csv.lines().count(), 602);
    assert!(csv.starts_with("seq,at,uptime_ms,event,"));
    door.run(&["events", "export", &to("log.jsonl")]).ends(0, &["601 events in"]);
    let lines = std::fs::read_to_string(to("log.jsonl")).unwrap();
    assert_eq!(
        lines.lines().next().unwrap(),
        r#"{"seq":1,"at":"2024-02-29T12:34:56.789Z","uptime_ms":5,"event":"enrolled","subject":1,"templates":3}"#
    );
    assert_eq!(lines.lines().count(), 601);
    door.run(&["events", "export", &to("log.txt")]).ends(2, &[".jsonl or .csv"]);
    door.run(&["events", "export", &to("nowhere/log.csv")]).ends(1, &["nowhere/log.csv"]);

    let numbers = |words: &[&str]| {
        let rows = door.run(words).ends(0, &[]).json();
        let rows = rows.as_array().unwrap();
        let seq = |at: usize| rows[at]["seq"].as_u64().unwrap();
        (rows.len(), seq(0), seq(rows.len() - 1))
    };
    assert_eq!(numbers(&["events", "list", "--json"]), (50, 552, 601));
    assert_eq!(numbers(&["events", "list", "--json", "--last", "300"]), (300, 302, 601));
    assert_eq!(numbers(&["events", "list", "--json", "--last", "9999"]), (601, 1, 601));
    assert_eq!(numbers(&["events", "list", "--json", "--from", "600"]), (2, 600, 601));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let door = Door::new().with_people(&["Ada"]);
    let program = format!("{PROGRAM} --config {} events list | true", door.config().display());
    let ended = Outcome::of(Command::new("bash").args(["-o", "pipefail", "-c", &program])).ends(0, &[]);
    assert_eq!(ended.err, "");
}

#[test]
fn usage_is_taught() {
    let run = |words: &[&str]| Outcome::of(Command::new(PROGRAM).args(words));
    run(&["--version"]).ends(0, &[concat!("facelatchd ", env!("CARGO_PKG_VERSION"))]);
    run(&["--help"]).ends(0, &["people enrol", "Exit codes:", "FACELATCH_LOG"]);
    run(&["people", "erase", "--help"])
        .ends(0, &["key are destroyed", "never given again", "--yes", "Examples:"]);
    run(&["peopel"]).ends(2, &["people"]);
    let printed = run(&["config"]).ends(0, &["min_rank_gap = 0.05", "#threshold"]);
    let door = Door::new();
    std::fs::write(door.config(), printed.out).unwrap();
    // It parses; that its folder is not there is another matter.
    assert_ne!(door.run(&["people", "list"]).code, 2);
    let logging = Outcome::of(Command::new("env").args(["FACELATCH_LOG=what=ever=", PROGRAM, "config"]));
    logging.ends(2, &["FACELATCH_LOG", "hint:"]);
}

#[test]
fn the_log_is_on_stderr_and_plain_when_nobody_looks() {
    let door = Door::new().with_people(&["Ada"]);
    let mut rename = Command::new("env");
    rename
        .args(["FACELATCH_LOG=info", PROGRAM, "people", "rename", "1", "Bo", "--config"])
        .arg(door.config());
    let renamed = Outcome::of(&mut rename).ends(0, &["Renamed"]);
    assert!(!renamed.out.contains("INFO") && renamed.err.contains("INFO"), "{renamed:?}");
    assert!(!renamed.err.contains('\u{1b}'), "{renamed:?}");
    assert!(!renamed.err.contains("Bo"), "names are not logged: {renamed:?}");
}

/// Ctrl-C at an enrolment that does not end by itself.
#[test]
fn an_interrupted_enrolment_is_called_off_at_the_door() {
    let door = Door::new();
    let running = vec![Enrolment::Running { taken: 1, wanted: 3 }; 10_000];
    let (server, session) = serve(&door.state_dir(), door.state(), running);
    let mut enrol = Command::new(PROGRAM);
    enrol.arg("--config").arg(door.config()).args(["people", "enrol", "Ada"]);
    let mut child = enrol.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut err = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    err.read_line(&mut line).unwrap();
    assert!(line.contains("1 of 3 views"), "{line}");
    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    line.clear();
    err.read_to_string(&mut line).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{line}");
    assert!(line.contains("was called off; nobody is enrolled"), "{line}");
    drop(server);
    session.join().unwrap();
}

/// A daemon in this process: the real socket and the real answers, with enrolments that go as `script` says.
fn serve(
    state_dir: &Path,
    mut state: State,
    script: Vec<Enrolment>,
) -> (Server, std::thread::JoinHandle<()>) {
    let (sender, messages) = sync_channel::<ControlMessage>(4);
    let server = Server::start(state_dir, sender, Limits::default()).unwrap();
    let session = std::thread::spawn(move || {
        let clock = SystemClock::new();
        let (mut script, mut cancelled) = (script.into_iter(), false);
        let mut codes = 0;
        for message in messages {
            let response = match message.request.clone() {
                Request::Status => Response::Status(Status {
                    version: heapless::String::try_from("0.1.0").unwrap(),
                    uptime_s: 61,
                    door: Name::new("Front").unwrap(),
                    people: state.people.len() as u32,
                    frames: 10,
                    dropped: 0,
                    camera_ok: true,
                    released: false,
                }),
                Request::Rules => Response::Rules(Rules {
                    threshold: Threshold(0.48),
                    source: ThresholdFrom::Model,
                    templates: 5,
                    local: None,
                    barred: false,
                    liveness: Liveness::Off,
                }),
                Request::Enrol { .. } => Response::Enrolment(Enrolment::Running { taken: 0, wanted: 3 }),
                Request::CancelEnrol => {
                    cancelled = true;
                    Response::Enrolment(Enrolment::Failed(EnrolFailure::Cancelled))
                }
                Request::EnrolProgress if cancelled => {
                    Response::Enrolment(Enrolment::Failed(EnrolFailure::Cancelled))
                }
                Request::EnrolProgress => Response::Enrolment(script.next().unwrap_or(Enrolment::None)),
                Request::Link(LinkRequest::OpenPairing { role }) => {
                    assert_eq!(role, LinkRole::Administrator);
                    codes += 1;
                    let code = heapless::String::try_from("EM7BJ-Q5JR9").unwrap();
                    Response::Link(LinkResponse::Pairing { code, seconds: 120, port: None })
                }
                // Somebody has typed the code.
                Request::Link(LinkRequest::ListPeers) => {
                    let name = Name::new("desk").unwrap();
                    let row = PeerRow { id: PeerId([0x8f; 4]), role: LinkRole::Administrator, name };
                    Response::Link(LinkResponse::Peers(vec![row; codes]))
                }
                request => answer(&mut state.people, &mut state.log, &clock, request),
            };
            message.answer(response);
        }
    });
    (server, session)
}

#[test]
fn only_a_new_door_offers_its_first_pairing_by_itself() {
    let door = Door::new();
    let (server, session) = serve(&door.state_dir(), door.state(), Vec::new());
    let first = ["link", "pair", "--first"];
    door.run(&first).ends(0, &["Pairing code EM7BJ-Q5JR9", "Paired: desk (8f8f8f8f)"]);
    let again = door.run(&first).ends(0, &[]);
    assert_eq!((again.out.as_str(), again.err.as_str()), ("", ""), "somebody is paired");
    drop(server);
    session.join().unwrap();

    let door = Door::new().with_people(&["Ada"]);
    let (server, session) = serve(&door.state_dir(), door.state(), Vec::new());
    let known = door.run(&first).ends(0, &[]);
    assert_eq!((known.out.as_str(), known.err.as_str()), ("", ""), "somebody is enrolled");
    door.configure("[link]\nenabled = false\n");
    door.run(&first).ends(0, &[]);
    drop(server);
    session.join().unwrap();
}

#[test]
fn a_running_door_is_asked_through_its_socket() {
    let door = Door::new().with_people(&["Ada"]);
    let running = |taken| Enrolment::Running { taken, wanted: 3 };
    let script = vec![
        running(0),
        running(1),
        running(1),
        running(3),
        Enrolment::Done { id: SubjectId(7) },
        running(0),
        Enrolment::Failed(EnrolFailure::AlreadyEnrolled { subject: SubjectId(1) }),
    ];
    let (server, session) = serve(&door.state_dir(), door.state(), script);

    door.run(&["status"]).ends(0, &["door     Front", "running for 1 min 1 s", "secured"]);
    assert_eq!(door.run(&["status", "--json"]).ends(0, &[]).json()["people"], 1);
    door.run(&["people", "list"]).ends(0, &["Ada"]);
    door.run(&["people", "suspend", "1"]).ends(0, &["suspended"]);
    door.run(&["people", "erase", "9", "--yes"]).ends(1, &["nobody has the number #9"]);
    door.run(&["events", "verify"]).ends(0, &["2 events"]);

    let enrolled = door.run(&["people", "enrol", "Bo"]).ends(0, &["#7 Bo is enrolled"]);
    assert_eq!(
        enrolled.err,
        "\
[...] 0 of 3 views: look straight at the camera, an arm's length away
[#..] 1 of 3 views: turn the head a little, and look at the camera again
[###] 3 of 3 views: hold on, the views are being stored
"
    );
    door.run(&["people", "enrol", "Ada again"]).ends(3, &["enrolled already, as #1", "people rename 1"]);
    door.run(&["people", "enrol", "--cancel"]).ends(0, &["No enrolment is under way"]);

    drop(server);
    session.join().unwrap();
    door.run(&["status"]).ends(1, &["no facelatchd answers"]);
}

//! The running door takes bundles: everything that `facelatchd` runs but camera, lock and panel, asked over its own socket and over TLS.

use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use facelatch_device::camera::orientation::Orientation;
use facelatch_device::camera::pace::Pace;
use facelatch_device::camera::scene::{Picture, Scene};
use facelatch_device::camera::{Camera, CameraError, PixelFormat, RawFrame};
use facelatch_device::clock::{Clock, SimClock};
use facelatch_device::config::{Config, Poses};
use facelatch_device::control::{Client, Limits, Server, State, ToSession};
use facelatch_device::daemon::{Rules, rules_at};
use facelatch_device::demo::photos::Photo;
use facelatch_device::display::NoDisplay;
use facelatch_device::door::{Desk, Door, Parts};
use facelatch_device::inputs::fake::FakeInputs;
use facelatch_device::inputs::keypad::NoKeypad;
use facelatch_device::link::{self, LinkLimits, LinkParts, LinkServer};
use facelatch_device::lock::fake::FakeLock;
use facelatch_device::runner::{self, NoUpkeep, NoWatcher, Source};
use facelatch_device::update::{Boot, FileSlots, Service, Updater, models, slots_dir};
use facelatch_shared::bundle::{Compatible, Manifest};
use facelatch_shared::embedding::ModelBinding;
use facelatch_shared::event::{EventKind, TrialOutcome};
use facelatch_shared::link::Identity;
use facelatch_shared::link::pair::PairingCode;
use facelatch_shared::person::{Name, SubjectId};
use facelatch_shared::protocol::update::{ModelsFrom, UpdateRequest, UpdateStage, UpdateStatus, push};
use facelatch_shared::protocol::{Enrolment, RefusedKind, Request, Response};
use facelatch_shared::remote::{LinkRequest, LinkResponse, LinkRole};
use facelatch_shared::vision::Eyes;
use facelatch_trainer::remote::known::KnownDoor;
use facelatch_trainer::remote::rollout::DoorState;
use facelatch_trainer::remote::{RemoteDoor, RemoteError};

use super::desk::Workstation;
use super::*;

/// Shows one picture until it is given another; simulated time moves on with each frame.
struct Stage {
    picture: Mutex<Arc<Picture>>,
    clock: Arc<SimClock>,
    pace: Arc<Pace>,
}

struct StageCamera {
    stage: Arc<Stage>,
    seq: u64,
}

impl Camera for StageCamera {
    fn next_frame(&mut self, frame: &mut RawFrame) -> Result<(), CameraError> {
        self.stage.pace.wait_for(self.seq, PATIENCE).map_err(|_| CameraError::Ended)?;
        self.seq += 1;
        self.stage.clock.advance_ms(FRAME_MS);
        let picture = Arc::clone(&self.stage.picture.lock().unwrap());
        let view = picture.view();
        (frame.seq, frame.at) = (self.seq, self.stage.clock.now());
        (frame.width_px, frame.height_px) = (view.width_px(), view.height_px());
        frame.format = Some(PixelFormat::Rgb24);
        frame.bytes.clear();
        frame.bytes.extend_from_slice(view.data());
        Ok(())
    }

    fn describe(&self) -> String {
        "a stage".into()
    }
}

/// `facelatchd` at work in a folder, and its socket.
struct Running {
    stage: Arc<Stage>,
    client: Client,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Updater>,
    _server: Server,
    _link: LinkServer,
}

impl Running {
    /// Starts it as the program does: files, slots, models, then the door.
    fn start(config: &Config, clock: &Arc<SimClock>) -> (Self, Boot) {
        let time: Arc<dyn Clock> = Arc::<SimClock>::clone(clock);
        let State { people, mut log, .. } = State::open_or_create(&config.door, &*time).unwrap();
        let slots = FileSlots::open(&slots_dir(&config.door)).unwrap();
        let (mut updater, boot) = Updater::open(Box::new(slots), &config.door.board).unwrap();
        let mut events = Vec::new();
        let loaded = models::load(config, &mut updater, &mut events).unwrap();
        for event in events {
            log.record(time.unix(), time.now(), event);
        }
        let Rules { session, threshold, keeper } =
            rules_at(config, &loaded.eyes, &log, loaded.threshold.clone()).unwrap();
        let compatible = loaded.compatible.clone();
        let (service, seat, eyes) = Service::start(config, updater, Arc::clone(&time), loaded).unwrap();
        let (to_session, control) = sync_channel::<ToSession>(4);
        let limits = Limits { session: PATIENCE, ..Limits::default() };
        let server = Server::start(&config.door.state_dir, to_session.clone(), limits).unwrap();
        let (identity, peers) = link::open(&config.door.state_dir).unwrap();
        let desk = Desk { peers: Arc::clone(&peers), port: config.link.listen.port() };
        let (looks, looked) = sync_channel(4);
        let link = LinkServer::start(LinkParts {
            address: config.link.listen,
            identity,
            peers,
            clock: Arc::clone(&time),
            name: config.door.name.clone(),
            session: to_session,
            looks,
            announce: false,
            limits: LinkLimits { session: PATIENCE, ..LinkLimits::default() },
        })
        .unwrap();
        let pace = Pace::new();
        let stage = Arc::new(Stage {
            picture: Mutex::new(Arc::new(Scene::blank().finish())),
            clock: Arc::clone(clock),
            pace: Arc::clone(&pace),
        });
        let stop = Arc::new(AtomicBool::new(false));
        let (of_camera, of_run, name) = (Arc::clone(&stage), Arc::clone(&stop), config.door.name.clone());
        let keep_chips = config.enrol.keep_chips;
        let thread = std::thread::spawn(move || {
            let door = Door::start(Parts {
                session,
                people,
                log,
                lock: Box::new(FakeLock::new(Arc::clone(&time)).0),
                inputs: Box::new(FakeInputs::new()),
                keypad: Box::new(NoKeypad),
                display: Box::new(NoDisplay),
                clock: Arc::clone(&time),
                keeper,
                threshold,
                binding: eyes.binding(),
                compatible,
                keep_chips,
                name,
            })
            .with_link(desk);
            let open_camera = Box::new(move || {
                Ok(Box::new(StageCamera { stage: Arc::clone(&of_camera), seq: 0 }) as Box<dyn Camera>)
            });
            let source = Source {
                open_camera,
                orientation: Orientation::default(),
                upkeep: Box::new(NoUpkeep),
                clock: time,
                looks: Some(looked),
                update: Some(seat),
                pace: Some(pace),
                stop: of_run,
            };
            runner::run(door, eyes, source, &control, &mut NoWatcher).unwrap();
            service.finish().unwrap()
        });
        let client = Client::connect(&config.door.state_dir).unwrap();
        (Self { stage, client, stop, thread, _server: server, _link: link }, boot)
    }

    fn stop(self) -> Updater {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }

    fn ask(&self, request: Request) -> Response {
        self.client.ask(&request).unwrap()
    }

    fn update(&self, request: UpdateRequest) -> UpdateStatus {
        match self.ask(Request::Update(request)) {
            Response::Update(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    /// Asks again and again until `seen` says what was waited for.
    fn until<T>(&self, what: &str, mut seen: impl FnMut(&Self) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = seen(self) {
                return found;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "{what} did not happen: {:?}",
                self.update(UpdateRequest::Status)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn show(&self, picture: &Arc<Picture>) {
        *self.stage.picture.lock().unwrap() = Arc::clone(picture);
    }

    /// The door is empty, and no frame of before is on its way any more.
    fn nobody(&self) {
        self.show(&Arc::new(Scene::blank().finish()));
        let frames = |door: &Self| match door.ask(Request::Status) {
            Response::Status(status) => status.frames,
            other => panic!("{other:?}"),
        };
        let before = frames(self);
        self.until("a few frames", |door| (frames(door) > before + 3).then_some(()));
    }

    fn last_event(&self) -> u64 {
        match self.ask(Request::LastEvents { count: 1 }) {
            Response::Events(events) => events.last().map_or(0, |event| event.seq),
            other => panic!("{other:?}"),
        }
    }

    fn events_after(&self, seq: u64) -> Vec<EventKind> {
        match self.ask(Request::ListEvents { from: seq + 1 }) {
            Response::Events(events) => events.into_iter().map(|event| event.kind).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Somebody comes; the lock is released for `id`, and the person goes in.
    fn opens_for(&self, id: u32, picture: &Arc<Picture>) {
        let before = self.last_event();
        self.show(picture);
        self.until("the door opening", |door| {
            let granted = |kind: &EventKind| matches!(kind, EventKind::Granted { subject: SubjectId(n), .. } if *n == id);
            door.events_after(before).iter().any(granted).then_some(())
        });
        self.nobody();
        self.until("the lock being secured", |door| {
            door.events_after(before).contains(&EventKind::Secured).then_some(())
        });
    }

    fn enrol(&self, name: &str, picture: &Arc<Picture>) -> SubjectId {
        self.show(picture);
        self.ask(Request::Enrol { name: Name::new(name).unwrap() });
        let id = self.until("the enrolment", |door| match door.ask(Request::EnrolProgress) {
            Response::Enrolment(Enrolment::Done { id }) => Some(id),
            Response::Enrolment(Enrolment::Running { .. }) => None,
            other => panic!("{other:?}"),
        });
        self.nobody();
        id
    }

    /// A workstation at the other end of a TLS connection, paired with the code that the door shows.
    fn pair(&self, desk: &Identity, address: &str) -> KnownDoor {
        let asked = self.ask(Request::Link(LinkRequest::OpenPairing { role: LinkRole::Administrator }));
        let Response::Link(LinkResponse::Pairing { code, .. }) = asked else { panic!("{asked:?}") };
        let (code, name) = (PairingCode::parse(&code).unwrap(), Name::new("desk").unwrap());
        // The listener opens a moment after the window.
        let paired =
            self.until("the pairing", |_| match RemoteDoor::pair(desk, address, &code, name.clone()) {
                Err(RemoteError::Unreachable { .. }) => None,
                other => Some(other.unwrap()),
            });
        let (name, role) = (paired.door.to_string(), paired.role);
        KnownDoor { name, address: address.to_owned(), key: paired.key, role }
    }

    fn push(&self, file: &[u8]) -> UpdateStatus {
        let read = |at: u64, into: &mut [u8]| {
            into.copy_from_slice(&file[at as usize..at as usize + into.len()]);
            Ok(())
        };
        push(file.len() as u64, read, |request| self.client.ask(&request).map_err(|e| e.to_string()), |_| {})
            .unwrap()
    }

    /// What came of the preparation.
    fn made_ready(&self) -> UpdateStage {
        self.until("the preparation", |door| match door.update(UpdateRequest::Status).stage {
            UpdateStage::Preparing { .. } => None,
            stage => Some(stage),
        })
    }

    fn activated(&self) -> UpdateStatus {
        self.nobody();
        self.update(UpdateRequest::Activate { leave_behind: 0 });
        self.until("the activation", |door| {
            Some(door.update(UpdateRequest::Status)).filter(|s| matches!(s.stage, UpdateStage::Trial(_)))
        })
    }
}

fn config(folder: &Path, models: &Path, keep_chips: bool) -> Config {
    let mut config = Config::default();
    config.door.state_dir = folder.join("state");
    config.models.dir = models.to_owned();
    config.enrol.keep_chips = keep_chips;
    // One still photograph enrols.
    config.enrol.poses = Poses::Front;
    config.session.open_s = 1;
    config.link.listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    config
}

/// Two people as they stand before the door.
fn visitors(probes: &Path, models: &Path) -> [Arc<Picture>; 2] {
    let mut eyes = Eyes::load(models, "yunet", "sface", Gate::OPEN, (320, 256)).unwrap();
    ["Barack/obama.jpg", "Joe/biden.jpg"].map(|name| {
        let photo = Photo::load(&probes.join(name), &mut eyes).unwrap();
        Arc::new(photo.at_the_door(0, 0.5, 0.5).finish())
    })
}

#[test]
fn the_running_door_changes_its_models_and_turns_bad_ones_away() {
    let test = "the_running_door_changes_its_models_and_turns_bad_ones_away";
    let (Some(imported), Some(photos)) = (models(test), photos(test)) else { return };
    let work = tempfile::tempdir().unwrap();
    let probes = probes_folder(&photos, &work.path().join("probes"));
    let good_models = work.path().join("good");
    model_folder(imported, &good_models, &compact());
    let mut draft = build(&good_models, &probes, 1, SHORT);
    draft.sign(&key(2));
    let good = draft.to_bytes().unwrap();
    let bad = with_random_weights(
        &good_models.join("net.onnx"),
        imported,
        &work.path().join("bad"),
        &probes,
        Probes::OfItsOwn,
        |m| m,
    );

    let config = config(work.path(), imported, true);
    let clock = Arc::new(SimClock::starting_at(NOW));
    let (door, boot) = Running::start(&config, &clock);
    assert_eq!(boot, Boot::Normal);
    let [barack, joe] = visitors(&probes, imported);
    // One from photographs over the link, one at the door.
    let identity = Identity::new(key(9));
    let known = door.pair(&identity, &config.link.listen.to_string());
    let desk = Arc::new(Workstation { identity, door: known });
    let pictures = ["obama.jpg", "obama3.jpg"].map(|name| probes.join("Barack").join(name));
    assert_eq!(desk.enrol("Barack", &pictures), SubjectId(1));
    assert_eq!(door.enrol("Joe", &joe), SubjectId(2));
    door.opens_for(1, &barack);
    let sface = door.update(UpdateRequest::Status);
    assert_eq!((sface.models.from, sface.models.embedder.as_str()), (ModelsFrom::Configured, "sface"));

    // Nobody is trusted yet; then somebody is.
    let begin = Request::Update(UpdateRequest::Begin { size: good.len() as u64, id: id_of(&good) });
    door.ask(begin);
    let first = Request::Update(UpdateRequest::Chunk { offset: 0, bytes: good[..32_768].to_vec() });
    let refused = door.ask(first);
    assert!(matches!(&refused, Response::Refused(r) if r.kind == RefusedKind::Unverified), "{refused:?}");
    assert_eq!(door.update(UpdateRequest::Trust(root())).root_version, Some(1));

    // The push, over TLS: the door opens while it comes and is made ready, with the models that it has.
    let pushed = desk.push(&good);
    door.opens_for(2, &joe);
    let trying = door.until("the activation", |door| {
        Some(door.update(UpdateRequest::Status)).filter(|s| matches!(s.stage, UpdateStage::Trial(_)))
    });
    assert_eq!((trying.models.from, trying.models.embedder.as_str()), (ModelsFrom::SlotA, "compact"));
    assert_ne!(trying.models.binding, sface.models.binding, "other embeddings");
    door.opens_for(1, &barack);
    door.opens_for(2, &joe);
    let confirmed = door.until("the end of the trial", |door| {
        Some(door.update(UpdateRequest::Status)).filter(|s| s.last.is_some())
    });
    assert_eq!((confirmed.last, confirmed.counter_floor), (Some(TrialOutcome::Confirmed), 1));
    assert_eq!(pushed.join().unwrap(), DoorState::Confirmed);
    assert_eq!(desk.push(&good).join().unwrap(), DoorState::Confirmed, "a second time nothing is left to do");

    // Bad on purpose, and signed all the same: it is never activated.
    let pushed = desk.push(&bad);
    door.opens_for(1, &barack);
    let state = pushed.join().unwrap();
    assert!(matches!(&state, DoorState::Failed(why) if why.contains("worse")), "{state:?}");
    let reason = heapless::String::try_from("rejections").unwrap();
    assert!(door.events_after(0).contains(&EventKind::BundleRefused { reason }));
    door.opens_for(1, &barack);
    door.opens_for(2, &joe);
    assert_eq!(door.update(UpdateRequest::Status).models, confirmed.models);

    // A restart finds the new models, and an engineer can still go back to the old ones, which know everyone.
    drop(door.stop());
    let (door, boot) = Running::start(&config, &clock);
    assert_eq!(boot, Boot::Normal);
    assert_eq!(door.update(UpdateRequest::Status).models, confirmed.models);
    door.opens_for(1, &barack);
    door.update(UpdateRequest::RollBack);
    let back = door.until("the roll-back", |door| {
        Some(door.update(UpdateRequest::Status)).filter(|s| s.models.from == ModelsFrom::Configured)
    });
    assert_eq!((back.models, back.last), (sface.models, Some(TrialOutcome::Commanded)));
    door.opens_for(2, &joe);
    door.stop();
}

#[test]
fn a_trial_that_rejects_people_ends_by_itself_and_one_that_crashes_too() {
    let test = "a_trial_that_rejects_people_ends_by_itself_and_one_that_crashes_too";
    let (Some(imported), Some(photos)) = (models(test), photos(test)) else { return };
    let work = tempfile::tempdir().unwrap();
    let probes = probes_folder(&photos, &work.path().join("probes"));
    model_folder(imported, &work.path().join("good"), &compact());
    // No chips are kept here, and the bundle claims to understand the present templates: nothing tells before the trial that it lies.
    let config = config(work.path(), imported, false);
    let clock = Arc::new(SimClock::starting_at(NOW));
    let (door, _) = Running::start(&config, &clock);
    let [barack, _] = visitors(&probes, imported);
    door.enrol("Barack", &barack);
    let sface: ModelBinding = door.update(UpdateRequest::Status).models.binding;
    let lying = |manifest: Manifest| Manifest {
        compatible: vec![Compatible { binding: sface, tar_cost: 0.0 }],
        trial: Trial { seconds: 100_000, ..SHORT },
        ..manifest
    };
    let net = work.path().join("good/net.onnx");
    let bad = with_random_weights(&net, imported, &work.path().join("bad"), &probes, Probes::OfItsOwn, lying);
    door.update(UpdateRequest::Trust(root()));
    door.push(&bad);
    let stage = door.made_ready();
    assert!(matches!(stage, UpdateStage::Ready { understood: 1, left_behind: 0, .. }), "{stage:?}");
    door.activated();
    door.show(&barack);
    let back = door.until("the roll-back", |door| {
        Some(door.update(UpdateRequest::Status)).filter(|s| s.models.from == ModelsFrom::Configured)
    });
    assert_eq!((back.last, back.counter_floor), (Some(TrialOutcome::Rejections), 0));
    let event = EventKind::ModelsRolledBack { model: sface, why: TrialOutcome::Rejections };
    door.until("the event", |door| door.events_after(0).contains(&event).then_some(()));
    door.opens_for(1, &barack);

    // The same once more, and the program dies again and again: at the third start too many the former models are back.
    door.push(&bad);
    assert!(matches!(door.made_ready(), UpdateStage::Ready { .. }));
    door.activated();
    door.stop();
    for start in 2..=u32::from(SHORT.max_starts) {
        let (door, boot) = Running::start(&config, &clock);
        assert!(matches!(boot, Boot::Trying(trying) if u32::from(trying.starts) == start), "{boot:?}");
        assert_eq!(door.update(UpdateRequest::Status).models.from, ModelsFrom::SlotA);
        door.stop();
    }
    let (door, boot) = Running::start(&config, &clock);
    assert_eq!(boot, Boot::RolledBack);
    assert_eq!(door.update(UpdateRequest::Status).last, Some(TrialOutcome::Crashed));
    door.opens_for(1, &barack);
    door.stop();
}

/// Long enough for both people to come, at [`FRAME_MS`] a frame.
const SHORT: Trial = Trial { seconds: 20, max_starts: 3, max_p95_us: u32::MAX, max_rejection_rise: 50 };
const FRAME_MS: u64 = 100;
/// Real time: only a broken door needs so much.
const PATIENCE: Duration = Duration::from_secs(120);

//! Workstation and door over the network: the door's whole program with pictures in the place of a camera, real TLS on this machine.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use facelatch_device::config::Config;
use facelatch_device::control::Client;
use facelatch_device::daemon::{self, Signals};
use facelatch_shared::event::{EnrolFailure, EventKind};
use facelatch_shared::frame::RgbView;
use facelatch_shared::link::pair::PairingCode;
use facelatch_shared::person::{Name, PersonState, SubjectId};
use facelatch_shared::protocol::{Enrolment, RefusedKind, Request, Response};
use facelatch_shared::quality::Gate;
use facelatch_shared::remote::{LinkEvent, LinkRequest, LinkResponse, LinkRole};
use facelatch_shared::vision::Eyes;
use facelatch_tests::{models, photos};
use facelatch_trainer::remote::discover::{Announced, discover};
use facelatch_trainer::remote::known::{KnownDoor, Workstation};
use facelatch_trainer::remote::{RemoteDoor, RemoteError, photo};

const SOON: Duration = Duration::from_secs(120);

/// A door at work in this process.
struct Door {
    folder: tempfile::TempDir,
    address: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Door {
    fn start(models: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("camera")).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let text = format!(
            "[door]\nname = \"Bench\"\nstate_dir = {:?}\n[models]\ndir = {:?}\n[camera]\ndevice = {:?}\n[link]\nlisten = {address:?}\n\
             [panel]\nkind = \"png\"\ndir = {:?}\nwidth_px = 240\nheight_px = 240\n",
            at("state"),
            models,
            at("camera"),
            at("panel"),
        );
        let config = Config::parse(&text).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let signals =
            Signals { stop: Arc::clone(&stop), reload: Arc::new(AtomicBool::new(false)), config: None };
        let thread = Some(std::thread::spawn(move || daemon::run(config, &signals).unwrap()));
        Self { folder, address, stop, thread }
    }

    fn console(&self) -> Client {
        soon("the door starts", || Client::connect(&self.folder.path().join("state")).ok())
    }

    fn open_pairing(&self, role: LinkRole) -> PairingCode {
        let asked = self.console().ask(&Request::Link(LinkRequest::OpenPairing { role })).unwrap();
        let Response::Link(LinkResponse::Pairing { code, .. }) = asked else { panic!("{asked:?}") };
        PairingCode::parse(&code).unwrap()
    }

    /// A workstation with files of its own, paired as `role`.
    fn pair(&self, station: &Station, role: LinkRole) -> KnownDoor {
        let code = self.open_pairing(role);
        let identity = station.files.identity().unwrap();
        let name = Name::new("desk").unwrap();
        // The listener opens a moment after the window.
        let paired = soon("the door listens", || {
            match RemoteDoor::pair(&identity, &self.address, &code, name.clone()) {
                Err(RemoteError::Unreachable { .. }) => None,
                other => Some(other),
            }
        })
        .unwrap();
        assert_eq!((paired.role, paired.door.as_str()), (role, "Bench"));
        let door = KnownDoor {
            name: paired.door.to_string(),
            address: self.address.clone(),
            key: paired.key,
            role: paired.role,
        };
        station.files.remember(&door).unwrap();
        door
    }

    /// Hangs the face in `photo` before the camera, half as high as the frame, as of a person who stands at the door.
    fn show(&self, photo: &Path, models: &Path) {
        let mut eyes = Eyes::load(models, "yunet", "sface", Gate::default(), (320, 240)).unwrap();
        let picture = image::open(photo).unwrap().into_rgb8();
        let view =
            RgbView::new(picture.as_raw(), picture.width() as usize, picture.height() as usize).unwrap();
        let face = eyes.find(&view).unwrap()[0].bbox;
        let (centre, side) = (face.centre(), face.h * 2.0);
        let corner = |at: f32| (at - side / 2.0).max(0.0) as u32;
        let (x, y) = (corner(centre.x), corner(centre.y));
        let cut = image::imageops::crop_imm(&picture, x, y, side as u32, side as u32).to_image();
        cut.save(self.folder.path().join("camera/shown.png")).unwrap();
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

struct Station {
    files: Workstation,
    _folder: tempfile::TempDir,
}

impl Station {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { files: Workstation::in_folder(folder.path()), _folder: folder }
    }

    fn connect(&self, door: &KnownDoor) -> Result<RemoteDoor, RemoteError> {
        RemoteDoor::connect(&self.files.identity().unwrap(), door)
    }
}

fn soon<T>(what: &str, mut try_it: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + SOON;
    loop {
        if let Some(value) = try_it() {
            return value;
        }
        assert!(Instant::now() < end, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn enrol(door: &mut RemoteDoor, name: &str, photos: &[PathBuf]) -> Enrolment {
    let name = Name::new(name).unwrap();
    let consent = Some("2026-1".try_into().unwrap());
    let begun = door.ask(&Request::Link(LinkRequest::BeginPhotos { name, consent })).unwrap();
    assert_eq!(begun, Response::Done);
    for (at, path) in photos.iter().enumerate() {
        let seen = door.send_photo(&photo::prepare(path).unwrap()).unwrap();
        assert_eq!(seen, (None, at as u8 + 1), "{path:?}");
    }
    match door.ask(&Request::Link(LinkRequest::EndPhotos)).unwrap() {
        Response::Enrolment(enrolment) => enrolment,
        other => panic!("{other:?}"),
    }
}

fn logged(door: &mut RemoteDoor) -> Vec<EventKind> {
    match door.ask(&Request::LastEvents { count: 100 }).unwrap() {
        Response::Events(events) => events.into_iter().map(|event| event.kind).collect(),
        other => panic!("{other:?}"),
    }
}

fn refused<T: std::fmt::Debug>(outcome: Result<T, RemoteError>) -> RefusedKind {
    match outcome {
        Err(RemoteError::Refused(refused)) => refused.kind,
        other => panic!("{other:?}"),
    }
}

#[test]
fn pair_enrol_from_photographs_and_the_door_opens_for_them() {
    let test = "pair_enrol_from_photographs_and_the_door_opens_for_them";
    let (Some(models), Some(photos)) = (models(test), photos(test)) else { return };
    let photo = |name: &str| photos.join("face_recognition").join(name);
    let door = Door::start(models);
    let desk = Station::new();
    // Nothing listens yet, although the door works.
    door.console();
    assert!(matches!(
        RemoteDoor::pair(
            &desk.files.identity().unwrap(),
            &door.address,
            &PairingCode::parse("00000-00000").unwrap(),
            Name::new("desk").unwrap()
        ),
        Err(RemoteError::Unreachable { .. })
    ));
    door.pair(&desk, LinkRole::Administrator);
    let panel: Vec<_> = std::fs::read_dir(door.folder.path().join("panel"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(panel.iter().any(|name| name.contains("pair")), "the code stood on the panel: {panel:?}");

    let known = desk.files.find(Some("Bench")).unwrap();
    let mut link = desk.connect(&known).unwrap();
    let Response::Status(status) = link.ask(&Request::Status).unwrap() else { panic!() };
    assert_eq!((status.door.as_str(), status.people), ("Bench", 0));

    // Two people in one enrolment; then one person; then the same person again.
    let [one, two] = ["obama.jpg", "obama3.jpg"].map(photo);
    let mixed = enrol(&mut link, "Mixed", &[one.clone(), photo("biden.jpg")]);
    assert_eq!(mixed, Enrolment::Failed(EnrolFailure::NotOnePerson));
    let id = SubjectId(1);
    assert_eq!(enrol(&mut link, "Barack", &[one.clone(), two]), Enrolment::Done { id });
    let again = enrol(&mut link, "Barack too", &[one]);
    assert_eq!(again, Enrolment::Failed(EnrolFailure::AlreadyEnrolled { subject: id }));

    // The door decides with what the workstation brought.
    door.show(&photo("obama2.jpg"), models);
    soon("the door opens", || {
        let opened = |kind: &EventKind| matches!(kind, EventKind::Granted { subject, .. } if *subject == id);
        logged(&mut link).iter().any(opened).then_some(())
    });

    let name = Name::new("Barack O.").unwrap();
    for request in [Request::Rename { id, name }, Request::SetState { id, state: PersonState::Suspended }] {
        assert_eq!(link.ask(&request).unwrap(), Response::Done);
    }
    let Response::People(people) = link.ask(&Request::ListPeople { from: SubjectId(0) }).unwrap() else {
        panic!()
    };
    let shown: Vec<_> = people.iter().map(|row| (row.name.as_str(), row.state, row.templates)).collect();
    assert_eq!(shown, [("Barack O.", PersonState::Suspended, 2)]);
    assert_eq!(link.ask(&Request::Erase { id }).unwrap(), Response::Done);

    // What was done over the link is in the log, with whose authority.
    let events = logged(&mut link);
    let peer = events.iter().find_map(|kind| match kind {
        EventKind::Link(LinkEvent::Paired { peer, role: LinkRole::Administrator }) => Some(*peer),
        _ => None,
    });
    let peer = peer.expect("the pairing is in the log");
    assert!(events.contains(&EventKind::Link(LinkEvent::Ordered { peer })));
    assert!(events.iter().any(|kind| matches!(kind, EventKind::Consented { subject, .. } if *subject == id)));
    let Response::Checked { broken_at, .. } = link.ask(&Request::CheckEvents).unwrap() else { panic!() };
    assert!(broken_at.is_empty());
}

#[test]
fn a_door_is_found_on_the_network_while_it_listens() {
    let test = "a_door_is_found_on_the_network_while_it_listens";
    let Some(models) = models(test) else { return };
    if !multicast_works() {
        return facelatch_tests::skipped(test, "this machine passes no multicast to itself");
    }
    let door = Door::start(models);
    let mine = |list: Vec<Announced>| list.into_iter().find(|found| found.address == door.address);
    door.console();
    assert_eq!(
        mine(discover(Duration::from_secs(2)).unwrap()),
        None,
        "nothing listens, nothing is announced"
    );
    let desk = Station::new();
    let known = door.pair(&desk, LinkRole::Reader);
    // The code stood on the panel, although there is no camera.
    let shown = std::fs::read_dir(door.folder.path().join("panel")).unwrap();
    let shown: Vec<String> = shown.map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    assert!(shown.iter().any(|name| name.ends_with("-pair.png")), "{shown:?}");
    let found = soon("the door is announced", || mine(discover(Duration::from_secs(2)).unwrap()));
    assert_eq!((found.name.as_str(), found.id.as_str()), ("Bench", &known.key.to_string()[..8]));
}

/// Whether what is sent to multicast DNS's address comes back over the loopback interface.
fn multicast_works() -> bool {
    let here = std::net::Ipv4Addr::LOCALHOST;
    let group = std::net::Ipv4Addr::new(224, 0, 0, 251);
    let try_it = || -> std::io::Result<bool> {
        let socket = std::net::UdpSocket::bind((group, 0))?;
        socket.join_multicast_v4(&group, &here)?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        let port = socket.local_addr()?.port();
        std::net::UdpSocket::bind((here, 0))?.send_to(b"x", (group, port))?;
        Ok(socket.recv(&mut [0; 4])? == 1)
    };
    try_it().unwrap_or(false)
}

#[test]
fn whoever_is_not_let_in_changes_nothing_and_is_logged() {
    let test = "whoever_is_not_let_in_changes_nothing_and_is_logged";
    let Some(models) = models(test) else { return };
    let door = Door::start(models);
    let (reader, stranger) = (Station::new(), Station::new());
    let known = door.pair(&reader, LinkRole::Reader);
    let mut link = reader.connect(&known).unwrap();

    // Not paired.
    assert!(stranger.connect(&known).err().unwrap().is_refusal());
    // Another door's key in the place of the pinned one: the workstation refuses.
    let other = KnownDoor { key: stranger.files.identity().unwrap().public(), ..known.clone() };
    assert!(reader.connect(&other).err().unwrap().is_refusal());
    // A role that is too low.
    assert_eq!(refused(link.ask(&Request::ListPeople { from: SubjectId(0) })), RefusedKind::Role);
    // A wrong code.
    door.open_pairing(LinkRole::Administrator);
    let wrong = PairingCode::parse("00000-00000").unwrap();
    let identity = stranger.files.identity().unwrap();
    let guess = RemoteDoor::pair(&identity, &door.address, &wrong, Name::new("eve").unwrap());
    assert_eq!(refused(guess), RefusedKind::Pairing);

    let Response::Link(LinkResponse::Peers(peers)) =
        door.console().ask(&Request::Link(LinkRequest::ListPeers)).unwrap()
    else {
        panic!()
    };
    assert_eq!(peers.iter().map(|row| row.role).collect::<Vec<_>>(), [LinkRole::Reader]);
    let id = peers[0].id;
    soon("what was refused is in the log", || {
        let events = logged(&mut link);
        let all = [
            EventKind::Link(LinkEvent::RoleTooLow { peer: id, role: LinkRole::Reader }),
            EventKind::Link(LinkEvent::PairingRefused),
        ];
        let connections =
            |kind: &EventKind| matches!(kind, EventKind::Link(LinkEvent::ConnectionsRefused { .. }));
        (all.iter().all(|event| events.contains(event)) && events.iter().any(connections)).then_some(())
    });
    // Taken off the list: the open connection is worth nothing at its next request.
    let removed = door.console().ask(&Request::Link(LinkRequest::RemovePeer { id })).unwrap();
    assert_eq!(removed, Response::Done);
    assert_eq!(refused(link.ask(&Request::Status)), RefusedKind::Pairing);
}

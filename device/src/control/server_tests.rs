use super::super::Client;
use super::super::answer::tests::Files;
use super::*;
use facelatch_shared::person::SubjectId;
use facelatch_shared::protocol::{MAX_FRAME, Status};
use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, sync_channel};

const QUICK: Limits = Limits {
    question: Duration::from_millis(300),
    session: Duration::from_millis(300),
    answer: Duration::from_millis(300),
};

/// A door whose session answers from files in memory until the socket is gone.
struct Door {
    server: Option<Server>,
    session: Option<JoinHandle<()>>,
    folder: tempfile::TempDir,
}

impl Door {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (sender, messages) = sync_channel::<ControlMessage>(4);
        let server = Server::start(folder.path(), sender, QUICK).unwrap();
        let session = std::thread::spawn(move || {
            let mut files = Files::with_people(300);
            for message in messages {
                let response = files.ask(message.request.clone());
                message.answer(response);
            }
        });
        Self { server: Some(server), session: Some(session), folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn raw(&self) -> UnixStream {
        let stream = UnixStream::connect(socket_path(self.path())).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        drop(self.server.take());
        self.session.take().unwrap().join().unwrap();
    }
}

fn unanswered(folder: &Path) -> (Server, Receiver<ControlMessage>) {
    let (sender, messages) = sync_channel(1);
    (Server::start(folder, sender, QUICK).unwrap(), messages)
}

#[test]
fn questions_reach_the_session_and_answers_come_back() {
    let door = Door::open();
    let client = Client::connect(door.path()).unwrap();
    let Response::People(rows) = client.ask(&Request::ListPeople { from: SubjectId(0) }).unwrap() else {
        panic!()
    };
    assert_eq!(rows.len(), 256);
    assert_eq!(client.ask(&Request::Erase { id: SubjectId(1) }).unwrap(), Response::Done);
    let Response::Events(events) = client.ask(&Request::LastEvents { count: 1 }).unwrap() else { panic!() };
    assert_eq!(events.len(), 1);
}

#[test]
fn only_the_owner_may_connect() {
    let door = Door::open();
    let mode = std::fs::metadata(socket_path(door.path())).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn garbage_is_told_and_the_next_client_is_served() {
    let door = Door::open();
    let mut stream = door.raw();
    stream.write_all(b"GET / HTTP/1.1\r\n\0").unwrap();
    let Response::Refused(refused) = receive(&mut stream, Duration::from_secs(10)).unwrap() else { panic!() };
    assert_eq!(refused.kind, RefusedKind::Malformed);
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0, "and then hung up on");

    let mut stream = door.raw();
    // More than any message, and no end: it is cut off, not collected.
    let sent = stream.write_all(&vec![1; 4 * MAX_FRAME]);
    let answer = receive::<Response>(&mut stream, Duration::from_secs(10));
    assert!(
        sent.is_err() || matches!(&answer, Ok(Response::Refused(r)) if r.kind == RefusedKind::Malformed),
        "{answer:?}"
    );
    Client::connect(door.path()).unwrap();
}

#[test]
fn a_client_that_stalls_or_drips_is_dropped() {
    let door = Door::open();
    let mut silent = door.raw();
    let mut dripping = door.raw();
    let drip = std::thread::spawn(move || {
        // The server has hung up long before the hundredth byte.
        (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(30));
            dripping.write_all(&[1]).is_err()
        })
    });
    assert_eq!(silent.read(&mut [0; 8]).unwrap(), 0);
    Client::connect(door.path()).unwrap();
    assert!(drip.join().unwrap());
}

#[test]
fn a_session_that_says_nothing_makes_the_door_busy() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, messages) = unanswered(folder.path());
    let client = Client::connect(folder.path()).unwrap();
    let kind = || match client.ask(&Request::Status).unwrap() {
        Response::Refused(refused) => (refused.kind, refused.message.contains("may still do")),
        other => panic!("{other:?}"),
    };
    assert_eq!(kind(), (RefusedKind::Busy, true), "waited for");
    assert_eq!(kind(), (RefusedKind::Busy, false), "the queue is full");
    // The late answer finds nobody, and blocks nobody.
    messages.recv().unwrap().answer(Response::Done);
    drop(messages);
    assert_eq!(kind(), (RefusedKind::Busy, false), "no session");
}

#[test]
fn another_message_type_is_what_the_session_makes_of_it() {
    enum Input {
        Control(ControlMessage),
    }
    impl From<ControlMessage> for Input {
        fn from(message: ControlMessage) -> Self {
            Self::Control(message)
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let (sender, inputs) = sync_channel::<Input>(1);
    let _server = Server::start(folder.path(), sender, Limits::default()).unwrap();
    let session = std::thread::spawn(move || {
        let Input::Control(message) = inputs.recv().unwrap();
        assert_eq!(message.request, Request::Status);
        message.answer(Response::Status(Status {
            version: heapless::String::new(),
            uptime_s: 1,
            door: facelatch_shared::person::Name::new("Door").unwrap(),
            people: 0,
            frames: 0,
            dropped: 0,
            camera_ok: true,
            released: false,
        }));
    });
    let client = Client::connect(folder.path()).unwrap();
    assert!(matches!(client.ask(&Request::Status).unwrap(), Response::Status(_)));
    session.join().unwrap();
}

#[test]
fn a_second_server_is_refused_a_stale_socket_replaced_a_file_left_alone() {
    let door = Door::open();
    let second = Server::start(door.path(), sync_channel::<ControlMessage>(1).0, QUICK);
    assert!(matches!(second, Err(ControlError::AlreadyServed { .. })), "{second:?}");
    Client::connect(door.path()).unwrap();

    let folder = tempfile::tempdir().unwrap();
    drop(UnixListener::bind(socket_path(folder.path())).unwrap());
    assert!(socket_path(folder.path()).exists(), "as a killed door leaves it");
    assert!(matches!(Client::connect(folder.path()), Err(ControlError::NotRunning { .. })));
    let (server, _messages) = unanswered(folder.path());
    Client::connect(folder.path()).unwrap();
    drop(server);
    assert!(!socket_path(folder.path()).exists());

    std::fs::write(socket_path(folder.path()), "notes").unwrap();
    let refused = Server::start(folder.path(), sync_channel::<ControlMessage>(1).0, QUICK);
    assert!(matches!(refused, Err(ControlError::NotASocket { .. })), "{refused:?}");
    assert_eq!(std::fs::read(socket_path(folder.path())).unwrap(), b"notes");
}

#[test]
fn stopping_waits_for_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let slow = Limits {
        question: Duration::from_secs(60),
        session: Duration::from_secs(60),
        answer: Duration::from_secs(60),
    };
    let server = Server::start(folder.path(), sync_channel::<ControlMessage>(1).0, slow).unwrap();
    let _silent = UnixStream::connect(socket_path(folder.path())).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let started = Instant::now();
    drop(server);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(matches!(Client::connect(folder.path()), Err(ControlError::NotRunning { .. })));
}

#[test]
fn another_version_is_told_to_restart() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(socket_path(folder.path())).unwrap();
    let old = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _: Request = receive(&mut stream, Duration::from_secs(10)).unwrap();
        send(&mut stream, &Response::Hello { version: VERSION + 1 }, Duration::from_secs(10)).unwrap();
    });
    let error = Client::connect(folder.path()).unwrap_err();
    assert!(matches!(error, ControlError::Version { theirs: 2 }), "{error}");
    old.join().unwrap();
}

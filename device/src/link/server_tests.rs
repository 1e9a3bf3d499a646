//! The link's attack table: each row is refused for its own reason, and those who are paired are served all along.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::Receiver;

use facelatch_shared::bundle::SecretKey;
use facelatch_shared::gallery::CountingEntropy;
use facelatch_shared::link::pair::PairingCode;
use facelatch_shared::person::SubjectId;
use facelatch_shared::protocol::MAX_FRAME;
use facelatch_shared::remote::LinkRole;

use super::*;
use crate::clock::SystemClock;

const SOON: Duration = Duration::from_secs(20);

/// A link whose session answers everything with `Done` and counts what it is asked.
struct Bench {
    peers: Arc<PeerStore>,
    clock: Arc<dyn Clock>,
    door: Identity,
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    _folder: tempfile::TempDir,
    server: Option<LinkServer>,
}

impl Bench {
    fn new(limits: LinkLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (identity, peers) = crate::link::open(folder.path()).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let (session, questions): (_, Receiver<ToSession>) = sync_channel(4);
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            while let Ok(message) = questions.recv() {
                if let ToSession::Ask(question) = message {
                    count.fetch_add(1, Ordering::SeqCst);
                    question.answer(Response::Done);
                }
            }
        });
        // Free a moment ago; nobody else on this machine asks for it by name.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let parts = LinkParts {
            address,
            identity: identity.clone(),
            peers: Arc::clone(&peers),
            clock: Arc::clone(&clock),
            name: Name::new("Door").unwrap(),
            session,
            looks: sync_channel(1).0,
            announce: false,
            limits,
        };
        let server = Some(LinkServer::start(parts).unwrap());
        Self { peers, clock, door: identity, address, asked, _folder: folder, server }
    }

    /// With workstation number 1 paired.
    fn paired(role: LinkRole, limits: LinkLimits) -> Self {
        let bench = Self::new(limits);
        let name = Name::new("Desk").unwrap();
        bench.peers.add(Peer { key: station(1).public(), role, name }).unwrap();
        bench
    }

    fn open_pairing(&self) -> PairingCode {
        self.peers.open_window(self.clock.now(), LinkRole::Engineer, &mut CountingEntropy(7)).unwrap()
    }

    /// A connection; the listener may need a moment.
    fn socket(&self) -> TcpStream {
        let end = Instant::now() + SOON;
        loop {
            match TcpStream::connect(self.address) {
                Ok(socket) => return socket,
                Err(error) if Instant::now() > end => panic!("nobody listens: {error}"),
                Err(_) => std::thread::sleep(POLL),
            }
        }
    }

    fn connect(&self, number: u8) -> Result<Channel, ChannelError> {
        let pinned = self.door.public();
        let connection = link::client(&station(number), Arc::new(move |key| key == pinned)).unwrap();
        Channel::open(connection, self.socket(), SOON)
    }

    fn ask(&self, number: u8, request: &Request) -> Result<Response, ChannelError> {
        self.connect(number)?.ask(request, SOON)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn station(number: u8) -> Identity {
    Identity::new(SecretKey::from_bytes([number; 32]))
}

fn kind(response: &Response) -> Option<RefusedKind> {
    match response {
        Response::Refused(refused) => Some(refused.kind),
        _ => None,
    }
}

fn proof(channel: &Channel, code: &PairingCode, number: u8) -> Request {
    let exported = channel.exported().unwrap();
    let proof = code.client_proof(&exported, station(number).public(), channel.peer());
    Request::Link(LinkRequest::Pair(PairRequest { proof, name: Name::new("Desk").unwrap() }))
}

#[test]
fn nothing_listens_before_pairing_and_nothing_when_nobody_is_paired_any_more() {
    let bench = Bench::new(LinkLimits::default());
    std::thread::sleep(POLL * 15);
    assert!(TcpStream::connect(bench.address).is_err());
    let code = bench.open_pairing();
    let mut channel = bench.connect(1).unwrap();
    let answer: Response = channel.ask(&proof(&channel, &code, 1), SOON).unwrap();
    let Response::Link(LinkResponse::Paired { proof, role, .. }) = answer else { panic!("{answer:?}") };
    let exported = channel.exported().unwrap();
    assert_eq!(proof, code.door_proof(&exported, station(1).public(), bench.door.public()));
    assert_eq!(role, LinkRole::Engineer);
    // Paired over this very connection.
    assert_eq!(channel.ask::<_, Response>(&Request::Status, SOON).unwrap(), Response::Done);
    assert!(bench.peers.remove(id_of(station(1).public())).unwrap());
    let answer: Response = channel.ask(&Request::Status, SOON).unwrap();
    assert_eq!(kind(&answer), Some(RefusedKind::Pairing), "also over a connection that is open");
    let end = Instant::now() + SOON;
    while TcpStream::connect(bench.address).is_ok() {
        assert!(Instant::now() < end, "it still listens");
        std::thread::sleep(POLL);
    }
}

#[test]
fn an_unpaired_workstation_and_one_with_another_key_get_no_connection() {
    let bench = Bench::paired(LinkRole::Administrator, LinkLimits::default());
    for number in [2, 3] {
        let refused = bench.ask(number, &Request::Status);
        assert!(matches!(refused, Err(ChannelError::Refused(_) | ChannelError::Ended)), "{refused:?}");
    }
    assert_eq!(bench.asked(), 0);
    assert_eq!(bench.ask(1, &Request::Status).unwrap(), Response::Done);
}

#[test]
fn while_the_door_is_open_for_pairing_an_unpaired_one_may_pair_and_nothing_else() {
    let bench = Bench::paired(LinkRole::Administrator, LinkLimits::default());
    bench.open_pairing();
    let mut channel = bench.connect(2).unwrap();
    for request in
        [Request::Status, Request::Erase { id: SubjectId(1) }, Request::Link(LinkRequest::EndPhotos)]
    {
        let answer: Response = channel.ask(&request, SOON).unwrap();
        assert_eq!(kind(&answer), Some(RefusedKind::Pairing));
    }
    assert_eq!(bench.asked(), 0);
}

#[test]
fn codes_are_not_guessed() {
    let bench = Bench::new(LinkLimits::default());
    let code = bench.open_pairing();
    let wrong = PairingCode::parse("00000-00000").unwrap();
    let mut channel = bench.connect(2).unwrap();
    let mut guess = |code: &PairingCode| {
        let request = proof(&channel, code, 2);
        kind(&channel.ask(&request, SOON).unwrap())
    };
    // Five tries, however quickly: after those the right code is worth nothing.
    for _ in 0..5 {
        assert_eq!(guess(&wrong), Some(RefusedKind::Pairing));
    }
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(guess(&code), Some(RefusedKind::Pairing));
    assert!(bench.peers.list().is_empty());
}

#[test]
fn a_proof_heard_on_one_connection_is_worth_nothing_on_another() {
    let bench = Bench::new(LinkLimits::default());
    let code = bench.open_pairing();
    let first = bench.connect(2).unwrap();
    let heard = proof(&first, &code, 2);
    let answer = bench.ask(2, &heard).unwrap();
    assert_eq!(kind(&answer), Some(RefusedKind::Pairing));
}

#[test]
fn a_role_that_is_too_low_is_told_so_and_nothing_is_done() {
    let bench = Bench::paired(LinkRole::Reader, LinkLimits::default());
    let mut channel = bench.connect(1).unwrap();
    let mut ask = |request| -> Response { channel.ask(&request, SOON).unwrap() };
    assert_eq!(ask(Request::Status), Response::Done);
    let name = Name::new("Eve").unwrap();
    for request in [
        Request::ListPeople { from: SubjectId(0) },
        Request::Erase { id: SubjectId(1) },
        Request::Link(LinkRequest::OpenPairing { role: LinkRole::Administrator }),
        Request::Link(LinkRequest::BeginPhotos { name, consent: None }),
    ] {
        assert_eq!(kind(&ask(request)), Some(RefusedKind::Role));
    }
    assert_eq!(bench.asked(), 1);
    // Not even an administrator opens the door for pairing from afar.
    let bench = Bench::paired(LinkRole::Administrator, LinkLimits::default());
    let request = Request::Link(LinkRequest::OpenPairing { role: LinkRole::Administrator });
    assert_eq!(kind(&bench.ask(1, &request).unwrap()), Some(RefusedKind::Role));
}

#[test]
fn an_oversized_request_and_one_that_is_none_end_the_connection() {
    let bench = Bench::paired(LinkRole::Administrator, LinkLimits::default());
    for bytes in [vec![1; MAX_FRAME + 100_000], vec![3, 0xFF, 0xFF, 0]] {
        let mut channel = bench.connect(1).unwrap();
        // The door may hang up before it has read everything.
        let _ = channel.send_raw(&bytes, SOON);
        match channel.receive::<Response>(SOON) {
            Ok(answer) => assert_eq!(kind(&answer), Some(RefusedKind::Malformed)),
            Err(ChannelError::Ended) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(channel.ask::<_, Response>(&Request::Status, SOON).is_err());
    }
    assert_eq!(bench.asked(), 0);
    assert_eq!(bench.ask(1, &Request::Status).unwrap(), Response::Done);
}

#[test]
fn a_request_that_trickles_in_for_ever_is_cut_off() {
    let request = Duration::from_millis(400);
    let bench = Bench::paired(LinkRole::Administrator, LinkLimits { request, ..LinkLimits::default() });
    let mut channel = bench.connect(1).unwrap();
    let end = Instant::now() + SOON;
    // A byte now and then keeps no connection alive.
    while channel.send_raw(&[1], SOON).is_ok() {
        assert!(Instant::now() < end, "the door still listens to it");
        std::thread::sleep(POLL);
    }
    assert_eq!(bench.ask(1, &Request::Status).unwrap(), Response::Done);
}

#[test]
fn half_a_handshake_is_cut_off_and_older_tls_is_not_spoken() {
    let handshake = Duration::from_millis(300);
    let bench = Bench::paired(LinkRole::Administrator, LinkLimits { handshake, ..LinkLimits::default() });
    let mut socket = bench.socket();
    socket.write_all(&[22, 3, 1]).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(socket.read(&mut [0; 16]).unwrap_or(0), 0, "hung up");
    // A ClientHello of TLS 1.2: its only cipher suite is of that version.
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xC0, 0x2F, 1, 0]);
    let message = [&[1, 0, 0, hello.len() as u8][..], &hello].concat();
    let record = [&[22, 3, 1, 0, message.len() as u8][..], &message].concat();
    let mut socket = bench.socket();
    socket.write_all(&record).unwrap();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    assert_eq!((answer.first(), answer.get(5)), (Some(&21), Some(&2)), "a fatal alert: {answer:?}");
    assert_eq!(bench.ask(1, &Request::Status).unwrap(), Response::Done);
}

#[test]
fn a_flood_of_requests_and_one_of_connections_are_bounded() {
    let bench = Bench::paired(LinkRole::Administrator, LinkLimits::default());
    let mut channel = bench.connect(1).unwrap();
    let flood = Instant::now();
    let answers: Vec<_> = (0..2_000)
        .map_while(|_| channel.ask::<_, Response>(&Request::Hello { version: VERSION }, SOON).ok())
        .collect();
    // A machine that is slower than the budget is not cut off, rightly.
    let slow = flood.elapsed().as_secs_f64() * f64::from(REQUESTS_A_SECOND) > 1_500.0;
    assert!(slow || answers.last().and_then(kind) == Some(RefusedKind::TooFast), "{}", answers.len());
    // Idle sockets take the places that there are; the door hangs up on the others and, in time, on those.
    let sockets: Vec<TcpStream> = (0..MAX_CONNECTIONS + 3).map(|_| bench.socket()).collect();
    std::thread::sleep(POLL * 10);
    assert!(bench.server.as_ref().unwrap().shared.connections().len() <= MAX_CONNECTIONS);
    drop(sockets);
    let end = Instant::now() + SOON;
    while bench.ask(1, &Request::Status).is_err() {
        assert!(Instant::now() < end, "nobody is served any more");
        std::thread::sleep(POLL);
    }
}

#[test]
fn stopping_waits_for_nobody() {
    let mut bench = Bench::paired(LinkRole::Administrator, LinkLimits::default());
    let mut channel = bench.connect(1).unwrap();
    let start = Instant::now();
    drop(bench.server.take());
    assert!(channel.ask::<_, Response>(&Request::Status, SOON).is_err());
    assert!(start.elapsed() < LinkLimits::default().request);
}

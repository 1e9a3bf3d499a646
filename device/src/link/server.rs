//! The listening end: a thread a connection, at most [`MAX_CONNECTIONS`], every wait bounded.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use facelatch_shared::bundle::PublicKey;
use facelatch_shared::event::EventKind;
use facelatch_shared::link::{self, Channel, ChannelError, Identity};
use facelatch_shared::person::Name;
use facelatch_shared::protocol::update::UpdateRequest;
use facelatch_shared::protocol::{RefusedKind, Request, Response, VERSION};
use facelatch_shared::remote::{LinkEvent, LinkRequest, LinkResponse, PairRequest, PeerId};

use super::announce::Announcement;
use super::peers::{Peer, PeerStore, id_of};
use super::photos::Photos;
use super::rate::Budget;
use crate::clock::Clock;
use crate::control::{ControlMessage, ToSession};
use crate::runner::Look;

/// What a link is made of.
#[derive(Clone)]
pub struct LinkParts {
    /// Where it listens, once it does.
    pub address: SocketAddr,
    /// Who the door is.
    pub identity: Identity,
    /// Who is paired.
    pub peers: Arc<PeerStore>,
    /// Time, for the pairing window.
    pub clock: Arc<dyn Clock>,
    /// The door's name.
    pub name: Name,
    /// The way to the session's thread.
    pub session: SyncSender<ToSession>,
    /// The way to the vision thread.
    pub looks: SyncSender<Look>,
    /// Whether the local network is told that it listens.
    pub announce: bool,
    /// How long things may take.
    pub limits: LinkLimits,
}

/// How long each step of a connection may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkLimits {
    /// From the connection to the end of the handshake.
    pub handshake: Duration,
    /// From one answer to the whole of the next request.
    pub request: Duration,
    /// From a request to the session's answer.
    pub session: Duration,
    /// To take the answer.
    pub answer: Duration,
    /// A whole connection that is not paired.
    pub unpaired: Duration,
    /// A whole connection.
    pub connection: Duration,
}

impl Default for LinkLimits {
    fn default() -> Self {
        let [request, unpaired] = [Duration::from_secs(60); 2];
        let [session, answer] = [Duration::from_secs(20); 2];
        let connection = Duration::from_secs(30 * 60);
        Self { handshake: Duration::from_secs(5), request, session, answer, unpaired, connection }
    }
}

/// The link's threads; dropping this ends them.
#[derive(Debug)]
pub struct LinkServer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Who is being served, so that stopping need not wait for anybody.
    connections: Mutex<BTreeMap<u64, TcpStream>>,
}

impl LinkServer {
    /// Listens from the moment that someone is paired or the door is opened for pairing; the address is taken only then.
    ///
    /// # Errors
    /// The system's error when no thread can be made.
    pub fn start(parts: LinkParts) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("link".into()).spawn(move || listen(&Arc::new(parts), &own))?;
        Ok(Self { shared, thread: Some(thread) })
    }
}

impl Drop for LinkServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for socket in self.shared.connections().values() {
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, BTreeMap<u64, TcpStream>> {
        // Whole entries are put in and taken out: valid in any state.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn pause(&self, total: Duration) {
        let end = Instant::now() + total;
        while Instant::now() < end && !self.stopping() {
            std::thread::sleep(POLL);
        }
    }
}

impl LinkParts {
    fn wanted(&self) -> bool {
        self.peers.wants_listener(self.clock.now())
    }

    fn log(&self, event: LinkEvent) {
        let visit = ToSession::Visit(Box::new(move |door| door.record(EventKind::Link(event))));
        if self.session.try_send(visit).is_err() {
            tracing::warn!(
                ?event,
                "an event of the link was not logged: the session is too busy or stopping"
            );
        }
    }
}

fn listen(parts: &Arc<LinkParts>, shared: &Arc<Shared>) {
    let address = parts.address;
    while !shared.stopping() {
        if parts.wanted() {
            match TcpListener::bind(address).and_then(|l| l.set_nonblocking(true).map(|()| l)) {
                Ok(listener) => {
                    tracing::info!(%address, "the link listens");
                    let _announced = parts
                        .announce
                        .then(|| Announcement::start(address, &parts.name, parts.identity.public()));
                    serve(&listener, parts, shared);
                    tracing::info!("the link listens no more");
                }
                Err(error) => {
                    tracing::error!(%address, %error, "the link cannot listen");
                    shared.pause(RETRY);
                }
            }
        }
        shared.pause(POLL * 5);
    }
}

/// Accepts until nobody may connect any more.
fn serve(listener: &TcpListener, parts: &Arc<LinkParts>, shared: &Arc<Shared>) {
    let mut budget = Budget::new(CONNECTIONS_AT_ONCE, CONNECTIONS_A_SECOND, Instant::now());
    let refusals = Arc::new(Refusals::default());
    let mut number = 0;
    while !shared.stopping() && parts.wanted() {
        refusals.tell(parts);
        let socket = match listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(POLL);
                continue;
            }
            Err(error) => {
                tracing::warn!(%error, "the link cannot accept");
                shared.pause(POLL * 10);
                continue;
            }
        };
        if !budget.take(Instant::now()) || shared.connections().len() >= MAX_CONNECTIONS {
            continue;
        }
        let Ok(copy) = socket.set_nonblocking(false).and_then(|()| socket.try_clone()) else { continue };
        number += 1;
        shared.connections().insert(number, copy);
        let leaving = Leaving { shared: Arc::clone(shared), number };
        let (parts, refusals) = (Arc::clone(parts), Arc::clone(&refusals));
        let spawned = std::thread::Builder::new().name("link-client".into()).spawn(move || {
            let conversation = Conversation { parts: &parts, shared: &leaving.shared };
            if let Err(error) = conversation.run(socket, &refusals) {
                tracing::info!(%error, "a link client was dropped");
            }
            drop(leaving);
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "the link cannot serve a client");
        }
    }
}

/// Takes a connection off the list, also when its thread panics.
struct Leaving {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.shared.connections().remove(&self.number);
    }
}

/// Refused connections, told to the log now and then: a flood of them must not drive other events out of it.
#[derive(Debug, Default)]
struct Refusals {
    inner: Mutex<(u32, Option<Instant>)>,
}

impl Refusals {
    fn add(&self) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.0 = inner.0.saturating_add(1);
    }

    fn tell(&self, parts: &LinkParts) {
        let count = {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            if inner.0 == 0 || inner.1.is_some_and(|at| at.elapsed() < REFUSALS_EVERY) {
                return;
            }
            inner.1 = Some(Instant::now());
            std::mem::take(&mut inner.0)
        };
        parts.log(LinkEvent::ConnectionsRefused { count });
    }
}

/// One connection.
struct Conversation<'a> {
    parts: &'a LinkParts,
    shared: &'a Shared,
}

impl Conversation<'_> {
    fn run(&self, socket: TcpStream, refusals: &Refusals) -> Result<(), ChannelError> {
        let (parts, limits) = (self.parts, self.parts.limits);
        let (peers, clock) = (Arc::clone(&parts.peers), Arc::clone(&parts.clock));
        let admits = move |key: PublicKey| peers.admits(key, clock.now());
        let connection = link::server(&parts.identity, Arc::new(admits))
            .map_err(|error| ChannelError::Refused(error.to_string()))?;
        let opened = Channel::open(connection, socket, limits.handshake);
        if matches!(opened, Err(ChannelError::Refused(_) | ChannelError::NoKey)) {
            refusals.add();
        }
        let mut channel = opened?;
        let began = Instant::now();
        let mut budget = Budget::new(REQUESTS_AT_ONCE, REQUESTS_A_SECOND, began);
        let mut photos = None;
        loop {
            let peer = parts.peers.get(channel.peer());
            let whole = if peer.is_some() { limits.connection } else { limits.unpaired };
            let left = whole.saturating_sub(began.elapsed());
            if self.shared.stopping() || left.is_zero() {
                break;
            }
            let request = match channel.receive::<Request>(limits.request.min(left)) {
                Ok(request) => request,
                Err(ChannelError::Ended | ChannelError::TimedOut) => break,
                Err(ChannelError::Frame(error)) => {
                    self.misbehaved(&channel);
                    let refused = Response::refused(RefusedKind::Malformed, &error.to_string());
                    channel.send(&refused, limits.answer)?;
                    break;
                }
                Err(error) => return Err(error),
            };
            if !budget.take(Instant::now()) {
                self.misbehaved(&channel);
                let what = "too many requests a second: connect again and ask more slowly";
                channel.send(&Response::refused(RefusedKind::TooFast, what), limits.answer)?;
                break;
            }
            let response = self.answer(&channel, &mut photos, request);
            channel.send(&response, limits.answer)?;
        }
        channel.close();
        Ok(())
    }

    fn misbehaved(&self, channel: &Channel) {
        self.parts.log(LinkEvent::Misbehaved { peer: id_of(channel.peer()) });
    }

    /// The list of those who are paired is asked anew for every request, so that whoever is taken off it asks nothing more.
    fn answer(&self, channel: &Channel, photos: &mut Option<Photos>, request: Request) -> Response {
        let parts = self.parts;
        let paired = parts.peers.get(channel.peer());
        match (paired, request) {
            (_, Request::Hello { .. }) => Response::Hello { version: VERSION },
            // Also a paired one: a new code may give it another role.
            (_, Request::Link(LinkRequest::Pair(request))) => self.pair(channel, request),
            (None, _) => Response::refused(
                RefusedKind::Pairing,
                "this workstation is not paired with the door: `facelatch pair`",
            ),
            (Some(peer), request) if !peer.role.may(&request) => {
                parts.log(LinkEvent::RoleTooLow { peer: peer.id(), role: peer.role });
                let what = format!(
                    "this workstation is paired as {}, which does not allow that: pair it again with a higher role",
                    peer.role.word()
                );
                Response::refused(RefusedKind::Role, &what)
            }
            (Some(peer), request) => self.obey(peer.id(), photos, request),
        }
    }

    fn obey(&self, peer: PeerId, photos: &mut Option<Photos>, request: Request) -> Response {
        match request {
            Request::Link(LinkRequest::BeginPhotos { name, consent }) => {
                *photos = Some(Photos::begin(name, consent));
                Response::Done
            }
            Request::Link(LinkRequest::Photo { total, offset, bytes }) => match photos {
                Some(photos) => photos.piece(total, offset, &bytes, &self.parts.looks),
                None => Response::refused(RefusedKind::Invalid, "say first whose photographs these are"),
            },
            Request::Link(LinkRequest::EndPhotos) => match photos.take().map(|photos| photos.end(peer)) {
                Some(Some(views)) => {
                    self.parts.log(LinkEvent::Ordered { peer });
                    self.visit(|reply| {
                        ToSession::Visit(Box::new(move |door| {
                            let _ = reply.try_send(door.enrol_views(views));
                        }))
                    })
                }
                Some(None) => Response::refused(RefusedKind::Invalid, "no photograph showed one good face"),
                None => Response::refused(RefusedKind::Invalid, "say first whose photographs these are"),
            },
            request => {
                if is_order(&request) {
                    self.parts.log(LinkEvent::Ordered { peer });
                }
                self.visit(|reply| ControlMessage { request, reply }.into())
            }
        }
    }

    /// Sends a message to the session and waits for what comes back.
    fn visit(&self, message: impl FnOnce(SyncSender<Response>) -> ToSession) -> Response {
        let busy = |what| Response::refused(RefusedKind::Busy, what);
        let stopping = || busy("the door is stopping; ask again when it runs");
        let (reply, answers) = sync_channel(1);
        match self.parts.session.try_send(message(reply)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return busy("the door has too much to do; ask again in a moment"),
            Err(TrySendError::Disconnected(_)) => return stopping(),
        }
        let deadline = Instant::now() + self.parts.limits.session;
        loop {
            match answers.recv_timeout(POLL * 2) {
                Ok(response) => return response,
                Err(RecvTimeoutError::Timeout) if self.shared.stopping() => return stopping(),
                Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => {
                    return busy(
                        "the door did not answer in time and may still do what was asked: look before you ask again",
                    );
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return stopping(),
            }
        }
    }

    fn pair(&self, channel: &Channel, request: PairRequest) -> Response {
        let parts = self.parts;
        let Ok(exported) = channel.exported() else {
            let what = "the connection cannot prove itself: connect again";
            return Response::refused(RefusedKind::Pairing, what);
        };
        let (client, door) = (channel.peer(), parts.identity.public());
        let proof_of = |code: &link::pair::PairingCode| code.client_proof(&exported, client, door);
        let Some((code, role)) = parts.peers.try_pair(parts.clock.now(), &request.proof, proof_of) else {
            parts.log(LinkEvent::PairingRefused);
            return Response::refused(
                RefusedKind::Pairing,
                "the code is wrong, came within a second after another, or the door is no longer open for pairing: look at the panel, or `facelatchd link pair` there",
            );
        };
        let peer = Peer { key: client, role, name: request.name };
        let id = peer.id();
        if let Err(error) = parts.peers.add(peer) {
            let what = format!("the pairing could not be stored: {error}");
            return Response::refused(RefusedKind::Storage, &what);
        }
        parts.log(LinkEvent::Paired { peer: id, role });
        let proof = code.door_proof(&exported, client, door);
        Response::Link(LinkResponse::Paired { proof, door: parts.name.clone(), role })
    }
}

/// Whether `request` changes something, so that the log says who asked.
const fn is_order(request: &Request) -> bool {
    !matches!(
        request,
        Request::Status
            | Request::Rules
            | Request::ListPeople { .. }
            | Request::ListRights { .. }
            | Request::ListEvents { .. }
            | Request::LastEvents { .. }
            | Request::VerifyEvents
            | Request::CheckEvents
            | Request::ErasureReceipt { .. }
            | Request::EnrolProgress
            | Request::Link(LinkRequest::ListPeers)
            // A bundle is a thousand pieces; that it came is told when it is whole.
            | Request::Update(
                UpdateRequest::Status | UpdateRequest::Models | UpdateRequest::LeftBehind { .. } | UpdateRequest::Chunk { .. }
            )
    )
}

/// Connections at a time.
pub const MAX_CONNECTIONS: usize = 4;
const CONNECTIONS_AT_ONCE: u32 = 20;
const CONNECTIONS_A_SECOND: u32 = 5;
const REQUESTS_AT_ONCE: u32 = 400;
/// 400 pieces of 32 KiB a second are 13 MB/s, more than a board writes.
const REQUESTS_A_SECOND: u32 = 400;
const REFUSALS_EVERY: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;

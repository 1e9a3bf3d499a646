//! The answering end of the control socket: one thread, one client at a time, every wait bounded.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use facelatch_shared::protocol::{RefusedKind, Request, Response, VERSION};

use super::wire::{WireError, receive, send};
use super::{ControlError, ControlMessage, socket_path};

/// How long each step of a connection may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the connection to the whole question.
    pub question: Duration,
    /// From the question to the session's answer.
    pub session: Duration,
    /// To take the answer.
    pub answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let [question, answer] = [Duration::from_secs(2); 2];
        Self { question, session: Duration::from_secs(5), answer }
    }
}

/// The socket and its thread; both end when this is dropped.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// The client that is being served, so that stopping need not wait for it.
    client: Mutex<Option<UnixStream>>,
}

impl Server {
    /// Serves `control.sock` in `state_dir` to its owner. Every question but [`Request::Hello`] goes to `session`, as a
    /// [`ControlMessage`] or whatever the session makes of one. A socket that a killed door left behind is replaced.
    ///
    /// # Errors
    /// [`ControlError::AlreadyServed`] when somebody answers there, [`ControlError::NotASocket`], or the system's error.
    pub fn start<M>(state_dir: &Path, session: SyncSender<M>, limits: Limits) -> Result<Self, ControlError>
    where
        M: From<ControlMessage> + Send + 'static,
    {
        let path = socket_path(state_dir);
        refuse_if_served(&path)?;
        let failed = |source| ControlError::Io { path: path.display().to_string(), source };
        let listener = bind_private(&path).map_err(failed)?;
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("control".into())
            .spawn(move || serve(&listener, &own, &session, limits))
            .map_err(failed)?;
        Ok(Self { path, shared, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(client) = self.shared.client().take() {
            let _ = client.shutdown(std::net::Shutdown::Both);
        }
        // Wakes the thread if it waits for a client.
        drop(UnixStream::connect(&self.path));
        let _ = std::fs::remove_file(&self.path);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn client(&self) -> std::sync::MutexGuard<'_, Option<UnixStream>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

fn refuse_if_served(path: &Path) -> Result<(), ControlError> {
    let shown = || path.display().to_string();
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ControlError::NotASocket { path: shown() });
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(ControlError::Io { path: shown(), source }),
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(ControlError::AlreadyServed { path: shown() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(ControlError::Denied { path: shown() })
        }
        Err(source) => Err(ControlError::Io { path: shown(), source }),
    }
}

/// Made beside and renamed: nobody finds the socket before it is private, and a stale one is replaced in one step.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let beside = path.with_extension("new");
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&beside)?;
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&beside, path)?;
    Ok(listener)
}

fn serve<M: From<ControlMessage>>(
    listener: &UnixListener,
    shared: &Shared,
    session: &SyncSender<M>,
    limits: Limits,
) {
    while !shared.stopping() {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: that passes, or somebody looks into the log.
                tracing::warn!(%error, "the control socket cannot accept");
                std::thread::sleep(Duration::from_millis(200));
                continue;
            }
        };
        *shared.client() = stream.try_clone().ok();
        if !shared.stopping()
            && let Err(error) = one_question(&mut stream, shared, session, limits)
        {
            tracing::info!(%error, "a control client was dropped");
        }
        shared.client().take();
    }
}

fn one_question<M: From<ControlMessage>>(
    stream: &mut UnixStream,
    shared: &Shared,
    session: &SyncSender<M>,
    limits: Limits,
) -> Result<(), WireError> {
    let response = match receive(stream, limits.question) {
        Ok(Request::Hello { .. }) => Response::Hello { version: VERSION },
        Ok(request) => ask_session(request, shared, session, limits.session),
        Err(WireError::Frame(error)) => Response::refused(RefusedKind::Malformed, &error.to_string()),
        Err(error) => return Err(error),
    };
    send(stream, &response, limits.answer)
}

fn ask_session<M: From<ControlMessage>>(
    request: Request,
    shared: &Shared,
    session: &SyncSender<M>,
    within: Duration,
) -> Response {
    let deadline = Instant::now() + within;
    let (reply, answers) = sync_channel(1);
    match session.try_send(ControlMessage { request, reply }.into()) {
        Ok(()) => {}
        Err(TrySendError::Full(_)) => {
            return Response::refused(
                RefusedKind::Busy,
                "the door has too much to do; ask again in a moment",
            );
        }
        Err(TrySendError::Disconnected(_)) => return stopping(),
    }
    loop {
        match answers.recv_timeout(Duration::from_millis(50)) {
            Ok(response) => return response,
            Err(RecvTimeoutError::Timeout) if shared.stopping() => return stopping(),
            Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => {
                return Response::refused(
                    RefusedKind::Busy,
                    "the door did not answer in time and may still do what was asked: look before you ask again",
                );
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return stopping(),
        }
    }
}

fn stopping() -> Response {
    Response::refused(RefusedKind::Busy, "the door is stopping; ask again when it runs")
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;

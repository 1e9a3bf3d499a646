//! Signs of life, for whoever restarts the door when they stop: the service manager (`sd_notify`) and the board's watchdog timer.
//!
//! The session beats while it gets what it should; a program that hangs stops beating and is restarted, or the board is reset. The watchdog's
//! device resets the board even when this program is killed, because it is disarmed only on an orderly end.
//! Sources: systemd's sd_notify(3); Linux, `Documentation/watchdog/watchdog-api.rst`.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use facelatch_shared::time::Millis;
use thiserror::Error;

/// Where beats go.
#[derive(Debug)]
pub struct Heartbeat {
    manager: Option<Manager>,
    watchdog: Option<File>,
    every_ms: u64,
    last: Option<Millis>,
}

impl Heartbeat {
    /// Speaks to the service manager that started this program, if one did, and arms `watchdog` to reset the board after `timeout_s` without a beat.
    ///
    /// # Errors
    /// [`HeartbeatError`] when the watchdog's device cannot be opened.
    pub fn start(watchdog: Option<&Path>, timeout_s: u32) -> Result<Self, HeartbeatError> {
        let manager = Manager::from_environment();
        let file = watchdog.map(|path| arm(path, timeout_s)).transpose()?;
        // A third of the shortest patience, and at least every second.
        let of_manager = manager.as_ref().and_then(|manager| manager.patience_ms);
        let of_device = file.as_ref().map(|_| u64::from(timeout_s) * 1000);
        let every_ms = of_manager.into_iter().chain(of_device).min().map_or(1_000, |ms| (ms / 3).min(1_000));
        Ok(Self { manager, watchdog: file, every_ms, last: None })
    }

    /// Says once that the door is at work.
    pub fn ready(&self) {
        self.tell("READY=1\nSTATUS=at work");
    }

    /// A sign of life at `now`; sends one only as often as anyone waits for it.
    pub fn beat(&mut self, now: Millis) {
        if self.last.is_some_and(|last| now.since(last) < self.every_ms) {
            return;
        }
        self.last = Some(now);
        self.tell("WATCHDOG=1");
        if let Some(device) = &mut self.watchdog
            && let Err(error) = device.write_all(b"\0")
        {
            tracing::error!(%error, "the watchdog does not take a sign of life");
        }
    }

    /// An orderly end: the watchdog is disarmed.
    pub fn stop(mut self) {
        self.tell("STOPPING=1");
        if let Some(device) = &mut self.watchdog
            && let Err(error) = device.write_all(b"V")
        {
            tracing::error!(%error, "the watchdog cannot be disarmed: the board will be reset");
        }
    }

    fn tell(&self, text: &str) {
        if let Some(manager) = &self.manager
            && let Err(error) = manager.socket.send_to_addr(text.as_bytes(), &manager.address)
        {
            tracing::warn!(%error, "the service manager cannot be told");
        }
    }
}

#[derive(Debug)]
struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
    patience_ms: Option<u64>,
}

impl Manager {
    fn from_environment() -> Option<Self> {
        let name = std::env::var("NOTIFY_SOCKET").ok().filter(|name| !name.is_empty())?;
        let usec = std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse::<u64>().ok());
        Self::at(&name, usec.map(|usec| usec / 1000))
            .inspect_err(|error| tracing::warn!(%error, "NOTIFY_SOCKET={name} is of no use"))
            .ok()
    }

    fn at(name: &str, patience_ms: Option<u64>) -> std::io::Result<Self> {
        let address = match name.strip_prefix('@') {
            Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        Ok(Self { socket: UnixDatagram::unbound()?, address, patience_ms })
    }
}

fn arm(path: &Path, timeout_s: u32) -> Result<File, HeartbeatError> {
    let failed = |source| HeartbeatError { path: path.to_owned(), source };
    let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
    let mut seconds = libc::c_int::try_from(timeout_s).unwrap_or(libc::c_int::MAX);
    // SAFETY: the descriptor is open for as long as the call lasts, and the request reads and writes one int, which `seconds` is.
    if unsafe { libc::ioctl(file.as_raw_fd(), WDIOC_SETTIMEOUT, &raw mut seconds) } != 0 {
        let error = std::io::Error::last_os_error();
        tracing::warn!(%error, "the watchdog keeps its own time-out instead of {timeout_s} s");
    } else if u32::try_from(seconds) != Ok(timeout_s) {
        tracing::info!(seconds, "the watchdog's nearest time-out");
    }
    Ok(file)
}

/// The watchdog cannot be used.
#[derive(Debug, Error)]
#[error(
    "watchdog {}: {source}; load its driver (`ls /dev/watchdog*`), stop what else feeds it, or leave [service] watchdog out", path.display()
)]
pub struct HeartbeatError {
    path: PathBuf,
    source: std::io::Error,
}

/// `_IOWR('W', 6, int)`: the same number on x86-64, aarch64 and armv7.
const WDIOC_SETTIMEOUT: libc::Ioctl = 0xC004_5706_u32 as libc::Ioctl;

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 100];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    #[test]
    fn the_manager_hears_ready_beats_and_the_end_and_not_more_often_than_it_asks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let manager = Manager::at(path.to_str().unwrap(), Some(3_000)).unwrap();
        let mut heartbeat = Heartbeat { manager: Some(manager), watchdog: None, every_ms: 1_000, last: None };
        heartbeat.ready();
        assert!(received(&socket).starts_with("READY=1\n"));
        heartbeat.beat(Millis(0));
        heartbeat.beat(Millis(999));
        heartbeat.beat(Millis(1_000));
        assert_eq!([received(&socket), received(&socket)], ["WATCHDOG=1", "WATCHDOG=1"]);
        assert!(socket.recv(&mut [0; 8]).is_err(), "two beats");
        heartbeat.stop();
        assert_eq!(received(&socket), "STOPPING=1");
    }

    #[test]
    fn an_abstract_socket_is_spoken_to() {
        let name = format!("facelatch-test-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let manager = Manager::at(&format!("@{name}"), None).unwrap();
        Heartbeat { manager: Some(manager), watchdog: None, every_ms: 1_000, last: None }.ready();
        assert!(received(&socket).starts_with("READY=1"));
    }

    #[test]
    fn the_watchdog_is_fed_and_disarmed_only_on_an_orderly_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("watchdog");
        std::fs::write(&path, "").unwrap();
        // A file takes no time-out; that is said in the log and the rest goes on.
        let mut heartbeat = Heartbeat::start(Some(&path), 15).unwrap();
        heartbeat.beat(Millis(0));
        drop(heartbeat);
        assert_eq!(std::fs::read(&path).unwrap(), b"\0", "dropped out of order: still armed");
        let mut heartbeat = Heartbeat::start(Some(&path), 15).unwrap();
        heartbeat.beat(Millis(0));
        heartbeat.stop();
        assert_eq!(std::fs::read(&path).unwrap(), b"\0V");
        let error = Heartbeat::start(Some(Path::new("/nonexistent/watchdog")), 15).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/watchdog") && error.contains("[service] watchdog"), "{error}");
    }
}

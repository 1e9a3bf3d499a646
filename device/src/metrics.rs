//! How the door is, as text that Prometheus and its like collect (text format 0.0.4). Off unless `[service] metrics` names a place; only this
//! machine can ask. No names, faces or scores: counts, times and states.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use facelatch_shared::event::EventKind;
use facelatch_shared::observation::StageTimings;
use thiserror::Error;

/// What is counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames that were looked at.
    pub frames: u64,
    /// Frames replaced by newer ones while vision was busy.
    pub dropped: u64,
    /// Frames that could not be read.
    pub bad_frames: u64,
    /// People let in.
    pub granted: u64,
    /// People not let in.
    pub refused: u64,
    /// Exit button presses.
    pub exits: u64,
    /// Forced and held doors.
    pub alarms: u64,
    /// Times the camera was lost.
    pub camera_lost: u64,
    /// Events that could not be stored.
    pub events_lost: u64,
    /// Microseconds and frames of each stage, in the order of [`STAGES`].
    pub stages: [(u64, u64); 6],
}

/// The names of the stages that are timed.
pub const STAGES: [&str; 6] = ["decode", "detect", "quality", "align", "embed", "match"];

impl Counters {
    /// One frame's times; a stage that took no part stays out.
    pub fn add_times(&mut self, times: &StageTimings) {
        let of = [
            times.decode_us,
            times.detect_us,
            times.quality_us,
            times.align_us,
            times.embed_us,
            times.match_us,
        ];
        for ((sum, count), us) in self.stages.iter_mut().zip(of) {
            *sum += u64::from(us);
            *count += u64::from(us > 0);
        }
    }

    /// One event of the log.
    pub const fn add_event(&mut self, kind: &EventKind) {
        match kind {
            EventKind::Granted { .. } => self.granted += 1,
            EventKind::Refused { .. } => self.refused += 1,
            EventKind::ExitRequested => self.exits += 1,
            EventKind::DoorForced | EventKind::DoorHeld | EventKind::Tampered => self.alarms += 1,
            EventKind::CameraLost => self.camera_lost += 1,
            _ => {}
        }
    }
}

/// What holds at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Seconds since the start.
    pub uptime_s: u64,
    /// People enrolled.
    pub people: u64,
    /// Whether the camera gives frames.
    pub camera_ok: bool,
    /// Whether the lock is released.
    pub released: bool,
    /// Memory of this process that lies in RAM.
    pub resident_bytes: u64,
}

/// Both as text.
#[must_use]
pub fn render(counters: &Counters, gauges: &Gauges) -> String {
    let mut text = String::new();
    let mut put = |name: &str, kind: &str, help: &str, value: u64| {
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "# HELP facelatch_{name} {help}\n# TYPE facelatch_{name} {kind}\nfacelatch_{name} {value}\n"
        );
    };
    put("uptime_seconds", "gauge", "Seconds since the start.", gauges.uptime_s);
    put("people", "gauge", "People enrolled.", gauges.people);
    put("camera_ok", "gauge", "Whether the camera gives frames.", gauges.camera_ok.into());
    put("lock_released", "gauge", "Whether the lock is released.", gauges.released.into());
    put("resident_bytes", "gauge", "Memory of the process in RAM.", gauges.resident_bytes);
    put("frames_total", "counter", "Frames looked at.", counters.frames);
    put("frames_dropped_total", "counter", "Frames replaced by newer ones while busy.", counters.dropped);
    put("frames_bad_total", "counter", "Frames that could not be read.", counters.bad_frames);
    put("granted_total", "counter", "People let in.", counters.granted);
    put("refused_total", "counter", "People not let in.", counters.refused);
    put("exits_total", "counter", "Exit button presses.", counters.exits);
    put("alarms_total", "counter", "Forced and held doors.", counters.alarms);
    put("camera_lost_total", "counter", "Times the camera was lost.", counters.camera_lost);
    put("events_lost_total", "counter", "Events that could not be stored.", counters.events_lost);
    text.push_str(
        "# HELP facelatch_stage_seconds Time spent by stage.\n# TYPE facelatch_stage_seconds summary\n",
    );
    for (stage, (sum_us, count)) in STAGES.iter().zip(counters.stages) {
        let seconds = sum_us as f64 / 1e6;
        let _ = write!(
            text,
            "facelatch_stage_seconds_sum{{stage=\"{stage}\"}} {seconds}\nfacelatch_stage_seconds_count{{stage=\"{stage}\"}} {count}\n"
        );
    }
    text
}

/// Memory of this process that lies in RAM, in bytes; 0 where the system does not say.
#[must_use]
pub fn resident_bytes() -> u64 {
    // The second figure of statm counts pages; 4 KiB on every kernel that a door runs on.
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

/// Where metrics are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A port of this machine alone.
    Port(SocketAddr),
    /// A socket in the file system, for its user and group.
    Socket(PathBuf),
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            return Ok(Self::Socket(PathBuf::from(text)));
        }
        let wrong = || {
            format!(
                "service.metrics is \"{text}\": 127.0.0.1:PORT, [::1]:PORT or the path of a socket, such as /run/facelatch/metrics.sock"
            )
        };
        let address: SocketAddr = text.parse().map_err(|_| wrong())?;
        if address.ip().is_loopback() { Ok(Self::Port(address)) } else { Err(wrong()) }
    }
}

/// Answers every question with the newest text, on a thread of its own that ends with the program.
#[derive(Clone, Debug)]
pub struct Server {
    text: Arc<Mutex<String>>,
    address: Option<SocketAddr>,
}

impl Server {
    /// Opens `place`.
    ///
    /// # Errors
    /// [`MetricsError`] when it cannot be opened.
    pub fn start(place: &Place) -> Result<Self, MetricsError> {
        let failed = |at: String| move |source| MetricsError { at, source };
        let text = Arc::new(Mutex::new(String::new()));
        let newest = Arc::clone(&text);
        let (address, serve): (_, Box<dyn FnOnce() + Send>) = match place {
            Place::Port(address) => {
                let listener = TcpListener::bind(address).map_err(failed(address.to_string()))?;
                let bound = listener.local_addr().ok();
                (
                    bound,
                    Box::new(move || {
                        listener.incoming().flatten().for_each(|link| {
                            let _ = link
                                .set_read_timeout(Some(PATIENCE))
                                .and_then(|()| link.set_write_timeout(Some(PATIENCE)));
                            answer(link, &newest);
                        })
                    }),
                )
            }
            Place::Socket(path) => {
                let listener = open_socket(path).map_err(failed(path.display().to_string()))?;
                (
                    None,
                    Box::new(move || {
                        listener.incoming().flatten().for_each(|link| {
                            let _ = link
                                .set_read_timeout(Some(PATIENCE))
                                .and_then(|()| link.set_write_timeout(Some(PATIENCE)));
                            answer(link, &newest);
                        })
                    }),
                )
            }
        };
        std::thread::Builder::new().name("metrics".into()).spawn(serve).map_err(failed("a thread".into()))?;
        Ok(Self { text, address })
    }

    /// Replaces the text.
    pub fn publish(&self, text: String) {
        *self.text.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    /// The port it was given.
    #[must_use]
    pub const fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

fn open_socket(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Whatever is asked, the answer is the text. At most one read of a question; who asks slowly gets it unread.
fn answer(mut link: impl Read + Write, text: &Mutex<String>) {
    let _ = link.read(&mut [0; 2048]);
    let text = text.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let head = format!(
        "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\r\n",
        text.len()
    );
    let _ = link.write_all(head.as_bytes()).and_then(|()| link.write_all(text.as_bytes()));
}

/// Metrics cannot be served.
#[derive(Debug, Error)]
#[error("metrics at {at}: {source}; choose another place in [service] metrics")]
pub struct MetricsError {
    at: String,
    source: io::Error,
}

const PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_text_is_the_formats() {
        let mut counters = Counters { frames: 7, ..Counters::default() };
        counters.add_times(&StageTimings { detect_us: 1_500_000, ..StageTimings::default() });
        counters.add_event(&EventKind::DoorForced);
        let text = render(&counters, &Gauges { camera_ok: true, ..Gauges::default() });
        for line in [
            "# TYPE facelatch_frames_total counter\nfacelatch_frames_total 7\n",
            "facelatch_camera_ok 1\n",
            "facelatch_alarms_total 1\n",
            "facelatch_stage_seconds_sum{stage=\"detect\"} 1.5\nfacelatch_stage_seconds_count{stage=\"detect\"} 1\n",
            "facelatch_stage_seconds_count{stage=\"embed\"} 0\n",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(resident_bytes() > 1 << 20);
    }

    #[test]
    fn a_port_and_a_socket_answer_with_the_newest_text() {
        let ask = |mut link: Box<dyn ReadWrite>| {
            link.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
            let mut said = String::new();
            link.read_to_string(&mut said).unwrap();
            said
        };
        let server = Server::start(&Place::Port("127.0.0.1:0".parse().unwrap())).unwrap();
        server.publish("a 1\n".into());
        server.publish("a 2\n".into());
        let said = ask(Box::new(TcpStream::connect(server.address().unwrap()).unwrap()));
        assert!(said.starts_with("HTTP/1.0 200 OK\r\n") && said.ends_with("\r\n\r\na 2\n"), "{said}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.sock");
        for _ in 0..2 {
            // A second start replaces the first one's socket.
            let server = Server::start(&Place::Socket(path.clone())).unwrap();
            server.publish("b 1\n".into());
            assert!(ask(Box::new(UnixStream::connect(&path).unwrap())).ends_with("b 1\n"));
        }
    }

    trait ReadWrite: Read + Write {}
    impl<T: Read + Write> ReadWrite for T {}

    #[test]
    fn other_machines_cannot_be_let_in() {
        assert_eq!("/run/x.sock".parse(), Ok(Place::Socket("/run/x.sock".into())));
        assert!("127.0.0.1:9465".parse::<Place>().is_ok() && "[::1]:9465".parse::<Place>().is_ok());
        for text in ["0.0.0.0:9465", "192.0.2.1:80", "9465", "localhost:9465"] {
            assert!(text.parse::<Place>().unwrap_err().contains("service.metrics"), "{text}");
        }
    }
}

//! Stage before the stages: pictures of a list of addresses, fetched as their hosts wish.
//!
//! One request at a time. Each host is left alone for a pause after each, for longer where its robots.txt or its answer asks; what robots.txt
//! forbids is not asked for, redirects included. Others' addresses go first while a host is being left alone. A folder a person holds
//! the pictures, numbered by their lines; [`journal::FILE`] says what became of each address, with its licence and hash, and is what a run goes on
//! from. Nothing is fetched but what the list names.

pub mod journal;
pub mod robots;
pub mod web;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::table::{Rows, TableError, place};
use crate::progress::Progress;
use journal::Journal;
use robots::Robots;
use web::{Address, Clock, Web};

/// What robots.txt calls us.
pub const TOKEN: &str = "facelatch";

/// How hosts are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Milliseconds between two requests to a host, at least.
    pub pause_ms: u64,
    /// Times a request is tried again after no answer or an answer that says later.
    pub retries: u32,
    /// Bytes of a picture at most.
    pub largest: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { pause_ms: 1000, retries: 4, largest: 20 << 20 }
    }
}

/// What became of the addresses: a word and how many.
pub type Outcomes = BTreeMap<String, u64>;

/// An address of the list, and how far it has come.
#[derive(Clone, Debug)]
struct Job {
    line: u64,
    url: String,
    identity: String,
    licence: String,
    /// Where redirects have led, or why the address is none.
    at: Result<Address, String>,
    hops: u32,
    tries: u32,
}

#[derive(Debug, Default)]
struct Host {
    /// It is left alone until then.
    free_ms: u64,
    robots: Option<(Robots, u64)>,
    tries: u32,
}

/// Addresses that wait at once.
const WAITING: usize = 1000;
/// Redirects followed from one address.
const HOPS: u32 = 5;
/// What a host is left alone for after its first failure; twice that after each further one.
const FIRST_BACK_OFF_MS: u64 = 2000;
/// A host is not waited for longer than this, whatever it asks.
const LONGEST_WAIT_MS: u64 = 3_600_000;
/// Rules are asked for anew after a day (RFC 9309, 2.4).
const RULES_LAST_MS: u64 = 86_400_000;

/// Fetches the pictures of `list`, a CSV with columns `url` and `identity` and perhaps `licence`, into a folder for each identity in `out`.
/// Goes on where it stopped; what is done is not asked for again, failed addresses neither. Holds a thousand addresses that wait, some 16 bytes for each
/// that is done, and the rules of each host.
///
/// # Errors
/// [`FetchError`]. An address that gives nothing is none.
pub fn run(
    list: &Path,
    out: &Path,
    options: &Options,
    (web, clock): (&mut dyn Web, &dyn Clock),
    progress: &dyn Progress,
) -> Result<Outcomes, FetchError> {
    let mut source = List::open(list)?;
    fs::create_dir_all(out).map_err(|source| FetchError::Write { path: out.to_owned(), source })?;
    let mut fetch = Fetch {
        journal: Journal::open(out)?,
        out,
        options,
        web,
        clock,
        hosts: HashMap::new(),
        outcomes: Outcomes::new(),
    };
    let mut waiting: VecDeque<Job> = VecDeque::new();
    progress.start("addresses", 0);
    loop {
        while waiting.len() < WAITING
            && let Some(job) = source.next()?
        {
            if fetch.journal.has(&job) {
                fetch.count("done before");
            } else {
                waiting.push_back(job);
            }
        }
        let free =
            |job: &Job| job.at.as_ref().map_or(0, |at| fetch.hosts.get(&at.origin).map_or(0, |h| h.free_ms));
        let Some((first, free_ms)) =
            waiting.iter().map(free).enumerate().min_by_key(|&(at, ms)| (ms.max(fetch.clock.now_ms()), at))
        else {
            break;
        };
        let now = fetch.clock.now_ms();
        if free_ms > now {
            fetch.clock.sleep_ms(free_ms - now);
        }
        let Some(job) = waiting.remove(first) else { break };
        match fetch.ask(job)? {
            Some(again) => waiting.insert(first.min(waiting.len()), again),
            None => progress.step(),
        }
    }
    progress.finish();
    Ok(fetch.outcomes)
}

struct Fetch<'a> {
    journal: Journal,
    out: &'a Path,
    options: &'a Options,
    web: &'a mut dyn Web,
    clock: &'a dyn Clock,
    hosts: HashMap<String, Host>,
    outcomes: Outcomes,
}

impl Fetch<'_> {
    /// One request for `job`: it is done then, or comes again.
    fn ask(&mut self, mut job: Job) -> Result<Option<Job>, FetchError> {
        if self.journal.has(&job) {
            self.count("listed twice");
            return Ok(None);
        }
        let at = match &job.at {
            Ok(at) => at.clone(),
            Err(reason) => {
                let reason = reason.clone();
                return self.done(&job, &reason);
            }
        };
        let now = self.clock.now_ms();
        let host = self.hosts.entry(at.origin.clone()).or_default();
        let robots = match &host.robots {
            Some((robots, read_ms)) if now < read_ms + RULES_LAST_MS => robots,
            _ => {
                self.rules(&at.origin);
                return Ok(Some(job));
            }
        };
        if !robots.allows(&at.path) {
            return self.done(&job, "forbidden by robots.txt");
        }
        let answer = self.web.get(&at.url(), self.options.largest);
        let (pause, asked) = self.pause_after(&at.origin, &answer);
        let failed = match answer {
            Ok(answer) if answer.status == 200 => return self.keep(&job, &answer.body),
            Ok(web::Answer { status: 301 | 302 | 303 | 307 | 308, location: Some(location), .. }) => {
                job.hops += 1;
                if job.hops > HOPS {
                    return self.done(&job, "redirected too often");
                }
                job.at = at.join(&location).map_err(|_| "redirected to no address".to_owned());
                return Ok(Some(job));
            }
            Ok(answer) if !later(answer.status) => {
                return self.done(&job, &format!("status {}", answer.status));
            }
            Ok(answer) => format!("status {}", answer.status),
            Err(reason) => reason,
        };
        job.tries += 1;
        if job.tries > self.options.retries {
            return self.done(&job, &failed);
        }
        let wait = asked.unwrap_or(FIRST_BACK_OFF_MS << (job.tries - 1).min(16)).max(pause);
        self.leave_alone(&at.origin, wait);
        Ok(Some(job))
    }

    /// Leaves the host alone as it wishes after each answer; says for how long, and how long it asks beyond that.
    fn pause_after(&mut self, origin: &str, answer: &Result<web::Answer, String>) -> (u64, Option<u64>) {
        let delay = self.hosts.get(origin).and_then(|h| h.robots.as_ref()).and_then(|(r, _)| r.delay_ms);
        let pause = self.options.pause_ms.max(delay.unwrap_or(0));
        self.leave_alone(origin, pause);
        let asked = answer.as_ref().ok().and_then(|answer| answer.retry_after_s);
        (pause, asked.map(|seconds| seconds.saturating_mul(1000)))
    }

    fn leave_alone(&mut self, origin: &str, ms: u64) {
        let until = self.clock.now_ms() + ms.min(LONGEST_WAIT_MS);
        let host = self.hosts.entry(origin.to_owned()).or_default();
        host.free_ms = host.free_ms.max(until);
    }

    /// Asks a host for its rules. No file: nothing is forbidden. No answer, or one that says later: again, in the end everything is.
    fn rules(&mut self, origin: &str) {
        let mut url = format!("{origin}/robots.txt");
        let mut answer = self.web.get(&url, robots::LARGEST);
        for _ in 0..HOPS {
            let Ok(web::Answer { status: 301 | 302 | 303 | 307 | 308, location: Some(to), .. }) = &answer
            else {
                break;
            };
            let Ok(next) = Address::parse(&url).and_then(|at| at.join(to)) else { break };
            self.clock.sleep_ms(self.options.pause_ms);
            url = next.url();
            answer = self.web.get(&url, robots::LARGEST);
        }
        let (pause, asked) = self.pause_after(origin, &answer);
        let rules = match &answer {
            Ok(answer) if answer.status == 200 => {
                let text = String::from_utf8_lossy(&answer.body);
                Some(Robots::parse(&text, TOKEN))
            }
            Ok(answer) if !later(answer.status) => Some(Robots::default()),
            _ => None,
        };
        let now = self.clock.now_ms();
        let host = self.hosts.entry(origin.to_owned()).or_default();
        match rules {
            Some(rules) => {
                let pause = self.options.pause_ms.max(rules.delay_ms.unwrap_or(0));
                (host.robots, host.tries) = (Some((rules, now)), 0);
                self.leave_alone(origin, pause);
            }
            None if host.tries >= self.options.retries => host.robots = Some((Robots::closed(), now)),
            None => {
                host.tries += 1;
                let wait = asked.unwrap_or(FIRST_BACK_OFF_MS << (host.tries - 1).min(16)).max(pause);
                self.leave_alone(origin, wait);
            }
        }
    }

    /// Stores a picture: first the file, then its line.
    fn keep(&mut self, job: &Job, body: &[u8]) -> Result<Option<Job>, FetchError> {
        if body.len() > self.options.largest {
            return self.done(job, "too large");
        }
        let Some(extension) = kind(body) else { return self.done(job, "no picture") };
        let hash = hex::encode(Sha256::digest(body));
        let folder = folder_of(&job.identity);
        let name = format!("{folder}/{:07}-{}.{extension}", job.line, &hash[..8]);
        let (path, partial) = (self.out.join(&name), self.out.join(".partial"));
        let fail = |path: &Path| {
            let path = path.to_owned();
            move |source| FetchError::Write { path, source }
        };
        fs::create_dir_all(self.out.join(&folder)).map_err(fail(&self.out.join(&folder)))?;
        fs::write(&partial, body).map_err(fail(&partial))?;
        fs::rename(&partial, &path).map_err(fail(&path))?;
        self.journal.write(job, journal::KEPT, Some((&name, body.len(), &hash)))?;
        self.count(journal::KEPT);
        Ok(None)
    }

    fn done(&mut self, job: &Job, outcome: &str) -> Result<Option<Job>, FetchError> {
        self.journal.write(job, outcome, None)?;
        self.count(outcome);
        Ok(None)
    }

    fn count(&mut self, outcome: &str) {
        *self.outcomes.entry(outcome.to_owned()).or_default() += 1;
    }
}

/// Answers after which asking again makes sense.
const fn later(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}

/// The extension of a picture that can be decoded; `None` for anything else.
fn kind(body: &[u8]) -> Option<&'static str> {
    let reader = image::ImageReader::new(std::io::Cursor::new(body)).with_guessed_format().ok()?;
    let extension = match reader.format()? {
        image::ImageFormat::Jpeg => "jpg",
        image::ImageFormat::Png => "png",
        image::ImageFormat::WebP => "webp",
        _ => return None,
    };
    let (width, height) = reader.into_dimensions().ok()?;
    (width > 0 && height > 0).then_some(extension)
}

/// A name as that of a folder.
fn folder_of(identity: &str) -> String {
    let plain: String = identity
        .trim()
        .chars()
        .map(|c| if c == '/' || c == '\\' || c.is_control() { '_' } else { c })
        .collect();
    if plain.starts_with('.') { format!("_{plain}") } else { plain }
}

/// The list, a row at a time.
struct List {
    path: PathBuf,
    rows: Rows<std::io::BufReader<fs::File>>,
    url: usize,
    identity: usize,
    licence: Option<usize>,
}

impl List {
    fn open(path: &Path) -> Result<Self, FetchError> {
        let bad = |(line, reason): TableError| FetchError::List { path: path.to_owned(), line, reason };
        let rows = Rows::open(path).map_err(bad)?;
        let at = |name: &str| rows.header.iter().position(|column| column.eq_ignore_ascii_case(name));
        let need = |name: &str| {
            let reason = format!(
                "the header has no column '{name}' but {}; it needs url and identity, and may have licence",
                rows.header.join(", ")
            );
            at(name).ok_or_else(|| bad((1, reason)))
        };
        let (url, identity, licence) =
            (need("url")?, need("identity")?, at("licence").or_else(|| at("license")));
        Ok(Self { path: path.to_owned(), url, identity, licence, rows })
    }

    fn next(&mut self) -> Result<Option<Job>, FetchError> {
        let bad = |(line, reason): TableError| FetchError::List { path: self.path.clone(), line, reason };
        let Some(row) = self.rows.next() else { return Ok(None) };
        let (line, row) = row.map_err(bad)?;
        let field = |at: usize| row[at].trim().to_owned();
        let (url, identity) = (field(self.url), field(self.identity));
        if identity.is_empty() {
            return Err(bad((line, "it names nobody".into())));
        }
        let at = Address::parse(&url);
        let licence = self.licence.map(field).unwrap_or_default();
        Ok(Some(Job { line, url, identity, licence, at, hops: 0, tries: 0 }))
    }
}

/// Why fetching ended.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The list, or that of what is done.
    #[error("{}: {reason}", place(path, *line))]
    List {
        /// Which.
        path: PathBuf,
        /// Line, counted from one; 0 for the file as a whole.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// Another one works in the folder.
    #[error("another `facelatch curate fetch` works in {}", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests;

//! The reviewers' page: one HTTP server on this machine, the page inside the program.

use std::io::Read as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use image::codecs::jpeg::JpegEncoder;
use image::imageops;
use serde::Deserialize;
use serde_json::{Value, json};
use tiny_http::{Header, Method, Request, Response, Server};

use super::review::{Desk, Marks, now_ms};
use super::sources::Reader;
use super::store::{Key, Store};
use super::{CANVAS_PX, canvas, decode};

const PAGE: &str = include_str!("review.html");

/// What the page works on.
pub struct Site {
    inner: Mutex<(Store, Desk)>,
    reader: Reader,
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Site").finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    reviewer: String,
    person: u32,
    block: u32,
    wrong: Vec<u32>,
    refused: bool,
    seconds: f32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Who {
    reviewer: String,
}

/// An answer: status, kind and bytes.
type Answer = (u16, &'static str, Vec<u8>);

impl Site {
    /// A site for `desk`.
    #[must_use]
    pub fn new(store: Store, desk: Desk, reader: Reader) -> Self {
        Self { inner: Mutex::new((store, desk)), reader }
    }

    /// The store again.
    #[must_use]
    pub fn into_store(self) -> Store {
        self.inner.into_inner().unwrap_or_else(PoisonError::into_inner).0
    }

    /// Answers requests until the process ends or `server` is unblocked.
    pub fn serve(&self, server: &Server, threads: usize) {
        std::thread::scope(|scope| {
            for _ in 0..threads.max(1) {
                scope.spawn(|| {
                    while let Ok(mut request) = server.recv() {
                        let (status, kind, body) = self.answer(&mut request);
                        let mut response = Response::from_data(body).with_status_code(status);
                        // Pictures of people: kept in no cache. The page loads nothing from elsewhere.
                        for (name, value) in [
                            ("Content-Type", kind),
                            ("Cache-Control", "no-store"),
                            ("Content-Security-Policy", "default-src 'self' 'unsafe-inline'"),
                            ("X-Content-Type-Options", "nosniff"),
                        ] {
                            if let Ok(header) = Header::from_bytes(name, value) {
                                response.add_header(header);
                            }
                        }
                        // Whoever has gone needs no answer.
                        drop(request.respond(response));
                    }
                });
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, (Store, Desk)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: &mut Request) -> Answer {
        let url = request.url().to_owned();
        let path = url.split('?').next().unwrap_or("");
        let result = match (request.method(), path) {
            (Method::Get, "/") => Ok((200, "text/html; charset=utf-8", PAGE.as_bytes().to_vec())),
            (Method::Get, path) if path.starts_with("/picture/") => self.picture(path),
            (Method::Post, "/next" | "/mark" | "/undo") => {
                // What other pages may send without being asked for leave is not of this kind.
                let kind = request.headers().iter().find(|h| h.field.equiv("Content-Type"));
                if kind.is_none_or(|h| !h.value.as_str().starts_with("application/json")) {
                    Err((415, "Content-Type must be application/json".to_owned()))
                } else {
                    let mut body = Vec::new();
                    match request.as_reader().take(1 << 20).read_to_end(&mut body) {
                        Ok(_) => self.act(path, &body),
                        Err(error) => Err((400, error.to_string())),
                    }
                }
            }
            _ => Err((404, "there is nothing here".to_owned())),
        };
        result.unwrap_or_else(|(status, reason)| {
            (status, "application/json", json!({ "error": reason }).to_string().into_bytes())
        })
    }

    fn act(&self, path: &str, body: &[u8]) -> Result<Answer, (u16, String)> {
        let bad = |e: serde_json::Error| (400, e.to_string());
        let failed = |e: super::StoreError| (500, e.to_string());
        let mut inner = self.lock();
        let (store, desk) = &mut *inner;
        let (reviewer, restored) = match path {
            "/mark" => {
                let said: Said = serde_json::from_slice(body).map_err(bad)?;
                check_name(&said.reviewer)?;
                let block = (said.person, said.block);
                let keys = desk.pictures(store, block).map_err(failed)?;
                if keys.is_empty() || said.wrong.iter().any(|i| !keys.iter().any(|k| k.index == *i)) {
                    return Err((409, "that block has no such pictures: reload the page".into()));
                }
                let marks = Marks {
                    wrong: said.wrong,
                    refused: said.refused,
                    seconds: if said.seconds.is_finite() { said.seconds.clamp(0.0, 3600.0) } else { 0.0 },
                    at_ms: now_ms(),
                };
                desk.mark(store, &said.reviewer, block, &marks).map_err(failed)?;
                (said.reviewer, None)
            }
            other => {
                let who: Who = serde_json::from_slice(body).map_err(bad)?;
                check_name(&who.reviewer)?;
                let undo = other == "/undo";
                let restored =
                    if undo { desk.undo(store, &who.reviewer, now_ms()).map_err(failed)? } else { None };
                (who.reviewer, restored)
            }
        };
        let value = state(store, desk, &reviewer, restored.map(|(_, marks)| marks)).map_err(failed)?;
        Ok((200, "application/json", value.to_string().into_bytes()))
    }

    fn picture(&self, path: &str) -> Result<Answer, (u16, String)> {
        let key = path.trim_start_matches("/picture/").split_once('-');
        let key = key.and_then(|(p, i)| Some(Key { person: p.parse().ok()?, index: i.parse().ok()? }));
        let key = key.ok_or_else(|| (404, "no such picture".to_owned()))?;
        let (candidate, face) = {
            let inner = self.lock();
            let failed = |e: super::StoreError| (500, e.to_string());
            let candidate = inner.0.candidate(key).map_err(failed)?;
            (candidate.ok_or((404, "no such picture".to_owned()))?, inner.0.face(key).map_err(failed)?)
        };
        let picture = self.reader.bytes(&candidate).and_then(|bytes| decode(&bytes)).map_err(|e| (404, e))?;
        let shown = match face.and_then(|face| canvas(&picture, &face).ok()) {
            Some(canvas) => canvas,
            None => {
                imageops::resize(&picture, CANVAS_PX as u32, CANVAS_PX as u32, imageops::FilterType::Triangle)
            }
        };
        let mut bytes = Vec::new();
        shown
            .write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, 88))
            .map_err(|e| (500, e.to_string()))?;
        Ok((200, "image/jpeg", bytes))
    }
}

fn check_name(name: &str) -> Result<(), (u16, String)> {
    if name.trim().is_empty() || name.len() > 60 {
        return Err((400, "a reviewer has a name of 1 to 60 letters".into()));
    }
    Ok(())
}

/// What the page shows next.
fn state(
    store: &Store,
    desk: &mut Desk,
    reviewer: &str,
    restored: Option<Marks>,
) -> Result<Value, super::StoreError> {
    let block = desk.next(reviewer, now_ms());
    let (made, needed) = desk.progress();
    let agreement = desk.agreement(store)?;
    let block = match block {
        None => Value::Null,
        Some((person, number)) => {
            let keys = desk.pictures(store, (person, number))?;
            let name = store.people()?.into_iter().find(|(p, _)| *p == person).map(|(_, p)| p.name);
            json!({
                "person": person,
                "block": number,
                "name": name,
                "pictures": keys.iter().map(|key| key.index).collect::<Vec<_>>(),
                "wrong": restored.map(|marks| marks.wrong).unwrap_or_default(),
            })
        }
    };
    Ok(json!({
        "stage": desk.rules().stage.name(),
        "accept": desk.rules().accept,
        "made": made,
        "needed": needed,
        "seconds_left": desk.seconds_left(),
        "kappa": agreement.kappa(),
        "seen_twice": agreement.pictures(),
        "block": block,
    }))
}

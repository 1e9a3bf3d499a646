//! The reviewers' page: one HTTP server on this machine, the page inside the program.

use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use image::codecs::jpeg::JpegEncoder;
use image::imageops;
use oxhttp::model::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use oxhttp::model::{Body, HeaderValue, Method, Request, Response, StatusCode};
use oxhttp::{ListeningServer, Server};
use serde::Deserialize;
use serde_json::{Value, json};

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

    /// Answers requests at `address` from now on, each browser's connections in threads of their own.
    ///
    /// # Errors
    /// Nothing can listen there.
    pub fn serve(self: &Arc<Self>, address: SocketAddr) -> std::io::Result<ListeningServer> {
        let site = Arc::clone(self);
        let respond = move |request: &mut Request<Body>| {
            let (status, kind, body) = site.answer(request);
            let mut response = Response::new(Body::from(body));
            *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
            // Pictures of people: kept in no cache. The page loads nothing from elsewhere.
            for (name, value) in [
                (CONTENT_TYPE, kind),
                (CACHE_CONTROL, "no-store"),
                (CONTENT_SECURITY_POLICY, "default-src 'self' 'unsafe-inline'"),
                (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            ] {
                response.headers_mut().insert(name, HeaderValue::from_static(value));
            }
            response
        };
        Server::new(respond).bind(address).with_max_concurrent_connections(CONNECTIONS).spawn()
    }

    /// Does something with the store while no request is answered.
    pub fn with<T>(&self, act: impl FnOnce(&mut Store, &mut Desk) -> T) -> T {
        let (store, desk) = &mut *self.lock();
        act(store, desk)
    }

    fn lock(&self) -> MutexGuard<'_, (Store, Desk)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: &mut Request<Body>) -> Answer {
        let path = request.uri().path().to_owned();
        let result = match (request.method(), path.as_str()) {
            (&Method::GET, "/") => Ok((200, "text/html; charset=utf-8", PAGE.as_bytes().to_vec())),
            (&Method::GET, path) if path.starts_with("/picture/") => self.picture(path),
            (&Method::POST, path @ ("/next" | "/mark" | "/undo")) => {
                // What other pages may send without being asked for leave is not of this kind.
                let kind = request.headers().get(CONTENT_TYPE);
                if kind.is_none_or(|kind| !kind.as_bytes().starts_with(b"application/json")) {
                    Err((415, "Content-Type must be application/json".to_owned()))
                } else {
                    let mut body = Vec::new();
                    match request.body_mut().take(1 << 20).read_to_end(&mut body) {
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

/// A browser opens six; each has a thread.
const CONNECTIONS: usize = 64;

//! One enrolment from photographs, as one connection sends it: pieces in, one photograph in memory at a time, templates kept.

use std::io::Cursor;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use facelatch_shared::access::Label;
use facelatch_shared::embedding::{ModelBinding, Template};
use facelatch_shared::gallery::MAX_CHIPS;
use facelatch_shared::person::Name;
use facelatch_shared::protocol::{RefusedKind, Response};
use facelatch_shared::remote::{LinkResponse, PHOTO_BYTES, PHOTO_CHUNK_BYTES, PHOTOS, PeerId};

use crate::camera::scene::Picture;
use crate::door::Views;
use crate::runner::{Look, SeenFace};

/// Photographs of one person, so far.
#[derive(Debug)]
pub(super) struct Photos {
    name: Name,
    consent: Option<Label>,
    part: Vec<u8>,
    seen: usize,
    templates: Vec<Template>,
    chips: Vec<Vec<u8>>,
    binding: Option<ModelBinding>,
}

impl Photos {
    pub(super) const fn begin(name: Name, consent: Option<Label>) -> Self {
        Self {
            name,
            consent,
            part: Vec::new(),
            seen: 0,
            templates: Vec::new(),
            chips: Vec::new(),
            binding: None,
        }
    }

    /// Takes a piece; when the photograph is whole, lets the door look at it.
    pub(super) fn piece(
        &mut self,
        total: u32,
        offset: u32,
        bytes: &[u8],
        looks: &SyncSender<Look>,
    ) -> Response {
        let invalid = |what: &str| Response::refused(RefusedKind::Invalid, what);
        let (total, offset) = (total as usize, offset as usize);
        if total > PHOTO_BYTES || bytes.len() > PHOTO_CHUNK_BYTES {
            let what = format!(
                "a photograph has at most {} KiB, a piece of one {} KiB: scale it down",
                PHOTO_BYTES / 1024,
                PHOTO_CHUNK_BYTES / 1024
            );
            return invalid(&what);
        }
        if offset == 0 {
            self.part.clear();
        }
        if offset != self.part.len() || bytes.is_empty() || offset + bytes.len() > total {
            self.part.clear();
            return invalid(
                "the pieces of a photograph come in order and without gaps: send it from its beginning",
            );
        }
        self.part.extend_from_slice(bytes);
        if self.part.len() < total {
            let received = u32::try_from(self.part.len()).unwrap_or(u32::MAX);
            return Response::Link(LinkResponse::PhotoPart { received });
        }
        let whole = std::mem::take(&mut self.part);
        if self.seen >= PHOTOS {
            return invalid("more photographs than a person can have: end this enrolment");
        }
        self.seen += 1;
        match decode(&whole) {
            Ok(picture) => self.look(picture, looks),
            Err(what) => invalid(&what),
        }
    }

    /// What the door enrols; nothing when no photograph served.
    pub(super) fn end(self, by: PeerId) -> Option<Views> {
        let binding = self.binding?;
        let Self { name, consent, templates, chips, .. } = self;
        Some(Views { name, consent, templates, chips, binding, by })
    }

    fn look(&mut self, picture: Picture, looks: &SyncSender<Look>) -> Response {
        let busy = || Response::refused(RefusedKind::Busy, "the door has too much to see: send it again");
        let (reply, answer) = sync_channel(1);
        if looks.try_send(Look { picture, reply }).is_err() {
            return busy();
        }
        let unusable = match answer.recv_timeout(PATIENCE) {
            Ok(Ok(Ok(SeenFace { template, binding, chip }))) => {
                if self.binding.is_some_and(|before| before != binding) {
                    self.templates.clear();
                    self.chips.clear();
                }
                self.binding = Some(binding);
                self.templates.push(template);
                self.chips.extend(chip.filter(|_| self.chips.len() < MAX_CHIPS));
                None
            }
            Ok(Ok(Err(unusable))) => Some(unusable),
            Ok(Err(what)) => {
                tracing::warn!(what, "a photograph could not be looked at");
                return Response::refused(RefusedKind::Invalid, "the door's models fail on this photograph");
            }
            Err(_) => return busy(),
        };
        let usable = u8::try_from(self.templates.len()).unwrap_or(u8::MAX);
        Response::Link(LinkResponse::PhotoSeen { unusable, usable })
    }
}

/// The pixels of a JPEG or PNG, however it was made: bounded before anything is allocated for them.
fn decode(bytes: &[u8]) -> Result<Picture, String> {
    let failed = |error: String| format!("the photograph cannot be read: {error}; send a JPEG or PNG");
    let mut reader = image::ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|error| failed(error.to_string()))?;
    let mut limits = image::Limits::default();
    limits.max_image_width = Some(SIDE_PX);
    limits.max_image_height = Some(SIDE_PX);
    limits.max_alloc = Some(DECODED_BYTES);
    reader.limits(limits);
    let rgb = reader.decode().map_err(|error| failed(error.to_string()))?.into_rgb8();
    let (width_px, height_px) = (rgb.width() as usize, rgb.height() as usize);
    Picture::new(rgb.into_raw(), width_px, height_px).map_err(|error| failed(error.to_string()))
}

const SIDE_PX: u32 = 2048;
const DECODED_BYTES: u64 = 32 << 20;
/// A slow board, and a frame before it.
const PATIENCE: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch_shared::embedding::{DIM, Embedding};
    use facelatch_shared::quality::Unusable;

    fn png(width_px: u32) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        image::RgbImage::new(width_px, 8).write_to(&mut out, image::ImageFormat::Png).unwrap();
        out.into_inner()
    }

    /// Looks that answer: a template for pictures 8 px wide, nobody for others.
    fn eyes() -> SyncSender<Look> {
        let (send, receive) = sync_channel::<Look>(1);
        std::thread::spawn(move || {
            while let Ok(Look { picture, reply }) = receive.recv() {
                let template = Template::quantize(&Embedding::from_raw(&[1.0; DIM]).unwrap());
                let seen = if picture.width_px() == 8 {
                    Ok(SeenFace { template, binding: ModelBinding([1; 16]), chip: Some(vec![7]) })
                } else {
                    Err(Unusable::NoFace)
                };
                reply.send(Ok(seen)).unwrap();
            }
        });
        send
    }

    fn begun() -> Photos {
        Photos::begin(Name::new("Ada").unwrap(), None)
    }

    fn refused(response: &Response) -> bool {
        matches!(response, Response::Refused(refused) if refused.kind == RefusedKind::Invalid)
    }

    #[test]
    fn pieces_become_a_photograph_and_that_a_template() {
        let (mut photos, looks) = (begun(), eyes());
        let seen = |unusable, usable| Response::Link(LinkResponse::PhotoSeen { unusable, usable });
        let good = png(8);
        let total = good.len() as u32;
        let part = Response::Link(LinkResponse::PhotoPart { received: 5 });
        assert_eq!(photos.piece(total, 0, &good[..5], &looks), part);
        assert_eq!(photos.piece(total, 5, &good[5..], &looks), seen(None, 1));
        let empty = png(9);
        let none = Some(Unusable::NoFace);
        assert_eq!(photos.piece(empty.len() as u32, 0, &empty, &looks), seen(none, 1));
        let views = photos.end(PeerId([0; 4])).unwrap();
        assert_eq!((views.templates.len(), views.binding), (1, ModelBinding([1; 16])));
        assert_eq!(views.chips, [[7]]);
        assert!(begun().end(PeerId([0; 4])).is_none());
    }

    #[test]
    fn what_is_no_photograph_or_too_large_is_refused() {
        let (mut photos, looks) = (begun(), eyes());
        assert!(refused(&photos.piece(u32::MAX, 0, &[1], &looks)), "too large in all");
        assert!(refused(&photos.piece(100_000, 0, &vec![1; PHOTO_CHUNK_BYTES + 1], &looks)));
        assert!(refused(&photos.piece(100, 7, &[1; 10], &looks)), "a gap");
        assert!(refused(&photos.piece(10, 0, &[1; 11], &looks)), "more than announced");
        assert!(refused(&photos.piece(10, 0, &[], &looks)), "an endless number of empty pieces");
        assert!(refused(&photos.piece(4, 0, b"nope", &looks)), "no picture");
        // A small file that says it is a huge picture.
        let wide = png(5_000);
        assert!(wide.len() < 1_000, "{}", wide.len());
        assert!(refused(&photos.piece(wide.len() as u32, 0, &wide, &looks)));
        let good = png(8);
        let mut last = Response::Done;
        for _ in 0..=PHOTOS {
            last = photos.piece(good.len() as u32, 0, &good, &looks);
        }
        assert!(refused(&last), "{last:?}");
        assert!(photos.templates.len() <= PHOTOS);
    }
}

//! `facelatch enrol`: a person from photographs. The door looks at them with its own models; the workstation only sends them.

use std::path::PathBuf;

use facelatch_shared::access::Label;
use facelatch_shared::event::EnrolFailure;
use facelatch_shared::person::Name;
use facelatch_shared::protocol::{Enrolment, Request, Response};
use facelatch_shared::quality::Unusable;
use facelatch_shared::remote::{LinkRequest, PHOTOS};

use super::remote::{DeviceArgs, order, print};
use crate::cli::{Failure, FailureKind};
use crate::remote::photo;

/// Arguments of `facelatch enrol`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    device: DeviceArgs,
    /// The person's name
    #[arg(long)]
    name: String,
    /// The version of the consent text that the person agreed to, for the door's records
    #[arg(long, value_name = "VERSION")]
    consent: Option<String>,
    /// Photographs of this person alone, at most eight
    #[arg(required = true, value_name = "PHOTO")]
    photos: Vec<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let name = Name::new(&args.name)?;
    let consent = args.consent.as_deref().map(Label::try_from).transpose().map_err(|_| {
        Failure::new(FailureKind::Usage, "the version of a consent text has at most 24 bytes")
    })?;
    if args.photos.len() > PHOTOS {
        let what = format!("{} photographs, at most {PHOTOS} are taken", args.photos.len());
        return Err(Failure::new(FailureKind::Usage, what).hint("choose the sharpest, from several angles"));
    }
    // All of them are read before the door is bothered.
    let photos = args.photos.iter().map(|path| photo::prepare(path)).collect::<Result<Vec<_>, _>>()?;
    let mut door = args.device.connect()?;
    order(&mut door, &Request::Link(LinkRequest::BeginPhotos { name, consent }))?;
    let mut usable = 0;
    for (path, bytes) in args.photos.iter().zip(&photos) {
        match door.send_photo(bytes)? {
            (None, count) => {
                usable = count;
                eprintln!("{}: taken", path.display());
            }
            (Some(why), _) => eprintln!("{}: not used, {}", path.display(), words(why)),
        }
    }
    if usable == 0 {
        return Err(Failure::new(FailureKind::Failed, "no photograph can be used; nobody was enrolled")
            .hint("one face, sharp, evenly lit, looking at the camera"));
    }
    let answer = door.ask(&Request::Link(LinkRequest::EndPhotos))?;
    let Response::Enrolment(enrolment) = answer else { return Err(door.unexpected().into()) };
    door.close();
    match enrolment {
        Enrolment::Done { id } => {
            let templates = if usable == 1 { "template" } else { "templates" };
            print(&format!("Enrolled {} ({id}) with {usable} {templates}.\n", args.name))?;
            if usable < 3 {
                eprintln!("Three photographs or more, from several angles, are recognised more surely.");
            }
            Ok(())
        }
        Enrolment::Failed(reason) => Err(refused(reason)),
        _ => Err(Failure::new(FailureKind::Failed, "the door does not say how the enrolment ended")
            .hint("facelatch people list")),
    }
}

fn refused(reason: EnrolFailure) -> Failure {
    let fail = |kind, what: String| Failure::new(kind, what + "; nobody was enrolled");
    match reason {
        EnrolFailure::NotOnePerson => {
            fail(FailureKind::Refused, "the photographs are not of one person".into())
                .hint("look through them; one that is unlike the others is enough")
        }
        EnrolFailure::AlreadyEnrolled { subject } => {
            fail(FailureKind::Refused, format!("this face is enrolled already, as {subject}"))
                .hint("`facelatch people list`; erase the former enrolment to replace it")
        }
        EnrolFailure::Storage => fail(FailureKind::Failed, "the door's gallery cannot be written".into())
            .hint("look at the door's disk"),
        _ => fail(FailureKind::Failed, "the door gave the enrolment up".into()),
    }
}

const fn words(why: Unusable) -> &'static str {
    match why {
        Unusable::NoFace => "no face in it",
        Unusable::SeveralFaces => "several faces in it",
        Unusable::TooSmall => "the face is too small",
        Unusable::TooClose => "the face reaches over the edge",
        Unusable::Blurred => "the face is blurred",
        Unusable::TooDark => "the face is too dark",
        Unusable::TooBright => "the face is too bright",
        Unusable::Turned => "the face is turned away",
        Unusable::BadGeometry => "the face cannot be aligned",
        Unusable::Covered => "part of the face is covered",
        _ => "the door cannot use it",
    }
}

const EXAMPLES: &str = "\
Examples:
  facelatch enrol --name \"Ada Lovelace\" ada1.jpg ada2.jpg ada3.jpg
  facelatch enrol --device door.local --name Bo --consent 2026-1 bo*.jpg

Photographs are turned upright, scaled to 1280 px and stripped of everything but the picture before they are sent.
The door keeps templates, not photographs.";

//! `facelatchd people enrol`: the camera takes the views, this command shows how far it is.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use facelatch_shared::event::EnrolFailure;
use facelatch_shared::person::{Name, SubjectId};
use facelatch_shared::pose::View;
use facelatch_shared::protocol::{Enrolment, Request, Response};

use super::super::daemon::stop_on_signal;
use super::super::door::{Door, unexpected};
use super::super::output::print;
use super::super::{Failure, FailureKind};
use super::Changed;
use crate::config::Config;

/// Enrol the person who stands at the door.
///
/// The running door asks for views from several sides on its panel, and stores the best of them when they agree with each other. It warns of
/// somebody who looks much alike. Ctrl-C calls it off.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The person's name, shown on the panel
    #[arg(required_unless_present = "cancel")]
    name: Option<Name>,
    /// The person has agreed to your text (enrol.consent) already: the door does not ask, and records it
    #[arg(long)]
    agreed: bool,
    /// Call off the enrolment that is under way
    #[arg(long, conflicts_with_all = ["name", "agreed"])]
    cancel: bool,
}

pub(super) fn run(args: &Args, config: &Config, json: bool) -> Result<(), Failure> {
    let mut door = Door::running(config)?;
    let Some(name) = &args.name else {
        call_off(&mut door)?;
        return if json { Ok(()) } else { print("No enrolment is under way any more.\n") };
    };
    let name = name.clone();
    let order = match args.agreed {
        true => Request::EnrolAgreed { name: name.clone() },
        false => Request::Enrol { name: name.clone() },
    };
    match door.ask(order)? {
        Response::Done | Response::Enrolment(_) => {}
        _ => return Err(unexpected()),
    }
    // Once to agree, once for the views.
    let limit = 2 * Duration::from_secs(u64::from(config.enrol.timeout_s)) + SLACK;
    let Done { id, front_only, lookalike } = follow(&mut door, limit, stop_on_signal()?.as_ref())?;
    if front_only {
        eprintln!(
            "note: only views from the front were to be had; `facelatchd people erase {}` and a second try may bring the others",
            id.0
        );
    }
    if let Some(other) = lookalike {
        eprintln!(
            "warning: this person looks much like {other}: the door may refuse both as ambiguous, or take one for the other; a second factor helps"
        );
    }
    Changed { id: id.0, name: name.to_string(), change: "enrolled" }.print(json)
}

/// How an enrolment ended well.
struct Done {
    id: SubjectId,
    front_only: bool,
    lookalike: Option<SubjectId>,
}

/// Shows the progress until the enrolment has ended. Ctrl-C calls it off, and its end is still waited for.
fn follow(door: &mut Door, limit: Duration, stop: &AtomicBool) -> Result<Done, Failure> {
    let mut progress = Progress::new();
    let started = Instant::now();
    loop {
        let Response::Enrolment(enrolment) = door.ask(Request::EnrolProgress)? else {
            return Err(unexpected());
        };
        match enrolment {
            Enrolment::Running { taken, wanted } => progress.show(line(taken, wanted, None)),
            Enrolment::Guided { taken, wanted, view } => progress.show(line(taken, wanted, Some(view))),
            Enrolment::AskingConsent => {
                progress.show(
                    "the panel asks the person to agree: # on the keypad, or the service button".into(),
                );
            }
            Enrolment::Done { id } => {
                progress.end();
                return Ok(Done { id, front_only: false, lookalike: None });
            }
            Enrolment::DoneNoting { id, front_only, lookalike } => {
                progress.end();
                return Ok(Done { id, front_only, lookalike });
            }
            Enrolment::Failed(reason) => {
                progress.end();
                return Err(given_up(reason));
            }
            Enrolment::None => {
                progress.end();
                return Err(Failure::failed("the door restarted during the enrolment").hint("enrol again"));
            }
        }
        if started.elapsed() > limit {
            progress.end();
            return Err(Failure::failed("the enrolment has no end")
                .hint("`facelatchd people enrol --cancel` calls it off"));
        }
        std::thread::sleep(EVERY);
        if stop.swap(false, Ordering::SeqCst) {
            call_off(door)?;
        }
    }
}

/// The door answers how the enrolment stands now.
fn call_off(door: &mut Door) -> Result<(), Failure> {
    match door.ask(Request::CancelEnrol)? {
        Response::Done | Response::Enrolment(_) => Ok(()),
        _ => Err(unexpected()),
    }
}

/// One line on a terminal that is written over, one line a change elsewhere.
struct Progress {
    terminal: bool,
    shown: Option<String>,
}

impl Progress {
    fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), shown: None }
    }

    fn show(&mut self, text: String) {
        if self.shown.as_ref() == Some(&text) {
            return;
        }
        let mut err = std::io::stderr().lock();
        // Progress that cannot be shown stops nothing.
        let _ = if self.terminal { write!(err, "\r\x1b[K{text}") } else { writeln!(err, "{text}") };
        let _ = err.flush();
        self.shown = Some(text);
    }

    fn end(&self) {
        if self.terminal && self.shown.is_some() {
            eprintln!();
        }
    }
}

fn line(taken: u8, wanted: u8, view: Option<View>) -> String {
    let what = match (wanted.saturating_sub(taken), view) {
        (0, _) => "hold on, the views are being stored",
        (_, Some(View::Front)) => "look straight at the camera, an arm's length away",
        (_, Some(View::Left)) => "turn the head a little to your left",
        (_, Some(View::Right)) => "turn the head a little to your right",
        (_, Some(View::Up)) => "raise the chin a little",
        (_, Some(View::Down)) => "lower the chin a little",
        (_, None) if taken == 0 => "look straight at the camera, an arm's length away",
        (_, None) => "turn the head a little, and look at the camera again",
    };
    let bar: String = (0..wanted).map(|n| if n < taken { '#' } else { '.' }).collect();
    format!("[{bar}] {taken} of {wanted} views: {what}")
}

fn given_up(reason: EnrolFailure) -> Failure {
    let refused = |text: &str| Failure::new(FailureKind::Refused, text);
    match reason {
        EnrolFailure::TimedOut => Failure::failed("too few good views in time; nobody is enrolled")
            .hint("more light, nearer to the camera, one face only; the panel says what is missing"),
        EnrolFailure::NotOnePerson => refused("the views do not agree with each other; nobody is enrolled")
            .hint("only the person to be enrolled stands in front of the camera"),
        EnrolFailure::AlreadyEnrolled { subject } => {
            refused(&format!("this face is enrolled already, as {subject}")).hint(format!(
                "`facelatchd people rename {0} NAME` gives another name, `facelatchd people erase {0}` forgets the person",
                subject.0
            ))
        }
        EnrolFailure::Storage => Failure::failed("the gallery could not be written; nobody is enrolled")
            .hint("look at the disk's free space and at the daemon's log"),
        EnrolFailure::Cancelled => Failure::failed("the enrolment was called off; nobody is enrolled"),
        EnrolFailure::NoConsent => refused("the person did not agree; nobody is enrolled"),
        _ => Failure::failed("the enrolment was given up; nobody is enrolled")
            .hint("the door is newer than this program and knows why"),
    }
}

const EVERY: Duration = Duration::from_millis(200);
/// What the door may take beyond its own limit to say so.
const SLACK: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
Examples:
  facelatchd people enrol \"Ada Lovelace\"
  facelatchd people enrol --cancel";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_says_what_to_do() {
        assert_eq!(
            line(0, 5, None),
            "[.....] 0 of 5 views: look straight at the camera, an arm's length away"
        );
        assert_eq!(
            line(2, 5, None),
            "[##...] 2 of 5 views: turn the head a little, and look at the camera again"
        );
        assert_eq!(line(1, 5, Some(View::Left)), "[#....] 1 of 5 views: turn the head a little to your left");
        assert_eq!(line(5, 5, None), "[#####] 5 of 5 views: hold on, the views are being stored");
    }

    #[test]
    fn policy_refuses_and_bad_luck_fails() {
        let kind = |reason| given_up(reason).kind();
        assert_eq!(kind(EnrolFailure::AlreadyEnrolled { subject: SubjectId(3) }), FailureKind::Refused);
        assert_eq!(kind(EnrolFailure::NotOnePerson), FailureKind::Refused);
        assert_eq!(kind(EnrolFailure::TimedOut), FailureKind::Failed);
        let text = given_up(EnrolFailure::AlreadyEnrolled { subject: SubjectId(3) }).to_string();
        assert!(text.contains("as #3") && text.contains("people rename 3"), "{text}");
    }
}

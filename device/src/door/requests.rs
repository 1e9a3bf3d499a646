//! What the door is asked, by commands on the board and by workstations, and what it answers.

use facelatch_shared::access::Authority;
use facelatch_shared::event::EventKind;
use facelatch_shared::person::Name;
use facelatch_shared::protocol::{
    Handler, Liveness, RefusedKind, Request, Response, RightsChange, Rules, Status, ThresholdFrom,
};

use super::{Door, Parts, version};
use crate::control::answer;
use crate::session::{EnrolOrder, Input};
use crate::transfer;

impl Handler for Door {
    fn handle(&mut self, request: Request) -> Response {
        let response = match request {
            Request::Status => Response::Status(self.status()),
            Request::Enrol { .. } | Request::EnrolAgreed { .. } if !self.parts.session.camera_ok() => {
                Response::refused(
                    RefusedKind::Busy,
                    "the camera gives no pictures: look at `facelatchd status`",
                )
            }
            Request::Enrol { .. } | Request::EnrolAgreed { .. } if self.parts.session.is_enrolling() => {
                Response::refused(RefusedKind::Busy, "an enrolment is under way: wait for it, or call it off")
            }
            Request::EnrolAgreed { .. } if self.parts.session.consent_text().is_none() => Response::refused(
                RefusedKind::Invalid,
                "this door asks for no consent: name the version of your text in enrol.consent",
            ),
            Request::Enrol { name } => self.enrol(name, false),
            Request::EnrolAgreed { name } => self.enrol(name, true),
            Request::EnrolProgress => Response::Enrolment(self.parts.session.enrolment()),
            Request::CancelEnrol => {
                self.step(Input::CancelEnrol);
                Response::Enrolment(self.parts.session.enrolment())
            }
            Request::Link(request) => self.link_request(request),
            Request::Rules => Response::Rules(self.rules()),
            Request::Unbar => {
                self.step(Input::LiftBar(Authority::CommandLine));
                Response::Done
            }
            Request::AcceptClock => {
                self.parts.keeper.accept(self.parts.clock.unix());
                self.log(EventKind::ClockAccepted);
                self.read_world();
                Response::Done
            }
            Request::SetRights { change: RightsChange { schedule: Some(Some(name)), .. }, .. }
                if !self.parts.session.calendar().knows(&name) =>
            {
                let what = format!(
                    "this door has no schedule `{name}`: add it to [access.schedules] and restart it"
                );
                Response::refused(RefusedKind::Invalid, &what)
            }
            changing @ (Request::SetRights { .. }
            | Request::SetState { .. }
            | Request::Erase { .. }
            | Request::Rename { .. }) => {
                let response =
                    answer(&mut self.parts.people, &mut self.parts.log, &*self.parts.clock, changing);
                self.follow_gallery();
                self.step(Input::PeopleChanged);
                response
            }
            Request::Transfer(request) => {
                let deciding = Some((self.parts.binding, self.in_force.threshold));
                let Parts { people, log, clock, .. } = &mut self.parts;
                let response = transfer::answer(people, log, &**clock, deciding, request);
                self.follow_gallery();
                self.step(Input::PeopleChanged);
                response
            }
            other => answer(&mut self.parts.people, &mut self.parts.log, &*self.parts.clock, other),
        };
        self.show();
        response
    }
}

impl Door {
    fn enrol(&mut self, name: Name, agreed: bool) -> Response {
        let order = EnrolOrder { name: Some(name), by: Authority::CommandLine, agreed };
        self.step(Input::StartEnrol(order));
        Response::Enrolment(self.parts.session.enrolment())
    }

    fn rules(&self) -> Rules {
        let source = match self.in_force.chosen {
            Some(chosen) => ThresholdFrom::Table {
                fmr: chosen.point.fmr,
                rate: chosen.rate(),
                as_configured: chosen.in_table,
            },
            None if self.parts.threshold.is_configured() => ThresholdFrom::Configured,
            None => ThresholdFrom::Model,
        };
        Rules {
            threshold: self.in_force.threshold,
            source,
            templates: u32::try_from(self.parts.people.templates_of(self.parts.binding)).unwrap_or(u32::MAX),
            local: self.parts.session.local_time(),
            barred: self.parts.session.is_barred(),
            liveness: if self.parts.session.asks_for_turns() { Liveness::Challenge } else { Liveness::Off },
        }
    }

    fn status(&self) -> Status {
        Status {
            version: version(),
            uptime_s: self.parts.clock.now().since(self.started) / 1000,
            door: self.parts.name.clone(),
            people: u32::try_from(self.parts.people.len()).unwrap_or(u32::MAX),
            frames: self.counters.frames,
            dropped: self.counters.dropped,
            camera_ok: self.parts.session.camera_ok(),
            released: self.parts.session.is_released(),
        }
    }
}

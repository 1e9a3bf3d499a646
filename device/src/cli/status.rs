//! `facelatchd status`.

use std::process::ExitCode;

use facelatch_shared::protocol::update::{ModelRow, UpdateRequest};
use facelatch_shared::protocol::{Liveness, Request, Response, Rules, Status, ThresholdFrom};
use facelatch_shared::schedule::LocalTime;
use serde::Serialize;

use super::Failure;
use super::door::{Door, unexpected};
use super::models::{Models, shown_models};
use super::output::{print, print_json};
use super::text::{counted, span};
use crate::config::Config;

/// How the running door is.
///
/// Exit code 1 when none runs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  facelatchd status\n  facelatchd status --json")]
pub(super) struct Args {
    /// The result as JSON, for programs
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args, config: &Config) -> Result<ExitCode, Failure> {
    let mut door = Door::running(config)?;
    let Response::Status(status) = door.ask(Request::Status)? else {
        return Err(unexpected());
    };
    let Response::Rules(rules) = door.ask(Request::Rules)? else {
        return Err(unexpected());
    };
    // An update that is at work may be too busy to answer; the rest is no worse for it.
    let update = match door.ask(Request::Update(UpdateRequest::Status)) {
        Ok(Response::Update(update)) => Some(update),
        _ => None,
    };
    let nets = match door.ask(Request::Update(UpdateRequest::Models)) {
        Ok(Response::Models(nets)) => nets,
        _ => Vec::new(),
    };
    if args.json {
        let models = update.as_deref().map(Models::of);
        let nets = nets.iter().map(Net::from).collect();
        print_json(&Shown { models, nets, ..Shown::of(&status, &rules) })?;
    } else {
        let models = update.as_deref().map_or_else(String::new, shown_models);
        print(&(shown(&status) + &shown_rules(&rules) + &models + &shown_nets(&nets)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(status: &Status) -> String {
    let lost_pct = match status.frames + status.dropped {
        0 => 0.0,
        all => status.dropped as f64 * 100.0 / all as f64,
    };
    format!(
        "door     {}\nversion  {}, running for {}\npeople   {} enrolled\ncamera   {}, {} seen, {:.1} % dropped while busy\nlock     {}\n",
        status.door,
        status.version,
        span(status.uptime_s),
        status.people,
        if status.camera_ok { "ok" } else { "NO FRAMES" },
        counted(status.frames, "frame", "frames"),
        lost_pct,
        if status.released { "released" } else { "secured" },
    )
}

fn shown_rules(rules: &Rules) -> String {
    let threshold = rules.threshold;
    let decision = match rules.source {
        ThresholdFrom::Configured => format!("{threshold}, fixed by decision.threshold"),
        ThresholdFrom::Model => {
            format!("{threshold}, fixed by the embedder; it does not follow the size of the gallery")
        }
        ThresholdFrom::Table { fmr, rate, as_configured } => format!(
            "{threshold}: N = {}, FMR {fmr:.1e} a comparison, at most {rate:.1e} of strangers pass an attempt{}",
            counted(u64::from(rules.templates), "template", "templates"),
            if as_configured { "" } else { "; MORE THAN decision.false_accepts, the table ends here" },
        ),
    };
    let clock = match rules.local {
        Some(LocalTime { day, minute }) => format!("{day} {:02}:{:02}", minute / 60, minute % 60),
        None => "NOT KNOWN: hours and validity cannot be told; set it, or `facelatchd accept-clock`".into(),
    };
    let liveness = match rules.liveness {
        Liveness::Off => "OFF: a photograph of a face opens the door",
        Liveness::Challenge => "a head turn is asked for",
    };
    let tries = if rules.barred { "BARRED after too many failures: `facelatchd unbar`" } else { "open" };
    format!("limit    {decision}\nliveness {liveness}\nclock    {clock}\ntries    {tries}\n")
}

/// The status for programs. Fields are added, never renamed.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    door: &'a str,
    version: &'a str,
    uptime_s: u64,
    people: u32,
    frames: u64,
    dropped: u64,
    camera_ok: bool,
    released: bool,
    threshold: f32,
    threshold_from: &'static str,
    templates: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    fmr: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    false_accepts: Option<f64>,
    liveness: &'static str,
    clock_known: bool,
    barred: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    models: Option<Models>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nets: Vec<Net>,
}

/// A net for programs.
#[derive(Debug, Serialize)]
struct Net {
    name: String,
    licence: String,
    research_only: Option<bool>,
}

impl From<&ModelRow> for Net {
    fn from(row: &ModelRow) -> Self {
        Self {
            name: row.name.to_string(),
            licence: row.licence.to_string(),
            research_only: row.research_only,
        }
    }
}

/// Whoever mounts a door answers for what its nets learnt from.
fn shown_nets(nets: &[ModelRow]) -> String {
    let nets: Vec<String> = nets.iter().map(ToString::to_string).collect();
    if nets.is_empty() { String::new() } else { format!("nets     {}\n", nets.join(", ")) }
}

impl<'a> Shown<'a> {
    fn of(status: &'a Status, rules: &Rules) -> Self {
        let (threshold_from, fmr, false_accepts) = match rules.source {
            ThresholdFrom::Configured => ("configuration", None, None),
            ThresholdFrom::Model => ("model", None, None),
            ThresholdFrom::Table { fmr, rate, .. } => ("table", Some(fmr), Some(rate)),
        };
        Self {
            threshold: rules.threshold.0,
            threshold_from,
            templates: rules.templates,
            fmr,
            false_accepts,
            liveness: match rules.liveness {
                Liveness::Off => "off",
                Liveness::Challenge => "challenge",
            },
            clock_known: rules.local.is_some(),
            barred: rules.barred,
            models: None,
            nets: Vec::new(),
            door: status.door.as_str(),
            version: status.version.as_str(),
            uptime_s: status.uptime_s,
            people: status.people,
            frames: status.frames,
            dropped: status.dropped,
            camera_ok: status.camera_ok,
            released: status.released,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch_shared::person::Name;
    use facelatch_shared::schedule::Day;
    use facelatch_shared::score::Threshold;

    fn status() -> Status {
        Status {
            version: heapless::String::try_from("0.1.0").unwrap(),
            uptime_s: 3_725,
            door: Name::new("Front door").unwrap(),
            people: 12,
            frames: 900,
            dropped: 100,
            camera_ok: true,
            released: false,
        }
    }

    #[test]
    fn for_people() {
        assert_eq!(
            shown(&status()),
            "\
door     Front door
version  0.1.0, running for 1 h 2 min
people   12 enrolled
camera   ok, 900 frames seen, 10.0 % dropped while busy
lock     secured
"
        );
        let new = Status { frames: 0, dropped: 0, camera_ok: false, ..status() };
        assert!(shown(&new).contains("NO FRAMES, 0 frames seen, 0.0 %"));
    }

    fn rules() -> Rules {
        Rules {
            threshold: Threshold(0.5),
            source: ThresholdFrom::Table { fmr: 1e-5, rate: 6e-4, as_configured: true },
            templates: 60,
            local: Some(LocalTime { day: Day::parse("2026-11-24").unwrap(), minute: 581 }),
            barred: false,
            liveness: Liveness::Challenge,
        }
    }

    #[test]
    fn rules_for_people() {
        assert_eq!(
            shown_rules(&rules()),
            "\
limit    0.500: N = 60 templates, FMR 1.0e-5 a comparison, at most 6.0e-4 of strangers pass an attempt
liveness a head turn is asked for
clock    2026-11-24 09:41
tries    open
"
        );
        let poor = Rules {
            source: ThresholdFrom::Model,
            local: None,
            barred: true,
            liveness: Liveness::Off,
            ..rules()
        };
        let text = shown_rules(&poor);
        for word in ["does not follow", "OFF: a photograph", "accept-clock", "facelatchd unbar"] {
            assert!(text.contains(word), "{text}");
        }
    }

    #[test]
    fn for_programs() {
        assert_eq!(
            serde_json::to_string(&Shown::of(&status(), &rules())).unwrap(),
            r#"{"door":"Front door","version":"0.1.0","uptime_s":3725,"people":12,"frames":900,"dropped":100,"camera_ok":true,"released":false,"threshold":0.5,"threshold_from":"table","templates":60,"fmr":0.00001,"false_accepts":0.0006,"liveness":"challenge","clock_known":true,"barred":false}"#
        );
    }
}

//! `facelatch status`: how a door is, over the link.

use facelatch_shared::protocol::update::{ModelRow, UpdateRequest};
use facelatch_shared::protocol::{Liveness, Request, Response, Rules, Status, ThresholdFrom};
use facelatch_shared::schedule::LocalTime;
use serde_json::{Value, json};

use super::remote::{DeviceArgs, print};
use crate::cli::Failure;

/// Arguments of `facelatch status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  facelatch status\n  facelatch status --device door.local --json")]
pub struct Args {
    #[command(flatten)]
    device: DeviceArgs,
    /// The result as JSON, for programs
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut door = args.device.connect()?;
    let Response::Status(status) = door.ask(&Request::Status)? else {
        return Err(door.unexpected().into());
    };
    let Response::Rules(rules) = door.ask(&Request::Rules)? else {
        return Err(door.unexpected().into());
    };
    let nets = match door.ask(&Request::Update(UpdateRequest::Models)) {
        Ok(Response::Models(nets)) => nets,
        _ => Vec::new(),
    };
    let door_key = door.key().to_string();
    door.close();
    let text = if args.json {
        let mut value = as_json(&status, &rules);
        value["door_key"] = door_key.into();
        value["nets"] = nets.iter().map(net).collect();
        format!("{value:#}\n")
    } else {
        let nets: Vec<String> = nets.iter().map(ToString::to_string).collect();
        shown(&status, &rules) + &format!("nets     {}\nkey      {door_key}\n", nets.join(", "))
    };
    print(&text)?;
    Ok(())
}

fn net(row: &ModelRow) -> Value {
    json!({ "name": row.name.as_str(), "licence": row.licence.as_str(), "research_only": row.research_only })
}

fn shown(status: &Status, rules: &Rules) -> String {
    let seconds = status.uptime_s;
    let span = match (seconds / 86_400, seconds / 3_600, seconds / 60) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {} min", minutes % 60),
        (days, hours, _) => format!("{days} d {} h", hours % 24),
    };
    let limit = match rules.source {
        ThresholdFrom::Configured => "fixed by the configuration".to_owned(),
        ThresholdFrom::Model => "fixed by the embedder, for every size of gallery".to_owned(),
        ThresholdFrom::Table { fmr, rate, as_configured } => format!(
            "{} templates, FMR {fmr:.1e} a comparison, at most {rate:.1e} of strangers pass an attempt{}",
            rules.templates,
            if as_configured { "" } else { "; MORE THAN decision.false_accepts" },
        ),
    };
    let clock = match rules.local {
        Some(LocalTime { day, minute }) => format!("{day} {:02}:{:02}", minute / 60, minute % 60),
        None => "NOT KNOWN".into(),
    };
    format!(
        "door     {}\nversion  {}, running for {span}\npeople   {} enrolled\ncamera   {}, {} frames seen, {} dropped while busy\nlock     {}\nlimit    {}: {limit}\nliveness {}\nclock    {clock}\ntries    {}\n",
        status.door,
        status.version,
        status.people,
        if status.camera_ok { "ok" } else { "NO FRAMES" },
        status.frames,
        status.dropped,
        if status.released { "released" } else { "secured" },
        rules.threshold,
        match rules.liveness {
            Liveness::Off => "OFF: a photograph of a face opens the door",
            Liveness::Challenge => "a head turn is asked for",
        },
        if rules.barred { "BARRED after too many failures: `facelatchd unbar`" } else { "open" },
    )
}

/// For programs. Fields are added, never renamed.
fn as_json(status: &Status, rules: &Rules) -> Value {
    json!({
        "door": status.door.as_str(),
        "version": status.version.as_str(),
        "uptime_s": status.uptime_s,
        "people": status.people,
        "frames": status.frames,
        "dropped": status.dropped,
        "camera_ok": status.camera_ok,
        "released": status.released,
        "threshold": rules.threshold.0,
        "templates": rules.templates,
        "liveness": match rules.liveness { Liveness::Off => "off", Liveness::Challenge => "challenge" },
        "clock_known": rules.local.is_some(),
        "barred": rules.barred,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch_shared::person::Name;
    use facelatch_shared::score::Threshold;

    #[test]
    fn a_door_in_nine_lines() {
        let status = Status {
            version: heapless::String::try_from("0.1.0").unwrap(),
            uptime_s: 3_725,
            door: Name::new("Front door").unwrap(),
            people: 12,
            frames: 900,
            dropped: 100,
            camera_ok: false,
            released: false,
        };
        let rules = Rules {
            threshold: Threshold(0.5),
            source: ThresholdFrom::Table { fmr: 1e-5, rate: 6e-4, as_configured: true },
            templates: 60,
            local: None,
            barred: true,
            liveness: Liveness::Off,
        };
        assert_eq!(
            shown(&status, &rules),
            "\
door     Front door
version  0.1.0, running for 1 h 2 min
people   12 enrolled
camera   NO FRAMES, 900 frames seen, 100 dropped while busy
lock     secured
limit    0.500: 60 templates, FMR 1.0e-5 a comparison, at most 6.0e-4 of strangers pass an attempt
liveness OFF: a photograph of a face opens the door
clock    NOT KNOWN
tries    BARRED after too many failures: `facelatchd unbar`
"
        );
        assert_eq!(as_json(&status, &rules)["people"], 12);
    }
}

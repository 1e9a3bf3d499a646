//! `facelatchd config`: the configuration that documents itself.

use std::process::ExitCode;

use super::Failure;
use super::output::{print, read_pin};

/// Print a configuration with every key, its meaning and its default.
///
/// Lines that begin with `#key` show what may be set beside it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  facelatchd config > door.toml\n  facelatchd config --hash-pin     the line for the door's administrator PIN"
)]
pub(super) struct Args {
    /// Read a PIN from standard input and print the line that makes it the door's administrator PIN, for [enrol]
    #[arg(long)]
    hash_pin: bool,
}

pub(super) fn run(Args { hash_pin }: Args) -> Result<ExitCode, Failure> {
    if hash_pin {
        print(&format!("admin_pin = \"{}\"\n", read_pin()?))?;
    } else {
        print(DOOR_TOML)?;
    }
    Ok(ExitCode::SUCCESS)
}

const DOOR_TOML: &str = include_str!("door.toml");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, PanelConfig};
    use crate::lock::gpio::LockKind;

    #[test]
    fn what_is_printed_is_the_default() {
        assert_eq!(Config::parse(DOOR_TOML).unwrap(), Config::default());
    }

    #[test]
    fn every_key_is_there() {
        let printed: toml::Table = DOOR_TOML.parse().unwrap();
        for (table, keys) in toml::Table::try_from(Config::default()).unwrap() {
            for key in keys.as_table().unwrap().keys() {
                assert!(printed[&table].get(key).is_some(), "{table}.{key}");
            }
        }
    }

    /// Takes every `#[table]` line as it stands and every `#key` line in the place of the line that sets the key.
    fn everything_set() -> String {
        let mut lines: Vec<String> = Vec::new();
        let mut table = 0;
        for line in DOOR_TOML.lines() {
            let line = line.strip_prefix('#').filter(|rest| rest.starts_with('[')).unwrap_or(line);
            if line.starts_with('[') {
                table = lines.len();
            }
            let commented =
                line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
            let Some(setting) = commented else {
                lines.push(line.to_owned());
                continue;
            };
            let key = setting.split('=').next().unwrap().trim();
            lines[table..]
                .iter_mut()
                .filter(|l| l.split('=').next().unwrap().trim() == key)
                .for_each(String::clear);
            lines.push(setting.to_owned());
        }
        lines.join("\n")
    }

    #[test]
    fn what_is_commented_out_works_too() {
        let config = Config::parse(&everything_set()).unwrap();
        assert!(config.decision.threshold.is_some());
        assert_eq!(config.lock.unwrap().kind, LockKind::Strike);
        assert!(matches!(config.panel, PanelConfig::Framebuffer { .. }));
        assert!(config.inputs.door_open.is_some() && config.inputs.exit_request.is_some());
        assert!(config.inputs.service.is_some() && config.keypad.device.is_some());
        assert_eq!(config.access.schedules.len(), 2);
        assert_eq!(config.enrol.consent.as_deref(), Some("2026-1"));
        assert!(config.enrol.admin_pin.is_some());
    }
}

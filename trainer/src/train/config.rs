//! `run.toml`: everything that made a run, saved into its folder. One table for all recipes: `recipe`, the recipe's own
//! settings, `[origin]`.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use toml::{Table, Value};

/// Settings of one recipe. Derive `deny_unknown_fields` and `default`: a typo must not become a default.
pub trait Settings: Serialize + DeserializeOwned + Default + Clone + PartialEq + Debug {
    /// Seed of weights, order, augmentation and dropout.
    fn seed(&self) -> u64;

    /// How long the schedule is.
    fn length(&self) -> Length;

    /// Refuses values the recipe cannot work with.
    ///
    /// # Errors
    /// [`ConfigError::Value`] naming the key.
    fn check(&self) -> Result<(), ConfigError>;
}

/// Length of a schedule: in steps, which is repeatable, or in minutes of training, pauses left out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Length {
    /// Steps; zero when minutes count.
    pub steps: u64,
    /// Minutes; used when steps are zero.
    pub minutes: f64,
}

impl Length {
    /// Share of the schedule that has passed, 0 to 1 and beyond.
    #[must_use]
    pub fn share(&self, step: u64, seconds: f64) -> f64 {
        if self.steps > 0 { step as f64 / self.steps as f64 } else { seconds / (self.minutes * 60.0) }
    }

    /// Refuses a schedule of no length.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.steps == 0 && !(self.minutes > 0.0 && self.minutes.is_finite()) {
            return Err(ConfigError::value("minutes", "must be above 0 when steps is 0"));
        }
        Ok(())
    }
}

/// Where a run's data and code came from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Origin {
    /// Revision of the source tree, `-dirty` when it differed.
    pub revision: String,
    /// Pictures learnt from.
    pub images: usize,
    /// Identities among them, where known.
    pub identities: usize,
    /// Parameters that are learnt.
    pub parameters: usize,
    /// SHA-256 of each file that was read, by name.
    pub hashes: BTreeMap<String, String>,
}

/// Settings not yet those of one recipe: a file, then what the command line changes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Draft(Table);

impl Draft {
    /// Reads a settings file or the `run.toml` of a run.
    ///
    /// # Errors
    /// [`ConfigError`] when it cannot be read or is no TOML.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
        let table = text.parse().map_err(|e: toml::de::Error| ConfigError::Malformed {
            what: path.display().to_string(),
            reason: e.to_string(),
        })?;
        Ok(Self(table))
    }

    /// Sets `key = value`; a dot in the key goes into a sub-table.
    ///
    /// # Errors
    /// [`ConfigError::Malformed`] when a part of the key before a dot is no table.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) -> Result<(), ConfigError> {
        let (tables, last) = key.rsplit_once('.').map_or((None, key), |(t, last)| (Some(t), last));
        let mut table = &mut self.0;
        for part in tables.into_iter().flat_map(|t| t.split('.')) {
            let next = table.entry(part).or_insert_with(|| Value::Table(Table::new()));
            table = next.as_table_mut().ok_or_else(|| ConfigError::Malformed {
                what: format!("--set {key}"),
                reason: format!("'{part}' is no table"),
            })?;
        }
        table.insert(last.to_owned(), value.into());
        Ok(())
    }

    /// Sets from text `key=value`, where a value that is no TOML is text.
    ///
    /// # Errors
    /// [`ConfigError::Malformed`] without an `=`.
    pub fn set_text(&mut self, text: &str) -> Result<(), ConfigError> {
        let (key, value) = text.split_once('=').ok_or_else(|| ConfigError::Malformed {
            what: format!("--set {text}"),
            reason: "it is not KEY=VALUE".into(),
        })?;
        let (key, value) = (key.trim(), value.trim());
        let parsed = format!("v = {value}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
        self.set(key, parsed.unwrap_or_else(|| Value::String(value.to_owned())))
    }

    /// The recipe that the file names, if it does.
    #[must_use]
    pub fn recipe(&self) -> Option<&str> {
        self.0.get("recipe").and_then(Value::as_str)
    }

    /// As settings of `recipe`; what is not there takes its default.
    ///
    /// # Errors
    /// [`ConfigError`] for another recipe's file, unknown keys and values out of range.
    pub fn settings<S: Settings>(&self, recipe: &'static str) -> Result<S, ConfigError> {
        if let Some(other) = self.recipe().filter(|&name| name != recipe) {
            return Err(ConfigError::OtherRecipe { expected: recipe, actual: other.to_owned() });
        }
        let mut table = self.0.clone();
        table.remove("recipe");
        table.remove("origin");
        let settings: S = Value::Table(table).try_into().map_err(|e: toml::de::Error| {
            ConfigError::Malformed { what: format!("settings of {recipe}"), reason: e.to_string() }
        })?;
        settings.check()?;
        Ok(settings)
    }
}

/// Reads the settings of a run of `recipe` from its folder or from a file.
///
/// # Errors
/// [`ConfigError`].
pub fn read<S: Settings>(path: &Path, recipe: &'static str) -> Result<S, ConfigError> {
    Draft::read(path)?.settings(recipe)
}

/// Writes settings and origin as TOML.
///
/// # Errors
/// [`ConfigError::File`].
pub fn write<S: Settings>(
    path: &Path,
    recipe: &str,
    settings: &S,
    origin: &Origin,
) -> Result<(), ConfigError> {
    let bad = |e: toml::ser::Error| ConfigError::Malformed {
        what: path.display().to_string(),
        reason: e.to_string(),
    };
    let mut table = Table::try_from(settings).map_err(bad)?;
    table.insert("recipe".into(), Value::String(recipe.to_owned()));
    table.insert("origin".into(), Value::try_from(origin).map_err(bad)?);
    let text = toml::to_string_pretty(&table).map_err(bad)?;
    std::fs::write(path, text).map_err(|source| ConfigError::File { path: path.to_owned(), source })
}

/// Why settings were refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not the TOML expected.
    #[error("{what}: {reason}")]
    Malformed {
        /// The file or the argument.
        what: String,
        /// Where and what.
        reason: String,
    },
    /// The settings are another recipe's.
    #[error("the settings are for the recipe '{actual}', not for '{expected}'")]
    OtherRecipe {
        /// The recipe asked for.
        expected: &'static str,
        /// The one the file names.
        actual: String,
    },
    /// A value is out of range.
    #[error("setting '{key}': {reason}")]
    Value {
        /// The key.
        key: &'static str,
        /// The rule it breaks.
        reason: &'static str,
    },
}

impl ConfigError {
    /// A value out of range.
    #[must_use]
    pub const fn value(key: &'static str, reason: &'static str) -> Self {
        Self::Value { key, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Some {
        steps: u64,
        rate: f64,
        shape: Shape,
    }

    #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Shape {
        width: i64,
        kind: String,
    }

    impl Default for Some {
        fn default() -> Self {
            Self { steps: 3, rate: 0.5, shape: Shape::default() }
        }
    }

    impl Settings for Some {
        fn seed(&self) -> u64 {
            1
        }
        fn length(&self) -> Length {
            Length { steps: self.steps, minutes: 0.0 }
        }
        fn check(&self) -> Result<(), ConfigError> {
            self.length().check()
        }
    }

    #[test]
    fn what_is_written_reads_back_for_its_own_recipe_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.toml");
        let settings = Some { rate: 0.25, ..Some::default() };
        let origin = Origin { hashes: [("manifest.csv".into(), "ab".into())].into(), ..Origin::default() };
        write(&path, "some", &settings, &origin).unwrap();
        assert_eq!(read::<Some>(&path, "some").unwrap(), settings);
        let other = read::<Some>(&path, "other").unwrap_err().to_string();
        assert!(other.contains("'some'") && other.contains("'other'"), "{other}");
    }

    #[test]
    fn the_command_line_changes_single_values_and_a_typo_is_refused() {
        let mut draft = Draft::default();
        for text in ["rate = 1e-3", "shape.width=7", "shape.kind=wide"] {
            draft.set_text(text).unwrap();
        }
        let settings: Some = draft.settings("some").unwrap();
        assert_eq!(settings, Some { steps: 3, rate: 1e-3, shape: Shape { width: 7, kind: "wide".into() } });
        draft.set("rat", 1.0).unwrap();
        assert!(draft.settings::<Some>("some").unwrap_err().to_string().contains("rat"));
        assert!(draft.set_text("rate").is_err() && draft.set_text("rate.x=1").is_err());
        let mut none = Draft::default();
        none.set("steps", 0).unwrap();
        assert!(matches!(none.settings::<Some>("some"), Err(ConfigError::Value { key: "minutes", .. })));
    }
}

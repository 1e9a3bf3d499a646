//! What the tests of several crates need: models and photographs fetched at set-up, or a loud skip.

pub mod bundles;
pub mod fuzz;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use facelatch_shared::vision::contract::{Manifest, ModelKind};
use facelatch_trainer::import::{Job, add, import, presets};

/// Where set-up puts models and photographs: `$FACELATCH_ASSETS`, else `facelatch/assets` in the user's cache folder.
#[must_use]
pub fn assets() -> PathBuf {
    let from_env = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    from_env("FACELATCH_ASSETS").unwrap_or_else(|| {
        let cache =
            from_env("XDG_CACHE_HOME").unwrap_or_else(|| from_env("HOME").unwrap_or_default().join(".cache"));
        cache.join("facelatch/assets")
    })
}

/// The door's models, made once for the whole test program: imported from the published files, and our own detector and fiducials net; `None`, said aloud, when set-up has not
/// fetched those.
#[must_use]
pub fn models(test: &str) -> Option<&'static Path> {
    static MODELS: OnceLock<Option<PathBuf>> = OnceLock::new();
    let made = MODELS.get_or_init(|| {
        let published = assets().join("models");
        if !published.is_dir() {
            return None;
        }
        // One folder a process: several test programs may run at once.
        let out = std::env::temp_dir().join(format!("facelatch-test-models-{}", std::process::id()));
        for preset in presets().unwrap_or_else(|error| panic!("the presets: {error}")) {
            let name = Path::new(&preset.source.path).file_name().unwrap_or_default();
            let job = Job { file: published.join(name), preset, hash_known: true };
            import(&job, &out).unwrap_or_else(|error| panic!("{}: {error}", published.display()));
        }
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
        let manifest = Manifest::load(&own).unwrap_or_else(|error| panic!("{error}"));
        for entry in manifest.models.iter().filter(|entry| entry.kind != ModelKind::Embedder) {
            add(entry, &own, &out).unwrap_or_else(|error| panic!("{}: {error}", own.display()));
        }
        Some(out)
    });
    if made.is_none() {
        skipped(test, "the published models are not there; `.ci/fetch demo` fetches them");
    }
    made.as_deref()
}

/// The demonstration's photographs; `None`, said aloud, when set-up has not fetched them.
#[must_use]
pub fn photos(test: &str) -> Option<PathBuf> {
    let photos = assets().join("photos");
    if photos.is_dir() {
        return Some(photos);
    }
    skipped(test, "the photographs are not there; `.ci/fetch demo` fetches them");
    None
}

/// Says that a test had nothing to run on. The line's form is what `.ci/test` counts.
pub fn skipped(test: &str, why: &str) {
    println!("skipped: {test}: {why}");
}

#[cfg(test)]
mod tests {
    use facelatch_device::config::{Config, PanelConfig};

    #[test]
    fn the_configuration_of_an_image_is_one_that_the_door_takes() {
        let config = Config::parse(include_str!("../../trainer/src/image/board/door.toml")).unwrap();
        assert!(matches!(config.panel, PanelConfig::Framebuffer { .. }) && config.lock.is_none());
    }
}

//! An apt of our own that knows the board's architecture: the machine's list of architectures stays as it is, nothing is installed, and root is
//! not needed.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::ImageError;
use super::tools::{run, tool};

/// Such an apt. Its lists lie in its folder and may be deleted with it.
#[derive(Debug)]
pub(super) struct Apt {
    conf: PathBuf,
    debs: PathBuf,
}

impl Apt {
    /// With this machine's sources, or with `source` (a `.sources` file's text) in the place of all of them.
    pub(super) fn new(folder: &Path, source: Option<&str>) -> Result<Self, ImageError> {
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).map_err(ImageError::io(&path)).map(|()| path)
        };
        for path in ["lists/partial", "archives/partial", "debs"].map(|name| folder.join(name)) {
            std::fs::create_dir_all(&path).map_err(ImageError::io(path))?;
        }
        let place = folder.display();
        let mut conf = format!(
            "#clear APT::Architectures;\nAPT::Sandbox::User \"root\";\nAPT::Architectures {{ \"{}\"; \"arm64\"; }};\n\
             Dir::State::Lists \"{place}/lists\";\nDir::Cache \"{place}\";\nAcquire::Languages \"none\";\n",
            native()?
        );
        if let Some(source) = source {
            let path = write("only.sources", source)?;
            conf += &format!(
                "Dir::Etc::SourceList \"{}\";\nDir::Etc::SourceParts \"/dev/null\";\n",
                path.display()
            );
        }
        Ok(Self { conf: write("conf", &conf)?, debs: folder.join("debs") })
    }

    /// Reads the archives' lists.
    pub(super) fn update(&self) -> Result<(), ImageError> {
        run(self.command("apt-get")?.args(["update", "-qq"])).map(drop)
    }

    /// What `apt-cache` says.
    pub(super) fn cache(&self, arguments: &[&str]) -> Result<String, ImageError> {
        run(self.command("apt-cache")?.args(arguments))
    }

    /// The lists that it reads, a line each, in this format of `apt-get indextargets`.
    pub(super) fn targets(&self, format: &str) -> Result<String, ImageError> {
        run(self.command("apt-get")?.args(["indextargets", "--format", format]))
    }

    /// Fetches packages and unpacks them into `tree`; `name_version_architecture` of each, sorted.
    pub(super) fn unpack(&self, wanted: &[String], tree: &Path) -> Result<Vec<String>, ImageError> {
        std::fs::create_dir_all(tree).map_err(ImageError::io(tree))?;
        run(self.command("apt-get")?.current_dir(&self.debs).args(["download", "-qq"]).args(wanted))?;
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.debs).map_err(ImageError::io(&self.debs))? {
            let path = entry.map_err(ImageError::io(&self.debs))?.path();
            run(tool("dpkg-deb", 0)?.arg("-x").arg(&path).arg(tree))?;
            names.push(path.file_stem().unwrap_or_default().to_string_lossy().replace("%3a", ":"));
        }
        names.sort_unstable();
        Ok(names)
    }

    fn command(&self, name: &str) -> Result<Command, ImageError> {
        let mut command = tool(name, 0)?;
        command.env("APT_CONFIG", &self.conf);
        Ok(command)
    }
}

/// This machine's architecture in Debian's words.
fn native() -> Result<&'static str, ImageError> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        "arm" => Ok("armhf"),
        other => Err(ImageError::input(format!("images are built on amd64 or arm64, this is {other}"))),
    }
}

//! Other people's programs, run with a message that helps when they are missing or fail.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::ImageError;

/// What an image is made with: the program and the Debian package that brings it.
pub const TOOLS: [(&str, &str); 13] = [
    ("apt-get", "apt"),
    ("apt-cache", "apt"),
    ("dpkg-deb", "dpkg"),
    ("modprobe", "kmod"),
    ("depmod", "kmod"),
    ("mksquashfs", "squashfs-tools"),
    ("veritysetup", "cryptsetup-bin"),
    ("sfdisk", "fdisk"),
    ("mkfs.vfat", "dosfstools"),
    ("mcopy", "mtools"),
    ("mmd", "mtools"),
    ("cpio", "cpio"),
    ("xz", "xz-utils"),
];

/// The first of [`TOOLS`] that is not there.
///
/// # Errors
/// [`ImageError::MissingTool`].
pub fn check() -> Result<(), ImageError> {
    TOOLS.iter().try_for_each(|(tool, _)| find(tool).map(drop))
}

/// A program to be run: with the standard's language, UTC, and `epoch` (seconds since 1970) as the time of everything it makes.
///
/// # Errors
/// [`ImageError::MissingTool`].
pub(crate) fn tool(name: &str, epoch: u64) -> Result<Command, ImageError> {
    let mut command = Command::new(find(name)?);
    command.env("LC_ALL", "C").env("TZ", "UTC").env("SOURCE_DATE_EPOCH", epoch.to_string());
    Ok(command)
}

/// Runs it; what it printed.
///
/// # Errors
/// [`ImageError::Tool`] with the end of what it said.
pub(crate) fn run(command: &mut Command) -> Result<String, ImageError> {
    let name = Path::new(command.get_program())
        .file_name()
        .unwrap_or_else(|| OsStr::new("?"))
        .to_string_lossy()
        .into_owned();
    let output = command.output().map_err(ImageError::io(&name))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        let said = text(&output.stdout) + &text(&output.stderr);
        let lines: Vec<&str> = said.lines().collect();
        let said = lines[lines.len().saturating_sub(8)..].join("\n  ");
        return Err(ImageError::Tool { tool: name, said: format!("{}\n  {said}", output.status) });
    }
    Ok(text(&output.stdout))
}

/// Where a program is: on the path, or where system programs are and a user's path does not lead.
fn find(name: &str) -> Result<PathBuf, ImageError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let found =
        std::env::split_paths(&path).chain(system).map(|folder| folder.join(name)).find(|p| p.is_file());
    let (tool, package) =
        TOOLS.into_iter().find(|(tool, _)| *tool == name).unwrap_or(("a program of this build", "?"));
    found.ok_or(ImageError::MissingTool { tool, package })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_names_its_package() {
        let error = ImageError::MissingTool { tool: "veritysetup", package: "cryptsetup-bin" };
        assert_eq!(error.to_string(), "there is no veritysetup on this machine: apt install cryptsetup-bin");
        assert!(matches!(find("no-such-program"), Err(ImageError::MissingTool { .. })));
    }

    #[test]
    fn a_failing_tool_tells_what_it_said() {
        let error = run(Command::new("sh").args(["-c", "echo too small >&2; exit 4"])).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("sh failed: ") && text.contains("exit status: 4\n  too small"), "{text}");
    }
}

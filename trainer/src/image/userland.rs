//! Which files of Debian's packages go where: programs with the libraries they need, drivers with what they depend on.

use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use super::ImageError;
use super::packages::Packages;
use super::tools::{run, tool};

/// Where Debian's loader looks for libraries.
const LIBRARIES: &str = "lib/aarch64-linux-gnu";
const LOADER: &str = "ld-linux-aarch64.so.1";

/// A tree of files that is being put together.
#[derive(Debug)]
pub struct Tree<'a> {
    /// Where.
    pub path: &'a Path,
    packages: &'a Packages,
}

impl<'a> Tree<'a> {
    /// An empty one.
    ///
    /// # Errors
    /// [`ImageError::Io`].
    pub fn new(path: &'a Path, packages: &'a Packages) -> Result<Self, ImageError> {
        std::fs::create_dir_all(path).map_err(ImageError::io(path))?;
        Ok(Self { path, packages })
    }

    /// A folder.
    ///
    /// # Errors
    /// [`ImageError::Io`].
    pub fn folder(&self, name: &str) -> Result<(), ImageError> {
        let path = self.path.join(name);
        std::fs::create_dir_all(&path).map_err(ImageError::io(path))
    }

    /// A file with these bytes.
    ///
    /// # Errors
    /// [`ImageError::Io`].
    pub fn write(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), ImageError> {
        let path = self.path.join(name);
        self.parent(&path)?;
        std::fs::write(&path, bytes).map_err(ImageError::io(&path))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).map_err(ImageError::io(path))
    }

    /// A copy of a file of this machine.
    ///
    /// # Errors
    /// [`ImageError::Io`].
    pub fn copy(&self, name: &str, from: &Path, mode: u32) -> Result<(), ImageError> {
        let bytes = std::fs::read(from).map_err(ImageError::io(from))?;
        self.write(name, &bytes, mode)
    }

    /// A symbolic link.
    ///
    /// # Errors
    /// [`ImageError::Io`].
    pub fn link(&self, name: &str, to: &str) -> Result<(), ImageError> {
        let path = self.path.join(name);
        self.parent(&path)?;
        symlink(to, &path).map_err(ImageError::io(path))
    }

    /// A program of the packages as `name`, with every library it needs.
    ///
    /// # Errors
    /// [`ImageError::Input`] when a package lacks it.
    pub fn program(&self, name: &str, from: &str) -> Result<(), ImageError> {
        let file = self.packages.file(from)?;
        self.copy(name, &file, 0o755)?;
        self.libraries_of(&file)
    }

    /// The libraries that a program needs, and those that these need.
    ///
    /// # Errors
    /// [`ImageError::Input`] when a package lacks one.
    pub fn libraries_of(&self, program: &Path) -> Result<(), ImageError> {
        for library in needed(&std::fs::read(program).map_err(ImageError::io(program))?) {
            let (folder, name) =
                if library == LOADER { ("lib", LOADER) } else { (LIBRARIES, library.as_str()) };
            let to = format!("{folder}/{name}");
            if self.path.join(&to).exists() {
                continue;
            }
            let file = self.packages.file(&format!("{LIBRARIES}/{name}"))?;
            self.copy(&to, &file, 0o755)?;
            self.libraries_of(&file)?;
        }
        Ok(())
    }

    /// Drivers of the kernel by name, with what they depend on; those that this kernel has built in, or does not have, are passed over.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn modules(&self, names: &[&str]) -> Result<(), ImageError> {
        let version = &self.packages.kernel;
        let from = self.packages.tree.join("lib/modules").join(version);
        let to = format!("lib/modules/{version}");
        let mut files = BTreeSet::new();
        for name in names {
            let mut ask = tool("modprobe", 0)?;
            ask.arg("-d").arg(&self.packages.tree).args(["-S", version, "--show-depends", name]);
            let Ok(answer) = run(&mut ask) else { continue };
            // `insmod /…/lib/modules/VERSION/kernel/x.ko`, or `builtin x`.
            files.extend(answer.lines().filter_map(|line| {
                let path = line.strip_prefix("insmod ")?.split_whitespace().next()?;
                Some(path.split_once(version.as_str())?.1.trim_start_matches('/').to_owned())
            }));
        }
        for file in &files {
            self.copy(&format!("{to}/{file}"), &from.join(file), 0o644)?;
        }
        for index in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
            self.copy(&format!("{to}/{index}"), &from.join(index), 0o644)?;
        }
        run(tool("depmod", 0)?.arg("-b").arg(self.path).arg(version)).map(drop)
    }

    fn parent(&self, path: &Path) -> Result<(), ImageError> {
        path.parent().map_or(Ok(()), |parent| std::fs::create_dir_all(parent).map_err(ImageError::io(parent)))
    }
}

/// The libraries that an ELF file names (`DT_NEEDED`, System V ABI chapter 5). 64 bit, little endian; nothing for another file.
fn needed(elf: &[u8]) -> Vec<String> {
    fn number(elf: &[u8], at: usize, bytes: usize) -> Option<usize> {
        let field = elf.get(at..at.checked_add(bytes)?)?;
        usize::try_from(field.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))).ok()
    }
    fn parse(elf: &[u8]) -> Option<Vec<String>> {
        if elf.get(..6)? != b"\x7fELF\x02\x01" {
            return None;
        }
        let (table, entry, count) = (number(elf, 32, 8)?, number(elf, 54, 2)?, number(elf, 56, 2)?);
        let field = |at: usize, offset| number(elf, at.saturating_add(offset), 8);
        // Program headers as (type, offset, address, size in the file).
        let segments: Vec<_> = (0..count)
            .map(|i| {
                let at = table.saturating_add(i.saturating_mul(entry));
                Some((number(elf, at, 4)?, field(at, 8)?, field(at, 16)?, field(at, 32)?))
            })
            .collect::<Option<_>>()?;
        let offset_of = |address: usize| {
            segments
                .iter()
                .find(|(kind, _, start, size)| *kind == 1 && address >= *start && address - *start < *size)
                .map(|(_, offset, start, _)| (address - start).saturating_add(*offset))
        };
        let (_, dynamic, _, size) = *segments.iter().find(|(kind, ..)| *kind == 2)?;
        let tags: Vec<(usize, usize)> = (0..size / 16)
            .map(|i| Some((field(dynamic, i * 16)?, field(dynamic, i * 16 + 8)?)))
            .collect::<Option<_>>()?;
        let strings = offset_of(tags.iter().find(|(tag, _)| *tag == 5)?.1)?;
        let text = |at: usize| {
            let rest = elf.get(strings.saturating_add(at)..)?;
            let end = rest.iter().position(|byte| *byte == 0)?;
            String::from_utf8(rest[..end].to_vec()).ok()
        };
        tags.iter().filter(|(tag, _)| *tag == 1).map(|(_, at)| text(*at)).collect()
    }
    parse(elf).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_program_needs_the_c_library() {
        let me = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let libraries = needed(&me);
        assert!(libraries.iter().any(|name| name.starts_with("libc.so")), "{libraries:?}");
    }

    #[test]
    fn what_is_no_program_needs_nothing() {
        assert!(needed(b"#!/bin/sh\n").is_empty());
        assert!(needed(&[0x7f, b'E', b'L', b'F', 2, 1, 0, 0]).is_empty());
        let mut torn = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        torn.truncate(4096);
        let _ = needed(&torn);
    }
}

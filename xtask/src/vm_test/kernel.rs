//! Debian's cloud kernels: downloaded by apt once, unpacked below `target/vm`, never installed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Depends on the image of the current version.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// Which release's kernel; apt keeps the lists of another release than the machine's own below
/// `target/vm` as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Release {
    /// 6.1
    Bookworm,
    /// 6.12
    Trixie,
}

impl Release {
    pub(super) fn parse(name: &str) -> Option<Self> {
        match name {
            "bookworm" => Some(Self::Bookworm),
            "trixie" => Some(Self::Trixie),
            _ => None,
        }
    }

    /// Newer kernels patch themselves while they run, which that QEMU shows another processor half
    /// done.
    pub(super) const fn processors(self) -> &'static str {
        match self {
            Self::Bookworm => "2",
            Self::Trixie => "1",
        }
    }

    const fn directory(self) -> &'static str {
        match self {
            Self::Bookworm => "kernel",
            Self::Trixie => "kernel-trixie",
        }
    }

    /// Options that make apt look at this release alone, with its lists fetched.
    fn apt(self, directory: &Path) -> Result<Vec<String>, String> {
        const ENTRY: &str = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] \
            http://deb.debian.org/debian trixie main\n";
        if self == Self::Bookworm {
            return Ok(Vec::new());
        }
        let place = directory.join("apt-trixie");
        for below in ["lists/partial", "cache/archives/partial"] {
            std::fs::create_dir_all(place.join(below)).map_err(|error| error.to_string())?;
        }
        let sources = place.join("sources.list");
        std::fs::write(&sources, ENTRY).map_err(|error| error.to_string())?;
        let place = place.display();
        let options: Vec<String> = [
            format!("Dir::Etc::sourcelist={}", sources.display()),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::lists={place}/lists"),
            format!("Dir::Cache={place}/cache"),
            "APT::Sandbox::User=root".to_owned(),
        ]
        .into_iter()
        .flat_map(|option| ["-o".to_owned(), option])
        .collect();
        command(Command::new("apt-get").args(&options).arg("update"))?;
        Ok(options)
    }
}

#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) image: PathBuf,
    modules: PathBuf,
}

pub(super) fn fetch(directory: &Path, release: Release) -> Result<Kernel, String> {
    if let Some(kernel) = find(directory, release) {
        return Ok(kernel);
    }
    let apt = release.apt(directory)?;
    let package = image_package(&apt)?;
    println!("downloading {package}");
    let unpacked = directory.join(format!("{}.partial", release.directory()));
    std::fs::create_dir_all(&unpacked).map_err(|error| error.to_string())?;
    // With a version: apt takes a name that it does not know for a pattern.
    command(
        Command::new("apt-get").args(&apt).args(["download", &package]).current_dir(&unpacked),
    )?;
    let archive = entries(&unpacked)?
        .into_iter()
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or("apt-get download left no package")?;
    command(Command::new("dpkg-deb").arg("--extract").args([&archive, &unpacked]))?;
    std::fs::remove_file(&archive).map_err(|error| error.to_string())?;
    decompress_modules(&unpacked)?;
    std::fs::rename(&unpacked, directory.join(release.directory()))
        .map_err(|error| error.to_string())?;
    find(directory, release).ok_or_else(|| format!("{package} has no kernel"))
}

/// Debian 13 compresses modules, which the initramfs's insmod does not read.
fn decompress_modules(unpacked: &Path) -> Result<(), String> {
    let mut modules = BTreeMap::new();
    collect(unpacked, "xz", &mut modules)?;
    let paths: Vec<_> = modules.into_values().collect();
    // As many as fit a command line with ease.
    paths
        .chunks(200)
        .try_for_each(|paths| command(Command::new("xz").arg("--decompress").args(paths)).map(drop))
}

/// Looks for an unpacked kernel.
fn find(directory: &Path, release: Release) -> Option<Kernel> {
    let root = directory.join(release.directory());
    let image = entries(&root.join("boot")).ok()?.into_iter().find(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
    })?;
    let modules = ["usr/lib/modules", "lib/modules"].map(|place| root.join(place));
    Some(Kernel { image, modules: modules.into_iter().find(|place| place.exists())? })
}

/// Returns `name=version` of the kernel's own package.
fn image_package(apt: &[String]) -> Result<String, String> {
    let cache = |words: [&str; 2]| command(Command::new("apt-cache").args(apt).args(words));
    let depends = cache(["depends", META_PACKAGE])?;
    let name = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .ok_or_else(|| format!("apt knows no {META_PACKAGE}; run apt-get update"))?;
    let policy = cache(["policy", name])?;
    let version = policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))
        .ok_or_else(|| format!("apt has no {name}"))?;
    Ok(format!("{name}={version}"))
}

fn command(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

impl Kernel {
    /// Files of the modules and of those they depend on, in the order they must be loaded. One
    /// that is not there is built in, or this kernel does not have it.
    pub(super) fn modules(&self, names: &[&str]) -> Result<Vec<PathBuf>, String> {
        let mut files = BTreeMap::new();
        collect(&self.modules, "ko", &mut files)?;
        let mut order = Vec::new();
        for name in names {
            load_order(name, &files, &mut order)?;
        }
        Ok(order)
    }
}

fn load_order(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    order: &mut Vec<PathBuf>,
) -> Result<(), String> {
    let Some(path) = files.get(name) else { return Ok(()) };
    if order.contains(path) {
        return Ok(());
    }
    let content = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    for dependency in dependencies(&content) {
        load_order(&dependency, files, order)?;
    }
    order.push(path.clone());
    Ok(())
}

/// Reads the `depends=a,b` line of a module's `.modinfo` section.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = module[start + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let value = String::from_utf8_lossy(value);
    value.split(',').filter(|name| !name.is_empty()).map(normal).collect()
}

/// File names use `-` and `_` as they like; the kernel takes them for the same.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

fn collect(
    directory: &Path,
    extension: &str,
    files: &mut BTreeMap<String, PathBuf>,
) -> Result<(), String> {
    for path in entries(directory)? {
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            collect(&path, extension, files)?;
        } else if path.extension().is_some_and(|found| found == extension) {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            files.insert(normal(&stem), path.clone());
        }
    }
    Ok(())
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depends() {
        assert_eq!(dependencies(b"license=GPL\0depends=stp,nf-x\0name=bridge\0"), ["stp", "nf_x"]);
        assert!(dependencies(b"a\0depends=\0b").is_empty());
        assert!(dependencies(b"nothing").is_empty());
    }
}

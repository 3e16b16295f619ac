//! Which form layers have, and what to mount for a chain of them.
//!
//! New layers get the form that the [`Layout`] asks for. Old ones are used in theirs, mixed as they
//! come: neighbours that are indexes make one mount, directories stay single. Where the kernel can
//! no longer mount an index (another kernel was booted), its tar is unpacked beside it.

use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::str::FromStr;

use rustix::fs::{AtFlags, Mode, OFlags, renameat, statat, syncfs};
use rustix::io::Errno;
use spec::Digest;

use crate::erofs::{InUse, Run, Rung};
use crate::error::StorageError;
use crate::records::{LayerRecord, find};
use crate::storage::Storage;
use crate::unpack::{Form, Job};

/// How new layers are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Layout {
    /// One directory each.
    Directories,
    /// One file each, mounted in the best way the kernel has; none is an error.
    Erofs,
    /// One file each, where the kernel mounts files.
    ErofsFiles,
    /// One file each, through loop devices.
    ErofsLoops,
    /// One file each where the kernel can mount that, otherwise directories.
    #[default]
    Auto,
}

impl FromStr for Layout {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "dirs" => Self::Directories,
            "erofs" => Self::Erofs,
            "erofs-file" => Self::ErofsFiles,
            "erofs-loop" => Self::ErofsLoops,
            "auto" => Self::Auto,
            _ => return Err("must be dirs, erofs, erofs-file, erofs-loop or auto"),
        })
    }
}

impl Layout {
    /// The ways to mount an index, in the order to try them.
    pub(crate) const fn rungs(self) -> &'static [Rung] {
        match self {
            Self::ErofsFiles => &[Rung::Files],
            Self::ErofsLoops => &[Rung::Loops],
            Self::Directories | Self::Erofs | Self::Auto => &[Rung::Files, Rung::Loops],
        }
    }
}

/// What new layers become, and how they are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    Directories,
    Index(Rung),
}

impl fmt::Display for Choice {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str(match self {
            Self::Directories => "directories",
            Self::Index(Rung::Files) => "EROFS, file-backed",
            Self::Index(Rung::Loops) => "EROFS, loop devices",
        })
    }
}

/// What is mounted for a part of a chain.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Directory(Digest),
    /// Neighbours, top first.
    Run(Vec<Digest>),
}

/// A chain, top first.
struct Pieces {
    /// What to mount.
    shown: Vec<Piece>,
    /// The layers that the lowest of those hides.
    hidden: Vec<(Digest, Form)>,
}

fn pieces(layers: &[(Digest, Form)]) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for (chain, form) in layers {
        match (form, pieces.last_mut()) {
            (Form::Directory, _) => pieces.push(Piece::Directory(*chain)),
            (Form::Index, Some(Piece::Run(run))) => run.push(*chain),
            (Form::Index, _) => pieces.push(Piece::Run(vec![*chain])),
        }
    }
    pieces
}

/// Directories of layers, top first, there to be mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lowers {
    pub paths: Vec<PathBuf>,
    /// Keeps them where they are.
    pub(crate) in_use: InUse,
}

impl Storage {
    /// The directories to mount for a chain. Shorter than the chain when a layer hides all that is
    /// below it, or several are mounted as one.
    pub fn lowers(&self, chain: &Digest) -> Result<Lowers, StorageError> {
        let in_use = self.mounts().use_them();
        let mut paths = Vec::new();
        let Pieces { shown, mut hidden } = self.pieces(chain)?;
        for piece in shown.into_iter().rev() {
            // Only the lowest piece is next to what is hidden.
            let hidden = std::mem::take(&mut hidden);
            match piece {
                Piece::Directory(chain) => paths.insert(0, self.diff(&chain)),
                Piece::Run(run) if self.rung().is_ok() => {
                    let layers = run.into_iter().rev().collect();
                    let run = Run { layers, lowers: paths.clone(), hidden };
                    paths.insert(0, self.mounts().ensure(self.root(), &run)?);
                }
                Piece::Run(run) => {
                    for chain in run.iter().rev() {
                        let diff = self.unpacked_again(chain, &paths)?;
                        paths.insert(0, diff);
                    }
                }
            }
        }
        Ok(Lowers { paths, in_use })
    }

    /// Waits until images are mounted that nobody uses, and takes them from the host's table of
    /// mounts: for a thread of its own.
    pub fn put_mounts_aside_when_idle(&self) {
        self.mounts().put_aside_when_idle(self.root());
    }

    /// What [`Storage::lowers`] names, without mounting it.
    pub fn lower_names(&self, chain: &Digest) -> Result<Lowers, StorageError> {
        let name = |piece: &Piece| match piece {
            Piece::Directory(chain) => self.diff(chain),
            Piece::Run(run) => self.mounts().place(&run[0]),
        };
        let paths = self.pieces(chain)?.shown.iter().map(name).collect();
        Ok(Lowers { paths, in_use: InUse::default() })
    }

    /// What `info` says of the form of new layers.
    pub fn layout(&self) -> String {
        self.choice().to_string()
    }

    /// Takes the mounts of all images away, at the end of the daemon. Whoever uses one keeps it.
    pub fn unmount(&self) {
        self.mounts().unmount();
    }

    /// Makes the image of a chain whose top is an index, for the first container on it.
    pub(crate) fn prepare_image(&self, chain: &Digest) -> Result<(), StorageError> {
        match self.top_run(chain)? {
            Some(run) => self.mounts().build(self.root(), &run),
            None => Ok(()),
        }
    }

    /// Whether the image of a chain whose top is an index is there and is not what its layers
    /// make. Of layers that cannot be read others tell.
    pub(crate) fn image_is_wrong(&self, chain: &Digest) -> bool {
        let wrong = self.top_run(chain).and_then(|run| match run {
            Some(run) => crate::erofs::image_is_wrong(self.root(), &run),
            None => Ok(false),
        });
        wrong.unwrap_or_else(|error| {
            tracing::debug!(%chain, error = &error as &dyn std::error::Error, "image not checked");
            false
        })
    }

    /// What the image of a chain is made of, when its top is an index.
    fn top_run(&self, chain: &Digest) -> Result<Option<Run>, StorageError> {
        let Pieces { shown: mut pieces, hidden } = self.pieces(chain)?;
        if pieces.is_empty() {
            return Ok(None);
        }
        let Piece::Run(run) = pieces.remove(0) else { return Ok(None) };
        let below = match pieces.first() {
            Some(Piece::Directory(chain)) => self.lowers(chain)?.paths,
            _ => Vec::new(),
        };
        let layers = run.into_iter().rev().collect();
        let hidden = if pieces.is_empty() { hidden } else { Vec::new() };
        Ok(Some(Run { layers, lowers: below, hidden }))
    }

    fn pieces(&self, chain: &Digest) -> Result<Pieces, StorageError> {
        let view = self.store().begin_read()?;
        let (mut layers, mut hidden) = (Vec::new(), Vec::new());
        let mut hides = false;
        let mut next = Some(*chain);
        while let Some(chain) = next {
            let record: LayerRecord = find(&view, &chain)?;
            record.present(&chain)?;
            if hides { &mut hidden } else { &mut layers }.push((chain, record.form));
            hides |= record.opaque;
            next = record.parent;
        }
        Ok(Pieces { shown: pieces(&layers), hidden })
    }

    fn diff(&self, chain: &Digest) -> PathBuf {
        self.path().join("layers").join(chain.hex()).join("diff")
    }

    fn rung(&self) -> Result<Rung, StorageError> {
        self.mounts().rung(self.root()).map_err(|reason| StorageError::NoErofs { reason })
    }

    /// The directory of a layer that is an index, made from its tar. A crash leaves an ingest
    /// directory.
    fn unpacked_again(&self, chain: &Digest, lowers: &[PathBuf]) -> Result<PathBuf, StorageError> {
        let diff = self.diff(chain);
        let failed = |attempt| StorageError::file(attempt, diff.clone());
        let place = format!("layers/{}/diff", chain.hex());
        let _publish = self.publish();
        match statat(self.root(), &place, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => return Ok(diff),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed("look up")(errno)),
        }
        let record = find(&self.store().begin_read()?, chain)?;
        let tar = format!("layers/{}/tar", chain.hex());
        let tar = self.root().open_strict(tar, OFlags::RDONLY, Mode::empty());
        let mut tar = std::fs::File::from(tar.map_err(failed("unpack"))?).take(record.tar_size);
        let ingest = self.ingest()?;
        let job =
            Job { layer: ingest.path(), form: Form::Directory, lowers, limits: self.limits() };
        let unpacked = self.unpacker().unpack(&job, &mut tar)?;
        crate::storage::finish_unpacked(ingest.path(), Form::Directory)?;
        if unpacked.diff_id != record.diff_id {
            let reason = format!("its tar is {}, not {}", unpacked.diff_id, record.diff_id);
            return Err(StorageError::DataLoss { chain: *chain, reason });
        }
        let layer = self.root().open_strict(
            format!("layers/{}", chain.hex()),
            OFlags::RDONLY | OFlags::DIRECTORY,
            Mode::empty(),
        );
        let layer = layer.map_err(failed("open"))?;
        syncfs(&layer).map_err(failed("sync"))?;
        renameat(self.root(), format!("{}/diff", ingest.place()), &layer, "diff")
            .map_err(failed("create"))?;
        rustix::fs::fsync(&layer).map_err(failed("sync"))?;
        Ok(diff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::sha256;

    #[test]
    fn neighbours_become_one() {
        let [a, b, c, d] = [b"a", b"b", b"c", b"d"].map(|name| sha256(name));
        let (index, directory) = (Form::Index, Form::Directory);
        assert_eq!(
            pieces(&[(a, index), (b, index), (c, directory), (d, index)]),
            [Piece::Run(vec![a, b]), Piece::Directory(c), Piece::Run(vec![d])]
        );
        assert_eq!(pieces(&[]), []);
    }

    #[test]
    fn layouts_have_names() {
        assert_eq!("dirs".parse(), Ok(Layout::Directories));
        assert_eq!("erofs-loop".parse(), Ok(Layout::ErofsLoops));
        assert!("EROFS".parse::<Layout>().is_err());
    }
}

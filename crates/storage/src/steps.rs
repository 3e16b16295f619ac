//! What an entry of a layer's tar asks for, whichever form the layer gets.

use rustix::io::Errno;

use crate::error::StorageError;
use crate::names::{self, Meaning};
use crate::tar::{Entry, Kind};

/// Names the entry in errors.
#[derive(Debug)]
pub(crate) struct Subject<'entry>(pub &'entry [u8]);

impl Subject<'_> {
    pub(crate) fn refused(&self, reason: &'static str) -> StorageError {
        StorageError::Refused { path: String::from_utf8_lossy(self.0).into_owned(), reason }
    }

    pub(crate) fn failed(&self, attempt: &'static str) -> impl FnOnce(Errno) -> StorageError {
        let path = String::from_utf8_lossy(self.0).into_owned();
        move |errno| StorageError::Entry { attempt, path, errno }
    }
}

#[derive(Debug)]
pub(crate) enum Step<'entry> {
    /// AUFS left it behind.
    Nothing,
    /// Dresses the layer's root.
    Root,
    /// Does this in the directory that `parents` name.
    Below { parents: Vec<&'entry [u8]>, action: Action<'entry> },
}

#[derive(Debug)]
pub(crate) enum Action<'entry> {
    /// Hides what the layers below have there.
    HideAll,
    /// Hides this name.
    Hide(&'entry [u8]),
    /// Puts the entry under this name.
    Put(&'entry [u8]),
}

/// Reads an entry's name.
pub(crate) fn step<'entry>(
    entry: &'entry Entry,
    subject: &Subject<'_>,
) -> Result<Step<'entry>, StorageError> {
    let refused = |reason| subject.refused(reason);
    let mut parents = names::components(&entry.path).map_err(refused)?;
    let Some(name) = parents.pop() else {
        if entry.kind != Kind::Directory {
            return Err(refused("the root of a layer must be a directory"));
        }
        return Ok(Step::Root);
    };
    names::check_parents(&parents).map_err(refused)?;
    let action = match names::meaning(name).map_err(refused)? {
        Meaning::Ignored => return Ok(Step::Nothing),
        Meaning::Opaque => Action::HideAll,
        Meaning::Whiteout(hidden) => Action::Hide(hidden),
        // This is what overlay takes for a whiteout.
        Meaning::File if entry.kind == Kind::CharDevice && entry.device == (0, 0) => {
            Action::Hide(name)
        }
        Meaning::File => Action::Put(name),
    };
    Ok(Step::Below { parents, action })
}

/// The directory and the name that a hard link leads to.
pub(crate) fn link_target<'entry>(
    entry: &'entry Entry,
    subject: &Subject<'_>,
) -> Result<(Vec<u8>, &'entry [u8]), StorageError> {
    let components = names::components(&entry.link).map_err(|reason| subject.refused(reason))?;
    let (name, parents) =
        components.split_last().ok_or_else(|| subject.refused("hard link to the root"))?;
    Ok((parents.join(&b'/'), name))
}

/// Checks a node's device number: the kernel would cut off the rest, and could be left with a
/// whiteout.
pub(crate) fn check_device(entry: &Entry, subject: &Subject<'_>) -> Result<(), StorageError> {
    if entry.kind == Kind::Fifo {
        return Ok(());
    }
    if entry.device.0 > 0xfff || entry.device.1 > 0xf_ffff {
        return Err(subject.refused("device number out of range"));
    }
    Ok(())
}

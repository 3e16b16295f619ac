//! Commands as data: what they are called, what they take, what runs them.
//!
//! Parsing, help, completion and `__flags` all read the same [`COMMANDS`].

mod global;
mod groups;
mod table;

use crate::flags::Flag;

pub(crate) use global::GLOBAL;
pub(crate) use groups::{GROUPS, SECTIONS, UNSUPPORTED};
pub(crate) use table::COMMANDS;
use table::HIDDEN;

/// One command with all its spellings.
#[derive(Debug)]
pub(crate) struct Command {
    /// As help lists them; the last is the short form, where there is one.
    pub paths: &'static [&'static str],
    pub usage: &'static str,
    /// The first sentence, and more where help says more.
    pub about: &'static str,
    pub arity: Arity,
    /// False when everything from the first argument on belongs to a command in the container.
    pub interspersed: bool,
    pub flags: &'static [&'static [Flag]],
    pub action: Action,
}

impl Command {
    /// What lists of commands say about it.
    pub(crate) fn short(&self) -> &'static str {
        let (line, more) = self.about.split_once('\n').unwrap_or((self.about, ""));
        let sentence = line.split_once(". ").map_or(line, |(sentence, _)| sentence);
        // A full stop tells a sentence from the next one only.
        if more.is_empty() { sentence } else { sentence.trim_end_matches('.') }
    }

    /// The spelling help uses for `path`: aliases inside a group are shown by the first name.
    pub(crate) fn canonical(&self, path: &'static str) -> &'static str {
        match path.split_once(' ') {
            Some((group, _)) => self
                .paths
                .iter()
                .copied()
                .find(|known| known.split(' ').next() == Some(group))
                .unwrap_or(path),
            None => path,
        }
    }
}

/// How many arguments there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arity {
    Exactly(usize),
    AtLeast(usize),
    AtMost(usize),
    Between(usize, usize),
}

impl Arity {
    /// Docker's complaint about `count` arguments; `None` when there is nothing to complain about.
    pub(crate) fn complaint(self, count: usize) -> Option<String> {
        let arguments = |number| if number == 1 { "argument" } else { "arguments" };
        match self {
            Self::Exactly(wanted) if count == wanted => None,
            Self::Exactly(0) => Some("accepts no arguments".to_owned()),
            Self::Exactly(wanted) => Some(format!("requires {wanted} {}", arguments(wanted))),
            Self::AtLeast(least) if count >= least => None,
            Self::AtLeast(least) => Some(format!("requires at least {least} {}", arguments(least))),
            Self::AtMost(most) if count <= most => None,
            Self::AtMost(most) => Some(format!("requires at most {most} {}", arguments(most))),
            Self::Between(least, most) if (least..=most).contains(&count) => None,
            Self::Between(least, most) => {
                Some(format!("requires at least {least} and at most {most} {}", arguments(most)))
            }
        }
    }
}

/// What a command does; [`crate::dispatch`] has the one `match` over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    ContainerAttach,
    ContainerCommit,
    ContainerCp,
    ContainerCreate,
    ContainerDiff,
    ContainerExec,
    ContainerExport,
    ContainerInspect,
    ContainerKill,
    ContainerLogs,
    ContainerLs,
    ContainerPause,
    ContainerPort,
    ContainerPrune,
    ContainerRename,
    ContainerRestart,
    ContainerRm,
    ContainerRun,
    ContainerStart,
    ContainerStats,
    ContainerStop,
    ContainerTop,
    ContainerUnpause,
    ContainerUpdate,
    ContainerWait,
    ContextCreate,
    ContextExport,
    ContextImport,
    ContextInspect,
    ContextLs,
    ContextRm,
    ContextShow,
    ContextUpdate,
    ContextUse,
    Events,
    ImageHistory,
    ImageImport,
    ImageInspect,
    ImageLoad,
    ImageLs,
    ImagePrune,
    ImagePull,
    ImagePush,
    ImageRm,
    ImageSave,
    ImageTag,
    Info,
    Inspect,
    Login,
    Logout,
    NetworkConnect,
    NetworkCreate,
    NetworkDisconnect,
    NetworkInspect,
    NetworkLs,
    NetworkPrune,
    NetworkRm,
    Search,
    SystemCheck,
    SystemDf,
    SystemDialStdio,
    SystemPrune,
    Version,
    VolumeCreate,
    VolumeInspect,
    VolumeLs,
    VolumePrune,
    VolumeRm,
}

impl Action {
    /// True when the command may wait for something to print for as long as somebody reads it.
    pub(crate) fn is_endless(self) -> bool {
        matches!(self, Self::ContainerLogs | Self::ContainerStats | Self::Events)
    }

    /// True when the command works even if the endpoint that the user chose cannot be resolved,
    /// or looks at that itself.
    pub(crate) fn is_local(self) -> bool {
        matches!(
            self,
            Self::ContextCreate
                | Self::ContextExport
                | Self::ContextImport
                | Self::ContextInspect
                | Self::ContextLs
                | Self::ContextRm
                | Self::ContextShow
                | Self::ContextUpdate
                | Self::ContextUse
                | Self::Login
                | Self::Logout
        )
    }
}

/// Finds a command by the words it is called by.
pub(crate) fn find(path: &str) -> Option<(&'static Command, &'static str)> {
    COMMANDS.iter().chain(HIDDEN).find_map(|command| {
        let known = command.paths.iter().copied().find(|known| *known == path)?;
        Some((*command, command.canonical(known)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_commands_share_a_spelling() {
        let mut paths: Vec<&str> =
            COMMANDS.iter().flat_map(|command| command.paths.iter().copied()).collect();
        let count = paths.len();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), count);
    }

    #[test]
    fn no_two_flags_of_a_command_share_a_name() {
        for command in COMMANDS {
            let flags = || command.flags.iter().flat_map(|group| group.iter());
            let mut names: Vec<&str> = flags().map(|flag| flag.name).collect();
            names.extend(flags().map(|flag| flag.short).filter(|short| !short.is_empty()));
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{:?}", command.paths);
        }
    }

    #[test]
    fn arities_complain_in_dockers_words() {
        assert_eq!(Arity::Exactly(0).complaint(1).unwrap(), "accepts no arguments");
        assert_eq!(Arity::Exactly(2).complaint(1).unwrap(), "requires 2 arguments");
        assert_eq!(Arity::AtLeast(1).complaint(0).unwrap(), "requires at least 1 argument");
        assert_eq!(
            Arity::Between(1, 2).complaint(3).unwrap(),
            "requires at least 1 and at most 2 arguments"
        );
        assert_eq!(Arity::AtMost(1).complaint(1), None);
    }
}

//! Volumes.

use super::{Action, Arity, Command, INSPECT_FORMAT, TABLE_FORMAT};
use crate::flags::Kind::{Bool, Filter, Label, Map, Text};
use crate::flags::flag;

pub(crate) static CREATE: Command = Command {
    paths: &["volume create"],
    usage: "[OPTIONS] [VOLUME]",
    about: "Create a volume",
    arity: Arity::AtMost(1),
    interspersed: true,
    flags: &[&[
        flag("driver", "d", Text, "local", "Specify volume driver name"),
        flag("label", "", Label, "", "Set metadata for a volume"),
        flag("opt", "o", Map, "map[]", "Set driver specific options"),
        flag("name", "", Text, "", "Specify volume name").hidden(),
    ]],
    action: Action::VolumeCreate,
};

pub(crate) static INSPECT: Command = Command {
    paths: &["volume inspect"],
    usage: "[OPTIONS] VOLUME [VOLUME...]",
    about: "Display detailed information on one or more volumes",
    arity: Arity::AtLeast(1),
    interspersed: true,
    flags: &[&[flag("format", "f", Text, "", INSPECT_FORMAT)]],
    action: Action::VolumeInspect,
};

pub(crate) static LS: Command = Command {
    paths: &["volume ls", "volume list"],
    usage: "[OPTIONS]",
    about: "List volumes",
    arity: Arity::Exactly(0),
    interspersed: true,
    flags: &[&[
        flag("filter", "f", Filter, "", "Provide filter values (e.g. \"dangling=true\")"),
        flag("format", "", Text, "", TABLE_FORMAT),
        flag("quiet", "q", Bool, "", "Only display volume names"),
    ]],
    action: Action::VolumeLs,
};

pub(crate) static PRUNE: Command = Command {
    paths: &["volume prune"],
    usage: "[OPTIONS]",
    about: "Remove unused local volumes",
    arity: Arity::Exactly(0),
    interspersed: true,
    flags: &[&[
        flag("all", "a", Bool, "", "Remove all unused volumes, not just anonymous ones"),
        flag("filter", "", Filter, "", "Provide filter values (e.g. \"label=<label>\")"),
        flag("force", "f", Bool, "", "Do not prompt for confirmation"),
    ]],
    action: Action::VolumePrune,
};

pub(crate) static RM: Command = Command {
    paths: &["volume rm", "volume remove"],
    usage: "[OPTIONS] VOLUME [VOLUME...]",
    about: "Remove one or more volumes. You cannot remove a volume that is in use by a container.",
    arity: Arity::AtLeast(1),
    interspersed: true,
    flags: &[&[flag("force", "f", Bool, "", "Force the removal of one or more volumes")]],
    action: Action::VolumeRm,
};

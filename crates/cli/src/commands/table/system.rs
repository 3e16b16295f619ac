//! The daemon as a whole, and `inspect` of anything.

use super::{Action, Arity, Command, INSPECT_FORMAT, KEEP_LAST, TABLE_FORMAT};
use crate::flags::Kind::{Bool, Filter, Int, Text};
use crate::flags::flag;

/// Not one of Docker's.
pub(crate) static CHECK: Command = Command {
    paths: &["system check"],
    usage: "[OPTIONS]",
    about: "Verify images, layers, containers and volumes on the disk, and repair them",
    arity: Arity::Exactly(0),
    interspersed: true,
    flags: &[&[
        flag("format", "", Text, "", "Format the output: 'json' prints the report as JSON"),
        flag(
            "quick",
            "",
            Bool,
            "",
            "Look whether files are there in their sizes, without reading them",
        ),
        flag("quiet", "q", Bool, "", "Print nothing but problems"),
        flag(
            "repair",
            "",
            Bool,
            "",
            "Remove what nobody has, correct what is wrong, set aside damaged layers",
        ),
    ]],
    action: Action::SystemCheck,
};

pub(crate) static DF: Command = Command {
    paths: &["system df"],
    usage: "[OPTIONS]",
    about: "Show docker disk usage",
    arity: Arity::Exactly(0),
    interspersed: true,
    flags: &[&[
        flag("format", "", Text, "", TABLE_FORMAT),
        flag("verbose", "v", Bool, "", "Show detailed information on space usage"),
    ]],
    action: Action::SystemDf,
};

pub(crate) static EVENTS: Command = Command {
    paths: &["system events", "events"],
    usage: "[OPTIONS]",
    about: "Get real time events from the server",
    arity: Arity::Exactly(0),
    interspersed: true,
    flags: &[&[
        flag("filter", "f", Filter, "", "Filter output based on conditions provided"),
        flag("format", "", Text, "", INSPECT_FORMAT),
        flag("since", "", Text, "", "Show all events created since timestamp"),
        flag("until", "", Text, "", "Stream events until this timestamp"),
    ]],
    action: Action::Events,
};

pub(crate) static INFO: Command = Command {
    paths: &["system info", "info"],
    usage: "[OPTIONS]",
    about: "Display system-wide information",
    arity: Arity::Exactly(0),
    interspersed: true,
    flags: &[&[flag("format", "f", Text, "", INSPECT_FORMAT)]],
    action: Action::Info,
};

pub(crate) static PRUNE: Command = Command {
    paths: &["system prune"],
    usage: "[OPTIONS]",
    about: "Remove unused data",
    arity: Arity::Exactly(0),
    interspersed: true,
    flags: &[&[
        flag("all", "a", Bool, "", "Remove all unused images not just dangling ones"),
        flag("filter", "", Filter, "", "Provide filter values (e.g. \"label=<key>=<value>\")"),
        flag("force", "f", Bool, "", "Do not prompt for confirmation"),
        KEEP_LAST,
        flag("volumes", "", Bool, "", "Prune anonymous volumes"),
    ]],
    action: Action::SystemPrune,
};

pub(crate) static VERSION: Command = Command {
    paths: &["version"],
    usage: "[OPTIONS]",
    about: "Show the Docker version information",
    arity: Arity::Exactly(0),
    interspersed: true,
    flags: &[&[flag("format", "f", Text, "", INSPECT_FORMAT)]],
    action: Action::Version,
};

pub(crate) static INSPECT: Command = Command {
    paths: &["inspect"],
    usage: "[OPTIONS] NAME|ID [NAME|ID...]",
    about: "Return low-level information on Docker objects",
    arity: Arity::AtLeast(1),
    interspersed: true,
    flags: &[&[
        flag("format", "f", Text, "", INSPECT_FORMAT),
        flag("size", "s", Bool, "", "Display total file sizes if the type is container"),
        flag("type", "", Text, "", "Only inspect objects of the given type"),
    ]],
    action: Action::Inspect,
};

pub(crate) static DIAL_STDIO: Command = Command {
    paths: &["system dial-stdio"],
    usage: "",
    about: "Proxy the stdio stream to the daemon connection. Should not be invoked manually.",
    arity: Arity::Exactly(0),
    interspersed: true,
    flags: &[],
    action: Action::SystemDialStdio,
};

pub(crate) static SEARCH: Command = Command {
    paths: &["search"],
    usage: "[OPTIONS] TERM",
    about: "Search Docker Hub for images",
    arity: Arity::Exactly(1),
    interspersed: true,
    flags: &[&[
        flag("filter", "f", Filter, "", "Filter output based on conditions provided"),
        flag("format", "", Text, "", "Pretty-print search using a Go template"),
        flag("limit", "", Int, "", "Max number of search results"),
        flag("no-trunc", "", Bool, "", "Don't truncate output"),
    ]],
    action: Action::Search,
};

pub(crate) static LOGIN: Command = Command {
    paths: &["login"],
    usage: "[OPTIONS] [SERVER]",
    about: "Authenticate to a registry.\nDefaults to Docker Hub if no server is specified.",
    arity: Arity::AtMost(1),
    interspersed: true,
    flags: &[&[
        flag("password", "p", Text, "", "Password or Personal Access Token (PAT)"),
        flag(
            "password-stdin",
            "",
            Bool,
            "",
            "Take the Password or Personal Access Token (PAT) from stdin",
        ),
        flag("username", "u", Text, "", "Username"),
    ]],
    action: Action::Login,
};

pub(crate) static LOGOUT: Command = Command {
    paths: &["logout"],
    usage: "[SERVER]",
    about: "Log out from a registry.\n\
            If no server is specified, the default is defined by the daemon.",
    arity: Arity::AtMost(1),
    interspersed: true,
    flags: &[],
    action: Action::Logout,
};

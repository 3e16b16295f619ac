//! The table of every command, one file a family: names, usage, flags, and what runs them.

mod container;
mod context;
mod image;
mod network;
mod run;
mod system;
mod volume;

use super::{Action, Arity, Command};
use crate::flags::Kind::Int;
use crate::flags::{Flag, flag};

const INSPECT_FORMAT: &str = "Format output using a custom template:\n\
    'json':             Print in JSON format\n\
    'TEMPLATE':         Print output using the given Go template.\n\
    Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates";

/// Of both prunes that remove images.
const KEEP_LAST: Flag = flag(
    "keep-last",
    "",
    Int,
    "",
    "With --all, keep this many of the newest images of each repository",
);

const TABLE_FORMAT: &str = "Format output using a custom template:\n\
    'table':            Print output in table format with column headers (default)\n\
    'table TEMPLATE':   Print output in table format using the given Go template\n\
    'json':             Print in JSON format\n\
    'TEMPLATE':         Print output using the given Go template.\n\
    Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates";

/// Commands that work and that no list shows: other programs call them.
pub(crate) static HIDDEN: &[&Command] = &[&system::DIAL_STDIO];

/// Every command. A path is found by trying them all: there are few, and it is done once.
pub(crate) static COMMANDS: &[&Command] = &[
    &container::ATTACH,
    &container::COMMIT,
    &container::CP,
    &container::DIFF,
    &container::EXEC,
    &container::EXPORT,
    &container::INSPECT,
    &container::KILL,
    &container::LOGS,
    &container::LS,
    &container::PAUSE,
    &container::PORT,
    &container::PRUNE,
    &container::RENAME,
    &container::RESTART,
    &container::RM,
    &container::START,
    &container::STATS,
    &container::STOP,
    &container::TOP,
    &container::UNPAUSE,
    &container::UPDATE,
    &container::WAIT,
    &image::HISTORY,
    &image::IMPORT,
    &image::INSPECT,
    &image::LOAD,
    &image::LS,
    &image::PRUNE,
    &image::PULL,
    &image::PUSH,
    &image::RM,
    &image::SAVE,
    &image::TAG,
    &network::CONNECT,
    &network::CREATE,
    &network::DISCONNECT,
    &network::INSPECT,
    &network::LS,
    &network::PRUNE,
    &network::RM,
    &volume::CREATE,
    &volume::INSPECT,
    &volume::LS,
    &volume::PRUNE,
    &volume::RM,
    &system::CHECK,
    &system::DF,
    &system::EVENTS,
    &system::INFO,
    &system::PRUNE,
    &system::VERSION,
    &system::INSPECT,
    &system::LOGIN,
    &system::LOGOUT,
    &system::SEARCH,
    &context::CREATE,
    &context::EXPORT,
    &context::IMPORT,
    &context::INSPECT,
    &context::LS,
    &context::RM,
    &context::SHOW,
    &context::UPDATE,
    &context::USE,
    &run::RUN,
    &run::CREATE,
];

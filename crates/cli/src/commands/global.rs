//! The flags in front of the command.

use crate::flags::Kind::{Bool, List, Text};
use crate::flags::{Flag, flag};

/// Defaults that name the home directory are shown by [`crate::help`].
pub(crate) static GLOBAL: &[Flag] = &[
    flag("config", "", Text, "", "Location of client config files"),
    flag(
        "context",
        "c",
        Text,
        "",
        "Name of the context to use to connect to the daemon (overrides DOCKER_HOST env var and \
         default context set with \"docker context use\")",
    ),
    flag("debug", "D", Bool, "", "Enable debug mode"),
    flag("host", "H", List, "", "Daemon socket to connect to"),
    flag(
        "log-level",
        "l",
        Text,
        "info",
        "Set the logging level (\"debug\", \"info\", \"warn\", \"error\", \"fatal\")",
    ),
    flag("tls", "", Bool, "", "Use TLS; implied by --tlsverify"),
    flag("tlscacert", "", Text, "", "Trust certs signed only by this CA"),
    flag("tlscert", "", Text, "", "Path to TLS certificate file"),
    flag("tlskey", "", Text, "", "Path to TLS key file"),
    flag("tlsverify", "", Bool, "", "Use TLS and verify the remote"),
    flag("version", "v", Bool, "", "Print version information and quit"),
];

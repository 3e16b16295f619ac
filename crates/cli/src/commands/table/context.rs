//! Contexts.

use super::{Action, Arity, Command, INSPECT_FORMAT, TABLE_FORMAT};
use crate::flags::Kind::{Bool, Pairs, Text};
use crate::flags::flag;

pub(crate) static INSPECT: Command = Command {
    paths: &["context inspect"],
    usage: "[OPTIONS] [CONTEXT] [CONTEXT...]",
    about: "Display detailed information on one or more contexts",
    arity: Arity::AtLeast(0),
    interspersed: true,
    flags: &[&[flag("format", "f", Text, "", INSPECT_FORMAT)]],
    action: Action::ContextInspect,
};

pub(crate) static LS: Command = Command {
    paths: &["context ls", "context list"],
    usage: "[OPTIONS]",
    about: "List contexts",
    arity: Arity::Exactly(0),
    interspersed: true,
    flags: &[&[
        flag("format", "", Text, "", TABLE_FORMAT),
        flag("quiet", "q", Bool, "", "Only show context names"),
    ]],
    action: Action::ContextLs,
};

pub(crate) static SHOW: Command = Command {
    paths: &["context show"],
    usage: "",
    about: "Print the name of the current context",
    arity: Arity::Exactly(0),
    interspersed: true,
    flags: &[],
    action: Action::ContextShow,
};

pub(crate) static CREATE: Command = Command {
    paths: &["context create"],
    usage: "[OPTIONS] CONTEXT",
    about: "Create a context\n\nDocker endpoint config:\n\n\
            NAME                DESCRIPTION\n\
            from                Copy named context's Docker endpoint configuration\n\
            host                Docker endpoint on which to connect\n\
            ca                  Trust certs signed only by this CA\n\
            cert                Path to TLS certificate file\n\
            key                 Path to TLS key file\n\
            skip-tls-verify     Skip TLS certificate validation\n\nExample:\n\n\
            $ docker context create my-context --description \"some description\" --docker \
            \"host=tcp://myserver:2376,ca=~/ca-file,cert=~/cert-file,key=~/key-file\"",
    arity: Arity::Exactly(1),
    interspersed: true,
    flags: &[&[
        flag("description", "", Text, "", "Description of the context"),
        flag("docker", "", Pairs, "[]", "set the docker endpoint"),
        flag("from", "", Text, "", "create context from a named context"),
    ]],
    action: Action::ContextCreate,
};

pub(crate) static EXPORT: Command = Command {
    paths: &["context export"],
    usage: "[OPTIONS] CONTEXT [FILE|-]",
    about: "Export a context to a tar archive FILE or a tar stream on STDOUT.",
    arity: Arity::Between(1, 2),
    interspersed: true,
    flags: &[],
    action: Action::ContextExport,
};

pub(crate) static IMPORT: Command = Command {
    paths: &["context import"],
    usage: "CONTEXT FILE|-",
    about: "Import a context from a tar or zip file",
    arity: Arity::Exactly(2),
    interspersed: true,
    flags: &[],
    action: Action::ContextImport,
};

pub(crate) static RM: Command = Command {
    paths: &["context rm", "context remove"],
    usage: "CONTEXT [CONTEXT...]",
    about: "Remove one or more contexts",
    arity: Arity::AtLeast(1),
    interspersed: true,
    flags: &[&[flag("force", "f", Bool, "", "Force the removal of a context in use")]],
    action: Action::ContextRm,
};

pub(crate) static UPDATE: Command = Command {
    paths: &["context update"],
    usage: "[OPTIONS] CONTEXT",
    about: "Update a context\n\nDocker endpoint config:\n\n\
            NAME                DESCRIPTION\n\
            from                Copy named context's Docker endpoint configuration\n\
            host                Docker endpoint on which to connect\n\
            ca                  Trust certs signed only by this CA\n\
            cert                Path to TLS certificate file\n\
            key                 Path to TLS key file\n\
            skip-tls-verify     Skip TLS certificate validation\n\nExample:\n\n\
            $ docker context update my-context --description \"some description\" --docker \
            \"host=tcp://myserver:2376,ca=~/ca-file,cert=~/cert-file,key=~/key-file\"",
    arity: Arity::Exactly(1),
    interspersed: true,
    flags: &[&[
        flag("description", "", Text, "", "Description of the context"),
        flag("docker", "", Pairs, "[]", "set the docker endpoint"),
    ]],
    action: Action::ContextUpdate,
};

pub(crate) static USE: Command = Command {
    paths: &["context use"],
    usage: "CONTEXT",
    about: "Set the current docker context",
    arity: Arity::Exactly(1),
    interspersed: true,
    flags: &[],
    action: Action::ContextUse,
};

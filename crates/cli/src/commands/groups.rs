//! Groups of commands, the sections of the top-level help, and docker's commands we do not have.

#[derive(Debug)]
pub(crate) struct Group {
    pub name: &'static str,
    pub about: &'static str,
}

pub(crate) static GROUPS: &[Group] = &[
    Group { name: "container", about: "Manage containers" },
    Group { name: "context", about: "Manage contexts" },
    Group { name: "image", about: "Manage images" },
    Group { name: "network", about: "Manage networks" },
    Group { name: "system", about: "Manage Docker" },
    Group { name: "volume", about: "Manage volumes" },
];

/// The top-level commands of the first section of help; the others follow by name.
pub(crate) static SECTIONS: &[&str] = &[
    "run", "exec", "ps", "pull", "push", "images", "login", "logout", "search", "version", "info",
];

/// Docker's commands that exist there and not yet here. Naming them keeps a missing feature from
/// looking like a typing mistake.
pub(crate) static UNSUPPORTED: &[&str] = &[
    "build",
    "builder",
    "buildx",
    "checkpoint",
    "config",
    "container build",
    "image build",
    "manifest",
    "node",
    "plugin",
    "secret",
    "service",
    "stack",
    "swarm",
    "trust",
    "volume update",
];

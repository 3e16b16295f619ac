//! Images.

use super::{Action, Arity, Command, INSPECT_FORMAT, KEEP_LAST, TABLE_FORMAT};
use crate::flags::Kind::{Bool, Filter, List, Strings, Text};
use crate::flags::flag;

pub(crate) static HISTORY: Command = Command {
    paths: &["image history", "history"],
    usage: "[OPTIONS] IMAGE",
    about: "Show the history of an image",
    arity: Arity::Exactly(1),
    interspersed: true,
    flags: &[&[
        flag("format", "", Text, "", TABLE_FORMAT),
        flag("human", "H", Bool, "true", "Print sizes and dates in human readable format"),
        flag("no-trunc", "", Bool, "", "Don't truncate output"),
        flag(
            "platform",
            "",
            Text,
            "",
            "Show history for the given platform. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")",
        ),
        flag("quiet", "q", Bool, "", "Only show image IDs"),
    ]],
    action: Action::ImageHistory,
};

pub(crate) static IMPORT: Command = Command {
    paths: &["image import", "import"],
    usage: "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    about: "Import the contents from a tarball to create a filesystem image",
    arity: Arity::AtLeast(1),
    interspersed: true,
    flags: &[&[
        flag("change", "c", List, "", "Apply Dockerfile instruction to the created image"),
        flag("message", "m", Text, "", "Set commit message for imported image"),
        flag("platform", "", Text, "", "Set platform if server is multi-platform capable"),
    ]],
    action: Action::ImageImport,
};

pub(crate) static INSPECT: Command = Command {
    paths: &["image inspect"],
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Display detailed information on one or more images",
    arity: Arity::AtLeast(1),
    interspersed: true,
    flags: &[&[
        flag("format", "f", Text, "", INSPECT_FORMAT),
        flag(
            "platform",
            "",
            Text,
            "",
            "Inspect a specific platform of the multi-platform image.\nIf the image or the server is not multi-platform capable, the command will error out if the platform does not match.\n'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)",
        ),
    ]],
    action: Action::ImageInspect,
};

pub(crate) static LOAD: Command = Command {
    paths: &["image load", "load"],
    usage: "[OPTIONS]",
    about: "Load an image from a tar archive or STDIN",
    arity: Arity::Exactly(0),
    interspersed: true,
    flags: &[&[
        flag("input", "i", Text, "", "Read from tar archive file, instead of STDIN"),
        flag(
            "platform",
            "",
            Text,
            "",
            "Load only the given platform variant. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")",
        ),
        flag("quiet", "q", Bool, "", "Suppress the load output"),
    ]],
    action: Action::ImageLoad,
};

pub(crate) static LS: Command = Command {
    paths: &["image ls", "image list", "images"],
    usage: "[OPTIONS] [REPOSITORY[:TAG]]",
    about: "List images",
    arity: Arity::AtMost(1),
    interspersed: true,
    flags: &[&[
        flag("all", "a", Bool, "", "Show all images (default hides intermediate images)"),
        flag("digests", "", Bool, "", "Show digests"),
        flag("filter", "f", Filter, "", "Filter output based on conditions provided"),
        flag("format", "", Text, "", TABLE_FORMAT),
        flag("no-trunc", "", Bool, "", "Don't truncate output"),
        flag("quiet", "q", Bool, "", "Only show image IDs"),
        flag("tree", "", Bool, "", "List multi-platform images as a tree (EXPERIMENTAL)"),
    ]],
    action: Action::ImageLs,
};

pub(crate) static PRUNE: Command = Command {
    paths: &["image prune"],
    usage: "[OPTIONS]",
    about: "Remove unused images",
    arity: Arity::Exactly(0),
    interspersed: true,
    flags: &[&[
        flag("all", "a", Bool, "", "Remove all unused images, not just dangling ones"),
        flag("filter", "", Filter, "", "Provide filter values (e.g. \"until=<timestamp>\")"),
        flag("force", "f", Bool, "", "Do not prompt for confirmation"),
        KEEP_LAST,
    ]],
    action: Action::ImagePrune,
};

pub(crate) static PULL: Command = Command {
    paths: &["image pull", "pull"],
    usage: "[OPTIONS] NAME[:TAG|@DIGEST]",
    about: "Download an image from a registry",
    arity: Arity::Exactly(1),
    interspersed: true,
    flags: &[&[
        flag("all-tags", "a", Bool, "", "Download all tagged images in the repository"),
        flag("disable-content-trust", "", Bool, "true", "Skip image verification"),
        flag("platform", "", Text, "", "Set platform if server is multi-platform capable"),
        flag("quiet", "q", Bool, "", "Suppress verbose output"),
    ]],
    action: Action::ImagePull,
};

pub(crate) static PUSH: Command = Command {
    paths: &["image push", "push"],
    usage: "[OPTIONS] NAME[:TAG]",
    about: "Upload an image to a registry",
    arity: Arity::Exactly(1),
    interspersed: true,
    flags: &[&[
        flag("all-tags", "a", Bool, "", "Push all tags of an image to the repository"),
        flag("disable-content-trust", "", Bool, "true", "Skip image signing"),
        flag(
            "platform",
            "",
            Text,
            "",
            "Push a platform-specific manifest as a single-platform image to the registry.\nImage index won't be pushed, meaning that other manifests, including attestations won't be preserved.\n'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)",
        ),
        flag("quiet", "q", Bool, "", "Suppress verbose output"),
    ]],
    action: Action::ImagePush,
};

pub(crate) static RM: Command = Command {
    paths: &["image rm", "image remove", "rmi"],
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Remove one or more images",
    arity: Arity::AtLeast(1),
    interspersed: true,
    flags: &[&[
        flag("force", "f", Bool, "", "Force removal of the image"),
        flag("no-prune", "", Bool, "", "Do not delete untagged parents"),
        flag(
            "platform",
            "",
            Strings,
            "",
            "Remove only the given platform variant. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")",
        ),
    ]],
    action: Action::ImageRm,
};

pub(crate) static SAVE: Command = Command {
    paths: &["image save", "save"],
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Save one or more images to a tar archive (streamed to STDOUT by default)",
    arity: Arity::AtLeast(1),
    interspersed: true,
    flags: &[&[
        flag("output", "o", Text, "", "Write to a file, instead of STDOUT"),
        flag(
            "platform",
            "",
            Text,
            "",
            "Save only the given platform variant. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")",
        ),
    ]],
    action: Action::ImageSave,
};

pub(crate) static TAG: Command = Command {
    paths: &["image tag", "tag"],
    usage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    about: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    arity: Arity::Exactly(2),
    interspersed: true,
    flags: &[],
    action: Action::ImageTag,
};

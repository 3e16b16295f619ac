//! Containers: every command below `container`, except `run` and `create`.

use super::{Action, Arity, Command, INSPECT_FORMAT, TABLE_FORMAT};
use crate::flags::Kind::{Bool, Bytes, Cpus, Env, Filter, Int, List, SwapBytes, Text, Uint16};
use crate::flags::flag;

pub(crate) static ATTACH: Command = Command {
    paths: &["container attach", "attach"],
    usage: "[OPTIONS] CONTAINER",
    about: "Attach local standard input, output, and error streams to a running container",
    arity: Arity::Exactly(1),
    interspersed: true,
    flags: &[&[
        flag("detach-keys", "", Text, "", "Override the key sequence for detaching a container"),
        flag("no-stdin", "", Bool, "", "Do not attach STDIN"),
        flag("sig-proxy", "", Bool, "true", "Proxy all received signals to the process"),
    ]],
    action: Action::ContainerAttach,
};

pub(crate) static COMMIT: Command = Command {
    paths: &["container commit", "commit"],
    usage: "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    about: "Create a new image from a container's changes",
    arity: Arity::Between(1, 2),
    interspersed: true,
    flags: &[&[
        flag(
            "author",
            "a",
            Text,
            "",
            "Author (e.g., \"John Hannibal Smith <hannibal@a-team.com>\")",
        ),
        flag("change", "c", List, "", "Apply Dockerfile instruction to the created image"),
        flag("message", "m", Text, "", "Commit message"),
        flag("pause", "p", Bool, "true", "Pause container during commit"),
    ]],
    action: Action::ContainerCommit,
};

pub(crate) static CP: Command = Command {
    paths: &["container cp", "cp"],
    usage: "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tdocker cp [OPTIONS] SRC_PATH|- \
            CONTAINER:DEST_PATH",
    about: "Copy files/folders between a container and the local filesystem\n\n\
            Use '-' as the source to read a tar archive from stdin\n\
            and extract it to a directory destination in a container.\n\
            Use '-' as the destination to stream a tar archive of a\n\
            container source to stdout.",
    arity: Arity::Exactly(2),
    interspersed: true,
    flags: &[&[
        flag("archive", "a", Bool, "", "Archive mode (copy all uid/gid information)"),
        flag("follow-link", "L", Bool, "", "Always follow symbol link in SRC_PATH"),
        flag(
            "quiet",
            "q",
            Bool,
            "",
            "Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached",
        ),
    ]],
    action: Action::ContainerCp,
};

pub(crate) static DIFF: Command = Command {
    paths: &["container diff", "diff"],
    usage: "CONTAINER",
    about: "Inspect changes to files or directories on a container's filesystem",
    arity: Arity::Exactly(1),
    interspersed: true,
    flags: &[],
    action: Action::ContainerDiff,
};

pub(crate) static EXEC: Command = Command {
    paths: &["container exec", "exec"],
    usage: "[OPTIONS] CONTAINER COMMAND [ARG...]",
    about: "Execute a command in a running container",
    arity: Arity::AtLeast(2),
    interspersed: false,
    flags: &[&[
        flag("detach", "d", Bool, "", "Detached mode: run command in the background"),
        flag("detach-keys", "", Text, "", "Override the key sequence for detaching a container"),
        flag("env", "e", Env, "", "Set environment variables"),
        flag("env-file", "", List, "", "Read in a file of environment variables"),
        flag("interactive", "i", Bool, "", "Keep STDIN open even if not attached"),
        flag("privileged", "", Bool, "", "Give extended privileges to the command"),
        flag("tty", "t", Bool, "", "Allocate a pseudo-TTY"),
        flag("user", "u", Text, "", "Username or UID (format: \"<name|uid>[:<group|gid>]\")"),
        flag("workdir", "w", Text, "", "Working directory inside the container"),
    ]],
    action: Action::ContainerExec,
};

pub(crate) static EXPORT: Command = Command {
    paths: &["container export", "export"],
    usage: "[OPTIONS] CONTAINER",
    about: "Export a container's filesystem as a tar archive",
    arity: Arity::Exactly(1),
    interspersed: true,
    flags: &[&[flag("output", "o", Text, "", "Write to a file, instead of STDOUT")]],
    action: Action::ContainerExport,
};

pub(crate) static INSPECT: Command = Command {
    paths: &["container inspect"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Display detailed information on one or more containers",
    arity: Arity::AtLeast(1),
    interspersed: true,
    flags: &[&[
        flag("format", "f", Text, "", INSPECT_FORMAT),
        flag("size", "s", Bool, "", "Display total file sizes"),
    ]],
    action: Action::ContainerInspect,
};

pub(crate) static KILL: Command = Command {
    paths: &["container kill", "kill"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Kill one or more running containers",
    arity: Arity::AtLeast(1),
    interspersed: true,
    flags: &[&[flag("signal", "s", Text, "", "Signal to send to the container")]],
    action: Action::ContainerKill,
};

pub(crate) static LOGS: Command = Command {
    paths: &["container logs", "logs"],
    usage: "[OPTIONS] CONTAINER",
    about: "Fetch the logs of a container",
    arity: Arity::Exactly(1),
    interspersed: true,
    flags: &[&[
        flag("details", "", Bool, "", "Show extra details provided to logs"),
        flag("follow", "f", Bool, "", "Follow log output"),
        flag(
            "since",
            "",
            Text,
            "",
            "Show logs since timestamp (e.g. \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\" for 42 minutes)",
        ),
        flag("tail", "n", Text, "all", "Number of lines to show from the end of the logs"),
        flag("timestamps", "t", Bool, "", "Show timestamps"),
        flag(
            "until",
            "",
            Text,
            "",
            "Show logs before a timestamp (e.g. \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\" for 42 minutes)",
        ),
    ]],
    action: Action::ContainerLogs,
};

pub(crate) static LS: Command = Command {
    paths: &["container ls", "container list", "container ps", "ps"],
    usage: "[OPTIONS]",
    about: "List containers",
    arity: Arity::Exactly(0),
    interspersed: true,
    flags: &[&[
        flag("all", "a", Bool, "", "Show all containers (default shows just running)"),
        flag("filter", "f", Filter, "", "Filter output based on conditions provided"),
        flag("format", "", Text, "", TABLE_FORMAT),
        flag("last", "n", Int, "-1", "Show n last created containers (includes all states)"),
        flag("latest", "l", Bool, "", "Show the latest created container (includes all states)"),
        flag("no-trunc", "", Bool, "", "Don't truncate output"),
        flag("quiet", "q", Bool, "", "Only display container IDs"),
        flag("size", "s", Bool, "", "Display total file sizes"),
    ]],
    action: Action::ContainerLs,
};

pub(crate) static PAUSE: Command = Command {
    paths: &["container pause", "pause"],
    usage: "CONTAINER [CONTAINER...]",
    about: "Pause all processes within one or more containers",
    arity: Arity::AtLeast(1),
    interspersed: true,
    flags: &[],
    action: Action::ContainerPause,
};

pub(crate) static PORT: Command = Command {
    paths: &["container port", "port"],
    usage: "CONTAINER [PRIVATE_PORT[/PROTO]]",
    about: "List port mappings or a specific mapping for the container",
    arity: Arity::Between(1, 2),
    interspersed: true,
    flags: &[],
    action: Action::ContainerPort,
};

pub(crate) static PRUNE: Command = Command {
    paths: &["container prune"],
    usage: "[OPTIONS]",
    about: "Remove all stopped containers",
    arity: Arity::Exactly(0),
    interspersed: true,
    flags: &[&[
        flag("filter", "", Filter, "", "Provide filter values (e.g. \"until=<timestamp>\")"),
        flag("force", "f", Bool, "", "Do not prompt for confirmation"),
    ]],
    action: Action::ContainerPrune,
};

pub(crate) static RENAME: Command = Command {
    paths: &["container rename", "rename"],
    usage: "CONTAINER NEW_NAME",
    about: "Rename a container",
    arity: Arity::Exactly(2),
    interspersed: true,
    flags: &[],
    action: Action::ContainerRename,
};

pub(crate) static RESTART: Command = Command {
    paths: &["container restart", "restart"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Restart one or more containers",
    arity: Arity::AtLeast(1),
    interspersed: true,
    flags: &[&[
        flag("signal", "s", Text, "", "Signal to send to the container"),
        flag("timeout", "t", Int, "", "Seconds to wait before killing the container"),
        flag("time", "", Int, "", "Seconds to wait before killing the container")
            .deprecated("use --timeout instead"),
    ]],
    action: Action::ContainerRestart,
};

pub(crate) static RM: Command = Command {
    paths: &["container rm", "container remove", "rm"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Remove one or more containers",
    arity: Arity::AtLeast(1),
    interspersed: true,
    flags: &[&[
        flag("force", "f", Bool, "", "Force the removal of a running container (uses SIGKILL)"),
        flag("link", "l", Bool, "", "Remove the specified link"),
        flag("volumes", "v", Bool, "", "Remove anonymous volumes associated with the container"),
    ]],
    action: Action::ContainerRm,
};

pub(crate) static START: Command = Command {
    paths: &["container start", "start"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Start one or more stopped containers",
    arity: Arity::AtLeast(1),
    interspersed: true,
    flags: &[&[
        flag("attach", "a", Bool, "", "Attach STDOUT/STDERR and forward signals"),
        flag("detach-keys", "", Text, "", "Override the key sequence for detaching a container"),
        flag("interactive", "i", Bool, "", "Attach container's STDIN"),
        flag("checkpoint", "", Text, "", "Restore from this checkpoint").hidden(),
        flag("checkpoint-dir", "", Text, "", "Use a custom checkpoint storage directory").hidden(),
    ]],
    action: Action::ContainerStart,
};

pub(crate) static STATS: Command = Command {
    paths: &["container stats", "stats"],
    usage: "[OPTIONS] [CONTAINER...]",
    about: "Display a live stream of container(s) resource usage statistics",
    arity: Arity::AtLeast(0),
    interspersed: true,
    flags: &[&[
        flag("all", "a", Bool, "", "Show all containers (default shows just running)"),
        flag("format", "", Text, "", TABLE_FORMAT),
        flag("no-stream", "", Bool, "", "Disable streaming stats and only pull the first result"),
        flag("no-trunc", "", Bool, "", "Do not truncate output"),
    ]],
    action: Action::ContainerStats,
};

pub(crate) static STOP: Command = Command {
    paths: &["container stop", "stop"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Stop one or more running containers",
    arity: Arity::AtLeast(1),
    interspersed: true,
    flags: &[&[
        flag("signal", "s", Text, "", "Signal to send to the container"),
        flag("timeout", "t", Int, "", "Seconds to wait before killing the container"),
        flag("time", "", Int, "", "Seconds to wait before killing the container")
            .deprecated("use --timeout instead"),
    ]],
    action: Action::ContainerStop,
};

pub(crate) static TOP: Command = Command {
    paths: &["container top", "top"],
    usage: "CONTAINER [ps OPTIONS]",
    about: "Display the running processes of a container",
    arity: Arity::AtLeast(1),
    interspersed: false,
    flags: &[],
    action: Action::ContainerTop,
};

pub(crate) static UNPAUSE: Command = Command {
    paths: &["container unpause", "unpause"],
    usage: "CONTAINER [CONTAINER...]",
    about: "Unpause all processes within one or more containers",
    arity: Arity::AtLeast(1),
    interspersed: true,
    flags: &[],
    action: Action::ContainerUnpause,
};

pub(crate) static UPDATE: Command = Command {
    paths: &["container update", "update"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Update configuration of one or more containers",
    arity: Arity::AtLeast(1),
    interspersed: true,
    flags: &[&[
        flag(
            "blkio-weight",
            "",
            Uint16,
            "0",
            "Block IO (relative weight), between 10 and 1000, or 0 to disable",
        ),
        flag("cpu-period", "", Int, "", "Limit CPU CFS (Completely Fair Scheduler) period"),
        flag("cpu-quota", "", Int, "", "Limit CPU CFS (Completely Fair Scheduler) quota"),
        flag("cpu-rt-period", "", Int, "", "Limit the CPU real-time period in microseconds"),
        flag("cpu-rt-runtime", "", Int, "", "Limit the CPU real-time runtime in microseconds"),
        flag("cpu-shares", "c", Int, "", "CPU shares (relative weight)"),
        flag("cpus", "", Cpus, "", "Number of CPUs"),
        flag("cpuset-cpus", "", Text, "", "CPUs in which to allow execution (0-3, 0,1)"),
        flag("cpuset-mems", "", Text, "", "MEMs in which to allow execution (0-3, 0,1)"),
        flag("memory", "m", Bytes, "", "Memory limit"),
        flag("memory-reservation", "", Bytes, "", "Memory soft limit"),
        flag(
            "memory-swap",
            "",
            SwapBytes,
            "",
            "Swap limit equal to memory plus swap: -1 to enable unlimited swap",
        ),
        flag("pids-limit", "", Int, "", "Tune container pids limit (set -1 for unlimited)"),
        flag("restart", "", Text, "", "Restart policy to apply when a container exits"),
        flag("kernel-memory", "", Bytes, "", "Kernel memory limit (deprecated)").hidden(),
    ]],
    action: Action::ContainerUpdate,
};

pub(crate) static WAIT: Command = Command {
    paths: &["container wait", "wait"],
    usage: "CONTAINER [CONTAINER...]",
    about: "Block until one or more containers stop, then print their exit codes",
    arity: Arity::AtLeast(1),
    interspersed: true,
    flags: &[],
    action: Action::ContainerWait,
};

//! System call names and numbers, from a table that is part of the source.

/// A calling convention of the machine; each has its own numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Arch {
    X86_64,
    I386,
    /// 64-bit registers with 32-bit pointers; shares `AUDIT_ARCH_X86_64` and sets [`X32_BIT`].
    X32,
    Aarch64,
}

pub(super) const X32_BIT: u32 = 0x4000_0000;

impl Arch {
    pub(super) const NATIVE: Self =
        if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 };

    /// `AUDIT_ARCH_*`, as in `seccomp_data.arch`.
    pub(super) const fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::I386 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    const fn column(self) -> usize {
        match self {
            Self::X86_64 => 1,
            Self::I386 => 2,
            Self::X32 => 3,
            Self::Aarch64 => 4,
        }
    }
}

const TABLE: &str = include_str!("syscalls.tsv");

/// Every system call of an architecture, by name in the table's order; x32 without its bit.
pub(super) fn all(arch: Arch) -> impl Iterator<Item = (&'static str, u32)> {
    TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(move |line| {
        let mut fields = line.split('\t');
        let name = fields.next()?;
        Some((name, fields.nth(arch.column() - 1)?.parse().ok()?))
    })
}

/// Calls that i386 also makes through `socketcall` or `ipc`: the entrance's name and the call's
/// number there (its first argument). `send` and `recv` exist only so.
pub(super) fn multiplexed(name: &str) -> Option<(&'static str, u64)> {
    const SOCKET: [&str; 20] = [
        "socket",
        "bind",
        "connect",
        "listen",
        "accept",
        "getsockname",
        "getpeername",
        "socketpair",
        "send",
        "recv",
        "sendto",
        "recvfrom",
        "shutdown",
        "setsockopt",
        "getsockopt",
        "sendmsg",
        "recvmsg",
        "accept4",
        "recvmmsg",
        "sendmmsg",
    ];
    const IPC: [(&str, u64); 12] = [
        ("semop", 1),
        ("semget", 2),
        ("semctl", 3),
        ("semtimedop", 4),
        ("msgsnd", 11),
        ("msgrcv", 12),
        ("msgget", 13),
        ("msgctl", 14),
        ("shmat", 21),
        ("shmdt", 22),
        ("shmget", 23),
        ("shmctl", 24),
    ];
    if let Some((_, number)) = IPC.iter().find(|(known, _)| *known == name) {
        return Some(("ipc", *number));
    }
    let (_, number) = (1..)
        .zip(SOCKET)
        .map(|(number, known)| (known, number))
        .find(|(known, _)| *known == name)?;
    Some(("socketcall", number))
}

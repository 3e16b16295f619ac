//! Filters run by an interpreter, against a slow reading of the rules; and by the kernel.

use std::collections::{BTreeMap, BTreeSet};

use rustix::io::Errno;

use super::profile::{Action, Condition, Policy};
use super::syscalls::{self, Arch, X32_BIT};
use super::{Capabilities, Context, DEFAULT, Filter, Profile, compile, default_filter, emit};

const DOCKER: u64 = 0xa804_25fb;
const EVERY: u64 = (1 << 41) - 1;

fn bounding(bounding: u64) -> Capabilities {
    Capabilities { bounding, ..Capabilities::default() }
}

fn policy(profile: &str, capabilities: u64) -> Policy {
    Profile::parse(profile).unwrap().select(&Context { capabilities, kernel: (6, 1) }).unwrap()
}

/// A call as the filter sees it.
#[derive(Debug, Clone, Copy)]
struct Call {
    arch: u32,
    number: u32,
    arguments: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.arch,
            16.. => {
                let argument = self.arguments[(offset as usize - 16) / 8];
                if offset.is_multiple_of(8) { argument as u32 } else { (argument >> 32) as u32 }
            }
            _ => panic!("load at {offset}"),
        }
    }
}

/// Runs a filter. The second value tells whether the kernel could have foreseen the result from
/// number and architecture (`seccomp_is_const_allow`).
fn run(filter: &[[u8; 8]], call: &Call) -> (u32, bool) {
    let mut accumulator = 0;
    let mut foreseen = true;
    let mut at = 0;
    loop {
        let [c0, c1, if_true, if_false, k0, k1, k2, k3] = filter[at];
        let operand = u32::from_ne_bytes([k0, k1, k2, k3]);
        at += 1;
        let mut jump = |holds| at += usize::from(if holds { if_true } else { if_false });
        match u16::from_ne_bytes([c0, c1]) {
            emit::LOAD_WORD => {
                accumulator = call.word(operand);
                foreseen &= operand < 8;
            }
            emit::JUMP => at += operand as usize,
            emit::JUMP_EQUAL => jump(accumulator == operand),
            emit::JUMP_GREATER => jump(accumulator > operand),
            emit::JUMP_GREATER_OR_EQUAL => jump(accumulator >= operand),
            emit::AND => accumulator &= operand,
            emit::RETURN => return (operand, foreseen),
            other => panic!("opcode {other:#x}"),
        }
    }
}

/// Reads the rules one by one.
fn slow(policy: &Policy, numbers: &Numbers, number: u32, arguments: &[u64; 6]) -> Action {
    let mut answer = None;
    let mut last = None;
    for rule in &policy.rules {
        for name in &rule.names {
            let known = numbers.get(name.as_str()).copied();
            last = last.max(known);
            if known == Some(number) {
                if rule.conditions.is_empty() {
                    return rule.action;
                }
                let test = |one: &Condition| one.holds(arguments[one.index as usize]);
                answer = answer.or_else(|| rule.conditions.iter().all(test).then_some(rule.action));
            }
        }
    }
    let beyond = last.is_some_and(|last| number > last);
    answer.unwrap_or(if beyond { policy.unknown } else { policy.default })
}

type Numbers = BTreeMap<&'static str, u32>;

/// Compares interpreter and slow reading on every call of every architecture.
#[track_caller]
fn check_same(profile: &str, capabilities: u64) {
    let policy = policy(profile, capabilities);
    let filter = super::compile::instructions(&policy).unwrap();
    for arch in &policy.arches {
        let bit = if *arch == Arch::X32 { X32_BIT } else { 0 };
        let numbers: Numbers = syscalls::all(*arch).collect();
        for number in (0..600).chain([1 << 20, X32_BIT - 1]) {
            for arguments in argument_sets(number) {
                let seen = if *arch == Arch::X32 { low_halves(arguments) } else { arguments };
                let call = Call { arch: arch.audit(), number: number | bit, arguments };
                let (answer, _) = run(&filter, &call);
                let expect = slow(&policy, &numbers, number, &seen);
                assert_eq!(answer, expect.0, "{arch:?} {call:x?}");
            }
        }
    }
}

/// What x32 tests of its arguments.
fn low_halves(arguments: [u64; 6]) -> [u64; 6] {
    arguments.map(|argument| argument & u64::from(u32::MAX))
}

fn argument_sets(number: u32) -> Vec<[u64; 6]> {
    let interesting = [
        0,
        8,
        38,
        39,
        40,
        41,
        0x20008,
        0xffff_ffff,
        0x7e02_0000,
        0x1000_0000,
        1 << 32,
        (1 << 32) + 38,
        u64::MAX,
    ];
    // Conditional calls of the default profile, and those that the tests below use.
    if [41, 56, 120, 135, 136, 359, 102, 83, 39, 1].contains(&number) {
        interesting.iter().map(|value| [*value, 7, *value, 0, 0, 0]).collect()
    } else {
        vec![[38; 6]]
    }
}

#[test]
fn default_is_what_the_rules_say() {
    for capabilities in [0, DOCKER, EVERY, DOCKER | 1 << 21, DOCKER | 1 << 19] {
        check_same(DEFAULT, capabilities);
    }
}

#[test]
fn default_is_small_and_foreseen() {
    let filter = default_filter(&bounding(DOCKER)).instructions;
    assert!(filter.len() <= 240, "{}", filter.len());
    for arch in [Arch::X86_64, Arch::I386] {
        for number in 0..600 {
            let call = Call { arch: arch.audit(), number, arguments: [0; 6] };
            let (answer, foreseen) = run(&filter, &call);
            let conditional = foreseen
                || ["socket", "clone", "personality"]
                    .iter()
                    .any(|name| syscalls::all(arch).any(|known| known == (name, number)));
            assert!(conditional, "{arch:?} {number}");
            assert!(answer == Action::ALLOW.0 || answer >> 16 == 5, "{arch:?} {number}");
        }
    }
}

/// Lists the calls of an architecture that get `errno` with all arguments zero.
fn with_errno(filter: &Filter, arch: Arch, errno: u16) -> Vec<&'static str> {
    let refused = |(_, number): &(&str, u32)| {
        let bit = if arch == Arch::X32 { X32_BIT } else { 0 };
        let call = Call { arch: arch.audit(), number: number | bit, arguments: [0; 6] };
        run(&filter.instructions, &call).0 == Action::errno(errno).0
    };
    syscalls::all(arch).filter(refused).map(|(name, _)| name).collect()
}

#[test]
fn what_docker_refuses() {
    let filter = default_filter(&bounding(DOCKER));
    let refused = with_errno(&filter, Arch::X86_64, 1);
    let expect = "_sysctl acct add_key afs_syscall bpf clock_settime create_module delete_module \
        fanotify_init finit_module fsconfig fsmount fsopen fspick get_kernel_syms get_mempolicy \
        getpmsg init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp \
        kexec_file_load kexec_load keyctl lookup_dcookie lsm_get_self_attr lsm_list_modules \
        lsm_set_self_attr mbind migrate_pages mount mount_setattr move_mount move_pages \
        nfsservctl open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root \
        process_madvise putpmsg query_module quotactl quotactl_fd reboot request_key security \
        set_mempolicy set_mempolicy_home_node setdomainname sethostname setns settimeofday \
        swapoff swapon sysfs syslog tuxcall umount2 unshare uselib userfaultfd ustat vhangup \
        vserver";
    assert_eq!(refused.join(" "), expect.split_ascii_whitespace().collect::<Vec<_>>().join(" "));
    let enosys = ["clone3", "file_getattr", "file_setattr", "open_tree_attr"];
    assert_eq!(with_errno(&filter, Arch::X86_64, 38), enosys);
    assert_eq!(with_errno(&filter, Arch::I386, 38), enosys);
    assert_eq!(with_errno(&filter, Arch::X32, 38), ["clone3"]);

    let admin: BTreeSet<_> =
        with_errno(&default_filter(&bounding(EVERY)), Arch::X86_64, 1).into_iter().collect();
    for still in ["keyctl", "kexec_load", "pivot_root", "swapon", "userfaultfd", "io_uring_setup"] {
        assert!(admin.contains(still), "{still}");
    }
    for now in ["mount", "bpf", "setns", "reboot", "init_module", "syslog", "clone3"] {
        assert!(!admin.contains(now), "{now}");
    }
}

#[test]
fn sockets_and_namespaces() {
    let filter = default_filter(&bounding(DOCKER)).instructions;
    let answer = |name: &str, argument: u64| {
        let (_, number) = syscalls::all(Arch::X86_64).find(|(known, _)| *known == name).unwrap();
        let arguments = [argument, 0, 0, 0, 0, 0];
        run(&filter, &Call { arch: Arch::X86_64.audit(), number, arguments }).0 & 0xffff
    };
    for (name, argument, errno) in [
        ("socket", 2, 0),
        ("socket", 16, 0),
        ("socket", 38, 1),
        ("socket", 39, 0),
        ("socket", 40, 1),
        // The kernel takes an int: were only "greater than 40" asked, this would be AF_ALG.
        ("socket", 1 << 32 | 38, 1),
        ("socket", 46, 1),
        ("clone", 0x0100_0011, 0),
        ("clone", 0x1000_0011, 1),
        ("clone", 0x0002_0000, 1),
        ("clone3", 0, 38),
        ("personality", 0x20008, 0),
        ("personality", 0x40000, 1),
        ("personality", u64::MAX, 1),
    ] {
        assert_eq!(answer(name, argument), errno, "{name} {argument:#x}");
    }
}

#[test]
fn other_architectures_are_killed() {
    let filter = default_filter(&bounding(DOCKER)).instructions;
    let call = Call { arch: 0x4000_0028, number: 1, arguments: [0; 6] };
    assert_eq!(run(&filter, &call), (0, true));
    let native = policy(r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#, 0);
    let native = super::compile::instructions(&native).unwrap();
    let answer = |arch: Arch, number| {
        run(&native, &Call { arch: arch.audit(), number, arguments: [0; 6] }).0
    };
    assert_eq!(answer(Arch::X86_64, 1), Action::ALLOW.0);
    assert_eq!(answer(Arch::I386, 1), 0);
    assert_eq!(answer(Arch::X32, 1 | X32_BIT), 0);
    assert_eq!(answer(Arch::X86_64, u32::MAX), Action::ALLOW.0);
}

fn rules(default: &str, rules: &str) -> String {
    format!(
        r#"{{"defaultAction": "{default}",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_ARM"],
            "syscalls": [{rules}]}}"#
    )
}

#[test]
fn custom_profiles() {
    check_same(r#"{"defaultAction": "SCMP_ACT_KILL_PROCESS"}"#, 0);
    check_same(&rules("SCMP_ACT_LOG", ""), 0);
    let mkdir = r#"{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}"#;
    check_same(&rules("SCMP_ACT_ALLOW", mkdir), 0);
    // Several answers on one call; the unconditional one wins wherever it stands.
    let several = |with_last: bool| {
        let each = [
            r#"{"names": ["mkdir", "write"], "action": "SCMP_ACT_TRAP",
                "args": [{"index": 0, "value": 8589934632, "op": "SCMP_CMP_GE"}]}"#,
            r#"{"names": ["mkdir"], "action": "SCMP_ACT_TRACE", "errnoRet": 7,
                "args": [{"index": 2, "value": 40, "op": "SCMP_CMP_LT"},
                         {"index": 0, "value": 8, "op": "SCMP_CMP_NE"}]}"#,
            r#"{"names": ["mkdir"], "action": "SCMP_ACT_LOG",
                "args": [{"index": 0, "value": 4294967296, "op": "SCMP_CMP_GT"},
                         {"index": 0, "value": 39, "op": "SCMP_CMP_LE"}]}"#,
            r#"{"names": ["mkdir"], "action": "SCMP_ACT_KILL", "args":
                [{"index": 0, "value": 4294967303, "valueTwo": 255, "op": "SCMP_CMP_MASKED_EQ"}]}"#,
            r#"{"name": "mkdir", "action": "SCMP_ACT_ALLOW"}"#,
        ];
        each[..if with_last { 5 } else { 4 }].join(",")
    };
    check_same(&rules("SCMP_ACT_ERRNO", &several(false)), 0);
    check_same(&rules("SCMP_ACT_ERRNO", &several(true)), 0);
    // A thousand conditions push targets out of a conditional jump's reach.
    let many: Vec<_> = (0..300)
        .map(|value| {
            format!(
                r#"{{"names": ["write"], "action": "SCMP_ACT_ERRNO", "errnoRet": {},
                    "args": [{{"index": 0, "value": {value}, "op": "SCMP_CMP_EQ"}},
                             {{"index": 1, "value": 7, "op": "SCMP_CMP_EQ"}}]}}"#,
                value % 7 + 1
            )
        })
        .collect();
    check_same(&rules("SCMP_ACT_ALLOW", &many.join(",")), 0);
}

#[test]
fn i386_multiplexers_follow() {
    let profile = rules(
        "SCMP_ACT_ALLOW",
        r#"{"names": ["socket", "shmget"], "action": "SCMP_ACT_ERRNO", "errnoRet": 9}"#,
    );
    let filter = compile(&profile, &bounding(0)).unwrap();
    let answer = |number, first: u64| {
        let arguments = [first, 0, 0, 0, 0, 0];
        run(&filter.instructions, &Call { arch: Arch::I386.audit(), number, arguments }).0
    };
    assert_eq!(answer(102, 1), Action::errno(9).0);
    assert_eq!(answer(102, 2), Action::ALLOW.0);
    assert_eq!(answer(117, 23), Action::errno(9).0);
    assert_eq!(answer(359, 0), Action::errno(9).0);
}

#[test]
fn conditions_on_the_machine() {
    let check = |filter: &str, capabilities: u64, expect: bool| {
        let rule = format!(r#"{{"names": ["mkdir"], "action": "SCMP_ACT_ALLOW", {filter}}}"#);
        let policy = policy(&rules("SCMP_ACT_ERRNO", &rule), capabilities);
        assert_eq!(policy.rules.len() == 1, expect, "{filter}");
    };
    check(r#""includes": {"caps": ["CAP_CHOWN"]}"#, 1, true);
    check(r#""includes": {"caps": ["CAP_CHOWN", "CAP_KILL"]}"#, 1, false);
    check(r#""includes": {"caps": ["CAP_NEW"]}"#, EVERY, false);
    check(r#""excludes": {"caps": ["CAP_KILL", "CAP_CHOWN"]}"#, 1, false);
    check(r#""excludes": {"caps": ["CAP_KILL"]}"#, 1, true);
    check(r#""includes": {"minKernel": "6.1"}"#, 0, true);
    check(r#""includes": {"minKernel": "6.2"}"#, 0, false);
    check(r#""excludes": {"minKernel": "4.8"}"#, 0, false);
    check(r#""includes": {"arches": ["s390x"]}"#, 0, false);
    check(r#""includes": {"arches": ["amd64", "arm64"]}"#, 0, true);
    check(r#""excludes": {"arches": ["amd64", "arm64"]}"#, 0, false);
    check(r#""includes": {}, "comment": "x", "more": 1"#, 0, true);
}

#[track_caller]
fn check_error(profile: &str, expect: &str) {
    let error = compile(profile, &bounding(0)).unwrap_err().to_string();
    assert_eq!(error, format!("Decoding seccomp profile failed: {expect}"));
}

#[test]
fn errors() {
    check_error("{", "unexpected end of JSON input");
    check_error("", "unexpected end of JSON input");
    check_error(
        r#"{"defaultAction": "SCMP_ACT_FOO"}"#,
        "string SCMP_ACT_FOO is not a valid action for seccomp",
    );
    check_error(
        &rules("SCMP_ACT_ALLOW", r#"{"names": ["mkdir"]}"#),
        "string  is not a valid action for seccomp",
    );
    check_error(
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["X"]}"#,
        "string X is not a valid arch for seccomp",
    );
    check_error(
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["X"]}"#,
        "seccomp flag X is not known",
    );
    let operator = r#"{"names": ["a"], "action": "SCMP_ACT_KILL", "args": [{"op": "FOO"}]}"#;
    check_error(
        &rules("SCMP_ACT_ALLOW", operator),
        "string FOO is not a valid operator for seccomp",
    );
    let both = r#"{"name": "a", "names": ["b"], "action": "SCMP_ACT_KILL"}"#;
    check_error(
        &rules("SCMP_ACT_ALLOW", both),
        "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'",
    );
    check_error(
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"],
            "archMap": [{"architecture": "SCMP_ARCH_X86_64"}]}"#,
        "both 'architectures' and 'archMap' are specified in the seccomp profile, \
         use either 'architectures' or 'archMap'",
    );
    check_error(
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}"#,
        "listenerPath is not supported",
    );
    check_error(
        r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#,
        "SCMP_ACT_NOTIFY needs a listener, which is not supported",
    );
}

#[test]
fn a_profile_that_says_nothing_allows_everything() {
    for profile in ["{}", "null"] {
        let filter = compile(profile, &bounding(0)).unwrap();
        assert_eq!(with_errno(&filter, Arch::X86_64, 1), [""; 0]);
    }
}

/// Runs something in a thread of its own under a filter.
fn under<T: Send + 'static>(filter: Filter, work: impl FnOnce() -> T + Send + 'static) -> T {
    let confined = move || {
        sys::seccomp::load(&filter.instructions, filter.flags).unwrap();
        work()
    };
    std::thread::spawn(confined).join().unwrap()
}

#[test]
fn the_kernel_obeys_the_default() {
    let (mounted, sockets, child) = under(default_filter(&bounding(DOCKER)), || {
        use rustix::net::{AddressFamily, SocketType, socket};

        let mounted =
            rustix::mount::mount("none", "/", "none", rustix::mount::MountFlags::empty(), None);
        let of =
            |family| socket(AddressFamily::from_raw(family), SocketType::STREAM, None).map(drop);
        // The C library tries clone3 first.
        let child = std::process::Command::new("true").status().unwrap();
        (mounted, [of(1), of(38), of(40)], child)
    });
    assert_eq!(mounted, Err(Errno::PERM));
    assert_eq!(sockets, [Ok(()), Err(Errno::PERM), Err(Errno::PERM)]);
    assert!(child.success());
}

#[test]
fn the_kernel_obeys_a_profile() {
    let profile = rules(
        "SCMP_ACT_ALLOW",
        r#"{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}"#,
    );
    let filter = compile(&profile, &bounding(0)).unwrap();
    let made = under(filter, || rustix::fs::mkdir("/", rustix::fs::Mode::empty()));
    assert_eq!(made, Err(Errno::NOSYS));
}

//! The PID 1 of containers started with `--init`: starts the program, passes signals on, reaps
//! whatever is left to it, and exits as the program did.
//!
//! A program of its own, freestanding and static, because it runs inside of containers that have
//! no C library, and because what runs there must not be our own binary (CVE-2019-5736). Built by
//! `build.rs`, embedded by `sys::docker_init`, executed from a sealed memfd after all privileges
//! are dropped. It allocates nothing and has one stack page of data.
//!
//! Command line: `/sbin/docker-init -- PROGRAM ARGUMENT...`

#![no_std]
#![no_main]
// There is no C library to find `memcpy` in.
#![no_builtins]

use core::arch::{asm, naked_asm};
use core::mem::MaybeUninit;

#[cfg(target_arch = "x86_64")]
mod number {
    pub const WRITE: usize = 1;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const IOCTL: usize = 16;
    pub const GETPID: usize = 39;
    pub const CLONE: usize = 56;
    pub const EXECVE: usize = 59;
    pub const WAIT4: usize = 61;
    pub const KILL: usize = 62;
    pub const SETPGID: usize = 109;
    pub const RT_SIGTIMEDWAIT: usize = 128;
    pub const PRCTL: usize = 157;
    pub const EXIT_GROUP: usize = 231;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub const IOCTL: usize = 29;
    pub const WRITE: usize = 64;
    pub const EXIT_GROUP: usize = 94;
    pub const KILL: usize = 129;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const RT_SIGTIMEDWAIT: usize = 137;
    pub const SETPGID: usize = 154;
    pub const PRCTL: usize = 167;
    pub const GETPID: usize = 172;
    pub const CLONE: usize = 220;
    pub const EXECVE: usize = 221;
    pub const WAIT4: usize = 260;
}

const EINTR: isize = -4;
const ENOENT: isize = -2;
const ENOEXEC: isize = -8;
const EACCES: isize = -13;
const ENOTDIR: isize = -20;

const SIGCHLD: isize = 17;
const SIGTTIN: isize = 21;
const SIGTTOU: isize = 22;
const SIG_SETMASK: usize = 2;
const TIOCSPGRP: usize = 0x5410;
const PR_SET_NAME: usize = 15;
const WNOHANG: usize = 1;
const PATH_MAX: usize = 4096;

/// Makes a system call; the answer is a result or a negated error number.
///
/// # Safety
/// As the call itself: pointers among the arguments must be good for what the kernel does.
#[cfg(target_arch = "x86_64")]
unsafe fn call(number: usize, a: [usize; 5]) -> isize {
    let result: isize;
    // SAFETY: the kernel clobbers rcx and r11 and nothing else; the rest is the caller's promise.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a[0], in("rsi") a[1],
            in("rdx") a[2], in("r10") a[3], in("r8") a[4], out("rcx") _, out("r11") _,
            options(nostack));
    }
    result
}

/// Makes a system call; the answer is a result or a negated error number.
///
/// # Safety
/// As the call itself: pointers among the arguments must be good for what the kernel does.
#[cfg(target_arch = "aarch64")]
unsafe fn call(number: usize, a: [usize; 5]) -> isize {
    let result: isize;
    // SAFETY: the kernel changes x0 and nothing else; the rest is the caller's promise.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a[0] => result, in("x1") a[1],
            in("x2") a[2], in("x3") a[3], in("x4") a[4], options(nostack));
    }
    result
}

/// The kernel starts here with the argument count, the arguments and the environment on the stack.
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    #[cfg(target_arch = "x86_64")]
    naked_asm!("mov rdi, rsp", "and rsp, -16", "call {main}", main = sym start);
    #[cfg(target_arch = "aarch64")]
    naked_asm!("mov x0, sp", "bl {main}", main = sym start);
}

/// A null-terminated list of strings, as the kernel passes them.
type Strings = *const *const u8;

extern "C" fn start(stack: *const usize) -> ! {
    // SAFETY: the layout of a new program's stack: a count, that many pointers, a null, and the
    // environment's pointers with a null.
    let (arguments, environment) = unsafe {
        let arguments: Strings = stack.add(1).cast();
        (arguments, arguments.add(*stack + 1))
    };
    // SAFETY: the list just found.
    exit(supervise(unsafe { after_dashes(arguments) }, environment))
}

/// Skips our own arguments, up to and including `--`.
///
/// # Safety
/// `arguments` is a null-terminated list of strings.
unsafe fn after_dashes(mut arguments: Strings) -> Strings {
    // SAFETY: never steps over the null at the end.
    unsafe {
        while !(*arguments).is_null() {
            let argument = *arguments;
            arguments = arguments.add(1);
            if *argument == b'-' && *argument.add(1) == b'-' && *argument.add(2) == 0 {
                break;
            }
        }
    }
    arguments
}

/// Runs the program and answers its exit code.
fn supervise(program: Strings, environment: Strings) -> usize {
    let every_signal = u64::MAX;
    let mask = (&raw const every_signal) as usize;
    // SAFETY: the name is a string; the mask outlives the call; a clone with no flags is a fork.
    let child = unsafe {
        call(number::PRCTL, [PR_SET_NAME, c"docker-init".as_ptr() as usize, 0, 0, 0]);
        call(number::RT_SIGPROCMASK, [SIG_SETMASK, mask, 0, 8, 0]);
        call(number::CLONE, [SIGCHLD as usize, 0, 0, 0, 0])
    };
    if child == 0 {
        become_program(program, environment);
    }
    if child < 0 {
        complain(program, child, b"fork for");
        return 1;
    }
    loop {
        // SAFETY: reads the mask, writes nothing.
        match unsafe { call(number::RT_SIGTIMEDWAIT, [mask, 0, 0, 8, 0]) } {
            EINTR => {}
            SIGCHLD => {
                if let Some(code) = reap(child) {
                    return code;
                }
            }
            // About our own use of the terminal, not for the program.
            SIGTTIN | SIGTTOU => {}
            signal => {
                // SAFETY: two numbers. A program that has just exited needs no signal.
                unsafe { call(number::KILL, [child as usize, signal as usize, 0, 0, 0]) };
            }
        }
    }
}

/// Reaps all there are; the exit code once the program is among them.
fn reap(program: isize) -> Option<usize> {
    let mut code = None;
    loop {
        let mut status: i32 = 0;
        // SAFETY: the kernel writes the status.
        let pid =
            unsafe { call(number::WAIT4, [usize::MAX, (&raw mut status) as usize, WNOHANG, 0, 0]) };
        if pid <= 0 {
            return code;
        }
        if pid == program {
            let signal = status as usize & 0x7f;
            code = Some(if signal == 0 { (status as usize >> 8) & 0xff } else { 128 + signal });
        }
    }
}

/// In the child: a process group of its own, in the foreground if there is a terminal.
fn become_program(program: Strings, environment: Strings) -> ! {
    let no_signal = 0u64;
    // SAFETY: numbers, and pointers to live locals. Signals are still blocked when the group takes
    // the foreground, or SIGTTOU would stop it.
    let name = unsafe {
        call(number::SETPGID, [0, 0, 0, 0, 0]);
        let group = call(number::GETPID, [0; 5]) as i32;
        call(number::IOCTL, [0, TIOCSPGRP, (&raw const group) as usize, 0, 0]);
        call(number::RT_SIGPROCMASK, [SIG_SETMASK, (&raw const no_signal) as usize, 0, 8, 0]);
        *program
    };
    let error = if name.is_null() { ENOENT } else { search(name, program, environment) };
    complain(program, error, b"exec");
    exit(if error == ENOENT { 127 } else { 126 })
}

/// Executes `name`, by `PATH` if it has no slash. Returns only the error.
fn search(name: *const u8, program: Strings, environment: Strings) -> isize {
    // SAFETY: both are strings of the kernel's.
    let (name, path) = unsafe { (bytes(name), path_of(environment)) };
    if name.contains(&b'/') {
        return execute(&[name], program, environment);
    }
    let mut error = ENOENT;
    for directory in path.split(|byte| *byte == b':') {
        let directory = if directory.is_empty() { b"." } else { directory };
        match execute(&[directory, b"/", name], program, environment) {
            ENOENT | ENOTDIR => {}
            EACCES => error = EACCES,
            other => return other,
        }
    }
    error
}

/// Joins the parts of a path and executes it.
fn execute(parts: &[&[u8]], program: Strings, environment: Strings) -> isize {
    // Not zeroed: that would take a `memset`.
    let mut path = [MaybeUninit::<u8>::uninit(); PATH_MAX];
    let mut places = path.iter_mut();
    for byte in parts.iter().copied().flatten().chain(b"\0") {
        match places.next() {
            Some(place) => _ = place.write(*byte),
            None => return ENOENT,
        }
    }
    let path = path.as_ptr() as usize;
    // SAFETY: a terminated path and the lists that the kernel gave us.
    unsafe { call(number::EXECVE, [path, program as usize, environment as usize, 0, 0]) }
}

/// The value of `PATH`, or Docker's.
///
/// # Safety
/// `environment` is a null-terminated list of strings.
unsafe fn path_of<'a>(mut environment: Strings) -> &'a [u8] {
    // SAFETY: stops at the null at the end.
    unsafe {
        while !(*environment).is_null() {
            if let Some(path) = bytes(*environment).strip_prefix(b"PATH=") {
                return path;
            }
            environment = environment.add(1);
        }
    }
    b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

/// # Safety
/// `string` is terminated and lives as long as the program.
unsafe fn bytes<'a>(string: *const u8) -> &'a [u8] {
    let mut length = 0;
    // SAFETY: stops at the terminator, and makes a slice of what was walked.
    unsafe {
        while *string.add(length) != 0 {
            length += 1;
        }
        core::slice::from_raw_parts(string, length)
    }
}

fn complain(program: Strings, error: isize, what: &[u8]) {
    let why: &[u8] = match error {
        ENOENT => b"No such file or directory",
        EACCES => b"Permission denied",
        ENOEXEC => b"Exec format error",
        _ => b"the kernel refused",
    };
    // SAFETY: the list that the kernel gave us; its first entry may be null.
    let name = unsafe { if (*program).is_null() { b"" } else { bytes(*program) } };
    for part in [b"[FATAL docker-init] ", what, b" ", name, b" failed: ", why, b"\n"] {
        // SAFETY: a live slice. The container's stderr is all there is, so errors go nowhere.
        unsafe { call(number::WRITE, [2, part.as_ptr() as usize, part.len(), 0, 0]) };
    }
}

fn exit(code: usize) -> ! {
    loop {
        // SAFETY: ends the process.
        unsafe { call(number::EXIT_GROUP, [code, 0, 0, 0, 0]) };
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(134)
}

/// Named by the precompiled `core`, never called: panics abort.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

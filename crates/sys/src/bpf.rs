//! eBPF programs of type `CGROUP_DEVICE`: what v2 cgroups have instead of a devices controller.
//!
//! [`DeviceFilter::attach`] assembles the program, loads it and attaches it to a group, where it
//! stays until the group is removed. The kernel asks every program from the root down to the
//! process's group, and each of them must allow the access.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, Result};

/// Decides on opening and making device nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFilter {
    /// The answer for every device that no exception names.
    pub allow_all: bool,
    pub exceptions: Vec<Device>,
}

/// Devices whose answer is the other one. To be allowed by exception all of an access must be in
/// `access`; to be denied by exception, any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    pub block: bool,
    /// `None` is every number.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    /// `BPF_DEVCG_ACC_*`: 1 mknod, 2 read, 4 write.
    pub access: u8,
}

impl DeviceFilter {
    /// Puts the filter on the v2 group open at `group`, beside any that is there.
    pub fn attach(&self, group: impl AsFd) -> Result<()> {
        let program = load(&self.assemble())?;
        attach(group, &program)
    }

    fn assemble(&self) -> Vec<Instruction> {
        let mut code = vec![
            // struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; } is at r1;
            // access_type is (access << 16) | type.
            load_word(KIND, CONTEXT, 0),
            load_word(MAJOR, CONTEXT, 4),
            load_word(MINOR, CONTEXT, 8),
            move_register(ACCESS, KIND),
            and(KIND, 0xffff),
            shift_right(ACCESS, 16),
        ];
        for device in &self.exceptions {
            code.extend(self.exception(device));
        }
        code.extend([move_value(RESULT, i32::from(self.allow_all)), EXIT]);
        code
    }

    /// Tests that jump behind themselves when the device is another one, then the other answer.
    fn exception(&self, device: &Device) -> Vec<Instruction> {
        const BPF_DEVCG_DEV_BLOCK: i32 = 1;
        const BPF_DEVCG_DEV_CHAR: i32 = 2;
        let kind = if device.block { BPF_DEVCG_DEV_BLOCK } else { BPF_DEVCG_DEV_CHAR };
        let mut block = vec![jump_unless_equal(KIND, kind)];
        for (register, number) in [(MAJOR, device.major), (MINOR, device.minor)] {
            block.extend(number.map(|number| jump_unless_equal(register, number.cast_signed())));
        }
        block.push(move_register(SCRATCH, ACCESS));
        let (tested, wanted) = if self.allow_all {
            (device.access, JUMP_IF_ZERO)
        } else {
            (!device.access & 7, JUMP_UNLESS_ZERO)
        };
        block.extend([
            and(SCRATCH, i32::from(tested)),
            Instruction { code: wanted, ..jump(SCRATCH, 0) },
        ]);
        block.extend([move_value(RESULT, i32::from(!self.allow_all)), EXIT]);
        let end = block.len();
        for (at, instruction) in block.iter_mut().enumerate() {
            if instruction.is_jump() {
                instruction.offset = i16::try_from(end - at - 1).expect("a block is ten long");
            }
        }
        block
    }
}

type Register = u8;
const RESULT: Register = 0;
const CONTEXT: Register = 1;
const KIND: Register = 2;
const ACCESS: Register = 3;
const MAJOR: Register = 4;
const MINOR: Register = 5;
const SCRATCH: Register = 6;

/// The kernel's `struct bpf_insn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high half (of little-endian machines).
    registers: u8,
    offset: i16,
    immediate: i32,
}

// Opcodes are class | operation | operand (linux/bpf_common.h, linux/bpf.h).
const LOAD_WORD: u8 = 0x61;
const MOVE_VALUE: u8 = 0xb4;
const MOVE_REGISTER: u8 = 0xbc;
const AND_VALUE: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
// The 32-bit class of comparisons: a number above 2^31 must not be sign-extended.
const JUMP_UNLESS_EQUAL: u8 = 0x56;
const JUMP_UNLESS_ZERO: u8 = JUMP_UNLESS_EQUAL;
const JUMP_IF_ZERO: u8 = 0x16;
const EXIT: Instruction = Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 };

impl Instruction {
    const fn is_jump(self) -> bool {
        matches!(self.code, JUMP_UNLESS_EQUAL | JUMP_IF_ZERO)
    }
}

const fn registers(destination: Register, source: Register) -> u8 {
    if cfg!(target_endian = "little") {
        destination | source << 4
    } else {
        destination << 4 | source
    }
}

const fn with_value(code: u8, destination: Register, immediate: i32) -> Instruction {
    Instruction { code, registers: registers(destination, 0), offset: 0, immediate }
}

const fn load_word(destination: Register, source: Register, offset: i16) -> Instruction {
    Instruction { code: LOAD_WORD, registers: registers(destination, source), offset, immediate: 0 }
}

const fn move_register(destination: Register, source: Register) -> Instruction {
    let registers = registers(destination, source);
    Instruction { code: MOVE_REGISTER, registers, offset: 0, immediate: 0 }
}

const fn move_value(destination: Register, value: i32) -> Instruction {
    with_value(MOVE_VALUE, destination, value)
}

const fn and(destination: Register, value: i32) -> Instruction {
    with_value(AND_VALUE, destination, value)
}

const fn shift_right(destination: Register, bits: i32) -> Instruction {
    with_value(SHIFT_RIGHT, destination, bits)
}

const fn jump(register: Register, value: i32) -> Instruction {
    with_value(JUMP_UNLESS_EQUAL, register, value)
}

const fn jump_unless_equal(register: Register, value: i32) -> Instruction {
    jump(register, value)
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The head of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes what is missing as zero.
#[repr(C)]
struct LoadAttributes {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
}

#[repr(C)]
struct AttachAttributes {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

fn load(code: &[Instruction]) -> Result<OwnedFd> {
    let attributes = LoadAttributes {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(code.len()).map_err(|_too_long| Errno::TOOBIG)?,
        insns: code.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
    };
    // SAFETY: `attributes`, the code and the licence text it points to outlive the call, with
    // their true sizes; the kernel only reads them. No crate in use wraps bpf(2).
    let ret = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, size_of_val(&attributes))
    };
    let fd = i32::try_from(ret).map_err(|_no_descriptor| Errno::BADF)?;
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: the call succeeded, so `fd` is a new descriptor (close-on-exec) that nobody owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn attach(group: impl AsFd, program: &OwnedFd) -> Result<()> {
    let attributes = AttachAttributes {
        target_fd: group.as_fd().as_raw_fd().cast_unsigned(),
        attach_bpf_fd: program.as_raw_fd().cast_unsigned(),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: `attributes` outlives the call and its size is passed; the kernel only reads it.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_ATTACH,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    if ret < 0 { Err(last_errno()) } else { Ok(()) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would, for the few instructions used here.
    fn run(code: &[Instruction], block: bool, major: u32, minor: u32, access: u8) -> bool {
        let kind = if block { 1 } else { 2 };
        let context = [u32::from(access) << 16 | kind, major, minor];
        let mut registers = [0u32; 7];
        let mut at = 0;
        loop {
            let instruction = code[at];
            let to = usize::from(instruction.registers & 15);
            let from = usize::from(instruction.registers >> 4);
            let value = instruction.immediate.cast_unsigned();
            let skip = usize::try_from(instruction.offset).unwrap();
            at += 1;
            match instruction.code {
                LOAD_WORD => registers[to] = context[skip / 4],
                MOVE_VALUE => registers[to] = value,
                MOVE_REGISTER => registers[to] = registers[from],
                AND_VALUE => registers[to] &= value,
                SHIFT_RIGHT => registers[to] >>= value,
                JUMP_UNLESS_EQUAL if registers[to] != value => at += skip,
                JUMP_IF_ZERO if registers[to] == value => at += skip,
                JUMP_UNLESS_EQUAL | JUMP_IF_ZERO => {}
                0x95 => return registers[0] == 1,
                other => panic!("opcode {other:#x}"),
            }
        }
    }

    const MKNOD: u8 = 1;
    const READ: u8 = 2;
    const WRITE: u8 = 4;

    #[test]
    fn decisions() {
        let char_device = |major, minor, access| Device { block: false, major, minor, access };
        let deny = DeviceFilter {
            allow_all: false,
            exceptions: vec![
                char_device(None, None, MKNOD),
                char_device(Some(1), Some(3), READ | WRITE | MKNOD),
                char_device(Some(136), None, READ | WRITE),
                Device { block: true, ..char_device(Some(u32::MAX), Some(0), READ) },
            ],
        };
        let code = deny.assemble();
        for (block, major, minor, access, expect) in [
            (false, 1, 3, READ | WRITE, true),
            (false, 1, 11, READ, false),
            (false, 1, 11, MKNOD, true),
            (false, 1, 11, MKNOD | READ, false),
            (true, 1, 3, READ, false),
            (false, 136, 7, WRITE, true),
            (true, u32::MAX, 0, READ, true),
            (true, u32::MAX, 0, WRITE, false),
        ] {
            assert_eq!(run(&code, block, major, minor, access), expect, "{major}:{minor} {access}");
        }
        let allow = DeviceFilter {
            allow_all: true,
            exceptions: vec![char_device(Some(1), Some(11), READ)],
        };
        let code = allow.assemble();
        assert!(!run(&code, false, 1, 11, READ | WRITE));
        assert!(run(&code, false, 1, 11, WRITE));
        assert!(run(&code, true, 8, 0, READ));
    }

    #[test]
    fn the_kernel_takes_it() {
        let number =
            |minor| Device { block: minor % 2 == 0, major: Some(1), minor: Some(minor), access: 6 };
        let filter = DeviceFilter { allow_all: false, exceptions: (0..300).map(number).collect() };
        load(&filter.assemble()).unwrap();
        load(&DeviceFilter { allow_all: true, exceptions: vec![] }.assemble()).unwrap();
    }
}

//! An assembler for classic BPF that writes from the end to the start: jumps go forward only, so
//! whatever a jump wants to reach is already there and its distance is known.
//!
//! Conditional jumps reach 255 instructions. Farther targets are reached by a plain jump put
//! beside, or, for a `return`, by a second copy of it.

use std::collections::BTreeMap;

/// A place in the program, counted from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(usize);

#[derive(Debug, Clone, Copy)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    operand: u32,
}

/// Comparisons of the accumulator with a constant.
#[derive(Debug, Clone, Copy)]
pub(super) enum Compare {
    Equal,
    Greater,
    GreaterOrEqual,
}

// Class | size or operation | mode or source (linux/bpf_common.h).
pub(super) const LOAD_WORD: u16 = 0x20;
pub(super) const JUMP: u16 = 0x05;
pub(super) const JUMP_EQUAL: u16 = 0x15;
pub(super) const JUMP_GREATER: u16 = 0x25;
pub(super) const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
pub(super) const AND: u16 = 0x54;
pub(super) const RETURN: u16 = 0x06;

const REACH: usize = 255;

#[derive(Debug, Default)]
pub(super) struct Assembler {
    /// Last instruction first.
    reversed: Vec<Instruction>,
    returns: BTreeMap<u32, Place>,
}

impl Assembler {
    fn push(&mut self, code: u16, operand: u32) -> Place {
        self.push_jump(code, operand, 0, 0)
    }

    fn push_jump(&mut self, code: u16, operand: u32, if_true: u8, if_false: u8) -> Place {
        self.reversed.push(Instruction { code, if_true, if_false, operand });
        Place(self.reversed.len() - 1)
    }

    /// How many instructions lie between the next one to be written and `place`.
    const fn distance(&self, place: Place) -> usize {
        self.reversed.len() - 1 - place.0
    }

    pub(super) fn ret(&mut self, value: u32) -> Place {
        match self.returns.get(&value) {
            // Leaves room for a jump or two before it is used.
            Some(place) if self.distance(*place) + 8 < REACH => *place,
            _ => {
                let place = self.push(RETURN, value);
                self.returns.insert(value, place);
                place
            }
        }
    }

    /// Compares and goes to one of two places.
    pub(super) fn branch(&mut self, compare: Compare, value: u32, yes: Place, no: Place) -> Place {
        if yes == no {
            return yes;
        }
        let yes = self.within_reach(yes);
        // The plain jump for `no` puts `yes` one farther away: `within_reach` leaves that room.
        let no = self.within_reach(no);
        let code = match compare {
            Compare::Equal => JUMP_EQUAL,
            Compare::Greater => JUMP_GREATER,
            Compare::GreaterOrEqual => JUMP_GREATER_OR_EQUAL,
        };
        let offset = |place| u8::try_from(self.distance(place)).expect("it is within reach");
        self.push_jump(code, value, offset(yes), offset(no))
    }

    fn within_reach(&mut self, place: Place) -> Place {
        if self.distance(place) < REACH { place } else { self.jump(place) }
    }

    fn jump(&mut self, place: Place) -> Place {
        let distance = u32::try_from(self.distance(place)).expect("a program is short");
        self.push(JUMP, distance)
    }

    /// Loads a word of `struct seccomp_data`, then goes on at `next`.
    pub(super) fn load(&mut self, offset: u32, next: Place) -> Place {
        self.before(next);
        self.push(LOAD_WORD, offset)
    }

    pub(super) fn and(&mut self, mask: u32, next: Place) -> Place {
        self.before(next);
        self.push(AND, mask)
    }

    /// Makes sure that the instruction to be written runs on into `next`.
    fn before(&mut self, next: Place) {
        if self.distance(next) != 0 {
            self.jump(next);
        }
    }

    /// The whole program, from `start`, which must be what was written last.
    pub(super) fn finish(self, start: Place) -> Vec<[u8; 8]> {
        debug_assert_eq!(start.0 + 1, self.reversed.len());
        let encode = |instruction: &Instruction| {
            let [code0, code1] = instruction.code.to_ne_bytes();
            let [k0, k1, k2, k3] = instruction.operand.to_ne_bytes();
            [code0, code1, instruction.if_true, instruction.if_false, k0, k1, k2, k3]
        };
        self.reversed.iter().rev().map(encode).collect()
    }
}

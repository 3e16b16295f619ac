//! From a policy to instructions.
//!
//! Every number of every architecture gets a [`Verdict`]; runs of equal verdicts are searched by
//! halving. Only loads of number and architecture, comparisons and `and` stand before the verdict
//! on an unconditional call: the kernel then proves that the call is always allowed and never runs
//! the filter for it.
//!
//! Which rule counts when several name a call follows libseccomp: one without conditions beats
//! those with; else the first that matches.

use std::collections::BTreeMap;

use super::ProfileError;
use super::emit::{Assembler, Compare, Place};
use super::profile::{Action, Condition, Operator, Policy};
use super::syscalls::{self, Arch, X32_BIT};

/// What happens on a call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    Return(Action),
    /// The first whose conditions all hold; else the default action.
    Conditional {
        answers: Vec<Answer>,
        width: Width,
    },
}

/// Conditions, and what is returned when all of them hold.
type Answer = (Vec<Condition>, Action);

/// How much of an argument counts. x32 passes 32-bit values in registers whose upper halves a
/// caller can fill as it likes, and libseccomp does not look at them. (i386 leaves them zero.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Width {
    Full,
    LowHalf,
}

/// Verdicts on some numbers; all others get the default, and those above `last` are unknown.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) verdicts: BTreeMap<u32, Verdict>,
    pub(super) last: Option<u32>,
}

/// The kernel's `BPF_MAXINSNS`.
const MAX_INSTRUCTIONS: usize = 4096;

// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

pub(super) fn instructions(policy: &Policy) -> Result<Vec<[u8; 8]>, ProfileError> {
    let mut writer = Writer::new(policy);
    let start = writer.program();
    let program = writer.assembler.finish(start);
    if program.len() > MAX_INSTRUCTIONS {
        let reason =
            format!("the filter has {} instructions, the kernel takes 4096", program.len());
        return Err(ProfileError { reason });
    }
    Ok(program)
}

/// Collects what the rules say about each number of an architecture.
pub(super) fn table(policy: &Policy, arch: Arch) -> Table {
    let numbers: BTreeMap<&str, u32> = syscalls::all(arch).collect();
    let mut found: BTreeMap<u32, Vec<Answer>> = BTreeMap::new();
    for rule in &policy.rules {
        for name in &rule.names {
            if let Some(number) = numbers.get(name.as_str()) {
                found.entry(*number).or_default().push((rule.conditions.clone(), rule.action));
            }
            // Conditions on the call's own arguments cannot be tested there: they are in memory.
            if arch == Arch::I386
                && rule.conditions.is_empty()
                && let Some((entrance, value)) = syscalls::multiplexed(name)
            {
                let operator = Operator::Equal;
                let condition = Condition { index: 0, operator, value, second: 0 };
                let answers = found.entry(numbers[entrance]).or_default();
                answers.push((vec![condition], rule.action));
            }
        }
    }
    let last = found.keys().next_back().copied();
    let width = if arch == Arch::X32 { Width::LowHalf } else { Width::Full };
    let verdicts = found.into_iter().map(|(number, answers)| (number, verdict(answers, width)));
    let verdicts = verdicts.collect();
    Table { verdicts, last }
}

fn verdict(answers: Vec<Answer>, width: Width) -> Verdict {
    match answers.iter().find(|(conditions, _)| conditions.is_empty()) {
        Some((_, action)) => Verdict::Return(*action),
        None => Verdict::Conditional { answers, width },
    }
}

/// Numbers from `start` to the next segment's, with one verdict.
#[derive(Debug)]
struct Segment {
    start: u32,
    /// `None` in the last one, which is endless.
    length: Option<u32>,
    target: Target,
    /// The x86_64 search, which x32's falls back to, comes to the same verdict.
    shared: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Return(Action),
    At(Place),
}

/// Segments answered by one comparison chain: `base`, but for a few numbers.
struct Chunk {
    start: u32,
    base: Target,
    singles: Vec<(u32, Target)>,
}

/// How long a chain may get. Longer ones save instructions and cost time.
const CHAIN: u32 = 6;

struct Writer<'a> {
    policy: &'a Policy,
    assembler: Assembler,
    /// Code of conditional verdicts, which architectures share: arguments are where they are.
    conditional: BTreeMap<Verdict, Place>,
}

impl<'a> Writer<'a> {
    fn new(policy: &'a Policy) -> Self {
        Self { policy, assembler: Assembler::default(), conditional: BTreeMap::new() }
    }

    /// Writes everything and returns the start.
    fn program(&mut self) -> Place {
        let arches = self.policy.arches.clone();
        let has = |arch| arches.contains(&arch);
        let i386 = has(Arch::I386).then(|| self.search_numbers(Arch::I386));
        let native = self.native(has(Arch::X32));
        let mut next = self.assembler.ret(Action::KILL_THREAD.0);
        if let Some(i386) = i386 {
            let start = self.assembler.load(NUMBER, i386);
            next = self.assembler.branch(Compare::Equal, Arch::I386.audit(), start, next);
        }
        next = self.assembler.branch(Compare::Equal, Arch::NATIVE.audit(), native, next);
        self.assembler.load(ARCH, next)
    }

    fn search_numbers(&mut self, arch: Arch) -> Place {
        let table = table(self.policy, arch);
        let segments = self.segments(&table, None);
        self.search(&segments, None)
    }

    fn native(&mut self, with_x32: bool) -> Place {
        let table = table(self.policy, Arch::NATIVE);
        let segments = self.segments(&table, None);
        let search = self.search(&segments, None);
        let start = match Arch::NATIVE {
            Arch::X86_64 => {
                let x32 = if with_x32 { self.x32(&table, search) } else { self.not_x32() };
                self.assembler.branch(Compare::GreaterOrEqual, X32_BIT, x32, search)
            }
            _ => search,
        };
        self.assembler.load(NUMBER, start)
    }

    /// Like any unlisted architecture; -1, though, is what a tracer makes of a call to skip.
    fn not_x32(&mut self) -> Place {
        let skipped = self.assembler.ret(self.policy.unknown.0);
        let foreign = self.assembler.ret(Action::KILL_THREAD.0);
        self.assembler.branch(Compare::Equal, u32::MAX, skipped, foreign)
    }

    /// Most x32 numbers mean what they mean without the bit: tests for the others, then joins in.
    fn x32(&mut self, native: &Table, native_search: Place) -> Place {
        let table = table(self.policy, Arch::X32);
        let segments = self.segments(&table, Some(native));
        let search = self.search(&segments, Some(Target::At(native_search)));
        self.assembler.and(!X32_BIT, search)
    }

    /// Cuts the numbers into segments of one verdict each.
    fn segments(&mut self, table: &Table, native: Option<&Table>) -> Vec<Segment> {
        let mut cuts: Vec<u32> = vec![0];
        for table in [Some(table), native].into_iter().flatten() {
            cuts.extend(table.verdicts.keys().flat_map(|number| [*number, number + 1]));
        }
        cuts.sort_unstable();
        cuts.dedup();
        let mut segments: Vec<Segment> = Vec::new();
        for (at, start) in cuts.iter().enumerate() {
            let verdict = self.verdict_on(table, *start);
            let shared = native.is_some_and(|native| self.verdict_on(native, *start) == verdict);
            let target = self.target(verdict);
            let length = cuts.get(at + 1).map(|end| end - start);
            match segments.last_mut() {
                Some(last) if last.target == target && last.shared == shared => {
                    last.length = last.length.zip(length).map(|(a, b)| a + b);
                }
                _ => segments.push(Segment { start: *start, length, target, shared }),
            }
        }
        segments
    }

    fn verdict_on(&self, table: &Table, number: u32) -> Verdict {
        match table.verdicts.get(&number) {
            Some(verdict) => verdict.clone(),
            None if table.last.is_some_and(|last| number > last) => {
                Verdict::Return(self.policy.unknown)
            }
            None => Verdict::Return(self.policy.default),
        }
    }

    fn target(&mut self, verdict: Verdict) -> Target {
        match &verdict {
            Verdict::Return(action) => Target::Return(*action),
            Verdict::Conditional { answers, width } => {
                if let Some(place) = self.conditional.get(&verdict) {
                    return Target::At(*place);
                }
                let place = self.conditions(answers, *width);
                self.conditional.insert(verdict, place);
                Target::At(place)
            }
        }
    }

    fn place(&mut self, target: Target) -> Place {
        match target {
            Target::Return(action) => self.assembler.ret(action.0),
            Target::At(place) => place,
        }
    }

    fn search(&mut self, segments: &[Segment], shared: Option<Target>) -> Place {
        let chunks = chunks(segments, shared);
        self.halve(&chunks)
    }

    fn halve(&mut self, chunks: &[Chunk]) -> Place {
        if let [chunk] = chunks {
            let mut place = self.place(chunk.base);
            for (number, target) in chunk.singles.iter().rev() {
                let single = self.place(*target);
                place = self.assembler.branch(Compare::Equal, *number, single, place);
            }
            return place;
        }
        let (low, high) = chunks.split_at(chunks.len() / 2);
        let start = high[0].start;
        let high = self.halve(high);
        let low = self.halve(low);
        self.assembler.branch(Compare::GreaterOrEqual, start, high, low)
    }

    /// Tests arguments.
    fn conditions(&mut self, answers: &[Answer], width: Width) -> Place {
        match one_argument(answers) {
            Some(argument) => self.argument_search(&argument, answers, width),
            None => self.in_order(answers, width),
        }
    }

    /// All tests are of one argument and small numbers: searched like call numbers.
    fn argument_search(
        &mut self,
        argument: &OneArgument,
        answers: &[Answer],
        width: Width,
    ) -> Place {
        let answer = |value: u64| {
            let matches = |(conditions, _): &&Answer| conditions[0].holds(value);
            answers.iter().find(matches).map_or(self.policy.default, |(_, action)| *action)
        };
        let mut segments: Vec<Segment> = Vec::new();
        for (at, start) in argument.cuts.iter().enumerate() {
            let target = Target::Return(answer(u64::from(*start)));
            let length = argument.cuts.get(at + 1).map(|end| end - start);
            segments.push(Segment { start: *start, length, target, shared: false });
        }
        let low = self.search(&segments, None);
        let low = self.assembler.load(low_half(argument.index), low);
        if width == Width::LowHalf {
            return low;
        }
        let above = self.assembler.ret(answer(1 << 32).0);
        let start = self.assembler.branch(Compare::Equal, 0, low, above);
        self.assembler.load(high_half(argument.index), start)
    }

    fn in_order(&mut self, answers: &[Answer], width: Width) -> Place {
        let mut otherwise = self.assembler.ret(self.policy.default.0);
        for (conditions, action) in answers.iter().rev() {
            let mut all = self.assembler.ret(action.0);
            for condition in conditions.iter().rev() {
                all = match width {
                    Width::Full => self.condition(condition, all, otherwise),
                    Width::LowHalf => self.low_condition(condition, all, otherwise),
                };
            }
            otherwise = all;
        }
        otherwise
    }

    /// A 64-bit comparison in halves, high first.
    fn condition(&mut self, condition: &Condition, yes: Place, no: Place) -> Place {
        let (_, value_high) = halves(condition.value);
        let (_, second_high) = halves(condition.second & condition.value);
        let low = self.low_comparison(condition, yes, no);
        let high = high_half(condition.index);
        let assembler = &mut self.assembler;
        if condition.operator == Operator::MaskedEqual {
            if value_high == 0 {
                return low;
            }
            let place = assembler.branch(Compare::Equal, second_high, low, no);
            let place = assembler.and(value_high, place);
            return assembler.load(high, place);
        }
        let (compare, yes, no) = comparison(condition.operator, yes, no);
        let place = assembler.branch(Compare::Equal, value_high, low, no);
        let place = match compare {
            Compare::Equal => place,
            Compare::Greater | Compare::GreaterOrEqual => {
                assembler.branch(Compare::Greater, value_high, yes, place)
            }
        };
        assembler.load(high, place)
    }

    /// The same, with an upper half that counts as zero.
    fn low_condition(&mut self, condition: &Condition, yes: Place, no: Place) -> Place {
        let (_, value_high) = halves(condition.value);
        let (_, second_high) = halves(condition.second & condition.value);
        let masked = condition.operator == Operator::MaskedEqual;
        if masked && second_high == 0 || !masked && value_high == 0 {
            return self.low_comparison(condition, yes, no);
        }
        // Zero is neither equal to nor greater than what is wanted there.
        let (_, _, no) = comparison(condition.operator, yes, no);
        no
    }

    fn low_comparison(&mut self, condition: &Condition, yes: Place, no: Place) -> Place {
        let (value, _) = halves(condition.value);
        let (second, _) = halves(condition.second & condition.value);
        let (compare, yes, no) = comparison(condition.operator, yes, no);
        let place = if condition.operator == Operator::MaskedEqual {
            let place = self.assembler.branch(compare, second, yes, no);
            self.assembler.and(value, place)
        } else {
            self.assembler.branch(compare, value, yes, no)
        };
        self.assembler.load(low_half(condition.index), place)
    }
}

/// Expresses an operator by a comparison that the machine has, with the ways out exchanged where
/// it is the opposite.
const fn comparison(operator: Operator, yes: Place, no: Place) -> (Compare, Place, Place) {
    match operator {
        Operator::Equal | Operator::MaskedEqual => (Compare::Equal, yes, no),
        Operator::NotEqual => (Compare::Equal, no, yes),
        Operator::GreaterOrEqual => (Compare::GreaterOrEqual, yes, no),
        Operator::Less => (Compare::GreaterOrEqual, no, yes),
        Operator::Greater => (Compare::Greater, yes, no),
        Operator::LessOrEqual => (Compare::Greater, no, yes),
    }
}

/// Covers the segments with the fewest instructions: a chunk costs one, and one for each number in
/// it that is not its base's. Works from the last segment to the first, keeping the best cover of
/// every rest.
fn chunks(segments: &[Segment], shared: Option<Target>) -> Vec<Chunk> {
    struct Best {
        cost: u32,
        base: Target,
        next: usize,
    }
    let mut best: Vec<Option<Best>> = (0..=segments.len()).map(|_| None).collect();
    for first in (0..segments.len()).rev() {
        let near = segments[first..].iter().take(2).map(|segment| Some(segment.target));
        for base in near.chain([shared]).flatten() {
            let mut chain = 0;
            for (last, segment) in segments.iter().enumerate().skip(first) {
                if !segment.fits(base, shared) {
                    chain += segment.length.filter(|length| *length <= 2).unwrap_or(CHAIN + 1);
                }
                if chain > CHAIN {
                    break;
                }
                let rest = best[last + 1].as_ref().map_or(0, |best| best.cost);
                let cost = chain + 1 + rest;
                if best[first].as_ref().is_none_or(|known| cost < known.cost) {
                    best[first] = Some(Best { cost, base, next: last + 1 });
                }
            }
        }
    }
    let mut chunks = Vec::new();
    let mut at = 0;
    while let Some(Best { base, next, .. }) = &best[at] {
        let odd = segments[at..*next].iter().filter(|segment| !segment.fits(*base, shared));
        let singles = odd.flat_map(|segment| {
            let length = segment.length.expect("an endless segment is no single number");
            (segment.start..segment.start + length).map(|number| (number, segment.target))
        });
        chunks.push(Chunk { start: segments[at].start, base: *base, singles: singles.collect() });
        at = *next;
    }
    chunks
}

impl Segment {
    fn fits(&self, base: Target, shared: Option<Target>) -> bool {
        self.target == base || self.shared && shared == Some(base)
    }
}

/// The argument that all answers test, once each, and the values where the answer may change.
struct OneArgument {
    index: u32,
    cuts: Vec<u32>,
}

fn one_argument(answers: &[Answer]) -> Option<OneArgument> {
    let (first, _) = answers.first()?;
    let index = first.first()?.index;
    let mut cuts = vec![0];
    for (conditions, _) in answers {
        let [condition] = conditions.as_slice() else { return None };
        if condition.index != index || condition.operator == Operator::MaskedEqual {
            return None;
        }
        let value = u32::try_from(condition.value).ok()?;
        cuts.extend([Some(value), value.checked_add(1)].into_iter().flatten());
    }
    cuts.sort_unstable();
    cuts.dedup();
    Some(OneArgument { index, cuts })
}

const fn halves(value: u64) -> (u32, u32) {
    (value as u32, (value >> 32) as u32)
}

// Both architectures are little-endian.
const fn low_half(index: u32) -> u32 {
    ARGUMENTS + 8 * index
}

const fn high_half(index: u32) -> u32 {
    low_half(index) + 4
}

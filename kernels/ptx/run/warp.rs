//! A warp: its registers, and what each instruction does to them.
use super::{
    access::World,
    arithmetic::{self, narrow, wide},
    convert,
    copies::Copies,
    flow::Flow,
    row::{Row, WideRow, map, select, zip},
};
use crate::program::{Address, Base, Condition, Count, Logic, Op, P, Place, Program, R, TRUE, Verdict, W};

/// Why a lane cannot go on.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    pub(crate) lane: usize,
    pub(crate) what: String,
}

impl Stop {
    pub(crate) fn new(lane: usize, what: impl Into<String>) -> Stop {
        Stop { lane, what: what.into() }
    }
}

/// Why a warp no longer runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pause {
    /// Its turn is over.
    Turn,
    /// It waits at the barrier before its next step.
    Barrier,
    /// All lanes have ended.
    Done,
}

/// The rows of a warp.
#[derive(Clone)]
pub(crate) struct Registers {
    r: Vec<Row>,
    w: Vec<WideRow>,
    p: Vec<u32>,
}

impl Registers {
    /// All hold NaN.
    pub(crate) fn new([r, w, p]: [usize; 3]) -> Registers {
        let mut p = vec![0; p];
        p[usize::from(TRUE.0)] = u32::MAX;
        Registers { r: vec![[u32::MAX; 32]; r], w: vec![[u64::MAX; 32]; w], p }
    }
    /// Fills a row with one value.
    pub(crate) fn fill(&mut self, place: Place, value: u64) {
        match place {
            Place::R(R(r)) => self.r[usize::from(r)] = [value as u32; 32],
            Place::W(W(w)) => self.w[usize::from(w)] = [value; 32],
            Place::None => {}
        }
    }
    #[inline(always)]
    pub(crate) fn r(&self, r: R) -> &Row {
        &self.r[usize::from(r.0)]
    }
    #[inline(always)]
    pub(crate) fn w(&self, w: W) -> &WideRow {
        &self.w[usize::from(w.0)]
    }
    #[inline(always)]
    pub(crate) fn condition(&self, c: Condition) -> u32 {
        self.p[usize::from(c.of.0)] ^ if c.negated { u32::MAX } else { 0 }
    }
    /// Writes the lanes of `mask`.
    #[inline(always)]
    pub(crate) fn set_r(&mut self, to: R, mask: u32, value: &Row) {
        let row = &mut self.r[usize::from(to.0)];
        *row = if mask == u32::MAX { *value } else { select(mask, value, row) };
    }
    #[inline(always)]
    pub(crate) fn set_w(&mut self, to: W, mask: u32, value: &WideRow) {
        let row = &mut self.w[usize::from(to.0)];
        *row = if mask == u32::MAX { *value } else { select(mask, value, row) };
    }
    #[inline(always)]
    pub(crate) fn set_p(&mut self, to: P, mask: u32, value: u32) {
        let p = &mut self.p[usize::from(to.0)];
        *p = (*p & !mask) | (value & mask);
    }
    /// The lanes' addresses.
    #[inline(always)]
    pub(crate) fn address(&self, address: Address) -> WideRow {
        let offset = address.offset.cast_unsigned();
        match address.base {
            Base::R(r) => map(self.r(r), |a| u64::from(a).wrapping_add(offset)),
            Base::W(w) => map(self.w(w), |a| a.wrapping_add(offset)),
        }
    }

    /// What an instruction on registers alone does; whether `op` is one.
    #[inline(always)]
    fn compute(&mut self, op: &Op, mask: u32) -> bool {
        match op {
            Op::Unary32(..) | Op::Binary32(..) | Op::Ternary32(..) | Op::Shift32(..) | Op::Narrow(..) => {
                self.compute_32(op, mask);
            }
            Op::Unary64(..)
            | Op::Binary64(..)
            | Op::Ternary64(..)
            | Op::Shift64(..)
            | Op::Wide(..)
            | Op::Insert64(..) => {
                self.compute_64(op, mask);
            }
            &Op::MulWide { signed, to, of: [a, b], plus } => {
                let product = arithmetic::mul_wide(signed, self.r(a), self.r(b));
                let sum = plus.map_or(product, |c| zip(&product, self.w(c), u64::wrapping_add));
                self.set_w(to, mask, &sum);
            }
            &Op::Widen(conversion, to, a) => self.set_w(to, mask, &convert::widen(conversion, self.r(a))),
            &Op::Shorten(conversion, to, a) => self.set_r(to, mask, &convert::shorten(conversion, self.w(a))),
            &Op::Compare32(comparison, a, b, verdict) => {
                self.judge(narrow::compare(comparison, self.r(a), self.r(b)), verdict, mask);
            }
            &Op::Compare64(comparison, a, b, verdict) => {
                self.judge(wide::compare(comparison, self.w(a), self.w(b)), verdict, mask);
            }
            &Op::Select32(to, a, b, c) => {
                self.set_r(to, mask, &select(self.condition(c), self.r(a), self.r(b)));
            }
            &Op::Select64(to, a, b, c) => {
                self.set_w(to, mask, &select(self.condition(c), self.w(a), self.w(b)));
            }
            &Op::Logic(logic, to, a, b) => {
                self.set_p(to, mask, combine(logic, self.condition(a), self.condition(b)));
            }
            other => return self.compute_bits(other, mask),
        }
        true
    }

    #[inline(always)]
    fn compute_32(&mut self, op: &Op, mask: u32) {
        let (to, value) = match *op {
            Op::Unary32(operation, to, a) => (to, narrow::unary(operation, self.r(a))),
            Op::Binary32(operation, to, a, b) => (to, narrow::binary(operation, self.r(a), self.r(b))),
            Op::Ternary32(operation, to, a, b, c) => {
                (to, narrow::ternary(operation, self.r(a), self.r(b), self.r(c)))
            }
            Op::Shift32(shift, to, a, by) => (to, narrow::shift(shift, self.r(a), self.r(by))),
            Op::Narrow(conversion, to, a) => (to, convert::narrow(conversion, self.r(a))),
            _ => return,
        };
        self.set_r(to, mask, &value);
    }

    #[inline(always)]
    fn compute_64(&mut self, op: &Op, mask: u32) {
        let (to, value) = match *op {
            Op::Unary64(operation, to, a) => (to, wide::unary(operation, self.w(a))),
            Op::Binary64(operation, to, a, b) => (to, wide::binary(operation, self.w(a), self.w(b))),
            Op::Ternary64(operation, to, a, b, c) => {
                (to, wide::ternary(operation, self.w(a), self.w(b), self.w(c)))
            }
            Op::Shift64(shift, to, a, by) => (to, wide::shift(shift, self.w(a), self.r(by))),
            Op::Wide(conversion, to, a) => (to, convert::wide(conversion, self.w(a))),
            Op::Insert64(to, [a, b], [at, n]) => {
                let (a, b, at, n) = (self.w(a), self.w(b), self.r(at), self.r(n));
                (to, std::array::from_fn(|i| arithmetic::insert_wide(a[i], b[i], at[i], n[i])))
            }
            _ => return,
        };
        self.set_w(to, mask, &value);
    }

    /// The rarer ones.
    #[inline(never)]
    fn compute_bits(&mut self, op: &Op, mask: u32) -> bool {
        let (to, value) = match *op {
            Op::Count32(count, to, a) => (to, map(self.r(a), |a| counted(count, a.into(), 32))),
            Op::Count64(count, to, a) => (to, map(self.w(a), |a| counted(count, a, 64))),
            Op::Bits(bits, to, [a, b, c]) => (to, arithmetic::bits(bits, self.r(a), self.r(b), self.r(c))),
            Op::Insert(to, [a, b, at, n]) => {
                let [a, b, at, n] = [a, b, at, n].map(|r| self.r(r));
                (to, std::array::from_fn(|i| arithmetic::insert(a[i], b[i], at[i], n[i])))
            }
            Op::Pack16(to, low, high) => (to, zip(self.r(low), self.r(high), |l, h| (l & 0xffff) | h << 16)),
            Op::High16(to, a) => (to, map(self.r(a), |a| a >> 16)),
            Op::Pack32(to, low, high) => {
                let whole = zip(self.r(low), self.r(high), |l, h| u64::from(h) << 32 | u64::from(l));
                self.set_w(to, mask, &whole);
                return true;
            }
            _ => return false,
        };
        self.set_r(to, mask, &value);
        true
    }

    #[inline(always)]
    fn judge(&mut self, holds: u32, verdict: Verdict, mask: u32) {
        let holds = if verdict.negated { !holds } else { holds };
        let with = |holds: u32, registers: &Registers| match verdict.with {
            None => holds,
            Some((logic, c)) => combine(logic, holds, registers.condition(c)),
        };
        let (result, opposite) = (with(holds, self), with(!holds, self));
        self.set_p(verdict.to, mask, result);
        if let Some(to) = verdict.opposite {
            self.set_p(to, mask, opposite);
        }
    }
}

#[inline(always)]
fn combine(logic: Logic, a: u32, b: u32) -> u32 {
    match logic {
        Logic::And => a & b,
        Logic::Or => a | b,
        Logic::Xor => a ^ b,
    }
}

/// Counts in the low `width` bits.
fn counted(count: Count, a: u64, width: u32) -> u32 {
    let zeros = a.leading_zeros() - (64 - width);
    match count {
        Count::Ones => a.count_ones(),
        Count::LeadingZeros => zeros,
        _ if a == 0 => u32::MAX,
        Count::Highest => width - 1 - zeros,
        Count::HighestShift => zeros,
    }
}

/// Steps that are to be run; what is inlined here is compiled for the vectors of the processor.
struct Steps<'w, 'p, 'm> {
    warp: &'w mut Warp<'p>,
    world: &'w mut World<'m>,
    steps: u64,
}

impl pulp::NullaryFnOnce for Steps<'_, '_, '_> {
    type Output = Result<(), Stop>;

    #[inline(always)]
    fn call(self) -> Result<(), Stop> {
        self.warp.steps(self.world, self.steps)
    }
}

/// A warp.
pub(crate) struct Warp<'p> {
    program: &'p Program,
    pub(crate) registers: Registers,
    pub(crate) flow: Flow,
    pub(crate) copies: Copies,
    /// The local memory of all lanes, one after another.
    pub(crate) local: Vec<u8>,
    pub(crate) pause: Pause,
}

impl<'p> Warp<'p> {
    /// A warp with these lanes, before its first step.
    pub(crate) fn new(program: &'p Program, lanes: u32, registers: Registers) -> Warp<'p> {
        let local = vec![0xff; 32 * program.local];
        let (flow, copies) = (Flow::new(lanes), Copies::default());
        Warp { program, registers, flow, copies, local, pause: Pause::Turn }
    }
    /// The step that comes next.
    pub(crate) fn next(&self) -> &'p crate::program::Step {
        &self.program.steps[self.flow.at as usize]
    }
    /// Runs at most `steps` steps; whether any was run.
    pub(crate) fn run(&mut self, world: &mut World<'_>, steps: u64) -> Result<(), Stop> {
        #[cfg(target_arch = "x86_64")]
        if let Some(v3) = pulp::x86::V3::try_new() {
            return v3.vectorize(Steps { warp: self, world, steps });
        }
        self.steps(world, steps)
    }

    /// What the vectorised versions of `run` are made of.
    #[inline(always)]
    fn steps(&mut self, world: &mut World<'_>, most: u64) -> Result<(), Stop> {
        self.pause = Pause::Turn;
        for _ in 0..most {
            let step = &self.program.steps[self.flow.at as usize];
            let mask = self.flow.active & self.registers.condition(step.when);
            self.flow.at += 1;
            world.statistics.instructions += 1;
            if !self.registers.compute(&step.op, mask) && !self.step(&step.op, mask, world)? {
                return Ok(());
            }
            self.flow.settle();
        }
        Ok(())
    }

    /// An instruction on more than registers; whether the warp goes on.
    #[inline(always)]
    fn step(&mut self, op: &Op, mask: u32, world: &mut World<'_>) -> Result<bool, Stop> {
        match op {
            Op::Branch(to) => self.flow.branch(mask, *to),
            Op::Load(access) if mask != 0 => self.load(access, mask, world)?,
            Op::Store(access) if mask != 0 => self.store(access, mask, world)?,
            Op::Mma(mma) if mask != 0 => self.mma(mma, mask, world)?,
            Op::Copy(copy) if mask != 0 => self.copy(copy, mask, world)?,
            Op::Commit => self.copies.commit(mask),
            Op::Wait(most) if mask != 0 => self.copies.wait(mask, *most, world)?,
            Op::Exit => {
                let is_done = !self.flow.exit(mask);
                self.pause = if is_done { Pause::Done } else { Pause::Turn };
                return Ok(!is_done);
            }
            Op::Barrier(_) | Op::BarrierReduce { .. } => {
                self.arrive(mask)?;
                return Ok(false);
            }
            Op::BranchTable(index, targets) => self.branch_table(*index, targets, mask)?,
            other if mask != 0 => self.together(other, mask, world)?,
            _ => {}
        }
        Ok(true)
    }

    /// Waits at the barrier that was just read.
    fn arrive(&mut self, mask: u32) -> Result<(), Stop> {
        self.flow.at -= 1;
        if mask != self.flow.live {
            let missing = (self.flow.live & !mask).trailing_zeros() as usize;
            return Err(Stop::new(missing, "a lane is elsewhere while others of its warp wait at a barrier"));
        }
        self.pause = Pause::Barrier;
        Ok(())
    }
    /// Goes on behind the barrier.
    pub(crate) fn leave(&mut self) {
        self.flow.at += 1;
        self.flow.settle();
        self.pause = Pause::Turn;
    }

    /// Sends each lane where its number says.
    fn branch_table(&mut self, index: R, targets: &[u32], mask: u32) -> Result<(), Stop> {
        let row = *self.registers.r(index);
        for lane in super::row::lanes(mask) {
            let missing = || Stop::new(lane, format!("no branch target has the number {}", row[lane]));
            let to = *targets.get(row[lane] as usize).ok_or_else(missing)?;
            self.flow.branch(1 << lane, to);
        }
        Ok(())
    }
}

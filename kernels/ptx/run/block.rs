//! A block: its warps, their turns, and its barriers.
use super::{
    access::World,
    row::Row,
    warp::{Pause, Registers, Stop, Warp},
};
use crate::{
    Fault, Launch, Schedule, Statistics,
    program::{Op, P, Program, Reduction, Special},
};

/// Steps after which a warp is taken to run for ever.
const MOST_STEPS: u64 = 1 << 30;

/// Rows that all warps of a launch share: numbers and parameters.
pub(crate) fn prepared(program: &Program, parameters: &[u8], launch: &Launch<'_>) -> Registers {
    let mut registers = Registers::new(program.rows);
    for &(place, value) in &program.numbers {
        registers.fill(place, value);
    }
    for given in &program.given {
        let mut word = [0; 8];
        word[..given.bytes].copy_from_slice(&parameters[given.offset..given.offset + given.bytes]);
        let shift = 64 - 8 * given.bytes as u32;
        let unsigned = u64::from_le_bytes(word);
        let value = if given.signed {
            ((unsigned << shift).cast_signed() >> shift).cast_unsigned()
        } else {
            unsigned
        };
        registers.fill(given.to, if given.cut16 { value & 0xffff } else { value });
    }
    for &(row, special) in &program.special {
        let value = match special {
            Special::Threads(axis) => launch.block[usize::from(axis)],
            Special::Blocks(axis) => launch.grid[usize::from(axis)],
            Special::DynamicShared => launch.shared as u32,
            _ => continue,
        };
        registers.set_r(row, u32::MAX, &[value; 32]);
    }
    registers
}

/// One block of a launch.
pub(crate) struct Block<'p, 'm> {
    program: &'p Program,
    at: [u32; 3],
    threads: [u32; 3],
    warps: Vec<Warp<'p>>,
    world: World<'m>,
}

impl<'p, 'm> Block<'p, 'm> {
    /// The block at a place of the grid, whose warps get registers from `spare`, or else copies of those that were prepared.
    pub(crate) fn new(
        program: &'p Program,
        launch: &Launch<'_>,
        at: [u32; 3],
        (prepared, spare): (&Registers, &mut Vec<Registers>),
        world: World<'m>,
    ) -> Block<'p, 'm> {
        let threads = launch.block;
        let n: u32 = threads.iter().product();
        let mut warp = |index: u32| {
            let left = n - 32 * index;
            let lanes = if left >= 32 { u32::MAX } else { (1 << left) - 1 };
            // No instruction writes to the rows that are prepared.
            let mut registers = spare.pop().unwrap_or_else(|| prepared.clone());
            for &(row, special) in &program.special {
                if let Some(value) = special_row(special, at, threads, index) {
                    registers.set_r(row, u32::MAX, &value);
                }
            }
            Warp::new(program, lanes, registers)
        };
        Block { program, at, threads, warps: (0..n.div_ceil(32)).map(&mut warp).collect(), world }
    }

    /// Runs to the end; what was counted. The registers become spare ones.
    pub(crate) fn run(mut self, schedule: Schedule, spare: &mut Vec<Registers>) -> Result<Statistics, Fault> {
        let n = self.warps.len();
        let order: Vec<usize> = match schedule {
            Schedule::Reverse => (0..n).rev().collect(),
            _ => (0..n).collect(),
        };
        let turn = if schedule == Schedule::LockStep { 1 } else { MOST_STEPS };
        loop {
            while self.turns(&order, turn)? {}
            if self.warps.iter().all(|w| w.pause == Pause::Done) {
                spare.extend(self.warps.into_iter().map(|warp| warp.registers));
                return Ok(self.world.statistics);
            }
            self.barrier()?;
        }
    }

    /// Gives each warp that can run a turn; whether one can go on.
    fn turns(&mut self, order: &[usize], turn: u64) -> Result<bool, Fault> {
        // In step, those go on that are furthest behind.
        let runs = |w: &&Warp<'_>| w.pause == Pause::Turn;
        let behind = self.warps.iter().filter(runs).map(|w| w.flow.at).min().unwrap_or(u32::MAX);
        let most = if turn == 1 { behind } else { u32::MAX };
        for &w in order {
            let warp = &mut self.warps[w];
            if warp.pause != Pause::Turn || warp.flow.at > most {
                continue;
            }
            let before = warp.flow.at;
            if let Err(stop) = warp.run(&mut self.world, turn) {
                return Err(self.fault(w, &stop));
            }
            let warp = &self.warps[w];
            if warp.pause == Pause::Turn && turn == MOST_STEPS {
                let stop = Stop::new(0, format!("the warp does not end; its turn began at step {before}"));
                return Err(self.fault(w, &stop));
            }
        }
        Ok(self.warps.iter().any(|w| w.pause == Pause::Turn))
    }

    fn fault(&self, warp: usize, stop: &Stop) -> Fault {
        let thread = (32 * warp + stop.lane) as u32;
        let [x, y, _] = self.threads;
        // The step that was being run stands before the next one.
        let at = self.warps[warp].flow.at;
        let at = if self.warps[warp].pause == Pause::Turn { at.saturating_sub(1) } else { at };
        Fault {
            kernel: self.program.name.clone(),
            line: self.program.steps.get(at as usize).map_or(0, |s| s.line),
            block: self.at,
            thread: [thread % x, thread / x % y, thread / x / y],
            what: stop.what.clone(),
        }
    }

    /// Nothing can run: all must be waiting at one and the same barrier.
    fn barrier(&mut self) -> Result<(), Fault> {
        let waits = |w: &Warp<'_>| w.pause == Pause::Barrier;
        let first = self.warps.iter().position(waits).unwrap_or(0);
        let at = self.warps[first].flow.at;
        for w in 0..self.warps.len() {
            let (warp, lanes) = (&self.warps[w], self.lanes(w));
            let what = if warp.pause == Pause::Done || warp.flow.live != lanes {
                "a barrier after some threads have returned"
            } else if warp.flow.at != at {
                "the threads of a block wait at different barriers"
            } else {
                continue;
            };
            return Err(self.fault(if warp.pause == Pause::Done { first } else { w }, &Stop::new(0, what)));
        }
        self.world.statistics.barriers += 1;
        if let Op::BarrierReduce { with, of, .. } = &self.warps[first].next().op {
            let (with, of) = (*with, *of);
            let votes = |w: usize| self.warps[w].registers.condition(of) & self.lanes(w);
            let count: u32 = (0..self.warps.len()).map(|w| votes(w).count_ones()).sum();
            self.reduced(with, count);
        }
        self.warps.iter_mut().for_each(Warp::leave);
        Ok(())
    }

    /// Gives every thread what a barrier has counted.
    fn reduced(&mut self, with: Reduction, count: u32) {
        let threads: u32 = self.threads.iter().product();
        let all = |holds: bool| if holds { u32::MAX } else { 0 };
        for warp in &mut self.warps {
            let to_p =
                |registers: &mut Registers, p: P, holds: bool| registers.set_p(p, u32::MAX, all(holds));
            match with {
                Reduction::Count(r) => warp.registers.set_r(r, u32::MAX, &[count; 32]),
                Reduction::All(p) => to_p(&mut warp.registers, p, count == threads),
                Reduction::Any(p) => to_p(&mut warp.registers, p, count > 0),
            }
        }
    }

    /// The lanes that a warp begins with.
    fn lanes(&self, warp: usize) -> u32 {
        let left = self.threads.iter().product::<u32>() - 32 * warp as u32;
        if left >= 32 { u32::MAX } else { (1 << left) - 1 }
    }
}

/// What the lanes of a warp find in a special register that differs between blocks, warps or lanes.
fn special_row(special: Special, at: [u32; 3], [x, y, _]: [u32; 3], warp: u32) -> Option<Row> {
    let thread = |lane: usize| 32 * warp + lane as u32;
    Some(match special {
        Special::Thread(0) => std::array::from_fn(|l| thread(l) % x),
        Special::Thread(1) => std::array::from_fn(|l| thread(l) / x % y),
        Special::Thread(_) => std::array::from_fn(|l| thread(l) / x / y),
        Special::Block(axis) => [at[usize::from(axis)]; 32],
        Special::Lane => std::array::from_fn(|l| l as u32),
        Special::WarpIndex => [warp; 32],
        _ => return None,
    })
}

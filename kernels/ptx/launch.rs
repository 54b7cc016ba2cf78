//! Launches: a kernel, its geometry and its arguments, and what comes of them.
use crate::{
    memory::{Allocation, Memory},
    program::Program,
    run::{
        access::World,
        block::{Block, prepared},
        warp::Registers,
    },
};
use rayon::prelude::*;
use std::{fmt, ops::AddAssign, sync::Arc};

/// The most shared memory that a block may have, in bytes: that of sm_80.
pub const MOST_SHARED: usize = 163 << 10;

/// Who gets the next turn in a block. Results must not depend on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Schedule {
    /// The warps that are furthest behind run one instruction, so that all stay together.
    LockStep,
    /// The first warp runs until it has to wait, then the second: the greatest skew between them.
    Forward,
    /// The last warp runs first.
    Reverse,
}

impl Schedule {
    /// All of them.
    pub const ALL: [Schedule; 3] = [Schedule::LockStep, Schedule::Forward, Schedule::Reverse];
}

/// What to launch a kernel with.
#[derive(Clone, Debug)]
pub struct Launch<'a> {
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y and z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: usize,
    /// The bytes of each argument.
    pub arguments: &'a [&'a [u8]],
    /// The order of turns in a block.
    pub schedule: Schedule,
    /// Whether blocks run on several threads of the host. They must not depend on each other.
    pub parallel: bool,
}

/// Counts of what was executed.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Statistics {
    /// Decoded instructions of warps.
    pub instructions: u64,
    /// Bytes that lanes loaded from global memory, asynchronous copies included.
    pub loaded: u64,
    /// Bytes that lanes stored to global memory.
    pub stored: u64,
    /// Barriers of blocks.
    pub barriers: u64,
    /// `mma` instructions of warps.
    pub mma: u64,
    /// `ldmatrix` instructions of warps.
    pub ldmatrix: u64,
    /// Rows that `ldmatrix` had to wait for because another one lies in the same banks.
    pub bank_conflicts: u64,
}

impl AddAssign for Statistics {
    fn add_assign(&mut self, other: Statistics) {
        self.instructions += other.instructions;
        self.loaded += other.loaded;
        self.stored += other.stored;
        self.barriers += other.barriers;
        self.mma += other.mma;
        self.ldmatrix += other.ldmatrix;
        self.bank_conflicts += other.bank_conflicts;
    }
}

/// What a launch did wrong, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The kernel's name.
    pub kernel: String,
    /// The line of the PTX; 0 if the launch itself is refused.
    pub line: u32,
    /// The block's place in the grid.
    pub block: [u32; 3],
    /// The thread's place in the block.
    pub thread: [u32; 3],
    /// What was violated.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { kernel, line, block, thread, what } = self;
        if *line == 0 {
            return write!(f, "`{kernel}` is not launched: {what}");
        }
        let triple = |[x, y, z]: [u32; 3]| format!("({x}, {y}, {z})");
        write!(f, "`{kernel}`, PTX line {line}, block {}, thread {}: {what}", triple(*block), triple(*thread))
    }
}

impl std::error::Error for Fault {}

/// A kernel of a module.
#[derive(Clone)]
pub struct Kernel {
    pub(crate) program: Arc<Program>,
    pub(crate) statics: Arc<Allocation>,
}

impl Kernel {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.program.name
    }
    /// The sizes of its parameters in bytes.
    pub fn parameters(&self) -> Vec<usize> {
        self.program.parameters.iter().map(|p| p.bytes).collect()
    }
    /// Where each parameter lies among all of them, and its bytes.
    pub fn layout(&self) -> Vec<(usize, usize)> {
        self.program.parameters.iter().map(|p| (p.offset, p.bytes)).collect()
    }
    /// Bytes of shared memory that it declares.
    pub fn static_shared(&self) -> usize {
        self.program.shared
    }
    /// Bytes of local memory of each thread.
    pub fn local(&self) -> usize {
        self.program.local
    }
    /// The most threads of a block that it may be launched with.
    pub fn most_threads(&self) -> usize {
        self.program.most_threads.unwrap_or(1024)
    }

    /// Runs all blocks.
    ///
    /// # Errors
    /// The first violation that is met, of the geometry or by a thread.
    pub fn launch(&self, launch: &Launch<'_>, memory: &Memory) -> Result<Statistics, Fault> {
        self.check(launch)?;
        let parameters = self.pack(launch)?;
        let prepared = prepared(&self.program, &parameters, launch);
        let [x, y, z] = launch.grid.map(u64::from);
        let one = |spare: &mut Vec<Registers>, number: u64| {
            let at = [number % x, number / x % y, number / x / y].map(|n| n as u32);
            let shared = vec![0xff; self.program.shared + launch.shared];
            let world = World { memory, statics: &self.statics, shared, statistics: Statistics::default() };
            Block::new(&self.program, launch, at, (&prepared, spare), world).run(launch.schedule, spare)
        };
        let sum = |mut a: Statistics, b: Statistics| {
            a += b;
            a
        };
        let blocks = 0..x * y * z;
        if launch.parallel {
            let each = blocks.into_par_iter().map_init(Vec::new, one);
            return each.try_reduce(Statistics::default, |a, b| Ok(sum(a, b)));
        }
        let mut spare = Vec::new();
        blocks.map(|number| one(&mut spare, number)).try_fold(Statistics::default(), |a, b| Ok(sum(a, b?)))
    }

    /// The limits of a launch.
    fn check(&self, launch: &Launch<'_>) -> Result<(), Fault> {
        let threads: u64 = launch.block.iter().map(|&n| u64::from(n)).product();
        let [x, y, z] = launch.grid;
        let shared = self.program.shared + launch.shared;
        let what = if threads == 0 || threads > self.most_threads() as u64 {
            format!("a block of {threads} threads; it takes 1 to {}", self.most_threads())
        } else if x == 0 || y == 0 || z == 0 || x > i32::MAX as u32 || y > 65_535 || z > 65_535 {
            format!("a grid of {x} × {y} × {z} blocks")
        } else if shared > MOST_SHARED {
            format!("{shared} bytes of shared memory; there are {MOST_SHARED}")
        } else {
            return Ok(());
        };
        Err(self.refused(what))
    }

    fn refused(&self, what: String) -> Fault {
        Fault { kernel: self.name().into(), line: 0, block: [0; 3], thread: [0; 3], what }
    }

    /// The arguments in the kernel's parameter memory.
    fn pack(&self, launch: &Launch<'_>) -> Result<Vec<u8>, Fault> {
        let parameters = &self.program.parameters;
        let n = parameters.len();
        if launch.arguments.len() != n {
            return Err(self.refused(format!("{} arguments, not {n}", launch.arguments.len())));
        }
        let mut packed = vec![0; parameters.last().map_or(0, |p| p.offset + p.bytes)];
        for (i, (p, argument)) in parameters.iter().zip(launch.arguments).enumerate() {
            if argument.len() != p.bytes {
                let what = format!("argument {i} has {} bytes, not {}", argument.len(), p.bytes);
                return Err(self.refused(what));
            }
            packed[p.offset..p.offset + p.bytes].copy_from_slice(argument);
        }
        Ok(packed)
    }
}

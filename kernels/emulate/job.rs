//! Jobs for an emulator program: a plan with its operands goes in, its results come out.
use crate::Toolchain;
use graft_kernels::cuda::{Argument, Buffer, Launch, Plan};
use std::{
    io::{Read, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// How many thread orders there are: forward, reverse, random, and twice the greatest skew between warps.
pub const ORDERS: u64 = 5;

/// A plan and its operands.
#[derive(Clone, Default, Debug)]
pub struct Job {
    /// What to launch.
    pub plan: Plan,
    /// The operands' bytes.
    pub operands: Vec<Vec<u8>>,
    /// The results' sizes in bytes.
    pub results: Vec<usize>,
    /// Pairs (operand, result): the operand lies in the result's memory.
    pub in_place: Vec<(usize, usize)>,
}

/// What was executed.
#[derive(Clone, Copy, Debug)]
pub struct Statistics {
    /// Turns that threads got.
    pub switches: u64,
    /// Barriers of blocks.
    pub barriers: u64,
    /// `mma` instructions of warps.
    pub mma: u64,
    /// `ldmatrix` instructions of warps.
    pub ldmatrix: u64,
    /// Rows that `ldmatrix` had to wait for because another one lies in the same banks.
    pub bank_conflicts: u64,
}

/// What a job came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The results' bytes.
    pub results: Vec<Vec<u8>>,
    /// What was executed.
    pub statistics: Statistics,
}

/// A running program.
pub struct Emulator {
    toolchain: Toolchain,
    child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
}

/// What memory holds that nobody has written: NaN in every floating-point type.
const POISON: u8 = 0xff;

impl Emulator {
    /// Builds and starts the program; modules are built when a job needs them.
    ///
    /// # Errors
    /// Why it cannot be built or started, as text.
    pub fn start(toolchain: Toolchain) -> Result<Emulator, String> {
        let program = toolchain.program()?;
        let mut command = Command::new(&program);
        // A race is an end, as everything else that is wrong.
        command.env("TSAN_OPTIONS", "halt_on_error=1 report_bugs=1").env("ASAN_OPTIONS", "detect_leaks=0");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| format!("cannot start `{}`: {e}", program.display()))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let output = output.ok_or("the program has no standard output")?;
        Ok(Emulator { toolchain, child, input, output })
    }

    /// Runs a job with threads in this order.
    ///
    /// # Errors
    /// What the program found wrong; it has ended then.
    pub fn run(&mut self, job: &Job, order: u64, seed: u64) -> Result<Outcome, String> {
        self.exchange(job, order, seed).or_else(|e| self.last_words(&e))
    }

    fn exchange(&mut self, job: &Job, order: u64, seed: u64) -> Result<Outcome, String> {
        let text = |e: std::io::Error| e.to_string();
        let encoded = job.encode(&self.toolchain, order, seed)?;
        let input = self.input.as_mut().ok_or("the program has ended")?;
        input.write_all(&encoded).and_then(|()| input.flush()).map_err(text)?;
        let mut read = |n: usize| {
            let mut bytes = vec![0; n];
            self.output.read_exact(&mut bytes).map(|()| bytes).map_err(text)
        };
        let mut results = Vec::new();
        for (i, n) in job.buffers().into_iter().map(|b| b.len()).enumerate() {
            let bytes = read(n)?;
            if job.is_result(i) {
                results.push(bytes);
            } else if i < job.operands.len() && bytes != job.operands[i] {
                return Err(format!("operand {i} was written to"));
            }
        }
        let words = read(5 * 8)?;
        let word = |i: usize| words[8 * i..].iter().take(8).rev().fold(0, |n, &b| n << 8 | u64::from(b));
        let [switches, barriers, mma, ldmatrix, bank_conflicts] = [0, 1, 2, 3, 4].map(word);
        Ok(Outcome { results, statistics: Statistics { switches, barriers, mma, ldmatrix, bank_conflicts } })
    }

    /// The error that the program reports, having ended.
    fn last_words(&mut self, error: &str) -> Result<Outcome, String> {
        self.input = None;
        let mut said = String::new();
        if let Some(stderr) = self.child.stderr.as_mut() {
            stderr.read_to_string(&mut said).map_err(|e| e.to_string())?;
        }
        let said = said.trim();
        Err(if said.is_empty() { error.to_string() } else { said.to_string() })
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // The end of its input ends the program.
        self.input = None;
        let _ = self.child.wait();
    }
}

impl Job {
    /// What memory holds before: operands, results (poisoned, or the operand that lies there), workspace (poisoned), frames.
    pub fn buffers(&self) -> Vec<Vec<u8>> {
        let seed =
            |o: usize| self.in_place.iter().find(|pair| pair.1 == o).map(|&(i, _)| self.operands[i].clone());
        let results =
            self.results.iter().enumerate().map(|(o, &n)| seed(o).unwrap_or_else(|| vec![POISON; n]));
        let workspace = vec![POISON; self.plan.workspace];
        let frames = self.plan.frames().into_iter().map(|frame| frame.lay(&self.operands[frame.operand]));
        self.operands.iter().cloned().chain(results).chain([workspace]).chain(frames).collect()
    }
    /// Whether this one of the buffers is a result.
    pub fn is_result(&self, buffer: usize) -> bool {
        (self.operands.len()..self.operands.len() + self.results.len()).contains(&buffer)
    }
    fn encode(&self, toolchain: &Toolchain, order: u64, seed: u64) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let buffers = self.buffers();
        numbers(&mut bytes, &[order, seed, buffers.len() as u64]);
        for buffer in buffers {
            text(&mut bytes, &buffer);
        }
        numbers(&mut bytes, &[self.plan.launches.len() as u64]);
        for launch in &self.plan.launches {
            let library = toolchain.library(&launch.module)?;
            text(&mut bytes, library.to_string_lossy().as_bytes());
            self.launch(launch, &mut bytes);
        }
        Ok(bytes)
    }
    fn launch(&self, launch: &Launch, bytes: &mut Vec<u8>) {
        text(bytes, launch.kernel.as_bytes());
        numbers(bytes, &launch.grid.map(|n| n as u64));
        let counts = [launch.block, 1, 1, launch.shared, launch.arguments.len()];
        numbers(bytes, &counts.map(|n| n as u64));
        for &argument in &launch.arguments {
            numbers(bytes, &self.argument(argument));
        }
    }
    /// Which of the buffers an argument points to, and to which of its bytes; none for a null pointer.
    pub fn place(&self, buffer: Buffer) -> Option<(usize, usize)> {
        let n_operands = self.operands.len();
        match buffer {
            Buffer::Operand(i) => {
                let shared = self.in_place.iter().find(|pair| pair.0 == i).map(|&(_, o)| n_operands + o);
                Some((shared.unwrap_or(i), 0))
            }
            Buffer::Result(i) => Some((n_operands + i, 0)),
            Buffer::Workspace(at) => Some((n_operands + self.results.len(), at)),
            Buffer::Framed(frame) => {
                let i = self.plan.frames().iter().position(|&f| f == frame)?;
                Some((n_operands + self.results.len() + 1 + i, 0))
            }
            Buffer::Null => None,
        }
    }
    /// Size, buffer (or none), and the value or the place in the buffer.
    fn argument(&self, argument: Argument) -> [u64; 3] {
        let none = u64::MAX;
        match argument {
            Argument::Buffer(buffer) => {
                self.place(buffer).map_or([8, none, 0], |(i, at)| [8, i as u64, at as u64])
            }
            Argument::Int(n) => [4, none, u64::from(n.cast_unsigned())],
            Argument::Word(n) => [4, none, u64::from(n)],
            Argument::Long(n) => [8, none, n.cast_unsigned()],
            Argument::Float(x) => [4, none, u64::from(x.to_bits())],
        }
    }
}

fn numbers(bytes: &mut Vec<u8>, numbers: &[u64]) {
    numbers.iter().for_each(|n| bytes.extend(n.to_ne_bytes()));
}

/// A length and as many bytes.
fn text(bytes: &mut Vec<u8>, text: &[u8]) {
    numbers(bytes, &[text.len() as u64]);
    bytes.extend(text);
}

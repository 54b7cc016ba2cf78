//! What handles stand for: modules' functions, streams, recorded work.
use crate::status::{Outcome, Status, refuse};
use graft_ptx::{Kernel, Launch, Memory, Module, Schedule, Statistics};
use std::sync::Arc;

/// What a block may have of shared memory without asking for more, in bytes.
const SHARED: usize = 48 << 10;

/// The device's architecture.
const ARCH: u32 = 80;

/// A function of a module.
#[derive(Clone)]
pub(crate) struct Function {
    pub(crate) module: u64,
    pub(crate) kernel: Kernel,
    /// Bytes of dynamic shared memory that were asked for.
    pub(crate) dynamic_shared: usize,
}

/// A launch with its arguments.
#[derive(Clone)]
pub(crate) struct Work {
    pub(crate) function: Function,
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared: usize,
    pub(crate) arguments: Vec<Vec<u8>>,
}

/// What a stream does.
#[derive(Clone)]
pub(crate) enum Task {
    Launch(Box<Work>),
    Copy { from: u64, to: u64, bytes: usize },
    Fill { to: u64, pattern: [u8; 4], bytes: usize },
}

impl Task {
    /// Does it.
    pub(crate) fn run(&self, memory: &Memory, schedule: Schedule) -> Outcome<Statistics> {
        match self {
            Task::Launch(work) => work.run(memory, schedule),
            Task::Copy { from, to, bytes } => {
                memory.copy(*from, *to, *bytes).map(|()| Statistics::default()).or_else(|v| {
                    refuse(
                        Status::INVALID_VALUE,
                        format!("a copy of {bytes} bytes from {from:#x} to {to:#x}: {v}"),
                    )
                })
            }
            Task::Fill { to, pattern, bytes } => {
                let content: Vec<u8> = pattern.iter().copied().cycle().take(*bytes).collect();
                memory.write(*to, &content).map(|()| Statistics::default()).or_else(|v| {
                    refuse(Status::INVALID_VALUE, format!("a fill of {bytes} bytes at {to:#x}: {v}"))
                })
            }
        }
    }
}

impl Work {
    /// What a real driver looks at when it is told to launch.
    pub(crate) fn check(&self) -> Outcome {
        let Function { kernel, dynamic_shared, .. } = &self.function;
        let all = kernel.static_shared() + self.shared;
        if all > SHARED && self.shared > *dynamic_shared {
            let what = format!(
                "`{}` is launched with {all} bytes of shared memory; more than {SHARED} have to be asked for, and \
                 {dynamic_shared} were",
                kernel.name()
            );
            return refuse(Status::INVALID_VALUE, what);
        }
        Ok(())
    }
    fn run(&self, memory: &Memory, schedule: Schedule) -> Outcome<Statistics> {
        let arguments: Vec<&[u8]> = self.arguments.iter().map(Vec::as_slice).collect();
        let launch = Launch {
            grid: self.grid,
            block: self.block,
            shared: self.shared,
            arguments: &arguments,
            schedule,
            parallel: true,
        };
        self.function.kernel.launch(&launch, memory).or_else(|fault| {
            refuse(if fault.line == 0 { Status::INVALID_VALUE } else { Status::ILLEGAL_ADDRESS }, fault)
        })
    }
}

/// A module from its image: PTX for this device.
pub(crate) fn load(image: &[u8]) -> Outcome<Arc<Module>> {
    let Ok(text) = std::str::from_utf8(image) else {
        return refuse(Status::NO_BINARY_FOR_GPU, "a module that is no text: the emulated device takes PTX");
    };
    let target = text.lines().find_map(|line| line.strip_prefix(".target sm_"));
    let arch = target.map(|t| t.trim_end_matches(|c: char| !c.is_ascii_digit()));
    if arch.and_then(|a| a.parse::<u32>().ok()).is_some_and(|a| a > ARCH) {
        return refuse(
            Status::NO_BINARY_FOR_GPU,
            format!("a module for sm_{arch:?}: the device is sm_{ARCH}"),
        );
    }
    Module::parse(text).map(Arc::new).or_else(|e| refuse(Status::INVALID_PTX, e))
}

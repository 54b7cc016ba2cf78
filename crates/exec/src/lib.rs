//! Running graphs: a session plans a graph for the sizes it is fed, packs constants once, and runs the plan.
//!
//! A session knows no adapter, no gradient and no optimiser: a training step is a graph like any other, whose state is
//! an input that an output replaces from run to run ([`Session::new`]'s aliases).
#![forbid(unsafe_code)]

mod arena;
mod constants;
mod feed;
mod lower;
mod place;
mod plan;
mod profile;
mod session;
mod settle;
mod specialize;
mod step;
mod views;

pub use profile::{Entry, Profile};
pub use session::{Footprint, Session};

use graft_ir::{Code, Error};

/// How a session runs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Threads to use; as many as the machine has where `None`. Results do not depend on it.
    pub threads: Option<usize>,
    /// Where to run.
    pub device: Device,
    /// Whether to measure each node.
    pub profile: bool,
}

/// Where a session runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Device {
    /// This machine's processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

impl std::str::FromStr for Device {
    type Err = Error;
    fn from_str(text: &str) -> Result<Device, Error> {
        match text {
            "cpu" => Ok(Device::Cpu),
            "cuda" => Ok(Device::Cuda),
            _ => {
                Err(Error::new(Code::USAGE, format!("unknown device `{text}`")).help("known: `cpu`, `cuda`"))
            }
        }
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Device::Cpu => "cpu",
            Device::Cuda => "cuda",
        })
    }
}

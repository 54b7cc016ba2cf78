//! Running graphs: a session plans a graph for the sizes it is fed, packs constants once, and runs the plan.
//!
//! A session knows no adapter, no gradient and no optimiser: a training step is a graph like any other, whose state is
//! an input that an output replaces from run to run ([`Session::new`]'s aliases).
#![forbid(unsafe_code)]

mod arena;
mod backend;
mod chain;
mod constants;
mod cuda;
mod device;
mod feed;
mod host;
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

use backend::Backend;
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

impl Device {
    /// What it is called, for people: `cpu`, or `cuda` with the device's name.
    ///
    /// # Errors
    /// `DEVICE` if it cannot be used here.
    pub fn describe(self) -> Result<String, Error> {
        Ok(match self {
            Device::Cpu => host::Host::default().name(),
            Device::Cuda => cuda::Cuda::open()?.name(),
        })
    }
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

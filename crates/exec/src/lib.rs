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
mod group;
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
use graft_ir::{Code, DType, Error};

/// How a session runs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Threads to use; as many as the machine has where `None`. Results do not depend on it.
    pub threads: Option<usize>,
    /// Where to run.
    pub device: Device,
    /// How numbers between inputs and outputs are stored.
    pub format: Format,
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

impl Options {
    /// Checks that what is asked for can be had here.
    ///
    /// # Errors
    /// `DEVICE` if the device cannot be used, or does not have the format.
    pub fn check(&self) -> Result<(), Error> {
        if (self.device, self.format) == (Device::Cpu, Format::Bf16) {
            let message = format!("the precision `{}` is not available on `{}`", self.format, self.device);
            return Err(Error::new(Code::DEVICE, message).help("use `--precision f32`, or `--device cuda`"));
        }
        self.device.describe().map(drop)
    }
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

/// How a session stores the graph's single-precision numbers between its inputs and outputs. State, inputs and outputs keep
/// single precision, and sums are taken in it, whatever the format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// Single precision.
    #[default]
    F32,
    /// bfloat16, which a GPU's tensor cores multiply; the processor does not have it.
    Bf16,
}

impl Format {
    /// The element type.
    pub(crate) fn dtype(self) -> DType {
        match self {
            Format::F32 => DType::Float,
            Format::Bf16 => DType::Bfloat16,
        }
    }
}

impl std::str::FromStr for Format {
    type Err = Error;
    fn from_str(text: &str) -> Result<Format, Error> {
        match text {
            "f32" => Ok(Format::F32),
            "bf16" => Ok(Format::Bf16),
            _ => {
                Err(Error::new(Code::USAGE, format!("unknown precision `{text}`"))
                    .help("known: `f32`, `bf16`"))
            }
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Format::F32 => "f32",
            Format::Bf16 => "bf16",
        })
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

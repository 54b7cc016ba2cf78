//! What a session runs on: memory that holds state and activations, and something that does a plan's steps there.
use crate::{place::Place, plan::Plan, profile::Profile};
use graft_ir::{Result, Tensor};
use graft_kernels::{
    Threads,
    cuda::{Measurements, Target},
};
use std::ops::Range;

/// A machine's memory and its steps.
pub(crate) trait Backend: Send {
    /// What launches are planned for, if steps are launches.
    fn target(&self) -> Option<Target>;
    /// What it is called, for people.
    fn name(&self) -> String;
    /// Whether its times mean nothing, because it only imitates a device.
    fn is_emulated(&self) -> bool;
    /// The bytes of memory that it has.
    fn len(&self) -> usize;
    /// Makes the memory longer; its first `keep` bytes stay as they are.
    fn grow(&mut self, bytes: usize, keep: usize) -> Result<()>;
    /// Writes bytes into the memory, from byte `at` on.
    fn write(&mut self, at: usize, bytes: &[u8]) -> Result<()>;
    /// The bytes in a part of the memory.
    fn read(&self, range: Range<usize>) -> Result<Vec<u8>>;
    /// Makes a new plan ready to be run; what is to be said of that.
    fn prepare(&mut self, plan: &mut Plan) -> Result<Vec<String>>;
    /// Does a plan's steps, measuring each where there is a profile.
    fn run(&mut self, plan: &mut Plan, threads: Threads, profile: Option<&mut Profile>) -> Result<()>;
    /// Measures, on what the memory holds, the plan's large products with each tile and with the library; and what is to
    /// be said of that.
    fn tune(&mut self, plan: &Plan) -> Result<(Measurements, Vec<String>)>;
    /// What lies at a place after a run, row-major.
    fn tensor(&self, plan: &Plan, place: &Place) -> Result<Tensor>;
}

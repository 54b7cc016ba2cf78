//! The backend of this machine's processor.
use crate::{
    backend::Backend,
    place::Place,
    plan::Plan,
    profile::{Entry, Profile},
    step::{Arena, gathered},
};
use graft_ir::{Code, Error, Result, Tensor};
use graft_kernels::{
    Memory, Threads,
    cuda::{Measurements, Target},
};
use std::{ops::Range, time::Instant};

/// The processor's memory.
#[derive(Default)]
pub(crate) struct Host {
    memory: Memory,
}

/// Memory for state and activations; an error where there is not enough.
pub(crate) fn zeroed(bytes: usize) -> Result<Memory> {
    let none = || {
        let message = format!("a run on inputs of these sizes needs {bytes} bytes, which cannot be had");
        Error::new(Code::MEMORY, message).help("run smaller batches or shorter sequences")
    };
    Memory::try_zeroed(bytes).ok_or_else(none)
}

impl Backend for Host {
    fn target(&self) -> Option<Target> {
        None
    }
    fn name(&self) -> String {
        "cpu".into()
    }
    fn is_emulated(&self) -> bool {
        false
    }
    fn len(&self) -> usize {
        self.memory.len()
    }
    fn grow(&mut self, bytes: usize, keep: usize) -> Result<()> {
        let mut memory = zeroed(bytes)?;
        memory.bytes_mut()[..keep].copy_from_slice(&self.memory.bytes()[..keep]);
        self.memory = memory;
        Ok(())
    }
    fn write(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        self.memory.bytes_mut()[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
    fn read(&self, range: Range<usize>) -> Result<Vec<u8>> {
        Ok(self.memory.bytes()[range].to_vec())
    }
    fn prepare(&mut self, _: &mut Plan) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
    fn run(&mut self, plan: &mut Plan, threads: Threads, mut profile: Option<&mut Profile>) -> Result<()> {
        let Plan { graph, steps, constants, offsets, .. } = plan;
        let mut arena = Arena { memory: self.memory.bytes_mut(), offsets, constants };
        for step in steps {
            let start = profile.as_ref().map(|_| Instant::now());
            step.run(graph, &mut arena, threads)?;
            if let (Some(profile), Some(start)) = (profile.as_mut(), start) {
                profile.record(Entry::of(graph, step, start.elapsed()));
            }
        }
        Ok(())
    }
    fn tune(&mut self, _: &Plan) -> Result<(Measurements, Vec<String>)> {
        Err(Error::new(Code::DEVICE, "the processor's products have no tiles to choose from")
            .help("tune with `--device cuda`"))
    }
    fn tensor(&self, plan: &Plan, place: &Place) -> Result<Tensor> {
        let bytes = match plan.range(place) {
            Some(range) => &self.memory.bytes()[range],
            None => plan.constant(place),
        };
        gathered(place, bytes)
    }
}

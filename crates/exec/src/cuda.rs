//! The backend of an NVIDIA GPU. Constants are copied to it once; a plan whose steps are all launches is recorded when it
//! first runs and replayed from then on. What the device has no kernel for the host does, on copies.
use crate::{
    backend::Backend,
    constants::Constant,
    device::{self, Whole},
    place::{Place, Storage},
    plan::Plan,
    profile::{Entry, Profile},
    step::{Arena, Launches, Step, Work, gathered},
};
use graft_ir::{Result, Tensor, infer::node_label};
use graft_kernels::{
    Kernel, Memory, Threads,
    cuda::{self, Buffer, Class, DeviceMemory, Gpu, Recording, TILES, Table, Target},
};
use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

/// A device with the session's memory on it.
pub(crate) struct Cuda {
    gpu: Gpu,
    memory: DeviceMemory,
    len: usize,
    /// How often the memory was replaced: what was recorded for an earlier one is void.
    generation: u64,
    /// Constants that some plan still has on the device, by their bytes' address.
    uploaded: HashMap<usize, Weak<DeviceMemory>>,
    /// What steps on the host work on: a memory laid out like the device's.
    mirror: Memory,
}

/// How often each tile is measured, in one go.
const MEASURED: usize = 20;

/// What the device keeps of a plan.
#[derive(Default)]
pub(crate) struct Loaded {
    /// The plan's constants, as far as launches read them.
    constants: Vec<Option<Arc<DeviceMemory>>>,
    /// The recorded steps, and the memory's generation that they work on.
    recording: Option<(u64, Recording)>,
}

impl Cuda {
    /// The first device, with no memory yet.
    pub(crate) fn open() -> Result<Cuda> {
        let gpu = Gpu::open()?;
        let memory = gpu.allocate(0)?;
        let (uploaded, mirror) = (HashMap::new(), Memory::default());
        Ok(Cuda { gpu, memory, len: 0, generation: 0, uploaded, mirror })
    }
    /// The constant on the device.
    fn upload(&mut self, constant: &Constant) -> Result<Arc<DeviceMemory>> {
        let bytes = constant.bytes();
        let key = bytes.as_ptr() as usize;
        if let Some(memory) =
            self.uploaded.get(&key).and_then(Weak::upgrade).filter(|m| m.len() >= bytes.len())
        {
            return Ok(memory);
        }
        let mut memory = self.gpu.allocate(bytes.len())?;
        self.gpu.write(&mut memory, 0, bytes)?;
        let memory = Arc::new(memory);
        self.uploaded.insert(key, Arc::downgrade(&memory));
        Ok(memory)
    }
    /// Launches a step.
    fn launch(&self, plan: &Plan, step: &Step, launches: &Launches) -> Result<()> {
        let scratch = step.scratch.map_or(0, |(b, _)| self.memory.address() + plan.offsets[b] as u64);
        self.launch_as(plan, step, &launches.plan, scratch)
    }
    /// Launches a step by this plan, with scratch memory at an address.
    fn launch_as(&self, plan: &Plan, step: &Step, launches: &cuda::Plan, scratch: u64) -> Result<()> {
        let place = |place: Option<&Option<Place>>| -> u64 {
            let Some(Some(place)) = place else { return 0 };
            let base = match place.storage {
                Storage::Buffer(b) => self.memory.address() + plan.offsets[b] as u64,
                Storage::Constant(c) => {
                    plan.loaded.constants[c].as_ref().map_or(0, |memory| memory.address())
                }
            };
            base + place.bytes().start as u64
        };
        let address = |buffer: Buffer| match buffer {
            Buffer::Operand(i) => place(step.inputs.get(i)),
            Buffer::Result(i) => place(step.outputs.get(i)),
            Buffer::Workspace(at) => scratch + at as u64,
            Buffer::Null => 0,
        };
        let launched = launches.launches.iter().try_for_each(|launch| self.gpu.launch(launch, &address));
        launched
            .map_err(|e| e.at(format!("node `{}` ({})", node_label(&plan.graph, &step.node), step.node.op)))
    }
    /// Does a step on the host: its operands come from the device, its results go there.
    fn on_host(&mut self, plan: &Plan, step: &Step, threads: Threads) -> Result<()> {
        if self.mirror.len() < self.len {
            self.mirror = crate::host::zeroed(self.len)?;
        }
        for range in step.inputs.iter().flatten().filter_map(|place| plan.range(place)) {
            let bytes = self.gpu.read(&self.memory, range.clone())?;
            self.mirror.bytes_mut()[range].copy_from_slice(&bytes);
        }
        let Plan { graph, constants, offsets, .. } = plan;
        let mut arena = Arena { memory: self.mirror.bytes_mut(), offsets, constants };
        step.run(graph, &mut arena, threads)?;
        for range in step.outputs.iter().flatten().filter_map(|place| plan.range(place)) {
            self.gpu.write(&mut self.memory, range.start, &self.mirror.bytes()[range])?;
        }
        Ok(())
    }
    /// The time that a step takes with each tile, and the products whose tile that is; none if it has no such product.
    fn measure(
        &mut self,
        plan: &Plan,
        step: &Step,
        kernel: &Kernel,
    ) -> Result<Option<(Vec<Duration>, Vec<Class>)>> {
        let results: Vec<_> = step.outputs.iter().map(|p| p.as_ref().map(Whole::at)).collect();
        let constant = |p: &Place| p.buffer().is_none();
        let known =
            |i: usize| step.inputs[i].as_ref().filter(|p| constant(p)).map(|place| plan.constant(place));
        let (mut times, mut products) = (Vec::new(), Vec::new());
        for &tile in TILES {
            let target = Target { tile: Some(tile), ..self.gpu.target() };
            let site = device::site((&step.node, step.opset), &step.inputs, &results, &known, target);
            let Some(launches) = kernel.device.plan(&site) else { return Ok(None) };
            products = site.products();
            if products.is_empty() {
                return Ok(None);
            }
            self.gpu.prepare([&launches])?;
            let scratch = self.gpu.allocate(launches.workspace)?;
            let run = |times: usize| -> Result<Duration> {
                let start = Instant::now();
                for _ in 0..times {
                    self.launch_as(plan, step, &launches, scratch.address())?;
                }
                self.gpu.wait()?;
                Ok(start.elapsed())
            };
            // The first runs load the kernels.
            run(2)?;
            times.push(run(MEASURED)?);
        }
        Ok(Some((times, products)))
    }
    fn step(&mut self, plan: &Plan, step: &Step, threads: Threads) -> Result<()> {
        match &step.work {
            Work::Launches(launches) => self.launch(plan, step, launches),
            _ => self.on_host(plan, step, threads),
        }
    }
}

impl Backend for Cuda {
    fn target(&self) -> Option<Target> {
        Some(self.gpu.target())
    }
    fn name(&self) -> String {
        let emulated = if self.gpu.is_emulated() { " (EMULATED)" } else { "" };
        format!("cuda: {}{emulated}", self.gpu.name())
    }
    fn is_emulated(&self) -> bool {
        self.gpu.is_emulated()
    }
    fn len(&self) -> usize {
        self.len
    }
    fn grow(&mut self, bytes: usize, keep: usize) -> Result<()> {
        let mut memory = self.gpu.allocate(bytes)?;
        self.gpu.copy(&self.memory, &mut memory, keep)?;
        self.gpu.wait()?;
        (self.memory, self.len) = (memory, bytes);
        self.generation += 1;
        Ok(())
    }
    fn write(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        self.gpu.write(&mut self.memory, at, bytes)
    }
    fn read(&self, range: Range<usize>) -> Result<Vec<u8>> {
        self.gpu.read(&self.memory, range)
    }
    fn prepare(&mut self, plan: &mut Plan) -> Result<Vec<String>> {
        let launched = plan.steps.iter().filter_map(|step| match &step.work {
            Work::Launches(launches) => Some((step, &launches.plan)),
            _ => None,
        });
        self.gpu.prepare(launched.clone().map(|(_, plan)| &**plan))?;
        let mut constants = vec![None; plan.constants.len()];
        for place in launched.flat_map(|(step, _)| &step.inputs).flatten() {
            if let Storage::Constant(c) = place.storage {
                constants[c] = Some(self.upload(&plan.constants[c])?);
            }
        }
        self.uploaded.retain(|_, memory| memory.strong_count() > 0);
        plan.loaded = Loaded { constants, recording: None };
        Ok(self.gpu.notes())
    }
    fn run(&mut self, plan: &mut Plan, threads: Threads, profile: Option<&mut Profile>) -> Result<()> {
        if let Some(profile) = profile {
            for step in &plan.steps {
                let start = Instant::now();
                self.step(plan, step, threads)?;
                self.gpu.wait()?;
                profile.record(Entry::of(&plan.graph, step, start.elapsed()));
            }
            return Ok(());
        }
        if !plan.steps.iter().all(Step::is_launched) {
            return plan.steps.iter().try_for_each(|step| self.step(plan, step, threads));
        }
        if plan.loaded.recording.as_ref().is_none_or(|(generation, _)| *generation != self.generation) {
            let (gpu, steps) = (&self.gpu, &plan.steps);
            let recorded = gpu.record(|| {
                steps.iter().try_for_each(|step| match &step.work {
                    Work::Launches(launches) => self.launch(plan, step, launches),
                    _ => Ok(()),
                })
            })?;
            plan.loaded.recording = Some((self.generation, recorded));
        }
        plan.loaded.recording.as_ref().map_or(Ok(()), |(_, recording)| self.gpu.replay(recording))
    }
    fn tune(&mut self, plan: &Plan) -> Result<Table> {
        let mut table = Table::default();
        for step in &plan.steps {
            let Work::Launches(Launches { kernel: Some(kernel), .. }) = &step.work else { continue };
            let Some((times, products)) = self.measure(plan, step, kernel)? else { continue };
            let fastest = (0..times.len()).min_by_key(|&i| times[i]).unwrap_or(0);
            products.into_iter().for_each(|class| table.insert(class, fastest));
        }
        Ok(table)
    }
    fn tensor(&self, plan: &Plan, place: &Place) -> Result<Tensor> {
        match plan.range(place) {
            Some(range) => gathered(place, &self.gpu.read(&self.memory, range)?),
            None => gathered(place, plan.constant(place)),
        }
    }
}

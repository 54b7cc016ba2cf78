//! The backend of an NVIDIA GPU. Constants are copied to it once; a plan whose steps are all launches is recorded when it
//! first runs and replayed from then on. What the device has no kernel for the host does, on copies.
use crate::{
    backend::Backend,
    device::{self, Whole},
    place::{Place, Storage},
    plan::Plan,
    profile::{Entry, Profile},
    step::{Arena, Launches, Step, Work, gathered},
};
use graft_ir::{Error, Result, Tensor, infer::node_label};
use graft_kernels::{
    Kernel, Memory, Threads,
    cuda::{
        self, Buffer, Class, DeviceMemory, Frame, Gpu, Library, Measurements, Recording, TILES, Target, Tile,
    },
};
use std::{
    collections::{HashMap, HashSet},
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
    /// Constants that some plan still has on the device, by their bytes' address, and the frame that they lie in.
    uploaded: HashMap<Kept, Weak<DeviceMemory>>,
    /// What steps on the host work on: a memory laid out like the device's.
    mirror: Memory,
}

/// How often each step is timed for the median, and how often it is launched for one time.
const MEASURED: [usize; 2] = [7, 5];

/// A constant's bytes' address, and the frame that it lies in, if it does; of whichever operand.
type Kept = (usize, Option<Frame>);

/// What the device keeps of a plan.
#[derive(Default)]
pub(crate) struct Loaded {
    /// The plan's constants, as far as launches read them.
    constants: Vec<Option<Arc<DeviceMemory>>>,
    /// Constants in frames, by their numbers.
    frames: HashMap<(usize, Frame), Arc<DeviceMemory>>,
    /// The recorded steps, and the memory's generation that they work on.
    recording: Option<(u64, Recording)>,
    /// Whether a library does some of the steps and has yet to load what it needs for them, which may not be recorded.
    is_cold: bool,
}

impl Loaded {
    /// Nothing yet.
    fn of(plan: &Plan) -> Loaded {
        Loaded { constants: vec![None; plan.constants.len()], ..Loaded::default() }
    }
}

impl Cuda {
    /// The first device, with no memory yet.
    pub(crate) fn open() -> Result<Cuda> {
        let gpu = Gpu::open()?;
        let memory = gpu.allocate(0)?;
        let (uploaded, mirror) = (HashMap::new(), Memory::default());
        Ok(Cuda { gpu, memory, len: 0, generation: 0, uploaded, mirror })
    }
    /// A constant's bytes on the device, as they are or in a frame.
    fn upload(&mut self, bytes: &[u8], frame: Option<Frame>) -> Result<Arc<DeviceMemory>> {
        let key = (bytes.as_ptr() as usize, frame.map(|frame| Frame { operand: 0, ..frame }));
        if let Some(memory) =
            self.uploaded.get(&key).and_then(Weak::upgrade).filter(|m| m.len() >= bytes.len())
        {
            return Ok(memory);
        }
        let laid = frame.map(|frame| frame.lay(bytes));
        let bytes = laid.as_deref().unwrap_or(bytes);
        let mut memory = self.gpu.allocate(bytes.len())?;
        self.gpu.write(&mut memory, 0, bytes)?;
        let memory = Arc::new(memory);
        self.uploaded.insert(key, Arc::downgrade(&memory));
        Ok(memory)
    }
    /// The constants that a step's launches read, as they are or in frames, added to what is kept of a plan.
    fn load(&mut self, plan: &Plan, step: &Step, launches: &cuda::Plan, kept: &mut Loaded) -> Result<()> {
        for (i, place) in step.inputs.iter().enumerate() {
            let Some(Place { storage: Storage::Constant(c), .. }) = place else { continue };
            if launches.reads(i) && kept.constants[*c].is_none() {
                kept.constants[*c] = Some(self.upload(plan.constants[*c].bytes(), None)?);
            }
        }
        for frame in launches.frames() {
            if let Some(Some(place)) = step.inputs.get(frame.operand)
                && let Some(key) = framed(place, frame)
            {
                kept.frames.insert(key, self.upload(plan.constant(place), Some(frame))?);
            }
        }
        Ok(())
    }
    /// Launches a step.
    fn launch(&self, plan: &Plan, step: &Step, launches: &Launches) -> Result<()> {
        let scratch = step.scratch.map_or(0, |(b, _)| self.memory.address() + plan.offsets[b] as u64);
        self.launch_as((plan, &plan.loaded), step, &launches.plan, scratch)
    }
    /// Launches a step by these launches, with scratch memory at an address, on what is kept.
    fn launch_as(
        &self,
        (plan, kept): (&Plan, &Loaded),
        step: &Step,
        launches: &cuda::Plan,
        scratch: u64,
    ) -> Result<()> {
        let place = |place: Option<&Option<Place>>| -> u64 {
            let Some(Some(place)) = place else { return 0 };
            let base = match place.storage {
                Storage::Buffer(b) => self.memory.address() + plan.offsets[b] as u64,
                Storage::Constant(c) => kept.constants[c].as_ref().map_or(0, |memory| memory.address()),
            };
            base + place.bytes().start as u64
        };
        let in_frame = |frame: Frame| {
            let key = step.inputs.get(frame.operand).and_then(Option::as_ref).and_then(|p| framed(p, frame));
            key.and_then(|key| kept.frames.get(&key)).map_or(0, |memory| memory.address())
        };
        let address = |buffer: Buffer| match buffer {
            Buffer::Operand(i) => place(step.inputs.get(i)),
            Buffer::Result(i) => place(step.outputs.get(i)),
            Buffer::Workspace(at) => scratch + at as u64,
            Buffer::Framed(frame) => in_frame(frame),
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
    /// What a step launches on a target like the device, and its large products; none if it has no kernel there.
    fn planned(
        &self,
        plan: &Plan,
        step: &Step,
        kernel: &Kernel,
        (tile, library): (Option<Tile>, Library),
    ) -> Option<(cuda::Plan, Vec<Class>)> {
        let results: Vec<_> = step.outputs.iter().map(|p| p.as_ref().map(Whole::at)).collect();
        let constant = |p: &Place| p.buffer().is_none();
        let known =
            |i: usize| step.inputs[i].as_ref().filter(|p| constant(p)).map(|place| plan.constant(place));
        let target = Target { tile, library, ..self.gpu.target() };
        let site = device::site((&step.node, step.opset), &step.inputs, &results, &known, target);
        let launches = kernel.device.plan(&site)?;
        Some((launches, site.products()))
    }
    /// The median time of a step's launches.
    fn time(&mut self, plan: &Plan, step: &Step, launches: &cuda::Plan) -> Result<Duration> {
        let [times, per_time] = MEASURED;
        self.gpu.prepare([launches])?;
        let scratch = self.gpu.allocate(launches.workspace)?;
        let mut kept = Loaded::of(plan);
        self.load(plan, step, launches, &mut kept)?;
        let run = |times: usize| -> Result<Duration> {
            let start = Instant::now();
            for _ in 0..times {
                self.launch_as((plan, &kept), step, launches, scratch.address())?;
            }
            self.gpu.wait()?;
            Ok(start.elapsed() / times as u32)
        };
        // The first runs load the kernels.
        run(2)?;
        let mut times = (0..times).map(|_| run(per_time)).collect::<Result<Vec<_>>>()?;
        times.sort();
        Ok(times[times.len() / 2])
    }
    /// Adds a step's times with each tile and with the library, if it has large products.
    fn measure(&mut self, plan: &Plan, step: &Step, kernel: &Kernel, found: &mut Measurements) -> Result<()> {
        let (mut tiles, mut products) = (Vec::new(), Vec::new());
        for &tile in TILES {
            let planned = self.planned(plan, step, kernel, (Some(tile), Library::Absent));
            let Some((launches, asked)) = planned.filter(|(_, products)| !products.is_empty()) else {
                return Ok(());
            };
            products = asked;
            // Each tile takes more shared memory than the one before it.
            if launches.launches.iter().any(|launch| launch.shared > self.gpu.target().shared) {
                break;
            }
            tiles.push(self.time(plan, step, &launches)?);
        }
        let mut library = None;
        if self.gpu.target().library != Library::Absent
            && let Some((launches, _)) = self.planned(plan, step, kernel, (None, Library::Always))
            && launches.uses_library()
        {
            library = Some(self.time(plan, step, &launches)?);
        }
        products.sort();
        products.dedup();
        products.into_iter().for_each(|class| found.add(class, &tiles, library));
        Ok(())
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
        let mut kept = Loaded::of(plan);
        for (step, launches) in launched {
            self.load(plan, step, launches, &mut kept)?;
            kept.is_cold |= launches.uses_library();
        }
        self.uploaded.retain(|_, memory| memory.strong_count() > 0);
        plan.loaded = kept;
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
        if plan.loaded.is_cold || !plan.steps.iter().all(Step::is_launched) {
            plan.loaded.is_cold = false;
            plan.steps.iter().try_for_each(|step| self.step(plan, step, threads))?;
            return self.gpu.wait();
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
        if let Some((_, recording)) = &plan.loaded.recording {
            self.gpu.replay(recording)?;
        }
        // What goes wrong, and how long it takes, belongs to this run, also where nothing of it is read.
        self.gpu.wait()
    }
    fn tune(&mut self, plan: &Plan) -> Result<(Measurements, Vec<String>)> {
        let missing = self.gpu.find_library().err();
        let what_to_do = |e: &Error| e.help.as_ref().map_or(String::new(), |help| format!("; {help}"));
        let notes = missing.map(|e| format!("cuBLASLt is not measured: {}{}", e.message, what_to_do(&e)));
        let (mut found, mut seen) = (Measurements::default(), HashSet::new());
        for step in plan.steps.iter().flat_map(Step::calls) {
            // Tiles are those of the product; its epilogue costs much the same with each.
            let step = match &step.work {
                Work::Launches(Launches { product: Some(product), .. }) => product,
                _ => step,
            };
            let Work::Launches(Launches { kernel: Some(kernel), .. }) = &step.work else { continue };
            // Layers repeat.
            if seen.insert(alike(step)) {
                self.measure(plan, step, kernel, &mut found)?;
            }
        }
        Ok((found, notes.into_iter().collect()))
    }
    fn tensor(&self, plan: &Plan, place: &Place) -> Result<Tensor> {
        match plan.range(place) {
            Some(range) => gathered(place, &self.gpu.read(&self.memory, range)?),
            None => gathered(place, plan.constant(place)),
        }
    }
}

/// Under what a constant is kept that lies in a frame, of whichever operand.
fn framed(place: &Place, frame: Frame) -> Option<(usize, Frame)> {
    match place.storage {
        Storage::Constant(c) => Some((c, Frame { operand: 0, ..frame })),
        Storage::Buffer(_) => None,
    }
}

/// What steps have in common that launch the same on other memory.
fn alike(step: &Step) -> String {
    let lying = |place: &Option<Place>| place.as_ref().map(|p| (p.dtype, p.dims.clone(), p.strides.clone()));
    let [inputs, outputs] = [&step.inputs, &step.outputs].map(|p| p.iter().map(lying).collect::<Vec<_>>());
    format!("{} {:?} {inputs:?} {outputs:?}", step.node.op, step.node.attrs)
}

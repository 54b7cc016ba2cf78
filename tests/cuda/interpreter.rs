//! Jobs run by the PTX interpreter: what NVRTC makes of the modules, on the same operands as the emulator gets.
use graft_emulate::Job;
use graft_kernels::cuda::{Argument, Buffer, Frame, Launch, Module, nvrtc};
use graft_ptx::{Memory, Schedule, Statistics};
use std::{
    collections::HashMap,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    sync::Arc,
};

/// The architecture whose PTX is interpreted.
const ARCH: &str = "sm_80";

/// What a job came to.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Interpreted {
    /// The results' bytes.
    pub(crate) results: Vec<Vec<u8>>,
    /// What was executed.
    pub(crate) statistics: Statistics,
}

/// Compiles modules, each once, and runs jobs.
#[derive(Clone)]
pub(crate) struct Interpreter {
    folder: PathBuf,
    modules: HashMap<Module, Arc<graft_ptx::Module>>,
    /// A fault: what becomes of each line of the PTX of modules that are not loaded yet.
    pub(crate) edit: Option<fn(&str) -> String>,
}

impl Interpreter {
    /// One that keeps what NVRTC makes below `folder`; why there is none where NVRTC is not found.
    ///
    /// # Panics
    /// If `GRAFT_NVRTC` is set and NVRTC is not there.
    pub(crate) fn find(folder: &Path) -> Result<Interpreter, String> {
        let place = std::env::var_os("GRAFT_NVRTC");
        if let Err(e) = nvrtc::find(place.as_deref().map(Path::new)) {
            assert!(place.is_none(), "GRAFT_NVRTC is set, but {e}");
            return Err(format!("{e}: no PTX is interpreted"));
        }
        let folder = folder.join("ptx");
        fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
        Ok(Interpreter { folder, modules: HashMap::new(), edit: None })
    }

    /// Runs a job.
    ///
    /// # Errors
    /// What does not compile or is not understood, and what a thread did wrong.
    pub(crate) fn run(&mut self, job: &Job, schedule: Schedule) -> Result<Interpreted, String> {
        let device = Device::new(job)?;
        let mut statistics = Statistics::default();
        for launch in &job.plan.launches {
            let module = self.module(&launch.module)?;
            let kernel = module.kernel(launch.kernel);
            let kernel = kernel.ok_or_else(|| format!("`{}` is not in the PTX", launch.kernel))?;
            let arguments: Vec<Vec<u8>> = launch.arguments.iter().map(|&a| device.argument(job, a)).collect();
            statistics += device.launch(kernel, launch, &arguments, schedule)?;
        }
        Ok(Interpreted { results: device.results(job)?, statistics })
    }

    fn module(&mut self, module: &Module) -> Result<Arc<graft_ptx::Module>, String> {
        if let Some(known) = self.modules.get(module) {
            return Ok(known.clone());
        }
        let ptx = self.ptx(module)?;
        let ptx = match self.edit {
            None => ptx,
            Some(edit) => ptx.lines().map(|line| edit(line) + "\n").collect(),
        };
        let parsed = Arc::new(graft_ptx::Module::parse(&ptx).map_err(|e| format!("{module}: {e}"))?);
        self.modules.insert(module.clone(), parsed.clone());
        Ok(parsed)
    }

    /// What NVRTC makes of a module, kept on disk under the sources' hash.
    fn ptx(&self, module: &Module) -> Result<String, String> {
        let mut hasher = DefaultHasher::new();
        let version = nvrtc::version().map_err(|e| e.to_string())?;
        let headers: Vec<_> = module.headers().collect();
        (module.source(), module.options(), headers, version).hash(&mut hasher);
        let path = self.folder.join(format!("{:016x}.ptx", hasher.finish()));
        if let Ok(ptx) = fs::read_to_string(&path) {
            return Ok(ptx);
        }
        let ptx = nvrtc::compile(module, ARCH).map_err(|e| e.to_string())?.ptx;
        // Others may be making the same: what appears under its name is always whole.
        let fresh = path.with_extension(format!("{}-{:?}", std::process::id(), std::thread::current().id()));
        fs::write(&fresh, &ptx).and_then(|()| fs::rename(&fresh, &path)).map_err(|e| e.to_string())?;
        Ok(ptx)
    }
}

/// A device's memory with the buffers of a job.
struct Device {
    memory: Memory,
    operands: Vec<u64>,
    results: Vec<u64>,
    workspace: u64,
    frames: Vec<(Frame, u64)>,
}

impl Device {
    fn new(job: &Job) -> Result<Device, String> {
        let mut memory = Memory::new();
        let upload = |memory: &mut Memory, bytes: &[u8]| {
            let at = memory.allocate(bytes.len());
            memory.write(at, bytes).map(|()| at).map_err(|v| v.to_string())
        };
        let operands: Result<Vec<u64>, String> =
            job.operands.iter().map(|bytes| upload(&mut memory, bytes)).collect();
        let operands = operands?;
        let mut results = Vec::new();
        for (o, &bytes) in job.results.iter().enumerate() {
            let in_place = job.in_place.iter().find(|pair| pair.1 == o);
            results.push(match in_place {
                Some(&(i, _)) => operands[i],
                None => memory.allocate(bytes),
            });
        }
        let workspace = memory.allocate(job.plan.workspace);
        let mut frames = Vec::new();
        for frame in job.plan.frames() {
            frames.push((frame, upload(&mut memory, &frame.lay(&job.operands[frame.operand]))?));
        }
        Ok(Device { memory, operands, results, workspace, frames })
    }

    fn argument(&self, job: &Job, argument: Argument) -> Vec<u8> {
        debug_assert_eq!(job.operands.len(), self.operands.len());
        match argument {
            Argument::Buffer(Buffer::Operand(i)) => self.operands[i].to_le_bytes().to_vec(),
            Argument::Buffer(Buffer::Result(i)) => self.results[i].to_le_bytes().to_vec(),
            Argument::Buffer(Buffer::Workspace(at)) => (self.workspace + at as u64).to_le_bytes().to_vec(),
            Argument::Buffer(Buffer::Framed(frame)) => {
                let laid = self.frames.iter().find(|(of, _)| *of == frame);
                laid.map_or(0, |(_, address)| *address).to_le_bytes().to_vec()
            }
            Argument::Buffer(Buffer::Null) => 0u64.to_le_bytes().to_vec(),
            Argument::Int(n) => n.to_le_bytes().to_vec(),
            Argument::Word(n) => n.to_le_bytes().to_vec(),
            Argument::Long(n) => n.to_le_bytes().to_vec(),
            Argument::Float(x) => x.to_le_bytes().to_vec(),
        }
    }

    fn launch(
        &self,
        kernel: &graft_ptx::Kernel,
        launch: &Launch,
        arguments: &[Vec<u8>],
        schedule: Schedule,
    ) -> Result<Statistics, String> {
        let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
        let launch = graft_ptx::Launch {
            grid: launch.grid.map(|n| n as u32),
            block: [launch.block as u32, 1, 1],
            shared: launch.shared,
            arguments: &arguments,
            schedule,
            parallel: false,
        };
        kernel.launch(&launch, &self.memory).map_err(|fault| fault.to_string())
    }

    /// The results; no operand may have been written to that is not overwritten on purpose.
    fn results(&self, job: &Job) -> Result<Vec<Vec<u8>>, String> {
        let read = |at: u64, n: usize| {
            let mut bytes = vec![0; n];
            self.memory.read(at, &mut bytes).map(|()| bytes).map_err(|v| v.to_string())
        };
        for (i, (&at, bytes)) in self.operands.iter().zip(&job.operands).enumerate() {
            let is_shared = job.in_place.iter().any(|pair| pair.0 == i);
            if !is_shared && read(at, bytes.len())? != *bytes {
                return Err(format!("operand {i} was written to"));
            }
        }
        self.results.iter().zip(&job.results).map(|(&at, &n)| read(at, n)).collect()
    }
}

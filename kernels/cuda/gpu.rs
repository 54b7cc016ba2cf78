//! A GPU: its memory, its compiled modules, and launches on one stream. The driver and NVRTC are found at run time; what is
//! missing is an error, never a panic.
use super::{
    Argument, Buffer, Cache, Launch, Library, Module, Plan, Table, Target, cache, cublaslt::CublasLt, nvrtc,
};
use cudarc::{
    driver::{
        CudaContext, CudaFunction, CudaGraph, CudaSlice, CudaStream, DriverError, LaunchConfig,
        PushKernelArg,
        sys::{
            self, CUdevice_attribute as Attribute, CUfunction_attribute, CUgraphInstantiate_flags,
            CUstreamCaptureMode,
        },
    },
    nvrtc::Ptx,
};
use graft_ir::{Code, Error, Result};
use rayon::prelude::*;
use std::{
    collections::HashMap,
    ops::Range,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

/// A device, and what was loaded on it.
pub struct Gpu {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    name: String,
    target: Target,
    cache: Cache,
    functions: HashMap<(Module, &'static str), CudaFunction>,
    /// What does products that launches leave to a library.
    library: Option<CublasLt>,
    notes: Vec<String>,
}

/// Memory of a device.
pub struct DeviceMemory(CudaSlice<u8>);

/// Launches that were recorded and can be made again.
pub struct Recording(CudaGraph);

// SAFETY: the driver's objects belong to no thread, and calls bind the context to the thread that makes them.
unsafe impl Send for Recording {}

/// Shared memory that a block can have without asking for more.
const SHARED: usize = 48 << 10;

/// The environment's word that an emulated driver is meant.
const FAKE: &str = "GRAFT_FAKE_CUDA";

impl Gpu {
    /// The first device of this machine.
    ///
    /// # Errors
    /// `DEVICE` if there is no driver, no device, or no compiler for it; or if the driver calls itself emulated and
    /// `GRAFT_FAKE_CUDA` does not say `1`.
    pub fn open() -> Result<Gpu> {
        // SAFETY: only looks for the library; initialisers of NVIDIA's have no requirements.
        if !unsafe { sys::is_culib_present() } {
            return Err(none("no CUDA driver (libcuda) was found on this system"));
        }
        let count =
            CudaContext::device_count().map_err(|e| none(format!("the CUDA driver does not start: {e}")))?;
        if count == 0 {
            return Err(none("the CUDA driver finds no device"));
        }
        nvrtc::find(std::env::var_os("GRAFT_NVRTC").map(PathBuf::from).as_deref())?;
        let context =
            CudaContext::new(0).map_err(|e| none(format!("the CUDA device cannot be used: {e}")))?;
        Gpu::of(context)
            .map_err(|e| Error { message: format!("the CUDA device cannot be used: {}", e.message), ..e })
    }

    fn of(context: Arc<CudaContext>) -> Result<Gpu> {
        // SAFETY: there is one stream, which orders everything by itself.
        unsafe { context.disable_event_tracking() };
        let name = context.name().map_err(failed)?;
        let cache = Cache::of_user();
        let mut gpu = Gpu {
            // The default stream cannot be captured.
            stream: context.new_stream().map_err(failed)?,
            target: Target { measured: Some(measured(&cache)?), ..target(&context).map_err(failed)? },
            context,
            cache,
            functions: HashMap::new(),
            library: None,
            notes: Vec::new(),
            name,
        };
        if gpu.is_emulated() && std::env::var_os(FAKE).is_none_or(|v| v != "1") {
            let message = format!("`{}` is an emulated device, for tests only", gpu.name);
            return Err(
                Error::new(Code::DEVICE, message).help(format!("to use it all the same, set {FAKE}=1"))
            );
        }
        if gpu.target.measured.is_some_and(|table| table.names_library(gpu.target.arch))
            && let Err(e) = gpu.find_library()
        {
            gpu.notes.push(format!("{}; kernels do the products that it is the fastest for", e.message));
            // There, plans for it are tested by the kernels that stand in for its products.
            if gpu.is_emulated() {
                gpu.target.library = Library::Measured;
            }
        }
        Ok(gpu)
    }

    /// Finds the library of products, if that was not done; from then on launches may be planned for it.
    ///
    /// # Errors
    /// `DEVICE` if there is none, if it does not start, or if the device is emulated: that has none.
    pub fn find_library(&mut self) -> Result<()> {
        if self.library.is_some() {
            return Ok(());
        }
        if self.is_emulated() {
            return Err(Error::new(Code::DEVICE, "an emulated device has no cuBLASLt"));
        }
        self.library = Some(CublasLt::open(&self.stream)?);
        self.target.library = Library::Measured;
        Ok(())
    }

    /// What the driver calls the device.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Whether this is no device, but a program that behaves like one: what it computes counts, how long it takes does not.
    pub fn is_emulated(&self) -> bool {
        self.name.contains("emulated")
    }
    /// What launches are planned for.
    pub fn target(&self) -> Target {
        self.target
    }
    /// Bytes of memory: free, and all.
    ///
    /// # Errors
    /// What the driver reports.
    pub fn memory(&self) -> Result<(usize, usize)> {
        self.context.mem_get_info().map_err(failed)
    }
    /// What went wrong without stopping anything, since the last call.
    pub fn notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Memory with any content.
    ///
    /// # Errors
    /// `DEVICE` if the device has not as much left.
    pub fn allocate(&self, bytes: usize) -> Result<DeviceMemory> {
        // SAFETY: bytes have no content that would be wrong.
        let slice = unsafe { self.stream.alloc::<u8>(bytes.max(1)) };
        slice.map(DeviceMemory).map_err(|e| {
            let left = self.memory().map_or("?".into(), |(free, _)| free.to_string());
            let message = format!("`{}` has no room for {bytes} bytes ({left} are free): {e}", self.name);
            Error::new(Code::DEVICE, message)
                .help("run smaller batches or shorter sequences, or on `--device cpu`")
        })
    }
    /// Copies to the device, from byte `at` on.
    ///
    /// # Errors
    /// What the driver reports.
    pub fn write(&self, to: &mut DeviceMemory, at: usize, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.stream.memcpy_htod(bytes, &mut to.0.slice_mut(at..at + bytes.len())).map_err(failed)
    }
    /// Copies from the device, once everything before it is done.
    ///
    /// # Errors
    /// What the driver reports, also of launches before.
    pub fn read(&self, from: &DeviceMemory, range: Range<usize>) -> Result<Vec<u8>> {
        let mut bytes = vec![0; range.len()];
        if !bytes.is_empty() {
            self.stream.memcpy_dtoh(&from.0.slice(range), &mut bytes).map_err(failed)?;
            self.wait()?;
        }
        Ok(bytes)
    }
    /// Copies within the device.
    ///
    /// # Errors
    /// What the driver reports.
    pub fn copy(&self, from: &DeviceMemory, to: &mut DeviceMemory, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.stream.memcpy_dtod(&from.0.slice(..bytes), &mut to.0.slice_mut(..bytes)).map_err(failed)
    }
    /// Waits for everything that was launched.
    ///
    /// # Errors
    /// What went wrong in it.
    pub fn wait(&self) -> Result<()> {
        self.stream.synchronize().map_err(failed)
    }

    /// Compiles and loads whatever these plans launch and is not loaded yet.
    ///
    /// # Errors
    /// `DEVICE` with the compiler's words, or the driver's.
    pub fn prepare<'p>(&mut self, plans: impl IntoIterator<Item = &'p Plan>) -> Result<()> {
        let mut missing: HashMap<&Module, Vec<&'static str>> = HashMap::new();
        let launches = plans.into_iter().flat_map(|plan| &plan.launches);
        for launch in launches.filter(|launch| self.library.is_none() || launch.library.is_none()) {
            let kernels = missing.entry(&launch.module).or_default();
            let is_loaded = self.functions.contains_key(&(launch.module.clone(), launch.kernel));
            if !is_loaded && !kernels.contains(&launch.kernel) {
                kernels.push(launch.kernel);
            }
        }
        missing.retain(|_, kernels| !kernels.is_empty());
        let modules: Vec<&Module> = missing.keys().copied().collect();
        let images: Vec<(&Module, Result<Image>)> =
            modules.into_par_iter().map(|module| (module, self.image(module))).collect();
        for (module, image) in images {
            let Image { code, note } = image?;
            self.notes.extend(note.filter(|n| !self.notes.contains(n)));
            let loaded = self.context.load_module(code).map_err(|e| refused(module, e))?;
            for &kernel in &missing[module] {
                let function = loaded.load_function(kernel).map_err(|e| refused(module, e))?;
                self.functions.insert((module.clone(), kernel), function);
            }
        }
        Ok(())
    }

    /// The compiled module, from the cache if it is there.
    fn image(&self, module: &Module) -> Result<Image> {
        let arch = format!("sm_{}{}", self.target.arch.0, self.target.arch.1);
        let key = self.key(module, &arch)?;
        let (bytes, note) = match self.cache.get(&key) {
            Some(bytes) => (bytes, None),
            None => {
                let image = nvrtc::compile(module, &arch)?;
                let bytes = if self.is_emulated() { image.ptx.into_bytes() } else { image.cubin };
                let kept = self.cache.put(&key, &bytes);
                (bytes, kept.err().map(|e| format!("{e}; kernels are compiled anew each time")))
            }
        };
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let code = if self.is_emulated() { Ptx::from_src(text(bytes)) } else { Ptx::from_binary(bytes) };
        Ok(Image { code, note })
    }

    /// All that a compiled module depends on.
    fn key(&self, module: &Module, arch: &str) -> Result<cache::Key> {
        let (major, minor) = nvrtc::version()?;
        let compiler = format!("{} {major}.{minor}", if self.is_emulated() { "ptx" } else { "cubin" });
        let options = nvrtc::options(module, arch);
        let source = module.source().unwrap_or_default();
        let texts = [compiler.as_str(), module.path(), source].into_iter();
        let headers = module.headers().flat_map(|(path, text)| [path, text]);
        Ok(cache::key(texts.chain(headers).chain(options.iter().map(String::as_str)).map(str::as_bytes)))
    }

    /// Launches a kernel that was prepared, or has the library do its product; `address` says where buffers lie.
    ///
    /// # Errors
    /// What the driver reports, though what goes wrong within the kernel shows later.
    pub fn launch(&self, launch: &Launch, address: &dyn Fn(Buffer) -> u64) -> Result<()> {
        // A thread that has done nothing on the device yet knows no context, in which a kernel's attributes are.
        self.stream.context().bind_to_thread().map_err(|e| unlaunched(launch, e))?;
        if let (Some(library), Some(product)) = (&self.library, &launch.library) {
            let memories = [product.left, product.right, product.result].map(|matrix| matrix.memory);
            return library.multiply(product, memories.map(address));
        }
        let function = self.functions.get(&(launch.module.clone(), launch.kernel));
        let function =
            function.ok_or_else(|| Error::new(Code::DEVICE, format!("`{}` is not loaded", launch.kernel)))?;
        if launch.shared > SHARED {
            // Unlike what is done on the stream, this does not see to it by itself.
            let most = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(most, launch.shared as i32).map_err(|e| unlaunched(launch, e))?;
        }
        // The driver reads as many bytes of each as the kernel's parameter has.
        let values: Vec<u64> = launch.arguments.iter().map(|&a| value(a, address)).collect();
        let mut builder = self.stream.launch_builder(function);
        values.iter().for_each(|value| {
            builder.arg(value);
        });
        let [x, y, z] = launch.grid.map(|n| n as u32);
        let config = LaunchConfig {
            grid_dim: (x, y, z),
            block_dim: (launch.block as u32, 1, 1),
            shared_mem_bytes: launch.shared as u32,
        };
        // SAFETY: the plan that the launch is from has the kernel's parameters, in its order; tests run every plan
        // under checks of them and of all accesses. A kernel touches no memory of the host.
        unsafe { builder.launch(config) }.map(drop).map_err(|e| unlaunched(launch, e))
    }

    /// Records what `work` launches, without doing it.
    ///
    /// # Errors
    /// What `work` or the driver reports.
    pub fn record(&self, work: impl FnOnce() -> Result<()>) -> Result<Recording> {
        self.stream
            .begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
            .map_err(failed)?;
        let done = work();
        let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        let graph = self.stream.end_capture(flags).map_err(failed);
        done?;
        graph?.map(Recording).ok_or_else(|| Error::new(Code::DEVICE, "the driver recorded nothing"))
    }
    /// Does again what was recorded, on the same memory.
    ///
    /// # Errors
    /// What the driver reports.
    pub fn replay(&self, recording: &Recording) -> Result<()> {
        recording.0.launch().map_err(failed)
    }
}

impl DeviceMemory {
    /// Its size in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether it has no bytes; never so.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// The address of its first byte, 256-byte aligned.
    pub fn address(&self) -> u64 {
        use cudarc::driver::DevicePtr;
        self.0.device_ptr(self.0.stream()).0
    }
}

/// A compiled module, and what is to be said of it.
struct Image {
    code: Ptx,
    note: Option<String>,
}

fn target(context: &CudaContext) -> std::result::Result<Target, DriverError> {
    let (major, minor) = context.compute_capability()?;
    let count = |attribute| context.attribute(attribute).map(|n| n.max(0) as usize);
    Ok(Target {
        arch: (major as u32, minor as u32),
        multiprocessors: count(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        shared: count(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        ..Target::default()
    })
}

/// The committed table of tiles, with what was measured on this machine over it.
fn measured(cache: &Cache) -> Result<&'static Table> {
    static MEASURED: OnceLock<Table> = OnceLock::new();
    if let Some(table) = MEASURED.get() {
        return Ok(table);
    }
    let mut table = Table::committed()?;
    if let Some(path) = cache.tiles().filter(|path| path.exists()) {
        let read = std::fs::read_to_string(&path).map_err(|e| Error::new(Code::IO, e.to_string()));
        let own = read.and_then(|text| text.parse::<Table>());
        table.extend(own.map_err(|e| e.at(format!("`{}`", path.display())))?);
    }
    Ok(MEASURED.get_or_init(|| table))
}

fn value(argument: Argument, address: &dyn Fn(Buffer) -> u64) -> u64 {
    match argument {
        Argument::Buffer(buffer) => address(buffer),
        Argument::Int(n) => u64::from(n.cast_unsigned()),
        Argument::Word(n) => u64::from(n),
        Argument::Long(n) => n.cast_unsigned(),
        Argument::Float(x) => u64::from(x.to_bits()),
    }
}

fn none(why: impl Into<String>) -> Error {
    Error::new(Code::DEVICE, why).help("run with `--device cpu`; `graft doctor` says what this machine has")
}

fn failed(error: DriverError) -> Error {
    Error::new(Code::DEVICE, format!("the CUDA driver reports {error}"))
}

fn refused(module: &Module, error: DriverError) -> Error {
    Error::new(Code::DEVICE, format!("the CUDA driver does not load `{module}`: {error}"))
}

fn unlaunched(launch: &Launch, error: DriverError) -> Error {
    let Launch { kernel, module, grid, block, shared, .. } = launch;
    let message = format!("the CUDA driver does not launch `{kernel}` of `{module}`: {error}");
    Error::new(Code::DEVICE, message)
        .at(format!("grid {grid:?}, {block} threads, {shared} bytes of shared memory"))
}

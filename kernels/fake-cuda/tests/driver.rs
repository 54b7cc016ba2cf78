//! Programs that use the driver through unmodified cudarc, each run as a process that finds the library in the driver's
//! place: one that does everything right, and one for each thing that the library has to notice.
use cudarc::{
    driver::{
        CudaContext, CudaFunction, CudaSlice, CudaStream, DriverError, LaunchConfig, PushKernelArg, result,
        sys::{self, CUfunction_attribute, CUgraphInstantiate_flags, CUstreamCaptureMode},
    },
    nvrtc::Ptx,
};
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Arc, LazyLock},
};

const KERNELS: &str = include_str!("kernels.ptx");

/// Which program a process is to run.
const PROGRAM: &str = "GRAFT_FAKE_CUDA_PROGRAM";

type Outcome = Result<(), DriverError>;

/// What a program has to do with.
struct Device {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    scale: CudaFunction,
    far: CudaFunction,
}

impl Device {
    fn new() -> Result<Device, DriverError> {
        let context = CudaContext::new(0)?;
        let module = context.load_module(Ptx::from_src(KERNELS))?;
        let (scale, far) = (module.load_function("scale")?, module.load_function("far")?);
        Ok(Device { stream: context.new_stream()?, context, scale, far })
    }
    /// x·a + b.
    fn scale(&self, x: &mut CudaSlice<f32>, b: &CudaSlice<f32>, a: f32, threads: u32) -> Outcome {
        let n = x.len() as u32;
        let mut launch = self.stream.launch_builder(&self.scale);
        launch.arg(x).arg(b).arg(&a).arg(&n);
        // SAFETY: the kernel is interpreted; whatever it does wrong is found, and does nothing to this process.
        unsafe { launch.launch(config(n.div_ceil(threads), threads, 0)) }.map(drop)
    }
    fn far(&self, to: &mut CudaSlice<u32>, bytes: u32) -> Outcome {
        let mut launch = self.stream.launch_builder(&self.far);
        launch.arg(to).arg(&bytes);
        // SAFETY: as above.
        unsafe { launch.launch(config(1, 32, bytes)) }.map(drop)
    }
    /// The first `n` of memory that nobody has written.
    fn unwritten(&self, n: usize) -> Result<CudaSlice<f32>, DriverError> {
        // SAFETY: every bit pattern is a float.
        unsafe { self.stream.alloc::<f32>(n) }
    }
}

fn config(blocks: u32, threads: u32, shared: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: shared }
}

fn memory_moves_and_kernels_run() -> Outcome {
    let device = Device::new()?;
    let Device { context, stream, .. } = &device;
    assert_eq!((context.name()?, context.compute_capability()?), ("graft emulated sm_80".into(), (8, 0)));
    let (free, all) = context.mem_get_info()?;
    let host: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    let (mut x, b) = (stream.clone_htod(&host)?, stream.clone_htod(&[0.5f32])?);
    assert!(context.mem_get_info()? == (free - 4096 - 256, all));
    let start = stream.record_event(None)?;
    device.scale(&mut x, &b, 2.0, 256)?;
    let mut copy = stream.alloc_zeros::<f32>(1000)?;
    stream.memcpy_dtod(&x, &mut copy)?;
    stream.memset_zeros(&mut x)?;
    assert!(start.elapsed_ms(&stream.record_event(None)?)? >= 0.0);
    stream.synchronize()?;
    assert_eq!(stream.clone_dtoh(&x)?, vec![0.0; 1000]);
    assert_eq!(stream.clone_dtoh(&copy)?, (0..1000).map(|i| 2.0 * i as f32 + 0.5).collect::<Vec<_>>());
    Ok(())
}

/// A graph does again what was recorded, with the arguments of then and the memory of now.
fn graphs_replay() -> Outcome {
    let device = Device::new()?;
    // SAFETY: there is one stream.
    unsafe { device.context.disable_event_tracking() };
    let stream = &device.stream;
    let (mut x, mut b) = (stream.clone_htod(&[1f32, 2.0])?, stream.clone_htod(&[1f32])?);
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
    device.scale(&mut x, &b, 3.0, 32)?;
    device.scale(&mut x, &b, 1.0, 32)?;
    let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    let graph = stream.end_capture(flags)?.expect("a graph");
    assert_eq!(stream.clone_dtoh(&x)?, [1.0, 2.0]);
    graph.launch()?;
    assert_eq!(stream.clone_dtoh(&x)?, [5.0, 8.0]);
    stream.memcpy_htod(&[0f32], &mut b)?;
    graph.launch()?;
    assert_eq!(stream.clone_dtoh(&x)?, [15.0, 24.0]);
    Ok(())
}

fn shared_memory_is_asked_for() -> Outcome {
    let device = Device::new()?;
    let mut to = device.stream.clone_htod(&[0u32])?;
    let most = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    device.far(&mut to, 48 << 10)?;
    device.far.set_attribute(most, 160 << 10)?;
    device.far(&mut to, 160 << 10)?;
    assert_eq!(device.stream.clone_dtoh(&to)?, [160 << 10]);
    assert!(device.far.set_attribute(most, 200 << 10).is_err());
    Ok(())
}

/// A sum of slabs by the kernel of the project, as NVRTC compiles it.
#[expect(clippy::print_stderr, reason = "a skipped check says so")]
fn our_own_kernel_runs() -> Outcome {
    use graft_kernels::cuda::{Module, nvrtc};
    let folder = std::env::var_os("GRAFT_NVRTC");
    if let Err(e) = nvrtc::find(folder.as_deref().map(Path::new)) {
        assert!(folder.is_none(), "GRAFT_NVRTC is set, but {e}");
        eprintln!("SKIPPED: {e}: no kernel of the project runs on the fake driver");
        return Ok(());
    }
    let image = nvrtc::compile(&Module::file("cuda/slabs.cu"), "sm_80");
    let image = image.unwrap_or_else(|e| panic!("{e}"));
    let device = Device::new()?;
    let stream = &device.stream;
    let kernel = device.context.load_module(Ptx::from_src(image.ptx))?.load_function("sum_slabs")?;
    let parts: Vec<f32> = (0..900).map(|i| (i as f32).sin()).collect();
    let (on_device, scale) = (stream.clone_htod(&parts)?, stream.clone_htod(&[2f32])?);
    let mut sum = stream.alloc_zeros::<f32>(300)?;
    let (rows, [cols, width, first, slabs]) = (1i64, [300i32, 300, 0, 3]);
    let mut launch = stream.launch_builder(&kernel);
    launch
        .arg(&on_device)
        .arg(&mut sum)
        .arg(&rows)
        .arg(&cols)
        .arg(&width)
        .arg(&first)
        .arg(&slabs)
        .arg(&scale);
    // SAFETY: the kernel is interpreted.
    unsafe { launch.launch(config(2, 256, 0)) }?;
    let expected = |i: usize| (parts[i] + parts[300 + i] + parts[600 + i]) * 2.0;
    assert_eq!(stream.clone_dtoh(&sum)?, (0..300).map(expected).collect::<Vec<_>>());
    Ok(())
}

/// The address of memory.
fn address<T>(of: &CudaSlice<T>) -> sys::CUdeviceptr {
    use cudarc::driver::DevicePtr;
    of.device_ptr(of.stream()).0
}

fn a_copy_past_the_end() -> Outcome {
    let device = Device::new()?;
    let x = device.stream.clone_htod(&[0f32; 64])?;
    // SAFETY: the array is as long as what is copied; the device's memory is the matter of the test.
    unsafe { result::memcpy_dtoh_sync(&mut [0f32; 65], address(&x)) }
}

fn memory_freed_twice() -> Outcome {
    let device = Device::new()?;
    let x = device.stream.clone_htod(&[0f32; 64])?.leak();
    // SAFETY: that it is freed twice is the matter of the test.
    unsafe { result::free_sync(x).and_then(|()| result::free_sync(x)) }
}

fn memory_used_after_it_was_freed() -> Outcome {
    let device = Device::new()?;
    let b = device.stream.clone_htod(&[0f32])?;
    let x = device.stream.clone_htod(&[0f32; 64])?.leak();
    // SAFETY: that it is used afterwards is the matter of the test.
    let mut x = unsafe {
        result::free_sync(x)?;
        device.stream.upgrade_device_ptr::<f32>(x, 64)
    };
    let failed = device.scale(&mut x, &b, 1.0, 32);
    // The context is of no use any more.
    assert_eq!(device.stream.synchronize(), failed);
    std::mem::forget(x);
    failed
}

fn a_store_past_the_end() -> Outcome {
    let device = Device::new()?;
    let b = device.stream.clone_htod(&[0f32])?;
    let x = device.stream.clone_htod(&[0f32; 64])?.leak();
    // SAFETY: that there are not so many is the matter of the test.
    let mut x = unsafe { device.stream.upgrade_device_ptr::<f32>(x, 65) };
    device.scale(&mut x, &b, 1.0, 32)
}

fn memory_that_nobody_wrote() -> Outcome {
    let device = Device::new()?;
    let (mut x, b) = (device.unwritten(64)?, device.stream.clone_htod(&[0f32])?);
    device.scale(&mut x, &b, 1.0, 32)
}

fn shared_memory_not_asked_for() -> Outcome {
    let device = Device::new()?;
    let mut to = device.stream.clone_htod(&[0u32])?;
    device.far(&mut to, (48 << 10) + 16)
}

fn more_threads_than_a_block_has() -> Outcome {
    let device = Device::new()?;
    let (mut x, b) = (device.stream.clone_htod(&[0f32; 2048])?, device.stream.clone_htod(&[0f32])?);
    device.scale(&mut x, &b, 1.0, 2048)
}

fn more_threads_than_the_kernel_takes() -> Outcome {
    let device = Device::new()?;
    let (mut x, b) = (device.stream.clone_htod(&[0f32; 512])?, device.stream.clone_htod(&[0f32])?);
    device.scale(&mut x, &b, 1.0, 512)
}

fn machine_code() -> Outcome {
    let device = Device::new()?;
    device.context.load_module(Ptx::from_binary(b"\x7fELF and so on".to_vec())).map(drop)
}

fn another_architecture() -> Outcome {
    let device = Device::new()?;
    device.context.load_module(Ptx::from_src(KERNELS.replace("sm_80", "sm_90a"))).map(drop)
}

fn an_unknown_opcode() -> Outcome {
    let device = Device::new()?;
    device.context.load_module(Ptx::from_src(KERNELS.replace("fma.rn.f32", "fma.rz.f32"))).map(drop)
}

fn a_kernel_that_is_not_there() -> Outcome {
    let device = Device::new()?;
    let module = device.context.load_module(Ptx::from_src(KERNELS))?;
    module.load_function("nothing").map(drop)
}

fn too_little_memory() -> Outcome {
    Device::new()?.unwritten(1 << 20).map(drop)
}

fn a_wait_while_a_stream_is_recorded() -> Outcome {
    let device = Device::new()?;
    device.stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
    assert!(device.stream.synchronize().is_err());
    device
        .stream
        .end_capture(CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY)
        .map(drop)
}

/// Ends well, as cudarc keeps to itself what it hears when a context goes; see `what_is_left_behind_is_said`.
fn memory_left_behind() -> Outcome {
    let device = Device::new()?;
    device.stream.clone_htod(&[0f32; 64])?.leak();
    Ok(())
}

/// A program, the error that it ends with, if any, and words of what the library says.
struct Program {
    name: &'static str,
    run: fn() -> Outcome,
    error: Option<&'static str>,
    says: &'static str,
    settings: &'static [(&'static str, &'static str)],
}

macro_rules! programs {
    ($($run:ident $(($($name:literal = $value:literal),*))? => $error:expr, $says:literal;)*) => {
        &[$(Program {
            name: stringify!($run), run: $run, error: $error, says: $says, settings: &[$($(($name, $value)),*)?],
        }),*]
    };
}

const PROGRAMS: &[Program] = programs! {
    memory_moves_and_kernels_run ("GRAFT_FAKE_CUDA_LOG" = "1") => None, "1 launches, Statistics";
    graphs_replay => None, "";
    shared_memory_is_asked_for => None, "attribute 8 of `far` cannot be 204800";
    our_own_kernel_runs => None, "";
    a_copy_past_the_end => Some("INVALID_VALUE"), "a copy of 260 bytes from 0x1000000000: past the end of its allocation of 256";
    memory_freed_twice => Some("INVALID_VALUE"), "0x1000000000 is freed, but no allocation begins there";
    memory_used_after_it_was_freed => Some("ILLEGAL_ADDRESS"), "thread (0, 0, 0): global load of 4 bytes at";
    a_store_past_the_end => Some("ILLEGAL_ADDRESS"), "block (2, 0, 0), thread (0, 0, 0): global load of 4 bytes at";
    memory_that_nobody_wrote => Some("ILLEGAL_ADDRESS"), "a read of memory that nobody has written";
    shared_memory_not_asked_for => Some("INVALID_VALUE"), "`far` is launched with 49168 bytes of shared memory";
    more_threads_than_a_block_has => Some("INVALID_VALUE"), "a block of 2048 threads";
    more_threads_than_the_kernel_takes => Some("INVALID_VALUE"), "a block of 512 threads; it takes 1 to 256";
    machine_code => Some("NO_BINARY_FOR_GPU"), "a module of machine code";
    another_architecture => Some("NO_BINARY_FOR_GPU"), "the device is sm_80";
    an_unknown_opcode => Some("INVALID_PTX"), "PTX line 35: the opcode `fma.rz.f32` is not interpreted";
    a_kernel_that_is_not_there => Some("NOT_FOUND"), "";
    too_little_memory ("GRAFT_FAKE_CUDA_MEMORY" = "1000000") => Some("OUT_OF_MEMORY"), "";
    a_wait_while_a_stream_is_recorded => Some("STREAM_CAPTURE_INVALIDATED"), "a wait for a stream while a stream is recorded";
    memory_left_behind => None, "256 bytes at 0x1000000000 were not freed";
};

/// Runs a program in a process of its own, with the library in the driver's place.
fn process(program: &Program, settings: &[(&str, &str)]) -> Output {
    /// Tests run side by side; one of them lays the library down.
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fake-cuda");
        graft_fake_cuda::install(&folder).unwrap_or_else(|e| panic!("{e}"));
        folder
    });
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.args(["--exact", "a_program_of_the_table", "--nocapture"]);
    command.env(PROGRAM, program.name).env("LD_LIBRARY_PATH", &*FOLDER).envs(settings.iter().copied());
    command.output().unwrap_or_else(|e| panic!("{e}"))
}

/// What the processes run; without the word for one of them it does nothing.
#[test]
#[expect(clippy::print_stdout, reason = "the process that started this one reads it")]
fn a_program_of_the_table() {
    let Ok(name) = std::env::var(PROGRAM) else { return };
    let program = PROGRAMS.iter().find(|p| p.name == name).expect("a program of the table");
    match (program.run)() {
        Ok(()) => println!("the program ended well"),
        Err(e) => println!("the program ended with {e:?}"),
    }
}

#[test]
fn programs_come_to_what_they_should() {
    let mut failures = Vec::new();
    for program in PROGRAMS {
        let output = process(program, program.settings);
        let [out, said] = [&output.stdout, &output.stderr].map(|b| String::from_utf8_lossy(b).into_owned());
        let ended = match program.error {
            None => "the program ended well".into(),
            Some(error) => format!("the program ended with DriverError(CUDA_ERROR_{error},"),
        };
        let mut lines = said.lines().filter(|line| line.starts_with("fake-cuda: "));
        let is_said = if program.says.is_empty() {
            lines.next().is_none()
        } else {
            lines.any(|line| line.contains(program.says))
        };
        if !output.status.success() || !out.contains(&ended) || !is_said {
            failures.push(format!("{}: {}\n{out}\n{said}", program.name, output.status));
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn what_is_left_behind_ends_a_program_that_asks_for_it() {
    let program = PROGRAMS.iter().find(|p| p.name == "memory_left_behind").expect("it is in the table");
    assert!(process(program, &[]).status.success());
    assert!(!process(program, &[("GRAFT_FAKE_CUDA_LEAKS", "abort")]).status.success());
}

//! The device's kernels on a GPU: the cases and bounds of the others, but not their bits, as tensor cores add in an order
//! of their own. Where no GPU is, a few cases on the emulated driver test the test.
use crate::{
    LARGEST,
    adapters::rounded,
    device::{How, OF_F32_ONLY, Prepared},
    draw::Draw,
    row, rows,
};
use graft_emulate::Job;
use graft_ir::{DType, Result};
use graft_kernels::{
    Kernel, Work,
    cuda::{Buffer, Gpu, TILES, Target},
};
use std::path::Path;

/// Random cases of a kernel for each element type; each of an element-wise one is a source to compile.
fn cases(kernel: &Kernel, is_emulated: bool) -> u64 {
    match kernel.device.work {
        _ if is_emulated => 1,
        Work::Map(_) => 2,
        _ => 8,
    }
}

/// On the emulated driver one kernel in so many is run.
const EMULATED_ONE_IN: usize = 12;

/// Bytes behind each buffer that no kernel may write, and what they hold.
const GUARD: [u8; 256] = [0x5a; 256];

/// Whether this process finds a device. If it does not, `test` was run in one that finds the emulated one, or skipped.
pub(crate) fn device(test: &str) -> Option<Gpu> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fake-cuda-kernels");
    Gpu::open().map_err(|error| graft_fake_cuda::stand_in(&folder, test, &error.message)).ok()
}

/// Does a job on the device: the results' bytes.
pub(crate) fn run(gpu: &Gpu, job: &Job) -> Result<Vec<Vec<u8>>> {
    let buffers = job.buffers();
    let mut memory = Vec::new();
    for buffer in &buffers {
        let mut place = gpu.allocate(buffer.len() + GUARD.len())?;
        gpu.write(&mut place, 0, &[&buffer[..], &GUARD].concat())?;
        memory.push(place);
    }
    let address = |buffer: Buffer| job.place(buffer).map_or(0, |(i, at)| memory[i].address() + at as u64);
    job.plan.launches.iter().try_for_each(|launch| gpu.launch(launch, &address))?;
    let mut results = Vec::new();
    for (i, (before, memory)) in buffers.iter().zip(&memory).enumerate() {
        let bytes = gpu.read(memory, 0..before.len() + GUARD.len())?;
        let (bytes, guard) = bytes.split_at(before.len());
        assert!(guard == GUARD, "buffer {i} was written to behind its end");
        if job.is_result(i) {
            results.push(bytes.to_vec());
        } else if i < job.operands.len() {
            assert!(bytes == before, "operand {i} was written to");
        }
    }
    Ok(results)
}

/// The cases of a kernel with this element type that the device serves.
fn drawn(kernel: &Kernel, element: DType, target: Target, n: u64) -> Vec<Prepared> {
    let Some((_, generate)) = row(kernel) else { return Vec::new() };
    let prepared = |seed: u64| {
        let mut draw = Draw::new(seed, LARGEST);
        let case = generate(&mut draw);
        let has_floats = case.operands.iter().flatten().any(|o| o.dtype == DType::Float);
        if element != DType::Float && !has_floats {
            return None;
        }
        let case = if rows::is_of_adapter(kernel.name) { rounded(case, element) } else { case };
        // Each large tile now and then; those of single precision do not fit.
        let tile = TILES.get(seed as usize % 4 + 1).copied().filter(|_| element != DType::Float);
        let how = How { element, target: Target { tile, ..target }, schedule: None };
        let prepared = Prepared::of(kernel, (case, how), &mut draw);
        prepared.unwrap_or_else(|e| panic!("{} (seed {seed}): {e}", kernel.name))
    };
    (0..n).filter_map(prepared).collect()
}

#[test]
#[expect(clippy::print_stderr, reason = "figures of a run")]
fn a_gpu_computes_what_ops_mean() {
    let Some(mut gpu) = device("gpu::a_gpu_computes_what_ops_mean") else { return };
    let (target, is_emulated) = (gpu.target(), gpu.is_emulated());
    let step = if is_emulated { EMULATED_ONE_IN } else { 1 };
    let mut prepared: Vec<(&Kernel, DType, Prepared)> = Vec::new();
    for kernel in graft_kernels::all().filter(|kernel| kernel.device.is_any()).step_by(step) {
        for element in [DType::Float, DType::Bfloat16, DType::Float16] {
            let is_fixed = matches!(kernel.device.work, Work::Map(_)) || OF_F32_ONLY.contains(&kernel.name);
            if element != DType::Float && (is_fixed || is_emulated) {
                continue;
            }
            let cases = drawn(kernel, element, target, cases(kernel, is_emulated));
            prepared.extend(cases.into_iter().map(|case| (kernel, element, case)));
        }
    }
    gpu.prepare(prepared.iter().map(|(_, _, prepared)| &prepared.job.plan)).unwrap_or_else(|e| panic!("{e}"));
    let fails = |(kernel, element, prepared): &(&Kernel, DType, Prepared)| {
        let made = run(&gpu, &prepared.job).map_err(|e| e.to_string());
        prepared.judge(made).err().map(|e| format!("{} in {element:?}: {e}", kernel.name))
    };
    let failures: Vec<String> = prepared.iter().filter_map(fails).collect();
    eprintln!("{} cases on {}", prepared.len(), gpu.name());
    assert!(!prepared.is_empty() && failures.is_empty(), "\n{}", failures.join("\n"));
}

//! `graft doctor`: what this machine has to run on, and whether it computes what it should.
use crate::{
    command::run::devices,
    feeds::random_feeds,
    ui::{self, Ui},
};
use graft_exec::{Device, Options, Session};
use graft_ir::{Code, Error, Result, Tensor, eval, parse};
use graft_kernels::cuda::{Cache, Gpu, cublaslt, nvrtc};
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

/// Say what this machine has, and check that it computes right
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run the self-test on one device only, and nothing else
    #[arg(long, value_name = "DEVICE", value_parser = devices())]
    self_test: Option<Device>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A piece of what a model does: a linear, GELU, a norm, attention's product and softmax.
const SELF_TEST: &str = "<ir_version: 10, opset_import: [\"\" : 20]>
self_test (float[40, 96] x, float[96, 64] w, float[64] b, float[64] gain, float[64, 40] k) => (float[40, 40] y) {
  linear = MatMul (x, w)
  biased = Add (linear, b)
  active = Gelu (biased)
  normed = LayerNormalization (active, gain)
  scores = MatMul (normed, k)
  y = Softmax (scores)
}";

/// What an emulated device says nothing about.
const UNPROVEN: &str = "speed, recorded steps, rounding of tensor cores";

/// How far a self-test's result may be from that of the interpreter; it lies in 0..1.
const TOLERANCE: f64 = 1e-5;

impl Args {
    pub(crate) fn run(self, ui: &mut Ui) -> Result<()> {
        if let Some(device) = self.self_test {
            let error = self_test(device)?;
            return ui.out(&format!("largest error {error:.1e}\n"));
        }
        let mut rows = vec![
            ("processor", processor()),
            ("self-test, cpu", passed(self_test(Device::Cpu)?)),
            ("CUDA compiler", compiler()),
            ("cuBLASLt", cublaslt::version().unwrap_or_else(|e| format!("none: {}", e.message))),
            ("kernel cache", Cache::of_user().folder().map_or("none".into(), |f| f.display().to_string())),
        ];
        match Gpu::open() {
            Ok(gpu) => rows.extend(device(&gpu)?),
            Err(e) => rows.push(("CUDA device", format!("none: {}", e.message))),
        }
        if self.json {
            let rows: serde_json::Map<_, _> =
                rows.into_iter().map(|(k, v)| (k.to_string(), json!(v))).collect();
            return ui.json(&json!({"schema": "graft.doctor/1", "found": rows}));
        }
        let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name.into(), value]).collect();
        ui.out(&ui::table(&["", ""], &rows))
    }
}

/// The architecture, its vector extensions, and the cores.
fn processor() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut words = vec![std::env::consts::ARCH.to_string()];
    #[cfg(target_arch = "x86_64")]
    {
        let extensions = [
            ("avx2", std::is_x86_feature_detected!("avx2")),
            ("fma", std::is_x86_feature_detected!("fma")),
            ("avx512f", std::is_x86_feature_detected!("avx512f")),
        ];
        words.extend(extensions.iter().filter(|(_, has)| *has).map(|(name, _)| name.to_string()));
    }
    words.push(format!("{cores} cores"));
    words.join(", ")
}

/// The version of NVRTC, or why there is none.
fn compiler() -> String {
    let folder = std::env::var_os("GRAFT_NVRTC").map(PathBuf::from);
    let version = nvrtc::find(folder.as_deref()).and_then(|()| nvrtc::version());
    version.map_or_else(|e| format!("none: {}", e.message), |(major, minor)| format!("NVRTC {major}.{minor}"))
}

/// What the driver says of the device, and how the self-test went there.
fn device(gpu: &Gpu) -> Result<Vec<(&'static str, String)>> {
    let target = gpu.target();
    let (free, all) = gpu.memory()?;
    let gib = |bytes: usize| bytes as f64 / f64::from(1 << 30);
    let emulated = if gpu.is_emulated() { " (EMULATED)" } else { "" };
    let size = format!(
        "sm_{}{}, {} multiprocessors, {:.1} of {:.1} GiB free",
        target.arch.0,
        target.arch.1,
        target.multiprocessors,
        gib(free),
        gib(all)
    );
    let mut rows = vec![
        ("CUDA device", format!("{}{emulated}", gpu.name())),
        ("", size),
        ("self-test, cuda", passed(self_test(Device::Cuda)?)),
        ("under compute-sanitizer", sanitized()?),
    ];
    if gpu.is_emulated() {
        rows.push((UNPROVEN, "skipped: needs a GPU".into()));
    }
    Ok(rows)
}

fn passed(error: f64) -> String {
    format!("passed, largest error {error:.1e}")
}

/// Runs the self-test's graph on a device; the largest difference from the interpreter's result in `f64`.
fn self_test(device: Device) -> Result<f64> {
    let graph = parse(SELF_TEST)?;
    let feeds = random_feeds(&graph, &BTreeMap::new(), 7)?;
    let inputs: Vec<Option<Tensor>> = graph
        .inputs
        .iter()
        .map(|&v| feeds.iter().find(|(name, _)| name == graph.name(v)).map(|(_, tensor)| tensor.clone()))
        .collect();
    let expected = eval::eval_tensors(&graph, &inputs)?;
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let found = Session::new(&graph, &[], &Options { device, ..Options::default() })?.run(&feeds)?;
    let mut largest = 0f64;
    for ((_, found), expected) in found.iter().zip(&expected) {
        let pair = found.to_f64().zip(expected.to_f64()).unwrap_or_default();
        // NaN is as wrong as can be.
        let error = |(a, b): (&f64, &f64)| if (a - b).is_nan() { f64::INFINITY } else { (a - b).abs() };
        largest = pair.0.iter().zip(&pair.1).map(error).fold(largest, f64::max);
    }
    if largest > TOLERANCE {
        let message =
            format!("the self-test on {device} differs by {largest:.1e}, more than {TOLERANCE:.0e}");
        return Err(Error::new(Code::OVER_TOLERANCE, message)
            .help("this machine must not be trusted with a training"));
    }
    Ok(largest)
}

/// The self-test under NVIDIA's checker of memory accesses, where that is installed.
fn sanitized() -> Result<String> {
    const CHECKER: &str = "compute-sanitizer";
    if Command::new(CHECKER).arg("--version").output().is_err() {
        return Ok(format!("not run: `{CHECKER}` is not installed"));
    }
    let own: PathBuf = std::env::current_exe().unwrap_or_else(|_| Path::new("graft").into());
    let mut check = Command::new(CHECKER);
    let outcome =
        check.args(["--error-exitcode", "9"]).arg(own).args(["doctor", "--self-test", "cuda"]).output();
    match outcome {
        Ok(outcome) if outcome.status.success() => Ok("passed".into()),
        Ok(outcome) => {
            let said = String::from_utf8_lossy(&outcome.stdout).into_owned();
            Err(Error::new(
                Code::OVER_TOLERANCE,
                format!("`{CHECKER}` finds faults in the self-test:\n{said}"),
            ))
        }
        Err(e) => Ok(format!("not run: {e}")),
    }
}

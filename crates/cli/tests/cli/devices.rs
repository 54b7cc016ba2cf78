//! `--device cuda` and `graft doctor`: on a machine without a GPU, and with the emulated driver where `GRAFT_NVRTC` names a
//! compiler.
use crate::{
    fixtures::sandbox,
    sandbox::{Outcome, Sandbox},
};
use std::{fs, process::Command};

#[test]
fn a_machine_without_a_gpu_is_told_so() {
    let sandbox = sandbox();
    let found = sandbox.succeeds("doctor --json").json();
    assert_eq!(found["schema"], "graft.doctor/1");
    let said = |row: &str| found["found"][row].as_str().unwrap_or_default().to_string();
    assert!(said("self-test, cpu").starts_with("passed"), "{found}");
    assert!(said("CUDA device").starts_with("none: "), "{found}");
    assert!(!said("cuBLASLt").is_empty(), "{found}");
    assert!(sandbox.succeeds("doctor").stdout.contains("processor"));
    let refused = sandbox.graft("doctor --self-test cuda");
    assert_eq!(refused.code, 5, "{}", refused.stderr);
    assert!(refused.stderr.contains("CUDA") && refused.stderr.contains("--device cpu"), "{}", refused.stderr);
    let untuned = sandbox.graft("bench tiny.onnx --tune");
    assert_eq!(untuned.code, 5, "{}", untuned.stderr);
    assert!(untuned.stderr.contains("--device cuda"), "{}", untuned.stderr);
}

/// A sandbox with the emulated driver in it, and the folder of the compiler; none, and said so, without one.
fn emulated() -> Option<(Sandbox, String)> {
    let Ok(nvrtc) = std::env::var("GRAFT_NVRTC") else {
        #[expect(clippy::print_stderr, reason = "a skipped check says so")]
        {
            eprintln!("SKIPPED: GRAFT_NVRTC names no compiler for an emulated device");
        }
        return None;
    };
    let sandbox = sandbox();
    graft_fake_cuda::install(&sandbox.path("driver")).expect("the library is there");
    Some((sandbox, nvrtc))
}

/// `graft LINE` where the emulated driver is found, and meant to be used if `is_meant`.
fn run(sandbox: &Sandbox, nvrtc: &str, is_meant: bool, line: &str) -> Outcome {
    // NVRTC reserves more address space than other commands may have.
    let mut command: Command = sandbox.command_after("ulimit -c 0", line);
    command.env("LD_LIBRARY_PATH", sandbox.path("driver")).env("GRAFT_NVRTC", nvrtc);
    command.env("GRAFT_CACHE", sandbox.path("cache"));
    if is_meant {
        command.env("GRAFT_FAKE_CUDA", "1");
    }
    Outcome::of(command, line)
}

#[test]
fn an_emulated_device_is_used_only_where_it_is_meant_and_never_measured() {
    let Some((sandbox, nvrtc)) = emulated() else { return };
    let refused = run(&sandbox, &nvrtc, false, "doctor --self-test cuda");
    assert_eq!(refused.code, 5, "{}", refused.stderr);
    assert!(refused.stderr.contains("GRAFT_FAKE_CUDA=1"), "{}", refused.stderr);

    let found = run(&sandbox, &nvrtc, true, "doctor");
    assert_eq!(found.code, 0, "{}", found.stderr);
    assert!(found.stdout.contains("(EMULATED)"), "{}", found.stdout);
    let passed = found.stdout.lines().filter(|line| line.contains("passed, largest error")).count();
    assert_eq!(passed, 2, "{}", found.stdout);
    assert!(found.stdout.contains("skipped: needs a GPU"), "{}", found.stdout);

    for line in ["bench tiny.onnx --device cuda", "bench tiny.onnx --device cuda --tune"] {
        let measured = run(&sandbox, &nvrtc, true, line);
        assert_eq!(measured.code, 5, "{}", measured.stderr);
        assert!(measured.stderr.contains("EMULATED"), "{}", measured.stderr);
    }
    assert!(!sandbox.path("cache/kernels/tiles.txt").exists());
}

#[test]
fn compiled_kernels_are_kept_and_damaged_ones_made_anew() {
    let Some((sandbox, nvrtc)) = emulated() else { return };
    let test = |sandbox: &Sandbox, nvrtc: &str| run(sandbox, nvrtc, true, "doctor --self-test cuda");
    let first = test(&sandbox, &nvrtc);
    assert_eq!(first.code, 0, "{}", first.stderr);
    let entries = || -> Vec<_> {
        let entries = fs::read_dir(sandbox.path("cache/kernels")).expect("the cache is there");
        entries.map(|entry| entry.expect("an entry").path()).collect()
    };
    let kept = entries();
    assert!(!kept.is_empty());
    let whole: Vec<_> = kept.iter().map(|path| fs::read(path).expect("it is there")).collect();
    for (path, bytes) in kept.iter().zip(&whole) {
        fs::write(path, &bytes[..bytes.len() / 2]).expect("it is cut off");
    }
    let again = test(&sandbox, &nvrtc);
    assert_eq!((again.code, &again.stdout), (0, &first.stdout), "{}", again.stderr);
    let healed: Vec<_> = kept.iter().map(|path| fs::read(path).expect("it is there")).collect();
    assert!(healed == whole, "what was cut off is whole again");
    assert_eq!(entries().len(), kept.len());

    // Without a compiler that can be found there is no device, kept kernels or not.
    let refused = run(&sandbox, "/nothing", true, "doctor --self-test cuda");
    assert_eq!(refused.code, 5, "{}", refused.stderr);
    assert!(refused.stderr.contains("NVRTC") && refused.stderr.contains("/nothing"), "{}", refused.stderr);
}

#[test]
fn too_little_memory_is_an_error_of_the_device() {
    let Some((sandbox, nvrtc)) = emulated() else { return };
    let mut command = sandbox.command_after("ulimit -c 0", "doctor --self-test cuda");
    command
        .env("LD_LIBRARY_PATH", sandbox.path("driver"))
        .env("GRAFT_NVRTC", &nvrtc)
        .env("GRAFT_FAKE_CUDA", "1");
    command.env("GRAFT_CACHE", sandbox.path("cache")).env("GRAFT_FAKE_CUDA_MEMORY", "4096");
    let refused = Outcome::of(command, "doctor");
    assert_eq!(refused.code, 5, "{}", refused.stderr);
    assert!(refused.stderr.contains("has no room for"), "{}", refused.stderr);
}

#[test]
fn what_is_planned_for_a_library_trains_the_same_without_it() {
    let Some((sandbox, nvrtc)) = emulated() else { return };
    let line = "train tiny.onnx --loss cross-entropy --targets up,down --data data.jsonl --steps 4";
    let losses = |out: &str| -> Vec<f64> {
        let lines =
            fs::read_to_string(sandbox.path(out).join("metrics.jsonl")).expect("the metrics are there");
        let rows = lines.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).expect("a row"));
        rows.filter_map(|row| row["loss"].as_f64()).collect()
    };
    let kernels = || {
        let entries = fs::read_dir(sandbox.path("cache/kernels")).expect("the cache is there");
        entries.count()
    };
    let plain = run(&sandbox, &nvrtc, true, &format!("{line} --device cuda --out plain"));
    assert_eq!(plain.code, 0, "{}", plain.stderr);
    let before = kernels();
    // Of the products with eight rows in a batch, and of fewer, of up to four columns and steps.
    let rows = ["1", "2", "4", "8"].iter().flat_map(|m| ["1", "2", "4"].map(|n| format!("{m} {n} 4")));
    let table: String = rows.map(|sizes| format!("8.0 float {sizes} 0 cublaslt\n")).collect();
    fs::write(sandbox.path("cache/kernels/tiles.txt"), table).expect("it can be written");
    let planned = run(&sandbox, &nvrtc, true, &format!("{line} --device cuda --out planned"));
    assert_eq!(planned.code, 0, "{}", planned.stderr);
    let said = format!("{}{}", planned.stdout, planned.stderr);
    assert!(said.contains("an emulated device has no cuBLASLt"), "{said}");
    assert!(kernels() > before + 1, "other kernels were launched, beside the table");
    let (plain, planned) = (losses("plain"), losses("planned"));
    assert_eq!(plain.len(), planned.len());
    assert!(plain.len() >= 4, "{plain:?}");
    let is_near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-5 * b.abs();
    assert!(plain.iter().zip(&planned).all(is_near), "{plain:?}, {planned:?}");
}

//! Tests of the tests: faults planted in the device's kernels, each of which the random cases have to find.
use crate::{
    DEVICE_CASES, LARGEST,
    device::{How, Machines, check, skip},
    draw::Draw,
    row,
};
use graft_emulate::{Edit, Sanitizer, Toolchain};
use graft_ir::DType;
use std::path::Path;

/// A fault, the kernel whose cases find it, and words of what is said.
struct Fault {
    what: &'static str,
    edit: Edit,
    kernel: &'static str,
    sanitizer: Sanitizer,
    says: &'static str,
}

const fn fault(
    what: &'static str,
    [file, from, to]: [&'static str; 3],
    (kernel, sanitizer, says): (&'static str, Sanitizer, &'static str),
) -> Fault {
    Fault { what, edit: Edit { file, from, to }, kernel, sanitizer, says }
}

const TEAM: &str = "cuda/team.cuh";
const ATTENTION: &str = "attention/attention.cu";
const LAYER_NORM: &str = "layer_norm/layer_norm.cu";
const WRITE: &str = "parts[threadIdx.x / 32] = part;\n    sync_block();";
const TILES: &str = "      sync_block();  // No thread reads the last tile any more.";

const FAULTS: &[Fault] = &[
    fault(
        "no barrier before the warps' parts are read",
        [TEAM, WRITE, "parts[threadIdx.x / 32] = part;"],
        ("SoftmaxCrossEntropyLoss", Sanitizer::None, "other bits"),
    ),
    fault(
        "no barrier before the warps' parts are read",
        [TEAM, WRITE, "parts[threadIdx.x / 32] = part;"],
        ("SoftmaxCrossEntropyLoss", Sanitizer::Thread, "data race"),
    ),
    fault(
        "parts overwritten while others read them",
        [TEAM, "sync_block();  // No thread reads the parts of the last call any more.", ""],
        ("SoftmaxCrossEntropyLoss", Sanitizer::Thread, "data race"),
    ),
    fault(
        "lanes that exchange with the wrong ones",
        [TEAM, "int mask = 16; mask > 0", "int mask = 8; mask > 0"],
        ("LayerNormalization", Sanitizer::None, "not"),
    ),
    fault(
        "the last element of a row not counted",
        [TEAM, "i < n; i += SIZE) part += f(i)", "i < n - 1; i += SIZE) part += f(i)"],
        ("graft.RmsNorm", Sanitizer::None, "not"),
    ),
    fault(
        "a row stored that is none",
        [LAYER_NORM, "if (!is_row) return;", ""],
        ("LayerNormalization", Sanitizer::Address, "heap-buffer-overflow"),
    ),
    fault(
        "the last element of a row not stored",
        [LAYER_NORM, "i < n; i += ROW_THREADS / team.ROWS) {", "i < n - 1; i += ROW_THREADS / team.ROWS) {"],
        ("LayerNormalization", Sanitizer::None, "not"),
    ),
    fault(
        "attention's sums not rescaled when a larger score is met",
        [ATTENTION, "x *= shrink[half];", "x *= 1.f;"],
        ("graft.Attention", Sanitizer::None, "not"),
    ),
    fault(
        "attention's divisor not rescaled",
        [ATTENTION, "divisor[half] * shrink[half]", "divisor[half]"],
        ("graft.Attention", Sanitizer::None, "not"),
    ),
    fault(
        "keys that are not there counted",
        [ATTENTION, "x = key + col < keys ? share : 0.f;", "x = share;"],
        ("graft.Attention", Sanitizer::None, "not"),
    ),
    fault(
        "attention's tiles overwritten while they are read",
        [ATTENTION, TILES, ""],
        ("graft.Attention", Sanitizer::Thread, "data race"),
    ),
    fault(
        "the gradient of shares without their mean",
        [ATTENTION, "(x - mean(", "(x - 0.f * mean("],
        ("graft.AttentionGrad", Sanitizer::None, "not"),
    ),
    fault(
        "a row of a table that several blocks sum",
        ["gather/gather_grad.cu", "if (Team<ROW_THREADS>::join(is_earlier, Either{})) return;", ""],
        ("graft.GatherGrad", Sanitizer::None, "other bits"),
    ),
    fault(
        "every product of a batch with the same left matrix",
        ["matmul/matmul.cu", "operand(a + offsets[0]", "operand(a"],
        ("MatMul", Sanitizer::None, "not"),
    ),
    fault(
        "the slabs of a product all with the same part of the sum",
        ["gemm/extended.cuh", "const int begin = slab * steps_per_slab;", "const int begin = 0;"],
        ("MatMul", Sanitizer::None, "not"),
    ),
    fault(
        "the slabs of a sum not told apart",
        ["reduce/reduce.cu", "parts[blockIdx.y * n + i]", "parts[i]"],
        ("ReduceSum", Sanitizer::None, "not"),
    ),
    fault(
        "a walk whose last axis is counted once more",
        ["cuda/walk.cuh", "axis + 1 < rank ?", "axis + 2 < rank ?"],
        ("graft.ReduceTo", Sanitizer::None, ""),
    ),
    fault(
        "one count of steps for all elements",
        ["optimizer/optimizer.cu", "steps[i * steps_apart] != step", "false"],
        ("graft.AdamW", Sanitizer::None, "not"),
    ),
];

/// What is wrong with the first case where something is.
fn found(fault: &Fault, toolchain: Toolchain) -> Option<String> {
    let kernel = graft_kernels::all().find(|k| k.name == fault.kernel)?;
    let (_, generate) = row(kernel)?;
    let mut machines = Machines::of(toolchain);
    (0..DEVICE_CASES).find_map(|seed| {
        let mut draw = Draw::new(seed, LARGEST);
        let case = generate(&mut draw);
        check(kernel, (case, How::narrowed(DType::Float)), &mut draw, &mut machines).err()
    })
}

#[test]
fn every_planted_fault_is_found() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulate");
    let mut missed = Vec::new();
    for fault in FAULTS {
        let Some(toolchain) = Toolchain::find(&folder, fault.sanitizer) else {
            return skip("no C++ compiler for x86-64 Linux: no faults are planted");
        };
        let toolchain = Toolchain { edits: vec![fault.edit.clone()], ..toolchain };
        match found(fault, toolchain) {
            Some(said) if said.contains(fault.says) => {}
            said => missed.push(format!("{} ({:?}): {said:?}", fault.what, fault.sanitizer)),
        }
    }
    assert!(missed.is_empty(), "\n{}", missed.join("\n"));
}

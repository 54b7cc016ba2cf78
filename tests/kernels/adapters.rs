//! The device's kernels of adapted linears with 16-bit elements, on the cases of the others and under the sanitizers; and
//! faults planted in them, each of which has to be found.
use crate::{
    LARGEST,
    case::{Bound, Case},
    device::{How, Machines, Outcome, check, skip},
    draw::Draw,
    row, rows,
};
use graft_emulate::{Edit, Sanitizer, Toolchain};
use graft_ir::DType;
use graft_kernels::{
    Kernel,
    cuda::{TILES, Target},
};
use std::path::Path;

/// The kernels of adapted linears.
pub(crate) fn adapters() -> impl Iterator<Item = &'static Kernel> {
    graft_kernels::all().filter(|kernel| rows::is_of_adapter(kernel.name))
}

/// Tokens, or inputs, for which a slab has several tiles.
const LONG: usize = 2113;

/// How often what a result is made of is rounded to the element, at most.
const ROUNDINGS: f64 = 8.0;

/// The bound for sums in f32 of what is rounded to a 16-bit element on the way.
fn widened(bound: Bound, dtype: DType) -> Bound {
    let unit = match dtype {
        DType::Bfloat16 => 2f64.powi(-8),
        DType::Float16 => 2f64.powi(-11),
        _ => return bound,
    };
    let sums = 2f64.powi(-24) / unit;
    match bound {
        Bound::Terms(n) => Bound::Terms(ROUNDINGS + n * sums),
        Bound::Largest(n) => Bound::Largest(2.0 * ROUNDINGS + n * sums),
        other => other,
    }
}

/// Runs a case on the device, with this element and for this target.
fn run(
    kernel: &Kernel,
    (element, target): (DType, Target),
    (case, draw): (Case, &mut Draw),
    machines: &mut Machines,
) -> Result<Outcome, String> {
    check(kernel, (rounded(case, element), How { element, target, schedule: None }), draw, machines)
}

/// A case whose sums may differ as they do where they are rounded to `element` on the way.
pub(crate) fn rounded(case: Case, element: DType) -> Case {
    Case { bound: widened(case.bound, element), element: Some(element), ..case }
}

/// So many cases with 16-bit elements and sizes up to `largest`; and whether there is more: one more of them with large
/// tiles, and a long one in f32, whose sums cancel too much for bounds of 16-bit elements to tell anything.
#[derive(Clone, Copy)]
struct Cases {
    n: u64,
    largest: usize,
    and_more: bool,
}

/// What is wrong with the first case where something is.
fn found(kernel: &Kernel, dtype: DType, cases: Cases, machines: &mut Machines) -> Option<String> {
    let (_, generate) = row(kernel)?;
    let usual = Target::default();
    let large = Target { tile: Some(TILES[1]), ..usual };
    let mut all: Vec<_> = (0..cases.n).map(|n| (Draw::new(n, cases.largest), (dtype, usual))).collect();
    if cases.and_more {
        all.push((Draw::new(cases.n, cases.largest), (dtype, large)));
        all.push((Draw::new(0, 16).with_long(LONG), (DType::Float, usual)));
    }
    let mut served = 0;
    for (seed, (mut draw, how)) in all.into_iter().enumerate() {
        let case = generate(&mut draw);
        match run(kernel, how, (case, &mut draw), machines) {
            Ok(outcome) => served += u64::from(matches!(outcome, Outcome::Right)),
            Err(e) => return Some(format!("{} (case {seed}): {e}", kernel.name)),
        }
    }
    (served <= cases.n / 4).then(|| format!("{}: the device serves {served} cases only", kernel.name))
}

/// What builds the kernels; none, and said so, where there is no compiler.
pub(crate) fn toolchain(sanitizer: Sanitizer) -> Option<Toolchain> {
    let found = Toolchain::find(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulate"), sanitizer);
    if found.is_none() {
        skip("no C++ compiler for x86-64 Linux: the CUDA kernels are not emulated");
    }
    found
}

/// Fails with what is wrong with so many cases of every adapter.
fn check_all(dtype: DType, sanitizer: Sanitizer, cases: Cases) {
    let Some(toolchain) = toolchain(sanitizer) else { return };
    let mut failures = Vec::new();
    for kernel in adapters() {
        let mut machines = Machines::of(toolchain.clone());
        failures.extend(found(kernel, dtype, cases, &mut machines));
    }
    assert!(failures.is_empty(), "{dtype:?}, {sanitizer:?}\n{}", failures.join("\n"));
}

#[test]
fn adapters_of_16_bit_elements_compute_what_their_functions_mean() {
    check_all(DType::Bfloat16, Sanitizer::None, Cases { n: 8, largest: LARGEST, and_more: true });
    check_all(DType::Float16, Sanitizer::None, Cases { n: 3, largest: LARGEST, and_more: false });
}

#[test]
fn sanitizers_find_nothing_in_adapters() {
    for sanitizer in [Sanitizer::Address, Sanitizer::Thread] {
        check_all(DType::Bfloat16, sanitizer, Cases { n: 2, largest: 40, and_more: false });
    }
}

/// A fault, the kernel whose cases find it, what watches then, and words of what is said.
pub(crate) struct Fault {
    what: &'static str,
    kernel: &'static str,
    edit: Edit,
    sanitizer: Sanitizer,
    says: &'static str,
}

pub(crate) const fn fault(
    what: &'static str,
    kernel: &'static str,
    [file, from, to]: [&'static str; 3],
    (sanitizer, says): (Sanitizer, &'static str),
) -> Fault {
    Fault { what, kernel, edit: Edit { file, from, to }, sanitizer, says }
}

const MIDDLE: &str = "lora/middle.cuh";
const COL: &str = "bat/col.cu";
const HYDRA: &str = "hydra/hydra.cu";
pub(crate) const WRONG: (Sanitizer, &str) = (Sanitizer::None, "not");
pub(crate) const RACE: (Sanitizer, &str) = (Sanitizer::Thread, "data race");

const FAULTS: &[Fault] = &[
    fault(
        "an epilogue that overwrites the panels of slower warps",
        "graft.Tri",
        [
            MIDDLE,
            "sync_block();  // No thread reads the product's panels, or those of the call before, any more.",
            "",
        ],
        RACE,
    ),
    fault(
        "a product with what has not landed yet",
        "graft.TriGrad",
        [MIDDLE, "copy_wait<0>();\n    sync_block();\n    if", "sync_block();\n    if"],
        WRONG,
    ),
    fault(
        "a middle matrix that is turned over",
        "graft.Tri",
        [MIDDLE, "? c(row, col) : 0.f", "? c(col, row) : 0.f"],
        WRONG,
    ),
    fault(
        "a part of dc that forgets the tile before",
        "graft.TriGrad",
        [MIDDLE, "G::warp_row(), 0, is_first", "G::warp_row(), 0, true"],
        WRONG,
    ),
    fault(
        "a triangle without its diagonal",
        "graft.TriGrad",
        ["tri/tri.cu", "i % rank <= i / rank", "i % rank < i / rank"],
        WRONG,
    ),
    fault(
        "gates that the gradient of the up-projection forgets",
        "graft.SaloraGrad",
        ["adalora/adalora.cu", "+ k]) * c.e[k]", "+ k])"],
        WRONG,
    ),
    fault(
        "gradients of gates that are shut",
        "graft.SaloraGrad",
        ["salora/salora.cu", "g[i] > 0.f && g[i] < 1.f ?", "true ?"],
        WRONG,
    ),
    fault(
        "heads and ranks of z exchanged",
        "graft.Hydra",
        [HYDRA, "of[rank + c / rank] * of[c % rank]", "of[rank + c % heads] * of[c / heads]"],
        WRONG,
    ),
    fault(
        "probabilities read before they are there",
        "graft.Hydra",
        [HYDRA, "+ rank, heads);\n    sync_block();", "+ rank, heads);"],
        RACE,
    ),
    fault(
        "a token past the last one",
        "graft.Hydra",
        [
            HYDRA,
            "rows = tokens - token < JointTile::M ? tokens - token : JointTile::M;",
            "rows = JointTile::M;",
        ],
        (Sanitizer::Address, "heap-buffer-overflow"),
    ),
    fault(
        "a softmax's gradient without the mean",
        "graft.HydraGrad",
        [HYDRA, "weights[head] * (dp[head] - mean)", "weights[head] * dp[head]"],
        WRONG,
    ),
    fault(
        "a tile of the weight read before it is there",
        "graft.BatCol",
        [COL, "  sync_block();\n  const auto store", "  const auto store"],
        RACE,
    ),
    fault(
        "another block's rows of the weight",
        "graft.BatCol",
        [COL, "*w.at(col, b + k)", "*w.at(col, k)"],
        WRONG,
    ),
    fault(
        "a tile of the weight that has not landed",
        "graft.BatColGrad",
        [COL, "copy_wait<0>();\n    sync_block();\n    if", "sync_block();\n    if"],
        WRONG,
    ),
    fault(
        "fragments of another block's rows",
        "graft.BatColGrad",
        [COL, "Steps<P>{w, p}, b + k", "Steps<P>{w, p}, k"],
        WRONG,
    ),
    fault(
        "a tile of the weight overwritten while it is read",
        "graft.BatColGrad",
        [COL, "sync_block();  // No thread reads the tiles any more.", ""],
        (Sanitizer::None, "other bits"),
    ),
    fault(
        "blocks of u at the wrong distance",
        "graft.BatLeft",
        ["bat/side.cu", "(first / rank) * tokens + token", "(first / rank) + token * (width / rank)"],
        WRONG,
    ),
    fault(
        "lanes of a column that are forgotten",
        "graft.Dora",
        ["dora/dora.cu", "mask = 4; mask < 32", "mask = 4; mask < 16"],
        WRONG,
    ),
    fault(
        "squares of warps added before they are there",
        "graft.Dora",
        ["dora/dora.cu", "= own[i];\n  }\n  sync_block();", "= own[i];\n  }"],
        RACE,
    ),
    fault(
        "columns of a sum of slabs that begin at the first one",
        "graft.HydraGrad",
        ["cuda/slabs.cu", "* width + first +", "* width +"],
        WRONG,
    ),
];

/// Fails with the faults that `found`, which says what is wrong with a kernel, does not find.
pub(crate) fn find_all(faults: &[Fault], found: impl Fn(&Kernel, &mut Machines) -> Option<String>) {
    let mut missed = Vec::new();
    for fault in faults {
        let Some(toolchain) = toolchain(fault.sanitizer) else { return };
        let toolchain = Toolchain { edits: vec![fault.edit.clone()], ..toolchain };
        let mut machines = Machines::of(toolchain);
        let kernel = adapters().find(|k| k.name == fault.kernel).expect("the kernel is in the table");
        match found(kernel, &mut machines) {
            Some(said) if said.contains(fault.says) => {}
            said => missed.push(format!("{} ({:?}): {said:?}", fault.what, fault.sanitizer)),
        }
    }
    assert!(missed.is_empty(), "\n{}", missed.join("\n"));
}

#[test]
fn every_fault_planted_in_an_adapter_is_found() {
    let cases = Cases { n: 6, largest: LARGEST, and_more: true };
    find_all(FAULTS, |kernel, machines| found(kernel, DType::Bfloat16, cases, machines));
}

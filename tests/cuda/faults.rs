//! Tests of the tests: faults planted in the kernels, each of which the emulator has to find.
use crate::{
    bone, lora,
    program::{Case, toolchain},
};
use graft_emulate::{Edit, Emulator, ORDERS, Sanitizer};
use graft_kernels::cuda::{Element, Sizes, TILES};

/// A fault, what finds it, and words of what is said.
struct Fault {
    what: &'static str,
    edit: Edit,
    sanitizer: Sanitizer,
    says: &'static str,
}

const fn fault(
    what: &'static str,
    [file, from, to]: [&'static str; 3],
    sanitizer: Sanitizer,
    says: &'static str,
) -> Fault {
    Fault { what, edit: Edit { file, from, to }, sanitizer, says }
}

const PRODUCT: &str = "gemm/extended.cuh";
const RANK_GRAD: &str = "gemm/rank_grad.cuh";
const BARRIER: &str = "      sync_block();\n      if (t + T::STAGES";

const FAULTS: &[Fault] = &[
    fault(
        "no barrier before a panel is used",
        [PRODUCT, BARRIER, "      if (t + T::STAGES"],
        Sanitizer::None,
        "not",
    ),
    fault(
        "no barrier before a panel is used",
        [PRODUCT, BARRIER, "      if (t + T::STAGES"],
        Sanitizer::Thread,
        "data race",
    ),
    fault(
        "a wait for one group of copies too few",
        [PRODUCT, "copy_wait<T::STAGES - 2>", "copy_wait<T::STAGES - 1>"],
        Sanitizer::None,
        "not",
    ),
    fault(
        "a panel overwritten while it is read",
        [PRODUCT, "stage == 0 ? T::STAGES - 1 : stage - 1", "stage"],
        Sanitizer::Thread,
        "data race",
    ),
    fault(
        "a store past the last row",
        [PRODUCT, "row >= c.rows || ", ""],
        Sanitizer::Address,
        "heap-buffer-overflow",
    ),
    fault("a store past the last row", [PRODUCT, "row >= c.rows || ", ""], Sanitizer::None, "behind the end"),
    fault(
        "a load past the last row",
        ["cuda/panel.cuh", "row + first_row() + c * APART < rows ? most : 0", "most"],
        Sanitizer::Address,
        "heap-buffer-overflow",
    ),
    fault(
        "no barrier between the tiles of a slab",
        [RANK_GRAD, "if (tile > 0) sync_block();", ""],
        Sanitizer::Thread,
        "data race",
    ),
    fault(
        "a barrier that some threads do not reach",
        [
            RANK_GRAD,
            "    sync_block();\n    if (i + G::STAGES",
            "    if (threadIdx.x < 32) sync_block();\n    if (i + G::STAGES",
        ],
        Sanitizer::None,
        "barrier",
    ),
    fault(
        "a warp that has diverged at ldmatrix",
        [
            "cuda/product.cuh",
            "    load_matrices(r, panel.at(i +",
            "    if (lane != 5) load_matrices(r, panel.at(i +",
        ],
        Sanitizer::None,
        "lanes",
    ),
    fault(
        "rows of a panel in the same banks",
        ["cuda/panel.cuh", "STRIDE = COLS + CHUNK<T>", "STRIDE = COLS"],
        Sanitizer::None,
        "conflicts",
    ),
    fault(
        "the mask of dropout drawn for the wrong elements",
        ["cuda/random.cuh", "row * width + col) >=", "col * width + row) >="],
        Sanitizer::None,
        "not",
    ),
    fault(
        "repeated columns that begin at the wrong one",
        ["gemm/linear.cu", "col % q.cols", "(col + 1) % q.cols"],
        Sanitizer::None,
        "not",
    ),
    fault(
        "the adapter not scaled",
        ["lora/lora.cu", "segment == 0 ? sum * scale : sum", "sum"],
        Sanitizer::None,
        "not",
    ),
];

/// What is wrong with the first case where something is.
fn found(emulator: &mut Emulator, cases: &[Case]) -> Option<String> {
    for case in cases {
        for order in 0..ORDERS {
            let outcome = match emulator.run(&case.job, order, 3) {
                Ok(outcome) => outcome,
                Err(e) => return Some(e),
            };
            if let Err(e) = case.judge(&outcome.results) {
                return Some(e);
            }
            if outcome.statistics.bank_conflicts > 0 {
                return Some(format!("{} conflicts", outcome.statistics.bank_conflicts));
            }
        }
    }
    None
}

#[test]
fn every_planted_fault_is_found() {
    // Sizes with ragged edges and several steps, with dropout; 2113 tokens are several tiles to a slab.
    let sizes = [(136, 136, 136, 8), (2113, 17, 9, 16)];
    let sizes = sizes.map(|(tokens, n_in, n_out, rank)| Sizes { tokens, n_in, n_out, rank });
    let bone = bone::cases(Element::Bf16, TILES[0], 1, 16, &[136]);
    let cases: Vec<Case> =
        sizes.iter().flat_map(|&s| lora::of_sizes(Element::Bf16, TILES[0], 1, s)).chain(bone).collect();
    let mut missed = Vec::new();
    for fault in FAULTS {
        let Some(toolchain) = toolchain(fault.sanitizer, std::slice::from_ref(&fault.edit)) else { return };
        let mut emulator = Emulator::start(toolchain).unwrap_or_else(|e| panic!("{e}"));
        match found(&mut emulator, &cases) {
            Some(said) if said.contains(fault.says) => {}
            said => missed.push(format!("{} ({:?}): {said:?}", fault.what, fault.sanitizer)),
        }
    }
    assert!(missed.is_empty(), "\n{}", missed.join("\n"));
}

//! The CUDA kernels, run from their sources by the emulator: random sizes against the `f64` evaluation of the functions'
//! bodies, the same bits for every order of threads, no complaint of the address and the thread sanitizer, and faults
//! that must be found.
mod bone;
mod convert;
mod copy;
mod faults;
mod interpreter;
mod lora;
mod math;
mod nvrtc;
mod program;
mod ptx;
mod reference;
mod traffic;

use graft_emulate::{Emulator, ORDERS, Sanitizer};
use graft_kernels::cuda::{Element, TILES, Tile};
use program::{Case, LARGE, SMALL, toolchain};

const ELEMENTS: [Element; 3] = [Element::Bf16, Element::F16, Element::F32];

/// Random cases of one kernel and one instance: those that every order runs.
const CASES: u64 = 6;

/// The cases of every kernel for one draw of sizes and values.
fn cases(element: Element, tile: Tile, seed: u64, rank: usize, among: &[usize]) -> Vec<Case> {
    let lora = lora::cases(element, tile, seed, rank, among);
    lora.into_iter().chain(bone::cases(element, tile, seed, rank, among)).collect()
}

/// Runs `cases` in all thread orders, judges the first and compares the others with it.
fn check(element: Element, sanitizer: Sanitizer, cases: impl Iterator<Item = Case>) {
    let Some(toolchain) = toolchain(sanitizer, &[]) else { return };
    let mut emulator = Emulator::start(toolchain).unwrap_or_else(|e| panic!("{e}"));
    for case in cases {
        let first = emulator.run(&case.job, 0, 1).unwrap_or_else(|e| panic!("{}: {e}", case.what));
        case.judge(&first.results).unwrap_or_else(|e| panic!("{}: {e}", case.what));
        assert_eq!(first.statistics.bank_conflicts, 0, "{}: rows in the same banks", case.what);
        let uses_tensor_cores = element != Element::F32;
        assert_eq!(first.statistics.mma > 0, uses_tensor_cores, "{}: {:?}", case.what, first.statistics);
        for order in 1..ORDERS {
            let other = emulator.run(&case.job, order, 7).unwrap_or_else(|e| panic!("{}: {e}", case.what));
            assert!(other.results == first.results, "{}: other bits in order {order}", case.what);
        }
    }
}

#[test]
fn kernels_compute_what_their_functions_mean() {
    for element in ELEMENTS {
        let all = (0..CASES).flat_map(|seed| cases(element, TILES[0], seed, 16, LARGE));
        check(element, Sanitizer::None, all);
    }
}

#[test]
fn ranks_and_tiles_make_no_difference_to_the_meaning() {
    for (tile, rank) in [(TILES[0], 32), (TILES[0], 64), (TILES[1], 16)] {
        let all = (0..2).flat_map(|seed| cases(Element::Bf16, tile, seed, rank, LARGE));
        check(Element::Bf16, Sanitizer::None, all);
    }
}

#[test]
fn sanitizers_find_nothing() {
    for sanitizer in [Sanitizer::Address, Sanitizer::Thread] {
        for element in [Element::Bf16, Element::F32] {
            let all = (0..2).flat_map(|seed| cases(element, TILES[0], seed, 16, SMALL));
            check(element, sanitizer, all);
        }
    }
}

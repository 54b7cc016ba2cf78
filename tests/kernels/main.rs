//! Every kernel against the meaning of its op: random sizes, values, attributes and opsets; operands strided where the
//! table allows it, results in place of operands where it allows that, results unwanted; on 1, 2 and 4 threads, whose
//! results must have the same bits. The reference is the op's `eval`, or the function's body, in `f64`.
mod adapters;
mod case;
mod device;
mod draw;
mod epilogue;
mod faults;
mod gpu;
#[path = "../cuda/interpreter.rs"]
mod interpreter;
mod layout;
mod library;
mod outcome;
mod rows;
mod together;

use case::Case;
use draw::Draw;
use graft_kernels::Kernel;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::collections::BTreeSet;

/// Random cases of each kernel.
const CASES: u32 = 64;

/// Random cases of each kernel of the device, of which five orders of threads are run.
const DEVICE_CASES: u64 = 12;

/// The largest size of one axis.
const LARGEST: usize = 300;

/// Whether the fuller sweep is asked for.
fn is_sweep() -> bool {
    std::env::var("GRAFT_CUDA_SWEEP").is_ok_and(|v| v == "1")
}

fn row(kernel: &Kernel) -> Option<rows::Row> {
    rows::all().find(|(name, _)| *name == kernel.name)
}

#[test]
fn every_kernel_has_a_generator_and_every_generator_a_kernel() {
    let kernels: BTreeSet<&str> = graft_kernels::all().map(|k| k.name).collect();
    let generated: BTreeSet<&str> = rows::all().map(|(name, _)| name).collect();
    assert_eq!(kernels, generated);
    assert_eq!((kernels.len(), generated.len()), (graft_kernels::all().count(), rows::all().count()));
}

#[test]
fn every_kernel_computes_what_its_op_means() {
    let mut failures = Vec::new();
    for kernel in graft_kernels::all() {
        let Some((_, generate)) = row(kernel) else { continue };
        let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
        // A smaller bound on the sizes makes a simpler case of the same seed.
        let strategy = (any::<u64>(), 1..=LARGEST);
        let outcome = TestRunner::new(config).run(&strategy, |(seed, largest)| {
            let mut draw = Draw::new(seed, largest);
            let case: Case = generate(&mut draw);
            outcome::check(kernel, case, &mut draw).map_err(TestCaseError::fail)
        });
        failures.extend(outcome.err().map(|e| format!("{}: {e}", kernel.name)));
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

//! Every gradient rule of the op table, and every gradient body of the library, against central differences in f64:
//! over random shapes with sizes 0 and 1, at several opsets, and with declared types from numbers to unrelated symbols.
//!
//! To cover an op, add a line to its family's table in `cases/`.

mod autodiff;
mod cases;
mod check;
mod draw;
mod example;

use cases::Case;
use draw::{CHOICES, Draw};
use graft_ir::ops;
use proptest::{
    collection::vec,
    prelude::any,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};
use std::collections::BTreeSet;

/// Each case is drawn this often, unless the environment's `PROPTEST_CASES` says otherwise.
const DRAWS: u32 = 96;

fn all_cases() -> impl Iterator<Item = &'static Case> {
    cases::FAMILIES.iter().copied().flatten()
}

/// The first opset that has the op; the library's functions are served from 14 on.
fn first_opset(op: &str) -> i64 {
    ops::all().filter(|def| def.name == op).map(|def| def.since).min().unwrap_or(14).max(14)
}

/// Draws examples of `case` and checks each; a failure is shrunk to the smallest shapes that show it.
fn run(case: &Case) -> Result<(), String> {
    let mut config = Config { failure_persistence: None, max_shrink_iters: 4096, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = DRAWS;
    }
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let strategy = (vec(any::<u8>(), CHOICES), any::<u64>());
    let verdict = runner.run(&strategy, |(choices, seed)| {
        let mut draw = Draw::new(choices, seed, first_opset(case.op));
        let example = (case.make)(&mut draw);
        check::check(case.op, &example, &mut draw)
            .map_err(|e| TestCaseError::fail(format!("{e}\n  of {example:?} at opset {}", draw.opset)))
    });
    verdict.map_err(|e| match e {
        TestError::Fail(reason, _) => format!("{}: {reason}", case.op),
        TestError::Abort(reason) => format!("{}: given up: {reason}", case.op),
    })
}

#[test]
fn rules_agree_with_finite_differences() {
    let failures: Vec<String> = all_cases().filter_map(|case| run(case).err()).collect();
    assert!(failures.is_empty(), "{} of the cases fail:\n{}", failures.len(), failures.join("\n\n"));
}

#[test]
fn every_rule_has_a_case() {
    let covered: BTreeSet<&str> = all_cases().map(|case| case.op).collect();
    let rules = ops::all().filter(|def| def.vjp.rule().is_some()).map(|def| def.name);
    let missing: BTreeSet<&str> = rules.filter(|name| !covered.contains(name)).collect();
    assert!(missing.is_empty(), "ops whose gradient nobody checks: {missing:?}");
}

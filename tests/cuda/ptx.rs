//! NVRTC's own output, run by the PTX interpreter: the same bits as the emulation has, in every order of warps, and faults in
//! what the emulation does not see, the instructions themselves.
use crate::{
    ELEMENTS, bone, cases,
    interpreter::Interpreter,
    lora,
    program::{Case, LARGE, skip, toolchain},
};
use graft_emulate::{Emulator, Sanitizer};
use graft_kernels::cuda::{Element, Sizes, TILES};
use graft_ptx::Schedule;
use std::path::Path;

/// The interpreter; none, and said so, where there is no NVRTC.
fn interpreter() -> Option<Interpreter> {
    let found = Interpreter::find(Path::new(env!("CARGO_TARGET_TMPDIR")));
    found.map_err(|why| skip(&why)).ok()
}

#[test]
fn ptx_has_the_bits_of_the_emulation() {
    let Some(mut interpreter) = interpreter() else { return };
    let Some(toolchain) = toolchain(Sanitizer::None, &[]) else { return };
    let mut emulator = Emulator::start(toolchain).unwrap_or_else(|e| panic!("{e}"));
    for element in ELEMENTS {
        for case in (0..3).flat_map(|seed| cases(element, TILES[0], seed, 16, LARGE)) {
            let emulated = emulator.run(&case.job, 0, 1).unwrap_or_else(|e| panic!("{}: {e}", case.what));
            for schedule in Schedule::ALL {
                let interpreted =
                    interpreter.run(&case.job, schedule).unwrap_or_else(|e| panic!("{}: {e}", case.what));
                case.judge(&interpreted.results).unwrap_or_else(|e| panic!("{}: {e}", case.what));
                assert!(interpreted.results == emulated.results, "{}: other bits, {schedule:?}", case.what);
                let [found, wanted] = [
                    (interpreted.statistics.mma, interpreted.statistics.ldmatrix),
                    (emulated.statistics.mma, emulated.statistics.ldmatrix),
                ];
                assert_eq!(found, wanted, "{}: mma and ldmatrix", case.what);
                assert_eq!(interpreted.statistics.bank_conflicts, 0, "{}: rows in the same banks", case.what);
            }
        }
    }
}

/// A fault in an instruction, words of what is said, and whether all warps in step show it.
struct Fault {
    what: &'static str,
    edit: fn(&str) -> String,
    says: &'static str,
    in_step: bool,
}

const FAULTS: &[Fault] = &[
    Fault {
        what: "the halves of mma's right operand swapped",
        edit: swap_halves,
        says: "not",
        in_step: true,
    },
    Fault {
        what: "ldmatrix without .trans",
        edit: |line| line.replace(".trans", ""),
        says: "not",
        in_step: true,
    },
    Fault {
        what: "a wait for one group of copies too few",
        edit: |line| line.replace("wait_group 1", "wait_group 2").replace("wait_group 0", "wait_group 1"),
        says: "not",
        in_step: true,
    },
    Fault { what: "no barriers", edit: |line| line.replace("bar.sync", "//"), says: "not", in_step: false },
    Fault {
        what: "results rounded to the wrong type",
        edit: |line| line.replace("cvt.rn.bf16", "cvt.rn.f16"),
        says: "not",
        in_step: true,
    },
    Fault {
        what: "bf16 multiplied as f16",
        edit: |line| line.replace(".bf16.bf16.", ".f16.f16."),
        says: "not",
        in_step: true,
    },
    Fault {
        what: "copies of whole chunks only",
        edit: read_all,
        says: "outside of every allocation",
        in_step: true,
    },
];

/// `mma d, a, {b0, b1}, c` with b1 before b0.
fn swap_halves(line: &str) -> String {
    let parts: Vec<&str> = line.split("}, {").collect();
    let [d, a, b, c] = parts[..] else { return line.into() };
    let (low, high) = b.split_once(", ").expect("two registers");
    [d, a, &format!("{high}, {low}"), c].join("}, {")
}

/// `cp.async [to], [from], 16, n` without the bytes that are there.
fn read_all(line: &str) -> String {
    match line.split_once("], 16,") {
        Some((copy, _)) if line.contains("cp.async") => format!("{copy}], 16;"),
        _ => line.into(),
    }
}

/// What is wrong with the first case where something is.
fn found(interpreter: &mut Interpreter, cases: &[Case], schedule: Schedule) -> Option<String> {
    cases.iter().find_map(|case| match interpreter.run(&case.job, schedule) {
        Err(e) => Some(e),
        Ok(outcome) => case.judge(&outcome.results).err(),
    })
}

#[test]
fn every_planted_fault_is_found() {
    let Some(interpreter) = interpreter() else { return };
    let sizes = Sizes { tokens: 136, n_in: 136, n_out: 136, rank: 8 };
    let bone = bone::cases(Element::Bf16, TILES[0], 1, 16, &[136]);
    let cases: Vec<Case> =
        lora::of_sizes(Element::Bf16, TILES[0], 1, sizes).into_iter().chain(bone).collect();
    let mut missed = Vec::new();
    for Fault { what, edit, says, in_step } in FAULTS {
        let mut interpreter = interpreter.clone();
        interpreter.edit = Some(*edit);
        let [in_step_found, skewed] =
            [Schedule::LockStep, Schedule::Forward].map(|s| found(&mut interpreter, &cases, s));
        let is_right = |found: &Option<String>| found.as_ref().is_some_and(|said| said.contains(says));
        if !is_right(&skewed) || is_right(&in_step_found) != *in_step {
            missed.push(format!("{what}: {in_step_found:?} in step, {skewed:?} skewed"));
        }
    }
    assert!(missed.is_empty(), "\n{}", missed.join("\n"));
}

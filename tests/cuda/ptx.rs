//! NVRTC's own output, run by the PTX interpreter: the same bits as the emulation has, in every order of warps, and faults in
//! what the emulation does not see, the instructions themselves.
use crate::{
    ELEMENTS, cases,
    interpreter::Interpreter,
    program::{LARGE, skip, toolchain},
};
use graft_emulate::{Emulator, Sanitizer};
use graft_kernels::cuda::TILES;
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

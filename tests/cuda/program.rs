//! Programs of the emulator, and cases for them.
use crate::convert::decode;
use graft_emulate::{Build, Edit, Job, Sanitizer, compiler};
use graft_ir::Array;
use graft_kernels::cuda::{Element, Instance};
use std::path::{Path, PathBuf};

/// A result that is expected: its elements, and how far off each may be.
pub(crate) struct Expected {
    pub(crate) name: &'static str,
    pub(crate) element: Element,
    pub(crate) values: Array,
    pub(crate) allowed: Vec<f64>,
}

/// A job and what must come out.
pub(crate) struct Case {
    pub(crate) what: String,
    pub(crate) job: Job,
    pub(crate) expected: Vec<Expected>,
}

impl Case {
    /// An error for the first element that is too far off.
    pub(crate) fn judge(&self, results: &[Vec<u8>]) -> Result<(), String> {
        for (expected, bytes) in self.expected.iter().zip(results) {
            let found = decode(expected.element, bytes);
            let values = expected.values.floats().map_err(|e| e.to_string())?;
            if found.len() != values.len() {
                return Err(format!(
                    "`{}` has {} elements, not {}",
                    expected.name,
                    found.len(),
                    values.len()
                ));
            }
            for (i, ((&f, &v), &allowed)) in found.iter().zip(values).zip(&expected.allowed).enumerate() {
                // NaN is never near enough.
                let is_near = (f - v).abs() <= allowed;
                if !is_near {
                    return Err(format!("`{}`[{i}] is {f:e}, not {v:e} ± {allowed:e}", expected.name));
                }
            }
        }
        Ok(())
    }
}

#[expect(clippy::print_stderr, reason = "a skipped check says so")]
pub(crate) fn skip(why: &str) {
    eprintln!("SKIPPED: {why}");
}

/// The program for `instance` with these faults; none, and said so, where there is no compiler.
pub(crate) fn program(instance: Instance, sanitizer: Sanitizer, edits: &[Edit]) -> Option<PathBuf> {
    let Some(compiler) = compiler() else {
        skip("no C++ compiler for x86-64 Linux: the CUDA kernels are not emulated");
        return None;
    };
    let build = Build { edits: edits.to_vec(), ..Build::new(instance, sanitizer) };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulate");
    Some(build.program(&compiler, &folder).unwrap_or_else(|e| panic!("{instance:?}: {e}")))
}

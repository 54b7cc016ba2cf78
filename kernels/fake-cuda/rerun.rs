//! Runs a test that found no device again where the library is: the system's loader looks for it when a process starts.
use crate::install;
use std::{
    env, io,
    path::Path,
    process::{Command, ExitStatus},
};

/// Stands in for the device that the test called `name` did not find, for the reason `missing`: the test is run again where
/// the emulated one is, or, where there is no compiler for that, said to be skipped.
///
/// # Panics
/// If the test fails there, cannot be started, or does not find the emulated device either.
#[expect(clippy::print_stderr, reason = "a skipped check says so")]
pub fn stand_in(folder: &Path, name: &str, missing: &str) {
    assert!(env::var_os("GRAFT_FAKE_CUDA").is_none(), "the emulated device is not found: {missing}");
    if env::var_os("GRAFT_NVRTC").is_none() {
        eprintln!("SKIPPED: {name}: GRAFT_NVRTC names no compiler for an emulated device, and {missing}");
        return;
    }
    let status = rerun(folder, name).expect("the test runs again");
    assert!(status.success(), "{name} fails on the emulated device");
}

/// Runs the test called `name` of this test program again, in a process of its own that finds the emulated driver, put
/// into `folder`, and may use it. What it prints goes where this one prints.
/// An error if the library cannot be put there or the process cannot be started.
fn rerun(folder: &Path, name: &str) -> io::Result<ExitStatus> {
    install(folder)?;
    let mut paths = vec![folder.to_path_buf()];
    paths.extend(env::var_os("LD_LIBRARY_PATH").iter().flat_map(env::split_paths));
    let paths = env::join_paths(paths).map_err(io::Error::other)?;
    Command::new(env::current_exe()?)
        .args([name, "--exact", "--nocapture"])
        .env("LD_LIBRARY_PATH", paths)
        .env("GRAFT_FAKE_CUDA", "1")
        .env("GRAFT_CACHE", folder)
        .status()
}

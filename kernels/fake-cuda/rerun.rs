//! Runs a test again where the library is found: the system's loader looks for it when a process starts.
use crate::install;
use std::{
    env, io,
    path::Path,
    process::{Command, ExitStatus},
};

/// Runs the test called `name` of this test program again, in a process of its own that finds the emulated driver, put
/// into `folder`, and may use it. What it prints goes where this one prints.
///
/// # Errors
/// If the library cannot be put there or the process cannot be started.
pub fn rerun(folder: &Path, name: &str) -> io::Result<ExitStatus> {
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

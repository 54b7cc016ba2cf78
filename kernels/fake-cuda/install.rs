//! Puts the library where programs find it under the driver's name.
use std::{
    env, fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// The name under which cudarc looks for the driver first. Under `libcuda.so.1` NVRTC would find it too, and look in it for
/// tables that NVIDIA's libraries share among themselves.
const NAME: &str = "libcuda.so";

/// What cargo calls the library.
fn built() -> String {
    format!("{}graft_fake_cuda{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX)
}

/// Copies the library into a folder, under the driver's name; `LD_LIBRARY_PATH` then has to name the folder.
/// Cargo builds the library together with whatever depends on this crate, and lays it beside it.
///
/// # Errors
/// If the library is not there, or the folder cannot be written to.
pub fn install(folder: &Path) -> io::Result<PathBuf> {
    let program = env::current_exe()?;
    let beside = program.parent().unwrap_or(Path::new("."));
    let places = [beside.join("deps").join(built()), beside.join(built())];
    let library = places.iter().find(|p| p.is_file()).ok_or_else(|| {
        let what = format!("`{}` does not lie beside `{}`: build it with cargo", built(), program.display());
        io::Error::new(io::ErrorKind::NotFound, what)
    })?;
    fs::create_dir_all(folder)?;
    // Whoever has loaded the old one keeps it: a file in use is never written to.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let nth = COUNT.fetch_add(1, Ordering::Relaxed);
    let fresh = folder.join(format!("{NAME}-{}-{nth}", std::process::id()));
    fs::copy(library, &fresh)?;
    fs::rename(&fresh, folder.join(NAME))?;
    Ok(folder.join(NAME))
}

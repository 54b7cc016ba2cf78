//! `fake-cuda FOLDER` puts the library that stands in for the NVIDIA driver into a folder, for tests on machines without a
//! GPU: with `LD_LIBRARY_PATH=FOLDER` and `GRAFT_FAKE_CUDA=1`, `graft --device cuda` runs on an emulated device.
use std::{env, path::Path, process::ExitCode};

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to people")]
fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let [folder] = arguments.as_slice() else {
        eprintln!("usage: fake-cuda FOLDER");
        return ExitCode::from(2);
    };
    match graft_fake_cuda::install(Path::new(folder)) {
        Ok(library) => {
            println!("{}", library.display());
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("fake-cuda: {e}");
            ExitCode::FAILURE
        }
    }
}

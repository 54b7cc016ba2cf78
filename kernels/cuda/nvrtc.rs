//! NVRTC, NVIDIA's compiler as a library: from a source to PTX and machine code, with no GPU and no driver. It is found at
//! run time; a machine without it gets an error.
use super::{Module, vendor};
use cudarc::nvrtc::{result, sys};
use graft_ir::{Code, Error, Result};
use libloading::Library;
use std::{
    ffi::{CStr, CString, c_char, c_int},
    path::Path,
    sync::OnceLock,
};

/// A compiled source.
#[derive(Clone, Debug)]
pub struct Image {
    /// The text for the virtual machine, which any later device can take.
    pub ptx: String,
    /// The machine code of one architecture.
    pub cubin: Vec<u8>,
    /// What the compiler and the assembler said: warnings, registers, spills.
    pub log: String,
}

/// The names that the library has.
const NAMES: [&str; 4] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so", "nvrtc64_120_0.dll"];

/// Finds NVRTC: in `folder` if one is given, else where the system looks for libraries. To be called before [`compile`].
///
/// # Errors
/// If there is none.
pub fn find(folder: Option<&Path>) -> Result<()> {
    /// Keeps the library that was loaded by its path; whoever asks for it by its name is given the same.
    static LOADED: OnceLock<Option<Library>> = OnceLock::new();
    let kept = LOADED.get_or_init(|| folder.and_then(|folder| vendor::load(folder, &NAMES)));
    // SAFETY: only looks for the library; initialisers of NVIDIA's have no requirements.
    let is_found = (folder.is_none() || kept.is_some()) && unsafe { sys::is_culib_present() };
    if is_found {
        return Ok(());
    }
    let help = "install the CUDA runtime compiler, or name the folder of its library in GRAFT_NVRTC";
    Err(vendor::missing("NVRTC (libnvrtc)", folder, help))
}

/// The version of NVRTC, major and minor.
///
/// # Errors
/// If NVRTC refuses.
pub fn version() -> Result<(i32, i32)> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both point to numbers that outlive the call.
    unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) }
        .result()
        .map_err(|e| failed("version", e))?;
    Ok((major, minor))
}

/// A program, destroyed when it is dropped.
struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program was created and is destroyed once.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

/// The options that every module is compiled with, for an architecture such as `sm_80`.
///
/// The compiler contracts nothing by itself: what is rounded where stands in the sources, as for the host.
pub fn options(module: &Module, arch: &str) -> Vec<String> {
    // Lambdas with `auto` parameters cannot be marked as device functions: all are.
    let given = ["--std=c++20", "--fmad=false", "--ptxas-options=-v", "--device-as-default-execution-space"];
    let mut options: Vec<String> = given.map(Into::into).to_vec();
    options.push(format!("--gpu-architecture={arch}"));
    options.extend(module.options());
    options
}

/// Compiles a module for an architecture such as `sm_80`.
///
/// # Errors
/// If it does not compile; the message holds the compiler's.
pub fn compile(module: &Module, arch: &str) -> Result<Image> {
    let text = |s: &str| CString::new(s).map_err(|e| Error::new(Code::VALUE, e.to_string()));
    let headers: Vec<CString> = module.headers().map(|(_, t)| text(t)).collect::<Result<_>>()?;
    let names: Vec<CString> = module.headers().map(|(name, _)| text(name)).collect::<Result<_>>()?;
    let source = module.source();
    let source = source.ok_or_else(|| Error::new(Code::VALUE, format!("no source is called `{module}`")))?;
    let program = create(&text(source)?, &text(module.path())?, &headers, &names)?;
    let options = options(module, arch);
    // SAFETY: the program was created above and is not destroyed yet.
    let outcome = unsafe { result::compile_program(program.0, &options) };
    // SAFETY: as above.
    let log = unsafe { result::get_program_log(program.0) }.map_err(|e| failed("log", e))?;
    let log = string(&log);
    if let Err(e) = outcome {
        return Err(Error::new(Code::DEVICE, format!("`{module}` does not compile for {arch}: {e}\n{log}")));
    }
    // SAFETY: as above; it has been compiled.
    let ptx = unsafe { result::get_ptx(program.0) }.map_err(|e| failed("PTX", e))?;
    Ok(Image { ptx: string(&ptx), cubin: cubin(&program)?, log })
}

fn create(source: &CStr, name: &CStr, headers: &[CString], names: &[CString]) -> Result<Program> {
    let pointers = |texts: &[CString]| texts.iter().map(|t| t.as_ptr()).collect::<Vec<_>>();
    let (texts, paths) = (pointers(headers), pointers(names));
    let mut program: sys::nvrtcProgram = std::ptr::null_mut();
    // SAFETY: all texts end in zero and outlive the call, which copies them; there are as many paths as texts.
    let outcome = unsafe {
        sys::nvrtcCreateProgram(
            &raw mut program,
            source.as_ptr(),
            name.as_ptr(),
            texts.len() as c_int,
            texts.as_ptr(),
            paths.as_ptr(),
        )
    };
    outcome.result().map_err(|e| failed("program", e))?;
    Ok(Program(program))
}

fn cubin(program: &Program) -> Result<Vec<u8>> {
    let mut size = 0;
    // SAFETY: the program has been compiled; `size` outlives the call.
    unsafe { sys::nvrtcGetCUBINSize(program.0, &raw mut size) }.result().map_err(|e| failed("CUBIN", e))?;
    let mut bytes = vec![0u8; size];
    // SAFETY: the memory is as large as NVRTC says it must be.
    unsafe { sys::nvrtcGetCUBIN(program.0, bytes.as_mut_ptr().cast::<c_char>()) }
        .result()
        .map_err(|e| failed("CUBIN", e))?;
    Ok(bytes)
}

/// A text up to its ending zero.
fn string(chars: &[c_char]) -> String {
    let bytes: Vec<u8> = chars.iter().map(|&c| c.cast_unsigned()).take_while(|&b| b != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn failed(what: &str, error: result::NvrtcError) -> Error {
    Error::new(Code::DEVICE, format!("NVRTC gives no {what}: {error}"))
}

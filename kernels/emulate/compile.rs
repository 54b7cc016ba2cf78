//! Builds emulator programs, each object once.
use graft_kernels::cuda::{FILES, Instance, KERNELS};
use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
};

/// What watches the kernels' memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Sanitizer {
    /// Nothing but margins behind the buffers; fast.
    None,
    /// AddressSanitizer: accesses outside of buffers.
    Address,
    /// ThreadSanitizer: accesses that no barrier orders.
    Thread,
}

/// A fault: in this file, this text becomes that.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Edit {
    /// Path below `kernels`.
    pub file: &'static str,
    /// What must be there.
    pub from: &'static str,
    /// What is put in its place.
    pub to: &'static str,
}

/// A program to be built.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Build {
    /// What the sources are compiled for.
    pub instance: Instance,
    /// What watches.
    pub sanitizer: Sanitizer,
    /// Faults to plant.
    pub edits: Vec<Edit>,
}

/// The emulator's own files.
const OWN: &[(&str, &str)] = &[
    ("emulate/emulate.cc", include_str!("emulate.cc")),
    ("emulate/emulate.h", include_str!("emulate.h")),
    ("emulate/instructions.cc", include_str!("instructions.cc")),
    ("emulate/launch.h", include_str!("launch.h")),
    ("emulate/main.cc", include_str!("main.cc")),
    ("emulate/sanitizer.h", include_str!("sanitizer.h")),
    ("emulate/warp.h", include_str!("warp.h")),
];

/// The host compiler, if this machine has one that the emulator can use: `$CXX`, g++ or clang++, on x86-64 Linux.
pub fn compiler() -> Option<String> {
    let works =
        |name: &String| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success());
    let names = std::env::var("CXX").into_iter().chain(["g++", "clang++"].map(String::from));
    let here = cfg!(all(target_arch = "x86_64", target_os = "linux"));
    names.into_iter().filter(|_| here).find(works)
}

impl Build {
    /// A program of the sources as they are.
    pub fn new(instance: Instance, sanitizer: Sanitizer) -> Build {
        Build { instance, sanitizer, edits: Vec::new() }
    }

    /// The program, built with `compiler` below `folder` unless it lies there.
    ///
    /// # Errors
    /// What the compiler says, as text.
    pub fn program(&self, compiler: &str, folder: &Path) -> Result<PathBuf, String> {
        let files = self.files()?;
        let key = key(&(&files, compiler, self));
        let (home, program) = (folder.join(&key), folder.join(&key).join("program"));
        if program.exists() {
            return Ok(program);
        }
        for (path, text) in &files {
            write(&home.join(path), text)?;
        }
        let mut objects = Vec::new();
        for unit in files.iter().map(|(path, _)| path).filter(|path| path.ends_with(".cc")) {
            let object = folder.join(format!("{}.o", self.object_key(compiler, unit, &files)));
            if !object.exists() {
                self.compile(compiler, &home, unit, &object)?;
            }
            objects.push(object);
        }
        // Others may be building the same: what appears under the final name is always whole.
        let fresh = fresh(&program);
        let mut link = Command::new(compiler);
        run(link.args(&objects).args(self.sanitize()).arg("-o").arg(&fresh))?;
        fs::rename(&fresh, &program).map_err(|e| e.to_string())?;
        Ok(program)
    }

    /// Every file of the program, faults planted.
    fn files(&self) -> Result<Vec<(String, String)>, String> {
        let given = FILES.iter().chain(OWN).map(|&(path, text)| (path.to_string(), text.to_string()));
        let mut files: Vec<_> = given.chain(units()).collect();
        for Edit { file, from, to } in &self.edits {
            let found = files.iter_mut().find(|(path, text)| path == file && text.contains(from));
            let (_, text) = found.ok_or_else(|| format!("`{file}` does not hold `{from}`"))?;
            *text = text.replacen(from, to, 1);
        }
        Ok(files)
    }

    /// What an object depends on. The emulator's own units know of no kernel and no instance.
    fn object_key(&self, compiler: &str, unit: &str, files: &[(String, String)]) -> String {
        let is_own = |path: &str| path.starts_with("emulate/");
        let seen: Vec<_> = files.iter().filter(|(path, _)| !is_own(unit) || is_own(path)).collect();
        let instance = (!is_own(unit)).then_some(self.instance);
        key(&(compiler, self.sanitizer, unit, instance, seen))
    }

    fn compile(&self, compiler: &str, home: &Path, unit: &str, object: &Path) -> Result<(), String> {
        let fresh = fresh(object);
        let mut compile = Command::new(compiler);
        compile.args([
            "-std=c++20",
            "-O1",
            "-g",
            "-Wall",
            "-Wextra",
            "-Wno-unknown-pragmas",
            "-ffp-contract=off",
        ]);
        compile.args(["-fno-omit-frame-pointer", "-I."]).args(self.instance.options());
        compile.args(match self.sanitizer {
            Sanitizer::None => &[][..],
            Sanitizer::Address => &["-DGRAFT_ASAN"],
            Sanitizer::Thread => &["-DGRAFT_TSAN"],
        });
        // The scheduler is never instrumented: it tells the sanitizer what a GPU orders, which is less than it does.
        if unit.starts_with("unit") {
            compile.args(self.sanitize());
        }
        run(compile.current_dir(home).arg("-c").arg(unit).arg("-o").arg(&fresh))?;
        fs::rename(&fresh, object).map_err(|e| e.to_string())
    }

    fn sanitize(&self) -> &'static [&'static str] {
        match self.sanitizer {
            Sanitizer::None => &[],
            Sanitizer::Address => &["-fsanitize=address"],
            Sanitizer::Thread => &["-fsanitize=thread"],
        }
    }
}

/// One unit for each source, and the table of their kernels.
fn units() -> Vec<(String, String)> {
    let mut units = Vec::new();
    let (mut declared, mut gathered) = (String::new(), String::new());
    for (i, source) in KERNELS.iter().enumerate() {
        let entries: String = source.kernels.iter().map(|k| format!("    entry<{k}>(\"{k}\"),\n")).collect();
        let text = format!(
            "#include \"emulate/launch.h\"\n#include \"{}\"\nnamespace graft::emulate {{\nstd::vector<Entry> \
             entries_{i}() {{\n  return {{\n{entries}  }};\n}}\n}}\n",
            source.path
        );
        units.push((format!("unit_{i}.cc"), text));
        declared += &format!("std::vector<Entry> entries_{i}();\n");
        gathered += &format!("  for (Entry& e : entries_{i}()) all.push_back(std::move(e));\n");
    }
    let table = format!(
        "#include \"emulate/launch.h\"\nnamespace graft::emulate {{\n{declared}const std::vector<Entry> ENTRIES = [] \
         {{\n  std::vector<Entry> all;\n{gathered}  return all;\n}}();\n}}\n"
    );
    units.push(("table.cc".into(), table));
    units
}

fn key(of: &impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// A name beside `path` that nobody else has, in this process or another: tests build side by side.
fn fresh(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let nth = COUNT.fetch_add(1, Ordering::Relaxed);
    path.with_extension(format!("{}-{nth}", std::process::id()))
}

/// Writes a file that others may be reading.
fn write(path: &Path, text: &str) -> Result<(), String> {
    let cannot = |e: std::io::Error| format!("cannot write `{}`: {e}", path.display());
    fs::create_dir_all(path.parent().unwrap_or(path)).map_err(cannot)?;
    let fresh = fresh(path);
    fs::write(&fresh, text).map_err(cannot)?;
    fs::rename(&fresh, path).map_err(cannot)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("cannot run {command:?}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}:\n{}", String::from_utf8_lossy(&output.stderr)))
}

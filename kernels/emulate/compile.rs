//! Builds what the emulator runs, each object once: its own program, and a library for each module.
use graft_kernels::cuda::{HEADERS, Module, sources};
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

/// How programs are built.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Toolchain {
    /// The host compiler.
    pub compiler: String,
    /// Where everything that was built is kept.
    pub folder: PathBuf,
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

/// What becomes the module's library: its kernels, and the table of them.
const UNIT: &str = "unit.cc";

/// The host compiler, if there is one.
fn compiler() -> Option<String> {
    let works =
        |name: &String| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success());
    let names = std::env::var("CXX").into_iter().chain(["g++", "clang++"].map(String::from));
    let here = cfg!(all(target_arch = "x86_64", target_os = "linux"));
    names.into_iter().filter(|_| here).find(works)
}

impl Toolchain {
    /// One that builds the sources as they are, below `folder`, if this machine has a compiler that it can use: `$CXX`,
    /// g++ or clang++, on x86-64 Linux.
    pub fn find(folder: &Path, sanitizer: Sanitizer) -> Option<Toolchain> {
        Some(Toolchain { compiler: compiler()?, folder: folder.into(), sanitizer, edits: Vec::new() })
    }

    /// The program that runs jobs.
    ///
    /// # Errors
    /// What the compiler says, as text.
    pub fn program(&self) -> Result<PathBuf, String> {
        let (files, home) = self.lay_out(Vec::new())?;
        self.once(&home.join("program"), |fresh| {
            let mut objects = Vec::new();
            for (unit, _) in files.iter().filter(|(path, _)| path.ends_with(".cc")) {
                let object = home.join(unit).with_extension("o");
                // The scheduler is never instrumented: it tells the sanitizer what a GPU orders, which is less.
                self.once(&object, |fresh| run(self.compile(&home).args(["-c", unit, "-o"]).arg(fresh)))?;
                objects.push(object);
            }
            let mut link = Command::new(&self.compiler);
            run(link.args(&objects).args(self.sanitize()).args(["-rdynamic", "-ldl", "-o"]).arg(fresh))
        })
    }

    /// The library that holds a module's kernels.
    ///
    /// # Errors
    /// What the compiler says, as text; a fault whose text is nowhere in the sources.
    pub fn library(&self, module: &Module) -> Result<PathBuf, String> {
        let source = module.source().ok_or_else(|| format!("no source is called `{module}`"))?;
        let mut files = vec![(module.path().to_string(), source.to_string()), unit(module, source)];
        files.extend(module.headers().map(|(path, text)| (path.to_string(), text.to_string())));
        let (_, home) = self.lay_out(files)?;
        // What differs in the macros only lies side by side.
        let library = home.join(format!("{}.so", key(&module.options())));
        self.once(&library, |fresh| {
            let mut compile = self.compile(&home);
            compile.args(self.sanitize()).args(module.options());
            run(compile.args(["-fPIC", "-fvisibility=hidden", "-shared", UNIT, "-o"]).arg(fresh))
        })
    }

    /// Whether every fault was planted in something that is compiled: in the sources, or in what they include.
    ///
    /// # Errors
    /// The fault that was not.
    pub fn check(&self) -> Result<(), String> {
        let given =
            sources().map(|s| (s.path, s.text)).chain(HEADERS.iter().copied()).chain(OWN.iter().copied());
        let given: Vec<_> = given.collect();
        let holds =
            |edit: &&Edit| given.iter().any(|(path, text)| *path == edit.file && text.contains(edit.from));
        match self.edits.iter().find(|edit| !holds(edit)) {
            Some(Edit { file, from, .. }) => Err(format!("`{file}` does not hold `{from}`")),
            None => Ok(()),
        }
    }

    /// Writes `files` and the emulator's own, faults planted, into a folder that their content names.
    fn lay_out(&self, mut files: Vec<(String, String)>) -> Result<(Vec<(String, String)>, PathBuf), String> {
        self.check()?;
        files.extend(OWN.iter().map(|&(path, text)| (path.to_string(), text.to_string())));
        for Edit { file, from, to } in &self.edits {
            for (_, text) in files.iter_mut().filter(|(path, _)| path == file) {
                *text = text.replacen(from, to, 1);
            }
        }
        let home = self.folder.join(key(&(&files, &self.compiler, self.sanitizer)));
        for (path, text) in files.iter().filter(|(path, _)| !home.join(path).exists()) {
            write(&home.join(path), text)?;
        }
        Ok((files, home))
    }

    /// Makes the file at `path` with `make`, unless it is there. Others may be making the same: what appears under its
    /// name is always whole.
    fn once(&self, path: &Path, make: impl FnOnce(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
        if !path.exists() {
            let fresh = fresh(path);
            make(&fresh)?;
            fs::rename(&fresh, path).map_err(|e| e.to_string())?;
        }
        Ok(path.into())
    }

    fn compile(&self, home: &Path) -> Command {
        let mut compile = Command::new(&self.compiler);
        compile.args([
            "-std=c++20",
            "-O1",
            "-g",
            "-Wall",
            "-Wextra",
            "-Wno-unknown-pragmas",
            "-ffp-contract=off",
        ]);
        compile.args(["-fno-omit-frame-pointer", "-I."]).current_dir(home);
        compile.args(match self.sanitizer {
            Sanitizer::None => &[][..],
            Sanitizer::Address => &["-DGRAFT_ASAN"],
            Sanitizer::Thread => &["-DGRAFT_TSAN"],
        });
        compile
    }

    fn sanitize(&self) -> &'static [&'static str] {
        match self.sanitizer {
            Sanitizer::None => &[],
            Sanitizer::Address => &["-fsanitize=address"],
            Sanitizer::Thread => &["-fsanitize=thread"],
        }
    }
}

/// The unit that includes a module's source and lists its kernels.
fn unit(module: &Module, source: &str) -> (String, String) {
    let entries: String = kernels(source).map(|k| format!("    entry<{k}>(\"{k}\"),\n")).collect();
    let text = format!(
        "#include \"emulate/launch.h\"\n#include \"{}\"\nextern \"C\" \
         __attribute__((visibility(\"default\"))) const graft::emulate::Entries& graft_entries() {{\n  using namespace \
         graft;\n  using namespace graft::emulate;\n  static const Entries entries = {{\n{entries}  }};\n  return entries;\n}}\n",
        module.path()
    );
    (UNIT.into(), text)
}

/// The kernels that a source defines: the name before each list of parameters that follows `__global__`.
fn kernels(source: &str) -> impl Iterator<Item = &str> {
    source.split("__global__").skip(1).filter_map(|after| {
        let after = after.trim_start();
        let after = match after.strip_prefix("__launch_bounds__") {
            Some(bounds) => &bounds[closing(bounds)? + 1..],
            None => after,
        };
        let name = after.trim_start().strip_prefix("void").unwrap_or(after).trim_start();
        // The bounds may stand on either side of the type.
        let name = match name.strip_prefix("__launch_bounds__") {
            Some(bounds) => bounds[closing(bounds)? + 1..].trim_start(),
            None => name,
        };
        name.split_once('(').map(|(name, _)| name.trim())
    })
}

/// Where the parenthesis that opens `text` is closed.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    text.char_indices().find_map(|(at, c)| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        (c == ')' && depth == 0).then_some(at)
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_of_every_source_are_those_that_are_listed() {
        for source in sources() {
            let mut found: Vec<&str> = kernels(source.text).collect();
            found.sort_unstable();
            assert_eq!(found, source.kernels, "{}", source.path);
        }
    }
}

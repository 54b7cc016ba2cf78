//! NVRTC's own output, on a machine without a GPU: every kernel is compiled for every architecture; none spills registers
//! or uses local memory; products of 16-bit elements are made of `mma` and `ldmatrix`. What each one takes stands in
//! `resources.txt`, which `BLESS=1` writes.
use crate::program::skip;
use graft_kernels::cuda::{Element, Module, Source, nvrtc, sources};
use rayon::prelude::*;
use std::{fmt, fs, path::Path};

/// From Ampere to Blackwell.
const ARCHITECTURES: [&str; 6] = ["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"];

/// The version that wrote the table.
const VERSION: (i32, i32) = (12, 9);

/// The most threads that a block of ours has.
const MOST_THREADS: usize = 256;

/// What one kernel takes.
#[derive(PartialEq, Eq, Debug)]
struct Resources {
    kernel: String,
    module: Module,
    /// Whether it has to use tensor cores.
    must_multiply: bool,
    arch: &'static str,
    registers: usize,
    /// Bytes of local memory: stack, and spilled registers.
    local: usize,
    mma: usize,
    ldmatrix: usize,
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Resources { kernel, module, arch, registers, mma, ldmatrix, .. } = self;
        let name = format!("{kernel} {module}");
        write!(f, "{name:<60} {arch:<7} {registers:>3} registers {mma:>3} mma {ldmatrix:>3} ldmatrix")
    }
}

/// The number before `unit` in `line`.
fn before(line: &str, unit: &str) -> usize {
    let words = line.split_once(unit).map(|(left, _)| left.trim_end());
    words.and_then(|w| w.rsplit([' ', ',']).next()?.parse().ok()).unwrap_or(0)
}

/// The text of one entry in the PTX.
fn body<'a>(ptx: &'a str, kernel: &str) -> &'a str {
    let from = ptx.split_once(&format!(".entry {kernel}(")).map_or("", |(_, rest)| rest);
    from.split_once("\n}").map_or("", |(body, _)| body)
}

/// What the assembler says of each kernel of a source.
fn resources(source: &Source, module: &Module, arch: &'static str) -> Vec<Resources> {
    let image = nvrtc::compile(module, arch).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(image.cubin.get(..4), Some(&b"\x7fELF"[..]), "machine code is an ELF file");
    let is_f32 = module.defines.iter().any(|(_, value)| *value == Element::F32.name());
    let one = |kernel: &&str| {
        let named = format!("Compiling entry function '{kernel}'");
        let said = image.log.split(&named).nth(1).unwrap_or_else(|| panic!("no word of {kernel}"));
        let said = said.split("Compiling entry function").next().unwrap_or(said);
        let local = ["bytes stack frame", "bytes spill stores", "bytes spill loads"];
        let ptx = body(&image.ptx, kernel);
        Resources {
            kernel: kernel.to_string(),
            module: module.clone(),
            must_multiply: source.products.contains(kernel) && !is_f32,
            arch,
            registers: before(said, "registers"),
            local: local.map(|unit| before(said, unit)).iter().sum::<usize>() + ptx.matches(".local").count(),
            mma: ptx.matches("mma.sync").count(),
            ldmatrix: ptx.matches("ldmatrix.sync").count(),
        }
    };
    source.kernels.iter().map(one).collect()
}

/// What no version of the compiler may change.
fn judge(r: &Resources) -> Option<String> {
    let problems = [
        (r.registers == 0, "nothing is known of its registers"),
        (r.local > 0, "registers are spilled"),
        // 64 Ki registers for each multiprocessor.
        (r.registers * MOST_THREADS > 65_536, "a block takes more registers than there are"),
        (r.must_multiply != (r.mma > 0 && r.ldmatrix > 0), "tensor cores"),
    ];
    problems.into_iter().find(|(wrong, _)| *wrong).map(|(_, what)| format!("{r}: {what}"))
}

#[test]
fn every_kernel_compiles_for_every_architecture() {
    let folder = std::env::var_os("GRAFT_NVRTC");
    if let Err(e) = nvrtc::find(folder.as_deref().map(Path::new)) {
        assert!(folder.is_none(), "GRAFT_NVRTC is set, but {e}");
        return skip(&format!("{e}: no kernel is compiled for a GPU"));
    }
    let mut jobs: Vec<(&Source, Module, &str)> = Vec::new();
    for source in sources() {
        for module in (source.modules)(Module::file(source.path)) {
            jobs.extend(ARCHITECTURES.map(|arch| (source, module.clone(), arch)));
        }
    }
    let all: Vec<Resources> = jobs.into_par_iter().flat_map(|(s, m, a)| resources(s, &m, a)).collect();
    let problems: Vec<String> = all.iter().filter_map(judge).collect();
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));

    let version = nvrtc::version().expect("NVRTC has a version");
    if version != VERSION {
        return skip(&format!("the table of resources is NVRTC {VERSION:?}'s, this is {version:?}"));
    }
    let lines: String = all.iter().map(|r| format!("{r}\n")).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda/resources.txt");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &lines).expect("the table is written");
    }
    let table = fs::read_to_string(&path).unwrap_or_default();
    let differ = lines.lines().filter(|l| !table.lines().any(|t| t == *l)).collect::<Vec<_>>();
    assert!(lines == table, "not as in `resources.txt` (BLESS=1 writes it):\n{}", differ.join("\n"));
}

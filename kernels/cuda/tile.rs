//! How large products are cut: the tiles that kernels are compiled for, and which of them a product takes; and where a
//! library does it instead. A table of measurements decides where it has the product; else a model of what a
//! multiprocessor does in a cycle, which never takes the library.
use super::{Element, Library, Target, Tile};
use graft_ir::{Code, Error, Result};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// The tiles of large products that sources are compiled for: small products, large ones, and large ones on devices with
/// much shared memory. A warp of a large one has 64 × 64 sums: with fewer it waits for shared memory.
pub const TILES: &[Tile] = &[
    Tile { m: 64, n: 64, k: 32, warps: [2, 2], stages: 3 },
    Tile { m: 128, n: 128, k: 32, warps: [2, 2], stages: 4 },
    Tile { m: 128, n: 128, k: 64, warps: [2, 2], stages: 3 },
];

/// What is measured by `graft bench --tune`, committed.
const MEASURED: &str = include_str!("tiles.txt");

/// A kind of product: architecture, element type, and rows, columns and depth, each rounded up to a power of two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Class {
    arch: (u32, u32),
    element: Element,
    sizes: [usize; 3],
}

impl Class {
    /// That of a product of (rows, cols, depth) on a device of this architecture.
    pub fn new(arch: (u32, u32), element: Element, sizes: [usize; 3]) -> Class {
        Class { arch, element, sizes: sizes.map(usize::next_power_of_two) }
    }
}

impl fmt::Display for Class {
    /// `8.0 bf16 8192 4096 4096`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Class { arch, element, sizes: [m, n, k] } = self;
        write!(f, "{}.{} {} {m} {n} {k}", arch.0, arch.1, element.name())
    }
}

/// What a kind of product was measured to be done the fastest by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fastest {
    /// The number of the fastest tile in [`TILES`].
    pub tile: usize,
    /// Whether the library is faster still.
    pub is_library: bool,
}

/// What each kind of product that was measured is done the fastest by.
///
/// As text, a line for each, with the number of the tile: `8.0 bf16 8192 4096 4096 1`; where the library is faster still,
/// `cublaslt` ends it. Lines that begin with `#` are comments.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Table(BTreeMap<Class, Fastest>);

/// The library's name in a table.
const LIBRARY: &str = "cublaslt";

impl Table {
    /// The committed table.
    ///
    /// # Errors
    /// `VALUE` if a line is not as it should be; a test holds that to be so for none.
    pub fn committed() -> Result<Table> {
        MEASURED.parse()
    }
    /// The tile for a kind of product, if it was measured.
    pub fn get(&self, class: &Class) -> Option<Tile> {
        self.0.get(class).and_then(|fastest| TILES.get(fastest.tile)).copied()
    }
    /// Whether the library was measured to be faster for a kind of product than every tile.
    pub fn prefers_library(&self, class: &Class) -> bool {
        self.0.get(class).is_some_and(|fastest| fastest.is_library)
    }
    /// Whether it says so of any kind of product on this architecture.
    pub fn names_library(&self, arch: (u32, u32)) -> bool {
        self.0.iter().any(|(class, fastest)| class.arch == arch && fastest.is_library)
    }
    /// Notes what is the fastest.
    pub fn insert(&mut self, class: Class, fastest: Fastest) {
        self.0.insert(class, fastest);
    }
    /// Takes what another table has over this one's.
    pub fn extend(&mut self, other: Table) {
        self.0.extend(other.0);
    }
}

impl FromStr for Table {
    type Err = Error;
    fn from_str(text: &str) -> Result<Table> {
        let mut table = Table::default();
        for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.starts_with('#') && !l.trim().is_empty())
        {
            let wrong = || {
                Error::new(Code::VALUE, format!("`{line}` is no line of a table of tiles"))
                    .at(format!("line {}", i + 1))
            };
            let (class, fastest) = entry(line).ok_or_else(wrong)?;
            table.insert(class, fastest);
        }
        Ok(table)
    }
}

fn entry(line: &str) -> Option<(Class, Fastest)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (words, is_library) = match words.strip_suffix(&[LIBRARY]) {
        Some(words) => (words, true),
        None => (&words[..], false),
    };
    let [arch, element, m, n, k, tile] = *words else { return None };
    let (major, minor) = arch.split_once('.')?;
    let element = [Element::Bf16, Element::F16, Element::F32].into_iter().find(|e| e.name() == element)?;
    let sizes = [m.parse().ok()?, n.parse().ok()?, k.parse().ok()?];
    let tile = tile.parse().ok().filter(|&i| i < TILES.len())?;
    let class = Class::new((major.parse().ok()?, minor.parse().ok()?), element, sizes);
    Some((class, Fastest { tile, is_library }))
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(class, Fastest { tile, is_library })| {
            let library = if *is_library { format!(" {LIBRARY}") } else { String::new() };
            writeln!(f, "{class} {tile}{library}")
        })
    }
}

/// The tile for a product of (rows, cols, depth).
pub(super) fn choose(target: Target, sizes: [usize; 3], element: Element) -> Tile {
    if let Some(tile) = target.tile {
        return tile;
    }
    let class = Class::new(target.arch, element, sizes);
    let measured = target.measured.and_then(|table| table.get(&class));
    let cycles = |tile: &&Tile| cycles(**tile, target, sizes, element);
    // The sums of large tiles of single precision, some kernels' operands beside them, do not fit into registers.
    let tiles = if element == Element::F32 { &TILES[..1] } else { TILES };
    let fitting = tiles.iter().filter(|tile| tile.most_shared(element) <= target.shared);
    measured.or_else(|| fitting.min_by_key(cycles).copied()).unwrap_or(TILES[0])
}

/// Whether the library does a product of (rows, cols, depth).
pub(super) fn takes_library(target: Target, sizes: [usize; 3], element: Element) -> bool {
    let class = Class::new(target.arch, element, sizes);
    match target.library {
        Library::Absent => false,
        Library::Measured => target.measured.is_some_and(|table| table.prefers_library(&class)),
        Library::Always => true,
    }
}

/// Cycles that a product takes, if every multiprocessor gets its share of the blocks, one after the other.
///
/// In a cycle a multiprocessor multiplies and adds 1024 pairs of 16-bit numbers or 64 of single precision (what
/// NVIDIA's white papers say of A100), reads 128 bytes of shared memory and about 64 of its L2 cache; a block spends about
/// 1500 before its first product and after its last, and 50 between panels.
fn cycles(tile: Tile, target: Target, [m, n, k]: [usize; 3], element: Element) -> usize {
    let (products, shared, cached, overhead, turn) =
        (if element == Element::F32 { 64 } else { 1024 }, 128, 64, 1500, 50);
    let warps = tile.warps[0] * tile.warps[1];
    let fragments = warps * (tile.m / tile.warps[0] + tile.n / tile.warps[1]) * element.bytes();
    let panels = (tile.m + tile.n) * element.bytes();
    let step =
        (tile.m * tile.n).div_ceil(products).max(fragments.div_ceil(shared)).max(panels.div_ceil(cached));
    let blocks = m.div_ceil(tile.m) * n.div_ceil(tile.n);
    blocks.div_ceil(target.multiprocessors.max(1)) * (k.div_ceil(tile.k) * (tile.k * step + turn) + overhead)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(target: Target, sizes: [usize; 3]) -> Tile {
        choose(target, sizes, Element::Bf16)
    }

    #[test]
    fn large_products_take_large_tiles_and_small_ones_fill_the_device() {
        let target = Target::default();
        assert_eq!(chosen(target, [8192, 4096, 4096]), TILES[2]);
        assert_eq!(chosen(Target { shared: 99 << 10, ..target }, [8192, 4096, 4096]), TILES[1]);
        assert_eq!(chosen(target, [512, 768, 768]), TILES[0]);
        // One multiprocessor has nothing to share.
        assert_eq!(chosen(Target { multiprocessors: 1, ..target }, [512, 768, 768]), TILES[2]);
        assert_eq!(choose(target, [8192, 4096, 4096], Element::F32), TILES[0]);
    }

    #[test]
    fn what_was_measured_and_what_is_wished_come_first() {
        let mut table = Table::default();
        let fastest = Fastest { tile: 0, is_library: false };
        table.insert(Class::new((8, 0), Element::Bf16, [8000, 4096, 4000]), fastest);
        let measured: &'static Table = Box::leak(Box::new(table));
        let target = Target { measured: Some(measured), ..Target::default() };
        assert_eq!(chosen(target, [8192, 4096, 4096]), TILES[0]);
        assert_eq!(chosen(Target { arch: (9, 0), ..target }, [8192, 4096, 4096]), TILES[2]);
        assert_eq!(chosen(Target { tile: Some(TILES[1]), ..target }, [8192, 4096, 4096]), TILES[1]);
    }

    #[test]
    fn the_library_is_taken_where_it_is_and_was_measured_to_be_faster() {
        let table: Table = "8.0 bf16 8192 4096 4096 0 cublaslt\n".parse().expect("a table");
        assert!(table.names_library((8, 0)) && !table.names_library((9, 0)));
        let measured: &'static Table = Box::leak(Box::new(table));
        let target = Target { measured: Some(measured), ..Target::default() };
        let taken = |library, sizes| takes_library(Target { library, ..target }, sizes, Element::Bf16);
        let (large, small) = ([8000, 4096, 4000], [512, 768, 768]);
        assert!(taken(Library::Measured, large) && !taken(Library::Measured, small));
        assert!(taken(Library::Always, large) && taken(Library::Always, small));
        // Without the library the product has the fastest tile, not what a model thinks of.
        assert!(!taken(Library::Absent, large));
        assert_eq!(chosen(target, large), TILES[0]);
    }

    #[test]
    fn tables_are_texts() {
        let lines = "8.0 bf16 8192 4096 4096 1\n9.0 bf16 64 64 64 0 cublaslt\n9.0 float 64 64 128 0\n";
        let text = format!("# measured on nothing\n{lines}");
        let table: Table = text.parse().expect("a table");
        assert_eq!(format!("# measured on nothing\n{table}"), text);
        let wrong = ["8 bf16 1 1 1 0", "8.0 bf16 1 1 1 9", "8.0 half 1 1 1 0", "8.0 bf16 1 1 1"];
        for wrong in wrong.into_iter().chain(["8.0 bf16 1 1 1 cublaslt", "8.0 bf16 1 1 1 0 cublas"]) {
            let error = wrong.parse::<Table>().expect_err("no table");
            assert_eq!(error.code, Code::VALUE);
        }
        Table::committed().expect("the committed table can be read");
    }
}

//! What was measured of large products: the times of each kind with each tile and with the library, and the table that
//! follows from them.
use super::{Class, Fastest, Table};
use std::{collections::BTreeMap, fmt, time::Duration};

/// The times of one kind of product, summed over the steps that have it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Times {
    tiles: Vec<Duration>,
    /// With the library, and, in steps where it serves nothing, with the fastest tile.
    library: Duration,
    is_served: bool,
}

/// The times of all kinds of products that were measured.
///
/// As text, a line for each, which is a comment in a table: `# 9.0 bf16 8192 4096 4096: tile 0 1.250 ms, tile 1 0.810 ms,
/// cuBLASLt 0.530 ms`.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Measurements(BTreeMap<Class, Times>);

impl Measurements {
    /// Notes the times of a step that has products of this kind: with each tile, by number, and with the library where that
    /// serves a product of the step.
    pub fn add(&mut self, class: Class, tiles: &[Duration], library: Option<Duration>) {
        let none =
            Times { tiles: vec![Duration::ZERO; tiles.len()], library: Duration::ZERO, is_served: false };
        let times = self.0.entry(class).or_insert(none);
        times.tiles.iter_mut().zip(tiles).for_each(|(sum, time)| *sum += *time);
        times.library += library.or(tiles.iter().min().copied()).unwrap_or_default();
        times.is_served |= library.is_some();
    }
    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// What is the fastest.
    pub fn table(&self) -> Table {
        let mut table = Table::default();
        for (&class, Times { tiles, library, is_served }) in &self.0 {
            let fastest = (0..tiles.len()).min_by_key(|&i| tiles[i]);
            let Some(tile) = fastest else { continue };
            table.insert(class, Fastest { tile, is_library: *is_served && *library < tiles[tile] });
        }
        table
    }
}

impl fmt::Display for Measurements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: &Duration| format!("{:.3} ms", time.as_secs_f64() * 1e3);
        self.0.iter().try_for_each(|(class, times)| {
            let tiles = times.tiles.iter().enumerate().map(|(i, time)| format!("tile {i} {}", ms(time)));
            let library = times.is_served.then(|| format!("cuBLASLt {}", ms(&times.library)));
            writeln!(f, "# {class}: {}", tiles.chain(library).collect::<Vec<_>>().join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::Element;

    #[test]
    fn the_fastest_over_all_steps_of_a_kind_is_taken() {
        let us = Duration::from_micros;
        let class = |rows| Class::new((9, 0), Element::Bf16, [rows, 64, 64]);
        let mut found = Measurements::default();
        // The first tile is the fastest in one step, the second in the sum; the library serves the one step only.
        found.add(class(512), &[us(100), us(110)], Some(us(80)));
        found.add(class(512), &[us(900), us(500)], None);
        found.add(class(1024), &[us(100), us(200)], Some(us(101)));
        found.add(class(2048), &[us(100), us(200)], None);
        let table = "9.0 bf16 512 64 64 1 cublaslt\n9.0 bf16 1024 64 64 0\n9.0 bf16 2048 64 64 0\n";
        assert_eq!(found.table().to_string(), table);
        let said = found.to_string();
        let first = "# 9.0 bf16 512 64 64: tile 0 1.000 ms, tile 1 0.610 ms, cuBLASLt 0.580 ms";
        assert_eq!(said.lines().next(), Some(first));
        assert_eq!(said.lines().last(), Some("# 9.0 bf16 2048 64 64: tile 0 0.100 ms, tile 1 0.200 ms"));
        assert_eq!(format!("{said}{table}").parse::<Table>().expect("a table"), found.table());
    }
}

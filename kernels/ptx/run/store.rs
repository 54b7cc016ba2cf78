//! Stores: at once where all lanes are in one piece of memory, else lane by lane.
use super::{
    access::{World, by_space, together, wrong},
    row::{WideRow, lanes, map},
    warp::{Stop, Warp},
    windows,
};
use crate::{
    memory::Violation,
    program::{Access, Place},
    syntax::Space,
};

impl Warp<'_> {
    #[inline(always)]
    pub(crate) fn store(&mut self, access: &Access, mask: u32, world: &mut World<'_>) -> Result<(), Stop> {
        let addresses = self.registers.address(access.address);
        match access.space {
            Some(space) => self.store_to(space, access, &addresses, mask, world),
            None => by_space(&addresses, mask).into_iter().filter(|part| part.1 != 0).try_for_each(
                |(space, mask, addresses)| self.store_to(space, access, &addresses, mask, world),
            ),
        }
    }

    #[inline(always)]
    fn store_to(
        &mut self,
        space: Space,
        access: &Access,
        addresses: &WideRow,
        mask: u32,
        world: &mut World<'_>,
    ) -> Result<(), Stop> {
        let n = access.values.len();
        let mut values = [[0; 32]; 4];
        for (row, &place) in values.iter_mut().zip(&access.values) {
            match place {
                Place::R(r) => *row = map(self.registers.r(r), u64::from),
                Place::W(w) => *row = *self.registers.w(w),
                Place::None => {}
            }
        }
        match access.bytes {
            1 => self.scatter::<1>(space, &values[..n], addresses, mask, world),
            2 => self.scatter::<2>(space, &values[..n], addresses, mask, world),
            4 => self.scatter::<4>(space, &values[..n], addresses, mask, world),
            _ => self.scatter::<8>(space, &values[..n], addresses, mask, world),
        }
    }

    /// Stores values of `N` bytes.
    #[inline(always)]
    fn scatter<const N: usize>(
        &mut self,
        space: Space,
        values: &[WideRow],
        addresses: &WideRow,
        mask: u32,
        world: &mut World<'_>,
    ) -> Result<(), Stop> {
        match space {
            Space::Shared => scatter_shared::<N>(values, addresses, mask, world),
            Space::Local => lanes(mask).try_for_each(|lane| {
                let at = self.local_at(lane, "store", addresses[lane], N * values.len())?;
                let to = self.local[at..].chunks_exact_mut(N);
                to.zip(values).for_each(|(to, row)| to.copy_from_slice(&row[lane].to_le_bytes()[..N]));
                Ok(())
            }),
            _ => scatter_global::<N>(values, addresses, mask, world),
        }
    }
}

#[inline(always)]
fn scatter_shared<const N: usize>(
    values: &[WideRow],
    addresses: &WideRow,
    mask: u32,
    world: &mut World<'_>,
) -> Result<(), Stop> {
    let whole = N * values.len();
    let Some(inside) = together(addresses, mask, windows::SPACE, world.shared.len(), whole) else {
        return lanes(mask)
            .try_for_each(|lane| world.shared_at(lane, "store", addresses[lane], whole).map(drop));
    };
    let elements = world.shared.as_chunks_mut::<N>().0;
    for lane in lanes(mask) {
        for (v, row) in values.iter().enumerate() {
            elements[inside[lane] as usize / N + v].copy_from_slice(&row[lane].to_le_bytes()[..N]);
        }
    }
    Ok(())
}

#[inline(always)]
fn scatter_global<const N: usize>(
    values: &[WideRow],
    addresses: &WideRow,
    mask: u32,
    world: &mut World<'_>,
) -> Result<(), Stop> {
    let whole = N * values.len();
    world.statistics.stored += u64::from(mask.count_ones()) * whole as u64;
    let first = addresses[mask.trailing_zeros() as usize & 31];
    if let Ok((allocation, _)) = world.global(first, whole)
        && !allocation.is_read_only()
        && let Some(inside) = together(addresses, mask, allocation.start, allocation.bytes, whole)
    {
        for lane in lanes(mask) {
            for (v, row) in values.iter().enumerate() {
                allocation.store(inside[lane] as usize + v * N, N, row[lane]);
            }
        }
        return Ok(());
    }
    for lane in lanes(mask) {
        let failed = |v| wrong(lane, "global store", whole, addresses[lane], v);
        let (allocation, at) = world.global(addresses[lane], whole).map_err(failed)?;
        if allocation.is_read_only() {
            return Err(failed(Violation::ReadOnly));
        }
        for (v, row) in values.iter().enumerate() {
            allocation.store(at + v * N, N, row[lane]);
        }
    }
    Ok(())
}

//! Loads: at once where all lanes are in one piece of memory, else lane by lane.
use super::{
    access::{World, by_space, from_bytes, together, wrong},
    row::{Row, WideRow, lanes, map},
    warp::{Stop, Warp},
    windows,
};
use crate::{
    memory::{Allocation, Violation},
    program::{Access, Place, R, W},
    syntax::Space,
};

impl Warp<'_> {
    #[inline(always)]
    pub(crate) fn load(&mut self, access: &Access, mask: u32, world: &mut World<'_>) -> Result<(), Stop> {
        let addresses = self.registers.address(access.address);
        match access.space {
            Some(space) => self.load_from(space, access, &addresses, mask, world),
            None => by_space(&addresses, mask).into_iter().filter(|part| part.1 != 0).try_for_each(
                |(space, mask, addresses)| self.load_from(space, access, &addresses, mask, world),
            ),
        }
    }

    #[inline(always)]
    fn load_from(
        &mut self,
        space: Space,
        access: &Access,
        addresses: &WideRow,
        mask: u32,
        world: &mut World<'_>,
    ) -> Result<(), Stop> {
        match access.bytes {
            1 => self.gather::<1>(space, access, addresses, mask, world),
            2 => self.gather::<2>(space, access, addresses, mask, world),
            4 => self.gather::<4>(space, access, addresses, mask, world),
            _ => self.gather::<8>(space, access, addresses, mask, world),
        }
    }

    /// Loads values of `N` bytes: at once where all lanes are in one piece of memory, else lane by lane.
    #[inline(always)]
    fn gather<const N: usize>(
        &mut self,
        space: Space,
        access: &Access,
        addresses: &WideRow,
        mask: u32,
        world: &mut World<'_>,
    ) -> Result<(), Stop> {
        let whole = N * access.values.len();
        if space == Space::Global {
            world.statistics.loaded += u64::from(mask.count_ones()) * whole as u64;
        }
        if let Some(piece) = Piece::of(space, addresses, mask, whole, world)
            && piece.is_written(whole)
        {
            for (v, &place) in access.values.iter().enumerate() {
                match place {
                    Place::R(r) if N <= 4 => {
                        let values = piece.values::<N, u32>(v, |x| x as u32);
                        self.deliver_r(access, r, mask, &values);
                    }
                    Place::W(w) => self.deliver_w(access, w, mask, &piece.values::<N, u64>(v, |x| x)),
                    _ => {}
                }
            }
            return Ok(());
        }
        let loaded = self.gather_slowly(space, [access.values.len(), N], addresses, mask, world)?;
        for (&place, values) in access.values.iter().zip(&loaded) {
            match place {
                Place::R(r) => self.deliver_r(access, r, mask, &map(values, |x| x as u32)),
                Place::W(w) => self.deliver_w(access, w, mask, values),
                Place::None => {}
            }
        }
        Ok(())
    }

    /// Extends what was loaded and writes it to a register.
    #[inline(always)]
    fn deliver_r(&mut self, access: &Access, to: R, mask: u32, values: &Row) {
        let shift = 32u32.saturating_sub(8 * u32::from(access.bytes));
        let cut = if access.cut16 { 0xffff } else { u32::MAX };
        if access.signed {
            let extend = |v: u32| ((v << shift).cast_signed() >> shift).cast_unsigned() & cut;
            self.registers.set_r(to, mask, &map(values, extend));
        } else {
            self.registers.set_r(to, mask, values);
        }
    }
    #[inline(always)]
    fn deliver_w(&mut self, access: &Access, to: W, mask: u32, values: &WideRow) {
        let shift = 64 - 8 * u32::from(access.bytes);
        if access.signed {
            let extend = |v: u64| ((v << shift).cast_signed() >> shift).cast_unsigned();
            self.registers.set_w(to, mask, &map(values, extend));
        } else {
            self.registers.set_w(to, mask, values);
        }
    }

    /// So many values of so many bytes, lane by lane; what is wrong is found here.
    #[inline(never)]
    fn gather_slowly(
        &self,
        space: Space,
        [n, bytes]: [usize; 2],
        addresses: &WideRow,
        mask: u32,
        world: &World<'_>,
    ) -> Result<[WideRow; 4], Stop> {
        let mut loaded = [[0; 32]; 4];
        for lane in lanes(mask) {
            let address = addresses[lane];
            let mut memory = [0; 32];
            let memory = &mut memory[..bytes * n];
            match space {
                Space::Shared => {
                    let at = world.shared_at(lane, "load", address, memory.len())?;
                    memory.copy_from_slice(&world.shared[at..at + memory.len()]);
                }
                Space::Local => {
                    let at = self.local_at(lane, "load", address, memory.len())?;
                    memory.copy_from_slice(&self.local[at..at + memory.len()]);
                }
                _ => world.read(lane, address, bytes, memory)?,
            }
            for (row, bytes) in loaded.iter_mut().zip(memory.chunks_exact(bytes)) {
                row[lane] = from_bytes(bytes);
            }
        }
        Ok(loaded)
    }
}

/// The piece of memory that all lanes of a load are in, and where in it.
enum Piece<'m> {
    Shared(&'m [u8], WideRow),
    Global(&'m Allocation, WideRow),
}

impl<'m> Piece<'m> {
    /// `None` where lanes may be in several.
    #[inline(always)]
    fn of(
        space: Space,
        addresses: &WideRow,
        mask: u32,
        bytes: usize,
        world: &'m World<'_>,
    ) -> Option<Piece<'m>> {
        match space {
            Space::Shared => {
                let inside = together(addresses, mask, windows::SPACE, world.shared.len(), bytes)?;
                Some(Piece::Shared(&world.shared, inside))
            }
            Space::Global => {
                let first = addresses[mask.trailing_zeros() as usize & 31];
                let (allocation, _) = world.global(first, bytes).ok()?;
                let inside = together(addresses, mask, allocation.start, allocation.bytes, bytes)?;
                Some(Piece::Global(allocation, inside))
            }
            _ => None,
        }
    }
    /// Whether somebody has written everything that is read.
    #[inline(always)]
    fn is_written(&self, bytes: usize) -> bool {
        match self {
            Piece::Shared(..) => true,
            Piece::Global(allocation, inside) => allocation.are_written(inside, bytes),
        }
    }
    /// The value number `v` of each lane.
    #[inline(always)]
    fn values<const N: usize, T: Copy + Default>(&self, v: usize, f: impl Fn(u64) -> T) -> [T; 32] {
        match self {
            Piece::Shared(memory, inside) => {
                let elements = memory.as_chunks::<N>().0;
                map(inside, |at| f(from_bytes(&elements[at as usize / N + v])))
            }
            Piece::Global(allocation, inside) => {
                map(inside, |at| f(allocation.load(at as usize + v * N, N).0))
            }
        }
    }
}

impl World<'_> {
    /// Reads a lane's values, of so many bytes each, from global memory.
    fn read(&self, lane: usize, address: u64, bytes: usize, to: &mut [u8]) -> Result<(), Stop> {
        let whole = to.len();
        let failed = |v| wrong(lane, "global load", whole, address, v);
        let (allocation, at) = self.global(address, whole).map_err(failed)?;
        for (v, to) in to.chunks_exact_mut(bytes).enumerate() {
            let (value, is_written) = allocation.load(at + v * bytes, bytes);
            if !is_written {
                return Err(failed(Violation::Uninitialised));
            }
            to.copy_from_slice(&value.to_le_bytes()[..bytes]);
        }
        Ok(())
    }
}

//! Loads and stores, and what they are checked for.
use super::{
    row::{WideRow, lanes},
    warp::{Stop, Warp},
    windows,
};
use crate::{
    launch::Statistics,
    memory::{Allocation, Memory, Violation},
    program::{Access, Place},
    syntax::Space,
};

/// What a warp reaches besides its registers.
pub(crate) struct World<'m> {
    pub(crate) memory: &'m Memory,
    /// The module's variables.
    pub(crate) statics: &'m Allocation,
    /// The block's shared memory.
    pub(crate) shared: Vec<u8>,
    pub(crate) statistics: Statistics,
}

/// What is wrong at an address.
fn wrong(lane: usize, what: &str, bytes: usize, address: u64, why: impl std::fmt::Display) -> Stop {
    Stop::new(lane, format!("{what} of {bytes} bytes at {address:#x}: {why}"))
}

/// Where an access to a piece of memory lies that begins at `windows::SPACE` of its space.
fn inside(address: u64, bytes: usize, size: usize) -> Result<usize, String> {
    if !address.is_multiple_of(bytes as u64) {
        return Err("misaligned".into());
    }
    let at = address.wrapping_sub(windows::SPACE);
    if at >= size as u64 || at as usize + bytes > size {
        return Err(format!("outside of its {size} bytes, which begin at {:#x}", windows::SPACE));
    }
    Ok(at as usize)
}

fn from_bytes(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

impl World<'_> {
    /// The allocation that an access of so many bytes lies in, and where in it.
    #[inline(always)]
    fn global(&self, address: u64, bytes: usize) -> Result<(&Allocation, usize), Violation> {
        if !address.is_multiple_of(bytes as u64) {
            return Err(Violation::Misaligned);
        }
        let is_static = address.wrapping_sub(windows::STATICS) < self.statics.bytes as u64;
        let found = if is_static { Some(self.statics) } else { self.memory.find(address) };
        let allocation = found.ok_or_else(|| self.memory.outside(address))?;
        Ok((allocation, allocation.check(address, bytes)?))
    }

    /// Where in shared memory an access lies.
    pub(crate) fn shared_at(
        &self,
        lane: usize,
        what: &str,
        address: u64,
        bytes: usize,
    ) -> Result<usize, Stop> {
        inside(address, bytes, self.shared.len())
            .map_err(|why| wrong(lane, &format!("shared {what}"), bytes, address, why))
    }

    /// Checks the addresses of an asynchronous copy; its destination is NaN until it lands.
    pub(crate) fn begin_copy(
        &mut self,
        lane: usize,
        to: u64,
        from: u64,
        bytes: usize,
        read: usize,
    ) -> Result<(), Stop> {
        let at = self.shared_at(lane, "destination of cp.async", to, bytes)?;
        self.shared[at..at + bytes].fill(0xff);
        self.statistics.loaded += read as u64;
        if !from.is_multiple_of(bytes as u64) {
            return Err(wrong(lane, "global source of cp.async", bytes, from, Violation::Misaligned));
        }
        if read == 0 {
            return Ok(());
        }
        let last = self.global(from, 1).and_then(|(a, _)| a.check(from, read));
        last.map(drop).map_err(|v| wrong(lane, "global source of cp.async", read, from, v))
    }
    /// Lands an asynchronous copy: `read` bytes, and zeros.
    pub(crate) fn land(
        &mut self,
        lane: usize,
        to: u64,
        from: u64,
        bytes: usize,
        read: usize,
    ) -> Result<(), Stop> {
        let at = self.shared_at(lane, "destination of cp.async", to, bytes)?;
        let mut content = [0; 16];
        let mut done = 0;
        while done < read {
            let n = if read - done >= 8 { 8 } else { 1 };
            let address = from + done as u64;
            let failed = |v| wrong(lane, "global source of cp.async", read, from, v);
            let (allocation, source) = self.global(address, n).map_err(failed)?;
            let (value, is_written) = allocation.load(source, n);
            if !is_written {
                return Err(failed(Violation::Uninitialised));
            }
            content[done..done + n].copy_from_slice(&value.to_le_bytes()[..n]);
            done += n;
        }
        self.shared[at..at + bytes].copy_from_slice(&content[..bytes]);
        Ok(())
    }
}

/// The space of a generic address, and the address in it.
fn resolve(address: u64) -> (Space, u64) {
    let within = |window: u64| address.wrapping_sub(window) < windows::EXTENT;
    if within(windows::SHARED) {
        (Space::Shared, address - windows::SHARED)
    } else if within(windows::LOCAL) {
        (Space::Local, address - windows::LOCAL)
    } else {
        (Space::Global, address)
    }
}

/// Splits lanes with generic addresses by the space that these lie in.
fn by_space(addresses: &WideRow, mask: u32) -> [(Space, u32, WideRow); 3] {
    [Space::Global, Space::Shared, Space::Local].map(|space| {
        let mut own = *addresses;
        let mut chosen = 0;
        for lane in lanes(mask) {
            let (of, address) = resolve(addresses[lane]);
            if of == space {
                (own[lane], chosen) = (address, chosen | 1 << lane);
            }
        }
        (space, chosen, own)
    })
}

impl Warp<'_> {
    pub(crate) fn load(&mut self, access: &Access, mask: u32, world: &mut World<'_>) -> Result<(), Stop> {
        let addresses = self.registers.address(access.address);
        match access.space {
            Some(space) => self.load_from(space, access, &addresses, mask, world),
            None => by_space(&addresses, mask).into_iter().filter(|part| part.1 != 0).try_for_each(
                |(space, mask, addresses)| self.load_from(space, access, &addresses, mask, world),
            ),
        }
    }

    fn load_from(
        &mut self,
        space: Space,
        access: &Access,
        addresses: &WideRow,
        mask: u32,
        world: &mut World<'_>,
    ) -> Result<(), Stop> {
        let n = access.values.len();
        let mut loaded = [[0; 32]; 4];
        match space {
            Space::Shared => self.gather_shared(access, addresses, mask, world, &mut loaded[..n])?,
            Space::Local => self.gather_local(access, addresses, mask, &mut loaded[..n])?,
            _ => gather_global(access, addresses, mask, world, &mut loaded[..n])?,
        }
        for (&place, values) in access.values.iter().zip(&loaded) {
            self.deliver(access, place, mask, values);
        }
        Ok(())
    }

    /// Extends what was loaded and writes it to a register.
    #[inline(always)]
    fn deliver(&mut self, access: &Access, place: Place, mask: u32, values: &WideRow) {
        let shift = 64 - 8 * u32::from(access.bytes);
        let extended = if access.signed {
            super::row::map(values, |v| ((v << shift).cast_signed() >> shift).cast_unsigned())
        } else {
            *values
        };
        let cut = if access.cut16 { 0xffff } else { u32::MAX };
        match place {
            Place::R(r) => self.registers.set_r(r, mask, &super::row::map(&extended, |v| v as u32 & cut)),
            Place::W(w) => self.registers.set_w(w, mask, &extended),
            Place::None => {}
        }
    }

    fn gather_shared(
        &self,
        access: &Access,
        addresses: &WideRow,
        mask: u32,
        world: &World<'_>,
        loaded: &mut [WideRow],
    ) -> Result<(), Stop> {
        let bytes = usize::from(access.bytes);
        for lane in lanes(mask) {
            let at = world.shared_at(lane, "load", addresses[lane], bytes * loaded.len())?;
            for (v, row) in loaded.iter_mut().enumerate() {
                let from = at + v * bytes;
                row[lane] = from_bytes(&world.shared[from..from + bytes]);
            }
        }
        Ok(())
    }

    fn gather_local(
        &self,
        access: &Access,
        addresses: &WideRow,
        mask: u32,
        loaded: &mut [WideRow],
    ) -> Result<(), Stop> {
        let bytes = usize::from(access.bytes);
        for lane in lanes(mask) {
            let at = self.local_at(lane, "load", addresses[lane], bytes * loaded.len())?;
            for (v, row) in loaded.iter_mut().enumerate() {
                let from = at + v * bytes;
                row[lane] = from_bytes(&self.local[from..from + bytes]);
            }
        }
        Ok(())
    }

    /// Where an access to a lane's local memory lies.
    fn local_at(&self, lane: usize, what: &str, address: u64, bytes: usize) -> Result<usize, Stop> {
        let size = self.local.len() / 32;
        let at = inside(address, bytes, size);
        at.map(|at| lane * size + at)
            .map_err(|why| wrong(lane, &format!("local {what}"), bytes, address, why))
    }

    pub(crate) fn store(&mut self, access: &Access, mask: u32, world: &mut World<'_>) -> Result<(), Stop> {
        let addresses = self.registers.address(access.address);
        match access.space {
            Some(space) => self.store_to(space, access, &addresses, mask, world),
            None => by_space(&addresses, mask).into_iter().filter(|part| part.1 != 0).try_for_each(
                |(space, mask, addresses)| self.store_to(space, access, &addresses, mask, world),
            ),
        }
    }

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
                Place::R(r) => *row = super::row::map(self.registers.r(r), u64::from),
                Place::W(w) => *row = *self.registers.w(w),
                Place::None => {}
            }
        }
        let bytes = usize::from(access.bytes);
        match space {
            Space::Shared => {
                for lane in lanes(mask) {
                    let at = world.shared_at(lane, "store", addresses[lane], bytes * n)?;
                    scatter(&mut world.shared[at..], bytes, &values[..n], lane);
                }
                Ok(())
            }
            Space::Local => {
                for lane in lanes(mask) {
                    let at = self.local_at(lane, "store", addresses[lane], bytes * n)?;
                    scatter(&mut self.local[at..], bytes, &values[..n], lane);
                }
                Ok(())
            }
            _ => scatter_global(access, addresses, mask, world, &values[..n]),
        }
    }
}

#[inline(always)]
fn scatter(to: &mut [u8], bytes: usize, values: &[WideRow], lane: usize) {
    for (to, row) in to.chunks_exact_mut(bytes).zip(values) {
        to.copy_from_slice(&row[lane].to_le_bytes()[..bytes]);
    }
}

fn gather_global(
    access: &Access,
    addresses: &WideRow,
    mask: u32,
    world: &mut World<'_>,
    loaded: &mut [WideRow],
) -> Result<(), Stop> {
    let bytes = usize::from(access.bytes);
    let whole = bytes * loaded.len();
    world.statistics.loaded += u64::from(mask.count_ones()) * whole as u64;
    for lane in lanes(mask) {
        let failed = |v| wrong(lane, "global load", whole, addresses[lane], v);
        let (allocation, at) = world.global(addresses[lane], whole).map_err(failed)?;
        for (v, row) in loaded.iter_mut().enumerate() {
            let (value, is_written) = allocation.load(at + v * bytes, bytes);
            if !is_written {
                return Err(failed(Violation::Uninitialised));
            }
            row[lane] = value;
        }
    }
    Ok(())
}

fn scatter_global(
    access: &Access,
    addresses: &WideRow,
    mask: u32,
    world: &mut World<'_>,
    values: &[WideRow],
) -> Result<(), Stop> {
    let bytes = usize::from(access.bytes);
    let whole = bytes * values.len();
    world.statistics.stored += u64::from(mask.count_ones()) * whole as u64;
    for lane in lanes(mask) {
        let failed = |v| wrong(lane, "global store", whole, addresses[lane], v);
        let (allocation, at) = world.global(addresses[lane], whole).map_err(failed)?;
        if allocation.is_read_only() {
            return Err(failed(Violation::ReadOnly));
        }
        for (v, row) in values.iter().enumerate() {
            allocation.store(at + v * bytes, bytes, row[lane]);
        }
    }
    Ok(())
}

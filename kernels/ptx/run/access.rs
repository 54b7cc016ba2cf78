//! What a warp reaches besides its registers, and what accesses to it are checked for.
use super::{
    row::{WideRow, lanes, select},
    warp::{Stop, Warp},
    windows,
};
use crate::{
    launch::Statistics,
    memory::{Allocation, Memory, Violation},
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
pub(super) fn wrong(
    lane: usize,
    what: &str,
    bytes: usize,
    address: u64,
    why: impl std::fmt::Display,
) -> Stop {
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

#[inline(always)]
pub(super) fn from_bytes(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

impl<'m> World<'m> {
    /// The allocation that an access of so many bytes lies in, and where in it.
    #[inline(always)]
    pub(super) fn global(&self, address: u64, bytes: usize) -> Result<(&'m Allocation, usize), Violation> {
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
pub(super) fn by_space(addresses: &WideRow, mask: u32) -> [(Space, u32, WideRow); 3] {
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

/// The addresses of a warp that lie in one piece of memory, relative to its start: those of lanes that do not take part are
/// another lane's. None if they may lie elsewhere or are not aligned.
#[inline(always)]
pub(super) fn together(
    addresses: &WideRow,
    mask: u32,
    start: u64,
    size: usize,
    bytes: usize,
) -> Option<WideRow> {
    let first = addresses[mask.trailing_zeros() as usize & 31];
    let clean = select(mask, addresses, &[first; 32]);
    let (mut most, mut low_bits) = (0, 0);
    let mut inside = [0; 32];
    for (to, &address) in inside.iter_mut().zip(&clean) {
        let at = address.wrapping_sub(start);
        most = u64::max(most, at);
        low_bits |= address;
        *to = at;
    }
    let fits = size >= bytes && most <= (size - bytes) as u64 && low_bits & (bytes as u64 - 1) == 0;
    fits.then_some(inside)
}

impl Warp<'_> {
    /// Where an access to a lane's local memory lies.
    pub(super) fn local_at(
        &self,
        lane: usize,
        what: &str,
        address: u64,
        bytes: usize,
    ) -> Result<usize, Stop> {
        let size = self.local.len() / 32;
        let at = inside(address, bytes, size);
        at.map(|at| lane * size + at)
            .map_err(|why| wrong(lane, &format!("local {what}"), bytes, address, why))
    }
}

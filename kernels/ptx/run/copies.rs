//! Asynchronous copies. What they bring is there when a lane has waited for its group, and no sooner: until then the
//! destination is NaN.
use super::{
    access::{World, together, wrong},
    row::{Row, WideRow, lanes, map, mask as lanes_where, select},
    warp::{Stop, Warp},
    windows,
};
use crate::{memory::Violation, program::Copy};

/// What is copied at most by one lane, in bytes.
const MOST: usize = 16;
const SOURCE: &str = "global source of cp.async";
const DESTINATION: &str = "destination of cp.async";

/// One instruction's copies.
struct Pending {
    mask: u32,
    to: WideRow,
    from: WideRow,
    bytes: usize,
    /// How many of them each lane reads; the rest is zero.
    read: Row,
    /// The group of each lane.
    group: Row,
}

/// The copies of a warp that are under way.
#[derive(Default)]
pub(crate) struct Copies {
    pending: Vec<Pending>,
    /// How many groups each lane has closed.
    committed: Row,
}

impl Copies {
    #[inline(always)]
    pub(crate) fn commit(&mut self, mask: u32) {
        self.committed = select(mask, &map(&self.committed, |n| n + 1), &self.committed);
    }
    /// Lands what belongs to other than the last `most` groups of the lanes.
    #[inline(always)]
    pub(crate) fn wait(&mut self, mask: u32, most: u32, world: &mut World<'_>) -> Result<(), Stop> {
        for copy in &mut self.pending {
            let is_due =
                lanes_where(&copy.group, &self.committed, |group, committed| group + most < committed);
            let due = is_due & mask & copy.mask;
            copy.mask &= !due;
            copy.land(due, world)?;
        }
        self.pending.retain(|copy| copy.mask != 0);
        Ok(())
    }
}

impl Pending {
    /// Whether all lanes of `mask` read everything.
    #[inline(always)]
    fn is_whole(&self, mask: u32) -> bool {
        let bytes = [self.bytes as u32; 32];
        lanes_where(&self.read, &bytes, |read, bytes| read == bytes) & mask == mask
    }

    /// Checks the addresses, and makes the destination NaN.
    #[inline(always)]
    fn begin(&self, world: &mut World<'_>) -> Result<(), Stop> {
        let (mask, bytes) = (self.mask, self.bytes);
        world.statistics.loaded += lanes(mask).map(|lane| u64::from(self.read[lane])).sum::<u64>();
        let inside = together(&self.to, mask, windows::SPACE, world.shared.len(), bytes);
        if inside.is_none() || !self.is_whole(mask) || !self.reads_one_allocation(mask, world) {
            lanes(mask).try_for_each(|lane| self.check(lane, world))?;
        }
        for lane in lanes(mask) {
            let at = (self.to[lane] - windows::SPACE) as usize;
            world.shared[at..at + bytes].fill(0xff);
        }
        Ok(())
    }
    #[inline(always)]
    fn reads_one_allocation(&self, mask: u32, world: &World<'_>) -> bool {
        let first = self.from[mask.trailing_zeros() as usize & 31];
        world.global(first, self.bytes).is_ok_and(|(allocation, _)| {
            together(&self.from, mask, allocation.start, allocation.bytes, self.bytes).is_some()
        })
    }

    /// Checks the addresses of a lane.
    #[inline(never)]
    fn check(&self, lane: usize, world: &World<'_>) -> Result<(), Stop> {
        let (from, bytes, read) = (self.from[lane], self.bytes, self.read[lane] as usize);
        if read > bytes {
            return Err(Stop::new(lane, format!("cp.async of {bytes} bytes reads {read}")));
        }
        world.shared_at(lane, DESTINATION, self.to[lane], bytes)?;
        if !from.is_multiple_of(bytes as u64) {
            return Err(wrong(lane, SOURCE, bytes, from, Violation::Misaligned));
        }
        if read == 0 {
            return Ok(());
        }
        let inside = world.global(from, 1).and_then(|(allocation, _)| allocation.check(from, read));
        inside.map(drop).map_err(|v| wrong(lane, SOURCE, read, from, v))
    }

    /// Lands the copies of the lanes of `mask`.
    #[inline(always)]
    fn land(&self, mask: u32, world: &mut World<'_>) -> Result<(), Stop> {
        if mask != 0 && self.bytes == MOST && self.is_whole(mask) && self.land_whole(mask, world) {
            return Ok(());
        }
        lanes(mask).try_for_each(|lane| self.land_lane(lane, world))
    }
    /// Lands copies of 16 bytes from one allocation; whether they are, and all has been written.
    #[inline(always)]
    fn land_whole(&self, mask: u32, world: &mut World<'_>) -> bool {
        let first = self.from[mask.trailing_zeros() as usize & 31];
        let Ok((allocation, _)) = world.global(first, MOST) else { return false };
        let Some(inside) = together(&self.from, mask, allocation.start, allocation.bytes, MOST) else {
            return false;
        };
        if !allocation.are_written(&inside, MOST) {
            return false;
        }
        for lane in lanes(mask) {
            let (at, from) = ((self.to[lane] - windows::SPACE) as usize, inside[lane] as usize);
            let words = [allocation.load(from, 8).0, allocation.load(from + 8, 8).0];
            for (to, word) in world.shared[at..at + MOST].as_chunks_mut::<8>().0.iter_mut().zip(words) {
                *to = word.to_le_bytes();
            }
        }
        true
    }
    #[inline(never)]
    fn land_lane(&self, lane: usize, world: &mut World<'_>) -> Result<(), Stop> {
        let (from, read) = (self.from[lane], self.read[lane] as usize);
        let mut content = [0; MOST];
        let mut done = 0;
        while done < read {
            let n = if read - done >= 8 { 8 } else { 1 };
            let failed = |v| wrong(lane, SOURCE, read, from, v);
            let (allocation, source) = world.global(from + done as u64, n).map_err(failed)?;
            let (value, is_written) = allocation.load(source, n);
            if !is_written {
                return Err(failed(Violation::Uninitialised));
            }
            content[done..done + n].copy_from_slice(&value.to_le_bytes()[..n]);
            done += n;
        }
        let at = world.shared_at(lane, DESTINATION, self.to[lane], self.bytes)?;
        world.shared[at..at + self.bytes].copy_from_slice(&content[..self.bytes]);
        Ok(())
    }
}

impl Warp<'_> {
    #[inline(always)]
    pub(crate) fn copy(&mut self, copy: &Copy, mask: u32, world: &mut World<'_>) -> Result<(), Stop> {
        let (to, from) = (self.registers.address(copy.to), self.registers.address(copy.from));
        let read = copy.read.map_or([copy.bytes.into(); 32], |row| *self.registers.r(row));
        let group = self.copies.committed;
        let pending = Pending { mask, to, from, bytes: copy.bytes.into(), read, group };
        pending.begin(world)?;
        self.copies.pending.push(pending);
        Ok(())
    }
}

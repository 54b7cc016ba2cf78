//! Asynchronous copies. What they bring is there when a lane has waited for its group, and no sooner: until then the
//! destination is NaN.
use super::{
    access::World,
    row::{Row, WideRow, lanes},
    warp::{Stop, Warp},
};
use crate::program::Copy;

/// One instruction's copies.
struct Pending {
    mask: u32,
    to: WideRow,
    from: WideRow,
    bytes: u8,
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
    pub(crate) fn commit(&mut self, mask: u32) {
        lanes(mask).for_each(|lane| self.committed[lane] += 1);
    }
    /// Lands what belongs to other than the last `most` groups of the lanes.
    pub(crate) fn wait(&mut self, mask: u32, most: u32, world: &mut World<'_>) -> Result<(), Stop> {
        let committed = self.committed;
        for copy in &mut self.pending {
            let is_due = |&lane: &usize| copy.group[lane] + most < committed[lane];
            let due = lanes(mask & copy.mask).filter(is_due).fold(0, |due, lane| due | 1 << lane);
            copy.mask &= !due;
            for lane in lanes(due) {
                let (to, from) = (copy.to[lane], copy.from[lane]);
                world.land(lane, to, from, copy.bytes.into(), copy.read[lane] as usize)?;
            }
        }
        self.pending.retain(|copy| copy.mask != 0);
        Ok(())
    }
}

impl Warp<'_> {
    pub(crate) fn copy(&mut self, copy: &Copy, mask: u32, world: &mut World<'_>) -> Result<(), Stop> {
        let (to, from) = (self.registers.address(copy.to), self.registers.address(copy.from));
        let bytes = copy.bytes;
        let read = copy.read.map_or([bytes.into(); 32], |row| *self.registers.r(row));
        for lane in lanes(mask) {
            if read[lane] > bytes.into() {
                return Err(Stop::new(lane, format!("cp.async of {bytes} bytes reads {}", read[lane])));
            }
            world.begin_copy(lane, to[lane], from[lane], bytes.into(), read[lane] as usize)?;
        }
        let group = self.copies.committed;
        self.copies.pending.push(Pending { mask, to, from, bytes, read, group });
        Ok(())
    }
}

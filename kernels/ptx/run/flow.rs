//! Where the lanes of a warp are. Lanes that have branched apart form groups; the group that is furthest behind runs, until it
//! comes to where another one waits, and they go on together.

/// The groups of a warp's lanes.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    /// The next step of the running group, and its lanes.
    pub(crate) at: u32,
    pub(crate) active: u32,
    /// The lanes that have not ended.
    pub(crate) live: u32,
    others: Vec<(u32, u32)>,
    /// Where the nearest of the others is.
    next: u32,
}

impl Flow {
    /// All of `lanes` at the beginning.
    pub(crate) fn new(lanes: u32) -> Flow {
        Flow { at: 0, active: lanes, live: lanes, others: Vec::new(), next: u32::MAX }
    }
    /// Sends the lanes of `taken` to `to`.
    #[inline(always)]
    pub(crate) fn branch(&mut self, taken: u32, to: u32) {
        if taken == self.active {
            self.at = to;
        } else if taken != 0 {
            self.split(taken, to);
        }
    }
    #[inline(never)]
    fn split(&mut self, taken: u32, to: u32) {
        self.active &= !taken;
        self.join(taken, to);
    }
    fn join(&mut self, lanes: u32, at: u32) {
        match self.others.iter_mut().find(|(to, _)| *to == at) {
            Some((_, group)) => *group |= lanes,
            None => self.others.push((at, lanes)),
        }
        self.next = self.others.iter().map(|o| o.0).min().unwrap_or(u32::MAX);
    }
    /// Ends the lanes of `mask`; whether any are left.
    pub(crate) fn exit(&mut self, mask: u32) -> bool {
        self.live &= !mask;
        self.active &= !mask;
        if self.active == 0 && self.live != 0 {
            // There is nobody to go on with.
            self.at = u32::MAX;
            self.meet();
        }
        self.live != 0
    }
    /// To be called before each step: lets the group go on that is furthest behind.
    #[inline(always)]
    pub(crate) fn settle(&mut self) {
        if self.at >= self.next {
            self.meet();
        }
    }
    #[inline(never)]
    fn meet(&mut self) {
        if self.at > self.next && self.active != 0 {
            let (lanes, at) = (self.active, self.at);
            self.join(lanes, at);
            self.active = 0;
        }
        self.at = self.next;
        let here = self.others.iter().position(|o| o.0 == self.at);
        self.active |= here.map_or(0, |i| self.others.swap_remove(i).1);
        self.next = self.others.iter().map(|o| o.0).min().unwrap_or(u32::MAX);
    }
}

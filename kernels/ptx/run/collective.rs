//! What the lanes of a warp do together, from the tables of the PTX ISA.
use super::{
    access::World,
    arithmetic::narrow,
    row::{Row, lanes},
    warp::{Stop, Warp},
};
use crate::program::{Ballot, Exchange, Mma, Op, R, Shuffle};
use half::f16;

impl Warp<'_> {
    /// The instructions that are neither arithmetic nor loads, stores, copies or products.
    #[inline(never)]
    pub(crate) fn together(&mut self, op: &Op, mask: u32, world: &mut World<'_>) -> Result<(), Stop> {
        match op {
            Op::Matrices { transposed, address, to } => {
                let rows = self.registers.address(*address);
                self.matrices(*transposed, &rows, to, mask, world)?;
            }
            Op::Shuffle(shuffle) => self.shuffle(shuffle, mask)?,
            &Op::Vote { kind, to, of, members } => {
                let members = self.members(members, mask)?;
                let votes = self.registers.condition(of) & members;
                let result = match kind {
                    Ballot::All => votes == members,
                    Ballot::Any => votes != 0,
                    Ballot::Uniform => votes == members || votes == 0,
                };
                self.registers.set_p(to, mask, if result { u32::MAX } else { 0 });
            }
            &Op::Ballot { to, of, members } => {
                let votes = self.registers.condition(of) & self.members(members, mask)?;
                self.registers.set_r(to, mask, &[votes; 32]);
            }
            &Op::ActiveMask(to) => self.registers.set_r(to, mask, &[mask; 32]),
            &Op::ReduceWarp { with, to, of, members } => {
                self.members(members, mask)?;
                let row = *self.registers.r(of);
                let values = lanes(mask).map(|lane| [row[lane]; 32]);
                let all = values.reduce(|a, b| narrow::binary(with, &a, &b)).unwrap_or_default();
                self.registers.set_r(to, mask, &all);
            }
            &Op::SyncWarp(members) => drop(self.members(members, mask)?),
            Op::Trap => return Err(Stop::new(mask.trailing_zeros() as usize, "trap")),
            other => return Err(Stop::new(0, format!("{other:?} has no meaning here"))),
        }
        Ok(())
    }

    /// The lanes that take part, all of which must be here.
    fn members(&self, members: R, mask: u32) -> Result<u32, Stop> {
        let row = self.registers.r(members);
        for lane in lanes(mask) {
            let wanted = row[lane] & self.flow.live;
            if wanted != mask {
                let missing = (wanted & !mask).trailing_zeros().min(31) as usize;
                let what = format!("lanes {wanted:#010x} of the warp should take part and {mask:#010x} do");
                return Err(Stop::new(missing, what));
            }
        }
        Ok(mask)
    }

    /// All 32 lanes must be here.
    #[inline(always)]
    fn whole(mask: u32, what: &str) -> Result<(), Stop> {
        if mask == u32::MAX {
            return Ok(());
        }
        let missing = (!mask).trailing_zeros() as usize;
        Err(Stop::new(missing, format!("the lanes of a warp have diverged before {what}")))
    }

    /// Lane 8·m + r gives the address of row r of matrix m; each lane gets the elements (lane / 4, 2·(lane % 4)) and the
    /// one after it, or those of the transposed matrix.
    fn matrices(
        &mut self,
        transposed: bool,
        rows: &[u64; 32],
        to: &[R],
        mask: u32,
        world: &mut World<'_>,
    ) -> Result<(), Stop> {
        Self::whole(mask, "ldmatrix")?;
        world.statistics.ldmatrix += 1;
        for (m, &to) in to.iter().enumerate() {
            let mut words = [[0; 4]; 8];
            let mut groups = 0u32;
            for (row, words) in words.iter_mut().enumerate() {
                let lane = 8 * m + row;
                let at = world.shared_at(lane, "row of ldmatrix", rows[lane], 16)?;
                for (word, bytes) in words.iter_mut().zip(world.shared[at..at + 16].as_chunks::<4>().0) {
                    *word = u32::from_le_bytes(*bytes);
                }
                // 32 banks of 4 bytes serve eight rows of 16 bytes at once if these lie in different groups of four.
                let group = 1 << (at / 16 % 8);
                world.statistics.bank_conflicts += u64::from(groups & group != 0);
                groups |= group;
            }
            let value =
                if transposed { transpose(&words) } else { std::array::from_fn(|l| words[l / 4][l % 4]) };
            self.registers.set_r(to, mask, &value);
        }
        Ok(())
    }

    /// "shfl.sync": each lane reads another's value, or keeps its own where there is none.
    fn shuffle(&mut self, shuffle: &Shuffle, mask: u32) -> Result<(), Stop> {
        self.members(shuffle.members, mask)?;
        let [from, by, clamp] = [shuffle.from, shuffle.lane, shuffle.clamp].map(|r| *self.registers.r(r));
        let (mut value, mut inside): (Row, u32) = ([0; 32], 0);
        for lane in lanes(mask) {
            let (here, by) = (lane as u32, by[lane] & 31);
            let (clamp, segment) = (clamp[lane] & 31, clamp[lane] >> 8 & 31);
            let (first, last) = (here & segment, (here & segment) | (clamp & !segment));
            let source = match shuffle.kind {
                Exchange::Up => here.wrapping_sub(by),
                Exchange::Down => here + by,
                Exchange::Butterfly => here ^ by,
                Exchange::Index => first | (by & !segment),
            };
            let is_inside = match shuffle.kind {
                Exchange::Up => source.cast_signed() >= last.cast_signed(),
                _ => source <= last,
            };
            let source = if is_inside { source } else { here };
            inside |= u32::from(is_inside) << lane;
            if mask >> source & 1 == 0 {
                return Err(Stop::new(lane, format!("shfl reads lane {source}, which is not here")));
            }
            value[lane] = from[source as usize];
        }
        self.registers.set_r(shuffle.to, mask, &value);
        if let Some(p) = shuffle.inside {
            self.registers.set_p(p, mask, inside);
        }
        Ok(())
    }

    /// "Matrix Fragments for mma.m16n8k16 with floating point type". Products are exact in f32; sums are taken in the order
    /// of k and rounded after each. A GPU may take another order.
    #[inline(always)]
    pub(crate) fn mma(&mut self, mma: &Mma, mask: u32, world: &mut World<'_>) -> Result<(), Stop> {
        Self::whole(mask, "mma")?;
        world.statistics.mma += 1;
        let a: [[f32; 16]; 16] = self.left(mma);
        let b: [[f32; 8]; 16] = self.right(mma);
        let mut c = [[0f32; 8]; 16];
        for (i, &r) in mma.c.iter().enumerate() {
            let row = self.registers.r(r);
            for lane in 0..32 {
                c[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2] = f32::from_bits(row[lane]);
            }
        }
        for (c, a) in c.iter_mut().zip(&a) {
            let mut sum = *c;
            for (a, b) in a.iter().zip(&b) {
                for (sum, b) in sum.iter_mut().zip(b) {
                    *sum += a * b;
                }
            }
            *c = sum;
        }
        for (i, &r) in mma.d.iter().enumerate() {
            let mut row = [0; 32];
            for (lane, to) in row.iter_mut().enumerate() {
                *to = c[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2].to_bits();
            }
            self.registers.set_r(r, mask, &row);
        }
        Ok(())
    }

    /// The low and the high elements of a register of a fragment.
    #[inline(always)]
    fn elements(&self, r: R, bf16: bool) -> [[f32; 32]; 2] {
        let row = self.registers.r(r);
        if bf16 {
            [
                super::row::map(row, |x| f32::from_bits(x << 16)),
                super::row::map(row, |x| f32::from_bits(x & 0xffff_0000)),
            ]
        } else {
            let half = |bits: u32| f16::from_bits(bits as u16).to_f32();
            [super::row::map(row, half), super::row::map(row, |x| half(x >> 16))]
        }
    }
    #[inline(always)]
    fn left(&self, mma: &Mma) -> [[f32; 16]; 16] {
        let mut a = [[0.0; 16]; 16];
        for (i, &r) in mma.a.iter().enumerate() {
            let [low, high] = self.elements(r, mma.bf16);
            for lane in 0..32 {
                let (row, col) = (lane / 4 + i % 2 * 8, lane % 4 * 2 + i / 2 * 8);
                a[row][col] = low[lane];
                a[row][col + 1] = high[lane];
            }
        }
        a
    }
    #[inline(always)]
    fn right(&self, mma: &Mma) -> [[f32; 8]; 16] {
        let mut b = [[0.0; 8]; 16];
        for (i, &r) in mma.b.iter().enumerate() {
            let [low, high] = self.elements(r, mma.bf16);
            for lane in 0..32 {
                let (row, col) = (lane % 4 * 2 + i * 8, lane / 4);
                b[row][col] = low[lane];
                b[row + 1][col] = high[lane];
            }
        }
        b
    }
}

/// What each lane gets of a transposed matrix of 16-bit elements.
fn transpose(words: &[[u32; 4]; 8]) -> Row {
    let element = |row: usize, col: usize| words[row][col / 2] >> (16 * (col % 2)) & 0xffff;
    std::array::from_fn(|lane| {
        let (row, col) = (lane % 4 * 2, lane / 4);
        element(row, col) | element(row + 1, col) << 16
    })
}

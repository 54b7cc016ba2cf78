//! The gradient, which computes the shares p = exp(scale · q · kᵀ + bias − lse) once more, block by block.
use super::{
    forward::{scale, sizes},
    operands::{Bias, Sizes, lane_bytes, lanes, matrix},
};
use crate::{
    Call, Threads, View,
    gemm::{Gemm, Matrix},
    math::{self, vectorised},
    threads::optional_pieces,
};
use graft_ir::Result;

/// Elements that a lane needs: a block of shares and one of their gradients.
fn lane(sizes: &Sizes) -> usize {
    2 * sizes.rows() * sizes.keys
}

pub(super) fn scratch(sizes: &Sizes) -> usize {
    lane_bytes(sizes.batch * sizes.shared, lane(sizes))
}

/// What all heads read.
struct Operands<'a> {
    dy: View<'a>,
    q: View<'a>,
    k: View<'a>,
    v: View<'a>,
    bias: Bias<'a>,
    lse: &'a [f32],
    scale: f32,
    sizes: Sizes,
}

/// One head of keys and values, with the heads of queries that share it: its sums are made in one order.
struct Head<'d> {
    index: usize,
    dq: Option<&'d mut [f32]>,
    dk: Option<&'d mut [f32]>,
    dv: Option<&'d mut [f32]>,
}

/// Results dq, dk and dv, as far as they are wanted.
pub(super) fn attention_grad(call: &mut Call<'_>) -> Result<()> {
    let [dy, q, k, v, bias] = [0, 1, 2, 3, 4].map(|i| call.input(i));
    let (dy, q, k, v, bias) = (dy?, q?, k?, v?, bias?);
    let sizes = sizes(&[q.dims, k.dims, v.dims, bias.dims])?;
    let (bias, lse) = (Bias::new(&bias, &sizes), call.input(5)?.elements());
    let operands = Operands { dy, q, k, v, bias, lse, scale: scale(call)?, sizes };
    let [dq, dk, dv] = [0, 1, 2].map(|i| call.wanted(i).map(|o| o.elements::<f32>()));
    let pieces = optional_pieces(dq, sizes.times() * sizes.queries * sizes.size)
        .zip(optional_pieces(dk, sizes.keys * sizes.size))
        .zip(optional_pieces(dv, sizes.keys * sizes.width));
    let heads = pieces.take(sizes.batch * sizes.shared).enumerate();
    let heads = heads.map(|(index, ((dq, dk), dv))| Head { index, dq, dk, dv });
    let scratch = call.scratch::<f32>();
    call.threads.each(lanes(heads, scratch, lane(&sizes)).into_iter(), |(heads, scratch)| {
        heads.into_iter().for_each(|head| operands.back(head, scratch));
    });
    Ok(())
}

impl Operands<'_> {
    fn back(&self, mut head: Head<'_>, scratch: &mut [f32]) {
        let Sizes { shared, queries, size, .. } = self.sizes;
        let (batch, of_keys, times) = (head.index / shared, head.index % shared, self.sizes.times());
        let (k, v) = (matrix(&self.k, batch, of_keys), matrix(&self.v, batch, of_keys));
        let step = self.sizes.rows();
        let blocks = (0..times).flat_map(|i| (0..queries).step_by(step).map(move |from| (i, from)));
        for (i, from) in blocks {
            let (n, of_queries) = (step.min(queries - from), of_keys * times + i);
            let [q, dy] = [&self.q, &self.dy].map(|x| matrix(x, batch, of_queries).row_range(from..from + n));
            let dq = head.dq.as_deref_mut().map(|dq| &mut dq[(i * queries + from) * size..][..n * size]);
            let block =
                Block { place: [batch, of_queries, from], q, dy, k, v, is_first: (i, from) == (0, 0) };
            self.block(&block, scratch, [dq, head.dk.as_deref_mut(), head.dv.as_deref_mut()]);
        }
    }

    /// Writes dq of a block, and adds what it sends to dk and dv.
    fn block(&self, block: &Block<'_>, scratch: &mut [f32], [dq, dk, dv]: [Option<&mut [f32]>; 3]) {
        let &Block { place, q, dy, k, v, is_first } = block;
        let (rows, keys, before) = (q.rows(), k.rows(), if is_first { 0.0 } else { 1.0 });
        let (p, rest) = scratch.split_at_mut(rows * keys);
        self.shares(place, q, k, p);
        if let Some(dv) = dv {
            Gemm::new(Matrix::row_major(p, rows, keys).t(), dy).accumulated(before).run(dv, Threads::ONE);
        }
        if dq.is_none() && dk.is_none() {
            return;
        }
        let ds = &mut rest[..rows * keys];
        Gemm::new(dy, v.t()).run(ds, Threads::ONE);
        vectorised(
            #[inline(always)]
            || ds.chunks_exact_mut(keys).zip(p.chunks_exact(keys)).for_each(|(ds, p)| through_softmax(ds, p)),
        );
        let ds = Matrix::row_major(ds, rows, keys);
        if let Some(dq) = dq {
            Gemm::new(ds, k).scaled(self.scale).run(dq, Threads::ONE);
        }
        if let Some(dk) = dk {
            Gemm::new(ds.t(), q).scaled(self.scale).accumulated(before).run(dk, Threads::ONE);
        }
    }

    /// The shares of a block of queries.
    fn shares(&self, [batch, head, from]: [usize; 3], q: Matrix<'_>, k: Matrix<'_>, p: &mut [f32]) {
        Gemm::new(q, k.t()).scaled(self.scale).run(p, Threads::ONE);
        let Sizes { heads, queries, .. } = self.sizes;
        let lse = &self.lse[(batch * heads + head) * queries + from..];
        vectorised(
            #[inline(always)]
            || {
                for (i, (row, lse)) in p.chunks_exact_mut(k.rows()).zip(lse).enumerate() {
                    self.bias.add([batch, head, from + i], row);
                    row.iter_mut().for_each(|s| *s = math::quick_exp(*s - lse));
                }
            },
        );
    }
}

/// A block of queries of one head, and its keys and values.
struct Block<'a> {
    /// Row of the batch, head, first query.
    place: [usize; 3],
    q: Matrix<'a>,
    dy: Matrix<'a>,
    k: Matrix<'a>,
    v: Matrix<'a>,
    /// Whether nothing was added to dk and dv yet.
    is_first: bool,
}

/// ds = p · (dp − Σ dp · p), over dp.
#[inline(always)]
fn through_softmax(dp: &mut [f32], p: &[f32]) {
    let along = math::sum_of2(dp, p, |d, p| d * p) as f32;
    dp.iter_mut().zip(p).for_each(|(d, &p)| *d = p * (*d - along));
}

//! `y = softmax(scale · q · kᵀ + bias) · v`, a block of queries of one head at a time.
use super::operands::{Bias, Sizes, lane_bytes, lanes, matrix};
use crate::{
    Call, Threads,
    gemm::{Gemm, Matrix},
    math::{self, vectorised},
    threads::optional_pieces,
};
use graft_ir::{Code, Error, Result};

/// Elements that a lane needs: the scores of a block, and the inverse of each row's divisor.
fn lane(sizes: &Sizes) -> usize {
    sizes.rows() * (sizes.keys + 1)
}

pub(super) fn scratch(sizes: &Sizes) -> usize {
    let blocks = sizes.batch * sizes.heads * sizes.queries.div_ceil(sizes.rows());
    lane_bytes(blocks, lane(sizes))
}

/// The factor of the products, which must be given.
pub(super) fn scale(call: &Call<'_>) -> Result<f32> {
    call.node.float("scale")?.ok_or_else(|| Error::new(Code::ATTRIBUTE, "attribute `scale` is missing"))
}

/// The sizes; operands of others are a fault of the planner.
pub(super) fn sizes(operands: &[&[usize]]) -> Result<Sizes> {
    Sizes::new(operands).ok_or_else(|| Error::new(Code::TYPES, "operands of attention do not fit together"))
}

/// One block of queries.
struct Block<'y> {
    batch: usize,
    head: usize,
    from: usize,
    y: &'y mut [f32],
    lse: Option<&'y mut [f32]>,
}

/// Results y and lse.
pub(super) fn attention(call: &mut Call<'_>) -> Result<()> {
    let [q, k, v, bias] = [call.input(0)?, call.input(1)?, call.input(2)?, call.input(3)?];
    let (sizes, scale) = (sizes(&[q.dims, k.dims, v.dims, bias.dims])?, scale(call)?);
    let bias = Bias::new(&bias, &sizes);
    let (y, lse) = (call.output(0)?.elements::<f32>(), call.wanted(1).map(|o| o.elements::<f32>()));
    let heads = y.chunks_mut(sizes.queries * sizes.width).zip(optional_pieces(lse, sizes.queries));
    let blocks = heads.enumerate().flat_map(|(i, (y, lse))| blocks(i, y, lse, &sizes));
    let scratch = call.scratch::<f32>();
    call.threads.each(lanes(blocks, scratch, lane(&sizes)).into_iter(), |(blocks, scratch)| {
        for block in blocks {
            let (batch, head) = (block.batch, block.head / sizes.times());
            let rows = block.from..block.from + block.y.len() / sizes.width;
            let q = matrix(&q, batch, block.head).row_range(rows);
            attend(block, scale, [q, matrix(&k, batch, head), matrix(&v, batch, head)], &bias, scratch);
        }
    });
    Ok(())
}

/// The blocks of head `index`, counted over all rows of the batch.
fn blocks<'y>(
    index: usize,
    y: &'y mut [f32],
    lse: Option<&'y mut [f32]>,
    sizes: &Sizes,
) -> impl Iterator<Item = Block<'y>> + use<'y> {
    let (rows, heads) = (sizes.rows(), sizes.heads);
    let parts = y.chunks_mut(rows * sizes.width).zip(optional_pieces(lse, rows));
    let block =
        move |(i, (y, lse))| Block { batch: index / heads, head: index % heads, from: i * rows, y, lse };
    parts.enumerate().map(block)
}

fn attend(
    mut block: Block<'_>,
    scale: f32,
    [q, k, v]: [Matrix<'_>; 3],
    bias: &Bias<'_>,
    scratch: &mut [f32],
) {
    let (rows, keys) = (q.rows(), k.rows());
    let (scores, rest) = scratch.split_at_mut(rows * keys);
    Gemm::new(q, k.t()).scaled(scale).run(scores, Threads::ONE);
    let inverses = &mut rest[..rows];
    vectorised(
        #[inline(always)]
        || {
            for (i, (row, inverse)) in scores.chunks_exact_mut(keys).zip(&mut *inverses).enumerate() {
                bias.add([block.batch, block.head, block.from + i], row);
                let (level, divisor) = exponentials(row);
                *inverse = (1.0 / divisor) as f32;
                if let Some(lse) = &mut block.lse {
                    lse[i] = (f64::from(level) + divisor.ln()) as f32;
                }
            }
        },
    );
    Gemm::new(Matrix::row_major(scores, rows, keys), v).run(block.y, Threads::ONE);
    for (row, inverse) in block.y.chunks_exact_mut(v.cols()).zip(inverses) {
        row.iter_mut().for_each(|y| *y *= *inverse);
    }
}

/// Writes e^(s − level) over the scores of a row; returns the level, which is the largest of them where it is finite, and the
/// divisor, which is their sum but for rows in which all is hidden.
#[inline(always)]
fn exponentials(row: &mut [f32]) -> (f32, f64) {
    let level = math::max(row).max(f32::MIN);
    row.iter_mut().for_each(|s| *s = math::quick_exp(*s - level));
    (level, math::sum(row).max(0.5))
}

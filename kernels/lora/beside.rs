//! Launch plans of LoRA where a library does the large products. It knows no sum over two pairs of factors, so the factors
//! are put beside one another: `y = [x | s·h]·[w; b]`, `dx = [dy | dh]·[w | a]ᵀ`.
//!
//! What that costs, in elements: x is read for h anyway and stored again beside it, tokens × in; dy likewise, tokens × out.
//! The other way, a plain product and then one by the adapter that adds to its result, reads and writes the result once
//! more, twice as much. Adding s·a·b to the weight beforehand would cost what the weight has only, but round the adapter
//! away: bf16 has no room for what is small beside w. The weight's part of the frame is laid out once, instead of the
//! weight itself; a and b are copied into its room in each step.
//!
//! Where the kernels' own product rounds h and scales the product with b, here s·h is rounded: as many roundings, of other
//! numbers. Dropout of the gradient acts on the adapter's part alone, which a library's sum does not tell apart: such calls
//! have no plan here.
use super::cuda::outer_grads;
use crate::{
    cuda::{
        Argument,
        Buffer::{self, Framed, Operand, Result},
        Dropout, Element, Frame, Launch, LibraryProduct, Linear, Matrix, Plan, RankGrad, Sizes, Slabs,
        Source, Traffic, arguments, ranks,
    },
    matmul::cuda::of_library,
    movement,
};

pub(super) const SOURCE: Source =
    Source { path: PATH, text: include_str!("beside.cu"), kernels: NAMES, products: NAMES, modules: ranks };

const PATH: &str = "lora/beside.cu";
const NAMES: &[&str] = &["lora_down_beside", "lora_rank_grad_beside"];

/// The plan of [`super::cuda::lora`] with a library, if it serves the call; w is frozen.
pub(super) fn lora(linear: &Linear, wanted: [bool; 2]) -> Option<Plan> {
    let Linear { sizes: Sizes { tokens, n_in, n_out, rank }, element, tile, .. } = *linear;
    let (room, [x, a, b, scale]) = (serves(linear, wanted[0])?, [0, 2, 3, 4].map(Operand));
    let frame = Frame { operand: 1, rows: n_in, cols: n_out, room, element };
    let mut plan = Plan::default();
    let beside = plan.reserve(tokens * (n_in + room) * element.bytes());
    plan.launches.push(put(element, (b, [rank, n_out]), (frame, frame.below()))?);
    let h = if wanted[1] { Result(1) } else { Buffer::Null };
    let operands = arguments(&[x, a, h, beside], &[tokens, n_in, rank], &[Argument::Buffer(scale)]);
    let down = linear.projection().launch(NAMES[0], linear.rank_module(PATH), operands, element.bytes());
    plan.launches.push(storing(down, tokens * (n_in + room) * element.bytes()));
    let product = LibraryProduct {
        element,
        sizes: [tokens, n_out, n_in + room],
        left: Matrix::new(beside, n_in + room),
        right: Matrix::new(Framed(frame), frame.stride()),
        result: Matrix::new(Result(0), n_out),
        alpha: 1.0,
    };
    plan.launches.push(of_library(product.aligned()?, tile)?);
    Some(plan)
}

/// The plan of [`super::cuda::lora_grad`] with a library, if it serves the call; w is frozen.
pub(super) fn lora_grad(linear: &Linear, wanted: [bool; 3]) -> Option<Plan> {
    let Linear { sizes: Sizes { tokens, n_in, n_out, rank }, element, tile, .. } = *linear;
    let (room, [dy, x, w, a, b, scale, h]) = (serves(linear, wanted[0])?, [0, 1, 2, 3, 4, 5, 6].map(Operand));
    let frame = Frame { operand: 2, rows: n_in, cols: n_out, room, element };
    let mut plan = Plan::default();
    let dh = plan.reserve(tokens * rank * element.bytes());
    let beside = plan.reserve(tokens * (n_out + room) * element.bytes());
    let slabs = Slabs::of_tokens(tokens, rank * n_out);
    let db_parts = plan.reserve(4 * slabs.n * rank * n_out);
    plan.launches.push(put(element, (a, [n_in, rank]), (frame, n_out))?);
    let buffers = [dy, b, h, dh, db_parts, beside];
    let operands = arguments(&buffers, &[tokens, n_out, rank], &[Argument::Buffer(scale)]);
    let grads = RankGrad { linear, slabs }.launch(NAMES[1], linear.rank_module(PATH), operands);
    plan.launches.push(storing(grads, tokens * (n_out + room) * element.bytes()));
    plan.launches.extend(wanted[2].then(|| slabs.sum(rank * n_out, db_parts, Result(2), scale)));
    let product = LibraryProduct {
        element,
        sizes: [tokens, n_in, n_out + room],
        left: Matrix::new(beside, n_out + room),
        right: Matrix::turned(Framed(frame), frame.stride()),
        result: Matrix::new(Result(0), n_in),
        alpha: 1.0,
    };
    plan.launches.push(of_library(product.aligned()?, tile)?);
    outer_grads(&mut plan, linear, [dy, x, w, a, dh], [None, wanted[1].then_some(Result(1))]);
    Some(plan)
}

/// The room that the adapter has beside x, dy and the weight, if a library is to do the large product, which someone
/// `wants`.
fn serves(linear: &Linear, wants: bool) -> Option<usize> {
    (linear.library && wants && linear.dropout == Dropout::NONE).then(|| linear.padded_rank())
}

/// Copies a weight of these sizes into a frame, from an element of it on.
fn put(element: Element, (from, sizes): (Buffer, [usize; 2]), (frame, at): (Frame, usize)) -> Option<Launch> {
    let (whole, wide) = ([sizes[1], 1], [frame.stride(), 1]);
    movement::cuda::copy(element.bytes(), &sizes, ((from, 0), &whole), ((Framed(frame), at), &wide))
}

/// A launch that stores so many bytes more.
fn storing(launch: Launch, bytes: usize) -> Launch {
    let bytes = bytes as u64;
    Launch { traffic: launch.traffic + Traffic { flops: 0, ideal: bytes, issued: bytes }, ..launch }
}

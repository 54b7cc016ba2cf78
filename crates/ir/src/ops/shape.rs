//! Ops that change a tensor's shape, or cut it and put it together.
use super::composed::composed;
use crate::{OpDef, Vjp};

mod blocks;
mod concat;
mod expand;
mod reshape;
mod slice;
mod transpose;

/// The family's table.
pub(super) const OPS: &[OpDef] = &[
    OpDef {
        name: "Concat",
        since: 1,
        infer: concat::infer_concat,
        eval: Some(concat::eval_concat),
        vjp: Vjp::Rule(concat::vjp_concat),
        doc: "y = the operands one after the other along axis",
    },
    composed("DepthToSpace", 1, blocks::depth_to_space, "y = x with channels moved into blocks of places"),
    OpDef {
        name: "Expand",
        since: 8,
        infer: expand::infer_expand,
        eval: Some(expand::eval_expand),
        vjp: Vjp::Rule(|ctx| {
            let (dy, x) = (ctx.dy()?, ctx.input(0)?);
            Ok(vec![Some(ctx.b.reduce_to(dy, x)?), None])
        }),
        doc: "y = x broadcast with shape",
    },
    OpDef {
        name: "Flatten",
        since: 1,
        infer: reshape::infer_flatten,
        eval: Some(reshape::eval_flatten),
        vjp: Vjp::Rule(reshape::vjp_reshape),
        doc: "y = x as a matrix: axes before axis, axes from axis on",
    },
    OpDef {
        name: "Pad",
        since: 2,
        infer: slice::infer_pad,
        eval: Some(slice::eval_pad),
        vjp: Vjp::Rule(slice::vjp_pad),
        doc: "y = x with constants or elements of its own added (negative: elements removed) at both ends of axes",
    },
    OpDef {
        name: "Reshape",
        since: 1,
        infer: reshape::infer_reshape,
        eval: Some(reshape::eval_reshape),
        vjp: Vjp::Rule(reshape::vjp_reshape),
        doc: "y = x with the sizes in shape; 0 copies a size, -1 is what is left",
    },
    OpDef {
        name: "Slice",
        since: 1,
        infer: slice::infer_slice,
        eval: Some(slice::eval_slice),
        vjp: Vjp::Rule(slice::vjp_slice),
        doc: "y = x[start:end:step] along axes",
    },
    composed("SpaceToDepth", 1, blocks::space_to_depth, "y = x with blocks of places moved into channels"),
    OpDef {
        name: "Split",
        since: 1,
        infer: concat::infer_split,
        eval: Some(concat::eval_split),
        vjp: Vjp::Rule(concat::vjp_split),
        doc: "y0, y1, … = consecutive parts of x along axis",
    },
    OpDef {
        name: "Squeeze",
        since: 1,
        infer: reshape::infer_squeeze,
        eval: Some(reshape::eval_squeeze),
        vjp: Vjp::Rule(reshape::vjp_squeeze),
        doc: "y = x without axes of size 1",
    },
    OpDef {
        name: "Tile",
        since: 6,
        infer: expand::infer_tile,
        eval: Some(expand::eval_tile),
        vjp: Vjp::Rule(expand::vjp_tile),
        doc: "y = x repeated along each axis",
    },
    OpDef {
        name: "Transpose",
        since: 1,
        infer: transpose::infer_transpose,
        eval: Some(transpose::eval_transpose),
        vjp: Vjp::Rule(transpose::vjp_transpose),
        doc: "axis i of y is axis perm[i] of x",
    },
    OpDef {
        name: "Trilu",
        since: 14,
        infer: transpose::infer_trilu,
        eval: Some(transpose::eval_trilu),
        vjp: Vjp::Rule(transpose::vjp_trilu),
        doc: "y = x with 0 below (upper=1) or above the k-th diagonal",
    },
    OpDef {
        name: "Unsqueeze",
        since: 1,
        infer: reshape::infer_unsqueeze,
        eval: Some(reshape::eval_unsqueeze),
        vjp: Vjp::Rule(reshape::vjp_unsqueeze),
        doc: "y = x with axes of size 1 inserted",
    },
];

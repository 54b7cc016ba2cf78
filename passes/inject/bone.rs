//! Bone (PEFT's MiSS): `y = x·w + s·d`, where `s` sums the columns of `x` whose numbers agree modulo the rank. In its
//! mini form `d` has few columns, which are repeated over the outputs.
//! <https://arxiv.org/abs/2409.15371>
use super::{
    Axis::{self, Rank},
    Config, FileForm, Init, Method, Parts, Peft, Setting, Variant, Weight,
    method::DROPOUT,
};
use crate::target::Linear;
use graft_ir::{Attr, Attrs, Code, Error, Result};

pub(super) const BONE: Method = Method {
    name: "bone",
    paper: "https://arxiv.org/abs/2409.15371",
    rank: 16,
    alpha: None,
    settings: &[
        Setting { name: "mini", about: "columns of d, a divisor of out; 0 for out", default: "0" },
        DROPOUT,
    ],
    variants: &[
        Variant {
            function: "graft.Bone",
            about: "y = x·w + s·d, s the sums of the columns of x that agree modulo rank",
            example: &[],
            parameters: "rank·out",
            files: &[D],
            peft: Peft {
                types: &["MISS", "BONE"],
                tells: &[("init_weights", &["true", "false", "null"])],
                settings: &[],
                idle: &["mini_r"],
            },
            opset: 11,
        },
        Variant {
            function: "graft.BoneMini",
            about: "y = x·w + s·d, d repeated to the width of y",
            example: &[("mini", "2")],
            parameters: "rank·mini",
            files: &[D.of(&[Rank, Axis::Setting("mini")]).fed_as("miss_block_mini")],
            peft: Peft {
                types: &["MISS", "BONE"],
                tells: &[("init_weights", &["\"mini\""])],
                settings: &[("mini_r", "mini")],
                idle: &[],
            },
            opset: 11,
        },
    ],
    functions: FUNCTIONS,
    function: |config| Ok(if config.get::<usize>("mini")? == 0 { "graft.Bone" } else { "graft.BoneMini" }),
    parts,
    penalty: |_, _| Ok(Vec::new()),
    schedule: |_| Ok(None),
};

/// The key of the old method `BONE` is read too.
const D: FileForm = FileForm::plain("d", "miss_block").or(&["bone_block"]).of(&[Rank, Axis::Out]);

/// x (…, in), w (in, out), d (rank, out) or (rank, mini); the gradient needs s (tokens, rank). `pads` fills the
/// columns of x up to a multiple of the rank, `blocks` parts them: (0, -1, rank); `tiles` parts those of y:
/// (0, -1, mini); `repeats` are how often d is repeated along both axes to cover w.
const FUNCTIONS: &str = "
Bone <pads, blocks> (x, w, d) => (y, s) {
  base = MatMul (x, w)
  x_2 = Flatten <axis: int = -1> (x)
  pads = Constant <value_ints: ints = @pads> ()
  padded = Pad (x_2, pads)
  blocks = Constant <value_ints: ints = @blocks> ()
  x_3 = Reshape (padded, blocks)
  groups = Constant <value_ints: ints = [1]> ()
  s = ReduceSum <keepdims: int = 0> (x_3, groups)
  up = MatMul (s, d)
  sizes = Shape (base)
  delta = Reshape (up, sizes)
  y = Add (base, delta)
}
BoneGrad <pads, blocks> (dy, x, w, d, s) => (dx, dd) {
  dy_2 = Flatten <axis: int = -1> (dy)
  s_t = Transpose <perm: ints = [1, 0]> (s)
  dd = MatMul (s_t, dy_2)
  d_t = Transpose <perm: ints = [1, 0]> (d)
  ds = MatMul (dy_2, d_t)
  w_t = Transpose <perm: ints = [1, 0]> (w)
  dbase = MatMul (dy_2, w_t)
  pads = Constant <value_ints: ints = @pads> ()
  padded = Pad (dbase, pads)
  blocks = Constant <value_ints: ints = @blocks> ()
  dbase_3 = Reshape (padded, blocks)
  groups = Constant <value_ints: ints = [1]> ()
  ds_3 = Unsqueeze (ds, groups)
  dx_3 = Add (dbase_3, ds_3)
  dx_2 = Flatten <axis: int = 1> (dx_3)
  sizes = Shape (x)
  last = Constant <value_ints: ints = [-1]> ()
  columns = Gather (sizes, last)
  first = Constant <value_ints: ints = [0]> ()
  cropped = Slice (dx_2, first, columns, groups)
  dx = Reshape (cropped, sizes)
}
BoneMerged <repeats> (w, d) => (w_merged) {
  repeats = Constant <value_ints: ints = @repeats> ()
  tiled = Tile (d, repeats)
  first = Constant <value_ints: ints = [0]> ()
  sizes = Shape (w)
  rows = Gather (sizes, first)
  delta = Slice (tiled, first, rows, first)
  w_merged = Add (w, delta)
}
BoneMini <pads, blocks, tiles> (x, w, d) => (y, s) {
  base = MatMul (x, w)
  x_2 = Flatten <axis: int = -1> (x)
  pads = Constant <value_ints: ints = @pads> ()
  padded = Pad (x_2, pads)
  blocks = Constant <value_ints: ints = @blocks> ()
  x_3 = Reshape (padded, blocks)
  groups = Constant <value_ints: ints = [1]> ()
  s = ReduceSum <keepdims: int = 0> (x_3, groups)
  up = MatMul (s, d)
  up_3 = Unsqueeze (up, groups)
  base_2 = Flatten <axis: int = -1> (base)
  tiles = Constant <value_ints: ints = @tiles> ()
  base_3 = Reshape (base_2, tiles)
  sum = Add (base_3, up_3)
  sizes = Shape (base)
  y = Reshape (sum, sizes)
}
BoneMiniGrad <pads, blocks, tiles> (dy, x, w, d, s) => (dx, dd) {
  dy_2 = Flatten <axis: int = -1> (dy)
  tiles = Constant <value_ints: ints = @tiles> ()
  dy_3 = Reshape (dy_2, tiles)
  groups = Constant <value_ints: ints = [1]> ()
  dup = ReduceSum <keepdims: int = 0> (dy_3, groups)
  s_t = Transpose <perm: ints = [1, 0]> (s)
  dd = MatMul (s_t, dup)
  d_t = Transpose <perm: ints = [1, 0]> (d)
  ds = MatMul (dup, d_t)
  w_t = Transpose <perm: ints = [1, 0]> (w)
  dbase = MatMul (dy_2, w_t)
  pads = Constant <value_ints: ints = @pads> ()
  padded = Pad (dbase, pads)
  blocks = Constant <value_ints: ints = @blocks> ()
  dbase_3 = Reshape (padded, blocks)
  ds_3 = Unsqueeze (ds, groups)
  dx_3 = Add (dbase_3, ds_3)
  dx_2 = Flatten <axis: int = 1> (dx_3)
  sizes = Shape (x)
  last = Constant <value_ints: ints = [-1]> ()
  columns = Gather (sizes, last)
  first = Constant <value_ints: ints = [0]> ()
  cropped = Slice (dx_2, first, columns, groups)
  dx = Reshape (cropped, sizes)
}
BoneMiniMerged <repeats> (w, d) => (w_merged) {
  repeats = Constant <value_ints: ints = @repeats> ()
  tiled = Tile (d, repeats)
  first = Constant <value_ints: ints = [0]> ()
  sizes = Shape (w)
  rows = Gather (sizes, first)
  delta = Slice (tiled, first, rows, first)
  w_merged = Add (w, delta)
}
";

fn parts(linear: &Linear, config: &Config) -> Result<Parts> {
    let (rank, d_in, d_out) = (config.rank, linear.d_in, linear.d_out);
    if rank > d_in {
        let message = format!("rank {rank} is more than the {d_in} inputs of `{}`", linear.path);
        return Err(Error::new(Code::METHOD, message)
            .help("choose a smaller rank, or give it one with `rank-pattern`"));
    }
    let mini: usize = config.get("mini")?;
    let columns = if mini == 0 { d_out } else { mini };
    if !d_out.is_multiple_of(columns) {
        return Err(config.bad("mini", &format!("does not divide the {d_out} outputs of `{}`", linear.path)));
    }
    let groups = d_in.div_ceil(rank);
    let ints = |sizes: &[usize]| Attr::Ints(sizes.iter().map(|&n| n as i64).collect());
    let mut attrs = Attrs::new();
    attrs.insert("pads".into(), ints(&[0, 0, 0, groups * rank - d_in]));
    attrs.insert("blocks".into(), Attr::Ints(vec![0, -1, rank as i64]));
    attrs.insert("tiles".into(), Attr::Ints(vec![0, -1, columns as i64]));
    attrs.insert("repeats".into(), ints(&[groups, d_out / columns]));
    Ok(Parts { weights: vec![Weight::trained("d", &[rank, columns], Init::Constant(0.0))], attrs })
}

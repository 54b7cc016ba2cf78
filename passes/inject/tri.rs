//! TriAdaptLoRA: LoRA with a middle matrix that is the sum of a lower and an upper triangular one,
//! `y = x·w + (alpha/rank)·((x·a)·cᵀ)·b`, `c = tril(l) + triu(u)`.
//! <https://arxiv.org/abs/2501.08008>
use super::{
    Config, FileForm, Init, Method, Parts, Peft, Setting, Variant, Weight, growth, lora, method::DROPOUT,
};
use crate::target::Linear;
use graft_ir::Result;

pub(super) const TRI: Method = Method {
    name: "tri",
    paper: "https://arxiv.org/abs/2501.08008",
    rank: 8,
    alpha: Some(16.0),
    settings: &[
        Setting {
            name: "growth",
            about: "how many linears gain ranks at an event: none, linear (⌊gap·q⌋), nonlinear (⌊exp(q·ln gap)⌋) or topk, where q is the share of the steps and gap the ranks that are missing",
            default: "none",
        },
        Setting { name: "target_rank", about: "the mean rank that growth ends at", default: "8" },
        Setting {
            name: "max_rank",
            about: "the largest rank of one linear; 0 for twice the target",
            default: "0",
        },
        Setting { name: "warmup", about: "steps before the first growth", default: "0" },
        Setting { name: "interval", about: "steps between two growths", default: "1" },
        Setting { name: "increment", about: "ranks that a linear gains at once", default: "1" },
        Setting { name: "top", about: "linears that grow at once with topk; 0 for a quarter", default: "0" },
        Setting {
            name: "reg",
            about: "the weight of a penalty on ranks that are not orthonormal, a mean over matrices",
            default: "0",
        },
        Setting {
            name: "init",
            about: "the middle matrix at first: preserve (the identity) or single (small random numbers)",
            default: "preserve",
        },
        DROPOUT,
    ],
    variants: &[Variant {
        function: "graft.Tri",
        about: "y = x·w + (alpha/rank)·((x·a)·cᵀ)·b, c = tril(l) + triu(u)",
        example: &[],
        parameters: "rank·(in + out) + 2·rank·rank",
        files: &[lora::A, lora::B, FileForm::plain("l", "lora_L"), FileForm::plain("u", "lora_U")],
        peft: Peft { types: &["TRIADAPTLORA"], tells: &[], settings: &[], idle: &[] },
        opset: 14,
    }],
    functions: FUNCTIONS,
    function: |_| Ok("graft.Tri"),
    parts,
    penalty: |config, linears| {
        let reg: f64 = config.get("reg")?;
        Ok(if reg == 0.0 { Vec::new() } else { vec![("reg", reg / (2 * linears) as f64)] })
    },
    schedule: |config| Ok(growth::Rule::new(config)?.map(|_| &growth::GROWTH)),
};

/// The standard deviation of the original's initial weights.
const STD: f64 = 0.02;

/// x (…, in), w (in, out), a (in, rank), b (rank, out), l and u (rank, rank), scale a scalar; the gradient needs
/// h = x·a and q = h·cᵀ (…, rank). A rank that does not count yet has b = 0 and c as
/// in the identity, so that it adds nothing, and begins to be trained without changing what the others do.
const FUNCTIONS: &str = "
Tri (x, w, a, b, l, u, scale) => (y, h, q) {
  base = MatMul (x, w)
  h = MatMul (x, a)
  lower = Trilu <upper: int = 0> (l)
  upper = Trilu (u)
  c = Add (lower, upper)
  c_t = Transpose <perm: ints = [1, 0]> (c)
  q = MatMul (h, c_t)
  up = MatMul (q, b)
  delta = Mul (up, scale)
  y = Add (base, delta)
}
TriPenalty (a, b, rank_mask, reg) => (penalty) {
  a_t = Transpose <perm: ints = [1, 0]> (a)
  down = graft.OrthogonalNorm (a_t, rank_mask)
  up = graft.OrthogonalNorm (b, rank_mask)
  sum = Add (down, up)
  penalty = Mul (sum, reg)
}
TriStats (l, u, rank_mask) => (importance) {
  lower = Trilu <upper: int = 0> (l)
  upper = Trilu (u)
  c = Add (lower, upper)
  first = Constant <value_ints: ints = [0]> ()
  second = Constant <value_ints: ints = [1]> ()
  row = Unsqueeze (rank_mask, first)
  column = Unsqueeze (rank_mask, second)
  pairs = Mul (column, row)
  counted = Mul (c, pairs)
  square = ReduceSumSquare <keepdims: int = 0> (counted)
  norm = Sqrt (square)
  size = ReduceSum <keepdims: int = 0> (rank_mask, first)
  importance = Div (norm, size)
}
TriGrad (dy, x, w, a, b, l, u, scale, h, q) => (dx, da, db, dl, du) {
  b_t = Transpose <perm: ints = [1, 0]> (b)
  dup = MatMul (dy, b_t)
  dq = Mul (dup, scale)
  lower = Trilu <upper: int = 0> (l)
  upper = Trilu (u)
  c = Add (lower, upper)
  dh = MatMul (dq, c)
  w_t = Transpose <perm: ints = [1, 0]> (w)
  dbase = MatMul (dy, w_t)
  a_t = Transpose <perm: ints = [1, 0]> (a)
  ddown = MatMul (dh, a_t)
  dx = Add (dbase, ddown)
  x_2 = Flatten <axis: int = -1> (x)
  x_t = Transpose <perm: ints = [1, 0]> (x_2)
  dh_2 = Flatten <axis: int = -1> (dh)
  da = MatMul (x_t, dh_2)
  q_2 = Flatten <axis: int = -1> (q)
  q_t = Transpose <perm: ints = [1, 0]> (q_2)
  dy_2 = Flatten <axis: int = -1> (dy)
  dqb = MatMul (q_t, dy_2)
  db = Mul (dqb, scale)
  dq_2 = Flatten <axis: int = -1> (dq)
  dq_t = Transpose <perm: ints = [1, 0]> (dq_2)
  h_2 = Flatten <axis: int = -1> (h)
  dc = MatMul (dq_t, h_2)
  dl = Trilu <upper: int = 0> (dc)
  du = Trilu (dc)
}
TriMerged (w, a, b, l, u, scale) => (w_merged) {
  lower = Trilu <upper: int = 0> (l)
  upper = Trilu (u)
  c = Add (lower, upper)
  c_t = Transpose <perm: ints = [1, 0]> (c)
  ac = MatMul (a, c_t)
  acb = MatMul (ac, b)
  delta = Mul (acb, scale)
  w_merged = Add (w, delta)
}
";

fn parts(linear: &Linear, config: &Config) -> Result<Parts> {
    let rule = growth::Rule::new(config)?;
    let (rank, divisor) = rule.map_or((config.rank, config.rank), |rule| (rule.max_rank, rule.target));
    let small = || Init::Normal { std: STD };
    let (l, u) = match config.text("init") {
        "preserve" => (Init::Identity, Init::Constant(0.0)),
        "single" => (small(), small()),
        _ => return Err(config.bad("init", "is neither preserve nor single")),
    };
    let weights = vec![
        Weight::trained("a", &[linear.d_in, rank], small()).ranked(&[1]),
        Weight::trained("b", &[rank, linear.d_out], Init::Constant(0.0)).ranked(&[0]),
        Weight::trained("l", &[rank, rank], l).ranked(&[0, 1]),
        Weight::trained("u", &[rank, rank], u).ranked(&[0, 1]),
        Weight::frozen("scale", &[], Init::Constant(config.alpha / divisor as f64)),
    ];
    Ok(Parts { weights, ..Parts::default() })
}

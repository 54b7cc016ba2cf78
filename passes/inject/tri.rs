//! TriAdaptLoRA: LoRA with a middle matrix that is the sum of a lower and an upper triangular one,
//! `y = x·w + (alpha/rank)·((x·a)·cᵀ)·b`, `c = tril(l) + triu(u)`.
//! <https://arxiv.org/abs/2501.08008>
use super::{Config, FileForm, Init, Method, Parts, Peft, Setting, Variant, Weight, lora, method::DROPOUT};
use crate::target::Linear;
use graft_ir::{Code, Error, Result};

pub(super) const TRI: Method = Method {
    name: "tri",
    paper: "https://arxiv.org/abs/2501.08008",
    rank: 8,
    alpha: Some(16.0),
    settings: &[
        Setting { name: "growth", about: "how the rank grows: none", default: "none" },
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
    function: |config| match config.text("growth") {
        "none" => Ok("graft.Tri"),
        _ => Err(Error { code: Code::SETTING, ..config.bad("growth", "is not supported") }),
    },
    parts,
};

/// The standard deviation of the original's initial weights.
const STD: f64 = 0.02;

/// x (…, in), w (in, out), a (in, rank), b (rank, out), l and u (rank, rank), scale a scalar; the gradient needs
/// h = x·a and q = h·cᵀ (…, rank).
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
    let rank = config.rank;
    let small = || Init::Normal { std: STD };
    let (l, u) = match config.text("init") {
        "preserve" => (Init::Identity, Init::Constant(0.0)),
        "single" => (small(), small()),
        _ => return Err(config.bad("init", "is neither preserve nor single")),
    };
    let weights = vec![
        Weight::trained("a", &[linear.d_in, rank], small()),
        Weight::trained("b", &[rank, linear.d_out], Init::Constant(0.0)),
        Weight::trained("l", &[rank, rank], l),
        Weight::trained("u", &[rank, rank], u),
        Weight::frozen("scale", &[], Init::Constant(config.scale())),
    ];
    Ok(Parts { weights, ..Parts::default() })
}

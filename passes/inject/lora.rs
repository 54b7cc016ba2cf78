//! LoRA: `y = x·w + scale·(x·a)·b`, scale = alpha/rank, or alpha/√rank as rsLoRA has it; and DoRA:
//! `y = (x·v)·m/‖v‖` with `v = w + scale·a·b`, whose norm for each output is constant in the gradient.
//! <https://arxiv.org/abs/2106.09685>, <https://arxiv.org/abs/2312.03732>, <https://arxiv.org/abs/2402.09353>
use super::{
    Axis::{In, Out, Rank},
    Config, FileForm, Init, Method, Parts, Peft, Setting, Variant, Weight,
    method::DROPOUT,
};
use crate::target::Linear;
use graft_ir::Result;

pub(super) const LORA: Method = Method {
    name: "lora",
    paper: "https://arxiv.org/abs/2106.09685",
    rank: 8,
    alpha: Some(16.0),
    settings: &[
        Setting { name: "rslora", about: "scale by alpha/√rank", default: "false" },
        Setting {
            name: "dora",
            about: "train the length of each output's weights by itself",
            default: "false",
        },
        DROPOUT,
    ],
    variants: &[
        Variant {
            function: "graft.Lora",
            about: "y = x·w + (alpha/rank)·(x·a)·b; with rslora, alpha/√rank",
            example: &[],
            parameters: "rank·(in + out)",
            files: &[A, B],
            peft: Peft {
                types: &["LORA"],
                tells: &[("use_dora", &["false", "null"])],
                settings: &[("use_rslora", "rslora")],
                idle: &[],
            },
            opset: 11,
        },
        Variant {
            function: "graft.Dora",
            about: "y = (x·v)·m/‖v‖, v = w + (alpha/rank)·a·b, ‖v‖ for each output",
            example: &[("dora", "true")],
            parameters: "rank·(in + out) + out",
            files: &[A, B, M],
            peft: Peft {
                types: &["LORA"],
                tells: &[("use_dora", &["true"])],
                settings: &[("use_rslora", "rslora")],
                idle: &[],
            },
            opset: 11,
        },
    ],
    functions: FUNCTIONS,
    function: |config| Ok(if config.get("dora")? { "graft.Dora" } else { "graft.Lora" }),
    parts,
    penalty: |_, _| Ok(Vec::new()),
    schedule: |_| Ok(None),
};

pub(super) const A: FileForm = FileForm::transposed("a", "lora_A.weight").of(&[In, Rank]);
pub(super) const B: FileForm = FileForm::transposed("b", "lora_B.weight").of(&[Rank, Out]);
const M: FileForm =
    FileForm::plain("m", "lora_magnitude_vector").or(&["lora_magnitude_vector.weight"]).of(&[Out]);

/// x (…, in), w (in, out), a (in, rank), b (rank, out), m (out), scale a scalar; what the gradient needs is h = x·a
/// (…, rank), and in DoRA x·v (…, out) and the norms n (out). With dropout DoRA keeps the base product of x and rescales
/// that of xd, as PEFT does.
const FUNCTIONS: &str = "
Lora (x, w, a, b, scale) => (y, h) {
  base = MatMul (x, w)
  h = MatMul (x, a)
  up = MatMul (h, b)
  delta = Mul (up, scale)
  y = Add (base, delta)
}
LoraGrad (dy, x, w, a, b, scale, h) => (dx, da, db) {
  b_t = Transpose <perm: ints = [1, 0]> (b)
  dup = MatMul (dy, b_t)
  dh = Mul (dup, scale)
  w_t = Transpose <perm: ints = [1, 0]> (w)
  dbase = MatMul (dy, w_t)
  a_t = Transpose <perm: ints = [1, 0]> (a)
  ddown = MatMul (dh, a_t)
  dx = Add (dbase, ddown)
  x_2 = Flatten <axis: int = -1> (x)
  x_t = Transpose <perm: ints = [1, 0]> (x_2)
  dh_2 = Flatten <axis: int = -1> (dh)
  da = MatMul (x_t, dh_2)
  h_2 = Flatten <axis: int = -1> (h)
  h_t = Transpose <perm: ints = [1, 0]> (h_2)
  dy_2 = Flatten <axis: int = -1> (dy)
  dab = MatMul (h_t, dy_2)
  db = Mul (dab, scale)
}
LoraMerged (w, a, b, scale) => (w_merged) {
  ab = MatMul (a, b)
  delta = Mul (ab, scale)
  w_merged = Add (w, delta)
}
Dora (x, w, a, b, m, scale) => (y, h, sum, n) {
  base = MatMul (x, w)
  h = MatMul (x, a)
  up = MatMul (h, b)
  delta = Mul (up, scale)
  sum = Add (base, delta)
  ab = MatMul (a, b)
  change = Mul (ab, scale)
  v = Add (w, change)
  rows = Constant <value_ints: ints = [0]> ()
  norm = ReduceL2 <keepdims: int = 0> (v, rows)
  n = graft.Detach (norm)
  length = Div (m, n)
  y = Mul (sum, length)
}
DoraDropped (x, xd, w, a, b, m, scale) => (y) {
  base = MatMul (x, w)
  seen = MatMul (xd, w)
  h = MatMul (xd, a)
  up = MatMul (h, b)
  delta = Mul (up, scale)
  sum = Add (seen, delta)
  ab = MatMul (a, b)
  change = Mul (ab, scale)
  v = Add (w, change)
  rows = Constant <value_ints: ints = [0]> ()
  norm = ReduceL2 <keepdims: int = 0> (v, rows)
  n = graft.Detach (norm)
  length = Div (m, n)
  turned = Mul (sum, length)
  rest = Sub (turned, seen)
  y = Add (base, rest)
}
DoraGrad (dy, x, w, a, b, m, scale, h, sum, n) => (dx, da, db, dm) {
  length = Div (m, n)
  dsum = Mul (dy, length)
  b_t = Transpose <perm: ints = [1, 0]> (b)
  dup = MatMul (dsum, b_t)
  dh = Mul (dup, scale)
  w_t = Transpose <perm: ints = [1, 0]> (w)
  dbase = MatMul (dsum, w_t)
  a_t = Transpose <perm: ints = [1, 0]> (a)
  ddown = MatMul (dh, a_t)
  dx = Add (dbase, ddown)
  x_2 = Flatten <axis: int = -1> (x)
  x_t = Transpose <perm: ints = [1, 0]> (x_2)
  dh_2 = Flatten <axis: int = -1> (dh)
  da = MatMul (x_t, dh_2)
  h_2 = Flatten <axis: int = -1> (h)
  h_t = Transpose <perm: ints = [1, 0]> (h_2)
  dsum_2 = Flatten <axis: int = -1> (dsum)
  dab = MatMul (h_t, dsum_2)
  db = Mul (dab, scale)
  share = Mul (dy, sum)
  share_2 = Flatten <axis: int = -1> (share)
  tokens = Constant <value_ints: ints = [0]> ()
  total = ReduceSum <keepdims: int = 0> (share_2, tokens)
  dm = Div (total, n)
}
DoraMerged (w, a, b, m, scale) => (w_merged) {
  ab = MatMul (a, b)
  change = Mul (ab, scale)
  v = Add (w, change)
  rows = Constant <value_ints: ints = [0]> ()
  norm = ReduceL2 <keepdims: int = 0> (v, rows)
  length = Div (m, norm)
  w_merged = Mul (v, length)
}
";

fn parts(linear: &Linear, config: &Config) -> Result<Parts> {
    let (rank, d_in, d_out) = (config.rank, linear.d_in, linear.d_out);
    let divisor = if config.get("rslora")? { (rank as f64).sqrt() } else { rank as f64 };
    let mut weights = vec![
        Weight::trained("a", &[d_in, rank], Init::KaimingUniform { fan_in: d_in }),
        Weight::trained("b", &[rank, d_out], Init::Constant(0.0)),
    ];
    if config.get("dora")? {
        weights.push(Weight::trained("m", &[d_out], Init::BaseNorms));
    }
    weights.push(Weight::frozen("scale", &[], Init::Constant(config.alpha / divisor)));
    Ok(Parts { weights, ..Parts::default() })
}

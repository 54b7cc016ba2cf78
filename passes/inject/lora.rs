//! LoRA: `y = x·w + scale·(x·a)·b`, scale = alpha/rank, or alpha/√rank as rsLoRA has it.
//! <https://arxiv.org/abs/2106.09685>, <https://arxiv.org/abs/2312.03732>
use super::{Config, FileForm, Init, Kind, Method, Weight};
use crate::target::Linear;

pub(super) const LORA: Method = Method {
    name: "lora",
    about: "y = x·w + (alpha/rank)·(x·a)·b; with rslora, alpha/√rank",
    paper: "https://arxiv.org/abs/2106.09685",
    kind: Kind::Additive,
    options: &["rslora"],
    functions: FUNCTIONS,
    function: |_| "graft.Lora",
    weights,
    files: &[
        FileForm { role: "a", suffix: "lora_A.weight", is_transposed: true },
        FileForm { role: "b", suffix: "lora_B.weight", is_transposed: true },
    ],
    parameters: "rank·(in + out)",
    opset: 11,
};

/// x (…, in), w (in, out), a (in, rank), b (rank, out), scale a scalar; h = x·a is what the gradient needs.
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
";

fn weights(linear: &Linear, config: &Config) -> graft_ir::Result<Vec<Weight>> {
    let rank = config.rank;
    let divisor = if config.is_on("rslora")? { (rank as f64).sqrt() } else { rank as f64 };
    let weight =
        |role, dims: &[usize], init, is_trainable| Weight { role, dims: dims.to_vec(), init, is_trainable };
    Ok(vec![
        weight("a", &[linear.d_in, rank], Init::KaimingUniform { fan_in: linear.d_in }, true),
        weight("b", &[rank, linear.d_out], Init::Constant(0.0), true),
        weight("scale", &[], Init::Constant(config.alpha / divisor), false),
    ])
}

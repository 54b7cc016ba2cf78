//! SaLoRA: LoRA whose ranks are gated, `y = x·w + (alpha/rank)·((x·a)∘g)·b`. The gates are hard-concrete (Louizos et
//! al.): `g = clip(1.2·t − 0.1, 0, 1)`, `t = σ(gate + ln u − ln(1 − u))` with a uniform draw `u`; u = ½ is the gate that
//! nothing is drawn for. <https://doi.org/10.3390/math11204317>, <https://arxiv.org/abs/1712.01312>
use super::{
    Axis, Config, FileForm, Init, Method, Parts, Peft, Setting, Training, Variant, Weight, gates, lora,
    method::DROPOUT,
};
use crate::target::Linear;
use graft_ir::Result;

pub(super) const SALORA: Method = Method {
    name: "salora",
    paper: "https://doi.org/10.3390/math11204317",
    rank: 8,
    alpha: Some(16.0),
    settings: &[
        Setting { name: "draw", about: "the gates' uniform draws u1:u2:…, held fixed", default: "" },
        Setting {
            name: "target_rank",
            about: "the mean number of open gates that training ends at, the others being cut off; 0 for all",
            default: "0",
        },
        Setting {
            name: "penalty",
            about: "the initial multiplier of (expected open gates − budget)²; with a target 1, else 0",
            default: "",
        },
        Setting {
            name: "orth",
            about: "the weight of a penalty on ranks that are not orthonormal; with a target 0.1, else 0",
            default: "",
        },
        Setting {
            name: "ramp",
            about: "the share of the steps over which the budget falls to the target",
            default: "0.2",
        },
        Setting {
            name: "gate_lr",
            about: "the gates' learning rate as a multiple of the run's",
            default: "1",
        },
        Setting { name: "gate_decay", about: "whether weight decay applies to the gates", default: "true" },
        DROPOUT,
    ],
    variants: &[Variant {
        function: "graft.Salora",
        about: "y = x·w + (alpha/rank)·((x·a)∘g)·b, g = clip(1.2·σ(gate) − 0.1, 0, 1)",
        example: &[],
        parameters: "rank·(in + out) + rank",
        files: &[lora::A, lora::B, FileForm::plain("gate", "lora_gate").of(&[Axis::Rank])],
        peft: Peft {
            types: &["SALORA"],
            tells: &[("beta", &["1.0", "null"]), ("gamma", &["-0.1", "null"]), ("zeta", &["1.1", "null"])],
            settings: &[],
            idle: &[],
        },
        opset: 11,
    }],
    functions: FUNCTIONS,
    function: |_| Ok("graft.Salora"),
    parts,
    penalty: |config, _| {
        let rule = gates::Rule::new(config)?;
        Ok(rule.map_or_else(Vec::new, |rule| vec![("orth", rule.orth)]))
    },
    schedule: |config| Ok(gates::Rule::new(config)?.map(|_| &gates::BUDGET)),
};

/// x (…, in), w (in, out), a (in, rank), b (rank, out), gate and draw (rank), scale a scalar; the gradient needs
/// h = x·a (…, rank), t and g (rank). The stretch 1.2·t − 0.1 is written (12·t − 1)/10, which is exact. A gate
/// is open with the probability σ(gate + ln 11).
const FUNCTIONS: &str = "
Salora (x, w, a, b, gate, draw, scale) => (y, h, t, g) {
  base = MatMul (x, w)
  h = MatMul (x, a)
  one = Constant <value_float: float = 1.0> ()
  rest = Sub (one, draw)
  log_draw = Log (draw)
  log_rest = Log (rest)
  noise = Sub (log_draw, log_rest)
  logit = Add (gate, noise)
  t = Sigmoid (logit)
  twelve = Constant <value_float: float = 12.0> ()
  ten = Constant <value_float: float = 10.0> ()
  wide = Mul (t, twelve)
  shifted = Sub (wide, one)
  stretched = Div (shifted, ten)
  zero = Constant <value_float: float = 0.0> ()
  g = Clip (stretched, zero, one)
  gated = Mul (h, g)
  up = MatMul (gated, b)
  delta = Mul (up, scale)
  y = Add (base, delta)
}
SaloraPenalty (a, b, gate, rank_mask, orth) => (penalty, count) {
  a_t = Transpose <perm: ints = [1, 0]> (a)
  down = graft.OrthogonalGap (a_t, rank_mask)
  up = graft.OrthogonalGap (b, rank_mask)
  gaps = Add (down, up)
  penalty = Mul (gaps, orth)
  odds = Constant <value_float: float = 2.3978953> ()
  shifted = Add (gate, odds)
  open = Sigmoid (shifted)
  counted = Mul (open, rank_mask)
  ranks = Constant <value_ints: ints = [0]> ()
  count = ReduceSum <keepdims: int = 0> (counted, ranks)
}
SaloraBudget (count, lambda, budget) => (penalty) {
  excess = Sub (count, budget)
  square = Mul (excess, excess)
  penalty = Mul (square, lambda)
}
SaloraStats (gate) => (open) {
  odds = Constant <value_float: float = 2.3978953> ()
  shifted = Add (gate, odds)
  open = Sigmoid (shifted)
}
SaloraFolded (b, gate) => (b_folded) {
  t = Sigmoid (gate)
  twelve = Constant <value_float: float = 12.0> ()
  ten = Constant <value_float: float = 10.0> ()
  one = Constant <value_float: float = 1.0> ()
  zero = Constant <value_float: float = 0.0> ()
  wide = Mul (t, twelve)
  shifted = Sub (wide, one)
  stretched = Div (shifted, ten)
  g = Clip (stretched, zero, one)
  columns = Constant <value_ints: ints = [1]> ()
  factor = Unsqueeze (g, columns)
  b_folded = Mul (b, factor)
}
SaloraGrad (dy, x, w, a, b, gate, draw, scale, h, t, g) => (dx, da, db, dgate) {
  b_t = Transpose <perm: ints = [1, 0]> (b)
  dup = MatMul (dy, b_t)
  dgated = Mul (dup, scale)
  dh = Mul (dgated, g)
  w_t = Transpose <perm: ints = [1, 0]> (w)
  dbase = MatMul (dy, w_t)
  a_t = Transpose <perm: ints = [1, 0]> (a)
  ddown = MatMul (dh, a_t)
  dx = Add (dbase, ddown)
  x_2 = Flatten <axis: int = -1> (x)
  x_t = Transpose <perm: ints = [1, 0]> (x_2)
  dh_2 = Flatten <axis: int = -1> (dh)
  da = MatMul (x_t, dh_2)
  gated = Mul (h, g)
  gated_2 = Flatten <axis: int = -1> (gated)
  gated_t = Transpose <perm: ints = [1, 0]> (gated_2)
  dy_2 = Flatten <axis: int = -1> (dy)
  dab = MatMul (gated_t, dy_2)
  db = Mul (dab, scale)
  share = Mul (dgated, h)
  share_2 = Flatten <axis: int = -1> (share)
  tokens = Constant <value_ints: ints = [0]> ()
  dg = ReduceSum <keepdims: int = 0> (share_2, tokens)
  zero = Constant <value_float: float = 0.0> ()
  one = Constant <value_float: float = 1.0> ()
  is_open = Greater (g, zero)
  is_free = Less (g, one)
  moves = And (is_open, is_free)
  falling = Sub (one, t)
  bell = Mul (t, falling)
  twelve = Constant <value_float: float = 12.0> ()
  ten = Constant <value_float: float = 10.0> ()
  steep = Mul (bell, twelve)
  slope = Div (steep, ten)
  dlogit = Mul (dg, slope)
  dgate = Where (moves, dlogit, zero)
}
SaloraMerged (w, a, b, gate, draw, scale) => (w_merged) {
  one = Constant <value_float: float = 1.0> ()
  rest = Sub (one, draw)
  log_draw = Log (draw)
  log_rest = Log (rest)
  noise = Sub (log_draw, log_rest)
  logit = Add (gate, noise)
  t = Sigmoid (logit)
  twelve = Constant <value_float: float = 12.0> ()
  ten = Constant <value_float: float = 10.0> ()
  wide = Mul (t, twelve)
  shifted = Sub (wide, one)
  stretched = Div (shifted, ten)
  zero = Constant <value_float: float = 0.0> ()
  g = Clip (stretched, zero, one)
  gated = Mul (a, g)
  ab = MatMul (gated, b)
  delta = Mul (ab, scale)
  w_merged = Add (w, delta)
}
";

fn parts(linear: &Linear, config: &Config) -> Result<Parts> {
    let rank = config.rank;
    let gate = Weight {
        training: Some(Training { lr: config.get("gate_lr")?, decays: config.get("gate_decay")? }),
        ..Weight::trained("gate", &[rank], Init::Constant(1.0)).ranked(&[0])
    };
    let weights = vec![
        Weight::trained("a", &[linear.d_in, rank], Init::KaimingUniform { fan_in: linear.d_in }).ranked(&[1]),
        Weight::trained("b", &[rank, linear.d_out], Init::Constant(0.0)).ranked(&[0]),
        gate,
        draw(config)?,
        Weight::frozen("scale", &[], Init::Constant(config.scale())),
    ];
    Ok(Parts { weights, ..Parts::default() })
}

/// The gates' draws: those given, or new ones for each step of a training, and ½ elsewhere.
fn draw(config: &Config) -> Result<Weight> {
    let text = config.text("draw");
    if text.is_empty() {
        return Ok(Weight { is_drawn: true, ..Weight::frozen("draw", &[config.rank], Init::Constant(0.5)) });
    }
    let draws: Option<Vec<f64>> = text.split(':').map(|u| u.parse().ok()).collect();
    let inside = |u: &f64| *u > 0.0 && *u < 1.0;
    match draws {
        Some(u) if u.len() == config.rank && u.iter().all(inside) => {
            Ok(Weight::frozen("draw", &[config.rank], Init::Values(u)))
        }
        _ => Err(config.bad("draw", &format!("is not {} numbers between 0 and 1", config.rank))),
    }
}

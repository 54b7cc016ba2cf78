//! TriAdaptLoRA: LoRA with a middle matrix that is the sum of a lower and an upper triangular one,
//! `y = x·w + (alpha/rank)·((x·a)·cᵀ)·b`, `c = tril(l) + triu(u)`.
//! <https://arxiv.org/abs/2501.08008>
use super::{
    Axis::Rank, Config, FileForm, Init, Method, Parts, Peft, Setting, Variant, Weight, growth, lora,
    method::DROPOUT,
};
use crate::{ranks, target::Linear};
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
            about: "how ranks begin: preserve (c the identity, b zero: a new rank changes nothing) or single (all small random numbers, but b zero in those of the beginning; alpha is divided by the ranks that count)",
            default: "preserve",
        },
        DROPOUT,
    ],
    variants: &[
        Variant {
            function: "graft.Tri",
            about: "y = x·w + (alpha/rank)·((x·a)·cᵀ)·b, c = tril(l) + triu(u)",
            example: &[],
            parameters: "rank·(in + out) + 2·rank·rank",
            files: FILES,
            peft: Peft { types: &["TRIADAPTLORA"], tells: &[], settings: &[], idle: &[] },
            opset: 14,
        },
        Variant {
            function: "graft.TriGrown",
            about: "the same where new ranks begin at random: in c only those that count, alpha over their number",
            example: &[("growth", "linear"), ("init", "single"), ("max_rank", "8")],
            parameters: "max_rank·(in + out) + 2·max_rank·max_rank",
            files: FILES,
            peft: Peft { types: &[], tells: &[], settings: &[], idle: &[] },
            opset: 14,
        },
    ],
    functions: FUNCTIONS,
    function: |config| {
        let grows = growth::Rule::new(config)?.is_some();
        Ok(if grows && Start::of(config)? == Start::Single { "graft.TriGrown" } else { "graft.Tri" })
    },
    parts,
    penalty: |config, linears| {
        let reg: f64 = config.get("reg")?;
        Ok(if reg == 0.0 { Vec::new() } else { vec![("reg", reg / (2 * linears) as f64)] })
    },
    schedule: |config| Ok(growth::Rule::new(config)?.map(|_| &growth::GROWTH)),
};

const FILES: &[FileForm] = &[
    lora::A,
    lora::B,
    FileForm::plain("l", "lora_L").of(&[Rank, Rank]),
    FileForm::plain("u", "lora_U").of(&[Rank, Rank]),
];

/// The standard deviation of the original's initial weights.
const STD: f64 = 0.02;

/// x (…, in), w (in, out), a (in, rank), b (rank, out), l and u (rank, rank), scale a scalar; the gradient needs
/// h = x·a and q = h·cᵀ (…, rank). A rank that does not count yet has b = 0 and c as
/// in the identity, so that it adds nothing, and begins to be trained without changing what the others do. In `TriGrown`
/// rank_mask (rank) tells which ranks count, and the others are kept out of c.
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
TriGrown (x, w, a, b, l, u, rank_mask, alpha) => (y) {
  counted_l = graft.Counted (l, rank_mask)
  counted_u = graft.Counted (u, rank_mask)
  axis = Constant <value_ints: ints = [0]> ()
  ranks = ReduceSum <keepdims: int = 0> (rank_mask, axis)
  scale = Div (alpha, ranks)
  base = MatMul (x, w)
  h = MatMul (x, a)
  lower = Trilu <upper: int = 0> (counted_l)
  upper = Trilu (counted_u)
  c = Add (lower, upper)
  c_t = Transpose <perm: ints = [1, 0]> (c)
  q = MatMul (h, c_t)
  up = MatMul (q, b)
  delta = Mul (up, scale)
  y = Add (base, delta)
}
TriGrownMerged (w, a, b, l, u, rank_mask, alpha) => (w_merged) {
  counted_l = graft.Counted (l, rank_mask)
  counted_u = graft.Counted (u, rank_mask)
  axis = Constant <value_ints: ints = [0]> ()
  ranks = ReduceSum <keepdims: int = 0> (rank_mask, axis)
  scale = Div (alpha, ranks)
  lower = Trilu <upper: int = 0> (counted_l)
  upper = Trilu (counted_u)
  c = Add (lower, upper)
  c_t = Transpose <perm: ints = [1, 0]> (c)
  ac = MatMul (a, c_t)
  acb = MatMul (ac, b)
  delta = Mul (acb, scale)
  w_merged = Add (w, delta)
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
  counted = graft.Counted (c, rank_mask)
  square = ReduceSumSquare <keepdims: int = 0> (counted)
  norm = Sqrt (square)
  axis = Constant <value_ints: ints = [0]> ()
  size = ReduceSum <keepdims: int = 0> (rank_mask, axis)
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

/// How ranks begin.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    Preserve,
    Single,
}

impl Start {
    fn of(config: &Config) -> Result<Start> {
        match config.text("init") {
            "preserve" => Ok(Start::Preserve),
            "single" => Ok(Start::Single),
            _ => Err(config.bad("init", "is neither preserve nor single")),
        }
    }
}

fn parts(linear: &Linear, config: &Config) -> Result<Parts> {
    let (rule, start) = (growth::Rule::new(config)?, Start::of(config)?);
    let rank = rule.map_or(config.rank, |rule| rule.max_rank);
    let small = || Init::Normal { std: STD, zeros: 0 };
    let (l, u) = match start {
        Start::Preserve => (Init::Identity, Init::Constant(0.0)),
        Start::Single => (small(), small()),
    };
    // Ranks that count from the beginning change nothing at first.
    let b = match start {
        Start::Preserve => Init::Constant(0.0),
        Start::Single => Init::Normal { std: STD, zeros: config.rank * linear.d_out },
    };
    let mut weights = vec![
        Weight::trained("a", &[linear.d_in, rank], small()).ranked(&[1]),
        Weight::trained("b", &[rank, linear.d_out], b).ranked(&[0]),
        Weight::trained("l", &[rank, rank], l).ranked(&[0, 1]),
        Weight::trained("u", &[rank, rank], u).ranked(&[0, 1]),
    ];
    let scalar = |role, value| Weight::frozen(role, &[], Init::Constant(value));
    match rule {
        Some(_) if start == Start::Single => {
            let counts = (0..rank).map(|k| if k < config.rank { 1.0 } else { 0.0 }).collect();
            weights.push(Weight::frozen(ranks::MASK, &[rank], Init::Values(counts)));
            weights.push(scalar("alpha", config.alpha));
        }
        _ => weights.push(scalar("scale", config.alpha / rule.map_or(rank, |rule| rule.target) as f64)),
    }
    Ok(Parts { weights, ..Parts::default() })
}

//! AdaLoRA: LoRA as a singular value decomposition, `y = x·w + (alpha/rank)·((x·a)∘e)·b`, of which those ranks are kept
//! that matter most to the loss. <https://arxiv.org/abs/2303.10512>
use super::{
    Axis::{In, One, Out, Rank},
    Config, FileForm, Init, Method, Parts, Peft, Setting, Variant, Weight, importance,
    method::{DROPOUT, RANK, STEPS},
};
use crate::target::Linear;
use graft_ir::Result;

pub(super) const ADALORA: Method = Method {
    name: "adalora",
    paper: "https://arxiv.org/abs/2303.10512",
    rank: 12,
    alpha: Some(16.0),
    settings: &[
        Setting { name: "target_rank", about: "the mean rank that is left at the end", default: "8" },
        Setting { name: "init_rank", about: "the rank to begin with", default: RANK },
        Setting { name: "tinit", about: "steps before the first rank is left out", default: "0" },
        Setting { name: "tfinal", about: "steps at the end, in which the ranks stay", default: "0" },
        Setting { name: "interval", about: "steps between two choices of ranks", default: "1" },
        Setting {
            name: "total_step",
            about: "steps that the file tells PEFT of, which asks for them; by default those of the training",
            default: STEPS,
        },
        Setting {
            name: "reg",
            about: "the weight of a penalty on ranks that are not orthonormal, a mean over matrices",
            default: "0",
        },
        DROPOUT,
    ],
    variants: &[Variant {
        function: "graft.AdaLora",
        about: "y = x·w + (alpha/rank)·((x·a)∘e)·b",
        example: &[],
        parameters: "rank·(in + out) + rank",
        files: &[
            FileForm::transposed("a", "lora_A").of(&[In, Rank]),
            FileForm::transposed("b", "lora_B").of(&[Rank, Out]),
            FileForm::transposed("e", "lora_E").of(&[One, Rank]),
        ],
        peft: Peft {
            types: &["ADALORA"],
            tells: &[("beta1", &["0.85", "null"]), ("beta2", &["0.85", "null"])],
            settings: &[
                ("init_r", "init_rank"),
                ("target_r", "target_rank"),
                ("tinit", "tinit"),
                ("tfinal", "tfinal"),
                ("deltaT", "interval"),
                ("total_step", "total_step"),
                ("orth_reg_weight", "reg"),
            ],
            idle: &["use_rslora", "use_dora"],
        },
        opset: 13,
    }],
    functions: FUNCTIONS,
    function: |_| Ok("graft.AdaLora"),
    parts,
    penalty: |config, linears| {
        let reg: f64 = config.get("reg")?;
        Ok(if reg == 0.0 { Vec::new() } else { vec![("reg", reg / (2 * linears) as f64)] })
    },
    schedule: |config| importance::Rule::new(config).map(|_| Some(&importance::BUDGET)),
};

/// What PEFT adds to the rank that it divides alpha by.
const EPSILON: f64 = 1e-5;

/// The standard deviation of initial weights.
const STD: f64 = 0.02;

/// x (…, in), w (in, out), a (in, rank), b (rank, out), e (1, rank), scale a scalar; the gradient needs h = x·a
/// (…, rank). An element's importance is the smoothed |p·dp| times its smoothed deviation; that of a rank is the importance
/// of e plus the means of those of a and b.
const FUNCTIONS: &str = "
AdaLora (x, w, a, b, e, scale) => (y, h) {
  base = MatMul (x, w)
  h = MatMul (x, a)
  q = Mul (h, e)
  up = MatMul (q, b)
  delta = Mul (up, scale)
  y = Add (base, delta)
}
AdaLoraGrad (dy, x, w, a, b, e, scale, h) => (dx, da, db, de) {
  b_t = Transpose <perm: ints = [1, 0]> (b)
  dup = MatMul (dy, b_t)
  dq = Mul (dup, scale)
  dh = Mul (dq, e)
  w_t = Transpose <perm: ints = [1, 0]> (w)
  dbase = MatMul (dy, w_t)
  a_t = Transpose <perm: ints = [1, 0]> (a)
  ddown = MatMul (dh, a_t)
  dx = Add (dbase, ddown)
  x_2 = Flatten <axis: int = -1> (x)
  x_t = Transpose <perm: ints = [1, 0]> (x_2)
  dh_2 = Flatten <axis: int = -1> (dh)
  da = MatMul (x_t, dh_2)
  q = Mul (h, e)
  q_2 = Flatten <axis: int = -1> (q)
  q_t = Transpose <perm: ints = [1, 0]> (q_2)
  dy_2 = Flatten <axis: int = -1> (dy)
  dqb = MatMul (q_t, dy_2)
  db = Mul (dqb, scale)
  share = Mul (dq, h)
  share_2 = Flatten <axis: int = -1> (share)
  tokens = Constant <value_ints: ints = [0]> ()
  de = ReduceSum <keepdims: int = 1> (share_2, tokens)
}
AdaLoraMerged (w, a, b, e, scale) => (w_merged) {
  ae = Mul (a, e)
  aeb = MatMul (ae, b)
  delta = Mul (aeb, scale)
  w_merged = Add (w, delta)
}
AdaLoraPenalty (a, b, rank_mask, reg) => (penalty) {
  a_t = Transpose <perm: ints = [1, 0]> (a)
  down = graft.OrthogonalNorm (a_t, rank_mask)
  up = graft.OrthogonalNorm (b, rank_mask)
  sum = Add (down, up)
  penalty = Mul (sum, reg)
}
AdaLoraStats (a, b, e, da, db, de, mean_a, spread_a, mean_b, spread_b, mean_e, spread_e)
    => (importance, mean_a_next, spread_a_next, mean_b_next, spread_b_next, mean_e_next, spread_e_next) {
  of_a, mean_a_next, spread_a_next = graft.Importance (a, da, mean_a, spread_a)
  of_b, mean_b_next, spread_b_next = graft.Importance (b, db, mean_b, spread_b)
  of_e, mean_e_next, spread_e_next = graft.Importance (e, de, mean_e, spread_e)
  inputs = Constant <value_ints: ints = [0]> ()
  outputs = Constant <value_ints: ints = [1]> ()
  row_a = ReduceMean <keepdims: int = 1> (of_a, inputs)
  column_b = ReduceMean <keepdims: int = 1> (of_b, outputs)
  row_b = Transpose <perm: ints = [1, 0]> (column_b)
  both = Add (row_a, row_b)
  importance = Add (of_e, both)
}
";

fn parts(linear: &Linear, config: &Config) -> Result<Parts> {
    let rank = importance::Rule::new(config)?.rank;
    let small = || Init::Normal { std: STD, zeros: 0 };
    let weights = vec![
        Weight::trained("a", &[linear.d_in, rank], small()),
        Weight::trained("b", &[rank, linear.d_out], small()),
        Weight::trained("e", &[1, rank], Init::Constant(0.0)),
        Weight::frozen("scale", &[], Init::Constant(config.alpha / (rank as f64 + EPSILON))),
    ];
    Ok(Parts { weights, ..Parts::default() })
}

//! HydraLoRA: `y = x·w + (alpha/rank)·Σₕ pₕ·(x·a)·bₕ`: one shared `a`, several heads `b`, and for each token the
//! probabilities `p = softmax(x·router)` of the heads. What it adds depends on the input, so it cannot be merged.
//! <https://arxiv.org/abs/2404.19245>
use super::{
    Axis::{self, In, Out, Rank},
    Config, FileForm, Init, Method, Parts, Peft, Setting, Variant, Weight,
    lora::A,
    method::DROPOUT,
};
use crate::target::Linear;
use graft_ir::Result;

pub(super) const HYDRA: Method = Method {
    name: "hydra",
    paper: "https://arxiv.org/abs/2404.19245",
    rank: 8,
    alpha: Some(16.0),
    settings: &[
        Setting {
            name: "experts",
            about: "the number of heads; training takes `auto`: as many as the text has kinds",
            default: "3",
        },
        Setting {
            name: "balance",
            about: "the weight of a penalty on routing most tokens to few heads, a mean over linears",
            default: "0",
        },
        DROPOUT,
    ],
    variants: &[Variant {
        function: "graft.Hydra",
        about: "y = x·w + (alpha/rank)·Σₕ pₕ·(x·a)·bₕ, p = softmax(x·router)",
        example: &[],
        parameters: "rank·in + experts·rank·out + experts·in",
        files: &[
            A,
            FileForm::transposed("b", "lora_B{}.weight")
                .of(&[Axis::Setting("experts"), Rank, Out])
                .fed_as("lora_B.weight"),
            FileForm::transposed("router", "lora_route.weight").of(&[In, Axis::Setting("experts")]),
        ],
        peft: Peft {
            types: &["LORA"],
            tells: &[
                ("lora_nums", &[]),
                ("use_dora", &["false", "null"]),
                ("use_rslora", &["false", "null"]),
            ],
            settings: &[("lora_nums", "experts")],
            idle: &["merge_weights", "enable_lora"],
        },
        opset: 13,
    }],
    functions: FUNCTIONS,
    function: |_| Ok("graft.Hydra"),
    parts,
    penalty: |config, linears| {
        let balance: f64 = config.get("balance")?;
        Ok(if balance == 0.0 { Vec::new() } else { vec![("balance", balance / linears as f64)] })
    },
    schedule: |_| Ok(None),
};

/// x (…, in), w (in, out), a (in, rank), b (heads, rank, out), router (in, heads), scale a scalar; the gradient needs
/// h = x·a (…, rank) and p (…, heads). Nothing of the size tokens × heads × out is made. Dropout does
/// not touch what the router reads; all heads share its mask. The balance penalty is
/// Σ over heads of their mean probability times the fraction of tokens that prefer them, which is constant in the
/// gradient; padding counts as tokens do.
const FUNCTIONS: &str = r#"
Hydra (x, w, a, b, router, scale) => (y, h, p) {
  base = MatMul (x, w)
  h = MatMul (x, a)
  logits = MatMul (x, router)
  p = Softmax <axis: int = -1> (logits)
  up = Einsum <equation: string = "...h,...r,hro->...o"> (p, h, b)
  delta = Mul (up, scale)
  y = Add (base, delta)
}
HydraDropped (x, xd, w, a, b, router, scale) => (y) {
  base = MatMul (x, w)
  h = MatMul (xd, a)
  logits = MatMul (x, router)
  p = Softmax <axis: int = -1> (logits)
  up = Einsum <equation: string = "...h,...r,hro->...o"> (p, h, b)
  delta = Mul (up, scale)
  y = Add (base, delta)
}
HydraPenalty (x, router, balance) => (penalty) {
  logits = MatMul (x, router)
  p = Softmax <axis: int = -1> (logits)
  p_2 = Flatten <axis: int = -1> (p)
  tokens = Constant <value_ints: ints = [0]> ()
  share = ReduceMean <keepdims: int = 0> (p_2, tokens)
  best = ArgMax <axis: int = -1, keepdims: int = 0> (p_2)
  sizes = Shape (p_2)
  last = Constant <value_int: int = 1> ()
  heads = Gather (sizes, last)
  bounds = Constant <value_floats: floats = [0.0, 1.0]> ()
  chosen = OneHot <axis: int = -1> (best, heads, bounds)
  count = ReduceMean <keepdims: int = 0> (chosen, tokens)
  fraction = graft.Detach (count)
  both = Mul (share, fraction)
  sum = ReduceSum <keepdims: int = 0> (both, tokens)
  penalty = Mul (sum, balance)
}
HydraGrad (dy, x, w, a, b, router, scale, h, p) => (dx, da, db, drouter) {
  dup = Mul (dy, scale)
  dheads = Einsum <equation: string = "...o,hro->...hr"> (dup, b)
  dh = Einsum <equation: string = "...hr,...h->...r"> (dheads, p)
  dp = Einsum <equation: string = "...hr,...r->...h"> (dheads, h)
  weighted = Mul (dp, p)
  heads = Constant <value_ints: ints = [-1]> ()
  mean = ReduceSum (weighted, heads)
  excess = Sub (dp, mean)
  dlogits = Mul (p, excess)
  w_t = Transpose <perm: ints = [1, 0]> (w)
  dbase = MatMul (dy, w_t)
  a_t = Transpose <perm: ints = [1, 0]> (a)
  ddown = MatMul (dh, a_t)
  router_t = Transpose <perm: ints = [1, 0]> (router)
  droute = MatMul (dlogits, router_t)
  dsum = Add (dbase, ddown)
  dx = Add (dsum, droute)
  x_2 = Flatten <axis: int = -1> (x)
  x_t = Transpose <perm: ints = [1, 0]> (x_2)
  dh_2 = Flatten <axis: int = -1> (dh)
  da = MatMul (x_t, dh_2)
  dlogits_2 = Flatten <axis: int = -1> (dlogits)
  drouter = MatMul (x_t, dlogits_2)
  p_2 = Flatten <axis: int = -1> (p)
  h_2 = Flatten <axis: int = -1> (h)
  dup_2 = Flatten <axis: int = -1> (dup)
  db = Einsum <equation: string = "th,tr,to->hro"> (p_2, h_2, dup_2)
}
"#;

fn parts(linear: &Linear, config: &Config) -> Result<Parts> {
    let (rank, d_in, d_out) = (config.rank, linear.d_in, linear.d_out);
    let experts: usize = config.get("experts")?;
    if experts == 0 {
        return Err(config.bad("experts", "is not a positive number"));
    }
    let kaiming = || Init::KaimingUniform { fan_in: d_in };
    let weights = vec![
        Weight::trained("a", &[d_in, rank], kaiming()),
        Weight::trained("b", &[experts, rank, d_out], Init::Constant(0.0)),
        Weight::trained("router", &[d_in, experts], kaiming()),
        Weight::frozen("scale", &[], Init::Constant(config.scale())),
    ];
    Ok(Parts { weights, ..Parts::default() })
}

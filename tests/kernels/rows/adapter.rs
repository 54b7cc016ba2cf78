//! Adapted linears and their gradients.
use super::Row;
use crate::{
    case::{Bound, Case},
    draw::Draw,
};
use graft_ir::{Array, Attr};

pub(super) const ROWS: &[Row] = &[
    ("graft.AdaLora", adalora),
    ("graft.AdaLoraGrad", adalora_grad),
    ("graft.BatCol", |d| bat(d, Layout::Col)),
    ("graft.BatColGrad", |d| bat_grad(d, Layout::Col)),
    ("graft.BatLeft", |d| bat(d, Layout::Left)),
    ("graft.BatLeftGrad", |d| bat_grad(d, Layout::Left)),
    ("graft.BatRow", |d| bat(d, Layout::Row)),
    ("graft.BatRowGrad", |d| bat_grad(d, Layout::Row)),
    ("graft.Bone", |d| bone(d, false)),
    ("graft.BoneGrad", |d| bone_grad(d, false)),
    ("graft.BoneMini", |d| bone(d, true)),
    ("graft.BoneMiniGrad", |d| bone_grad(d, true)),
    ("graft.Dora", dora),
    ("graft.DoraGrad", dora_grad),
    ("graft.Hydra", hydra),
    ("graft.HydraGrad", hydra_grad),
    ("graft.Lora", lora),
    ("graft.LoraGrad", lora_grad),
    ("graft.Salora", salora),
    ("graft.SaloraGrad", salora_grad),
    ("graft.Tri", tri),
    ("graft.TriGrad", tri_grad),
];

/// Activation sizes (…, width) and the sizes of the weights.
struct Sizes {
    rows: Vec<usize>,
    d_in: usize,
    d_out: usize,
    rank: usize,
}

impl Sizes {
    fn draw(d: &mut Draw) -> Sizes {
        let n_axes = 1 + d.below(2);
        let rows = d.sizes(n_axes);
        Sizes {
            rows: d.long.map_or(rows, |tokens| vec![tokens]),
            d_in: d.size(),
            d_out: d.size(),
            rank: d.pick(&[1, 2, 4, 8, 16]),
        }
    }
    fn wide(&self, width: usize) -> Vec<usize> {
        self.rows.iter().copied().chain([width]).collect()
    }
    /// Roundings of a result: each sum over rows, inputs, outputs and ranks adds one for each term.
    fn terms(&self) -> f64 {
        (self.rows.iter().product::<usize>() + self.d_in + self.d_out + self.rank + 8) as f64
    }
    fn bound(&self) -> Bound {
        Bound::Terms(self.terms())
    }
    /// The bound where what is summed are no products of the operands themselves: gates, probabilities.
    fn loose(&self) -> Bound {
        Bound::Largest(8.0 * self.terms())
    }
}

/// x, w, a, b, scale.
fn operands(s: &Sizes, d: &mut Draw) -> [Array; 5] {
    [
        d.floats(&s.wide(s.d_in), -1.0, 1.0),
        d.floats(&[s.d_in, s.d_out], -1.0, 1.0),
        d.floats(&[s.d_in, s.rank], -1.0, 1.0),
        d.floats(&[s.rank, s.d_out], -1.0, 1.0),
        d.floats(&[], -2.0, 2.0),
    ]
}

fn lora(d: &mut Draw) -> Case {
    let s = Sizes::draw(d);
    Case::new(s.bound(), operands(&s, d)).results(2)
}

fn lora_grad(d: &mut Draw) -> Case {
    let s = Sizes::draw(d);
    let dy = d.floats(&s.wide(s.d_out), -1.0, 1.0);
    let h = d.floats(&s.wide(s.rank), -1.0, 1.0);
    let forward = operands(&s, d);
    Case::new(s.bound(), [dy].into_iter().chain(forward).chain([h])).results(3)
}

/// Row-major activations of the rank's width.
fn saved(s: &Sizes, d: &mut Draw) -> Array {
    d.floats(&s.wide(s.rank), -1.0, 1.0)
}

/// `dy`, the operands of the forward function, and what it saved.
fn backward(s: &Sizes, forward: Vec<Array>, saved: Vec<Array>, bound: Bound, d: &mut Draw) -> Case {
    let dy = d.floats(&s.wide(s.d_out), -1.0, 1.0);
    Case::new(bound, [dy].into_iter().chain(forward).chain(saved))
}

/// The operands of [`operands`] with others before the scale.
fn with(s: &Sizes, others: impl IntoIterator<Item = Array>, d: &mut Draw) -> Vec<Array> {
    let [x, w, a, b, scale] = operands(s, d);
    [x, w, a, b].into_iter().chain(others).chain([scale]).collect()
}

fn tri_operands(s: &Sizes, d: &mut Draw) -> Vec<Array> {
    let triangles = [0, 1].map(|_| d.floats(&[s.rank, s.rank], -1.0, 1.0));
    with(s, triangles, d)
}

fn tri(d: &mut Draw) -> Case {
    let s = Sizes::draw(d);
    Case::new(s.bound(), tri_operands(&s, d)).results(3)
}

fn tri_grad(d: &mut Draw) -> Case {
    let s = Sizes::draw(d);
    let (forward, kept) = (tri_operands(&s, d), vec![saved(&s, d), saved(&s, d)]);
    backward(&s, forward, kept, s.bound(), d).results(5)
}

fn adalora(d: &mut Draw) -> Case {
    let s = Sizes::draw(d);
    let e = d.floats(&[1, s.rank], -2.0, 2.0);
    Case::new(s.loose(), with(&s, [e], d)).results(2)
}

fn adalora_grad(d: &mut Draw) -> Case {
    let s = Sizes::draw(d);
    let e = d.floats(&[1, s.rank], -2.0, 2.0);
    let (forward, h) = (with(&s, [e], d), saved(&s, d));
    backward(&s, forward, vec![h], s.bound(), d).results(4)
}

fn salora_operands(s: &Sizes, d: &mut Draw) -> Vec<Array> {
    let gates = [d.floats(&[s.rank], -6.0, 6.0), d.floats(&[s.rank], 0.01, 0.99)];
    with(s, gates, d)
}

fn salora(d: &mut Draw) -> Case {
    let s = Sizes::draw(d);
    Case::new(s.loose(), salora_operands(&s, d)).results(4)
}

fn salora_grad(d: &mut Draw) -> Case {
    let s = Sizes::draw(d);
    let t = d.floats(&[s.rank], 0.0, 1.0);
    // Some gates are shut, some wholly open.
    let gates = (0..s.rank).map(|_| d.pick(&[0.0, 0.25, 0.625, 1.0])).collect();
    let g = Array::float(graft_ir::DType::Float, vec![s.rank], gates);
    let (forward, h) = (salora_operands(&s, d), saved(&s, d));
    backward(&s, forward, vec![h, t, g], s.bound(), d).results(4)
}

/// x, w, a, b, router, scale, and the number of heads.
fn hydra_operands(s: &Sizes, d: &mut Draw) -> (Vec<Array>, usize) {
    let heads = 1 + d.below(4);
    let [x, w, a, _, scale] = operands(s, d);
    let b = d.floats(&[heads, s.rank, s.d_out], -1.0, 1.0);
    let router = d.floats(&[s.d_in, heads], -1.0, 1.0);
    (vec![x, w, a, b, router, scale], heads)
}

fn hydra(d: &mut Draw) -> Case {
    let s = Sizes::draw(d);
    Case::new(s.loose(), hydra_operands(&s, d).0).results(3)
}

fn hydra_grad(d: &mut Draw) -> Case {
    let s = Sizes::draw(d);
    let (forward, heads) = hydra_operands(&s, d);
    let kept = vec![saved(&s, d), d.floats(&s.wide(heads), 0.0, 1.0)];
    backward(&s, forward, kept, s.loose(), d).results(4)
}

/// x, w, d for a rank that need not divide the inputs, and the attributes of the function; there is at least one token.
fn bone_operands(d: &mut Draw, mini: bool) -> (Sizes, Vec<Array>, Vec<(&'static str, Attr)>) {
    let mut s = Sizes::draw(d);
    s.rows.iter_mut().for_each(|n| *n = (*n).max(1));
    let (tiles, width) = if mini { (1 + d.below(4), d.positive()) } else { (1, d.positive()) };
    (s.d_in, s.d_out) = (s.d_in.max(1), tiles * width);
    s.rank = s.rank.min(s.d_in);
    let operands = vec![
        d.floats(&s.wide(s.d_in), -1.0, 1.0),
        d.floats(&[s.d_in, s.d_out], -1.0, 1.0),
        d.floats(&[s.rank, width], -1.0, 1.0),
    ];
    let pad = s.d_in.next_multiple_of(s.rank) - s.d_in;
    let mut attrs = vec![
        ("pads", Attr::Ints(vec![0, 0, 0, pad as i64])),
        ("blocks", Attr::Ints(vec![0, -1, s.rank as i64])),
    ];
    if mini {
        attrs.push(("tiles", Attr::Ints(vec![0, -1, width as i64])));
    }
    (s, operands, attrs)
}

fn bone(d: &mut Draw, mini: bool) -> Case {
    let (s, operands, attrs) = bone_operands(d, mini);
    Case { attrs, ..Case::new(s.bound(), operands).results(2) }
}

fn bone_grad(d: &mut Draw, mini: bool) -> Case {
    let (s, operands, attrs) = bone_operands(d, mini);
    let kept = d.floats(&[s.rows.iter().product(), s.rank], -1.0, 1.0);
    Case { attrs, ..backward(&s, operands, vec![kept], s.bound(), d).results(2) }
}

/// x, w, a, b, m, scale; no output has a norm near 0, where the length is ill-conditioned.
fn dora_operands(s: &Sizes, d: &mut Draw) -> Vec<Array> {
    let m = d.floats(&[s.d_out], 0.5, 2.0);
    let mut operands = with(s, [m], d);
    operands[1] = d.floats(&[s.d_in, s.d_out], 1.0, 2.0);
    operands[3] = d.floats(&[s.rank, s.d_out], -0.02, 0.02);
    operands
}

fn dora_sizes(d: &mut Draw) -> Sizes {
    let mut s = Sizes::draw(d);
    s.d_in = s.d_in.max(1);
    s
}

fn dora(d: &mut Draw) -> Case {
    let s = dora_sizes(d);
    Case::new(s.loose(), dora_operands(&s, d)).results(4)
}

fn dora_grad(d: &mut Draw) -> Case {
    let s = dora_sizes(d);
    let (sum, n) = (d.floats(&s.wide(s.d_out), -1.0, 1.0), d.floats(&[s.d_out], 0.5, 4.0));
    let (forward, h) = (dora_operands(&s, d), saved(&s, d));
    backward(&s, forward, vec![h, sum, n], s.bound(), d).results(4)
}

/// Which side of a block of the weight a Bat matrix acts on.
#[derive(Clone, Copy, PartialEq)]
enum Layout {
    Col,
    Row,
    Left,
}

/// Sizes that the rank divides, x, w, d, and the attributes of the function; there is at least one token.
fn bat_operands(d: &mut Draw, layout: Layout) -> (Sizes, Vec<Array>, Vec<(&'static str, Attr)>) {
    let mut s = Sizes::draw(d);
    s.rows.iter_mut().for_each(|n| *n = (*n).max(1));
    let [mut blocks_in, blocks_out] = [0, 1].map(|_| 1 + d.below(5));
    if let Some(inputs) = d.long {
        (s.rows, blocks_in) = (vec![5], inputs / s.rank);
    }
    (s.d_in, s.d_out) = (blocks_in * s.rank, blocks_out * s.rank);
    let blocks = if layout == Layout::Row { blocks_in } else { blocks_out };
    let operands = vec![
        d.floats(&s.wide(s.d_in), -1.0, 1.0),
        d.floats(&[s.d_in, s.d_out], -1.0, 1.0),
        d.floats(&[blocks, s.rank, s.rank], -1.0, 1.0),
    ];
    let view = [blocks_in, s.rank, blocks_out, s.rank].map(|n| n as i64).to_vec();
    let attr = match layout {
        Layout::Col => ("view", Attr::Ints(view)),
        Layout::Row | Layout::Left => ("blocks", Attr::Ints(vec![0, -1, s.rank as i64])),
    };
    (s, operands, vec![attr])
}

fn bat(d: &mut Draw, layout: Layout) -> Case {
    let (s, operands, attrs) = bat_operands(d, layout);
    let n_results = if layout == Layout::Left { 2 } else { 1 };
    Case { attrs, ..Case::new(s.bound(), operands).results(n_results) }
}

fn bat_grad(d: &mut Draw, layout: Layout) -> Case {
    let (s, operands, attrs) = bat_operands(d, layout);
    let tokens = s.rows.iter().product();
    let u = (layout == Layout::Left).then(|| d.floats(&[s.d_out / s.rank, tokens, s.rank], -1.0, 1.0));
    Case { attrs, ..backward(&s, operands, u.into_iter().collect(), s.bound(), d).results(2) }
}

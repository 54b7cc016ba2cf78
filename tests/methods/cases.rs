//! The methods' variants with settings, networks that they are put on, and how those are run.
use graft_ir::{
    Array, Data, Graph, Node, Precision, Tensor, Type, Value,
    eval::{difference, eval},
    parse, random,
    text::{PrintOptions, print},
};
use graft_passes::{
    ALL, Context, inject,
    inject::{Config, Init, METHODS, Method, Variant},
    meta, pipeline, target,
};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A two-layer network with a linear of every layout that takes adapters. `batch`, `seq` stay symbolic.
pub(crate) fn base(form: Form) -> Graph {
    let Form { d_in, hidden, d_out, .. } = form;
    let second = match form.layout {
        Layout::InOut => "s = MatMul (t, w2)\n  y = Add (s, b2)",
        Layout::Gemm => "f = Flatten <axis = 2> (t)\n  y = Gemm <alpha = 1.5> (f, w2, b2)",
        Layout::GemmTransposed => "f = Flatten <axis = 2> (t)\n  y = Gemm <transB = 1> (f, w2, b2)",
        Layout::BehindTranspose => {
            "w2_t = Transpose <perm = [1, 0]> (w2)\n  s = MatMul (t, w2_t)\n  y = Add (s, b2)"
        }
    };
    let (rows, columns) = match form.layout {
        Layout::InOut | Layout::Gemm => (hidden, d_out),
        Layout::GemmTransposed | Layout::BehindTranspose => (d_out, hidden),
    };
    let rank =
        if matches!(form.layout, Layout::InOut | Layout::BehindTranspose) { "batch, seq" } else { "rows" };
    let text = format!(
        "<ir_version: 10, opset_import: [\"\" : 17]>
g (float[batch, seq, {d_in}] x) => (float[{rank}, {d_out}] y) <
  float[{d_in}, {hidden}] w1, float[{hidden}] b1, float[{rows}, {columns}] w2, float[{d_out}] b2
> {{
  [\"/first/MatMul\"] h = MatMul (x, w1)
  [\"/first/Add\"] a = Add (b1, h)
  t = Tanh (a)
  {second}
}}"
    );
    let mut graph = parse(&text).unwrap();
    randomise(&mut graph, form.seed);
    graph
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Layout {
    InOut,
    Gemm,
    GemmTransposed,
    BehindTranspose,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    pub(crate) batch: usize,
    pub(crate) seq: usize,
    pub(crate) d_in: usize,
    pub(crate) hidden: usize,
    pub(crate) d_out: usize,
    pub(crate) rank: usize,
    pub(crate) layout: Layout,
    pub(crate) seed: u64,
}

/// A variant of a method, and settings that ask for it.
pub(crate) struct Case {
    pub(crate) method: &'static Method,
    pub(crate) variant: &'static Variant,
    pub(crate) settings: Vec<(String, String)>,
}

/// Settings that change what a variant computes or begins with, besides those that choose it.
pub(crate) const MORE: &[(&str, &[(&str, &str)])] = &[
    ("lora", &[("rslora", "true")]),
    ("lora", &[("rslora", "true"), ("dora", "true")]),
    ("hydra", &[("experts", "1")]),
    ("salora", &[("draw", "0.3:0.6"), ("gate_lr", "10"), ("gate_decay", "false")]),
    ("tri", &[("init", "single")]),
];

/// Every variant of every method, and then `MORE`.
pub(crate) fn cases() -> Vec<Case> {
    let owned =
        |settings: &[(&str, &str)]| settings.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let case = |method: &'static Method, settings: &[(&str, &str)]| {
        let settings: Vec<(String, String)> = owned(settings);
        let config = Config::new(method, 2, 3.0, settings.clone());
        Case { method, variant: method.variant(&config).unwrap(), settings }
    };
    let variants = METHODS.iter().flat_map(|m| m.variants.iter().map(move |v| case(m, v.example)));
    variants.chain(MORE.iter().map(|(name, settings)| case(Method::named(name).unwrap(), settings))).collect()
}

impl Case {
    /// The form with sizes that the variant can take.
    pub(crate) fn fitted(&self, form: Form) -> Form {
        let rank = if self.settings.iter().any(|(k, _)| k == "draw") { 2 } else { form.rank };
        let (least, unit) = match (self.method.name, self.variant.function) {
            ("bat", _) => (1, rank),
            (_, "graft.BoneMini") => (rank, 2),
            ("bone", _) => (rank, 1),
            _ => (1, 1),
        };
        let up = |n: usize| n.max(least).div_ceil(unit) * unit;
        Form { rank, d_in: up(form.d_in), hidden: up(form.hidden), d_out: up(form.d_out), ..form }
    }
    /// The function that `fuse` finds in it: its own, or that of the variant that it contains.
    pub(crate) fn fused(&self) -> &'static str {
        if self.variant.gradient().is_some() {
            self.variant.function
        } else {
            self.method.variants[0].function
        }
    }
    /// The options of `inject` and `merge`.
    pub(crate) fn options(&self, form: Form) -> String {
        let alpha = if self.method.alpha.is_some() { ",alpha=3" } else { "" };
        let settings: String = self.settings.iter().map(|(k, v)| format!(",{k}={v}")).collect();
        format!("method={},rank={}{alpha}{settings},targets=re:.*", self.method.name, form.rank)
    }
    pub(crate) fn inject(&self, form: Form) -> String {
        format!("inject{{{}}}", self.options(form))
    }
    pub(crate) fn training(&self, form: Form) -> String {
        format!("inject{{{},training=true}}", self.options(form))
    }
    /// How far an adapter at its initial state may put a result of `base`, by rounding alone: the norms that it begins
    /// with are rounded to `float`, and some more roundings follow where all is; a rewritten linear multiplies its
    /// weight by `alpha`, not its result.
    pub(crate) fn rounding(&self, base: &Graph, layout: Layout, precision: Precision, result: &Array) -> f64 {
        let linear = &target::targets(&self::base(PLAIN)).unwrap()[0];
        let config = Config::new(self.method, 2, 3.0, self.settings.clone());
        let weights = (self.method.parts)(linear, &config).unwrap().weights;
        let roundings = if precision == Precision::Exact { 1.0 } else { 16.0 };
        match (weights.iter().any(|w| w.init == Init::BaseNorms), layout) {
            (true, _) => roundings * weight_rounding(base),
            (false, Layout::Gemm) => {
                1e-12 * result.floats().unwrap().iter().fold(1e-3, |l, y| y.abs().max(l))
            }
            _ => 0.0,
        }
    }
    pub(crate) fn label(&self) -> String {
        format!("{} {:?}", self.variant.function, self.settings)
    }
}

pub(crate) const PLAIN: Form =
    Form { batch: 1, seq: 2, d_in: 4, hidden: 4, d_out: 2, rank: 2, layout: Layout::Gemm, seed: 1 };

prop_compose! {
    pub(crate) fn forms()(
        (batch, seq, d_in) in (1usize..3, 1usize..4, 1usize..7),
        (hidden, d_out, rank) in (1usize..7, 1usize..7, 1usize..4),
        layout in prop::sample::select(vec![
            Layout::InOut, Layout::Gemm, Layout::GemmTransposed, Layout::BehindTranspose,
        ]),
        seed in 0u64..1000,
    ) -> Form {
        Form { batch, seq, d_in, hidden, d_out, rank, layout, seed }
    }
}

/// Gives every param random data in ±1.
pub(crate) fn randomise(graph: &mut Graph, seed: u64) {
    for (i, p) in graph.params.clone().into_iter().enumerate() {
        let dims = graph[p].ty.as_ref().and_then(Type::sizes).unwrap();
        graph[p].tensor = Some(noise(&dims, seed, i as u64).to_tensor().unwrap());
    }
}

pub(crate) fn noise(dims: &[usize], seed: u64, id: u64) -> Array {
    let n: usize = dims.iter().product();
    let draw = |i| 2.0 * f64::from(random::uniform(seed, 7, id, i as u64)) - 1.0;
    Array::float(graft_ir::DType::Float, dims.to_vec(), (0..n).map(draw).collect())
}

/// What passes make, with trained weights as inputs that can be fed.
pub(crate) fn run(spec: &str, graph: &Graph, adapter: Option<&BTreeMap<String, Tensor>>) -> Graph {
    let mut made = try_run(spec, graph, adapter).unwrap_or_else(|e| panic!("{spec}: {e}"));
    for weight in inject::trainable(&made) {
        if !made.inputs.contains(&weight) {
            made.inputs.push(weight);
        }
    }
    made
}

/// What passes make.
pub(crate) fn plain(spec: &str, graph: &Graph) -> Graph {
    try_run(spec, graph, None).unwrap_or_else(|e| panic!("{spec}: {e}"))
}

pub(crate) fn try_run(
    spec: &str,
    graph: &Graph,
    adapter: Option<&BTreeMap<String, Tensor>>,
) -> graft_ir::Result<Graph> {
    let mut ctx = Context { log: &mut |_| {}, has_kernel: &|_, _| true, adapter, seed: 3 };
    pipeline::run(ALL, &pipeline::parse(spec)?, graph, &mut ctx, &mut |_| {})
}

/// The graph as text, weights included.
pub(crate) fn whole_text(graph: &Graph) -> String {
    print(graph, PrintOptions { weight_elements: usize::MAX, ..PrintOptions::default() })
}

/// Random feeds for every input of `graph` by name, adapters' weights included.
pub(crate) fn feeds(graph: &Graph, form: Form) -> Vec<Option<Array>> {
    let size = |d: &graft_ir::Dim| {
        d.as_size().unwrap_or(match d.to_string().as_str() {
            "batch" => form.batch,
            "seq" => form.seq,
            _ => form.batch * form.seq,
        })
    };
    let feed = |(i, &v): (usize, &Value)| {
        let dims: Vec<usize> = graph.shape(v).unwrap().iter().map(size).collect();
        // What is not trained stays what the method made it.
        let is_frozen = graph.is_param(v) && !graph[v].meta.contains_key(meta::TRAINABLE);
        // The seed and the step of what training draws.
        if graph.dtype(v) == Some(graft_ir::DType::Int64) {
            return Some(Array::int(graft_ir::DType::Int64, dims, vec![form.seed as i64 + i as i64]));
        }
        (!is_frozen).then(|| noise(&dims, form.seed ^ 0xfeed, i as u64))
    };
    graph.inputs.iter().enumerate().map(feed).collect()
}

pub(crate) fn exact(graph: &Graph, feeds: &[Option<Array>]) -> Vec<Array> {
    eval(graph, feeds, Precision::Exact).unwrap()
}

/// The largest difference, relative to the largest magnitude.
pub(crate) fn apart(a: &Array, b: &Array) -> f64 {
    let (worst, largest) = difference(a, b).expect("equal shapes");
    worst / largest.max(1e-3)
}

pub(crate) fn output(graph: &Graph, results: &[Array], name: &str) -> Array {
    let i = graph.outputs.iter().position(|&v| graph.name(v) == name);
    results[i.unwrap_or_else(|| panic!("no output `{name}`"))].clone()
}

/// What rounding weights to `float` once, or by as much, can change in the output of [`base`]: half a unit in the last place of
/// each, passed on by inputs and activations of at most 1. Relative to the output there is no bound: its terms may cancel.
pub(crate) fn weight_rounding(graph: &Graph) -> f64 {
    const HALF_UNIT: f64 = f32::EPSILON as f64 / 2.0;
    const LARGEST_ALPHA: f64 = 1.5;
    let magnitude = |name: &str| -> f64 {
        let tensor = graph.find(name).and_then(|v| graph[v].tensor.as_ref());
        tensor.and_then(Tensor::to_f64).unwrap().iter().map(|w| w.abs()).sum()
    };
    HALF_UNIT * LARGEST_ALPHA * magnitude("w2") * (1.0 + magnitude("w1"))
}

/// Every method that takes dropout or draws by itself, with settings that make training draw.
pub(crate) fn drawing() -> Vec<Case> {
    let mut all = cases();
    all.retain(|case| case.settings.iter().all(|(k, _)| k != "draw"));
    all.retain_mut(|case| {
        let takes = case.method.settings.iter().any(|s| s.name == "dropout");
        case.settings.extend(takes.then(|| ("dropout".to_string(), "0.4".to_string())));
        takes
    });
    all
}

/// Gives the first `count` ranks of every trained weight random data, and leaves the others as they were made.
pub(crate) fn train_ranks(adapted: &mut Graph, form: Form, count: usize) {
    let before = adapted.clone();
    train(adapted, form);
    for v in inject::trainable(adapted) {
        let axes: Vec<usize> =
            adapted[v].meta[meta::RANKED].split(',').map(|axis| axis.parse().unwrap()).collect();
        let (trained, made) = (adapted[v].tensor.clone().unwrap(), before[v].tensor.clone().unwrap());
        let columns = trained.dims()[1];
        let counts = |i: usize| axes.iter().all(|axis| [i / columns, i % columns][*axis] < count);
        let (trained, made) = (trained.to_f64().unwrap(), (made.to_f64().unwrap(), made));
        let data = (0..trained.len()).map(|i| if counts(i) { trained[i] } else { made.0[i] });
        adapted[v].tensor = Tensor::from_f64(graft_ir::DType::Float, made.1.dims(), data);
    }
}

/// Settings that make a method penalise.
const PENALTIES: &[(&str, &[(&str, &str)])] = &[
    ("adalora", &[("reg", "0.5")]),
    ("hydra", &[("balance", "0.7")]),
    ("salora", &[("target_rank", "1"), ("orth", "0.3"), ("draw", "0.3:0.6")]),
    ("tri", &[("reg", "0.5")]),
    ("tri", &[("reg", "0.5"), ("growth", "linear"), ("target_rank", "3")]),
    ("tri", &[("reg", "0.5"), ("growth", "linear"), ("target_rank", "3"), ("init", "single")]),
];

/// The cases of `PENALTIES`.
pub(crate) fn penalised() -> Vec<Case> {
    let case = |&(name, settings): &(&str, &[(&str, &str)])| {
        let method = Method::named(name).unwrap();
        let settings: Vec<_> = settings.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let variant = method.variant(&Config::new(method, 2, 3.0, settings.clone())).unwrap();
        Case { method, variant, settings }
    };
    PENALTIES.iter().map(case).collect()
}

/// Holds the gradient of every trained weight after `loss` against finite differences.
pub(crate) fn check_gradients(loss: &str, form: Form, label: &str) -> Result<(), TestCaseError> {
    let forward = run(loss, &base(form), None);
    let with_grad = run(&format!("{loss}, grad"), &base(form), None);
    let feeds = feeds(&forward, form);
    let results = exact(&with_grad, &feeds);
    let held = held_fixed(&forward, &feeds);
    for weight in inject::trainable(&forward) {
        let name = forward.name(weight);
        let i = forward.inputs.iter().position(|&v| v == weight).unwrap();
        let gradient = output(&with_grad, &results, &format!("{name}.grad"));
        let (numeric, doubt) = central_differences(&held, &feeds, i);
        let (worst, largest) = difference(&numeric, &gradient).expect("equal shapes");
        prop_assert!(worst < 1e-6 * largest.max(1e-3) + 4.0 * doubt, "{label} {name}");
    }
    Ok(())
}

/// Gives every trained weight random data.
pub(crate) fn train(adapted: &mut Graph, form: Form) {
    for (i, v) in inject::trainable(adapted).into_iter().enumerate() {
        let dims = adapted[v].ty.as_ref().and_then(Type::sizes).unwrap();
        adapted[v].tensor = Some(noise(&dims, form.seed, 100 + i as u64).to_tensor().unwrap());
    }
}

/// The graph with every detached value as it is now: finite differences must not see it move.
pub(crate) fn held_fixed(graph: &Graph, feeds: &[Option<Array>]) -> Graph {
    let mut held = graph.clone();
    for (i, node) in graph.nodes.iter().enumerate().filter(|(_, n)| n.op == "graft.Detach") {
        let mut probe = graph.clone();
        probe.outputs = vec![node.output(0).unwrap()];
        let value = Array { dtype: graft_ir::DType::Double, ..exact(&probe, feeds).remove(0) };
        // The constant is of double precision, whatever the type of the value: nothing is rounded.
        let constant = graft_ir::Attr::Tensor(value.to_tensor().unwrap());
        held.nodes[i] = Node::new("Constant", &[], &[node.output(0).unwrap()]).with("value", constant);
    }
    held
}

/// Appends the node that defines `v`, after those that it depends on.
fn visit(v: Value, nodes: &mut BTreeMap<Value, Node>, ordered: &mut Vec<Node>) {
    let Some(node) = nodes.remove(&v) else { return };
    let rest: Vec<Value> = node.outputs.iter().flatten().copied().filter(|&other| other != v).collect();
    rest.iter().for_each(|other| drop(nodes.remove(other)));
    node.inputs.iter().flatten().for_each(|&input| visit(input, nodes, ordered));
    ordered.push(node);
}

/// The order of nodes that do not depend on each other, names of nodes and values, and what a call's body does not note,
/// do not matter.
pub(crate) fn anonymise(graph: &mut Graph) {
    let each = |n: &Node| n.outputs.iter().flatten().map(|&v| (v, n.clone())).collect::<Vec<_>>();
    let mut nodes: BTreeMap<Value, Node> = graph.nodes.iter().flat_map(each).collect();
    graph.nodes.clear();
    graph.outputs.iter().for_each(|&v| visit(v, &mut nodes, &mut graph.nodes));
    for (i, node) in graph.nodes.iter_mut().enumerate() {
        node.name.clear();
        node.meta.remove(meta::ROLE);
        node.meta.remove(meta::ORIGINAL);
        for (k, v) in node.outputs.iter().flatten().enumerate() {
            graph.values[v.0 as usize].name = format!("v{i}_{k}");
        }
    }
    graph.opsets.remove("graft");
    graph.functions.clear();
}

/// The derivative of the loss by every element of input `i`: central differences, extrapolated from two steps after
/// Richardson, because behind a small norm (DoRA) the loss bends sharply. And how far apart the two steps are at most:
/// where a small norm magnifies what `f64` rounds, or the loss bends too sharply, they tell.
fn central_differences(graph: &Graph, feeds: &[Option<Array>], i: usize) -> (Array, f64) {
    const STEP: f64 = 1e-5;
    let at = feeds[i].clone().unwrap();
    let loss = |j: usize, change: f64| {
        let mut moved = feeds.to_vec();
        let mut values = at.floats().unwrap().to_vec();
        values[j] += change;
        moved[i] = Some(Array { data: Data::Float(values), ..at.clone() });
        let results = exact(graph, &moved);
        let objective = graph.outputs.iter().any(|&v| graph.name(v) == "objective");
        output(graph, &results, if objective { "objective" } else { "loss" }).floats().unwrap()[0]
    };
    let slope = |j: usize, step: f64| (loss(j, step) - loss(j, -step)) / (2.0 * step);
    let pairs: Vec<(f64, f64)> = (0..at.len()).map(|j| (slope(j, STEP / 2.0), slope(j, STEP))).collect();
    let slopes = pairs.iter().map(|(fine, coarse)| (4.0 * fine - coarse) / 3.0).collect();
    let doubt = pairs.iter().map(|(fine, coarse)| (fine - coarse).abs()).fold(0.0, f64::max);
    (Array::float(at.dtype, at.dims.clone(), slopes), doubt)
}

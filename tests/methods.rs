//! What holds for every adapter method, tested once over the table.
use graft_ir::{
    Array, Data, Graph, Precision, Tensor, Type, Value,
    eval::{difference, eval},
    parse, random,
    text::{PrintOptions, print},
};
use graft_passes::{
    ALL, Context, inject,
    inject::{Config, Init, METHODS, Method, Variant},
    pipeline, target,
};
use graft_tests::formula;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A two-layer network with a linear of every layout that takes adapters. `batch`, `seq` stay symbolic.
fn base(form: Form) -> Graph {
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
enum Layout {
    InOut,
    Gemm,
    GemmTransposed,
    BehindTranspose,
}

#[derive(Clone, Copy, Debug)]
struct Form {
    batch: usize,
    seq: usize,
    d_in: usize,
    hidden: usize,
    d_out: usize,
    rank: usize,
    layout: Layout,
    seed: u64,
}

/// A variant of a method, and settings that ask for it.
struct Case {
    method: &'static Method,
    variant: &'static Variant,
    settings: Vec<(String, String)>,
}

/// Settings that change what a variant computes or begins with, besides those that choose it.
const MORE: &[(&str, &[(&str, &str)])] = &[
    ("lora", &[("rslora", "true")]),
    ("lora", &[("rslora", "true"), ("dora", "true")]),
    ("hydra", &[("experts", "1")]),
    ("salora", &[("draw", "0.3:0.6"), ("gate_lr", "10"), ("gate_decay", "false")]),
    ("tri", &[("init", "single")]),
];

/// Every variant of every method, and then `MORE`.
fn cases() -> Vec<Case> {
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
    fn fitted(&self, form: Form) -> Form {
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
    /// The options of `inject` and `merge`.
    fn options(&self, form: Form) -> String {
        let alpha = if self.method.alpha.is_some() { ",alpha=3" } else { "" };
        let settings: String = self.settings.iter().map(|(k, v)| format!(",{k}={v}")).collect();
        format!("method={},rank={}{alpha}{settings},targets=re:.*", self.method.name, form.rank)
    }
    fn inject(&self, form: Form) -> String {
        format!("inject{{{},inputs=true}}", self.options(form))
    }
    /// How far an adapter at its initial state may be from the base linear, by rounding alone: the norms that it
    /// begins with are rounded to `float`; and a rewritten linear multiplies its weight by `alpha`, not its result.
    fn rounding(&self, layout: Layout) -> f64 {
        let linear = &target::targets(&base(PLAIN)).unwrap()[0];
        let config = Config::new(self.method, 2, 3.0, self.settings.clone());
        let weights = (self.method.parts)(linear, &config).unwrap().weights;
        match (weights.iter().any(|w| w.init == Init::BaseNorms), layout) {
            (true, _) => 1e-6,
            (false, Layout::Gemm) => 1e-12,
            _ => 0.0,
        }
    }
    fn label(&self) -> String {
        format!("{} {:?}", self.variant.function, self.settings)
    }
}

const PLAIN: Form =
    Form { batch: 1, seq: 2, d_in: 4, hidden: 4, d_out: 2, rank: 2, layout: Layout::Gemm, seed: 1 };

prop_compose! {
    fn forms()(
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
fn randomise(graph: &mut Graph, seed: u64) {
    for (i, p) in graph.params.clone().into_iter().enumerate() {
        let dims = graph[p].ty.as_ref().and_then(Type::sizes).unwrap();
        graph[p].tensor = Some(noise(&dims, seed, i as u64).to_tensor().unwrap());
    }
}

fn noise(dims: &[usize], seed: u64, id: u64) -> Array {
    let n: usize = dims.iter().product();
    let draw = |i| 2.0 * f64::from(random::uniform(seed, 7, id, i as u64)) - 1.0;
    Array::float(graft_ir::DType::Float, dims.to_vec(), (0..n).map(draw).collect())
}

fn run(spec: &str, graph: &Graph, adapter: Option<&BTreeMap<String, Tensor>>) -> Graph {
    try_run(spec, graph, adapter).unwrap_or_else(|e| panic!("{spec}: {e}"))
}

fn try_run(spec: &str, graph: &Graph, adapter: Option<&BTreeMap<String, Tensor>>) -> graft_ir::Result<Graph> {
    let mut ctx = Context { log: &mut |_| {}, has_kernel: &|_, _| true, adapter, seed: 3 };
    pipeline::run(ALL, &pipeline::parse(spec)?, graph, &mut ctx, &mut |_| {})
}

/// The graph as text, weights included.
fn whole_text(graph: &Graph) -> String {
    print(graph, PrintOptions { weight_elements: usize::MAX, ..PrintOptions::default() })
}

/// Random feeds for every input of `graph` by name, adapters' weights included.
fn feeds(graph: &Graph, form: Form) -> Vec<Option<Array>> {
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
        let is_frozen = graph.is_param(v) && !graph[v].meta.contains_key(graft_passes::meta::TRAINABLE);
        (!is_frozen).then(|| noise(&dims, form.seed ^ 0xfeed, i as u64))
    };
    graph.inputs.iter().enumerate().map(feed).collect()
}

fn exact(graph: &Graph, feeds: &[Option<Array>]) -> Vec<Array> {
    eval(graph, feeds, Precision::Exact).unwrap()
}

/// The largest difference, relative to the largest magnitude.
fn apart(a: &Array, b: &Array) -> f64 {
    let (worst, largest) = difference(a, b).expect("equal shapes");
    worst / largest.max(1e-3)
}

fn output(graph: &Graph, results: &[Array], name: &str) -> Array {
    let i = graph.outputs.iter().position(|&v| graph.name(v) == name);
    results[i.unwrap_or_else(|| panic!("no output `{name}`"))].clone()
}

/// What rounding merged weights to `float` once can change in the output of [`base`]: half a unit in the last place of
/// each, passed on by inputs and activations of at most 1. Relative to the output there is no bound: its terms may cancel.
fn merge_rounding(merged: &Graph) -> f64 {
    const HALF_UNIT: f64 = f32::EPSILON as f64 / 2.0;
    const LARGEST_ALPHA: f64 = 1.5;
    let magnitude = |name: &str| -> f64 {
        let tensor = merged.find(name).and_then(|v| merged[v].tensor.as_ref());
        tensor.and_then(Tensor::to_f64).unwrap().iter().map(|w| w.abs()).sum()
    };
    HALF_UNIT * LARGEST_ALPHA * magnitude("w2") * (1.0 + magnitude("w1"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_adapter_at_its_initial_state_changes_nothing(form in forms()) {
        for case in cases() {
            let form = case.fitted(form);
            let base = base(form);
            let adapted = run(&case.inject(form).replace(",inputs=true", ""), &base, None);
            let x = feeds(&base, form);
            for precision in [Precision::Exact, Precision::Native] {
                // A Gemm rounds product and bias at once, the adapted one rounds between them.
                if precision == Precision::Native && matches!(form.layout, Layout::Gemm | Layout::GemmTransposed) {
                    continue;
                }
                let (before, after) =
                    (eval(&base, &x, precision).unwrap(), eval(&adapted, &x, precision).unwrap());
                prop_assert!(apart(&before[0], &after[0]) <= case.rounding(form.layout), "{}", case.label());
            }
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences(form in forms()) {
        for case in cases() {
            let form = case.fitted(form);
            let loss = format!("{}, loss{{kind=mse}}", case.inject(form));
            let forward = run(&loss, &base(form), None);
            let with_grad = run(&format!("{loss}, grad"), &base(form), None);
            let feeds = feeds(&forward, form);
            let results = exact(&with_grad, &feeds);
            let held = held_fixed(&forward, &feeds);
            for weight in inject::trainable(&forward) {
                let name = forward.name(weight);
                let i = forward.inputs.iter().position(|&v| v == weight).unwrap();
                let gradient = output(&with_grad, &results, &format!("{name}.grad"));
                let numeric = central_differences(&held, &feeds, i);
                prop_assert!(apart(&numeric, &gradient) < 1e-6, "{} {name}", case.label());
            }
        }
    }

    #[test]
    fn the_gradient_body_is_the_gradient_of_the_body(form in forms()) {
        for case in cases() {
            let form = case.fitted(form);
            let start = case.inject(form);
            let inlined = run(&format!("{start}, loss{{kind=mse}}, grad"), &base(form), None);
            let fused = run(&format!("canonicalize, {start}, fuse, loss{{kind=mse}}, grad"), &base(form), None);
            let call = format!("{}Grad", case.variant.function);
            prop_assert_eq!(fused.nodes.iter().filter(|n| n.op == call).count(), 2, "{}", case.label());
            let a = exact(&inlined, &feeds(&inlined, form));
            let b = exact(&fused, &feeds(&fused, form));
            for &v in &inlined.outputs {
                let name = inlined.name(v);
                let (a, b) = (output(&inlined, &a, name), output(&fused, &b, name));
                prop_assert!(apart(&a, &b) < 1e-12, "{} {name}", case.label());
            }
        }
    }

    #[test]
    fn a_fused_adapter_is_inlined_to_itself(form in forms()) {
        for case in cases() {
            let form = case.fitted(form);
            let start = format!("canonicalize, {}", case.inject(form));
            // What is detached is a call before.
            let mut there = run(&format!("{start}, inline"), &base(form), None);
            let mut back = run(&format!("{start}, fuse, inline"), &base(form), None);
            let fused = run(&format!("{start}, fuse"), &base(form), None);
            prop_assert_eq!(fused.nodes.iter().filter(|n| n.op == case.variant.function).count(), 2);
            for graph in [&mut there, &mut back] {
                anonymise(graph);
            }
            prop_assert_eq!(there.to_string(), back.to_string(), "{}", case.label());
        }
    }

    #[test]
    fn a_merged_weight_reproduces_the_output(form in forms()) {
        for case in cases() {
            let form = case.fitted(form);
            let base = base(form);
            let mut adapted = run(&case.inject(form).replace(",inputs=true", ""), &base, None);
            train(&mut adapted, form);
            let merge = try_run("merge", &adapted, None);
            if case.variant.merged().is_none() {
                let error = merge.err().unwrap_or_else(|| panic!("{} does not merge", case.label()));
                prop_assert_eq!(error.code, graft_ir::Code::MERGE);
                prop_assert!(error.message.contains(case.method.name) && error.help.is_some());
                continue;
            }
            let merged = merge.unwrap_or_else(|e| panic!("{}: {e}", case.label()));
            prop_assert!(inject::adapters(&merged).unwrap().is_empty());

            let shape = |g: &Graph| print(g, PrintOptions { weight_elements: 0, ..PrintOptions::default() });
            prop_assert_eq!(shape(&merged), shape(&run("", &base, None)), "{}: the adapter is off again", case.label());
            let x = feeds(&base, form);
            let (a, b) = (exact(&adapted, &x), exact(&merged, &x));
            let (worst, _) = difference(&a[0], &b[0]).expect("equal shapes");
            prop_assert!(worst <= merge_rounding(&merged), "{}", case.label());

            let files = inject::file_tensors(&adapted, &|_| Ok(None)).unwrap();
            let spec = format!("merge{{{}}}", case.options(form));
            prop_assert_eq!(whole_text(&run(&spec, &base, Some(&files))), whole_text(&merged), "{}", case.label());
        }
    }

    #[test]
    fn adapter_files_restore_the_adapter(form in forms()) {
        for case in cases() {
            let form = case.fitted(form);
            let spec = case.inject(form);
            let mut adapted = run(&spec, &base(form), None);
            train(&mut adapted, form);
            let files = inject::file_tensors(&adapted, &|_| Ok(None)).unwrap();
            prop_assert_eq!(&run(&spec, &base(form), Some(&files)), &adapted, "{}", case.label());
            let without_targets = spec.replace(",targets=re:.*", "");
            prop_assert_eq!(&run(&without_targets, &base(form), Some(&files)), &adapted, "{}", case.label());
        }
    }

    #[test]
    fn parameters_are_as_many_as_the_formula_says(form in forms()) {
        for case in cases() {
            let form = case.fitted(form);
            let adapted = run(&case.inject(form), &base(form), None);
            let adapters = inject::adapters(&adapted).unwrap();
            prop_assert_eq!(adapters.len(), 2);
            let sizes = [(form.d_in, form.hidden), (form.hidden, form.d_out)];
            for (adapter, (d_in, d_out)) in adapters.iter().zip(sizes) {
                let config = adapter.config().unwrap();
                let size = |name: &str| match name {
                    "in" => d_in,
                    "out" => d_out,
                    "rank" => config.rank,
                    setting => config.get(setting).expect("a setting"),
                };
                let expected = formula::value(case.variant.parameters, &size);
                prop_assert_eq!(adapter.parameters, expected, "{}", case.label());
                prop_assert_eq!(adapter.rank, form.rank);
            }
        }
    }
}

/// Gives every trained weight random data.
fn train(adapted: &mut Graph, form: Form) {
    for (i, v) in inject::trainable(adapted).into_iter().enumerate() {
        let dims = adapted[v].ty.as_ref().and_then(Type::sizes).unwrap();
        adapted[v].tensor = Some(noise(&dims, form.seed, 100 + i as u64).to_tensor().unwrap());
    }
}

/// The graph with every detached value as it is now: finite differences must not see it move.
fn held_fixed(graph: &Graph, feeds: &[Option<Array>]) -> Graph {
    let mut held = graph.clone();
    for (i, node) in graph.nodes.iter().enumerate().filter(|(_, n)| n.op == "graft.Detach") {
        let mut probe = graph.clone();
        probe.outputs = vec![node.output(0).unwrap()];
        let value = Array { dtype: graft_ir::DType::Double, ..exact(&probe, feeds).remove(0) };
        // The constant is of double precision, whatever the type of the value: nothing is rounded.
        let constant = graft_ir::Attr::Tensor(value.to_tensor().unwrap());
        held.nodes[i] =
            graft_ir::Node::new("Constant", &[], &[node.output(0).unwrap()]).with("value", constant);
    }
    held
}

/// Names of nodes and values, and what a call's body does not note, do not matter.
fn anonymise(graph: &mut Graph) {
    for (i, node) in graph.nodes.iter_mut().enumerate() {
        node.name.clear();
        node.meta.remove(graft_passes::meta::ROLE);
        node.meta.remove(graft_passes::meta::ORIGINAL);
        for (k, v) in node.outputs.iter().flatten().enumerate() {
            graph.values[v.0 as usize].name = format!("v{i}_{k}");
        }
    }
    graph.opsets.remove("graft");
    graph.functions.clear();
}

/// The derivative of the loss by every element of input `i`: central differences, extrapolated from two steps after
/// Richardson, because behind a small norm (DoRA) the loss bends sharply.
fn central_differences(graph: &Graph, feeds: &[Option<Array>], i: usize) -> Array {
    const STEP: f64 = 1e-5;
    let at = feeds[i].clone().unwrap();
    let loss = |j: usize, change: f64| {
        let mut moved = feeds.to_vec();
        let mut values = at.floats().unwrap().to_vec();
        values[j] += change;
        moved[i] = Some(Array { data: Data::Float(values), ..at.clone() });
        let results = exact(graph, &moved);
        output(graph, &results, "loss").floats().unwrap()[0]
    };
    let slope = |j: usize, step: f64| (loss(j, step) - loss(j, -step)) / (2.0 * step);
    let slopes = (0..at.len()).map(|j| (4.0 * slope(j, STEP / 2.0) - slope(j, STEP)) / 3.0).collect();
    Array::float(at.dtype, at.dims.clone(), slopes)
}

#[test]
fn base_weights_get_no_gradient() {
    for case in cases() {
        let graph = run(&format!("{}, loss{{kind=mse}}, grad", case.inject(PLAIN)), &base(PLAIN), None);
        let gradients: Vec<&str> =
            graph.outputs.iter().map(|&v| graph.name(v)).filter(|n| n.ends_with(".grad")).collect();
        let trained: Vec<String> =
            inject::trainable(&graph).iter().map(|&v| format!("{}.grad", graph.name(v))).collect();
        assert_eq!(gradients, trained, "{}", case.label());
        assert!(
            target::targets(&base(PLAIN)).unwrap().iter().all(|l| !gradients.contains(&l.weight.as_str()))
        );
    }
}

/// The oldest opset that a variant states is the oldest that all its ops can be said in.
#[test]
fn variants_state_their_oldest_opset() {
    for case in cases() {
        let text = |opset: i64| {
            let head = format!("<ir_version: 10, opset_import: [\"\" : {opset}]>");
            format!("{head}\ng (float[n, 4] x) => (float[n, 2] y) <float[4, 2] w> {{ y = MatMul (x, w) }}")
        };
        let adapted = |opset: i64| {
            let mut graph = parse(&text(opset)).unwrap();
            randomise(&mut graph, 1);
            try_run(&format!("{}, fuse, loss{{kind=mse}}, grad, inline", case.inject(PLAIN)), &graph, None)
        };
        let oldest = case.variant.opset;
        adapted(oldest).unwrap_or_else(|e| panic!("{} at {oldest}: {e}", case.label()));
        let error = adapted(oldest - 1).expect_err("an older opset is refused");
        assert_eq!(error.code, graft_ir::Code::OPSET, "{}", case.label());
    }
}

/// The table of methods in the README says what the table in the code says.
#[test]
fn the_readme_lists_every_variant() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let mut missing = String::new();
    for method in METHODS {
        for variant in method.variants {
            let set: String = variant.example.iter().map(|(k, v)| format!(" --set {k}={v}")).collect();
            let merges = if variant.merged().is_some() { "yes" } else { "no" };
            let (about, parameters) = (variant.about, variant.parameters);
            let row = format!("| `{}{set}` | {about} | {parameters} | {merges} |\n", method.name);
            if !readme.contains(&row) {
                missing += &row;
            }
        }
    }
    assert!(missing.is_empty(), "README.md lacks these rows:\n{missing}");
}

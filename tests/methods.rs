//! What holds for every adapter method, tested once over the table.
use graft_ir::{
    Array, Data, Function, Graph, Precision, Tensor, Type, Value,
    eval::{difference, eval},
    parse, random,
    text::{PrintOptions, print},
};
use graft_passes::{
    ALL, Context, inject,
    inject::{METHODS, Method},
    pipeline, target,
};
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

fn inject_spec(method: &Method, form: Form) -> String {
    format!("inject{{method={},rank={},alpha=3,targets=re:.*,inputs=true}}", method.name, form.rank)
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
        // A scale stays what the method made it.
        let is_scale = graph.name(v).ends_with("_scale");
        (!is_scale).then(|| noise(&dims, form.seed ^ 0xfeed, i as u64))
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_adapter_at_its_initial_state_changes_nothing(form in forms()) {
        for method in METHODS {
            let base = base(form);
            let adapted = run(&inject_spec(method, form).replace(",inputs=true", ""), &base, None);
            let x = feeds(&base, form);
            for precision in [Precision::Exact, Precision::Native] {
                // A Gemm rounds product and bias at once, the adapted one rounds between them.
                if precision == Precision::Native && matches!(form.layout, Layout::Gemm | Layout::GemmTransposed) {
                    continue;
                }
                let (before, after) =
                    (eval(&base, &x, precision).unwrap(), eval(&adapted, &x, precision).unwrap());
                prop_assert_eq!(&before, &after, "{} {:?}", method.name, precision);
            }
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences(form in forms()) {
        for method in METHODS {
            let loss = format!("{}, loss{{kind=mse}}", inject_spec(method, form));
            let forward = run(&loss, &base(form), None);
            let with_grad = run(&format!("{loss}, grad"), &base(form), None);
            let feeds = feeds(&forward, form);
            let results = exact(&with_grad, &feeds);
            for weight in inject::trainable(&forward) {
                let name = forward.name(weight);
                let i = forward.inputs.iter().position(|&v| v == weight).unwrap();
                let gradient = output(&with_grad, &results, &format!("{name}.grad"));
                let numeric = central_differences(&forward, &feeds, i);
                prop_assert!(apart(&numeric, &gradient) < 1e-6, "{} {name}", method.name);
            }
        }
    }

    #[test]
    fn the_gradient_body_is_the_gradient_of_the_body(form in forms()) {
        for method in METHODS {
            let start = inject_spec(method, form);
            let inlined = run(&format!("{start}, loss{{kind=mse}}, grad"), &base(form), None);
            let fused = run(&format!("canonicalize, {start}, fuse, loss{{kind=mse}}, grad"), &base(form), None);
            let config = inject::Config { rank: form.rank, alpha: 3.0, settings: vec![] };
            let call = format!("{}Grad", (method.function)(&config));
            prop_assert_eq!(fused.nodes.iter().filter(|n| n.op == call).count(), 2, "{}", method.name);
            let a = exact(&inlined, &feeds(&inlined, form));
            let b = exact(&fused, &feeds(&fused, form));
            for &v in &inlined.outputs {
                let name = inlined.name(v);
                let (a, b) = (output(&inlined, &a, name), output(&fused, &b, name));
                prop_assert!(apart(&a, &b) < 1e-12, "{} {name}", method.name);
            }
        }
    }

    #[test]
    fn a_merged_weight_reproduces_the_output(form in forms()) {
        for method in METHODS {
            let base = base(form);
            let mut adapted = run(&inject_spec(method, form).replace(",inputs=true", ""), &base, None);
            for (i, v) in inject::trainable(&adapted).into_iter().enumerate() {
                let dims = adapted[v].ty.as_ref().and_then(Type::sizes).unwrap();
                adapted[v].tensor = Some(noise(&dims, form.seed, 100 + i as u64).to_tensor().unwrap());
            }
            let merged = run("merge", &adapted, None);
            prop_assert!(inject::adapters(&merged).unwrap().is_empty());

            let shape = |g: &Graph| print(g, PrintOptions { weight_elements: 0, ..PrintOptions::default() });
            prop_assert_eq!(shape(&merged), shape(&run("", &base, None)), "{}: the adapter is off again", method.name);
            let x = feeds(&base, form);
            let (a, b) = (exact(&adapted, &x), exact(&merged, &x));
            // Weights are rounded to `float` once.
            prop_assert!(apart(&a[0], &b[0]) < 1e-5, "{}", method.name);

            let files = inject::file_tensors(&adapted, &|_| Ok(None)).unwrap();
            let spec = format!("merge{{method={},rank={},alpha=3,targets=re:.*}}", method.name, form.rank);
            prop_assert_eq!(whole_text(&run(&spec, &base, Some(&files))), whole_text(&merged), "{}", method.name);
        }
    }

    #[test]
    fn adapter_files_restore_the_adapter(form in forms()) {
        for method in METHODS {
            let spec = inject_spec(method, form);
            let mut adapted = run(&spec, &base(form), None);
            for (i, v) in inject::trainable(&adapted).into_iter().enumerate() {
                let dims = adapted[v].ty.as_ref().and_then(Type::sizes).unwrap();
                adapted[v].tensor = Some(noise(&dims, form.seed, 100 + i as u64).to_tensor().unwrap());
            }
            let files = inject::file_tensors(&adapted, &|_| Ok(None)).unwrap();
            prop_assert_eq!(&run(&spec, &base(form), Some(&files)), &adapted, "{}", method.name);
            let without_targets = spec.replace(",targets=re:.*", "");
            prop_assert_eq!(&run(&without_targets, &base(form), Some(&files)), &adapted, "{}", method.name);
        }
    }

    #[test]
    fn parameters_are_as_many_as_the_formula_says(form in forms()) {
        for method in METHODS {
            let adapted = run(&inject_spec(method, form), &base(form), None);
            let adapters = inject::adapters(&adapted).unwrap();
            prop_assert_eq!(adapters.len(), 2);
            let sizes = [(form.d_in, form.hidden), (form.hidden, form.d_out)];
            for (adapter, (d_in, d_out)) in adapters.iter().zip(sizes) {
                let expected = Formula { d_in, d_out, rank: form.rank }.value(method.parameters);
                prop_assert_eq!(adapter.parameters, expected, "{}", method.name);
                prop_assert_eq!(adapter.rank, form.rank);
            }
        }
    }
}

/// A sum of products such as `rank·(in + out)`.
struct Formula {
    d_in: usize,
    d_out: usize,
    rank: usize,
}

impl Formula {
    fn value(&self, text: &str) -> usize {
        let spaced: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let (value, rest) = self.sum(&spaced);
        assert!(rest.is_empty(), "`{text}` is no formula");
        value
    }
    fn sum<'a>(&self, text: &'a str) -> (usize, &'a str) {
        let (mut value, mut rest) = self.product(text);
        while let Some(tail) = rest.strip_prefix('+') {
            let (term, tail) = self.product(tail);
            (value, rest) = (value + term, tail);
        }
        (value, rest)
    }
    fn product<'a>(&self, text: &'a str) -> (usize, &'a str) {
        let (mut value, mut rest) = self.atom(text);
        while let Some(tail) = rest.strip_prefix('·') {
            let (factor, tail) = self.atom(tail);
            (value, rest) = (value * factor, tail);
        }
        (value, rest)
    }
    fn atom<'a>(&self, text: &'a str) -> (usize, &'a str) {
        if let Some(inner) = text.strip_prefix('(') {
            let (value, rest) = self.sum(inner);
            return (value, rest.strip_prefix(')').expect("closing bracket"));
        }
        let end = text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len());
        let value = match &text[..end] {
            "in" => self.d_in,
            "out" => self.d_out,
            "rank" => self.rank,
            number => number.parse().expect("a number"),
        };
        (value, &text[end..])
    }
}

/// The derivative of the loss by every element of input `i`.
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
    let slopes = (0..at.len()).map(|j| (loss(j, STEP) - loss(j, -STEP)) / (2.0 * STEP)).collect();
    Array::float(at.dtype, at.dims.clone(), slopes)
}

#[test]
fn base_weights_get_no_gradient() {
    let form =
        Form { batch: 1, seq: 2, d_in: 3, hidden: 4, d_out: 2, rank: 2, layout: Layout::Gemm, seed: 1 };
    for method in METHODS {
        let graph = run(&format!("{}, loss{{kind=mse}}, grad", inject_spec(method, form)), &base(form), None);
        let gradients: Vec<&str> =
            graph.outputs.iter().map(|&v| graph.name(v)).filter(|n| n.ends_with(".grad")).collect();
        let trained: Vec<String> =
            inject::trainable(&graph).iter().map(|&v| format!("{}.grad", graph.name(v))).collect();
        assert_eq!(gradients, trained, "{}", method.name);
        assert!(
            target::targets(&base(form)).unwrap().iter().all(|l| !gradients.contains(&l.weight.as_str()))
        );
    }
}

/// A test vector of PEFT's mathematics, see tests/data/golden.
struct Golden(serde_json::Value);

impl Golden {
    fn read(name: &str) -> Golden {
        let path = format!("{}/data/golden/{name}_T5i12o8r4.json", env!("CARGO_MANIFEST_DIR"));
        Golden(serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
    }
    /// A matrix; exchanged rows and columns where `flip`.
    fn matrix(&self, key: &str, flip: bool) -> Array {
        let rows: Vec<Vec<f64>> = serde_json::from_value(self.0[key].clone()).unwrap();
        let (n, m) = (rows.len(), rows[0].len());
        let data =
            if flip { (0..m).flat_map(|j| rows.iter().map(move |r| r[j])).collect() } else { rows.concat() };
        let dims = if flip { vec![m, n] } else { vec![n, m] };
        Array::float(graft_ir::DType::Double, dims, data)
    }
}

/// Calls a function of a method on named operands.
fn call(method: &Method, name: &str, operands: &BTreeMap<&str, Array>) -> BTreeMap<String, Array> {
    let Function { mut body, .. } = method.function_named(name).unwrap();
    body.opsets.insert(String::new(), 17);
    let feeds: Vec<Option<Array>> =
        body.inputs.iter().map(|&v| Some(operands[body.name(v)].clone())).collect();
    let results = exact(&body, &feeds);
    body.outputs.iter().map(|&v| body.name(v).to_string()).zip(results).collect()
}

#[test]
fn lora_agrees_with_peft() {
    for (name, rslora) in [("lora", "false"), ("rslora", "true")] {
        let golden = Golden::read(name);
        let method = Method::named("lora").unwrap();
        let config = inject::Config {
            rank: 4,
            alpha: golden.0["alpha"].as_f64().unwrap(),
            settings: vec![("rslora".into(), rslora.into())],
        };
        let graph = parse(
            "<opset_import: [\"\" : 17]> g (float[5, 12] x) => (float[5, 8] y) <float[12, 8] w> { y = MatMul (x, w) }",
        );
        let linear = &target::targets(&graph.unwrap()).unwrap()[0];
        let weights = (method.weights)(linear, &config).unwrap();
        let inject::Init::Constant(scale) = weights[2].init else { panic!("the scale is constant") };
        let mut operands = BTreeMap::from([
            ("x", golden.matrix("X", false)),
            ("w", golden.matrix("W", true)),
            ("a", golden.matrix("A", true)),
            ("b", golden.matrix("B", true)),
            ("dy", golden.matrix("G", false)),
            ("scale", Array::float(graft_ir::DType::Double, vec![], vec![scale])),
        ]);
        let forward = call(method, "graft.Lora", &operands);
        // The golden result has the bias added.
        let bias: Vec<f64> = serde_json::from_value(golden.0["b"].clone()).unwrap();
        let y = forward["y"].floats().unwrap().iter().zip(bias.iter().cycle()).map(|(y, b)| y + b).collect();
        let y = Array::float(graft_ir::DType::Double, vec![5, 8], y);
        operands.insert("h", forward["h"].clone());
        let backward = call(method, "graft.LoraGrad", &operands);
        let merged = call(method, "graft.LoraMerged", &operands);
        for (ours, theirs) in [
            (&y, golden.matrix("Y", false)),
            (&backward["dx"], golden.matrix("dX", false)),
            (&backward["da"], golden.matrix("dA", true)),
            (&backward["db"], golden.matrix("dB", true)),
            (&merged["w_merged"], golden.matrix("merged", true)),
        ] {
            assert!(apart(&theirs, ours) < 1e-12, "{name}: {ours:?} is not {theirs:?}");
        }
    }
}

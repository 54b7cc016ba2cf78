//! The functions of the methods against vectors of an independent NumPy model of their mathematics, by `eval` in f64 and
//! by the kernels in f32: result, every gradient and the merged weight. See tests/data/golden.
use graft_exec::{Options, Session};
use graft_ir::{
    Array, DType, Function, Graph, Node, Precision, Type,
    eval::{difference, eval},
    infer::infer,
    library, parse,
};
use graft_passes::{
    inject::{Config, Init, Method, Variant, function},
    target,
};
use std::collections::BTreeMap;

/// What computes a function.
#[derive(Clone, Copy, Debug)]
enum By {
    Eval,
    Kernels,
}

impl By {
    /// How closely results must agree, relative to the largest magnitude.
    fn tolerance(self) -> f64 {
        match self {
            By::Eval => 1e-10,
            By::Kernels => 1e-5,
        }
    }
    /// The results of a call on operands that have the names of the function's inputs.
    fn call(self, function: &Function, node: &Node, operands: &BTreeMap<String, Array>) -> Vec<Array> {
        let names: Vec<&str> = function.body.inputs.iter().map(|&v| function.body.name(v)).collect();
        match self {
            By::Eval => {
                let body = with_library(function.bind(node).unwrap());
                let feeds: Vec<Option<Array>> = names.iter().map(|&n| Some(operands[n].clone())).collect();
                eval(&body, &feeds, Precision::Exact).unwrap()
            }
            By::Kernels => {
                let graph = caller(function, node, operands);
                let tensors: Vec<_> = names.iter().map(|&n| operands[n].to_tensor().unwrap()).collect();
                let feeds: Vec<_> = names.iter().copied().zip(&tensors).collect();
                let mut session = Session::new(&graph, &[], &Options::default()).unwrap();
                let results = session.run(&feeds).unwrap();
                results.iter().map(|(_, t)| Array::from_tensor(t).unwrap()).collect()
            }
        }
    }
}

/// A graph that calls a function.
fn caller(function: &Function, node: &Node, operands: &BTreeMap<String, Array>) -> Graph {
    let mut graph = Graph::default();
    graph.opsets.extend([(String::new(), 18), ("graft".to_string(), 1)]);
    let body = &function.body;
    for name in body.inputs.iter().map(|&v| body.name(v)) {
        let ty = Type::new(DType::Float, operands[name].dims.iter().copied());
        graph.add_input(name, ty);
    }
    let outputs: Vec<_> = body.outputs.iter().map(|&v| graph.add_value(body.name(v), None)).collect();
    let call = Node { attrs: node.attrs.clone(), ..Node::new(&function.name, &graph.inputs, &outputs) };
    graph.outputs = outputs;
    library::adopt(&mut graph, function).unwrap();
    graph.nodes.push(call);
    infer(&mut graph).unwrap();
    graph
}

/// One file: the settings that its formula has, and what its arrays are called there.
struct Row {
    file: &'static str,
    method: &'static str,
    rank: usize,
    settings: &'static [(&'static str, &'static str)],
    /// The file's key of each weight; its gradient is called the same after a `d`.
    weights: &'static [(&'static str, &'static str)],
    /// A weight that is not trained, and its key.
    frozen: &'static [(&'static str, &'static str)],
}

const AB: &[(&str, &str)] = &[("a", "A"), ("b", "B")];
const ABM: &[(&str, &str)] = &[("a", "A"), ("b", "B"), ("m", "m")];
const ABR: &[(&str, &str)] = &[("a", "A"), ("b", "B"), ("router", "R")];
const ABG: &[(&str, &str)] = &[("a", "A"), ("b", "B"), ("gate", "la")];
const ABE: &[(&str, &str)] = &[("a", "A"), ("b", "B"), ("e", "E")];
const ABLU: &[(&str, &str)] = &[("a", "A"), ("b", "B"), ("l", "L"), ("u", "U")];
const D: &[(&str, &str)] = &[("d", "D")];

const fn row(
    file: &'static str,
    method: &'static str,
    rank: usize,
    settings: &'static [(&'static str, &'static str)],
    weights: &'static [(&'static str, &'static str)],
) -> Row {
    Row { file, method, rank, settings, weights, frozen: &[] }
}

const ROWS: &[Row] = &[
    row("lora", "lora", 4, &[], AB),
    row("rslora", "lora", 4, &[("rslora", "true")], AB),
    row("dora", "lora", 4, &[("dora", "true")], ABM),
    row("hydra", "hydra", 4, &[], ABR),
    row("bone", "bone", 4, &[], D),
    row("bone_r_is_in", "bone", 12, &[], D),
    row("bone_r_ndiv_in", "bone", 5, &[], D),
    row("miss-mini", "bone", 4, &[("mini", "4")], D),
    row("bat_col", "bat", 4, &[], D),
    row("bat_row", "bat", 4, &[("layout", "row")], D),
    row("bat_left", "bat", 4, &[("layout", "left")], D),
    row("tri_unit_blocks", "tri", 4, &[], ABLU),
    row("adalora", "adalora", 4, &[], ABE),
    row("salora_eval", "salora", 4, &[], ABG),
    Row { frozen: &[("draw", "u")], ..row("salora_train", "salora", 4, &[], ABG) },
];

/// A file of test vectors.
struct Golden(serde_json::Value);

impl Golden {
    fn read(name: &str) -> Golden {
        let path = format!("{}/data/golden/{name}_T5i12o8r4.json", env!("CARGO_MANIFEST_DIR"));
        Golden(serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
    }
    fn number(&self, key: &str) -> Option<f64> {
        self.0[key].as_f64()
    }
    fn array(&self, key: &str) -> Array {
        // The gates' logits have two names.
        let value = self.0.get(key).or(self.0.get("log_alpha").filter(|_| key == "la"));
        let (mut dims, mut data) = (Vec::new(), Vec::new());
        flatten(value.unwrap_or_else(|| panic!("no `{key}`")), 0, &mut dims, &mut data);
        if key.ends_with('E') {
            // Adapter files have it as a column.
            dims.push(1);
        }
        Array::float(DType::Float, dims, data)
    }
}

fn flatten(value: &serde_json::Value, depth: usize, dims: &mut Vec<usize>, data: &mut Vec<f64>) {
    match value.as_array() {
        None => data.push(value.as_f64().unwrap()),
        Some(rows) => {
            if dims.len() == depth {
                dims.push(rows.len());
            }
            rows.iter().for_each(|row| flatten(row, depth + 1, dims, data));
        }
    }
}

/// The last two axes exchanged.
fn turned(array: &Array) -> Array {
    let &[ref leading @ .., rows, columns] = &array.dims[..] else { panic!("a matrix") };
    let turn = |m: &[f64]| (0..columns).flat_map(|c| (0..rows).map(move |r| m[r * columns + c])).collect();
    let data = array.floats().unwrap().chunks_exact(rows * columns).flat_map::<Vec<f64>, _>(turn).collect();
    Array::float(array.dtype, leading.iter().copied().chain([columns, rows]).collect(), data)
}

/// A weight as the function takes it, of one as files have it, and the other way round.
fn oriented(variant: &Variant, role: &str, array: &Array) -> Array {
    let is_turned = variant.files.iter().any(|form| form.role == role && form.is_transposed);
    if is_turned { turned(array) } else { array.clone() }
}

fn with_library(mut body: Graph) -> Graph {
    let calls: Vec<String> =
        body.nodes.iter().map(|n| n.op.clone()).filter(|op| op.starts_with("graft.")).collect();
    calls.iter().for_each(|op| library::require(&mut body, op).unwrap());
    body
}

#[track_caller]
fn agree(by: By, name: &str, what: &str, ours: &Array, theirs: &Array) {
    let (worst, largest) = difference(theirs, ours).unwrap_or_else(|| panic!("{name} {what}: sizes"));
    let is_close = worst <= by.tolerance() * largest.max(1e-3);
    assert!(is_close, "{by:?} {name}: `{what}` differs by {worst:e} of {largest:e}");
}

/// The operands of a file by the names that the functions have for them.
fn operands(row: &Row, golden: &Golden, variant: &Variant, config: &Config) -> BTreeMap<String, Array> {
    let method = Method::named(row.method).unwrap();
    let mut operands = BTreeMap::from([
        ("x".to_string(), golden.array("X")),
        ("w".to_string(), turned(&golden.array("W"))),
        ("dy".to_string(), golden.array("G")),
    ]);
    for (role, key) in row.weights.iter().chain(row.frozen) {
        operands.insert(role.to_string(), oriented(variant, role, &golden.array(key)));
    }
    for weight in (method.parts)(&linear(), config).unwrap().weights {
        if let (Init::Constant(value), None) = (weight.init, weight.training) {
            let n = weight.dims.iter().product();
            let constant = Array::float(DType::Float, weight.dims, vec![value; n]);
            operands.entry(weight.role.into()).or_insert(constant);
        }
    }
    operands
}

fn linear() -> target::Linear {
    let text = "<opset_import: [\"\" : 17]>
g (float[5, 12] x) => (float[5, 8] y) <float[12, 8] w> { y = MatMul (x, w) }";
    target::targets(&parse(text).unwrap()).unwrap().remove(0)
}

/// The configuration of a file; what is scaled by another rule than ours has the alpha that gives the same scale.
fn config(row: &Row, golden: &Golden) -> Config {
    let settings = row.settings.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let rank = row.rank as f64;
    let alpha = match (golden.number("s"), golden.number("alpha")) {
        (Some(scale), _) => scale * rank,
        (_, Some(alpha)) if row.method == "tri" => alpha * rank / (rank + 1e-5),
        (_, alpha) => alpha.unwrap_or(1.0),
    };
    Config::new(Method::named(row.method).unwrap(), row.rank, alpha, settings)
}

/// Result, gradients and merged weight of the row's functions.
fn results(
    row: &Row,
    golden: &Golden,
    operands: &BTreeMap<String, Array>,
    by: By,
) -> BTreeMap<String, Array> {
    let method = Method::named(row.method).unwrap();
    let config = config(row, golden);
    let variant = method.variant(&config).unwrap();
    let node = Node { attrs: (method.parts)(&linear(), &config).unwrap().attrs, ..Node::default() };
    let mut values = operands.clone();
    let gradient = function(&format!("{}Grad", variant.function)).unwrap();
    for function in [Some(variant.forward().unwrap()), Some(gradient), variant.merged()].into_iter().flatten()
    {
        let results = by.call(function, &node, &values);
        let names = function.body.outputs.iter().map(|&v| function.body.name(v).to_string());
        values.extend(names.zip(results));
    }
    let forward = variant.forward().unwrap();
    let y = forward.body.name(forward.body.outputs[0]).to_string();
    values.insert("y".into(), values[&y].clone());
    values
}

#[test]
fn functions_agree_with_the_vectors() {
    [By::Eval, By::Kernels].into_iter().for_each(all_agree);
}

fn all_agree(by: By) {
    for row in ROWS {
        let golden = Golden::read(row.file);
        let config = config(row, &golden);
        let variant = Method::named(row.method).unwrap().variant(&config).unwrap();
        let operands = operands(row, &golden, variant, &config);
        let results = results(row, &golden, &operands, by);
        // The vectors' result has the bias added.
        let bias = golden.array("b");
        let bias = bias.floats().unwrap().iter().cycle();
        let y = results["y"].floats().unwrap().iter().zip(bias).map(|(y, b)| y + b).collect();
        agree(by, row.file, "Y", &Array::float(DType::Float, vec![5, 8], y), &golden.array("Y"));
        agree(by, row.file, "dX", &results["dx"], &golden.array("dX"));
        for (role, key) in row.weights {
            let gradient = oriented(variant, role, &results[&format!("d{role}")]);
            agree(by, row.file, key, &gradient, &golden.array(&format!("d{key}")));
        }
        if golden.0.get("merged").is_some() {
            agree(by, row.file, "merged", &turned(&results["w_merged"]), &golden.array("merged"));
        } else {
            assert!(["hydra", "salora"].contains(&row.method), "{}", row.file);
        }
        for (ours, theirs) in [("p", "P"), ("g", "gate")] {
            if golden.0.get(theirs).is_some() {
                agree(by, row.file, theirs, &results[ours], &golden.array(theirs));
            }
        }
    }
}

/// Growth by whole blocks parts the middle matrix `c = l + u` in another way. Of the same `c`, everything but the
/// gradients of its parts is the same; those are the gradient of `c` under other masks.
#[test]
fn tri_grown_by_blocks_is_another_split_of_the_same_matrix() {
    let row = row("tri_block_growth", "tri", 4, &[], ABLU);
    let golden = Golden::read(row.file);
    let config = config(&row, &golden);
    let variant = Method::named("tri").unwrap().variant(&config).unwrap();
    let mut operands = operands(&row, &golden, variant, &config);
    let blocks: Vec<usize> = serde_json::from_value(golden.0["blocks"].clone()).unwrap();
    let ends: Vec<usize> = blocks
        .iter()
        .scan(0, |end, n| {
            *end += n;
            Some(*end)
        })
        .collect();
    let block = |i: usize| ends.iter().position(|&end| i < end).unwrap();
    let matrix = |f: &dyn Fn(usize, usize) -> f64| {
        Array::float(DType::Float, vec![4, 4], (0..16).map(|k| f(k / 4, k % 4)).collect())
    };
    let c: Vec<f64> = {
        let (l, u) = (&operands["l"], &operands["u"]);
        l.floats().unwrap().iter().zip(u.floats().unwrap()).map(|(l, u)| l + u).collect()
    };
    operands.insert("l".into(), matrix(&|i, j| if j <= i { c[4 * i + j] } else { 0.0 }));
    operands.insert("u".into(), matrix(&|i, j| if j > i { c[4 * i + j] } else { 0.0 }));
    let results = results(&row, &golden, &operands, By::Eval);
    agree(By::Eval, row.file, "dX", &results["dx"], &golden.array("dX"));
    agree(By::Eval, row.file, "dA", &turned(&results["da"]), &golden.array("dA"));
    agree(By::Eval, row.file, "dB", &turned(&results["db"]), &golden.array("dB"));
    agree(By::Eval, row.file, "merged", &turned(&results["w_merged"]), &golden.array("merged"));
    let (dl, du) = (results["dl"].floats().unwrap(), results["du"].floats().unwrap());
    let dc = |i: usize, j: usize| if j <= i { dl[4 * i + j] } else { du[4 * i + j] };
    let lower = matrix(&|i, j| if block(j) <= block(i) { dc(i, j) } else { 0.0 });
    let upper = matrix(&|i, j| if block(i) <= block(j) { dc(i, j) } else { 0.0 });
    agree(By::Eval, row.file, "dL", &lower, &golden.array("dL"));
    agree(By::Eval, row.file, "dU", &upper, &golden.array("dU"));
}

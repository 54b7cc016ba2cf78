//! The ONNX node tests: each op of the table at each opset at which it has a meaning of its own, on `eval` and through
//! a session, which takes the CPU kernels where there are any. With `GRAFT_CONFORMANCE` set to the folder that
//! `tests/python/conformance.py` writes; `conformance.txt` names the cases that are known not to pass, and why.
use graft_exec::{Options, Session};
use graft_ir::{
    Array, Code, DType, Data, Dim, Error, Graph, Node, Precision, Result, Tensor, Type, Value, eval::eval,
    infer, ops,
};
use graft_kernels as kernels;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

const EXCEPTIONS: &str = include_str!("conformance.txt");

/// A line of `cases.json`.
struct Case {
    name: String,
    rtol: f64,
    atol: f64,
    model: PathBuf,
    data: PathBuf,
}

/// What became of a case.
enum Outcome {
    /// It has ops that the table lacks.
    Outside(BTreeSet<String>),
    /// It agrees, with this many nodes on kernels.
    Passed { kernels: usize },
    /// What went wrong.
    Failed(String),
}

#[test]
fn the_node_tests_pass_but_for_the_exceptions() {
    let Some(folder) = std::env::var_os("GRAFT_CONFORMANCE") else {
        report("GRAFT_CONFORMANCE is not set: no node test was run");
        return;
    };
    let cases = cases(Path::new(&folder));
    assert!(!cases.is_empty(), "no case in {}", folder.display());
    let mut exceptions = Exceptions::read();
    let (mut passed, mut on_kernels, mut excepted, mut failed) = (0, 0, 0, Vec::new());
    let mut outside: BTreeMap<String, usize> = BTreeMap::new();
    for case in &cases {
        match (case.judge(), exceptions.find(&case.name)) {
            (Outcome::Outside(ops), None) => {
                ops.into_iter().for_each(|op| *outside.entry(op).or_default() += 1);
            }
            (Outcome::Passed { kernels }, None) => {
                passed += 1;
                on_kernels += usize::from(kernels > 0);
            }
            (Outcome::Failed(_), Some(_)) => excepted += 1,
            (Outcome::Failed(why), None) => failed.push(format!("{}: {why}", case.name)),
            (_, Some(line)) => {
                failed.push(format!("{} passes or is outside, but `{line}` excepts it", case.name))
            }
        }
    }
    failed.extend(exceptions.unused().map(|line| format!("no case is excepted by `{line}`")));
    let n = cases.len() - passed - excepted - failed.len();
    report(&format!(
        "{} node tests: {passed} pass on eval and in a session, {on_kernels} of them with kernels; {excepted} are \
         exceptions; {} fail; {n} need ops outside the table: {}",
        cases.len(),
        failed.len(),
        outside.keys().cloned().collect::<Vec<_>>().join(" "),
    ));
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn cases(folder: &Path) -> Vec<Case> {
    let text = std::fs::read_to_string(folder.join("cases.json")).expect("the list of cases can be read");
    let list: Vec<serde_json::Value> = serde_json::from_str(&text).expect("the list is JSON");
    let case = |line: &serde_json::Value| {
        let name = line["name"].as_str().expect("a name").to_string();
        let number = |key: &str| line[key].as_f64().expect("a number");
        let file = |kind: &str| folder.join(format!("{name}.{kind}"));
        Case { rtol: number("rtol"), atol: number("atol"), model: file("onnx"), data: file("data"), name }
    };
    list.iter().map(case).collect()
}

impl Case {
    fn judge(&self) -> Outcome {
        let missing = |graph: &Graph| -> BTreeSet<String> {
            let opset = graph.opset("").unwrap_or(1);
            let known = |op: &str| ops::lookup(op, opset).is_some() || graph.functions.contains_key(op);
            graph.nodes.iter().map(|n| n.op.clone()).filter(|op| !known(op)).collect()
        };
        let graph = match graft_onnx::load(&self.model) {
            Ok(model) => model.graph,
            Err(e) => return Outcome::Failed(format!("import: {e}")),
        };
        let missing = missing(&graph);
        if !missing.is_empty() {
            return Outcome::Outside(missing);
        }
        match self.run(graph) {
            Ok(kernels) => Outcome::Passed { kernels },
            Err(e) => Outcome::Failed(e.to_string()),
        }
    }
    /// Runs `eval` and a session and compares both with the expected outputs; the number of nodes with kernels.
    fn run(&self, graph: Graph) -> Result<usize> {
        let data = graft_onnx::load(&self.data)?.graph;
        let tensors = |part: &str, values: &[Value]| -> Vec<Option<Tensor>> {
            let find = |v: &Value| data.find(&format!("{part}.{}", graph.name(*v)));
            values.iter().map(|v| data[find(v)?].tensor.clone()).collect()
        };
        let (fed, wanted) = (tensors("in", &graph.inputs), tensors("out", &graph.outputs));
        let arrays = fed.iter().map(|t| t.as_ref().map(Array::from_tensor).transpose());
        let found = eval(&graph, &arrays.collect::<Result<Vec<_>>>()?, Precision::Native);
        let found = found.and_then(|all| all.iter().map(Array::to_tensor).collect::<Result<Vec<_>>>());
        self.compare(&wanted, &found.map_err(|e| e.at("eval"))?).map_err(|e| e.at("eval"))?;
        let (graph, fed) = as_exported(graph, fed);
        check_types(&graph, &wanted).map_err(|e| e.at("inference"))?;
        let names = graph.inputs.iter().map(|&v| graph.name(v));
        let feeds: Vec<_> = names.zip(&fed).filter_map(|(name, t)| Some((name, t.as_ref()?))).collect();
        let options = Options { threads: Some(1), ..Options::default() };
        let found = Session::new(&graph, &[], &options).and_then(|mut s| s.run(&feeds));
        let found: Vec<Tensor> = found.map_err(|e| e.at("session"))?.into_iter().map(|(_, t)| t).collect();
        self.compare(&wanted, &found).map_err(|e| e.at("session"))?;
        Ok(kernels_in(&graph))
    }
    fn compare(&self, wanted: &[Option<Tensor>], found: &[Tensor]) -> Result<()> {
        for (i, (wanted, found)) in wanted.iter().zip(found).enumerate() {
            let Some(wanted) = wanted else { continue };
            let differs = |what: String| Error::new(Code::VALUE, format!("output {i}: {what}"));
            if (wanted.dtype(), wanted.dims()) != (found.dtype(), found.dims()) {
                let of = |t: &Tensor| format!("{}{:?}", t.dtype(), t.dims());
                return Err(differs(format!("{} is not {}", of(found), of(wanted))));
            }
            // As the official runner has it: two units in the last place.
            let rtol = if wanted.dtype() == DType::Bfloat16 { self.rtol.max(0.015_625) } else { self.rtol };
            let (wanted, found) = (floats(wanted)?, floats(found)?);
            let close = |(a, b): (&f64, &f64)| {
                a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= self.atol + rtol * b.abs()
            };
            if let Some(at) = found.iter().zip(&wanted).position(|pair| !close(pair)) {
                return Err(differs(format!("element {at} is {} and not {}", found[at], wanted[at])));
            }
        }
        Ok(())
    }
}

fn floats(t: &Tensor) -> Result<Vec<f64>> {
    Ok(match Array::from_tensor(t)?.data {
        Data::Float(v) => v,
        Data::Int(v) => v.into_iter().map(|x| x as f64).collect(),
    })
}

/// The graph as an exporter would write it, and what is left to be fed: small integer operands beside operands of
/// floats (axes, sizes) are weights.
fn as_exported(mut graph: Graph, fed: Vec<Option<Tensor>>) -> (Graph, Vec<Option<Tensor>>) {
    let is_float = |t: &Tensor| t.dtype().is_float();
    let is_small = |t: &Tensor| !is_float(t) && t.dims().len() <= 1;
    let bakes = fed.iter().flatten().any(is_float);
    let mut rest = Vec::new();
    for (v, tensor) in std::mem::take(&mut graph.inputs).into_iter().zip(fed) {
        if bakes && tensor.as_ref().is_some_and(is_small) {
            graph[v].tensor = tensor;
            graph.params.push(v);
        } else {
            graph.inputs.push(v);
            rest.push(tensor);
        }
    }
    (graph, rest)
}

/// Whether what inference says of the outputs, without the types that the model declares for them, is true.
fn check_types(graph: &Graph, wanted: &[Option<Tensor>]) -> Result<()> {
    let mut graph = graph.clone();
    graph.outputs.clone().into_iter().for_each(|v| graph[v].ty = None);
    infer::infer(&mut graph)?;
    for (&v, wanted) in graph.outputs.iter().zip(wanted) {
        let (Some(ty), Some(wanted)) = (&graph[v].ty, wanted) else { continue };
        let same = |(d, &n): (&Dim, &usize)| d.as_size().is_none_or(|d| d == n);
        let fits =
            |dims: &Vec<Dim>| dims.len() == wanted.dims().len() && dims.iter().zip(wanted.dims()).all(same);
        if ty.dtype != wanted.dtype() || !ty.shape.as_ref().is_none_or(fits) {
            let what = format!("{ty} was inferred for {}{:?}", wanted.dtype(), wanted.dims());
            return Err(Error::new(Code::TYPES, what));
        }
    }
    Ok(())
}

/// How many nodes have a kernel.
fn kernels_in(graph: &Graph) -> usize {
    let mut graph = graph.clone();
    if infer::infer(&mut graph).is_err() {
        return 0;
    }
    let types = |n: &Node| {
        n.inputs.iter().map(|v| v.and_then(|v| graph[v].ty.clone())).collect::<Vec<Option<Type>>>()
    };
    graph.nodes.iter().filter(|n| kernels::supports(n, &types(n))).count()
}

/// The lines of the list of exceptions: a pattern, in which `*` stands for anything, and a reason.
struct Exceptions {
    lines: Vec<(&'static str, usize)>,
}

impl Exceptions {
    fn read() -> Exceptions {
        let lines = EXCEPTIONS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Exceptions { lines: lines.map(|line| (line, 0)).collect() }
    }
    /// The first line that excepts `case`, which is noted.
    fn find(&mut self, case: &str) -> Option<&'static str> {
        let pattern = |line: &'static str| line.split_whitespace().next().unwrap_or_default();
        let (line, uses) = self.lines.iter_mut().find(|(line, _)| matches(pattern(line), case))?;
        *uses += 1;
        Some(line)
    }
    fn unused(&self) -> impl Iterator<Item = &'static str> {
        self.lines.iter().filter(|(_, uses)| *uses == 0).map(|(line, _)| *line)
    }
}

/// Whether `text` is `pattern`, in which each `*` stands for any run of characters.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == text };
    let Some(rest) = text.strip_prefix(head) else { return false };
    (0..=rest.len()).filter(|&i| rest.is_char_boundary(i)).any(|i| matches(tail, &rest[i..]))
}

#[test]
fn patterns_match_as_they_say() {
    assert!(
        matches("cast_*FLOAT8*", "cast_FLOAT_to_FLOAT8E5M2") && matches("a*c", "abc") && matches("a", "a")
    );
    assert!(!matches("a*c", "abcd") && !matches("a", "ab") && !matches("*b", "a"));
}

#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn report(line: &str) {
    eprintln!("{line}");
}

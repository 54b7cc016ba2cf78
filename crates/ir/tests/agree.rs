//! Inference agrees with running: over random chains of the ops that exporters compute shapes with, what is known of
//! a value before it runs is what it holds when it has run; and absurd sizes are refused, not allocated.
use graft_ir::{
    Array, Attr, Builder, Code, DType, Data, Dim, Graph, Node, Precision, Tensor, Type, Value, eval,
};
use proptest::prelude::*;

const SYMBOLS: [&str; 3] = ["batch", "seq", "past"];

/// A graph with one input of symbolic sizes, and the vectors of integers that have been computed from its shape.
struct Chain {
    graph: Graph,
    x: Value,
    vectors: Vec<Value>,
}

impl Chain {
    fn new() -> Chain {
        let mut graph = Graph::default();
        graph.opsets.insert(String::new(), 18);
        let dims = [Dim::symbol("batch"), Dim::symbol("seq"), Dim::symbol("past"), Dim::from(6i64)];
        let x = graph.add_input("x", Type::new(DType::Float, dims));
        let shape = Builder::new(&mut graph).op("shape", "Shape", &[x]).unwrap();
        Chain { graph, x, vectors: vec![shape] }
    }
    /// Appends the op that `choice` stands for; what inference refuses is left out.
    fn step(&mut self, choice: u8, a: i64, b: i64, k: i64) {
        let pick = |i: i64| self.vectors[i.unsigned_abs() as usize % self.vectors.len()];
        let (v, w) = (pick(a), pick(b));
        let mut builder = Builder::new(&mut self.graph);
        let start = builder.graph.nodes.len();
        let made = match choice % 9 {
            0 => builder.push("part", shape_part(self.x, a, b)),
            1 => slice(&mut builder, v, a, b, k),
            2 => builder.concat("joined", &[v, w], 0),
            3 => element(&mut builder, v, k).and_then(|s| builder.unsqueeze(s, &[0])),
            4 => builder.add(v, w),
            5 => builder.mul(v, w),
            6 => range(&mut builder, v, k, b),
            7 => cut_shape(&mut builder, self.x, v, k),
            _ => filled(&mut builder, v, k),
        };
        match made {
            Ok(value) => self.vectors.push(value),
            Err(_) => self.graph.nodes.truncate(start),
        }
    }
}

fn shape_part(x: Value, start: i64, end: i64) -> Node {
    Node::new("Shape", &[x], &[]).with("start", Attr::Int(start)).with("end", Attr::Int(end))
}

fn slice(b: &mut Builder<'_>, v: Value, start: i64, end: i64, step: i64) -> graft_ir::Result<Value> {
    let bounds = [("start", start), ("end", end), ("axis", 0), ("step", if step == 0 { 1 } else { step })];
    let mut inputs = vec![v];
    for (hint, n) in bounds {
        inputs.push(b.ints(hint, &[n])?);
    }
    b.op("sliced", "Slice", &inputs)
}

fn element(b: &mut Builder<'_>, v: Value, index: i64) -> graft_ir::Result<Value> {
    let index = b.constant("index", Tensor::i64(&[], &[index]))?;
    b.op("element", "Gather", &[v, index])
}

/// The numbers from 0 to an element, by a step.
fn range(b: &mut Builder<'_>, v: Value, index: i64, step: i64) -> graft_ir::Result<Value> {
    let limit = element(b, v, index)?;
    let (zero, step) = (b.scalar_like("zero", 0.0, limit)?, b.scalar_like("step", step as f64, limit)?);
    b.op("range", "Range", &[zero, limit, step])
}

/// The shape of a part of `x` that ends at an element along the second axis, and begins at `start`.
fn cut_shape(b: &mut Builder<'_>, x: Value, v: Value, start: i64) -> graft_ir::Result<Value> {
    let end = element(b, v, start)?;
    let end = b.unsqueeze(end, &[0])?;
    let (start, axis) = (b.ints("start", &[start])?, b.ints("axis", &[1])?);
    let part = b.op("part", "Slice", &[x, start, end, axis])?;
    b.op("shape", "Shape", &[part])
}

/// As many of one number as `v` has elements.
fn filled(b: &mut Builder<'_>, v: Value, n: i64) -> graft_ir::Result<Value> {
    let size = b.op("length", "Shape", &[v])?;
    let value = Attr::Tensor(Tensor::i64(&[1], &[n]));
    b.push("filled", Node::new("ConstantOfShape", &[size], &[]).with("value", value))
}

fn check(chain: &Chain, sizes: [usize; 3]) -> Result<(), TestCaseError> {
    let mut graph = chain.graph.clone();
    graph.outputs = graph.nodes.iter().flat_map(|n| n.defines().collect::<Vec<_>>()).collect();
    let dims = vec![sizes[0], sizes[1], sizes[2], 6];
    let x = Array::float(DType::Float, dims.clone(), vec![0.0; dims.iter().product()]);
    // An index or a size that is out of range only for these sizes ends the run.
    let Ok(found) = eval::eval(&graph, &[Some(x)], Precision::Exact) else { return Ok(()) };
    let bind = |d: &Dim| d.substitute(|s| SYMBOLS.iter().position(|n| *n == s).map(|i| sizes[i].into()));
    for (&v, array) in graph.outputs.iter().zip(&found) {
        let name = graph.name(v);
        let shape = graph.shape(v).map(|dims| dims.iter().map(bind).collect::<Vec<_>>());
        for (dim, &size) in shape.iter().flatten().zip(&array.dims) {
            prop_assert!(dim.as_size().is_none_or(|n| n == size), "`{name}` {dim} is {:?}", array.dims);
        }
        prop_assert_eq!(shape.map_or(array.dims.len(), |s| s.len()), array.dims.len());
        let (Some(known), Data::Int(elements)) = (&graph[v].known, &array.data) else { continue };
        prop_assert_eq!(known.len(), elements.len(), "`{}` {:?}", name, known);
        for (dim, element) in known.iter().map(bind).zip(elements) {
            prop_assert!(
                dim.as_const().is_none_or(|n| n == *element),
                "`{name}` holds {elements:?}, not {dim}"
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_is_known_is_what_is_computed(
        steps in prop::collection::vec((any::<u8>(), -4i64..6, -4i64..6, -3i64..4), 1..12),
        sizes in [0usize..4, 0usize..4, 0usize..4],
    ) {
        let mut chain = Chain::new();
        for (choice, a, b, k) in steps {
            chain.step(choice, a, b, k);
        }
        check(&chain, sizes)?;
    }
}

#[test]
fn the_usual_chains_resolve() {
    let mut chain = Chain::new();
    let mut b = Builder::new(&mut chain.graph);
    let shape = chain.vectors[0];
    let (batch, rest) = (element(&mut b, shape, 0).unwrap(), b.ints("rest", &[-1, 6]).unwrap());
    let batch = b.unsqueeze(batch, &[0]).unwrap();
    let target = b.concat("target", &[batch, rest], 0).unwrap();
    let y = b.op("y", "Reshape", &[chain.x, target]).unwrap();
    assert_eq!(b.graph[y].ty.as_ref().unwrap().to_string(), "float[batch, \"past*seq\", 6]");
    let last = slice(&mut b, shape, 1, i64::MAX, 1).unwrap();
    let n = range(&mut b, last, 0, 1).unwrap();
    assert_eq!(b.graph[n].ty.as_ref().unwrap().to_string(), "int64[\"seq\"]");
}

/// Runs one op on integer vectors that inference cannot see, and a float vector of one element as operand 0.
fn refusal(op: &str, operands: &[&[i64]], scalar: bool, with_x: bool) -> Option<graft_ir::Error> {
    let mut graph = Graph::default();
    graph.opsets.insert(String::new(), 18);
    let (mut inputs, mut feeds) = (Vec::new(), Vec::new());
    if with_x {
        inputs.push(graph.add_input("x", Type::new(DType::Float, [1i64])));
        feeds.push(Some(Array::float(DType::Float, vec![1], vec![0.5])));
    }
    for (i, elements) in operands.iter().enumerate() {
        let dims: Vec<usize> = if scalar { vec![] } else { vec![elements.len()] };
        inputs.push(graph.add_input(format!("n{i}"), Type::new(DType::Int64, dims.clone())));
        feeds.push(Some(Array::int(DType::Int64, dims, elements.to_vec())));
    }
    let y = Builder::new(&mut graph).op("y", op, &inputs).unwrap();
    graph.outputs = vec![y];
    eval::eval(&graph, &feeds, Precision::Native).err()
}

#[test]
fn absurd_sizes_are_refused() {
    let huge = 1i64 << 40;
    let cases: &[(&str, &[&[i64]], bool, bool)] = &[
        ("ConstantOfShape", &[&[huge, huge, huge]], false, false),
        ("ConstantOfShape", &[&[-1]], false, false),
        ("Expand", &[&[i64::MAX]], false, true),
        ("Expand", &[&[huge, huge, 1]], false, true),
        ("Tile", &[&[i64::MAX]], false, true),
        ("Tile", &[&[-2]], false, true),
        ("Pad", &[&[i64::MAX, i64::MAX]], false, true),
        ("Pad", &[&[-1, -1]], false, true),
        ("Range", &[&[i64::MIN], &[i64::MAX], &[1]], true, false),
        ("Range", &[&[0], &[1], &[0]], true, false),
        ("Reshape", &[&[-5]], false, true),
        ("Gather", &[&[i64::MIN]], false, true),
    ];
    for (op, operands, scalar, with_x) in cases {
        let e = refusal(op, operands, *scalar, *with_x);
        assert_eq!(e.as_ref().map(|e| e.code), Some(Code::VALUE), "{op} of {operands:?}: {e:?}");
    }
}

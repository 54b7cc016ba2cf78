//! The meaning of a function: its body, evaluated in `f64`.
use graft_ir::{
    Array, Attr, DType, Data, Graph, Node, Precision, Type, eval, library, parse_functions, random,
};
use graft_passes::inject::METHODS;

/// The first `n` results of the function `op` on `operands`.
pub(crate) fn call(op: &str, operands: &[&Array], n: usize) -> Vec<Array> {
    call_with(op, &[], operands, n)
}

/// The same with attributes.
pub(crate) fn call_with(op: &str, attrs: &[(&str, Attr)], operands: &[&Array], n: usize) -> Vec<Array> {
    let mut graph = Graph::default();
    for (domain, version) in [("", 18), ("graft", 1)] {
        graph.opsets.insert(domain.into(), version);
    }
    for functions in METHODS.iter().map(|m| parse_functions(m.functions).expect("the bodies parse")) {
        for function in functions.iter().filter(|f| f.name == op) {
            library::adopt(&mut graph, function).expect("the function is adopted");
        }
    }
    let inputs = operands.iter().enumerate().map(|(i, a)| {
        Some(graph.add_value(format!("x{i}"), Some(Type::new(a.dtype, a.dims.iter().copied()))))
    });
    let inputs = inputs.collect();
    let outputs = (0..n).map(|i| Some(graph.add_value(format!("y{i}"), None))).collect();
    let attrs = attrs.iter().map(|(name, attr)| (name.to_string(), attr.clone())).collect();
    let node = Node { inputs, outputs, attrs, ..Node::new(op, &[], &[]) };
    let operands: Vec<_> = operands.iter().map(|&a| Some(a)).collect();
    eval::eval_node(&graph, &node, &operands, Precision::Exact).expect("the body runs")
}

/// Elements in -1..1.
pub(crate) fn draw(dims: &[usize], seed: u64, tensor: u64) -> Array {
    let n: usize = dims.iter().product();
    let data = (0..n).map(|i| 2.0 * f64::from(random::uniform(seed, 1, tensor, i as u64)) - 1.0).collect();
    Array::float(DType::Float, dims.to_vec(), data)
}

/// `f` of the elements of `array`.
pub(crate) fn map(array: &Array, f: impl Fn(usize, f64) -> f64) -> Array {
    let mut array = array.clone();
    if let Data::Float(values) = &mut array.data {
        values.iter_mut().enumerate().for_each(|(i, x)| *x = f(i, *x));
    }
    array
}

/// The sum of two arrays of the same sizes.
pub(crate) fn add(a: &Array, b: &Array) -> Array {
    let b = b.floats().expect("floats").to_vec();
    map(a, |i, x| x + b[i])
}

/// The magnitudes of an array's elements.
pub(crate) fn magnitudes(array: &Array) -> Array {
    map(array, |_, x| x.abs())
}

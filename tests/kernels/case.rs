//! One application of an op: operands, attributes, and how close to the reference a kernel has to come.
use graft_ir::{
    Array, Attr, DType, Data, Graph, Node, Precision, Result, Type, eval, library, parse_functions,
};
use graft_passes::inject::METHODS;

/// The largest error that an element of a result may have.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    /// None: nothing is rounded.
    Exact,
    /// So many roundings of the element itself.
    Own(f64),
    /// So many roundings of a number as large as the element, or as 1.
    Unit(f64),
    /// So many roundings of the result's largest element.
    Largest(f64),
    /// So many roundings of what the op makes of the operands' (and attributes') magnitudes: the bound of a sum of
    /// products whose terms cancel.
    Terms(f64),
    /// So many roundings of what the function says for each result: the largest sum, over the result's elements, of the
    /// magnitudes of the terms that it is made of.
    Made(f64, fn(&Case) -> Vec<f64>),
}

/// One application of an op.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) opset: i64,
    pub(crate) attrs: Vec<(&'static str, Attr)>,
    pub(crate) operands: Vec<Option<Array>>,
    /// How many results the op has.
    pub(crate) results: usize,
    pub(crate) bound: Bound,
    /// What numbers are rounded to on the way to a result, where that is not the result's own type.
    pub(crate) element: Option<DType>,
}

impl Case {
    /// An application without attributes, at opset 18, with one result.
    pub(crate) fn new(bound: Bound, operands: impl IntoIterator<Item = Array>) -> Case {
        let operands = operands.into_iter().map(Some).collect();
        Case { opset: 18, attrs: Vec::new(), operands, results: 1, bound, element: None }
    }
    pub(crate) fn attr(mut self, name: &'static str, attr: Attr) -> Case {
        self.attrs.push((name, attr));
        self
    }
    pub(crate) fn int(self, name: &'static str, value: i64) -> Case {
        self.attr(name, Attr::Int(value))
    }
    pub(crate) fn opset(mut self, version: i64) -> Case {
        self.opset = version;
        self
    }
    pub(crate) fn results(mut self, n: usize) -> Case {
        self.results = n;
        self
    }
    /// A graph that has the function called, where one is, and the node, with the results that are `wanted`.
    pub(crate) fn node(&self, op: &str, wanted: &[bool]) -> Result<(Graph, Node)> {
        let mut graph = Graph::default();
        for (domain, version) in [("", self.opset), ("graft", 1), ("com.microsoft", 1)] {
            graph.opsets.insert(domain.into(), version);
        }
        let operand = |graph: &mut Graph, i: usize, array: &Array| {
            graph.add_value(format!("x{i}"), Some(Type::new(array.dtype, array.dims.iter().copied())))
        };
        let operands = self.operands.iter().enumerate();
        let inputs = operands.map(|(i, a)| a.as_ref().map(|a| operand(&mut graph, i, a))).collect();
        let outputs = (0..self.results).map(|i| wanted[i].then(|| graph.add_value(format!("y{i}"), None)));
        let outputs: Vec<_> = outputs.collect();
        let mut node = Node { inputs, outputs, ..Node::new(op, &[], &[]) };
        node.attrs.extend(self.attrs.iter().map(|(name, attr)| (name.to_string(), attr.clone())));
        if library::get(op).is_some() {
            library::require(&mut graph, op)?;
        }
        for function in METHODS.iter().map(|m| parse_functions(m.functions)) {
            for function in function?.iter().filter(|f| f.name == op) {
                library::adopt(&mut graph, function)?;
            }
        }
        Ok((graph, node))
    }
    /// All results of the reference, in `f64`.
    pub(crate) fn reference(&self, op: &str) -> Result<Vec<Array>> {
        let (graph, node) = self.node(op, &vec![true; self.results])?;
        let operands: Vec<Option<&Array>> = self.operands.iter().map(Option::as_ref).collect();
        eval::eval_node(&graph, &node, &operands, Precision::Exact)
    }
    /// The same on the magnitudes of operands and attributes.
    pub(crate) fn magnitudes(&self) -> Case {
        let mut case = self.clone();
        for operand in case.operands.iter_mut().flatten() {
            if let Data::Float(elements) = &mut operand.data {
                elements.iter_mut().for_each(|x| *x = x.abs());
            }
        }
        for (_, attr) in &mut case.attrs {
            if let Attr::Float(x) = attr {
                *x = x.abs();
            }
        }
        case
    }
}

//! Whether something is what it was when it was imported. Nothing marks what a pass has changed: the original is
//! read again and compared.
use crate::{external::External, import, proto::*, types};
use graft_ir::{Attr, Attrs, Function, Graph, Node, Tensor, Value};
use std::sync::Arc;

/// Whether `old` reads as `node`.
pub(super) fn node(graph: &Graph, node: &Node, old: &NodeProto, external: &External) -> bool {
    node.name == old.name()
        && node.op == import::qualified(old.domain(), old.op_type(), old.overload())
        && names(graph, &node.inputs, &old.input)
        && names(graph, &node.outputs, &old.output)
        && node.meta == types::read_meta(&old.metadata_props)
        && import::attrs(&old.attribute, external).is_ok_and(|read| attrs(&read, &node.attrs))
}

/// Whether `old` reads as `function`.
pub(super) fn function(function: &Function, old: &FunctionProto, external: &External) -> bool {
    import::function(&function.name, old, external).is_ok_and(|read| {
        read.attrs == function.attrs
            && attrs(&read.defaults, &function.defaults)
            && read.body.opsets == function.body.opsets
            && graph(&read.body, &function.body)
    })
}

fn names(graph: &Graph, values: &[Option<Value>], names: &[String]) -> bool {
    values.len() == names.len()
        && values.iter().zip(names).all(|(v, name)| v.map_or("", |v| graph.name(v)) == name)
}

fn attrs(a: &Attrs, b: &Attrs) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|((k, x), (l, y))| k == l && attr(x, y))
}

/// Whether two attributes mean the same: of subgraphs, the types that inference may have filled in do not count.
pub(super) fn attr(a: &Attr, b: &Attr) -> bool {
    match (a, b) {
        (Attr::Graph(a), Attr::Graph(b)) => Arc::ptr_eq(a, b) || graph(a, b),
        (Attr::Tensor(a), Attr::Tensor(b)) => tensor(a, b),
        _ => a == b,
    }
}

/// Whether two tensors are equal, without looking at bytes that are the very same memory.
pub(super) fn tensor(a: &Tensor, b: &Tensor) -> bool {
    let shared = a.data().as_ptr() == b.data().as_ptr() && a.data().len() == b.data().len();
    a.dtype() == b.dtype() && a.dims() == b.dims() && (shared || a.data() == b.data())
}

fn graph(a: &Graph, b: &Graph) -> bool {
    let ends = (&a.name, &a.meta, &a.inputs, &a.params, &a.outputs)
        == (&b.name, &b.meta, &b.inputs, &b.params, &b.outputs);
    ends && values(a, b) && nodes(a, b) && a.inputs.iter().all(|&v| a[v].ty == b[v].ty)
}

fn values(a: &Graph, b: &Graph) -> bool {
    let tensors = |x: &Option<Tensor>, y: &Option<Tensor>| match (x, y) {
        (Some(x), Some(y)) => tensor(x, y),
        (x, y) => x.is_none() && y.is_none(),
    };
    a.values.len() == b.values.len()
        && a.values
            .iter()
            .zip(&b.values)
            .all(|(x, y)| x.name == y.name && x.meta == y.meta && tensors(&x.tensor, &y.tensor))
}

fn nodes(a: &Graph, b: &Graph) -> bool {
    a.nodes.len() == b.nodes.len()
        && a.nodes.iter().zip(&b.nodes).all(|(x, y)| {
            (&x.name, &x.op, &x.inputs, &x.outputs, &x.meta)
                == (&y.name, &y.op, &y.inputs, &y.outputs, &y.meta)
                && attrs(&x.attrs, &y.attrs)
        })
}

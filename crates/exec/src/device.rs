//! What the device does of a graph's nodes: the kernels that it has for them, and the sites that launches are planned for.
use crate::place::Place;
use graft_ir::{DType, Graph, Node, Type};
use graft_kernels::{
    Kernel,
    cuda::{Shape, Site, Target},
    row_major,
};

/// The text that makes a strided tensor row-major.
pub(crate) const COPY: &str = "{0}";

/// Constants of up to this many bytes are shown to planners: axes, shapes, bounds.
const KNOWN: usize = 256;

/// The kernel whose device's column may serve a node. Its conditions are those of the host's kernel, which knows single
/// precision only: on the device the halves count as the same.
pub(crate) fn lookup(graph: &Graph, node: &Node) -> Option<&'static Kernel> {
    let single = |ty: Type| match ty.dtype {
        DType::Float16 | DType::Bfloat16 => Type { dtype: DType::Float, ..ty },
        _ => ty,
    };
    let ty = |v: &Option<_>| v.and_then(|v| graph[v].ty.clone());
    let own: Vec<_> = node.inputs.iter().map(ty).collect();
    let alike: Vec<_> = own.iter().cloned().map(|ty| ty.map(single)).collect();
    graft_kernels::lookup(node, &own)
        .or_else(|| graft_kernels::lookup(node, &alike))
        .filter(|kernel| kernel.device.is_any())
}

/// The sizes and types of a node's results, `None` within for those that nobody wants; `None` if some are not known.
pub(crate) fn results(graph: &Graph, node: &Node) -> Option<Vec<Option<Whole>>> {
    let whole = |v: &Option<_>| match v {
        None => Some(None),
        Some(v) => Whole::of(graph[*v].ty.as_ref()?).map(Some),
    };
    node.outputs.iter().map(whole).collect()
}

/// A row-major tensor.
pub(crate) struct Whole {
    pub(crate) dtype: DType,
    pub(crate) dims: Vec<usize>,
    strides: Vec<usize>,
}

impl Whole {
    fn of(ty: &Type) -> Option<Whole> {
        let dims = ty.sizes()?;
        Some(Whole { dtype: ty.dtype, strides: row_major(&dims), dims })
    }
    /// What lies, or would lie, row-major in the memory of a place.
    pub(crate) fn at(place: &Place) -> Whole {
        Whole { dtype: place.dtype, dims: place.dims.clone(), strides: row_major(&place.dims) }
    }
    fn shape(&self) -> Shape<'_> {
        Shape { dtype: self.dtype, dims: &self.dims, strides: &self.strides, known: None }
    }
}

/// The site of a node whose operands lie at `inputs`; `known` tells the bytes of those that are constant.
pub(crate) fn site<'a>(
    (node, opset): (&'a Node, i64),
    inputs: &'a [Option<Place>],
    results: &'a [Option<Whole>],
    known: &dyn Fn(usize) -> Option<&'a [u8]>,
    target: Target,
) -> Site<'a> {
    let operand = |(i, place): (usize, &'a Option<Place>)| {
        let place = place.as_ref()?;
        // Those of another format would be read wrongly.
        let is_whole = |bytes: &&[u8]| bytes.len() == place.len() * place.element() && bytes.len() <= KNOWN;
        Some(Shape {
            dtype: place.dtype,
            dims: &place.dims,
            strides: &place.strides,
            known: known(i).filter(is_whole).filter(|_| place.is_row_major()),
        })
    };
    let is_frozen = |place: &Option<Place>| place.as_ref().is_some_and(|p| p.buffer().is_none());
    let frozen = (0..inputs.len()).filter(|&i| is_frozen(&inputs[i])).collect();
    let inputs = inputs.iter().enumerate().map(operand).collect();
    let outputs = results.iter().map(|r| r.as_ref().map(Whole::shape)).collect();
    Site::new((node, opset), inputs, outputs, target).with_frozen(frozen)
}

/// Whether the device would launch a node whose operands were all row-major.
pub(crate) fn serves(graph: &Graph, node: &Node, target: Target) -> bool {
    let Some(kernel) = lookup(graph, node) else { return false };
    let operands = node.inputs.iter().map(|v| match v {
        None => Some(None),
        Some(v) => Whole::of(graph[*v].ty.as_ref()?).map(Some),
    });
    let (Some(operands), Some(results)) = (operands.collect::<Option<Vec<_>>>(), results(graph, node)) else {
        return false;
    };
    let known = |i: usize| {
        let tensor = graph[node.input(i)?].tensor.as_ref();
        tensor.map(|t| &t.data()[..]).filter(|bytes| bytes.len() <= KNOWN)
    };
    let operands = operands.iter().enumerate();
    let inputs = operands.map(|(i, o)| o.as_ref().map(|o| Shape { known: known(i), ..o.shape() })).collect();
    let outputs = results.iter().map(|r| r.as_ref().map(Whole::shape)).collect();
    let opset = graph.opset(node.domain_and_name().0).unwrap_or(1);
    let site = Site::new((node, opset), inputs, outputs, target);
    kernel.device.plan(&site).is_some()
}

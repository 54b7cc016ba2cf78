//! What launches are planned for: one application of an op or function, with the sizes of its operands and results.
use super::{Class, Element, Library, Table, Tile, tile};
use graft_ir::{DType, Node};
use std::cell::RefCell;

/// An operand or a result in device memory.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'a> {
    /// The element type.
    pub dtype: DType,
    /// The sizes, outermost first.
    pub dims: &'a [usize],
    /// How many elements apart neighbours along each axis are.
    pub strides: &'a [usize],
    /// The row-major elements' bytes, where they are known beforehand: axes, shapes, bounds.
    pub known: Option<&'a [u8]>,
}

/// The device that launches are planned for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    /// Major and minor number of its architecture: (8, 0) is `sm_80`.
    pub arch: (u32, u32),
    /// Its multiprocessors.
    pub multiprocessors: usize,
    /// Bytes of shared memory that a block can have.
    pub shared: usize,
    /// Which tiles were measured to be the fastest; elsewhere a model decides.
    pub measured: Option<&'static Table>,
    /// The tile of every large product, whatever was measured: to measure it.
    pub tile: Option<Tile>,
    /// Whether a library may do large products in a kernel's place.
    pub library: Library,
}

impl Default for Target {
    /// An A100.
    fn default() -> Target {
        let library = Library::Absent;
        Target { arch: (8, 0), multiprocessors: 108, shared: 163 << 10, measured: None, tile: None, library }
    }
}

/// One application of an op or function.
#[derive(Clone, Debug)]
pub struct Site<'a> {
    /// The node, for its attributes.
    pub node: &'a Node,
    /// The opset version of the node's domain.
    pub opset: i64,
    /// The operands, in the node's order; `None` where one is left out.
    pub inputs: Vec<Option<Shape<'a>>>,
    /// The results, row-major, in the node's order; `None` where one is not wanted.
    pub outputs: Vec<Option<Shape<'a>>>,
    /// Where it is to run.
    pub target: Target,
    /// The operands that never change.
    frozen: Vec<usize>,
    /// The large products whose tiles were asked for.
    products: RefCell<Vec<Class>>,
}

impl Shape<'_> {
    /// The number of elements.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }
    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The size of the last axis; 1 for a scalar.
    pub fn cols(&self) -> usize {
        self.dims.last().copied().unwrap_or(1)
    }
    /// The product of the sizes of all axes but the last one.
    pub fn rows(&self) -> usize {
        self.dims.split_last().map_or(1, |(_, rest)| rest.iter().product())
    }
    /// Whether the elements lie in row-major order without gaps.
    pub fn is_row_major(&self) -> bool {
        crate::is_row_major(self.dims, self.strides)
    }
    /// The elements of an `int64` operand that are known beforehand.
    pub fn ints(&self) -> Option<Vec<i64>> {
        let bytes = self.known.filter(|_| self.dtype == DType::Int64)?;
        Some(bytes.as_chunks::<8>().0.iter().map(|&b| i64::from_ne_bytes(b)).collect())
    }
    /// The elements of a `float` operand that are known beforehand.
    pub fn floats(&self) -> Option<Vec<f32>> {
        let bytes = self.known.filter(|_| self.dtype == DType::Float)?;
        Some(bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_ne_bytes(b)).collect())
    }
}

impl<'a> Site<'a> {
    /// One where nothing is asked for yet.
    pub fn new(
        (node, opset): (&'a Node, i64),
        inputs: Vec<Option<Shape<'a>>>,
        outputs: Vec<Option<Shape<'a>>>,
        target: Target,
    ) -> Site<'a> {
        let frozen = Vec::new();
        Site { node, opset, inputs, outputs, target, frozen, products: RefCell::default() }
    }
    /// Where these operands never change.
    pub fn with_frozen(self, frozen: Vec<usize>) -> Site<'a> {
        Site { frozen, ..self }
    }
    /// Whether operand `i` never changes.
    pub(crate) fn is_frozen(&self, i: usize) -> bool {
        self.frozen.contains(&i)
    }
    /// The tile for a large product of (rows, cols, depth).
    pub(crate) fn tile(&self, sizes: [usize; 3], element: Element) -> Tile {
        self.products.borrow_mut().push(Class::new(self.target.arch, element, sizes));
        tile::choose(self.target, sizes, element)
    }
    /// Whether the library is to do a large product of (rows, cols, depth), if its operands are such that it serves them.
    pub(crate) fn takes_library(&self, sizes: [usize; 3], element: Element) -> bool {
        tile::takes_library(self.target, sizes, element)
    }
    /// The kinds of large products whose tiles a planner has asked for.
    pub fn products(&self) -> Vec<Class> {
        self.products.borrow().clone()
    }
    /// Operand `i`, if it is given.
    pub fn input(&self, i: usize) -> Option<Shape<'a>> {
        self.inputs.get(i).copied().flatten()
    }
    /// Result `i`, if anyone wants it.
    pub fn output(&self, i: usize) -> Option<Shape<'a>> {
        self.outputs.get(i).copied().flatten()
    }
    /// Whether anyone wants result `i`.
    pub fn wants(&self, i: usize) -> bool {
        self.output(i).is_some()
    }
    /// The element type of floating-point operand `i`.
    pub fn element(&self, i: usize) -> Option<Element> {
        self.input(i).and_then(|shape| Element::of(shape.dtype))
    }
    /// Whether these operands and these results are `float` where they are given: gates, probabilities and lengths are,
    /// whatever activations and weights are made of.
    pub fn are_floats(&self, operands: &[usize], results: &[usize]) -> bool {
        let operands = operands.iter().map(|&i| self.input(i));
        let mut all = operands.chain(results.iter().map(|&i| self.output(i))).flatten();
        all.all(|shape| shape.dtype == DType::Float)
    }
    /// The elements of an integer operand that may also be an attribute in older opsets (`axes`, `split`, …); `None` if
    /// it is neither, or not known beforehand.
    pub fn ints(&self, i: usize, attr: &str) -> Option<Vec<i64>> {
        match self.input(i) {
            Some(shape) => shape.ints(),
            None => self.node.ints(attr).ok()?.map(<[i64]>::to_vec),
        }
    }
}

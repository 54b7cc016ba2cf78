//! The steps of an `Einsum`: of the operands those two are multiplied whose product is smallest, until one is left, and what
//! nobody needs any more is summed over as soon as that is so. A product with a sum in it is a stack of matrix products; operands that do not lie as such are
//! laid out anew. All of it follows from the equation and the sizes.
use graft_ir::{
    Node, Result,
    ops::{Axis, Equation},
};

/// One axis of a term; those of size 1 are left out.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Leg {
    pub(super) axis: Axis,
    pub(super) size: usize,
    pub(super) stride: usize,
}

/// Where a term lies.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum At {
    Operand(usize),
    /// From this element of the scratch memory on.
    Scratch(usize),
    Result,
}

/// A tensor that takes part: an operand, or what a step makes.
#[derive(Clone, Debug)]
pub(super) struct Term {
    pub(super) at: At,
    pub(super) legs: Vec<Leg>,
}

/// What a step does; it writes `to`, row-major.
#[derive(Debug)]
pub(super) enum Work {
    /// The sums of `x` over the axes that `to` lacks; where there are none, a copy.
    Sum { x: Term },
    /// The products of elements.
    Multiply { a: Term, b: Term },
    /// The products of matrices, `m` of a's axes by `n` of b's, over `k` axes of both: one for each place of the first
    /// `batch` axes of `to`.
    Product { a: Term, b: Term, batch: usize, k: Vec<Axis> },
}

/// One step.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) work: Work,
    pub(super) to: Term,
}

/// All steps, and the elements of scratch memory that they use.
#[derive(Debug, Default)]
pub(super) struct Contraction {
    pub(super) steps: Vec<Step>,
    pub(super) scratch: usize,
}

impl Term {
    /// The leg along `axis`.
    pub(super) fn leg(&self, axis: Axis) -> Option<Leg> {
        self.legs.iter().copied().find(|leg| leg.axis == axis)
    }
    fn has(&self, axis: Axis) -> bool {
        self.leg(axis).is_some()
    }
    /// The axes for which `wanted` holds.
    fn axes(&self, wanted: impl Fn(Axis) -> bool) -> Vec<Axis> {
        self.legs.iter().map(|leg| leg.axis).filter(|&axis| wanted(axis)).collect()
    }
    pub(super) fn len(&self) -> usize {
        self.legs.iter().map(|leg| leg.size).product()
    }
    /// The size of `axes` as one, and how far apart its neighbours lie, if that is the same everywhere.
    pub(super) fn fused(&self, axes: &[Axis]) -> Option<(usize, usize)> {
        let mut fused = (1, 0);
        for leg in axes.iter().rev().map(|&axis| self.leg(axis)) {
            let Leg { size, stride, .. } = leg?;
            match fused {
                (1, _) => fused = (size, stride),
                (n, step) if stride == n * step => fused.0 *= size,
                _ => return None,
            }
        }
        Some(fused)
    }
    /// Operand `i`: an axis that it names twice is its diagonal.
    fn operand(i: usize, axes: &[Axis], dims: &[usize]) -> Term {
        let mut term = Term { at: At::Operand(i), legs: Vec::new() };
        let strides = crate::row_major(dims);
        for ((&axis, &size), stride) in
            axes.iter().zip(dims).zip(strides).filter(|((_, size), _)| **size != 1)
        {
            match term.legs.iter_mut().find(|leg| leg.axis == axis) {
                Some(leg) => leg.stride += stride,
                None => term.legs.push(Leg { axis, size, stride }),
            }
        }
        term
    }
}

impl Contraction {
    /// The steps of `node` with operands of sizes `dims`, row-major.
    pub(super) fn new(node: &Node, dims: &[&[usize]]) -> Result<Contraction> {
        let equation = Equation::of(node)?;
        let axes = equation.axes(&dims.iter().map(|d| d.len()).collect::<Vec<_>>())?;
        let is_spread = |axis: &&Axis| matches!(axis, Axis::Spread(_));
        let spread = axes.iter().map(|of| of.iter().filter(is_spread).count()).max().unwrap_or(0);
        let kept = equation.result_axes(spread);
        let terms = axes.iter().zip(dims).enumerate().map(|(i, (axes, dims))| Term::operand(i, axes, dims));
        let mut terms: Vec<Term> = terms.collect();
        let mut plan = Contraction::default();
        while terms.len() > 1 {
            let (i, j) = smallest_product(&terms, &kept);
            let (b, a) = (terms.remove(j), terms.remove(i));
            let needed = |axis| kept.contains(&axis) || terms.iter().any(|t| t.has(axis));
            let product = plan.pair(a, b, needed, terms.is_empty().then_some(&kept[..]));
            terms.insert(i, product);
        }
        for x in terms.into_iter().filter(|x| x.at != At::Result) {
            let legs = ordered(&kept, &[&x]);
            plan.push(Work::Sum { x }, legs, At::Result);
        }
        Ok(plan)
    }
    /// Appends a step that makes a row-major term of these axes.
    fn push(&mut self, work: Work, legs: Vec<Leg>, at: At) -> Term {
        let to = Term { at, legs };
        if at != At::Result {
            self.scratch += to.len();
        }
        self.steps.push(Step { work, to: to.clone() });
        to
    }
    fn push_scratch(&mut self, work: Work, legs: Vec<Leg>) -> Term {
        let at = At::Scratch(self.scratch);
        self.push(work, legs, at)
    }
    /// The product of two terms, summed over what is not `needed`; into the result, if it is the `last` one and its axes
    /// come out in that order.
    fn pair(&mut self, a: Term, b: Term, needed: impl Fn(Axis) -> bool, last: Option<&[Axis]>) -> Term {
        let (a, b) = (self.summed(a, |axis| b.has(axis) || needed(axis)), b);
        let b = self.summed(b, |axis| a.has(axis) || needed(axis));
        let k = a.axes(|axis| b.has(axis) && !needed(axis));
        if k.is_empty() {
            let own = || [a.axes(|_| true), b.axes(|axis| !a.has(axis))].concat();
            let legs = ordered(&last.map_or_else(own, <[Axis]>::to_vec), &[&a, &b]);
            return match last {
                Some(_) => self.push(Work::Multiply { a, b }, legs, At::Result),
                None => self.push_scratch(Work::Multiply { a, b }, legs),
            };
        }
        // The last axis of the result is one of the right matrix, if that can be.
        let is_left = |axis: &&Axis| a.has(**axis) && !b.has(**axis);
        let swaps =
            last.and_then(|kept| kept.iter().rfind(|axis| a.has(**axis) || b.has(**axis))).filter(is_left);
        let (a, b) = if swaps.is_some() { (b, a) } else { (a, b) };
        let order = |of: Vec<Axis>| match last {
            Some(kept) => kept.iter().copied().filter(|axis| of.contains(axis)).collect(),
            None => of,
        };
        let batch = order(a.axes(|axis| b.has(axis) && !k.contains(&axis)));
        let (m, n) = (order(a.axes(|axis| !b.has(axis))), order(b.axes(|axis| !a.has(axis))));
        let (a, b) = (self.matrices(a, &batch, &m, &k), self.matrices(b, &batch, &k, &n));
        let legs = ordered(&[&batch[..], &m, &n].concat(), &[&a, &b]);
        let is_result = last.is_some_and(|kept| ordered(kept, &[&a, &b]) == legs);
        let work = Work::Product { a, b, batch: batch.len(), k };
        if is_result { self.push(work, legs, At::Result) } else { self.push_scratch(work, legs) }
    }
    /// `x` summed over the axes that are not `needed`.
    fn summed(&mut self, x: Term, needed: impl Fn(Axis) -> bool) -> Term {
        let kept = x.axes(needed);
        if kept.len() == x.legs.len() {
            return x;
        }
        let legs = ordered(&kept, &[&x]);
        self.push_scratch(Work::Sum { x }, legs)
    }
    /// `x` as a stack of matrices with these axes as rows and columns, laid out anew if it does not lie so.
    fn matrices(&mut self, x: Term, batch: &[Axis], rows: &[Axis], columns: &[Axis]) -> Term {
        if x.fused(rows).is_some() && x.fused(columns).is_some() {
            return x;
        }
        let legs = ordered(&[batch, rows, columns].concat(), &[&x]);
        self.push_scratch(Work::Sum { x }, legs)
    }
}

/// The two of the terms, at least two, of whose product the others and the result need the fewest elements.
fn smallest_product(terms: &[Term], kept: &[Axis]) -> (usize, usize) {
    let pairs = (1..terms.len()).flat_map(|j| (0..j).map(move |i| (i, j)));
    let size = |&(i, j): &(usize, usize)| {
        let others = || terms.iter().enumerate().filter(|(o, _)| *o != i && *o != j);
        let needed = |axis| kept.contains(&axis) || others().any(|(_, t)| t.has(axis));
        let own = terms[i].legs.iter();
        let new = terms[j].legs.iter().filter(|leg| !terms[i].has(leg.axis));
        let sizes = own.chain(new).filter(|leg| needed(leg.axis)).map(|leg| leg.size);
        sizes.fold(1, usize::saturating_mul)
    };
    pairs.min_by_key(size).unwrap_or((0, 1))
}

/// The axes of `order` that any of `terms` has, row-major.
fn ordered(order: &[Axis], terms: &[&Term]) -> Vec<Leg> {
    let find = |&axis: &Axis| terms.iter().find_map(|term| term.leg(axis));
    let mut legs: Vec<Leg> = order.iter().filter_map(find).collect();
    let strides = crate::row_major(&legs.iter().map(|leg| leg.size).collect::<Vec<_>>());
    legs.iter_mut().zip(strides).for_each(|(leg, stride)| leg.stride = stride);
    legs
}

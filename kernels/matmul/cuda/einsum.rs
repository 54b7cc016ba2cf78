//! Launch plans of `Einsum`: those of the steps of its contraction.
use super::{Call, Factor, NOTHING, PATH, oriented};
use crate::{
    cuda::{
        Buffer::{self, Operand, Result},
        Element, Launch, Module, Plan, Site, TILES, buffers, long, walk,
    },
    matmul::contraction::{At, Contraction, Leg, Step, Term, Work},
    movement,
    reduce::cuda::{Axes, Fold, Reduction},
};
use graft_ir::ops::Axis;

/// The launches of an `Einsum` of floats.
pub(crate) fn einsum(site: &Site<'_>) -> Option<Plan> {
    let operands = (0..site.inputs.len()).map(|i| site.input(i)).collect::<Option<Vec<_>>>()?;
    let is_f32 = (0..operands.len()).all(|i| site.element(i) == Some(Element::F32));
    let contraction =
        Contraction::new(site.node, &operands.iter().map(|x| x.dims).collect::<Vec<_>>()).ok()?;
    // Sums of nothing are rare enough to be left to the host.
    if !is_f32 || operands.iter().any(|x| x.is_empty()) {
        return None;
    }
    let mut plan = Plan::default();
    let Buffer::Workspace(base) = plan.reserve(Element::F32.bytes() * contraction.scratch) else {
        return None;
    };
    let steps = Steps { site, base };
    contraction.steps.iter().try_for_each(|step| steps.push(step, &mut plan))?;
    Some(plan)
}

/// What the steps share.
struct Steps<'a> {
    site: &'a Site<'a>,
    /// Where the contraction's scratch memory begins in the workspace.
    base: usize,
}

impl Steps<'_> {
    fn place(&self, term: &Term) -> Buffer {
        match term.at {
            At::Operand(i) => Operand(i),
            At::Scratch(at) => Buffer::Workspace(self.base + Element::F32.bytes() * at),
            At::Result => Result(0),
        }
    }

    fn push(&self, step: &Step, plan: &mut Plan) -> Option<()> {
        match &step.work {
            Work::Sum { x } => self.sum(x, &step.to, plan),
            Work::Multiply { a, b } => {
                plan.launches.push(self.multiply(a, b, &step.to)?);
                Some(())
            }
            Work::Product { a, b, batch, k } => {
                let (batch, rest) = step.to.legs.split_at(*batch);
                let a = self.factor(a, batch, rest, k)?.served(Element::F32, plan)?;
                let b = self.factor(b, batch, rest, k)?.served(Element::F32, plan)?;
                let call = Call { a, b, alpha: 1.0, added: NOTHING, to: self.place(&step.to) };
                call.push(&sizes(batch), Element::F32, self.site, plan)
            }
        }
    }

    /// The sums over the axes that `to` lacks; where there are none, a copy.
    fn sum(&self, x: &Term, to: &Term, plan: &mut Plan) -> Option<()> {
        let gone: Vec<Leg> = x.legs.iter().copied().filter(|leg| to.leg(leg.axis).is_none()).collect();
        let (dims, strides) = (sizes(&to.legs), along(&to.legs, x));
        if gone.is_empty() {
            let (from, whole) = (((self.place(x), 0), strides.as_slice()), crate::row_major(&dims));
            let to = ((self.place(to), 0), whole.as_slice());
            plan.launches.push(movement::cuda::copy(Element::F32.bytes(), &dims, from, to)?);
            return Some(());
        }
        let fold = Fold {
            kind: Reduction::Sum,
            element: Element::F32,
            from: self.place(x),
            kept: Axes { sizes: dims, strides },
            gone: Axes { sizes: sizes(&gone), strides: along(&gone, x) },
            to: self.place(to),
        };
        fold.push(self.site.target, plan)
    }

    fn multiply(&self, a: &Term, b: &Term, to: &Term) -> Option<Launch> {
        let n = to.len();
        let mut arguments = buffers([a, b, to].map(|term| self.place(term)));
        arguments.push(long(n));
        arguments.extend(walk(&sizes(&to.legs), [&along(&to.legs, a), &along(&to.legs, b)])?);
        let module = oriented(&Module::file(PATH), Element::F32, [true, false]).tile(TILES[0]);
        Some(Launch::elements("multiply_strided", module, (n, 1), arguments).costs(n, 12 * n))
    }

    /// A term as matrices: its axes among `rest`, which the result has, and those of the sum, as one each.
    fn factor(&self, term: &Term, batch: &[Leg], rest: &[Leg], k: &[Axis]) -> Option<Factor> {
        let own: Vec<Axis> =
            rest.iter().map(|leg| leg.axis).filter(|&axis| term.leg(axis).is_some()).collect();
        let (other, k) = (term.fused(&own)?, term.fused(k)?);
        Some(Factor {
            memory: self.place(term),
            batch: sizes(batch),
            batch_strides: along(batch, term),
            other: [other.0, other.1],
            k: [k.0, k.1],
        })
    }
}

fn sizes(legs: &[Leg]) -> Vec<usize> {
    legs.iter().map(|leg| leg.size).collect()
}

/// The strides of `x` along `legs`, 0 along those that it lacks.
fn along(legs: &[Leg], x: &Term) -> Vec<usize> {
    legs.iter().map(|leg| x.leg(leg.axis).map_or(0, |own| own.stride)).collect()
}

//! `Einsum`: runs the steps of its contraction.
use super::{
    contraction::{At, Contraction, Leg, Step, Term, Work},
    cpu::{Batch, batched},
};
use crate::{Call, Threads, View, ViewMut, copy, strides::Walk, threads::PIECE};
use graft_ir::{DType, Node, Result, ops::Axis};

/// Memory for what lies between the steps.
pub(super) fn scratch(node: &Node, operands: &[&[usize]], _: &[&[usize]]) -> usize {
    // An equation that does not fit the sizes is reported when it is run.
    Contraction::new(node, operands).map_or(0, |c| c.scratch * size_of::<f32>())
}

pub(super) fn flops(node: &Node, operands: &[&[usize]], _: &[&[usize]]) -> u64 {
    let of = |step: &Step| match &step.work {
        Work::Sum { x } => x.len(),
        Work::Multiply { .. } => step.to.len(),
        Work::Product { a, k, .. } => {
            2 * step.to.len()
                * k.iter().filter_map(|&axis| a.leg(axis)).map(|leg| leg.size).product::<usize>()
        }
    };
    Contraction::new(node, operands).map_or(0, |c| c.steps.iter().map(of).sum::<usize>() as u64)
}

/// The products of the operands' elements, summed over the labels that the result lacks.
pub(super) fn einsum(call: &mut Call<'_>) -> Result<()> {
    let operands = (0..call.inputs.len()).map(|i| call.input(i)).collect::<Result<Vec<_>>>()?;
    let plan = Contraction::new(call.node, &operands.iter().map(|x| x.dims).collect::<Vec<_>>())?;
    let (scratch, out) = (call.scratch::<f32>(), call.output(0)?.elements::<f32>());
    for step in &plan.steps {
        // What a step reads was written before, and so lies in front of what it writes.
        let (before, to) = match step.to.at {
            At::Scratch(at) => {
                let (before, rest) = scratch.split_at_mut(at);
                (&*before, &mut rest[..step.to.len()])
            }
            At::Operand(_) | At::Result => (&*scratch, &mut *out),
        };
        let find = |term: &Term| match term.at {
            At::Operand(i) => operands[i].elements::<f32>(),
            At::Scratch(at) => &before[at..],
            At::Result => &[],
        };
        run(step, find, to, call.threads)?;
    }
    Ok(())
}

fn run<'a>(step: &Step, find: impl Fn(&Term) -> &'a [f32], to: &mut [f32], threads: Threads) -> Result<()> {
    match &step.work {
        Work::Sum { x } => sum(x, find(x), &step.to, to, threads),
        Work::Multiply { a, b } => {
            multiply([a, b], [find(a), find(b)], &step.to, to, threads);
            Ok(())
        }
        Work::Product { a, b, batch, k } => {
            let (batch, rest) = step.to.legs.split_at(*batch);
            let free = |of: &Term| -> Vec<Axis> {
                rest.iter().map(|leg| leg.axis).filter(|&axis| of.leg(axis).is_some()).collect()
            };
            let fused = |of: &Term, axes: &[Axis]| of.fused(axes).unwrap_or_default();
            let (rows, columns) = (fused(a, &free(a)), fused(b, &free(b)));
            let (left, right) = (fused(a, k), fused(b, k));
            let walk = Walk::new(&sizes(batch), [&along(batch, a), &along(batch, b)]);
            let stack = Batch {
                lhs: find(a),
                lhs_sizes: [rows.0, left.0],
                lhs_strides: [rows.1, left.1],
                rhs: find(b),
                rhs_sizes: [right.0, columns.0],
                rhs_strides: [right.1, columns.1],
                walk,
            };
            batched(stack, to, threads)
        }
    }
}

fn sizes(legs: &[Leg]) -> Vec<usize> {
    legs.iter().map(|leg| leg.size).collect()
}

/// The strides of `x` along `legs`, 0 along those that it lacks.
fn along(legs: &[Leg], x: &Term) -> Vec<usize> {
    legs.iter().map(|leg| x.leg(leg.axis).map_or(0, |own| own.stride)).collect()
}

fn multiply(terms: [&Term; 2], data: [&[f32]; 2], to: &Term, out: &mut [f32], threads: Threads) {
    let [a, b] = terms.map(|term| along(&to.legs, term));
    let walk = Walk::new(&sizes(&to.legs), [&a, &b]);
    let [by_a, by_b] = walk.inner();
    threads.pieces(out, PIECE, |start, piece| {
        walk.runs(start, piece.len(), |at, len, [i, j]| {
            let run = piece[at..at + len].iter_mut().enumerate();
            run.for_each(|(n, y)| *y = data[0][i + n * by_a] * data[1][j + n * by_b]);
        });
    });
}

/// The sums over the axes that `to` lacks, each in `f64`.
fn sum(x: &Term, data: &[f32], to: &Term, out: &mut [f32], threads: Threads) -> Result<()> {
    let (dims, strides) = (sizes(&to.legs), along(&to.legs, x));
    let summed: Vec<Leg> = x.legs.iter().copied().filter(|leg| to.leg(leg.axis).is_none()).collect();
    if summed.is_empty() {
        let view =
            View { dtype: DType::Float, dims: &dims, strides: &strides, data: bytemuck::cast_slice(data) };
        let out = bytemuck::cast_slice_mut(out);
        return copy(&view, ViewMut { dtype: DType::Float, dims: &dims, data: out }, threads);
    }
    let (walk, over) = (Walk::new(&dims, [&strides]), Walk::new(&sizes(&summed), [&along(&summed, x)]));
    let (count, [between], [step]) = (sizes(&summed).iter().product::<usize>(), walk.inner(), over.inner());
    threads.pieces(out, PIECE / count.max(1), |start, piece| {
        walk.runs(start, piece.len(), |at, len, [base]| {
            for (j, y) in piece[at..at + len].iter_mut().enumerate() {
                let mut total = 0.0;
                over.runs(0, count, |_, len, [offset]| {
                    let from = base + j * between + offset;
                    total += (0..len).map(|i| f64::from(data[from + i * step])).sum::<f64>();
                });
                *y = total as f32;
            }
        });
    });
    Ok(())
}

//! Launch plans of TriAdaptLoRA: LoRA's, with the kernels of `tri.cu` in rank space.
use crate::{
    cuda::{
        Buffer::{self, Null, Operand, Result},
        Linear, Plan, Site, Sizes, Source, arguments, small, stacks,
    },
    lora::Middle,
};

pub(crate) const SOURCES: &[Source] = &[Source {
    path: PATH,
    text: include_str!("tri.cu"),
    kernels: &["tri_down", "tri_rank_grad", "tri_triangles"],
    products: &["tri_down", "tri_rank_grad"],
    modules: stacks,
}];

const PATH: &str = "tri/tri.cu";

fn middle(of: &[Buffer]) -> Middle<'_> {
    Middle { path: PATH, down: "tri_down", rank_grad: "tri_rank_grad", of, own: &[1, 5, 9, 13, 17] }
}

/// The launches of a `graft.Tri` of a graph; scale is a float, all other operands are of the linear's element.
pub(super) fn forward(site: &Site<'_>) -> Option<Plan> {
    let linear = Linear::of(site, [0, 1, 2]).filter(|_| site.are_floats(&[6], &[]))?;
    let [x, w, a, b, l, u, scale] = [0, 1, 2, 3, 4, 5, 6].map(Operand);
    let mut plan = Plan::default();
    let bytes = linear.sizes.tokens * linear.sizes.rank * linear.element.bytes();
    let [h, q] = [1, 2].map(|i| plan.result(site.wants(i), i, bytes));
    let y = site.wants(0).then_some(Result(0));
    middle(&[l, u]).forward(&mut plan, &linear, [x, w, a, b, scale], (y, h, q));
    Some(plan)
}

/// The launches of a `graft.TriGrad` of a graph.
pub(super) fn gradient(site: &Site<'_>) -> Option<Plan> {
    let linear = Linear::of(site, [1, 2, 3]).filter(|_| site.are_floats(&[7], &[1, 2, 3, 4]))?;
    let [dy, x, w, a, b, l, u, scale, h, q] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(Operand);
    let [dx, da, db, dl, du] = [0, 1, 2, 3, 4].map(|i| site.wants(i).then_some(Result(i)));
    let mut plan = Plan::default();
    let wanted = ([dx, da, db], dl.is_some() || du.is_some());
    let (parts, slabs) =
        middle(&[l, u]).backward(&mut plan, &linear, [dy, x, w, a, b, scale], &[q, h], wanted);
    if wanted.1 {
        let Sizes { rank, .. } = linear.sizes;
        let operands = arguments(&[parts, dl.unwrap_or(Null), du.unwrap_or(Null)], &[rank, slabs.n], &[]);
        let bytes = rank * rank * (4 * (slabs.n + 2));
        let grid = [(rank * rank).div_ceil(256), 256];
        plan.launches.push(small("tri_triangles", linear.rank_module(PATH), grid, operands, bytes));
    }
    Some(plan)
}

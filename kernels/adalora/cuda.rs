//! Launch plans of AdaLoRA, and of what SaLoRA has in common with it: LoRA's, with ranks scaled by `adalora.cu`.
use crate::{
    cuda::{
        Buffer::{self, Operand, Result},
        LARGEST_RANK, Linear, Plan, Site, Sizes, Slabs, Source, arguments, small, stacks,
    },
    lora::Middle,
};

pub(crate) const SOURCES: &[Source] = &[Source {
    path: PATH,
    text: include_str!("adalora.cu"),
    kernels: &["scaled_down", "scaled_grad", "scaled_rank_grad"],
    products: &["scaled_down", "scaled_rank_grad"],
    modules: stacks,
}];

const PATH: &str = "adalora/adalora.cu";

/// The kernels that scale ranks by the floats at `e`.
pub(crate) fn scaled(e: &[Buffer; 1]) -> Middle<'_> {
    Middle { path: PATH, down: "scaled_down", rank_grad: "scaled_rank_grad", of: e, own: &[1, 5, 9, 13] }
}

/// Pushes what makes de of the parts of dc.
pub(crate) fn scale_grad(plan: &mut Plan, linear: &Linear, (parts, slabs): (Buffer, Slabs), de: Buffer) {
    let Sizes { rank, .. } = linear.sizes;
    let operands = arguments(&[parts, de], &[rank, slabs.n], &[]);
    let bytes = 4 * rank * (slabs.n + 1);
    plan.launches.push(small("scaled_grad", linear.rank_module(PATH), [1, LARGEST_RANK], operands, bytes));
}

/// The launches of a `graft.AdaLora` of a graph; e and scale are floats.
pub(super) fn forward(site: &Site<'_>) -> Option<Plan> {
    let linear = Linear::of(site, [0, 1, 2]).filter(|_| site.are_floats(&[4, 5], &[]))?;
    let [x, w, a, b, e, scale] = [0, 1, 2, 3, 4, 5].map(Operand);
    let mut plan = Plan::default();
    let bytes = linear.sizes.tokens * linear.sizes.rank * linear.element.bytes();
    let (h, q) = (plan.result(site.wants(1), 1, bytes), plan.reserve(bytes));
    let y = site.wants(0).then_some(Result(0));
    scaled(&[e]).forward(&mut plan, &linear, [x, w, a, b, scale], (y, h, q));
    Some(plan)
}

/// The launches of a `graft.AdaLoraGrad` of a graph; e, scale and de are floats.
pub(super) fn gradient(site: &Site<'_>) -> Option<Plan> {
    let linear = Linear::of(site, [1, 2, 3]).filter(|_| site.are_floats(&[5, 6], &[1, 2, 3]))?;
    let [dy, x, w, a, b, e, scale, h] = [0, 1, 2, 3, 4, 5, 6, 7].map(Operand);
    let [dx, da, db, de] = [0, 1, 2, 3].map(|i| site.wants(i).then_some(Result(i)));
    let mut plan = Plan::default();
    let wanted = ([dx, da, db], de.is_some());
    let parts = scaled(&[e]).backward(&mut plan, &linear, [dy, x, w, a, b, scale], &[h], wanted);
    if let Some(de) = de {
        scale_grad(&mut plan, &linear, parts, de);
    }
    Some(plan)
}

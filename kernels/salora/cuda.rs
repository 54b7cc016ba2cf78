//! Launch plans of SaLoRA: AdaLoRA's, with gates by the kernels of `salora.cu`.
use crate::{
    adalora::cuda::{scale_grad, scaled},
    cuda::{
        Buffer::{Operand, Result},
        LARGEST_RANK, Linear, Module, Plan, Site, Sizes, Source, arguments, small,
    },
};

pub(crate) const SOURCES: &[Source] = &[Source {
    path: PATH,
    text: include_str!("salora.cu"),
    kernels: &["salora_gate_grad", "salora_gates"],
    products: &[],
    modules: |module| vec![module],
}];

const PATH: &str = "salora/salora.cu";

/// The launches of a `graft.Salora` of a graph; gate, draw, scale, t and g are floats.
pub(super) fn forward(site: &Site<'_>) -> Option<Plan> {
    let linear = Linear::of(site, [0, 1, 2]).filter(|_| site.are_floats(&[4, 5, 6], &[2, 3]))?;
    let Linear { sizes: Sizes { tokens, rank, .. }, element, .. } = linear;
    let [x, w, a, b, gate, draw, scale] = [0, 1, 2, 3, 4, 5, 6].map(Operand);
    let mut plan = Plan::default();
    let bytes = tokens * rank * element.bytes();
    let (h, q) = (plan.result(site.wants(1), 1, bytes), plan.reserve(bytes));
    let [t, g] = [2, 3].map(|i| plan.result(site.wants(i), i, 4 * rank));
    let operands = arguments(&[gate, draw, t, g], &[rank], &[]);
    plan.launches.push(small("salora_gates", Module::file(PATH), [1, LARGEST_RANK], operands, 16 * rank));
    let y = site.wants(0).then_some(Result(0));
    scaled(&[g]).forward(&mut plan, &linear, [x, w, a, b, scale], (y, h, q));
    Some(plan)
}

/// The launches of a `graft.SaloraGrad` of a graph; scale, t, g and dgate are floats.
pub(super) fn gradient(site: &Site<'_>) -> Option<Plan> {
    let linear = Linear::of(site, [1, 2, 3]).filter(|_| site.are_floats(&[7, 9, 10], &[1, 2, 3]))?;
    let Sizes { rank, .. } = linear.sizes;
    let [dy, x, w, a, b, scale, h, t, g] = [0, 1, 2, 3, 4, 7, 8, 9, 10].map(Operand);
    let [dx, da, db, dgate] = [0, 1, 2, 3].map(|i| site.wants(i).then_some(Result(i)));
    let mut plan = Plan::default();
    let wanted = ([dx, da, db], dgate.is_some());
    let parts = scaled(&[g]).backward(&mut plan, &linear, [dy, x, w, a, b, scale], &[h], wanted);
    if let Some(dgate) = dgate {
        let dg = plan.reserve(4 * rank);
        scale_grad(&mut plan, &linear, parts, dg);
        let operands = arguments(&[dg, t, g, dgate], &[rank], &[]);
        plan.launches.push(small(
            "salora_gate_grad",
            Module::file(PATH),
            [1, LARGEST_RANK],
            operands,
            16 * rank,
        ));
    }
    Some(plan)
}

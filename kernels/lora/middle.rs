//! Launch plans of methods with a square matrix in rank space: what `middle.cuh` is about.
use super::cuda::{outer_grads, up};
use crate::cuda::{Argument, Buffer, Launch, Linear, Plan, RankGrad, Sizes, Slabs, Traffic, arguments, each};

/// The kernels of a method, and what its matrix is made of.
pub(crate) struct Middle<'a> {
    pub(crate) path: &'static str,
    pub(crate) down: &'static str,
    pub(crate) rank_grad: &'static str,
    pub(crate) of: &'a [Buffer],
    /// Where among the arguments of `down` what each of several calls has of its own begins: a, the matrix, h and q.
    pub(crate) own: &'static [usize],
}

impl Middle<'_> {
    /// `h = x·a`, `q = h·cᵀ`, and if it is wanted `y = x·w + scale·(q·b)`.
    pub(crate) fn forward(
        &self,
        plan: &mut Plan,
        linear: &Linear,
        [x, w, a, b, scale]: [Buffer; 5],
        (y, h, q): (Option<Buffer>, Buffer, Buffer),
    ) {
        let Sizes { tokens, n_in, rank, .. } = linear.sizes;
        let of_each = [&[a], self.of, &[h, q]].concat();
        let buffers: Vec<Buffer> = [x].into_iter().chain(of_each.into_iter().flat_map(each)).collect();
        let operands = arguments(&buffers, &[tokens, n_in, rank], &[]);
        let (product, module) = (linear.projection(), linear.rank_module(self.path));
        let launch = product.launch(self.down, module, operands, 2 * linear.element.bytes());
        plan.launches.push(self.with_product(linear, launch, 1).stacks(product.stack(self.own)));
        plan.launches.extend(y.map(|y| up(linear, [x, w, q, b, y], scale)));
    }

    /// `dx`, `da` and `db` where they are wanted; the parts of dc if that is, and how many there are. `saved` are q, if it
    /// was, and h.
    pub(crate) fn backward(
        &self,
        plan: &mut Plan,
        linear: &Linear,
        [dy, x, w, a, b, scale]: [Buffer; 6],
        saved: &[Buffer],
        ([dx, da, db], wants_dc): ([Option<Buffer>; 3], bool),
    ) -> (Buffer, Slabs) {
        let Linear { sizes: Sizes { tokens, n_out, rank, .. }, element, .. } = *linear;
        let dh = plan.reserve(tokens * rank * element.bytes());
        let slabs = Slabs::of_tokens(tokens, rank * n_out);
        let db_parts = plan.reserve(4 * slabs.n * rank * n_out);
        let dc_parts = if wants_dc { plan.reserve(4 * slabs.n * rank * rank) } else { Buffer::Null };
        let buffers = [&[dy, b], self.of, saved, &[dh, db_parts, dc_parts]].concat();
        let operands = arguments(&buffers, &[tokens, n_out, rank], &[Argument::Buffer(scale)]);
        let pass = RankGrad { linear, slabs };
        let launch = pass.launch(self.rank_grad, linear.rank_module(self.path), operands);
        plan.launches.push(self.with_product(linear, launch, 2));
        plan.launches.extend(db.map(|db| slabs.sum(rank * n_out, db_parts, db, scale)));
        outer_grads(plan, linear, [dy, x, w, a, dh], [dx, da]);
        (dc_parts, slabs)
    }

    /// A launch that does so many products with the matrix besides.
    fn with_product(&self, linear: &Linear, launch: Launch, n: usize) -> Launch {
        let Sizes { tokens, rank, .. } = linear.sizes;
        let read = ((n - 1) * tokens * rank * linear.element.bytes()) as u64;
        let more = Traffic { flops: (2 * n * tokens * rank * rank) as u64, ideal: read, issued: read };
        Launch { traffic: launch.traffic + more, ..launch }
    }
}

//! Convolution: for each image and group of channels a product of the weights (maps, terms) with the terms of each window
//! (terms, windows), which are laid out for a block of windows at a time. Where a group makes few maps of its channels
//! there is too little to win by that, and windows are summed where they lie.
use super::runs::Windows;
use crate::{
    Call, Threads, View,
    gemm::{Gemm, Matrix},
    math::vectorised,
};
use graft_ir::{Code, Error, Node, Result, ops};

/// Elements of a block of laid out terms: what stays in the cache between being written and being read.
const BLOCK: usize = 1 << 17;

/// Fewer maps of a group than this are summed directly.
const FEW_MAPS: usize = 4;

/// The sizes of a convolution.
struct Conv<'a> {
    x: &'a [f32],
    w: &'a [f32],
    bias: Option<&'a [f32]>,
    windows: Windows,
    /// Channels and maps of one group.
    channels: usize,
    maps: usize,
    groups: usize,
    threads: Threads,
}

/// How many windows' terms are laid out at once, of `terms` each.
fn block(windows: usize, terms: usize) -> usize {
    (BLOCK / terms.max(1)).clamp(1, windows.max(1))
}

/// Memory for one block of terms.
pub(super) fn scratch(_: &Node, operands: &[&[usize]], results: &[&[usize]]) -> usize {
    let (w, y) = (operands[1], results[0]);
    let (terms, windows) = (w.iter().skip(1).product::<usize>(), y.iter().skip(2).product::<usize>());
    block(windows, terms) * terms * size_of::<f32>()
}

/// `y[n,m,p] = bias[m] + Σ x[n,c,p·stride + k·dilation − pad] · w[m,c,k]`, by groups of channels.
pub(super) fn conv(call: &mut Call<'_>) -> Result<()> {
    let (x, w, bias) = (call.input(0)?, call.input(1)?, call.get(2));
    let conv = Conv::new(call, &x, &w, bias)?;
    let (terms, out) = (call.scratch::<f32>(), call.output(0)?.elements::<f32>());
    let n = conv.windows.len();
    if n == 0 {
        return Ok(());
    }
    if conv.maps < FEW_MAPS {
        conv.directly(out);
    } else {
        for (i, y) in out.chunks_mut(conv.maps * n).enumerate() {
            conv.by_products(i / conv.groups, i % conv.groups, terms, y);
        }
    }
    Ok(())
}

impl<'a> Conv<'a> {
    fn new(call: &Call<'_>, x: &View<'a>, w: &View<'a>, bias: Option<View<'a>>) -> Result<Conv<'a>> {
        let unfit = || Error::new(Code::TYPES, format!("weights {:?} do not fit {:?}", w.dims, x.dims));
        let ([_, channels, axes @ ..], [maps, depth, kernel @ ..]) = (x.dims, w.dims) else {
            return Err(unfit());
        };
        let groups = usize::try_from(call.node.int("group")?.unwrap_or(1)).unwrap_or(0);
        let fits = groups > 0
            && depth.checked_mul(groups) == Some(*channels)
            && maps.is_multiple_of(groups)
            && super::window(call, kernel)? == kernel
            && bias.is_none_or(|b| b.len() == *maps);
        if !fits {
            return Err(unfit());
        }
        let windows = Windows::new(ops::slides(call.node, axes, kernel)?);
        let bias = bias.map(|b| b.elements());
        let (x, w, threads) = (x.elements(), w.elements(), call.threads);
        Ok(Conv { x, w, bias, windows, channels: *depth, maps: maps / groups, groups, threads })
    }
    /// The elements of one channel.
    fn plane(&self) -> usize {
        self.windows.slides().iter().map(|s| s.size).product()
    }
    /// The bias of map `m` of all.
    fn bias(&self, m: usize) -> f32 {
        self.bias.map_or(0.0, |b| b[m])
    }
    /// Each map by itself.
    fn directly(&self, out: &mut [f32]) {
        let (plane, elements) = (self.plane(), self.windows.elements());
        let terms = self.channels * elements;
        self.threads.pieces(out, self.windows.len(), |start, y| {
            let i = start / self.windows.len();
            let (image, map) = (i / (self.groups * self.maps), i % (self.groups * self.maps));
            let first = (image * self.groups + map / self.maps) * self.channels;
            y.fill(self.bias(map));
            for (term, &w) in self.w[map * terms..][..terms].iter().enumerate() {
                let x = &self.x[(first + term / elements) * plane..][..plane];
                self.add(x, term % elements, w, y);
            }
        });
    }
    /// Adds `w` times element `k` of each window of a channel.
    fn add(&self, x: &[f32], k: usize, w: f32, y: &mut [f32]) {
        let step = self.windows.step();
        vectorised(
            #[inline(always)]
            || {
                self.windows.runs(k, 0..y.len(), |at, from, len| {
                    let y = &mut y[at..at + len];
                    if step == 1 {
                        y.iter_mut().zip(&x[from..from + len]).for_each(|(y, x)| *y += w * x);
                    } else {
                        y.iter_mut().enumerate().for_each(|(j, y)| *y += w * x[from + j * step]);
                    }
                });
            },
        );
    }
    /// All maps of a group of one image.
    fn by_products(&self, image: usize, group: usize, terms: &mut [f32], y: &mut [f32]) {
        let (plane, elements, n) = (self.plane(), self.windows.elements(), self.windows.len());
        let n_terms = self.channels * elements;
        let x = &self.x[(image * self.groups + group) * self.channels * plane..][..self.channels * plane];
        let w = &self.w[group * self.maps * n_terms..][..self.maps * n_terms];
        let w = Matrix::row_major(w, self.maps, n_terms);
        y.chunks_mut(n).enumerate().for_each(|(m, y)| y.fill(self.bias(group * self.maps + m)));
        if self.windows.are_elements() {
            let x = Matrix::row_major(x, n_terms, n);
            return Gemm::new(w, x).accumulated(1.0).run(y, self.threads);
        }
        let block = block(n, n_terms);
        for start in (0..n).step_by(block) {
            let len = block.min(n - start);
            let terms = &mut terms[..n_terms * len];
            self.threads.pieces(terms, len, |at, row| {
                let term = at / len;
                let x = &x[term / elements * plane..][..plane];
                self.lay(x, term % elements, start, row);
            });
            let terms = Matrix::row_major(terms, n_terms, len);
            Gemm::new(w, terms).accumulated(1.0).run_spaced(&mut y[start..], n, self.threads);
        }
    }
    /// Element `k` of each window of a channel, from window `start` on, 0 where it is imagined.
    fn lay(&self, x: &[f32], k: usize, start: usize, row: &mut [f32]) {
        let step = self.windows.step();
        row.fill(0.0);
        self.windows.runs(k, start..start + row.len(), |at, from, len| {
            let row = &mut row[at..at + len];
            if step == 1 {
                row.copy_from_slice(&x[from..from + len]);
            } else {
                row.iter_mut().enumerate().for_each(|(j, y)| *y = x[from + j * step]);
            }
        });
    }
}

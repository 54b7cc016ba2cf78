//! Windows side by side: those along the last axis whose same element is real lie a stride apart, and are one loop.
use crate::row_major;
use graft_ir::ops::Slide;
use std::ops::Range;

/// The windows over the axes of one channel, which lie row-major in memory.
pub(super) struct Windows {
    slides: Vec<Slide>,
    /// How far apart neighbours along each axis are, and neighbouring windows along each.
    strides: Vec<usize>,
    steps: Vec<usize>,
}

impl Windows {
    pub(super) fn new(slides: Vec<Slide>) -> Windows {
        let strides = row_major(&slides.iter().map(|s| s.size).collect::<Vec<_>>());
        let steps = slides.iter().zip(&strides).map(|(slide, stride)| slide.stride * stride).collect();
        Windows { slides, strides, steps }
    }
    /// How the windows slide, axis by axis.
    pub(super) fn slides(&self) -> &[Slide] {
        &self.slides
    }
    /// The number of windows.
    pub(super) fn len(&self) -> usize {
        self.slides.iter().map(|s| s.windows).product()
    }
    /// The number of elements of one.
    pub(super) fn elements(&self) -> usize {
        self.slides.iter().map(|s| s.kernel).product()
    }
    /// How far apart the same elements of neighbouring windows of a run lie.
    pub(super) fn step(&self) -> usize {
        self.steps.last().copied().unwrap_or(1)
    }
    /// Whether each window is one element, and window `i` element `i`.
    pub(super) fn are_elements(&self) -> bool {
        self.slides.iter().all(|s| s.kernel == 1 && s.stride == 1 && s.windows == s.size && s.before == 0)
    }
    /// Calls `visit(at, from, len)` for each run of windows of `range` whose element `k` is real: it begins `at` windows
    /// behind the start of the range, with that element at offset `from` of the channel. Both numbers of windows and of
    /// their elements count row-major.
    #[inline(always)]
    pub(super) fn runs(&self, k: usize, range: Range<usize>, mut visit: impl FnMut(usize, usize, usize)) {
        let (Some((last, outer)), false) = (self.slides.split_last(), range.is_empty()) else { return };
        let real = last.real(k % last.kernel);
        let of_last = k % last.kernel * last.dilation;
        for line in range.start / last.windows..range.end.div_ceil(last.windows) {
            let first = line * last.windows;
            let start = (first + real.start).max(range.start);
            let end = (first + real.end).min(range.end);
            let Some(from) = self.line(outer, line, k / last.kernel).filter(|_| start < end) else {
                continue;
            };
            // The first window of the run has a real element, so nothing is subtracted from too little.
            let at = (start - first) * last.stride + of_last - last.before;
            visit(start - range.start, from + at * self.strides[outer.len()], end - start);
        }
    }
    /// The offset of element `k` of the windows along line `line` of the last axis; `None` if it is imagined.
    #[inline(always)]
    fn line(&self, outer: &[Slide], mut line: usize, mut k: usize) -> Option<usize> {
        let mut from = 0;
        for (slide, stride) in outer.iter().zip(&self.strides).rev() {
            from += slide.at(line % slide.windows, k % slide.kernel)? * stride;
            (line, k) = (line / slide.windows, k / slide.kernel);
        }
        Some(from)
    }
}

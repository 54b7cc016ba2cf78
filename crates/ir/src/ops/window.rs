//! Ops that slide a window over the axes behind batch and channels: convolution and pooling.
use super::composed::composed;
use crate::{Builder, Code, Dim, Error, Node, OpDef, Result, Value, Vjp};
use std::ops::Range;

mod conv;
mod pool;

/// The family's table.
pub(super) const OPS: &[OpDef] = &[
    OpDef {
        name: "AveragePool",
        since: 7,
        infer: pool::infer_pool,
        eval: Some(pool::eval_average),
        vjp: Vjp::Missing,
        doc: "y = the mean of each window, without what is padded unless count_include_pad says so",
    },
    OpDef {
        name: "Conv",
        since: 1,
        infer: conv::infer_conv,
        eval: Some(conv::eval_conv),
        vjp: Vjp::Missing,
        doc: "y[n,m,p] = bias[m] + Σ x[n,c,p·stride + k·dilation - pad] · w[m,c,k], by groups of channels",
    },
    composed("GlobalAveragePool", 1, |b, n| global(b, n, "ReduceMean"), "y = the mean of each channel"),
    composed("GlobalMaxPool", 1, |b, n| global(b, n, "ReduceMax"), "y = the largest element of each channel"),
    OpDef {
        name: "LpPool",
        since: 2,
        infer: pool::infer_pool,
        eval: Some(pool::eval_lp),
        vjp: Vjp::Missing,
        doc: "y = (Σ |x|^p)^(1/p) over each window",
    },
    OpDef {
        name: "MaxPool",
        since: 1,
        infer: pool::infer_pool,
        eval: Some(pool::eval_max),
        vjp: Vjp::Missing,
        doc: "y, indices = the largest element of each window and where it lies",
    },
];

/// All axes behind the channels reduced to one element.
fn global(b: &mut Builder<'_>, node: &Node, op: &str) -> Result<Vec<Value>> {
    let x = node.input(0).ok_or_else(|| Error::new(Code::TYPES, "operand 0 is missing"))?;
    // Counted from the end, as those who write a mean out do.
    let axes: Vec<i64> = (2 - b.shape(x)?.len() as i64..0).collect();
    Ok(vec![b.reduce(op, x, &axes, true)?])
}

/// One axis over which a window slides.
#[derive(Clone, Copy, Debug)]
pub struct Slide {
    /// The size of the axis.
    pub size: usize,
    /// How many elements a window reads.
    pub kernel: usize,
    /// How far apart neighbouring windows begin.
    pub stride: usize,
    /// How far apart the elements of a window are.
    pub dilation: usize,
    /// How many elements are imagined before the axis.
    pub before: usize,
    /// How many elements are imagined behind it.
    pub after: usize,
    /// The number of windows.
    pub windows: usize,
}

impl Slide {
    /// Where element `k` of window `i` lies, counted from the first imagined element.
    fn padded(&self, i: usize, k: usize) -> usize {
        i * self.stride + k * self.dilation
    }
    /// Where element `k` of window `i` lies on the axis; `None` if it is imagined.
    pub fn at(&self, i: usize, k: usize) -> Option<usize> {
        self.padded(i, k).checked_sub(self.before).filter(|&p| p < self.size)
    }
    /// The windows whose element `k` lies on the axis.
    pub fn real(&self, k: usize) -> Range<usize> {
        let offset = k * self.dilation;
        let first = |at: usize| at.saturating_sub(offset).div_ceil(self.stride).min(self.windows);
        let end = first(self.before + self.size);
        first(self.before).min(end)..end
    }
    /// How many elements of window `i` an average counts: those on the axis, with `padding` the imagined ones too. What
    /// lies behind the padding, where the number of windows was rounded up, never counts.
    pub fn counted(&self, i: usize, padding: bool) -> usize {
        let end = self.before + self.size + self.after;
        let counts = |&k: &usize| if padding { self.padded(i, k) < end } else { self.at(i, k).is_some() };
        (0..self.kernel).filter(counts).count()
    }
}

/// How the window of `node`, a convolution or a pooling, slides over axes of these `sizes`, each of which it covers
/// `kernel` elements of.
///
/// # Errors
/// If the attributes do not fit the sizes.
pub fn slides(node: &Node, sizes: &[usize], kernel: &[usize]) -> Result<Vec<Slide>> {
    Settings::of(node)?.slides(sizes, kernel)
}

/// The sizes of the window that the attribute `kernel_shape` gives.
///
/// # Errors
/// If the attribute is no list of sizes.
pub fn kernel_shape(node: &Node) -> Result<Option<Vec<usize>>> {
    node.ints("kernel_shape")?.map(super::layout::sizes).transpose()
}

/// The attributes that say how a window slides.
struct Settings<'a> {
    strides: Option<&'a [i64]>,
    dilations: Option<&'a [i64]>,
    pads: Option<&'a [i64]>,
    auto_pad: &'a str,
    rounds_up: bool,
}

impl<'a> Settings<'a> {
    fn of(node: &'a Node) -> Result<Settings<'a>> {
        Ok(Settings {
            strides: node.ints("strides")?,
            dilations: node.ints("dilations")?,
            pads: node.ints("pads")?,
            auto_pad: node.str("auto_pad")?.unwrap_or("NOTSET"),
            rounds_up: node.int("ceil_mode")?.unwrap_or(0) != 0,
        })
    }
    /// How a window of `kernel` elements slides over axis `i` of `n`, which has `size` elements.
    fn slide(&self, i: usize, n: usize, size: usize, kernel: usize) -> Result<Slide> {
        let entry = |list: Option<&[i64]>, i: usize, default: i64, name: &str| {
            let found = list.map_or(Some(default), |v| v.get(i).copied());
            let wrong = || Error::new(Code::ATTRIBUTE, format!("attribute `{name}` does not fit {n} axes"));
            found.and_then(|v| usize::try_from(v).ok()).ok_or_else(wrong)
        };
        let stride = entry(self.strides, i, 1, "strides")?;
        let dilation = entry(self.dilations, i, 1, "dilations")?;
        if stride == 0 || kernel == 0 || dilation == 0 {
            return Err(Error::new(Code::ATTRIBUTE, "strides, dilations and window sizes are 1 or more"));
        }
        let absurd = || Error::new(Code::ATTRIBUTE, "a window of absurd size");
        let reach = (kernel - 1).checked_mul(dilation).and_then(|r| r.checked_add(1)).ok_or_else(absurd)?;
        let (before, after) = match self.auto_pad {
            "NOTSET" => (entry(self.pads, i, 0, "pads")?, entry(self.pads, n + i, 0, "pads")?),
            "VALID" => (0, 0),
            same => {
                let covered = (size.div_ceil(stride).max(1) - 1) * stride;
                let missing = covered.checked_add(reach).ok_or_else(absurd)?.saturating_sub(size);
                let less = missing / 2;
                if same == "SAME_LOWER" { (missing - less, less) } else { (less, missing - less) }
            }
        };
        let padded = size.checked_add(before).and_then(|s| s.checked_add(after)).ok_or_else(absurd)?;
        let windows = match padded.checked_sub(reach) {
            None => 0,
            Some(room) if !self.rounds_up => room / stride + 1,
            Some(room) => {
                let windows = room.div_ceil(stride) + 1;
                // The last window must begin on the axis or before it.
                if (windows - 1).saturating_mul(stride) >= size + before { windows - 1 } else { windows }
            }
        };
        Ok(Slide { size, kernel, stride, dilation, before, after, windows })
    }
    fn slides(&self, sizes: &[usize], kernel: &[usize]) -> Result<Vec<Slide>> {
        if sizes.len() != kernel.len() {
            let message = format!("a window of {} axes over {} axes", kernel.len(), sizes.len());
            return Err(Error::new(Code::TYPES, message));
        }
        (0..sizes.len()).map(|i| self.slide(i, sizes.len(), sizes[i], kernel[i])).collect()
    }
}

/// The number of windows along each of `dims`, where `unknown` names those that a run must tell.
fn window_counts(
    node: &Node,
    dims: &[Dim],
    kernel: &[Option<usize>],
    unknown: impl Fn(usize) -> Dim,
) -> Result<Vec<Dim>> {
    let settings = Settings::of(node)?;
    let count = |(i, d): (usize, &Dim)| match (d.as_size(), kernel.get(i).copied().flatten()) {
        (Some(size), Some(kernel)) => Ok(settings.slide(i, dims.len(), size, kernel)?.windows.into()),
        _ => Ok(unknown(i)),
    };
    dims.iter().enumerate().map(count).collect()
}

/// The kernel's positions at which window `p` reads real elements, with each one's position on the axes.
fn each_element(
    slides: &[Slide],
    p: &[usize],
    mut visit: impl FnMut(&[usize], &[usize]) -> Result<()>,
) -> Result<()> {
    let kernel: Vec<usize> = slides.iter().map(|s| s.kernel).collect();
    super::layout::each_position(&kernel, |k| {
        let at: Option<Vec<usize>> =
            slides.iter().zip(p).zip(k).map(|((slide, &i), &k)| slide.at(i, k)).collect();
        at.map_or(Ok(()), |at| visit(k, &at))
    })
}

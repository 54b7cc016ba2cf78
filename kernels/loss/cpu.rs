//! Cross-entropy on logits (samples, classes, positions…), class axis 1, accumulated in `f64`.
use crate::{
    Call, View,
    math::{self, vectorised},
    threads::{optional_pieces, rows_per_piece},
};
use graft_ir::{Code, DType, Error, Result};

/// The label that the gradient ignores where none is named.
pub(super) const IGNORED: i64 = -100;

/// The labels as class numbers; `None` for those that are not `counted`, which need be no classes.
fn labels(
    view: &View<'_>,
    classes: usize,
    counted: impl Fn(usize, i64) -> bool,
) -> Result<Vec<Option<usize>>> {
    let wide: Vec<i64> = match view.dtype {
        DType::Int32 => view.elements::<i32>().iter().map(|&i| i64::from(i)).collect(),
        _ => view.elements::<i64>().to_vec(),
    };
    let resolve = |(i, label): (usize, i64)| {
        let outside = || Error::new(Code::VALUE, format!("label {label} is none of {classes} classes"));
        match usize::try_from(label) {
            _ if !counted(i, label) => Ok(None),
            Ok(class) if class < classes => Ok(Some(class)),
            _ => Err(outside()),
        }
    };
    wide.into_iter().enumerate().map(resolve).collect()
}

/// Samples, classes and positions of logits.
fn sizes(dims: &[usize]) -> Result<[usize; 3]> {
    match dims {
        [samples, classes, positions @ ..] => Ok([*samples, *classes, positions.iter().product()]),
        _ => Err(Error::new(Code::TYPES, "logits need a class axis")),
    }
}

/// `loss = mean or sum of −log softmax(logits)[label]` over the labels that count; `log_prob` where it is wanted.
pub(super) fn cross_entropy(call: &mut Call<'_>) -> Result<()> {
    let (logits, targets) = (call.input(0)?, call.input(1)?);
    let [samples, classes, positions] = sizes(logits.dims)?;
    let ignored = call.node.int("ignore_index")?;
    let labels = labels(&targets, classes, |_, label| Some(label) != ignored)?;
    let mean = call.node.str("reduction")?.unwrap_or("mean") == "mean";
    let losses = &mut call.scratch::<f64>()[..samples * positions];
    let log_prob = call.wanted(1).map(|o| o.elements::<f32>());
    let (xs, block) = (logits.elements::<f32>(), classes * positions);
    let each = losses.chunks_mut(positions.max(1)).zip(optional_pieces(log_prob, block)).enumerate();
    call.threads.each(each, |(i, (losses, mut log_prob))| {
        let mut row = vec![0.0; classes];
        for (j, loss) in losses.iter_mut().enumerate() {
            let at = |c: usize| c * positions + j;
            row.iter_mut().enumerate().for_each(|(c, x)| *x = xs[i * block + at(c)]);
            let shift = log_sum_exp(&row);
            *loss = labels[i * positions + j].map_or(0.0, |c| shift - f64::from(row[c]));
            if let Some(out) = &mut log_prob {
                row.iter().enumerate().for_each(|(c, &x)| out[at(c)] = (f64::from(x) - shift) as f32);
            }
        }
    });
    if let Some(out) = call.wanted(0) {
        let counted = labels.iter().flatten().count();
        let sum: f64 = losses.iter().sum();
        let loss = if mean { sum / counted as f64 } else { sum };
        out.elements::<f32>().iter_mut().for_each(|y| *y = loss as f32);
    }
    Ok(())
}

/// `log Σ e^x`.
fn log_sum_exp(row: &[f32]) -> f64 {
    vectorised(
        #[inline(always)]
        || {
            let largest = math::max(row);
            let total = math::sum_of(row, |x| f64::from(math::exp((x - f64::from(largest)) as f32)));
            f64::from(largest) + total.ln()
        },
    )
}

/// `dlogits = dloss / n · (softmax(logits) − one_hot(label))`, zero where a label is ignored; n labels count.
pub(super) fn cross_entropy_grad(call: &mut Call<'_>) -> Result<()> {
    let (dloss, logits, targets) = (call.scalar(0)?, call.input(1)?, call.input(2)?);
    let [_, classes, _] = sizes(logits.dims)?;
    let ignored = call.node.int("ignore_index")?.unwrap_or(IGNORED);
    let labels = labels(&targets, classes, |_, label| label != ignored)?;
    let share = f64::from(dloss) / labels.iter().flatten().count().max(1) as f64;
    scatter(call, &logits, &labels, |_| share)
}

/// `dlogits = share · (softmax(logits) − one_hot(label))`; where a share is 0 the label need be no class.
pub(super) fn cross_entropy_rows(call: &mut Call<'_>) -> Result<()> {
    let (shares, logits, targets) = (call.input(0)?.elements::<f32>(), call.input(1)?, call.input(2)?);
    let [_, classes, _] = sizes(logits.dims)?;
    let labels = labels(&targets, classes, |i, _| shares.get(i).is_none_or(|&share| share != 0.0))?;
    scatter(call, &logits, &labels, |i| f64::from(shares[i]))
}

/// Writes `share(i) · (softmax(logits) − one_hot(label i))` for every label, zero where it does not count.
fn scatter(
    call: &mut Call<'_>,
    logits: &View<'_>,
    labels: &[Option<usize>],
    share: impl Fn(usize) -> f64 + Sync + Send,
) -> Result<()> {
    let [_, classes, positions] = sizes(logits.dims)?;
    let (xs, block) = (logits.elements::<f32>(), classes * positions);
    let out = call.output(0)?.elements::<f32>();
    call.threads.pieces(out, rows_per_piece(block) * block, |start, piece| {
        let mut row = vec![0.0; classes];
        for (i, out) in piece.chunks_mut(block).enumerate() {
            let from = start + i * block;
            for j in 0..positions {
                let (at, label) = (|c: usize| c * positions + j, from / block * positions + j);
                row.iter_mut().enumerate().for_each(|(c, x)| *x = xs[from + at(c)]);
                grad_row(&mut row, labels[label], share(label));
                row.iter().enumerate().for_each(|(c, &x)| out[at(c)] = x);
            }
        }
    });
    Ok(())
}

fn grad_row(row: &mut [f32], label: Option<usize>, scale: f64) {
    let Some(label) = label else { return row.fill(0.0) };
    let shift = log_sum_exp(row);
    // The label's own entry as 1 − p would cancel in `f32`.
    let own = (scale * ((f64::from(row[label]) - shift).exp() - 1.0)) as f32;
    vectorised(
        #[inline(always)]
        || {
            for x in row.iter_mut() {
                *x = (scale * f64::from(math::exp((f64::from(*x) - shift) as f32))) as f32;
            }
        },
    );
    row[label] = own;
}

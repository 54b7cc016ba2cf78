//! Convolution.
use super::{each_element, kernel_shape, slides, window_counts};
use crate::ops::layout;
use crate::{Array, Code, Dim, Error, Eval, Fact, Infer, Result};

pub(super) fn infer_conv(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let (Some(dtype), Some([batch, _, axes @ ..]), Some([maps, _, kernel @ ..])) =
        (ctx.dtype(0), ctx.shape(0), ctx.shape(1))
    else {
        return Ok(vec![Fact::of_dtype(ctx.dtype(0))]);
    };
    if axes.len() != kernel.len() {
        return Err(ctx.mismatch(format!("a window of {} axes over {} axes", kernel.len(), axes.len())));
    }
    let kernel: Vec<Option<usize>> = kernel.iter().map(Dim::as_size).collect();
    let counts = window_counts(ctx.node, axes, &kernel, |axis| ctx.unknown(0, axis + 2))?;
    Ok(vec![Fact::new(dtype, [&[batch.clone(), maps.clone()], &counts[..]].concat())])
}

pub(super) fn eval_conv(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let (x, w, bias) = (ctx.input(0)?, ctx.input(1)?, ctx.get(2));
    let unfit = || Error::new(Code::TYPES, format!("weights {:?} do not fit {:?}", w.dims, x.dims));
    let ([batch, channels, axes @ ..], [maps, depth, kernel @ ..]) = (&x.dims[..], &w.dims[..]) else {
        return Err(unfit());
    };
    let groups = usize::try_from(ctx.node.int("group")?.unwrap_or(1)).unwrap_or(0);
    let declared = kernel_shape(ctx.node)?.is_some_and(|k| k != kernel);
    if groups == 0 || depth.checked_mul(groups) != Some(*channels) || !maps.is_multiple_of(groups) || declared
    {
        return Err(unfit());
    }
    let slides = slides(ctx.node, axes, kernel)?;
    let windows = slides.iter().map(|s| s.windows);
    let dims: Vec<usize> = [*batch, *maps].into_iter().chain(windows).collect();
    let (data, weights, bias) = (x.floats()?, w.floats()?, bias.map(Array::floats).transpose()?);
    let (strides, w_strides) = (layout::strides(&x.dims), layout::strides(&w.dims));
    let mut y = Vec::with_capacity(layout::element_count(&dims)?);
    layout::each_position(&dims, |p| {
        let (map, first) = (p[1], p[1] / (maps / groups) * depth);
        let mut sum = bias.and_then(|b| b.get(map).copied()).unwrap_or(0.0);
        each_element(&slides, &p[2..], |k, at| {
            let from = p[0] * strides[0] + first * strides[1] + layout::offset(at, &strides[2..]);
            let by = map * w_strides[0] + layout::offset(k, &w_strides[2..]);
            sum += (0..*depth)
                .map(|c| data[from + c * strides[1]] * weights[by + c * w_strides[1]])
                .sum::<f64>();
            Ok(())
        })?;
        y.push(sum);
        Ok(())
    })?;
    Ok(vec![Array::float(x.dtype, dims, y)])
}

#[cfg(test)]
mod tests {
    use crate::{Array, Code, DType, Precision, eval::eval, parse};

    #[test]
    fn more_groups_than_can_be_counted_are_refused() {
        let text = "<opset_import: [\"\" : 17]>
g (float[1, 2, 3, 3] x, float[2, 2, 1, 1] w) => (float[1, 2, 3, 3] y) {
  y = Conv <group = 9223372036854775807> (x, w)
}";
        let graph = parse(text).unwrap();
        let zeros = |dims: &[usize]| {
            Some(Array::float(DType::Float, dims.to_vec(), vec![0.0; dims.iter().product()]))
        };
        let refused = eval(&graph, &[zeros(&[1, 2, 3, 3]), zeros(&[2, 2, 1, 1])], Precision::Exact);
        assert_eq!(refused.unwrap_err().code, Code::TYPES);
    }
}

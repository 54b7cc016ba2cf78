//! Convolution and pooling over one to three axes.
use super::Row;
use crate::{
    case::{Bound, Case},
    draw::Draw,
};
use graft_ir::Attr;

pub(super) const ROWS: &[Row] = &[("AveragePool", average), ("Conv", conv), ("MaxPool", max)];

/// One number for each of `n` axes.
fn each(d: &mut Draw, n: usize, from: &[usize]) -> Vec<usize> {
    (0..n).map(|_| d.pick(from)).collect()
}

fn ints(values: &[usize]) -> Attr {
    Attr::Ints(values.iter().map(|&n| n as i64).collect())
}

/// `case` with strides, and padding that is narrower than the window. Dilated windows are not padded: they could read
/// nothing but padding, which the largest element of has no meaning.
fn sliding(d: &mut Draw, mut case: Case, window: &[usize], pads_dilated: bool) -> Case {
    let n = window.len();
    if d.flip() {
        case = case.attr("strides", ints(&each(d, n, &[1, 2, 3])));
    }
    let is_dilated = d.one_in(3);
    if is_dilated {
        case = case.attr("dilations", ints(&each(d, n, &[1, 2, 3])));
    }
    if is_dilated && !pads_dilated {
        return case;
    }
    match d.below(4) {
        0 => case,
        1 => case.attr("auto_pad", Attr::Str(d.pick(&["SAME_UPPER", "SAME_LOWER", "VALID"]).into())),
        _ => {
            let pads: Vec<usize> = window.iter().chain(window).map(|&k| d.below(k)).collect();
            case.attr("pads", ints(&pads))
        }
    }
}

/// The sizes of batch, channels and axes, at least a window long.
fn image(d: &mut Draw, channels: usize, window: &[usize]) -> Vec<usize> {
    let longest = [70, 17, 7][window.len() - 1];
    let axes = window.iter().map(|&k| k + d.size().min(longest)).collect::<Vec<_>>();
    [&[d.below(3), channels][..], &axes].concat()
}

fn conv(d: &mut Draw) -> Case {
    let n = 1 + d.below(3);
    let window = each(d, n, &[1, 1, 2, 3, 4]);
    let [groups, depth, maps] = [d.pick(&[1, 1, 2, 3]), d.pick(&[1, 2, 3, 5]), d.pick(&[1, 2, 4, 5, 9])];
    let mut x = image(d, groups * depth, &window);
    if n == 1 && d.one_in(4) {
        // More windows than are laid out at once.
        x = vec![1, groups * depth, 20_000];
    }
    let w = [&[groups * maps, depth], &window[..]].concat();
    let mut operands = vec![d.floats(&x, -1.0, 1.0), d.floats(&w, -1.0, 1.0)];
    if d.flip() {
        operands.push(d.floats(&[groups * maps], -1.0, 1.0));
    }
    let terms = depth * window.iter().product::<usize>();
    let case = Case::new(Bound::Terms(terms as f64 + 4.0), operands).int("group", groups as i64);
    let case = if d.flip() { case.attr("kernel_shape", ints(&window)) } else { case };
    sliding(d, case, &window, true)
}

/// A pooling of one operand with this bound, made of the number of elements of a window.
fn pool(d: &mut Draw, is_exact: bool) -> Case {
    let n = 1 + d.below(3);
    let window = each(d, n, &[1, 2, 3, 4]);
    let (channels, elements) = (d.pick(&[1, 2, 5]), window.iter().product::<usize>());
    let x = image(d, channels, &window);
    let (x, bound) = match is_exact {
        true => (d.wild(&x), Bound::Exact),
        false => (d.floats(&x, -2.0, 2.0), Bound::Terms(elements as f64 + 2.0)),
    };
    let case = Case::new(bound, [x]).attr("kernel_shape", ints(&window)).int("ceil_mode", d.flip().into());
    sliding(d, case, &window, false)
}

fn max(d: &mut Draw) -> Case {
    pool(d, true)
}

fn average(d: &mut Draw) -> Case {
    let case = pool(d, false);
    if d.flip() { case.int("count_include_pad", d.flip().into()) } else { case }
}

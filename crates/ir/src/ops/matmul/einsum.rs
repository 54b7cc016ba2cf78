//! `Einsum`: products of elements, summed over labels.
use crate::ops::{broadcast::broadcast_sizes, broadcast::common_dtype, layout};
use crate::{Array, Attr, Backward, Builder, Code, Data, Dim, Error, Eval, Fact, Infer, Node, Result, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Stands for `...` among the letters of a term.
const ELLIPSIS: char = '.';

/// The equation of an `Einsum`: one list of labels for each operand and one for the result.
#[derive(Clone, PartialEq, Debug)]
pub struct Equation {
    operands: Vec<Vec<char>>,
    result: Vec<char>,
}

impl Equation {
    /// Reads the attribute `equation` of a node.
    ///
    /// # Errors
    /// If it is missing, is no equation, or has not a term for each operand.
    pub fn of(node: &Node) -> Result<Equation> {
        let text = node.str("equation")?;
        let text = text.ok_or_else(|| Error::new(Code::ATTRIBUTE, "attribute `equation` is missing"))?;
        let wrong = |why: &str| Error::new(Code::ATTRIBUTE, format!("equation `{text}`: {why}"));
        let plain: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let (left, right) = plain.split_once("->").map_or((&*plain, None), |(l, r)| (l, Some(r)));
        let terms = left.split(',').map(term).collect::<Option<Vec<_>>>();
        let operands = terms.ok_or_else(|| wrong("a term is neither letters nor one `...`"))?;
        if operands.len() != node.inputs.len() {
            return Err(wrong(&format!("{} terms for {} operands", operands.len(), node.inputs.len())));
        }
        let result = match right {
            Some(right) => term(right).ok_or_else(|| wrong("the result is neither letters nor one `...`"))?,
            None => implicit_result(&operands),
        };
        let known: BTreeSet<char> = operands.iter().flatten().copied().collect();
        if let Some(label) = result.iter().find(|l| !known.contains(l)) {
            return Err(wrong(&format!("the result's label `{label}` is in no operand")));
        }
        if result.iter().enumerate().any(|(i, l)| result[..i].contains(l)) {
            return Err(wrong("the result names a label twice"));
        }
        if known.contains(&ELLIPSIS) && !result.contains(&ELLIPSIS) {
            return Err(wrong("the result must hold the operands' `...`"));
        }
        Ok(Equation { operands, result })
    }
    fn text(&self) -> String {
        let term =
            |labels: &Vec<char>| labels.iter().map(char::to_string).collect::<String>().replace('.', "...");
        let operands: Vec<String> = self.operands.iter().map(term).collect();
        format!("{}->{}", operands.join(","), term(&self.result))
    }
    /// For each operand, whose rank is given, the label of each of its axes.
    ///
    /// # Errors
    /// If a term has more labels than its operand has axes, or fewer.
    pub fn axes(&self, ranks: &[usize]) -> Result<Vec<Vec<Axis>>> {
        self.operands.iter().zip(ranks).map(|(labels, &rank)| axes(labels, rank)).collect()
    }
    /// The labels of the result's axes, where `...` stands for `n` of them.
    pub fn result_axes(&self, n: usize) -> Vec<Axis> {
        let of = |&label: &char| if label == ELLIPSIS { spread(n) } else { vec![Axis::Letter(label)] };
        self.result.iter().flat_map(of).collect()
    }
}

/// What an axis is called.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Axis {
    /// A letter of the equation.
    Letter(char),
    /// One of the axes that `...` stands for, counted from the last.
    Spread(usize),
}

fn spread(n: usize) -> Vec<Axis> {
    (0..n).rev().map(Axis::Spread).collect()
}

fn axes(labels: &[char], rank: usize) -> Result<Vec<Axis>> {
    let n_letters = labels.iter().filter(|&&l| l != ELLIPSIS).count();
    let fits = if labels.contains(&ELLIPSIS) { n_letters <= rank } else { n_letters == rank };
    if !fits {
        let message = format!("{n_letters} labels for an operand of rank {rank}");
        return Err(Error::new(Code::TYPES, message));
    }
    let of = |&l: &char| if l == ELLIPSIS { spread(rank - n_letters) } else { vec![Axis::Letter(l)] };
    Ok(labels.iter().flat_map(of).collect())
}

fn term(text: &str) -> Option<Vec<char>> {
    let (before, after) = text.split_once("...").map_or((text, None), |(b, a)| (b, Some(a)));
    let letters = before.chars().chain(after.unwrap_or("").chars());
    if !letters.clone().all(|c| c.is_ascii_alphabetic()) {
        return None;
    }
    let dots = after.map(|_| ELLIPSIS);
    Some(before.chars().chain(dots).chain(after.unwrap_or("").chars()).collect())
}

/// Without `->` the result has the `...` and then every letter that occurs once, in alphabetical order.
fn implicit_result(operands: &[Vec<char>]) -> Vec<char> {
    let mut counts: BTreeMap<char, usize> = BTreeMap::new();
    operands.iter().flatten().for_each(|&l| *counts.entry(l).or_default() += 1);
    // The dot of the ellipsis sorts before all letters.
    counts.into_iter().filter(|&(l, n)| n == 1 || l == ELLIPSIS).map(|(l, _)| l).collect()
}

/// The sizes of an operand that its `...` stands for.
fn spread_sizes<T: Clone>(axes: &[Axis], dims: &[T]) -> Vec<T> {
    let spread = axes.iter().zip(dims).filter(|(a, _)| matches!(a, Axis::Spread(_)));
    spread.map(|(_, d)| d.clone()).collect()
}

pub(super) fn infer_einsum(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let equation = Equation::of(ctx.node)?;
    let n = ctx.node.inputs.len();
    let dtype = common_dtype(ctx, 0..n)?;
    let shapes: Option<Vec<&[Dim]>> = (0..n).map(|i| ctx.shape(i)).collect();
    let (Some(dtype), Some(shapes)) = (dtype, shapes) else { return Ok(vec![Fact::of_dtype(dtype)]) };
    let ranks: Vec<usize> = shapes.iter().map(|s| s.len()).collect();
    let axes = equation.axes(&ranks).map_err(|e| ctx.mismatch(e.message))?;
    let spreads: Vec<Vec<Dim>> = axes.iter().zip(&shapes).map(|(a, s)| spread_sizes(a, s)).collect();
    let wide = ctx.broadcast(&spreads.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
    let mut sizes: BTreeMap<Axis, Dim> = spread(wide.len()).into_iter().zip(wide.iter().cloned()).collect();
    for (axis, dim) in axes.iter().zip(&shapes).flat_map(|(a, s)| a.iter().zip(*s)) {
        if let Axis::Letter(letter) = axis {
            let size = match sizes.get(axis) {
                Some(before) => ctx.same(before, dim, &format!("sizes of label `{letter}`"))?,
                None => dim.clone(),
            };
            sizes.insert(*axis, size);
        }
    }
    let dims = equation.result_axes(wide.len()).iter().map(|axis| sizes[axis].clone()).collect();
    Ok(vec![Fact::new(dtype, dims)])
}

pub(super) fn eval_einsum(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let equation = Equation::of(ctx.node)?;
    let operands: Vec<&Array> = ctx.inputs().collect();
    let ranks: Vec<usize> = operands.iter().map(|a| a.dims.len()).collect();
    let axes = equation.axes(&ranks)?;
    let spreads: Vec<Vec<usize>> =
        axes.iter().zip(&operands).map(|(axes, a)| spread_sizes(axes, &a.dims)).collect();
    let wide = broadcast_sizes(spreads.iter().map(Vec::as_slice))?;
    let mut sizes: BTreeMap<Axis, usize> = spread(wide.len()).into_iter().zip(wide.iter().copied()).collect();
    for (&axis, &size) in axes.iter().zip(&operands).flat_map(|(axes, a)| axes.iter().zip(&a.dims)) {
        if let Axis::Letter(letter) = axis
            && *sizes.entry(axis).or_insert(size) != size
        {
            let message = format!("label `{letter}` has sizes {} and {size}", sizes[&axis]);
            return Err(Error::new(Code::TYPES, message));
        }
    }
    let kept = equation.result_axes(wide.len());
    let summed: Vec<Axis> = sizes.keys().filter(|axis| !kept.contains(axis)).copied().collect();
    let of = |axes: &[Axis]| axes.iter().map(|axis| sizes[axis]).collect::<Vec<_>>();
    let plan = Contraction {
        kept: of(&kept),
        summed: of(&summed),
        strides: axes.iter().zip(&operands).map(|(axes, a)| strides(axes, &a.dims, &kept, &summed)).collect(),
    };
    let dims = plan.kept.clone();
    let first = operands.first().ok_or_else(|| Error::new(Code::TYPES, "there are no operands"))?;
    let data = match &first.data {
        Data::Float(_) => {
            let operands = operands.iter().map(|a| a.floats()).collect::<Result<Vec<_>>>()?;
            Data::Float(plan.run(&operands, 0.0, 1.0, |a, b| a + b, |a, b| a * b)?)
        }
        Data::Int(_) => {
            let operands = operands.iter().map(|a| a.ints()).collect::<Result<Vec<_>>>()?;
            Data::Int(plan.run(&operands, 0, 1, i64::wrapping_add, i64::wrapping_mul)?)
        }
    };
    Ok(vec![Array { dtype: first.dtype, dims, data }])
}

/// The loops of an equation.
struct Contraction {
    /// Sizes of the result.
    kept: Vec<usize>,
    /// Sizes that are summed over.
    summed: Vec<usize>,
    /// For each operand its strides along the kept and the summed axes.
    strides: Vec<(Vec<usize>, Vec<usize>)>,
}

/// How far apart an operand's elements lie along each kept and each summed axis: 0 along those that it lacks or
/// repeats, the sum along a diagonal.
fn strides(axes: &[Axis], dims: &[usize], kept: &[Axis], summed: &[Axis]) -> (Vec<usize>, Vec<usize>) {
    let own: Vec<(Axis, usize)> = (axes.iter().zip(dims).zip(layout::strides(dims)))
        .map(|((&axis, &size), stride)| (axis, if size == 1 { 0 } else { stride }))
        .collect();
    let along = |wanted: &Axis| own.iter().filter(|(axis, _)| axis == wanted).map(|(_, s)| s).sum();
    (kept.iter().map(along).collect(), summed.iter().map(along).collect())
}

impl Contraction {
    fn run<T: Copy>(
        &self,
        operands: &[&[T]],
        zero: T,
        one: T,
        add: impl Fn(T, T) -> T,
        multiply: impl Fn(T, T) -> T,
    ) -> Result<Vec<T>> {
        let mut result = Vec::with_capacity(layout::element_count(&self.kept)?);
        layout::each_position(&self.kept, |outer| {
            let mut sum = zero;
            layout::each_position(&self.summed, |inner| {
                let element = |(data, (kept, summed)): (&&[T], &(Vec<usize>, Vec<usize>))| {
                    data[layout::offset(outer, kept) + layout::offset(inner, summed)]
                };
                sum = add(sum, operands.iter().zip(&self.strides).map(element).fold(one, &multiply));
                Ok(())
            })?;
            result.push(sum);
            Ok(())
        })?;
        Ok(result)
    }
}

/// The gradient of each operand is again an `Einsum`: of `dy` and the other operands.
pub(super) fn vjp_einsum(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let mut equation = Equation::of(ctx.node)?;
    let dy = ctx.dy()?;
    let operands = (0..ctx.node.inputs.len()).map(|i| ctx.input(i)).collect::<Result<Vec<_>>>()?;
    if let Some(n) = same_spread(ctx.b, &equation, &operands)? {
        let letters = unused(&equation, n)?;
        let spell = |labels: &mut Vec<char>| {
            if let Some(at) = labels.iter().position(|&l| l == ELLIPSIS) {
                labels.splice(at..=at, letters.iter().copied());
            }
        };
        equation.operands.iter_mut().for_each(spell);
        spell(&mut equation.result);
    }
    let mut gradients = vec![None; operands.len()];
    for (i, gradient) in gradients.iter_mut().enumerate() {
        if ctx.needs(i) {
            *gradient = Some(gradient_of(ctx.b, &equation, dy, &operands, i)?);
        }
    }
    Ok(gradients)
}

/// The number of axes that `...` stands for, if all operands that have it provably agree in their sizes.
fn same_spread(b: &Builder<'_>, equation: &Equation, operands: &[Value]) -> Result<Option<usize>> {
    let mut common: Option<Vec<Dim>> = None;
    for (labels, &v) in equation.operands.iter().zip(operands).filter(|(l, _)| l.contains(&ELLIPSIS)) {
        let dims = b.shape(v)?;
        let sizes = spread_sizes(&axes(labels, dims.len())?, &dims);
        if *common.get_or_insert_with(|| sizes.clone()) != sizes {
            return Ok(None);
        }
    }
    Ok(common.map(|sizes| sizes.len()))
}

/// `n` letters that the equation does not use.
fn unused(equation: &Equation, n: usize) -> Result<Vec<char>> {
    let used: BTreeSet<char> = equation.operands.iter().flatten().copied().collect();
    let free: Vec<char> = ('a'..='z').chain('A'..='Z').filter(|l| !used.contains(l)).take(n).collect();
    let too_many = || Error::new(Code::NO_GRADIENT, "the gradient of the equation needs more than 52 labels");
    if free.len() == n { Ok(free) } else { Err(too_many()) }
}

/// The gradient of operand `i`.
fn gradient_of(
    b: &mut Builder<'_>,
    equation: &Equation,
    dy: Value,
    operands: &[Value],
    i: usize,
) -> Result<Value> {
    let (x, labels) = (operands[i], &equation.operands[i]);
    let others = (0..operands.len()).filter(|&o| o != i);
    let mut inputs: Vec<Value> = std::iter::once(dy).chain(others.clone().map(|o| operands[o])).collect();
    let mut terms: Vec<Vec<char>> = vec![equation.result.clone()];
    terms.extend(others.map(|o| equation.operands[o].clone()));
    let mut result: Vec<char> = labels.clone();
    let rank = b.shape(x)?.len();
    let place = |at: usize| {
        let behind = labels[at..].iter().filter(|&&l| l != ELLIPSIS).count();
        if labels[..at].contains(&ELLIPSIS) { rank - behind } else { at }
    };
    for (at, &label) in labels.iter().enumerate().filter(|(_, l)| **l != ELLIPSIS) {
        if labels[..at].contains(&label) {
            // The operand is read along a diagonal: elsewhere its gradient is 0.
            let mut all = equation.clone();
            all.operands.push(result.clone());
            result[at] = unused(&all, 1)?[0];
            terms.push(vec![label, result[at]]);
            inputs.push(eye(b, x, place(at))?);
        } else if !terms.iter().any(|t| t.contains(&label)) {
            // The operand alone was summed over this label: its gradient is the same all along it.
            terms.push(vec![label]);
            inputs.push(ones(b, x, place(at))?);
        }
    }
    let n_letters = result.iter().filter(|&&l| l != ELLIPSIS).count();
    let spread = terms.iter().any(|t| t.contains(&ELLIPSIS));
    result.retain(|&l| l != ELLIPSIS);
    if spread {
        result.insert(0, ELLIPSIS);
    }
    let equation = Attr::Str(Equation { operands: terms, result }.text());
    let node = Node::new("Einsum", &inputs, &[]).with("equation", equation);
    let full = b.push("einsum", node)?;
    match (spread, labels.iter().position(|&l| l == ELLIPSIS)) {
        (false, _) => Ok(full),
        (true, None) => {
            let leading: Vec<i64> = (0..(b.shape(full)?.len() - n_letters) as i64).collect();
            b.reduce_sum(full, &leading, false)
        }
        (true, Some(at)) => narrowed(b, full, x, at, rank - n_letters),
    }
}

/// Sums `full`, whose leading axes are those of `...`, down to `x`, which has `n` such axes from axis `at` on.
fn narrowed(b: &mut Builder<'_>, full: Value, x: Value, at: usize, n: usize) -> Result<Value> {
    let rank = b.shape(x)?.len();
    let leading: Vec<usize> = (at..at + n).chain(0..at).chain(at + n..rank).collect();
    let like = b.transpose(x, &leading)?;
    let sum = b.reduce_to(full, like)?;
    let back: Vec<usize> = (n..n + at).chain(0..n).chain(n + at..rank).collect();
    b.transpose(sum, &back)
}

/// Ones, as many as `x` has along `axis`.
fn ones(b: &mut Builder<'_>, x: Value, axis: usize) -> Result<Value> {
    let (one, n) = (b.scalar_like("one", 1.0, x)?, b.size_of(x, axis)?);
    b.op("ones", "Expand", &[one, n])
}

/// The identity matrix of the size of `x` along `axis`.
fn eye(b: &mut Builder<'_>, x: Value, axis: usize) -> Result<Value> {
    let n = b.size_of(x, axis)?;
    let n = b.squeeze(n, &[0])?;
    let (zero, one) = (b.scalar_like("zero", 0.0, n)?, b.scalar_like("one", 1.0, n)?);
    let range = b.op("range", "Range", &[zero, n, one])?;
    let (row, column) = (b.unsqueeze(range, &[0])?, b.unsqueeze(range, &[1])?);
    let equal = b.op("equal", "Equal", &[row, column])?;
    b.cast_like(equal, x)
}

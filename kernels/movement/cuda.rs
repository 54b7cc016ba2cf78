//! Launch plans of copies.
use crate::{
    axis,
    cuda::{
        Argument::{self, Long},
        Buffer::{self, Operand, Result},
        Launch, Module, PER_THREAD, Plan, Shape, Site, Source, buffers, int, long, walk,
    },
    row_major,
    strides::{Walk, repeated},
};
use graft_ir::DType;

pub(crate) const SOURCES: &[Source] = &[Source {
    path: PATH,
    text: include_str!("movement.cu"),
    kernels: &["copy_strided", "fill", "range", "transpose", "triangle"],
    products: &[],
    modules: |module| vec![module.clone().define("GRAFT_UNIT", "u8"), module.define("GRAFT_UNIT", "u64")],
}];

const PATH: &str = "movement/movement.cu";

/// What holds an element of so many bytes.
pub(crate) fn unit(bytes: usize) -> Option<&'static str> {
    match bytes {
        1 => Some("u8"),
        2 => Some("u16"),
        4 => Some("u32"),
        8 => Some("u64"),
        _ => None,
    }
}

/// The source for elements of so many bytes.
fn module(bytes: usize) -> Option<Module> {
    Some(Module::file(PATH).define("GRAFT_UNIT", unit(bytes)?))
}

/// The bytes of an element, where it has whole ones.
fn bytes(shape: &Shape<'_>) -> Option<usize> {
    let bits = shape.dtype.bits();
    bits.is_multiple_of(8).then_some(bits / 8)
}

/// Where a copy begins: the memory, and the element in it.
pub(crate) type Place = (Buffer, usize);

/// A copy of `dims` elements of `bytes` bytes each, between any strides.
pub(crate) fn copy(
    bytes: usize,
    dims: &[usize],
    (from, from_strides): (Place, &[usize]),
    (to, to_strides): (Place, &[usize]),
) -> Option<Launch> {
    let n: usize = dims.iter().product();
    if let Some(turned) = Turned::of(dims, [from_strides, to_strides]) {
        return Some(turned.launch(bytes, from, to)?.costs(0, 2 * n * bytes));
    }
    let mut arguments = vec![from.0.into(), long(from.1), to.0.into(), long(to.1), long(n)];
    arguments.extend(walk(dims, [from_strides, to_strides])?);
    Some(elements("copy_strided", bytes, n, arguments)?.costs(0, 2 * n * bytes))
}

/// The sides of a tile that is turned: `TURNED` in `movement.cu`.
const TURNED: usize = 32;

/// A copy whose source and target run along different axes.
struct Turned {
    /// Size and stride in the target of the axis that runs along the source, size and stride in the source of that which
    /// runs along the target.
    sides: [[usize; 2]; 2],
    /// Sizes and strides of the other axes.
    rest: Vec<[usize; 3]>,
}

impl Turned {
    /// One along these strides, if it is worth it.
    fn of(dims: &[usize], strides: [&[usize]; 2]) -> Option<Turned> {
        let walk = Walk::new(dims, strides);
        let (sizes, [from, to]) = walk.axes();
        let mut axes: Vec<[usize; 3]> = (0..sizes.len()).map(|i| [sizes[i], from[i], to[i]]).collect();
        // Below, a tile is mostly empty.
        let is_side = |n: usize| n >= TURNED / 4;
        let [cols, from_step, 1] = axes.pop()? else { return None };
        let at = axes.iter().position(|&[n, from, _]| is_side(n) && from == 1)?;
        let [rows, _, to_step] = axes.remove(at);
        (is_side(cols) && from_step > 1)
            .then_some(Turned { sides: [[rows, to_step], [cols, from_step]], rest: axes })
    }
    fn launch(&self, bytes: usize, from: Place, to: Place) -> Option<Launch> {
        let [[rows, to_step], [cols, from_step]] = self.sides;
        let mut arguments = vec![from.0.into(), long(from.1), to.0.into(), long(to.1)];
        arguments.extend([int(rows), int(cols), long(from_step), long(to_step)]);
        let [sizes, a, b] = [0, 1, 2].map(|part| self.rest.iter().map(|axis| axis[part]).collect::<Vec<_>>());
        arguments.extend(walk(&sizes, [&a, &b])?);
        let tiles = rows.div_ceil(TURNED) * cols.div_ceil(TURNED) * sizes.iter().product::<usize>();
        let mut launch = Launch::new("transpose", module(bytes)?, [tiles, 1, 1], arguments);
        launch.shared = TURNED * (TURNED + 1) * bytes;
        [rows, cols, tiles].iter().all(|&n| i32::try_from(n).is_ok()).then_some(launch)
    }
}

/// A kernel of `movement.cu` for `n` elements.
fn elements(kernel: &'static str, bytes: usize, n: usize, arguments: Vec<Argument>) -> Option<Launch> {
    Some(Launch::elements(kernel, module(bytes)?, (n, PER_THREAD), arguments))
}

/// Elements with these bits everywhere; from memory where they lie there.
pub(crate) fn fill(bytes: usize, n: usize, to: Buffer, bits: i64, given: Buffer) -> Option<Launch> {
    let arguments = vec![to.into(), long(n), Long(bits), given.into()];
    Some(elements("fill", bytes, n, arguments)?.costs(0, n * bytes))
}

/// A plan of these launches.
fn of(launches: Vec<Launch>) -> Plan {
    Plan { launches, workspace: 0 }
}

/// The operand with any strides, broadcast to the sizes of the result, row-major.
pub fn plan(site: &Site<'_>) -> Option<Plan> {
    let (from, to) = (site.input(0)?, site.output(0)?);
    if to.is_empty() {
        return Some(Plan::default());
    }
    let strides = repeated(from.dims, from.strides, to.dims);
    let places = ((Operand(0), 0), (Result(0), 0));
    Some(of(vec![copy(bytes(&to)?, to.dims, (places.0, &strides), (places.1, to.strides))?]))
}

/// The operands of a `Concat`, each copied to its place.
pub(super) fn concat(site: &Site<'_>) -> Option<Plan> {
    let out = site.output(0)?;
    let (bytes, at) = (bytes(&out)?, axis(site.node.int("axis").ok()?.unwrap_or(0), out.dims.len()).ok()?);
    let (strides, mut launches, mut from) = (row_major(out.dims), Vec::new(), 0);
    for i in 0..site.inputs.len() {
        let x = site.input(i)?;
        if !x.is_empty() {
            let place = (Result(0), from * strides[at]);
            launches.push(copy(bytes, x.dims, ((Operand(i), 0), x.strides), (place, &strides))?);
        }
        from += x.dims[at];
    }
    Some(of(launches))
}

/// A `ConstantOfShape`.
pub(super) fn constant(site: &Site<'_>) -> Option<Plan> {
    let out = site.output(0)?;
    let value = site.node.tensor("value").ok()?.map_or_else(|| vec![0; 4], |t| t.data().to_vec());
    let bytes = bytes(&out).filter(|&b| b == value.len())?;
    if out.is_empty() {
        return Some(Plan::default());
    }
    Some(of(vec![fill(bytes, out.len(), Result(0), bits(&value), Buffer::Null)?]))
}

/// The bits of an element of at most eight bytes.
fn bits(element: &[u8]) -> i64 {
    element.iter().rev().fold(0, |bits, &byte| bits << 8 | i64::from(byte))
}

/// A `Range` of `int64`.
pub(super) fn range(site: &Site<'_>) -> Option<Plan> {
    let out = site.output(0)?;
    if out.is_empty() {
        return Some(Plan::default());
    }
    let mut arguments = buffers([Operand(0), Operand(2), Result(0)]);
    arguments.push(long(out.len()));
    Some(of(vec![elements("range", 8, out.len(), arguments)?.costs(2 * out.len(), 8 * out.len())]))
}

/// A `Trilu`.
pub(super) fn trilu(site: &Site<'_>) -> Option<Plan> {
    let (out, upper) = (site.output(0)?, site.node.int("upper").ok()?.unwrap_or(1));
    let &[.., rows, cols] = out.dims else { return None };
    if out.is_empty() {
        return Some(Plan::default());
    }
    let (bytes, n) = (bytes(&out)?, out.len());
    let k = site.input(1).map_or(Buffer::Null, |_| Operand(1));
    let mut arguments = buffers([Operand(0), Result(0)]);
    arguments.extend([long(n), int(rows), int(cols), k.into(), int(usize::from(upper != 0))]);
    Some(of(vec![elements("triangle", bytes, n, arguments)?.costs(0, 2 * n * bytes)]))
}

/// A `Pad` with a constant: that everywhere, and over it what is left of the operand.
pub(super) fn pad(site: &Site<'_>) -> Option<Plan> {
    let (x, out) = (site.input(0)?, site.output(0)?);
    if out.is_empty() {
        return Some(Plan::default());
    }
    // Zero, the constant that goes without saying, has the same bits in every type; that of the attribute has f32's.
    let value = site.node.float("value").ok()?;
    if value.is_some() && x.dtype != DType::Float {
        return None;
    }
    let (bytes, value) = (bytes(&x)?, value.unwrap_or(0.0));
    let given = site.input(2).map_or(Buffer::Null, |_| Operand(2));
    let mut launches = vec![fill(bytes, out.len(), Result(0), i64::from(value.to_bits()), given)?];
    let (mut kept, mut from, mut to) = (x.dims.to_vec(), 0, 0);
    let (x_strides, out_strides) = (row_major(x.dims), row_major(out.dims));
    for (i, before) in befores(site, x.dims.len())?.into_iter().enumerate() {
        let (skipped, moved) = (before.min(0).unsigned_abs() as usize, before.max(0) as usize);
        kept[i] = x.dims[i].saturating_sub(skipped).min(out.dims[i].saturating_sub(moved));
        from += skipped * x_strides[i];
        to += moved * out_strides[i];
    }
    if kept.iter().product::<usize>() > 0 {
        let (from, to) = ((Operand(0), from), (Result(0), to));
        launches.push(copy(bytes, &kept, (from, &x_strides), (to, &out_strides))?);
    }
    Some(of(launches))
}

/// How many elements a `Pad` puts before each axis.
fn befores(site: &Site<'_>, rank: usize) -> Option<Vec<i64>> {
    let pads = site.ints(1, "pads")?;
    let axes = match site.input(3) {
        Some(axes) => axes.ints()?.into_iter().map(|a| axis(a, rank).ok()).collect::<Option<Vec<_>>>()?,
        None => (0..rank).collect(),
    };
    let mut before = vec![0; rank];
    axes.into_iter().zip(pads).for_each(|(axis, pad)| before[axis] = pad);
    Some(before)
}

//! Launch plans of products: which orientation of the kernel a call takes, and what has to be made row-major before.
mod einsum;

pub(super) use einsum::einsum;

use crate::{
    cuda::{
        Argument::Float,
        Buffer::{self, Null, Operand, Result},
        Element, Launch, LibraryProduct, Matrix, Module, Plan, Product, Shape, Site, Slabs, Source, TILES,
        Target, Tile, int, long, walk,
    },
    elementwise::epilogue::examples,
    movement, row_major,
    strides::repeated,
};

pub(crate) const SOURCES: &[Source] = &[Source {
    path: PATH,
    text: include_str!("matmul.cu"),
    kernels: &["matmul", "matmul_slabs", "multiply_strided"],
    products: &["matmul", "matmul_slabs"],
    modules,
}];

const PATH: &str = "matmul/matmul.cu";

/// A slab of a sum has at least so many steps: below, joining its part costs more than it saves.
const LEAST_STEPS: usize = 4;

/// The most blocks along the second and third axis of a grid.
const LONGEST_GRID: usize = 65_535;

fn modules(module: Module) -> Vec<Module> {
    let of = |element, tile: usize, along_k| oriented(&module, element, along_k).tile(TILES[tile]);
    let mut modules = vec![
        of(Element::Bf16, 0, [true, false]),
        of(Element::Bf16, 1, [true, true]),
        of(Element::Bf16, 2, [true, true]),
        of(Element::F16, 1, [false, false]),
        of(Element::F32, 0, [true, false]),
        of(Element::F32, 0, [false, true]),
    ];
    modules.extend(examples(&modules[1]).pop());
    modules
}

/// The source for operands along whose memory the index of the sum runs, or does not.
fn oriented(module: &Module, element: Element, along_k: [bool; 2]) -> Module {
    let [a, b] = along_k.map(|along| if along { "K" } else { "MN" });
    module.clone().element(element).define("GRAFT_A", a).define("GRAFT_B", b)
}

/// Matrices in memory: batches of (other, k) or (k, other), as the sizes say.
struct Factor {
    memory: Buffer,
    batch: Vec<usize>,
    batch_strides: Vec<usize>,
    /// Size and stride of the index that the result has, and of that of the sum.
    other: [usize; 2],
    k: [usize; 2],
}

impl Factor {
    /// Operand `i`, whose last axis but one is the result's index unless it is `turned`; vectors have none.
    fn of(site: &Site<'_>, i: usize, turned: bool, plan: &mut Plan) -> Option<Factor> {
        let shape = site.input(i)?;
        Factor::laid(&shape, Operand(i), turned)?.served(site.element(i)?, plan)
    }

    /// Itself, or a row-major copy where neither index runs along memory.
    fn served(mut self, element: Element, plan: &mut Plan) -> Option<Factor> {
        if self.is_along_k() || self.is_along_other() {
            return Some(self);
        }
        let dims = [self.batch.as_slice(), &[self.other[0], self.k[0]]].concat();
        let strides = [self.batch_strides.as_slice(), &[self.other[1], self.k[1]]].concat();
        let (copy, whole) =
            (plan.reserve(dims.iter().product::<usize>() * element.bytes()), row_major(&dims));
        let from = ((self.memory, 0), strides.as_slice());
        plan.launches.push(movement::cuda::copy(element.bytes(), &dims, from, ((copy, 0), &whole))?);
        (self.memory, self.other[1], self.k[1]) = (copy, self.k[0], 1);
        self.batch_strides = whole[..self.batch.len()].to_vec();
        Some(self)
    }

    fn laid(shape: &Shape<'_>, memory: Buffer, turned: bool) -> Option<Factor> {
        let axes: Vec<[usize; 2]> = shape.dims.iter().zip(shape.strides).map(|(&d, &s)| [d, s]).collect();
        let (batch, other, k) = match axes.as_slice() {
            &[k] => (&[][..], [1, 0], k),
            [batch @ .., k, other] if turned => (batch, *other, *k),
            [batch @ .., other, k] => (batch, *other, *k),
            [] => return None,
        };
        let [batch, batch_strides] = [0, 1].map(|part| batch.iter().map(|axis| axis[part]).collect());
        Some(Factor { memory, batch, batch_strides, other, k })
    }

    /// Whether the index of the sum runs along memory, or may be said to.
    fn is_along_k(&self) -> bool {
        self.k[1] == 1 || self.k[0] <= 1
    }
    fn is_along_other(&self) -> bool {
        self.other[1] == 1 || self.other[0] <= 1
    }
    /// Whether the matrices' rows are as far apart from one matrix to the next as within one.
    fn lies_evenly(&self) -> bool {
        let mut expected = self.other[0] * self.other[1];
        self.batch.iter().zip(&self.batch_strides).rev().all(|(&d, &s)| {
            let fits = d == 1 || s == expected;
            expected *= d;
            fits
        })
    }
    /// As a library is told of it; `turned` says whether rows are indices of the sum.
    fn matrix(&self, is_turned: bool, along_k: bool) -> Matrix {
        Matrix { memory: self.memory, stride: self.stride(along_k), is_turned }
    }
    /// The stride of the index that does not run along memory.
    fn stride(&self, along_k: bool) -> usize {
        if along_k { self.other[1] } else { self.k[1] }
    }
}

/// What is added to a product.
struct Added {
    memory: Buffer,
    strides: [usize; 2],
    beta: f32,
}

/// A product of matrices, or a batch of them.
struct Call {
    a: Factor,
    b: Factor,
    alpha: f32,
    added: Added,
    to: Buffer,
}

const NOTHING: Added = Added { memory: Null, strides: [0; 2], beta: 0.0 };

/// The launches of a `MatMul`.
pub(super) fn matmul(site: &Site<'_>) -> Option<Plan> {
    let mut plan = Plan::default();
    // A vector on the right is a column: its one axis is that of the sum.
    let (a, b) = (Factor::of(site, 0, false, &mut plan)?, Factor::of(site, 1, true, &mut plan)?);
    Call { a, b, alpha: 1.0, added: NOTHING, to: Result(0) }.of_site(site, plan)
}

/// The launches of a `Gemm`.
pub(super) fn gemm(site: &Site<'_>) -> Option<Plan> {
    let flag = |name: &str| Some(site.node.int(name).ok()?.unwrap_or(0) != 0);
    let scale = |name: &str| Some(site.node.float(name).ok()?.unwrap_or(1.0));
    let (mut plan, beta) = (Plan::default(), scale("beta")?);
    let a = Factor::of(site, 0, flag("transA")?, &mut plan)?;
    let b = Factor::of(site, 1, !flag("transB")?, &mut plan)?;
    let added = match site.input(2).filter(|_| beta != 0.0) {
        Some(c) => {
            let strides = repeated(c.dims, c.strides, site.output(0)?.dims);
            Added { memory: Operand(2), strides: strides.try_into().ok()?, beta }
        }
        None => NOTHING,
    };
    Call { a, b, alpha: scale("alpha")?, added, to: Result(0) }.of_site(site, plan)
}

impl Call {
    /// One tall product where all have the same right factor and the left ones lie below one another.
    fn merged(mut self, batch: &[usize]) -> (Call, Vec<usize>) {
        let is_tall = self.a.is_along_k()
            && self.a.lies_evenly()
            && self.a.batch == batch
            && self.b.batch.iter().all(|&d| d == 1);
        if !is_tall {
            return (self, batch.to_vec());
        }
        self.a.other[0] *= batch.iter().product::<usize>();
        for factor in [&mut self.a, &mut self.b] {
            factor.batch.clear();
            factor.batch_strides.clear();
        }
        (self, Vec::new())
    }

    /// The launches that make the first result.
    fn of_site(self, site: &Site<'_>, mut plan: Plan) -> Option<Plan> {
        let out = site.output(0)?;
        if out.is_empty() {
            return Some(Plan::default());
        }
        let batch_rank = self.a.batch.len().max(self.b.batch.len());
        self.push(out.dims.get(..batch_rank)?, site.element(0)?, site, &mut plan)?;
        Some(plan)
    }

    /// Appends the launches of a product for each place in `batch`.
    fn push(self, batch: &[usize], element: Element, site: &Site<'_>, plan: &mut Plan) -> Option<()> {
        let (Call { a, b, alpha, added, to }, batch) = self.merged(batch);
        let [m, n, k] = [a.other[0], b.other[0], a.k[0]];
        let tile = site.tile([m, n, k], element);
        let along_k = [a.is_along_k(), !b.is_along_other()];
        let module = oriented(&Module::file(PATH), element, along_k).tile(tile);
        let (sizes, n_products) = ([m, n, k], batch.iter().product());
        let mut product = Product { sizes, tile, along_k, slabs: n_products, element, to: None };
        let factors =
            [a.memory.into(), long(a.stride(along_k[0])), b.memory.into(), long(b.stride(along_k[1]))];
        let is_alone = product.slabs == 1 && added.memory == Null;
        let library = (is_alone && site.takes_library([m, n, k], element)).then(|| {
            let (left, right) = (a.matrix(!along_k[0], along_k[0]), b.matrix(along_k[1], along_k[1]));
            let result = Matrix::new(to, n);
            LibraryProduct { element, sizes: [m, n, k], left, right, result, alpha }.aligned()
        });
        if let Some(launch) = library.flatten().and_then(|product| of_library(product, tile)) {
            plan.launches.push(launch);
            return Some(());
        }
        // What joins the slabs makes f32 and adds nothing.
        let is_plain = is_alone && alpha == 1.0 && element == Element::F32;
        if let Some(slabs) = slabs(&product, site.target).filter(|_| is_plain) {
            let parts = plan.reserve(4 * slabs.n * m * n);
            let mut arguments = factors.to_vec();
            arguments.extend([parts.into(), int(m), int(n), int(k), int(slabs.steps_per_slab)]);
            product.slabs = slabs.n;
            plan.launches.push(product.launch("matmul_slabs", module, arguments, 4));
            plan.launches.push(slabs.sum(m * n, parts, to, Null));
            return Some(());
        }
        let strides = [&a, &b].map(|f| repeated(&f.batch, &f.batch_strides, &batch));
        let mut arguments = factors.to_vec();
        arguments.extend([to.into(), int(m), int(n), int(k), Float(alpha), added.memory.into()]);
        arguments.extend(added.strides.map(long));
        arguments.push(Float(added.beta));
        arguments.extend(walk(&batch, strides.each_ref().map(Vec::as_slice))?);
        let launch = product.storing(to).launch("matmul", module, arguments, element.bytes());
        let fits = launch.grid[1..].iter().all(|&blocks| blocks <= LONGEST_GRID);
        plan.launches.push(launch);
        ([m, n, k].iter().all(|&size| i32::try_from(size).is_ok()) && fits).then_some(())
    }
}

/// The launch of a product that a library is to do, with the kernel that does it elsewhere; `None` if that does not.
pub(crate) fn of_library(product: LibraryProduct, tile: Tile) -> Option<Launch> {
    let LibraryProduct { element, sizes, left, right, result, alpha } = product;
    let along_k = [!left.is_turned, right.is_turned];
    let module = oriented(&Module::file(PATH), element, along_k).tile(tile);
    let factors = [left, right].map(|factor| [factor.memory.into(), long(factor.stride)]);
    let mut arguments = factors.concat();
    arguments.push(result.memory.into());
    arguments.extend(sizes.map(int));
    arguments.extend([Float(alpha), Null.into(), long(0), long(0), Float(0.0)]);
    arguments.extend(walk(&[], [&[], &[]])?);
    let launch = Product { sizes, tile, along_k, slabs: 1, element, to: None }.launch(
        "matmul",
        module,
        arguments,
        element.bytes(),
    );
    let fits = launch.grid[1] <= LONGEST_GRID && sizes.iter().all(|&n| i32::try_from(n).is_ok());
    (fits && result.stride == sizes[1]).then_some(Launch { library: Some(product), ..launch })
}

/// How the sum of a product is cut whose tiles are too few for a device: none where they are enough, or the sum short.
fn slabs(product: &Product, target: Target) -> Option<Slabs> {
    let ([m, n, k], tile) = (product.sizes, product.tile);
    let (tiles, steps) = (m.div_ceil(tile.m) * n.div_ceil(tile.n), k.div_ceil(tile.k));
    let wanted = (target.multiprocessors / tiles).min(steps / LEAST_STEPS);
    let steps_per_slab = steps.div_ceil(wanted.max(1));
    (wanted > 1).then(|| Slabs { n: steps.div_ceil(steps_per_slab), steps_per_slab })
}

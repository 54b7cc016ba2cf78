//! Launches of the kernels of `linear.cu`: linears without an adapter of their own.
use crate::{
    cuda::{
        Buffer, Launch, LibraryProduct, Linear, Matrix, Module, Sizes, Source, Traffic, arguments,
        linear_modules,
    },
    elementwise::epilogue::examples,
};

pub(crate) const SOURCES: &[Source] =
    &[Source { path: PATH, text: include_str!("linear.cu"), kernels: NAMES, products: NAMES, modules }];

const PATH: &str = "gemm/linear.cu";
const NAMES: &[&str] = &["linear_forward", "linear_input_grad"];

fn modules(module: Module) -> Vec<Module> {
    let plain = linear_modules(module);
    // Of the first one all examples, of others the last.
    let with = |(i, module)| examples(module).into_iter().rev().take(if i == 0 { usize::MAX } else { 1 });
    let with: Vec<Module> = plain.iter().enumerate().flat_map(with).collect();
    plain.into_iter().chain(with).collect()
}

/// Columns that are repeated over those of a result, and how many they are.
pub(crate) type Repeated = (Buffer, usize);
/// No columns.
pub(crate) const NOTHING: Repeated = (Buffer::Null, 1);

/// `y = x·w + repeat(q)`.
pub(crate) fn forward(linear: &Linear, [x, w, y]: [Buffer; 3], q: Repeated) -> Launch {
    let Sizes { tokens, n_in, n_out, .. } = linear.sizes;
    launch(linear, "linear_forward", ([tokens, n_out, n_in], false), [x, w, y], q)
}

/// `dx = dy·wᵀ + repeat(q)`.
pub(crate) fn input_grad(linear: &Linear, [dy, w, dx]: [Buffer; 3], q: Repeated) -> Launch {
    let Sizes { tokens, n_in, n_out, .. } = linear.sizes;
    launch(linear, "linear_input_grad", ([tokens, n_in, n_out], true), [dy, w, dx], q)
}

fn launch(
    linear: &Linear,
    kernel: &'static str,
    (sizes, is_turned): ([usize; 3], bool),
    [from, w, to]: [Buffer; 3],
    (q, cols): Repeated,
) -> Launch {
    let Linear { sizes: Sizes { tokens, n_in, n_out, .. }, element, tile, .. } = *linear;
    let operands = arguments(&[from, w, q, to], &[tokens, n_in, n_out, cols], &[]);
    let module = Module::file(PATH).element(element).tile(tile);
    let product = linear.product(sizes, [true, is_turned]).storing(to);
    let launch = product.launch(kernel, module, operands, element.bytes());
    let read = if q == Buffer::Null { 0 } else { (tokens * cols * element.bytes()) as u64 };
    let library = linear.library && q == Buffer::Null;
    Launch {
        traffic: launch.traffic + Traffic { flops: 0, ideal: read, issued: read },
        library: library.then(|| plain(linear, (sizes, is_turned), [from, w, to])).flatten(),
        ..launch
    }
}

/// The product where nothing is repeated.
fn plain(
    linear: &Linear,
    (sizes, is_turned): ([usize; 3], bool),
    [from, w, to]: [Buffer; 3],
) -> Option<LibraryProduct> {
    let ([_, n, k], element) = (sizes, linear.element);
    let right = Matrix { is_turned, ..Matrix::new(w, linear.sizes.n_out) };
    let (left, result) = (Matrix::new(from, k), Matrix::new(to, n));
    LibraryProduct { element, sizes, left, right, result, alpha: 1.0 }.aligned()
}

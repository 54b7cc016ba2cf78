//! cuBLASLt, NVIDIA's library of products: it computes a launch's product in the kernel's place where that was measured to
//! be faster. It is found at run time; a machine without it runs the kernels.
//!
//! Which of its algorithms a product takes is asked once for each kind and kept. None splits the sum among blocks that add
//! to memory in any order: what is split is joined by the library in f32, in a workspace that is allocated once, so that
//! results have the same bits each time and a recorded step allocates nothing.
use super::{Element, LibraryProduct, Matrix, vendor};
use cudarc::{
    cublaslt::{
        result::{self, CublasError},
        sys::{
            self, cublasComputeType_t as Compute, cublasLtMatmulDescAttributes_t as Describe,
            cublasLtMatmulPreferenceAttributes_t as Prefer, cublasLtReductionScheme_t as Reduction,
            cudaDataType as DataType,
        },
    },
    driver::{CudaSlice, CudaStream, DevicePtr},
};
use graft_ir::{Code, Error, Result};
use libloading::Library;
use std::{
    collections::{HashMap, hash_map::Entry},
    ffi::c_void,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

/// The names that the library has.
const NAMES: [&str; 4] = ["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so", "cublasLt64_13.dll"];

/// The environment's word for the library's folder.
const FOLDER: &str = "GRAFT_CUBLASLT";

/// Bytes of workspace: what NVIDIA's documentation recommends for Hopper.
const WORKSPACE: usize = 32 << 20;

/// Finds cuBLASLt: in the folder that `GRAFT_CUBLASLT` names, else beside the NVRTC that `GRAFT_NVRTC` names, else where
/// the system looks for libraries.
///
/// # Errors
/// If there is none.
pub fn find() -> Result<()> {
    /// Keeps the library that was loaded by its path; whoever asks for it by its name is given the same.
    static LOADED: OnceLock<Option<Library>> = OnceLock::new();
    let folder = |name| std::env::var_os(name).map(PathBuf::from);
    let named = folder(FOLDER);
    let places = named.clone().or_else(|| folder("GRAFT_NVRTC"));
    let kept = LOADED.get_or_init(|| vendor::load(&places?, &NAMES));
    // SAFETY: only looks for the library; initialisers of NVIDIA's have no requirements.
    let is_found = (named.is_none() || kept.is_some()) && unsafe { sys::is_culib_present() };
    if is_found {
        return Ok(());
    }
    let help = format!("name the folder of its library in {FOLDER}");
    Err(vendor::missing("cuBLASLt (libcublasLt)", named.as_deref(), &help))
}

/// The version of cuBLASLt that was found, as text: `13.1.0`.
///
/// # Errors
/// If there is none.
pub fn version() -> Result<String> {
    find()?;
    // SAFETY: the library is there, and the function takes nothing.
    let n = unsafe { sys::cublasLtGetVersion() };
    Ok(format!("{}.{}.{}", n / 10_000, n / 100 % 100, n % 100))
}

/// What products of the same kind have in common: element type, sizes, strides and turns of the factors, stride of the
/// result, and to how many bytes the three are aligned.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    element: Element,
    sizes: [usize; 3],
    strides: [usize; 3],
    turned: [bool; 2],
    aligned: [u32; 3],
}

/// The library, ready for one stream.
pub(super) struct CublasLt {
    handle: sys::cublasLtHandle_t,
    stream: Arc<CudaStream>,
    workspace: CudaSlice<u8>,
    chosen: Mutex<HashMap<Kind, Chosen>>,
}

// SAFETY: the library's objects belong to no thread, and each call binds the context to the thread that makes it.
unsafe impl Send for CublasLt {}
// SAFETY: NVIDIA's documentation lets threads share a handle; all else that changes is behind a lock.
unsafe impl Sync for CublasLt {}

impl Drop for CublasLt {
    fn drop(&mut self) {
        // SAFETY: the handle was created and is destroyed once.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

impl CublasLt {
    /// Finds the library and makes it ready for products on `stream`.
    ///
    /// # Errors
    /// `DEVICE` if there is none, it does not start, or the device has no room for its workspace.
    pub(super) fn open(stream: &Arc<CudaStream>) -> Result<CublasLt> {
        find()?;
        let refused = |what: String| Error::new(Code::DEVICE, format!("cuBLASLt does not start: {what}"));
        stream.context().bind_to_thread().map_err(|e| refused(e.to_string()))?;
        let handle = result::create_handle().map_err(|e| refused(e.to_string()))?;
        // SAFETY: bytes have no content that would be wrong.
        let workspace = unsafe { stream.alloc::<u8>(WORKSPACE) }.map_err(|e| refused(e.to_string()))?;
        Ok(CublasLt { handle, stream: stream.clone(), workspace, chosen: Mutex::default() })
    }

    /// Computes a product whose left and right factor and result lie at these addresses.
    ///
    /// # Errors
    /// `DEVICE` if the library has no algorithm for it or does not launch it; what goes wrong within shows later.
    pub(super) fn multiply(&self, product: &LibraryProduct, addresses: [u64; 3]) -> Result<()> {
        let failed = |e: CublasError| {
            let [m, n, k] = product.sizes;
            let message = format!("cuBLASLt does not compute a product in {}: {e}", product.element.name());
            Error::new(Code::DEVICE, message).at(format!("{m} × {n}, sums of {k}, {product:?}"))
        };
        let bound = self.stream.context().bind_to_thread();
        bound.map_err(|e| Error::new(Code::DEVICE, format!("the CUDA driver reports {e}")))?;
        let kind = Kind::of(product, addresses);
        let mut chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        let chosen = match chosen.entry(kind) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Chosen::of(self.handle, &kind).map_err(failed)?),
        };
        let pointers = addresses.map(|address| address as *mut c_void);
        self.launch(chosen, product.alpha, pointers).map_err(failed)
    }

    /// Row-major memory seen as the library sees it, by columns, holds transposes: it is asked for the transposed result,
    /// the right factor first.
    fn launch(
        &self,
        chosen: &Chosen,
        alpha: f32,
        [left, right, to]: [*mut c_void; 3],
    ) -> std::result::Result<(), CublasError> {
        let beta = 0f32;
        let [of_left, of_right, of_result] = &chosen.layouts;
        let (workspace, _guard) = self.workspace.device_ptr(&self.stream);
        // SAFETY: handle, descriptions and algorithm are alive; the planner that made the product knows that sizes and
        // strides lie within the buffers; the factors are numbers on the host, which the call reads before it returns;
        // the workspace is used on one stream only.
        unsafe {
            result::matmul(
                self.handle,
                chosen.operation.0,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                right,
                of_right.0,
                left,
                of_left.0,
                to,
                of_result.0,
                to,
                of_result.0,
                &raw const chosen.algorithm,
                workspace as *mut c_void,
                WORKSPACE,
                self.stream.cu_stream().cast(),
            )
        }
    }
}

impl Kind {
    fn of(product: &LibraryProduct, addresses: [u64; 3]) -> Kind {
        let LibraryProduct { element, sizes, left, right, result, .. } = *product;
        let stride = |matrix: Matrix| matrix.stride;
        Kind {
            element,
            sizes,
            strides: [left, right, result].map(stride),
            turned: [left.is_turned, right.is_turned],
            // More than 256 bytes nobody asks for.
            aligned: addresses.map(|address| 1 << address.trailing_zeros().min(8)),
        }
    }
    fn data_type(&self) -> DataType {
        match self.element {
            Element::Bf16 => DataType::CUDA_R_16BF,
            Element::F16 => DataType::CUDA_R_16F,
            Element::F32 => DataType::CUDA_R_32F,
        }
    }
}

/// A description of a product, destroyed when it is dropped.
struct Operation(sys::cublasLtMatmulDesc_t);
/// One of a matrix.
struct Layout(sys::cublasLtMatrixLayout_t);
/// One of what an algorithm has to be like.
struct Preference(sys::cublasLtMatmulPreference_t);

impl Drop for Operation {
    fn drop(&mut self) {
        // SAFETY: it was created and is destroyed once.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: as above.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: as above.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}

impl Operation {
    /// The right factor first, each turned or not.
    fn of(kind: &Kind) -> std::result::Result<Operation, CublasError> {
        let operation =
            Operation(result::create_matmul_desc(Compute::CUBLAS_COMPUTE_32F, DataType::CUDA_R_32F)?);
        let factors = [Describe::CUBLASLT_MATMUL_DESC_TRANSB, Describe::CUBLASLT_MATMUL_DESC_TRANSA];
        for (attribute, is_turned) in factors.into_iter().zip(kind.turned) {
            // CUBLAS_OP_T is 1.
            let turn = i32::from(is_turned);
            // SAFETY: the description is alive, and the attribute is an `int`, which is copied.
            unsafe {
                result::set_matmul_desc_attribute(operation.0, attribute, (&raw const turn).cast(), 4)
            }?;
        }
        Ok(operation)
    }
}

impl Layout {
    /// Of a row-major matrix with so many rows and columns: its transpose, by columns.
    fn of(kind: &Kind, [rows, cols]: [usize; 2], stride: usize) -> std::result::Result<Layout, CublasError> {
        let ld = stride as i64;
        Ok(Layout(result::create_matrix_layout(kind.data_type(), cols as u64, rows as u64, ld)?))
    }
}

impl Preference {
    fn of(kind: &Kind) -> std::result::Result<Preference, CublasError> {
        let preference = Preference(result::create_matmul_pref()?);
        // SAFETY: the description is alive, and the attributes are numbers of these sizes, which are copied.
        let set = |attribute, value: *const c_void, bytes| unsafe {
            result::set_matmul_pref_attribute(preference.0, attribute, value, bytes)
        };
        let (workspace, joined) =
            (WORKSPACE as u64, Reduction::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32);
        set(Prefer::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, (&raw const workspace).cast(), 8)?;
        set(Prefer::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, (&raw const joined).cast(), 4)?;
        let [left, right, result] = kind.aligned;
        let aligned = [
            (Prefer::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, right),
            (Prefer::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, left),
            (Prefer::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, result),
            (Prefer::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, result),
        ];
        for (attribute, bytes) in aligned {
            set(attribute, (&raw const bytes).cast(), 4)?;
        }
        Ok(preference)
    }
}

/// The library's algorithm for a kind of product, with its descriptions: of left, right and result.
struct Chosen {
    operation: Operation,
    layouts: [Layout; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
}

impl Chosen {
    fn of(handle: sys::cublasLtHandle_t, kind: &Kind) -> std::result::Result<Chosen, CublasError> {
        let ([m, n, k], [of_left, of_right, of_result]) = (kind.sizes, kind.strides);
        let lying = |sizes: [usize; 2], is_turned| if is_turned { [sizes[1], sizes[0]] } else { sizes };
        let operation = Operation::of(kind)?;
        let layouts = [
            Layout::of(kind, lying([m, k], kind.turned[0]), of_left)?,
            Layout::of(kind, lying([k, n], kind.turned[1]), of_right)?,
            Layout::of(kind, [m, n], of_result)?,
        ];
        let preference = Preference::of(kind)?;
        let [left, right, to] = layouts.each_ref().map(|layout| layout.0);
        // SAFETY: handle and descriptions are alive.
        let found = unsafe {
            result::get_matmul_algo_heuristic(handle, operation.0, right, left, to, to, preference.0)
        }?;
        Ok(Chosen { operation, layouts, algorithm: found.algo })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::Buffer;

    /// What can be asked of the library without a device: that it takes all descriptions, of every kind of product.
    #[test]
    fn the_library_takes_our_descriptions() {
        if let Err(e) = find() {
            #[expect(clippy::print_stderr, reason = "a skipped check says so")]
            {
                eprintln!("SKIPPED: {}", e.message);
            }
            return;
        }
        let left = Matrix::turned(Buffer::Operand(0), 24);
        let (right, result) = (Matrix::new(Buffer::Operand(1), 40), Matrix::new(Buffer::Result(0), 32));
        for element in [Element::Bf16, Element::F16, Element::F32] {
            let product = LibraryProduct { element, sizes: [16, 32, 8], left, right, result, alpha: 1.0 };
            let kind = Kind::of(&product, [512, 1024 + 16, 2]);
            assert_eq!(kind.aligned, [256, 16, 2]);
            Operation::of(&kind).expect("a product is described");
            Layout::of(&kind, [8, 16], 24).expect("a matrix is described");
            Preference::of(&kind).expect("a wish is described");
        }
        let version = version().expect("the library is there");
        assert!(version.split('.').count() == 3 && !version.starts_with('0'), "{version}");
    }
}

//! Launch plans: what to launch, with which geometry and which arguments, and what it costs.
use super::{Frame, LibraryProduct, Module, Stack};
use graft_ir::DType;

/// The element type of activations and weights; sums and the gradients of weights are always `f32`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Element {
    /// bfloat16, multiplied by tensor cores.
    Bf16,
    /// binary16, multiplied by tensor cores.
    F16,
    /// binary32, multiplied by FFMA.
    F32,
}

impl Element {
    /// The one that holds numbers of this type.
    pub fn of(dtype: DType) -> Option<Element> {
        match dtype {
            DType::Bfloat16 => Some(Element::Bf16),
            DType::Float16 => Some(Element::F16),
            DType::Float => Some(Element::F32),
            _ => None,
        }
    }
    /// The type of its numbers.
    pub fn dtype(self) -> DType {
        match self {
            Element::Bf16 => DType::Bfloat16,
            Element::F16 => DType::Float16,
            Element::F32 => DType::Float,
        }
    }
    /// Its name in the sources.
    pub fn name(self) -> &'static str {
        match self {
            Element::Bf16 => "bf16",
            Element::F16 => "f16",
            Element::F32 => "float",
        }
    }
    /// Its size in bytes.
    pub fn bytes(self) -> usize {
        if self == Element::F32 { 4 } else { 2 }
    }
    /// The largest relative error of rounding to it.
    pub fn roundoff(self) -> f64 {
        match self {
            Element::Bf16 => 2f64.powi(-8),
            Element::F16 => 2f64.powi(-11),
            Element::F32 => 2f64.powi(-24),
        }
    }
}

/// The shape of a block's work in a large product.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tile {
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Steps of the sum that are in shared memory at once.
    pub k: usize,
    /// Warps along rows and columns.
    pub warps: [usize; 2],
    /// Stages of the ring of panels.
    pub stages: usize,
}

impl Tile {
    /// The threads of a block.
    pub fn threads(self) -> usize {
        32 * self.warps[0] * self.warps[1]
    }
    /// Bytes of shared memory: for each stage both panels, whose rows are as long as `rows` says, and 16 bytes more.
    ///
    /// `along_k` says of the left and of the right operand whether the index of the sum runs along memory.
    pub fn shared(self, element: Element, along_k: [bool; 2]) -> usize {
        let panel = |extent: usize, is_along_k: bool| {
            let (rows, cols) = if is_along_k { (extent, self.k) } else { (self.k, extent) };
            rows * (cols * element.bytes() + 16)
        };
        self.stages * (panel(self.m, along_k[0]) + panel(self.n, along_k[1]))
    }
    /// The same of the operands that take the most.
    pub(crate) fn most_shared(self, element: Element) -> usize {
        let any = [[false; 2], [true, false], [false, true], [true; 2]];
        any.map(|along_k| self.shared(element, along_k)).into_iter().max().unwrap_or(0)
    }
}

/// Memory that a kernel reads or writes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Buffer {
    /// An operand of the call, in the order of the function.
    Operand(usize),
    /// A result of the call.
    Result(usize),
    /// The plan's workspace, from this byte on.
    Workspace(usize),
    /// A frozen operand with room around it, which outlives the call.
    Framed(Frame),
    /// None: a null pointer.
    Null,
}

/// An argument of a kernel.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Argument {
    /// A pointer.
    Buffer(Buffer),
    /// `int`.
    Int(i32),
    /// `u32`.
    Word(u32),
    /// `i64`.
    Long(i64),
    /// `float`.
    Float(f32),
}

impl From<Buffer> for Argument {
    fn from(buffer: Buffer) -> Argument {
        Argument::Buffer(buffer)
    }
}

/// What a launch moves and computes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Traffic {
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes of global memory if everything is read and written once.
    pub ideal: u64,
    /// Bytes that the blocks ask for: what several of them read counts each time, though a cache may serve it.
    pub issued: u64,
}

impl std::ops::Add for Traffic {
    type Output = Traffic;
    fn add(self, other: Traffic) -> Traffic {
        Traffic {
            flops: self.flops + other.flops,
            ideal: self.ideal + other.ideal,
            issued: self.issued + other.issued,
        }
    }
}

/// A row-major matrix that a launch computes tile by tile, and with whose elements it can go on before it stores them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tiled {
    /// Where it is stored.
    pub to: Buffer,
    /// Its rows, those of all products of a batch one below the other.
    pub rows: usize,
    /// Its columns.
    pub cols: usize,
    /// The type that its elements are rounded to.
    pub element: Element,
}

impl std::ops::Sub for Traffic {
    type Output = Traffic;
    fn sub(self, other: Traffic) -> Traffic {
        Traffic {
            flops: self.flops - other.flops,
            ideal: self.ideal - other.ideal,
            issued: self.issued - other.issued,
        }
    }
}

/// One launch.
#[derive(Clone, PartialEq, Debug)]
pub struct Launch {
    /// The kernel's name.
    pub kernel: &'static str,
    /// Where it is defined.
    pub module: Module,
    /// Blocks along x, y and z.
    pub grid: [usize; 3],
    /// Threads of a block, along x.
    pub block: usize,
    /// Bytes of dynamic shared memory.
    pub shared: usize,
    /// The arguments, in the kernel's order.
    pub arguments: Vec<Argument>,
    /// The product that a library computes in the kernel's place, where there is the library and it is faster.
    pub library: Option<LibraryProduct>,
    /// What it costs.
    pub traffic: Traffic,
    /// What an epilogue may be put behind; none if the kernel takes none, or has one.
    pub tiled: Option<Tiled>,
    /// How it serves several calls, if it can.
    pub stack: Option<Stack>,
}

/// The launches of one call, in order.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Plan {
    /// In the order in which they have to run.
    pub launches: Vec<Launch>,
    /// Bytes of workspace, with any content.
    pub workspace: usize,
}

impl Plan {
    /// What all launches cost together.
    pub fn traffic(&self) -> Traffic {
        self.launches.iter().fold(Traffic::default(), |sum, l| sum + l.traffic)
    }
    /// Whether a library does some of it.
    pub fn uses_library(&self) -> bool {
        self.launches.iter().any(|launch| launch.library.is_some())
    }
    /// The memory that launches are given, with repetitions.
    fn buffers(&self) -> impl Iterator<Item = Buffer> + '_ {
        self.launches.iter().flat_map(|launch| &launch.arguments).filter_map(|argument| match argument {
            Argument::Buffer(buffer) => Some(*buffer),
            _ => None,
        })
    }
    /// Whether launches are given operand `i` as it is.
    pub fn reads(&self, i: usize) -> bool {
        self.buffers().any(|buffer| buffer == Buffer::Operand(i))
    }
    /// The frames that launches are given.
    pub fn frames(&self) -> Vec<Frame> {
        let mut frames = Vec::new();
        for buffer in self.buffers() {
            match buffer {
                Buffer::Framed(frame) if !frames.contains(&frame) => frames.push(frame),
                _ => {}
            }
        }
        frames
    }
    /// Result `i` of a call, or room for its `bytes` where nobody wants it but the kernels themselves.
    pub(crate) fn result(&mut self, is_wanted: bool, i: usize, bytes: usize) -> Buffer {
        if is_wanted { Buffer::Result(i) } else { self.reserve(bytes) }
    }
    /// Room for `bytes` more of workspace, aligned as device memory is.
    pub(crate) fn reserve(&mut self, bytes: usize) -> Buffer {
        let at = self.workspace.next_multiple_of(256);
        self.workspace = at + bytes;
        Buffer::Workspace(at)
    }
}

/// Inverted dropout, whose seed and step are two `int64` in device memory.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Dropout {
    /// Where seed and step lie.
    pub counters: Buffer,
    /// The number of the tensor whose draws are taken.
    pub tensor: u32,
    /// What has bits below it is dropped.
    pub threshold: u32,
    /// By how much the rest counts.
    pub scale: f32,
}

impl Dropout {
    /// Nothing is dropped.
    pub const NONE: Dropout = Dropout { counters: Buffer::Null, tensor: 0, threshold: 0, scale: 1.0 };

    pub(crate) fn arguments(&self) -> [Argument; 4] {
        [
            Argument::Buffer(self.counters),
            Argument::Word(self.tensor),
            Argument::Word(self.threshold),
            Argument::Float(self.scale),
        ]
    }
}

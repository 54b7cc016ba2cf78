//! A decoded kernel: registers are numbered densely, operands are rows of a register file, labels are addresses.
//!
//! Every operand is a row of 32 values, one for each lane. Numbers, parameters and special registers are rows too, filled
//! before a warp starts, so that an instruction never asks what its operands are. There are rows of 32 and of 64 bits; 16-bit
//! registers are kept in rows of 32, zero-extended. Instructions on 16 bits are made of those on 32 and of extensions: one
//! instruction of the text may be several here.
use crate::syntax::Space;

/// A row of 32-bit values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct R(pub(crate) u16);

/// A row of 64-bit values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct W(pub(crate) u16);

/// A predicate: a bit for each lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct P(pub(crate) u16);

/// The predicate that is true in every lane.
pub(crate) const TRUE: P = P(0);

/// Operations on one value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unary {
    Move,
    Not,
    Neg,
    Abs,
    Reverse,
    NegFloat,
    AbsFloat,
    SquareRoot,
    Reciprocal,
}

/// Operations on two values. `Signed` and `Unsigned` tell readings of the same bits apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Binary {
    Add,
    Sub,
    Mul,
    MulHighSigned,
    MulHighUnsigned,
    DivSigned,
    DivUnsigned,
    RemSigned,
    RemUnsigned,
    MinSigned,
    MinUnsigned,
    MaxSigned,
    MaxUnsigned,
    And,
    Or,
    Xor,
    AddFloat,
    SubFloat,
    MulFloat,
    DivFloat,
    MinFloat,
    MaxFloat,
    /// NaN if one of the two is.
    MinNan,
    MaxNan,
    CopySign,
}

/// Operations on three values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ternary {
    /// The low half of a·b, plus c.
    MulAdd,
    /// a·b + c, rounded once.
    Fma,
}

/// Shifts by a 32-bit count; a count above the width is the width.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shift {
    Left,
    RightSigned,
    RightUnsigned,
}

/// What is counted in a value's bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Count {
    Ones,
    LeadingZeros,
    /// The position of the highest one; all ones if there is none.
    Highest,
    /// How far it is from the top.
    HighestShift,
}

/// Operations on bits of 32-bit values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bits {
    /// Bytes of (b, a), chosen by the nibbles of c.
    Permute,
    /// The high half of (b, a) << c, c clamped or wrapped.
    FunnelLeft {
        wrap: bool,
    },
    /// The low half of (b, a) >> c.
    FunnelRight {
        wrap: bool,
    },
    /// c bits of a from position b on.
    ExtractSigned,
    ExtractUnsigned,
    /// A truth table over three values.
    Table(u8),
}

/// How a float is rounded to an integer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rounding {
    Nearest,
    Zero,
    Up,
    Down,
}

/// Conversions; their names say from what to what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Narrow {
    Sign8,
    Sign16,
    Zero8,
    Zero16,
    SignedToFloat,
    UnsignedToFloat,
    FloatToSigned(Rounding),
    FloatToUnsigned(Rounding),
    F16ToFloat,
    Bf16ToFloat,
    FloatToF16,
    FloatToBf16,
    Round(Rounding),
    Saturate,
}

/// Conversions from 32 to 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Widen {
    Sign,
    Zero,
    FloatToDouble,
    FloatToSigned(Rounding),
    FloatToUnsigned(Rounding),
    SignedToDouble,
    UnsignedToDouble,
}

/// Conversions from 64 to 32 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shorten {
    Low,
    High,
    DoubleToFloat,
    SignedToFloat,
    UnsignedToFloat,
    DoubleToSigned(Rounding),
    DoubleToUnsigned(Rounding),
}

/// Conversions within 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wide {
    SignedToDouble,
    UnsignedToDouble,
    DoubleToSigned(Rounding),
    DoubleToUnsigned(Rounding),
    Round(Rounding),
}

/// Comparisons. Those of floats are false where one is NaN, but for the negated ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Compare {
    Equal,
    NotEqual,
    LessSigned,
    LessUnsigned,
    LessEqualSigned,
    LessEqualUnsigned,
    EqualFloat,
    LessFloat,
    LessEqualFloat,
    /// Neither is NaN.
    Ordered,
    /// They are ordered and differ.
    LessOrGreater,
}

/// How predicates are combined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Logic {
    And,
    Or,
    Xor,
}

/// A predicate, or its negation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Condition {
    pub(crate) of: P,
    pub(crate) negated: bool,
}

impl Condition {
    pub(crate) const ALWAYS: Condition = Condition { of: TRUE, negated: false };
}

/// What becomes of a comparison: (result, negated or not, combined with a condition) for up to two predicates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Verdict {
    pub(crate) negated: bool,
    pub(crate) to: P,
    /// Gets the opposite.
    pub(crate) opposite: Option<P>,
    pub(crate) with: Option<(Logic, Condition)>,
}

/// Where an address is computed from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Base {
    R(R),
    W(W),
}

/// An address in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Address {
    pub(crate) base: Base,
    pub(crate) offset: i64,
}

/// A place for a value that is loaded, or one that is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    R(R),
    W(W),
    /// `_`: what is loaded is not wanted.
    None,
}

/// A load or a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Access {
    /// None: a generic address, which tells where it lies.
    pub(crate) space: Option<Space>,
    pub(crate) address: Address,
    /// Bytes of one value.
    pub(crate) bytes: u8,
    /// The sign of what is loaded is extended, and then cut to so many bits.
    pub(crate) signed: bool,
    pub(crate) cut16: bool,
    /// One, two or four values.
    pub(crate) values: Vec<Place>,
}

/// An asynchronous copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Copy {
    pub(crate) to: Address,
    pub(crate) from: Address,
    pub(crate) bytes: u8,
    /// How many bytes are read, if that is not all of them.
    pub(crate) read: Option<R>,
}

/// A product of fragments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mma {
    pub(crate) bf16: bool,
    pub(crate) d: [R; 4],
    pub(crate) a: [R; 4],
    pub(crate) b: [R; 2],
    pub(crate) c: [R; 4],
}

/// Which lane another one reads from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exchange {
    Up,
    Down,
    Butterfly,
    Index,
}

/// An exchange between lanes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Shuffle {
    pub(crate) kind: Exchange,
    pub(crate) to: R,
    pub(crate) inside: Option<P>,
    pub(crate) from: R,
    pub(crate) lane: R,
    pub(crate) clamp: R,
    pub(crate) members: R,
}

/// What is asked of all lanes' predicates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ballot {
    All,
    Any,
    Uniform,
}

/// What a barrier computes from all threads' predicates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reduction {
    Count(R),
    All(P),
    Any(P),
}

/// What an instruction does.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Op {
    Unary32(Unary, R, R),
    Unary64(Unary, W, W),
    Binary32(Binary, R, R, R),
    Binary64(Binary, W, W, W),
    Ternary32(Ternary, R, R, R, R),
    Ternary64(Ternary, W, W, W, W),
    Shift32(Shift, R, R, R),
    Shift64(Shift, W, W, R),
    Count32(Count, R, R),
    Count64(Count, R, W),
    Bits(Bits, R, [R; 3]),
    /// `bfi`: b with c bits of a put at the position.
    Insert(R, [R; 4]),
    Insert64(W, [W; 2], [R; 2]),
    /// The whole product of two 32-bit values, plus a third.
    MulWide {
        signed: bool,
        to: W,
        of: [R; 2],
        plus: Option<W>,
    },
    Narrow(Narrow, R, R),
    Widen(Widen, W, R),
    Shorten(Shorten, R, W),
    Wide(Wide, W, W),
    /// Two 16-bit values into one of 32, and two of 32 into one of 64: low, high.
    Pack16(R, R, R),
    Pack32(W, R, R),
    /// The high half of 32 bits.
    High16(R, R),
    Compare32(Compare, R, R, Verdict),
    Compare64(Compare, W, W, Verdict),
    Select32(R, R, R, Condition),
    Select64(W, W, W, Condition),
    Logic(Logic, P, Condition, Condition),
    Load(Box<Access>),
    Store(Box<Access>),
    Copy(Box<Copy>),
    Commit,
    /// Waits until at most so many groups of copies are under way.
    Wait(u32),
    Matrices {
        transposed: bool,
        address: Address,
        to: Box<[R]>,
    },
    Mma(Box<Mma>),
    Shuffle(Box<Shuffle>),
    Vote {
        kind: Ballot,
        to: P,
        of: Condition,
        members: R,
    },
    Ballot {
        to: R,
        of: Condition,
        members: R,
    },
    ActiveMask(R),
    ReduceWarp {
        with: Binary,
        to: R,
        of: R,
        members: R,
    },
    SyncWarp(R),
    /// A barrier of the block.
    Barrier(u8),
    BarrierReduce {
        id: u8,
        with: Reduction,
        of: Condition,
    },
    Branch(u32),
    /// To one of several targets, by a number.
    BranchTable(R, Box<[u32]>),
    Exit,
    Trap,
}

/// An instruction: where the condition holds, the operation.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Step {
    pub(crate) when: Condition,
    pub(crate) op: Op,
    /// The line of the text.
    pub(crate) line: u32,
}

/// What the threads of a block find in special registers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Special {
    Thread(u8),
    Threads(u8),
    Block(u8),
    Blocks(u8),
    Lane,
    WarpIndex,
    /// Dynamic shared memory of the launch, in bytes.
    DynamicShared,
}

/// A parameter in the kernel's parameter memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Parameter {
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
}

/// A row that holds bytes of the parameters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Given {
    pub(crate) to: Place,
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
    pub(crate) signed: bool,
    pub(crate) cut16: bool,
}

/// A decoded kernel.
#[derive(Debug, Default)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) steps: Vec<Step>,
    /// How many rows and predicates there are.
    pub(crate) rows: [usize; 3],
    /// Rows with one value in all lanes.
    pub(crate) numbers: Vec<(Place, u64)>,
    pub(crate) given: Vec<Given>,
    pub(crate) special: Vec<(R, Special)>,
    /// Bytes of shared memory that the text declares; where dynamic shared memory begins.
    pub(crate) shared: usize,
    /// Bytes of local memory of each thread.
    pub(crate) local: usize,
    pub(crate) most_threads: Option<usize>,
}
